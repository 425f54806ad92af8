"""A socket that connects to one peer and survives it: the peer may come later, go, and come back.

Nothing that comes from an ipc address is used until the kernel has said who listens there. When
that connection ends, or the peer is not trusted, the socket is closed with its content and a new
one is tried. ZeroMQ silently gives a peer up for good when it refuses us or breaks the protocol:
then, too, the socket is opened again.
"""

from __future__ import annotations

import logging
import struct
from typing import Any

import zmq

from ..base.backoff import Backoff
from ..base.clock import monotonic
from ..base.errors import PeerError, Problem, UsageError
from ..base.log import NOTICE, event
from ..base.once_per import LimitedLog
from . import ipc, security, sockets
from .security import LOCAL_CONNECTING, Connecting
from .sockets import HIGH_WATER, MAX_MESSAGE

log = logging.getLogger(__name__)

MIN_RETRY_DELAY, MAX_RETRY_DELAY = 0.05, 1.0
"""Seconds until an ipc address without a peer, or the other address of a name, is tried again; each
time twice as long."""

MIN_DISTRUST_DELAY, MAX_DISTRUST_DELAY = 1.0, 30.0
"""Likewise for one with a peer that is not trusted."""

REOPEN_DELAY = 10.0
"""Seconds without a connection until a socket is opened again, whatever ZeroMQ reports."""

NEVER = 2**30
"""Milliseconds until ZeroMQ reconnects an ipc socket; the socket is closed long before."""

ANNOUNCE_TIMEOUT = 0.5
"""Seconds after the end of a connection in which ZeroMQ announces whether it makes another one."""

_REPORT = struct.Struct("=Hi")
"""The first frame of a monitor's report: the event, and its value (zmq_socket_monitor(3)).
pyzmq's own parser would load all of asyncio, a quarter of what a daemon takes to start."""


class MonitoredSocket:
    """A connection to a peer.

    Args:
        protection: our keys and the peer's.
        immediate: refuse to send while the peer is away, instead of queueing.
        max_frame: bytes of a frame; a peer that sends more is disconnected.
        high_water: messages that the socket holds.
        reopen_delay: seconds without a connection until the socket is opened again, even if ZeroMQ
            has not given the peer up; None leaves all reopening to the caller.

    Attributes:
        socket: the present one; while it is not `open`, it may only be polled.
        distrust: why the peer is not trusted; None if it is, or if there is none.

    Raises UsageError if it is not an address, or may not be connected with this protection.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        kind: int,
        address: str,
        protection: Connecting = LOCAL_CONNECTING,
        *,
        immediate: bool = False,
        max_frame: int = MAX_MESSAGE,
        high_water: int = HIGH_WATER,
        reopen_delay: float | None = REOPEN_DELAY,
    ) -> None:
        self.address = address
        self._endpoint = security.endpoint("connect to", address, protection)
        self._peers = protection.peers
        self._asks_who = address.startswith(ipc.SCHEME)
        self._reopen_delay = reopen_delay
        self._context, self._kind, self._protection = context, kind, protection
        # A request that is queued until the peer comes back would be answered twice.
        self._immediate = immediate or kind == zmq.DEALER
        self._max_frame, self._high_water = max_frame, high_water
        self._ipv6 = security.ipv6(self._endpoint, protection)
        self.distrust: Problem | None = None
        self._log = LimitedLog(log)
        self._absent = Backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._distrusted = Backoff(MIN_DISTRUST_DELAY, MAX_DISTRUST_DELAY)
        self._other_address = Backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._next_address = 0.0
        self._successes = self._endings = 0  # of sockets before this one
        self._open_socket()
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _open_socket(self) -> None:
        self.socket = sockets.new(
            self._context, self._kind, self.address, self._protection, self._ipv6[0]
        )
        if self._kind == zmq.SUB:
            self.socket.setsockopt(zmq.SUBSCRIBE, b"")
        self.socket.setsockopt(zmq.MAXMSGSIZE, self._max_frame)
        self.socket.set_hwm(self._high_water)
        self.socket.setsockopt(zmq.IMMEDIATE, int(self._immediate))
        if self._asks_who:
            # ZeroMQ would reconnect to anybody who has the address by then.
            self.socket.setsockopt(zmq.RECONNECT_IVL, NEVER)
            self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
        self._monitor = _Monitor(self._context, self.socket, self.address)
        self._connecting = False
        self._known = not self._asks_who
        self._seen: ipc.Identity | None = None
        self._next_try = 0.0
        self._apart_since = monotonic()

    @property
    def open(self) -> bool:
        """True if what comes from the socket may be used, even after its connection has ended."""
        return self._known

    @property
    def connected(self) -> bool:
        """True while the peer is there and trusted."""
        return self._known and self._monitor.succeeded

    @property
    def connections(self) -> int:
        """How many connections to a trusted peer there have been."""
        return self._successes + (self._monitor.successes if self._known else 0)

    @property
    def endings(self) -> int:
        return self._endings + self._monitor.endings

    @property
    def refused(self) -> bool:
        """True if the last handshake ended because our key is not allowed."""
        return self._monitor.refused

    @property
    def failed(self) -> bool:
        """True if the last handshake failed, for any reason."""
        return self._monitor.failed

    @property
    def given_up(self) -> bool:
        """True if there is no connection, and ZeroMQ will never make another one."""
        return self._monitor.given_up

    @property
    def broke_protocol(self) -> bool:
        """Likewise, for a reason after the handshake."""
        return self.given_up and not self.failed

    @property
    def descriptor(self) -> int | None:
        """The descriptor of the connection, ZeroMQ's own; None if there is none."""
        return self._monitor.descriptor

    def look(self) -> None:
        """Notice what happened, and connect again if it is time; never waits."""
        self._monitor.look()
        if self._asks_who:
            self._look_at_ipc()
        now = monotonic()
        if self.connected:
            self._apart_since = now
            self._other_address.worked()
        elif len(self._ipv6) > 1 and self._monitor.retried and not self._monitor.reached:
            if now >= self._next_address:
                self._next_address = now + self._other_address.failed()
                self.reopen()
        elif self._reopen_delay is not None and (
            self.given_up or now - self._apart_since >= self._reopen_delay
        ):
            self.reopen()

    def _look_at_ipc(self) -> None:
        if not self._connecting:
            if monotonic() >= self._next_try:
                self._connect()
            return
        if not self._known and self._monitor.descriptor is not None:
            self._ask_who()
        elif self._monitor.succeeded:
            self._absent.worked()
            self._distrusted.worked()
        ended = self._monitor.retried or (self._monitor.given_up and not self._known)
        # What came before the end may be used, and may still have to be read.
        if ended and not (self._known and self.socket.poll(0)):
            self._try_later(self._absent)

    def _connect(self) -> None:
        """Have ZeroMQ connect, unless the file at the address is missing or not trusted."""
        if ipc.file_of(self.address) is not None:
            try:
                self._seen = ipc.look_at(self.address, self._peers)
            except PeerError as error:
                self._refuse(error)
                return
            if self._seen is None:
                self.distrust = None
                self._try_later(self._absent)
                return
        try:
            self.socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            raise UsageError(
                f"connect to {self.address}",
                error.strerror or error,
                "give an address such as ipc:///run/piw-indexer/changes or tcp://host:port",
            ) from error
        self._connecting = True

    def _ask_who(self) -> None:
        """Ask the kernel who listens at the other end of the connection."""
        assert self._monitor.descriptor is not None
        try:
            ipc.refuse_stranger(self.address, self._monitor.descriptor, self._peers)
            # The file that was examined must be the one that ZeroMQ has opened.
            same = self._seen is None or ipc.look_at(self.address, self._peers) == self._seen
        except PeerError as error:
            self._refuse(error)
            return
        except OSError:
            same = False
        self._monitor.look()
        if not same or self._monitor.descriptor is None:
            # The connection has ended; by then its descriptor may have belonged to another one.
            self._try_later(self._absent)
            return
        self._known = True
        if self.distrust:
            self._log.log(
                NOTICE,
                "the peer at %s is trusted now",
                self.address,
                extra=event("peer-believed", address=self.address),
            )
            self.distrust = None

    def _refuse(self, error: PeerError) -> None:
        if self.distrust != error.problem:
            self._log.error("%s", error, extra=event("peer-not-believed", address=self.address))
        self.distrust = error.problem
        self._try_later(self._distrusted)

    def _try_later(self, backoff: Backoff) -> None:
        """Close the socket if it was connected, and connect another one later."""
        if self._connecting:
            self._replace_socket()
        self._next_try = monotonic() + backoff.failed()

    def _replace_socket(self) -> None:
        self._successes, self._endings = self.connections, self.endings
        if not self._monitor.reached:  # the peer may listen at its other address
            self._ipv6 = (*self._ipv6[1:], self._ipv6[0])
        self.close()
        self._open_socket()

    def reopen(self) -> None:
        """Close the socket with its content, and connect another one."""
        next_try = self._next_try if self.distrust else 0.0
        self._replace_socket()
        self._next_try = next_try
        if monotonic() >= next_try:
            self._connect()

    def close(self) -> None:
        self._monitor.close()
        self.socket.close()


class _Monitor:
    """Watches the connection of a socket; made before the socket is connected.

    Between sockets of this process there are no handshakes: the peer counts as connected.

    Attributes:
        reached: true if there was ever a connection, whatever became of it.
        refused: true if the last handshake ended because our key is not allowed.
        failed: true if the last one failed, for any reason.
        succeeded: true if the last one succeeded, and the connection is open.
        given_up: true if the connection has ended, and ZeroMQ will not make another one.
        retried: true if there is no connection, and ZeroMQ is trying to make one.
        descriptor: of the connection, ZeroMQ's own; None if there is none.
        successes: how many handshakes have succeeded.
        endings: how many connections have ended.
    """

    _number = 0

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[bytes], address: str) -> None:
        self._socket = socket
        self._events: zmq.Socket[bytes] | None = None
        self._parted_at: float | None = None
        self.reached = self.refused = self.failed = self.given_up = self.retried = False
        self.descriptor: int | None = None
        self.endings = 0
        self.succeeded = address.startswith("inproc://")
        self.successes = int(self.succeeded)
        if self.succeeded:
            return
        _Monitor._number += 1
        reports = f"inproc://monitor-{_Monitor._number}"
        socket.monitor(
            reports,
            zmq.EVENT_CONNECTED
            | zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CONNECT_RETRIED,
        )
        self._events = sockets.bare(context, zmq.PAIR)
        # With a limit, ZeroMQ would block when nobody reads the events for a while.
        self._events.setsockopt(zmq.RCVHWM, 0)
        self._events.connect(reports)

    def look(self) -> None:
        while self._events is not None and self._events.poll(0):
            event, value = _REPORT.unpack(self._events.recv_multipart()[0])
            if event == zmq.EVENT_MONITOR_STOPPED:
                continue
            self._parted_at = monotonic() if event == zmq.EVENT_DISCONNECTED else None
            self.endings += event == zmq.EVENT_DISCONNECTED
            self.retried = event == zmq.EVENT_CONNECT_RETRIED
            if event == zmq.EVENT_CONNECTED:
                self.reached = True
                self.descriptor = value
                continue
            if event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CONNECT_RETRIED):
                self.descriptor = None
            if event == zmq.EVENT_CONNECT_RETRIED:
                continue
            self.succeeded = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.successes += self.succeeded
            if event != zmq.EVENT_DISCONNECTED:  # that follows a failure, and tells nothing of it
                self.refused = event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
                self.failed = not self.succeeded
        # ZeroMQ announces a new attempt at once, but perhaps after these events were read.
        self.given_up = (
            self._parted_at is not None and monotonic() - self._parted_at >= ANNOUNCE_TIMEOUT
        )

    def close(self) -> None:
        """Stop watching; must be called before the socket is closed.

        The monitor must be disabled first. A closing socket still emits events, and libzmq blocks
        forever if nobody reads them.
        """
        if self._events is not None:
            if not self._socket.closed:
                self._socket.disable_monitor()
            self._events.close()
