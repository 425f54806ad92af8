"""A connection to one peer, of which nothing counts until it is known whose it is.

Every connection to an ipc address has a socket of its own: it is asked who listens at the other
end before anything is taken from it or sent to it. When it ends, or is not believed, the socket is
closed with what came through it, and another one is tried.
"""

from __future__ import annotations

import logging
from typing import Any

import zmq

from ..base.clock import monotonic
from ..base.errors import PeerError, UsageError
from ..base.log import NOTICE, event
from ..base.once_per import LimitedLog
from . import ipc, security, sockets
from .security import LOCAL_CONNECTING, Connecting
from .sockets import HIGH_WATER, MAX_MESSAGE, Handshakes

log = logging.getLogger(__name__)

MIN_PAUSE, MAX_PAUSE = 0.05, 1.0
"""Seconds until an ipc address is tried again where nobody was; each time twice as long."""

MIN_DISTRUST, MAX_DISTRUST = 1.0, 30.0
"""Likewise, where somebody was who is not believed."""


class Line:
    """A connection to a peer, which may come later, go, and come back.

    Args:
        context: of ZeroMQ.
        kind: of the socket.
        address: of the peer.
        protection: how we prove who we are, and know the peer.
        immediate: send nothing while the peer is not there, instead of keeping it for later.
        most: bytes of a frame; a peer that sends more is disconnected.
        high_water: messages that the socket holds.
        ipv6: look names of hosts up for IPv6, too.

    Attributes:
        socket: at present; only to wait with while the line is not `open`.
        distrust: why the peer that is there is not believed; empty if it is, or nobody is there.
        connections: how many there have been that were believed.

    Raises:
        UsageError: if it is not an address, or may not be connected with this protection.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        kind: int,
        address: str,
        protection: Connecting = LOCAL_CONNECTING,
        *,
        immediate: bool = False,
        most: int = MAX_MESSAGE,
        high_water: int = HIGH_WATER,
        ipv6: bool = False,
    ) -> None:
        self.address = address
        self._endpoint = security.endpoint("connect to", address, protection)
        self._peers = protection.peers
        self._asks_who = address.startswith(ipc.SCHEME)

        def new() -> tuple[zmq.Socket[bytes], Handshakes | None]:
            return sockets.connectable(
                context,
                kind,
                address,
                protection,
                immediate=immediate,
                most=most,
                high_water=high_water,
                ipv6=ipv6,
            )

        self._new = new
        self.socket, self._handshakes = self._new()
        self.distrust = ""
        self._log = LimitedLog(log)
        self._successes = self._endings = 0  # of sockets before this one
        self._tries = 0  # in a row that led to nobody whom we believe
        self._begin()
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Nothing is known of a new socket."""
        self._connecting = False
        self._known = not self._asks_who
        self._seen: ipc.Identity | None = None
        self._next = 0.0

    @property
    def open(self) -> bool:
        """True if what comes from the socket, or came before the end of its connection, counts."""
        return self._known

    @property
    def connected(self) -> bool:
        """True while the peer is there, and is believed."""
        return self._known and (self._handshakes is None or self._handshakes.succeeded)

    @property
    def connections(self) -> int:
        """How many there have been that were believed."""
        if self._handshakes is None:  # in this process there is always the same one
            return 1
        return self._successes + (self._handshakes.successes if self._known else 0)

    @property
    def endings(self) -> int:
        """How many connections have ended."""
        return self._endings + (self._handshakes.endings if self._handshakes is not None else 0)

    @property
    def handshakes(self) -> Handshakes | None:
        """How those of the present socket end; None in this process, where there are none."""
        return self._handshakes

    @property
    def given_up(self) -> bool:
        """True if the peer broke the protocol, and ZeroMQ will never connect this socket again."""
        return self._handshakes is not None and self._handshakes.given_up

    @property
    def connection(self) -> int | None:
        """The descriptor of the connection, ZeroMQ's own; None if there is none."""
        return self._handshakes.connection if self._handshakes is not None else None

    def look(self) -> None:
        """Take note of what happened, and try again where it is time; never waits."""
        if self._handshakes is None:
            return
        self._handshakes.look()
        if not self._asks_who:
            return
        if not self._connecting:
            if monotonic() >= self._next:
                self._connect()
            return
        if not self._known and self._handshakes.connection is not None:
            self._ask_who()
        elif self._handshakes.succeeded:
            self._tries = 0
        ended = self._handshakes.retried or (self._handshakes.given_up and not self._known)
        # What came before the end counts, and may still have to be taken.
        if ended and not (self._known and self.socket.poll(0)):
            self._wait(MIN_PAUSE, MAX_PAUSE)

    def _connect(self) -> None:
        """Have ZeroMQ connect, if there is somebody whom we believe as far as can be seen."""
        if ipc.file_of(self.address) is not None:
            try:
                self._seen = ipc.look_at(self.address, self._peers)
            except PeerError as error:
                self._refuse(error)
                return
            if self._seen is None:
                self.distrust = ""
                self._pause(MIN_PAUSE, MAX_PAUSE)
                return
        try:
            self.socket.connect(self._endpoint)
        except zmq.ZMQError as error:
            raise UsageError(
                f"connect to {self.address}",
                error.strerror or error,
                "give an address as ipc:///run/piw-indexer/changes or tcp://host:port",
            ) from error
        self._connecting = True

    def _ask_who(self) -> None:
        """Find out who listens at the other end of the connection that there is."""
        assert self._handshakes is not None
        assert self._handshakes.connection is not None
        try:
            ipc.refuse_stranger(self.address, self._handshakes.connection, self._peers)
            # The file that we looked at must be the one that ZeroMQ has opened.
            same = self._seen is None or ipc.look_at(self.address, self._peers) == self._seen
        except PeerError as error:
            self._refuse(error)
            return
        except OSError:
            same = False
        self._handshakes.look()
        if not same or self._handshakes.connection is None:
            # It has ended, and its descriptor may have been another's when we asked.
            self._wait(MIN_PAUSE, MAX_PAUSE)
            return
        self._known = True
        if self.distrust:
            self._log.log(
                NOTICE,
                "what is at %s is believed now",
                self.address,
                extra=event("peer-believed", address=self.address),
            )
            self.distrust = ""

    def _refuse(self, error: PeerError) -> None:
        if self.distrust != str(error):
            self._log.error(
                "%s",
                error,
                extra=event("peer-not-believed", address=self.address),
            )
        self.distrust = str(error)
        self._wait(MIN_DISTRUST, MAX_DISTRUST)

    def _wait(self, shortest: float, longest: float) -> None:
        """Close the socket with what is in it, and try again later."""
        if self._connecting:
            self._renew()
        self._pause(shortest, longest)

    def _pause(self, shortest: float, longest: float) -> None:
        self._next = monotonic() + min(longest, shortest * 2 ** min(self._tries, 10))
        self._tries += 1

    def _renew(self) -> None:
        self._successes, self._endings = self.connections, self.endings
        self.close()
        self.socket, self._handshakes = self._new()
        self._begin()

    def open_again(self) -> None:
        """Close the socket with what is in it, and connect another one."""
        due = self._next if self.distrust else 0.0
        self._renew()
        self._next = due
        if monotonic() >= due:
            self._connect()

    def close(self) -> None:
        """Close the socket."""
        if self._handshakes is not None:
            self._handshakes.close()
        self.socket.close()
