"""ZeroMQ sockets with limits on what they hold, and on who may connect."""

from __future__ import annotations

import os
import struct
from typing import Any

import zmq

from ..base.clock import monotonic
from ..base.errors import PeerError, UsageError
from . import ipc, security
from .security import LOCAL_BINDING, Binding, Connecting

HIGH_WATER = 20_000
"""Messages that a socket holds for a slow peer before it drops them; replay brings them back."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a frame of a replay; a peer that sends more is disconnected. A snapshot of a package
with 9,500 versions of two files each has 8 MB."""

MAX_REPLAY_WAITING = 4
"""Answers to a replay that wait to be read: each may be as large as a frame may be."""

MAX_PUBLISHED = 64 * 1024
"""Bytes of a message that is sent to all subscribers; a larger one is only replayed. Subscribers
accept larger frames only in replays."""

MAX_CHANGES_WAITING = 1000
"""Messages that a subscriber's socket holds; more of them wait in the kernel and the publisher."""

MAX_REQUEST = 1024
"""Bytes of a frame from a subscriber: a subscription, a request, or part of a handshake."""

MAX_REQUESTS_WAITING = 64
"""Requests of one subscriber that wait to be read."""

MAX_CONNECTIONS_WAITING = 64
"""Connections that wait to be accepted."""

HANDSHAKE_TIMEOUT = 3000
"""Milliseconds that a handshake may take: a client that only connects must not block others."""

NEVER = 2**30
"""Milliseconds until ZeroMQ reconnects an ipc socket; the socket is closed long before."""

ANNOUNCE_TIMEOUT = 0.5
"""Seconds after the end of a connection in which ZeroMQ announces whether it makes another one."""

GATE = "inproc://zeromq.zap.01"
"""Its address is fixed by https://rfc.zeromq.org/spec/27/."""

_REPORT = struct.Struct("=Hi")
"""The first frame of a monitor's report: the event, and its value (zmq_socket_monitor(3)).
pyzmq's own parser would load all of asyncio, a quarter of what a daemon takes to start."""


def bound(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Binding = LOCAL_BINDING,
    *,
    high_water: int = MAX_REQUESTS_WAITING,
    max_frame: int = MAX_REQUEST,
) -> tuple[zmq.Socket[bytes], ipc.Listener | None]:
    """A socket bound to `address`.

    Args:
        context: of ZeroMQ.
        kind: of the socket.
        address: where others connect to.
        protection: who may connect.
        high_water: messages of one peer that it holds.
        max_frame: bytes of a frame; a peer that sends more is disconnected.

    Returns:
        The socket, and the file of an ipc address, to be removed when the socket is closed.

    Raises:
        UsageError: if the address cannot be bound, or not with this protection.
    """
    endpoint = security.endpoint("bind", address, protection)
    socket = _socket(context, kind, address, protection)
    socket.setsockopt(zmq.RCVHWM, high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame)
    socket.setsockopt(zmq.BACKLOG, MAX_CONNECTIONS_WAITING)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT)
    if kind == zmq.XPUB:
        # Report every subscription and every end: a client that makes up many is detected.
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    listener = None
    try:
        if ipc.file_of(address) is not None:
            # ZeroMQ would silently remove any file at the address, even a socket in use. So it
            # gets a socket that already listens.
            listener = ipc.Listener(address, protection.ipc_mode, protection.ipc_group)
            socket.setsockopt(zmq.USE_FD, listener.descriptor)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        if listener is not None:
            os.close(listener.descriptor)
            listener.remove()
        raise UsageError(
            f"bind {address}",
            error.strerror or error,
            "give an address that nobody else has bound, as ipc:///run/piw-indexer/changes; "
            "the directory of an ipc socket must exist",
        ) from error
    except UsageError:
        socket.close()
        raise
    return socket, listener


def connectable(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Connecting,
    *,
    immediate: bool = False,
    max_frame: int = MAX_MESSAGE,
    high_water: int = HIGH_WATER,
    ipv6: bool = False,
) -> tuple[zmq.Socket[bytes], Monitor]:
    """A socket to be connected to `address` by `MonitoredSocket`.

    Args:
        context: of ZeroMQ.
        kind: of the socket.
        address: of the peer.
        protection: our keys and the peer's.
        immediate: refuse to send while the peer is away, instead of queueing.
        max_frame: bytes of a frame; a peer that sends more is disconnected.
        high_water: messages that it holds in each direction.
        ipv6: resolve host names for IPv6, too.

    Returns:
        The socket, and what watches its connection.
    """
    socket = _socket(context, kind, address, protection)
    if kind == zmq.SUB:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame)
    socket.set_hwm(high_water)
    if ipv6 and address.startswith("tcp://"):
        socket.setsockopt(zmq.IPV6, 1)
    if kind == zmq.DEALER or immediate:
        # A request that is queued until the peer comes back would be answered twice.
        socket.setsockopt(zmq.IMMEDIATE, 1)
    if address.startswith(ipc.SCHEME):
        # ZeroMQ would reconnect to anybody who has the address by then. `MonitoredSocket` makes
        # a new socket and checks again.
        socket.setsockopt(zmq.RECONNECT_IVL, NEVER)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 0)
    return socket, Monitor(context, socket, address)


def gate(context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    """The socket on which ZeroMQ asks who may connect; one for each context."""
    socket = _new(context, zmq.REP)
    socket.bind(GATE)
    return socket


class Monitor:
    """Watches the connection of a socket; made before the socket is connected.

    Between sockets of this process there are no handshakes: the peer counts as connected.

    Attributes:
        refused: true if the last handshake ended because our key is not allowed.
        failed: true if the last one failed, for any reason.
        succeeded: true if the last one succeeded, and the connection stands.
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
        self.refused = self.failed = self.given_up = self.retried = False
        self.descriptor: int | None = None
        self.endings = 0
        self.succeeded = address.startswith("inproc://")
        self.successes = int(self.succeeded)
        if self.succeeded:
            return
        Monitor._number += 1
        reports = f"inproc://monitor-{Monitor._number}"
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
        self._events = _new(context, zmq.PAIR)
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


def _socket(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Binding | Connecting,
) -> zmq.Socket[bytes]:
    socket = _new(context, kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    # Only a keepalive notices tcp peers that vanish silently.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
    if address.startswith("tcp://"):
        socket.setsockopt(zmq.IPV6, int("[" in address))
        security.protect(socket, protection)
    return socket


def _new(context: zmq.Context[Any], kind: int) -> zmq.Socket[bytes]:
    try:
        socket: zmq.Socket[bytes] = context.socket(kind)
    except zmq.ZMQError as error:
        raise PeerError("open a socket", error.strerror or error) from error
    socket.setsockopt(zmq.LINGER, 0)
    return socket
