"""A publisher of a change feed: a durable spool, PUB with heartbeats, ROUTER for replay.

A message is in the spool before it is sent, so whoever missed it can ask for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zmq

from .. import decode, encode, times
from ..clock import Clock
from ..errors import DecodeError
from ..journal import Entry, Journal, Row
from ..journal_log import event
from ..lock import Lock
from ..messages import Position
from . import ipc, sockets
from .security import LOCAL_BINDING, Binding, Gatekeeper

log = logging.getLogger(__name__)

COMPLAIN_EVERY = 60 * times.SECOND
"""Between two complaints of requests that are none."""

HEARTBEAT_EVERY = times.SECOND
"""Microseconds between heartbeats."""

MOST_REPLAYED = 1000
"""Messages in one answer: what a subscriber's socket can hold, with room to spare."""


class Endpoint:
    """The sockets of a publisher, bound; they may outlive its spool.

    Args:
        changes_queue: the address that PUB binds.
        replay_queue: the address that ROUTER binds.
        clock: for the pace of reports.
        protection: who may connect.
        later: whether `bind` is called later; until then nobody can connect.

    Attributes:
        bound: whether others can connect.

    Raises:
        UsageError: if an address cannot be bound.
    """

    def __init__(
        self,
        changes_queue: str,
        replay_queue: str,
        clock: Clock,
        protection: Binding = LOCAL_BINDING,
        *,
        later: bool = False,
    ) -> None:
        self._listeners: list[ipc.Listener] = []
        self._protection = protection
        self.bound = False
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._gatekeeper: Gatekeeper | None = None
            if protection.pair is not None:
                self._gatekeeper = Gatekeeper(
                    sockets.gate(self._context), protection.allowed, clock
                )
            # XPUB is PUB that tells of its subscribers.
            self.changes = sockets.opened(self._context, zmq.XPUB, changes_queue, protection)
            self.replay = sockets.opened(self._context, zmq.ROUTER, replay_queue, protection)
            self._unbound = [(self.changes, changes_queue), (self.replay, replay_queue)]
            if not later:
                self.bind()
        except BaseException:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self.changes, zmq.POLLIN)
        self._poller.register(self.replay, zmq.POLLIN)
        if self._gatekeeper is not None:
            self._poller.register(self._gatekeeper.socket, zmq.POLLIN)
        self.subscribers = 0

    def bind(self) -> None:
        """Let others connect; if one of the addresses cannot be bound, it may be tried again.

        Raises:
            UsageError: if that is so.
        """
        while self._unbound:
            socket, address = self._unbound[0]
            listener = sockets.bind(socket, address, self._protection)
            if listener is not None:
                self._listeners.append(listener)
            del self._unbound[0]
        self.bound = True

    def watch(self, descriptor: int) -> None:
        """Stop waiting when a descriptor can be read, too."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, seconds: float) -> tuple[bool, bool]:
        """Wait until something arrives, and look after who comes in.

        Returns:
            Whether somebody new subscribed, and whether somebody asks for a replay.
        """
        events = dict(self._poller.poll(max(0, round(seconds * 1000))))
        if self._gatekeeper is not None and self._gatekeeper.socket in events:
            self._gatekeeper.answer()
        return self.changes in events and self._subscription(), self.replay in events

    def _subscription(self) -> bool:
        somebody_new = False
        while self.changes.poll(0):
            frame = self.changes.recv()
            if frame[:1] == b"\1":
                self.subscribers += 1
                somebody_new = True
            elif frame[:1] == b"\0":
                self.subscribers -= 1
        return somebody_new

    def close(self, linger: float = 0.0) -> None:
        """Close the sockets, with up to `linger` seconds to send what is queued."""
        self._context.destroy(linger=round(linger * 1000))
        for listener in self._listeners:
            listener.remove()


class FeedPublisher:
    """Publishes messages, and serves those that were missed.

    Args:
        spool: the directory of its spool; made if it is not there.
        feed: the name of the feed.
        changes_queue: the address that PUB binds.
        replay_queue: the address that ROUTER binds.
        clock: for heartbeats and the spool.
        protection: who may connect.
        endpoint: sockets that are bound already, and stay so; the addresses are not used then.

    Raises:
        StateError: if the spool is locked, damaged or cannot be written.
        UsageError: if an address cannot be bound.
    """

    def __init__(
        self,
        spool: Path,
        feed: str,
        changes_queue: str,
        replay_queue: str,
        clock: Clock,
        protection: Binding = LOCAL_BINDING,
        endpoint: Endpoint | None = None,
    ) -> None:
        self.feed = feed
        self._clock = clock
        self._own: Endpoint | None = None
        self._lock = Lock(spool, "publish")
        try:
            self.spool = Journal(spool, clock)
        except BaseException:
            self._lock.release()
            raise
        try:
            self.spool.begin()
            self.epoch = self.spool.epoch
            if endpoint is None:
                endpoint = self._own = Endpoint(changes_queue, replay_queue, clock, protection)
        except BaseException:
            self.close()
            raise
        self._endpoint = endpoint
        self._next_heartbeat = 0
        self.last_request = 0
        self._complained = -COMPLAIN_EVERY
        """When somebody last asked for a replay, microseconds since 1970."""

    @property
    def subscribers(self) -> int:
        """How many subscribe."""
        return self._endpoint.subscribers

    def publish(self, entries: Iterable[Entry]) -> list[Row]:
        """Spool messages, then send them.

        Returns:
            Those that are new.

        Raises:
            JournalError: if they could not be spooled; then nothing was sent.
        """
        rows = self.spool.append(entries)
        self._send(rows)
        return rows

    def _send(self, rows: Iterable[Row]) -> None:
        send = self._endpoint.changes.send
        more = int(zmq.SNDMORE)  # combining the enum's members costs as much as sending
        for serial, message in rows:
            send(encode.topic(message), more)
            send(encode.payload(Position(self.feed, self.epoch, serial), message))

    def heartbeat(self) -> None:
        """Tell the last serial."""
        self._endpoint.changes.send_multipart(
            encode.heartbeat(Position(self.feed, self.epoch, self.spool.serial))
        )

    def serve(self, seconds: float) -> None:
        """Answer requests and send heartbeats for about `seconds`; returns when it did either."""
        now = self._clock()
        if now >= self._next_heartbeat or now < self._next_heartbeat - HEARTBEAT_EVERY:
            self.heartbeat()
            self._next_heartbeat = now + HEARTBEAT_EVERY
        wait = min(seconds, (self._next_heartbeat - now) / times.SECOND)
        somebody_new, somebody_asks = self._endpoint.wait(wait)
        if somebody_new:
            self._next_heartbeat = 0  # tell the new one at once how far we are
        if somebody_asks:
            self._answer()

    def _answer(self) -> None:
        *envelope, payload = self._endpoint.replay.recv_multipart()
        self.last_request = self._clock()
        try:
            request = decode.replay_request(payload)
        except DecodeError as error:
            if self._clock() - self._complained >= COMPLAIN_EVERY:
                self._complained = self._clock()
                log.warning("refused a replay request: %s", error, extra=event("replay-refused"))
            return
        first = self.spool.first
        send = self._endpoint.replay.send_multipart
        if request.epoch != self.epoch or request.after + 1 < first:
            send([*envelope, encode.replay_gone(self.epoch, first)])
            return
        rows = self.spool.read(request.after, min(request.limit, MOST_REPLAYED))
        for row in rows:
            position = Position(self.feed, self.epoch, row.serial)
            send([*envelope, encode.payload(position, row.message)])
        send([*envelope, encode.replay_end(rows[-1].serial if rows else self.spool.serial)])

    def close(self, linger: float = 0.0) -> None:
        """Close the spool, and its own sockets, with up to `linger` seconds to send the rest."""
        if self._own is not None:
            self._own.close(linger)
        self.spool.close()
        self._lock.release()
