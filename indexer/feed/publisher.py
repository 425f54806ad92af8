"""A publisher of a change feed: a durable spool, PUB with heartbeats, ROUTER for replay.

A message is in the spool before it is sent, so a subscriber that missed it can request it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from ..base import times
from ..base.clock import Clock, monotonic
from ..base.errors import DecodeError
from ..base.lock import Lock
from ..base.log import event
from ..base.once_per import LimitedLog
from ..journal.journal import Journal
from ..journal.reader import JournalReader
from ..messages import decode, encode
from ..messages.entries import Entry, Row
from ..messages.types import Position
from . import ipc, sockets
from .peer_connection import PeerConnection, sender
from .security import LOCAL_BINDING, Authenticator, Binding

log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = times.SECOND
"""Microseconds between heartbeats."""

MAX_REPLAYED = 1000
"""Messages in one answer; a subscriber's socket can hold more."""

MAX_REPLAYED_BYTES = 1024 * 1024
"""Bytes of one answer, plus one message; a subscriber that needs more asks again."""

MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""Bytes of unread answers to all subscribers; and of what one of them may leave unread."""

SENDING_TIME = 0.25
"""Seconds that an answer counts as unread though the kernel holds none of it: on a busy machine
ZeroMQ's own thread may not have sent it yet."""

MAX_ENVELOPE = 2
"""Frames before a request: the identity of the sender, and the empty frame of a REQ."""

MAX_AT_ONCE = 100
"""Requests and subscriptions that are handled before the next message is sent."""

MAX_GREETED = 10
"""Heartbeats for new subscribers, between two that are due."""

MAX_SUBSCRIPTIONS = 1000
"""Subscriptions and their ends of one connection; after more, the connection is ended."""

MAX_TOPICS = 1024
"""Subscriptions of all connections; after more, the connection with most of them is ended."""

MAX_TOPIC = 256
"""Bytes of a subscription; the longest that fits a message has 211."""


class Limits(NamedTuple):
    """What all subscribers together may use; see the constants."""

    topics: int = MAX_TOPICS
    unread_bytes: int = MAX_UNREAD_BYTES


LIMITS = Limits()


class _Answer(NamedTuple):
    asker: PeerConnection
    size: int
    at: float


class Endpoint:
    """The bound sockets of a publisher, with limits on what subscribers can use of it.

    Args:
        changes_queue: the address that PUB binds.
        replay_queue: the address that ROUTER binds.
        clock: for the pace of reports.
        protection: who may connect.
        limits: for all subscribers together.

    Raises UsageError if an address cannot be bound.
    """

    def __init__(
        self,
        changes_queue: str,
        replay_queue: str,
        clock: Clock,
        protection: Binding = LOCAL_BINDING,
        limits: Limits = LIMITS,
    ) -> None:
        self._limits = limits
        self._listeners: list[ipc.Listener] = []
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._authenticator: Authenticator | None = None
            if protection.pair is not None:
                self._authenticator = Authenticator(
                    sockets.zap_socket(self._context), protection.allowed
                )
            # XPUB is a PUB that reports its subscriptions.
            self.changes = self._bound(zmq.XPUB, changes_queue, protection)
            self.replay = self._bound(zmq.ROUTER, replay_queue, protection)
        except BaseException:
            self.close()
            raise
        self._log = LimitedLog(log)
        self._subscriptions: dict[PeerConnection, int] = {}  # frames of each connection, so far
        self._topics: dict[PeerConnection, set[bytes]] = {}
        self._reading: dict[PeerConnection, tuple[int, int]] = {}  # unread, and sent until then
        self._answered: list[_Answer] = []  # those that may be unread
        self.sent = 0
        self._poller = zmq.Poller()
        self._poller.register(self.changes, zmq.POLLIN)
        self._poller.register(self.replay, zmq.POLLIN)
        if self._authenticator is not None:
            self._poller.register(self._authenticator.socket, zmq.POLLIN)

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are.

        They are counted here, because ZeroMQ reports one end for a subscription made twice.
        """
        for connection in [each for each in self._topics if not each.is_open]:
            del self._topics[connection]
        return sum(map(len, self._topics.values()))

    def _bound(self, kind: int, address: str, protection: Binding) -> zmq.Socket[bytes]:
        socket, listener = sockets.bound(self._context, kind, address, protection)
        if listener is not None:
            self._listeners.append(listener)
        return socket

    def wait(self, seconds: float, *others: int) -> tuple[bool, bool]:
        """Wait until something arrives; answer those who connect.

        Args:
            seconds: to wait at most.
            others: descriptors; the wait also ends when one of them can be read.

        Returns:
            Whether there is a new subscription, and whether a request waits.
        """
        for descriptor in others:
            self._poller.register(descriptor, zmq.POLLIN)
        events = dict(self._poller.poll(max(0, round(seconds * 1000))))
        if self._authenticator is not None and self._authenticator.socket in events:
            self._authenticator.answer()
        return self.changes in events and self._subscription(), self.replay in events

    def _subscription(self) -> bool:
        """Read some subscriptions and ends of them; true if there is a new one."""
        somebody_new = False
        for _ in range(MAX_AT_ONCE):
            try:
                frame = self.changes.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            said = frame.bytes
            somebody_new = somebody_new or said[:1] == b"\1"
            connection = sender(frame)
            if connection is None:
                continue  # ZeroMQ says it for a subscriber that has left
            count = self._subscriptions[connection] = self._subscriptions.get(connection, 0) + 1
            self._reading.setdefault(connection, (0, self.sent))
            if count > MAX_SUBSCRIPTIONS or len(said) > MAX_TOPIC:
                self._end(connection, "it makes up subscriptions")
            elif said[:1] == b"\0":
                self._topics.get(connection, set()).discard(said[1:])
            elif said[:1] == b"\1" and said[1:] not in (
                topics := self._topics.setdefault(connection, set())
            ):
                topics.add(said[1:])
                if self.subscribers > self._limits.topics:
                    greediest = max(
                        reversed(self._topics), key=lambda each: len(self._topics[each])
                    )
                    self._end(
                        greediest,
                        f"there are {self._limits.topics} subscriptions, and it has most of them",
                    )
        return somebody_new

    def look(self) -> None:
        """End the connections of subscribers that do not read; call it about once a second.

        ZeroMQ limits the number of messages that it keeps for each, but not their size.
        """
        for connection, (unread, sent) in list(self._reading.items()):
            now = connection.unread
            if not connection.is_open:
                del self._reading[connection]
                del self._subscriptions[connection]
            elif now == 0 or now != unread:
                self._reading[connection] = now, self.sent
            elif self.sent - sent > self._limits.unread_bytes:
                self._end(connection, "it does not read what it subscribed to")

    def may_be_answered(self, connection: PeerConnection | None) -> bool:
        """Whether a subscriber has read its last answer, and unread answers may grow."""
        since = monotonic() - SENDING_TIME
        self._answered = [
            answer for answer in self._answered if answer.asker.unread or answer.at > since
        ]
        if connection is None:  # in this process
            return True
        return not connection.unread and self.unread_bytes < self._limits.unread_bytes

    @property
    def unread_bytes(self) -> int:
        """The bytes of answers that may be unread."""
        return sum(answer.size for answer in self._answered)

    def answered(self, connection: PeerConnection | None, size: int) -> None:
        """Note that an answer of this size was sent."""
        if connection is not None:
            self._answered.append(_Answer(connection, size, monotonic()))

    def _end(self, connection: PeerConnection, why: str) -> None:
        connection.end()
        self._topics.pop(connection, None)
        self._log.warning(
            "disconnected a subscriber: %s",
            why,
            extra=event("subscriber-let-go", reason=why),
            of=why,
        )

    def close(self, linger: float = 0.0) -> None:
        """Close the sockets, with up to `linger` seconds to send what is queued."""
        try:
            self._context.destroy(linger=round(linger * 1000))
        finally:  # even if a second Ctrl-C ends the wait
            for listener in self._listeners:
                listener.remove()


class Server:
    """Sends messages of a spool, and replays those that subscribers missed; never writes.

    Args:
        spool: to read what was missed.
        endpoint: sockets that are bound.
        clock: for heartbeats.
    """

    def __init__(self, spool: JournalReader, feed: str, endpoint: Endpoint, clock: Clock) -> None:
        self.feed = feed
        self.epoch = spool.epoch
        self.serial = spool.last_serial()
        """The last one that may have been sent."""
        self.last_request = 0
        """When somebody last asked for a replay, microseconds since 1970."""
        self._spool = spool
        self._endpoint = endpoint
        self._clock = clock
        self._next_heartbeat = 0
        self._greeted = 0  # heartbeats for new subscribers, since the last one that was due
        self._log = LimitedLog(log)

    @property
    def subscribers(self) -> int:
        return self._endpoint.subscribers

    def send(self, rows: Iterable[Row]) -> None:
        """Send messages that are in the spool; very large ones are only replayed."""
        send = self._endpoint.changes.send
        more = int(zmq.SNDMORE)  # combining the enum's members costs as much as sending
        serial = size = 0
        for serial, message in rows:
            payload = encode.payload(Position(self.feed, self.epoch, serial), message)
            if len(payload) > sockets.MAX_PUBLISHED:
                self._next_heartbeat = 0
                continue
            size += len(payload)
            send(encode.topic(message), more)
            send(payload)
        self.serial = serial or self.serial
        self._endpoint.sent += size

    def heartbeat(self) -> None:
        self._endpoint.changes.send_multipart(
            encode.heartbeat(Position(self.feed, self.epoch, self.serial))
        )

    def serve(self, seconds: float, *others: int) -> None:
        """Wait about `seconds` for a request, and answer it; send heartbeats that are due.

        Args:
            seconds: to wait at most.
            others: descriptors; the wait also ends when one of them can be read.
        """
        now = self._clock()
        if now >= self._next_heartbeat or now < self._next_heartbeat - HEARTBEAT_INTERVAL:
            self.heartbeat()
            self._endpoint.look()
            self._greeted = 0 if now >= self._next_heartbeat > 0 else self._greeted + 1
            self._next_heartbeat = now + HEARTBEAT_INTERVAL
        wait = min(seconds, (self._next_heartbeat - now) / times.SECOND)
        somebody_new, somebody_asks = self._endpoint.wait(wait, *others)
        if somebody_new and self._greeted < MAX_GREETED:
            self._next_heartbeat = 0  # the new subscriber learns our serial at once
        if somebody_asks:
            for _ in range(MAX_AT_ONCE):
                if not self._answer():
                    break

    def _answer(self) -> bool:
        try:
            frames = self._endpoint.replay.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        connection = sender(frames[-1])
        *envelope, payload = [frame.bytes for frame in frames]
        self.last_request = self._clock()
        if len(envelope) > MAX_ENVELOPE:
            return True  # each message of an answer would repeat an envelope of any length
        try:
            request = decode.replay_request(payload)
        except DecodeError as error:
            self._log.warning(
                "refused a replay request: %s",
                error,
                extra=event("replay-refused"),
            )
            return True
        if not self._endpoint.may_be_answered(connection):
            return True  # a subscriber asks again when it has read the last answer
        first = self._spool.first
        send = self._endpoint.replay.send_multipart
        if request.epoch != self.epoch or request.after + 1 < first:
            answers = [encode.replay_gone(self.epoch, first)]
        else:
            limit = min(request.limit, MAX_REPLAYED)
            rows = self._spool.read(request.after, limit, MAX_REPLAYED_BYTES)
            answers = [
                encode.payload(Position(self.feed, self.epoch, serial), message)
                for serial, message in rows
            ]
            answers.append(encode.replay_end(rows[-1].serial if rows else self.serial))
        for answer in answers:
            send([*envelope, answer])
        self._endpoint.answered(connection, sum(map(len, answers)))
        return True


class Spool(Journal):
    """A publisher's own journal: what it has sent. Only one process can hold it.

    Args:
        directory: made if it is not there.
        clock: tells the month.

    Raises StateError if it is locked, damaged or cannot be written.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._lock = Lock(directory, "publish")
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            super().__init__(directory, clock)
            opened.callback(super().close)
            self.begin()
            opened.pop_all()

    def close(self) -> None:
        """Close it, and release its lock."""
        super().close()
        self._lock.release()


class FeedPublisher(Server):
    """Publishes messages, and replays those that subscribers missed.

    Args:
        spool: the directory of its spool; made if it is not there.
        changes_queue: the address that PUB binds.
        replay_queue: the address that ROUTER binds.
        clock: for heartbeats and the spool.
        protection: who may connect.
        limits: for all subscribers together.

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
        limits: Limits = LIMITS,
    ) -> None:
        self.spool = Spool(spool, clock)
        try:
            self._own = Endpoint(changes_queue, replay_queue, clock, protection, limits)
        except BaseException:
            self.spool.close()
            raise
        super().__init__(self.spool.reader, feed, self._own, clock)

    def publish(self, entries: Iterable[Entry]) -> list[Row]:
        """Spool messages, then send them.

        Returns:
            Those that are new.

        Raises JournalError if they could not be spooled; then nothing was sent.
        """
        rows = self.spool.append(entries)
        self.send(rows)
        return rows

    def close(self, linger: float = 0.0) -> None:
        """Close spool and sockets; what is queued has up to `linger` seconds to be sent."""
        try:
            self._own.close(linger)
        finally:
            self.spool.close()
