"""The change feed over real sockets: each message once and in order, whatever a publisher does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from indexer.base import times
from indexer.base.errors import JournalError, StateError, UsageError
from indexer.feed import sockets as feed_sockets
from indexer.feed.publisher import MAX_REPLAYED, FeedPublisher
from indexer.feed.subscriber import (
    LIMITS,
    MAX_TRIES,
    REPLAY_LIMIT,
    SILENCE_TIMEOUT,
    Limits,
    Subscriber,
)
from indexer.journal import quarantine
from indexer.journal.journal import Journal
from indexer.messages import encode
from indexer.messages import types as messages
from indexer.messages.entries import Accepted
from indexer.messages.types import Message, Position
from indexer.schema.messages import MAX_INTEGER

from .. import samples
from ..samples import NOW, decoded, new_package
from ..support import DEADLINE, Feed, ipc_feed

pytestmark = pytest.mark.integration

MASTER = "master"

Send = Callable[[bytes], None]
Answer = Callable[[dict[str, int], Send], None]


def package(serial: int, epoch: int = 1) -> Message:
    return decoded(new_package(f"package-{epoch}-{serial}"))


def packages(last: int, first: int = 1, epoch: int = 1) -> list[str]:
    return [f"package-{epoch}-{serial}" for serial in range(first, last + 1)]


class FakePublisher:
    """A publisher that does what a test says, and is honest otherwise.

    Attributes:
        kept: payloads that it replays, by serial.
        requests: what it was asked for.
        answers: how it answers the next requests; then it is honest again.
    """

    def __init__(self, feed: Feed) -> None:
        self.epoch = 1
        self.kept: dict[int, bytes] = {}
        self.requests: list[dict[str, int]] = []
        self.answers: list[Answer] = []
        self._feed = feed
        self.bind()

    def bind(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._changes = self._context.socket(zmq.XPUB)
        self._changes.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._replay = self._context.socket(zmq.ROUTER)
        for socket in (self._changes, self._replay):
            socket.setsockopt(zmq.SNDHWM, 0)
        self._changes.bind(self._feed.changes)
        self._replay.bind(self._feed.replay)

    def wait_for_subscriber(self) -> None:
        until = time.monotonic() + DEADLINE
        while not self.subscribed():
            assert time.monotonic() < until

    def subscribed(self) -> bool:
        """True if a subscriber has connected since the last call."""
        found = False
        while self._changes.poll(1):
            found |= self._changes.recv() == b"\1"
        return found

    def close(self) -> None:
        self._changes.close(linger=0)
        self._replay.close(linger=0)
        # Until it has ended, ZeroMQ may still remove the files of the next one's sockets.
        self._context.term()

    def keep(self, *serials: int, feed: str = MASTER) -> None:
        for serial in serials:
            position = Position(feed, self.epoch, serial)
            self.kept[serial] = encode.payload(position, package(serial, self.epoch))

    def send(self, *serials: int) -> None:
        """Keep messages and send them."""
        for serial in serials:
            if serial not in self.kept:
                self.keep(serial)
            self.send_frames(b"NEWPKG x", self.kept[serial])

    def send_frames(self, *frames: bytes) -> None:
        self._changes.send_multipart(frames)

    def heartbeat(self, serial: int) -> None:
        self.send_frames(*encode.heartbeat(Position(MASTER, self.epoch, serial)))

    def serve(self) -> None:
        """Answer the requests."""
        while self._replay.poll(0):
            *envelope, payload = self._replay.recv_multipart()
            request = msgpack.unpackb(payload)["replay"]
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else self.honest

            def send(frame: bytes, envelope: list[bytes] = envelope) -> None:
                self._replay.send_multipart([*envelope, frame])

            answer(request, send)

    def honest(self, request: dict[str, int], send: Send) -> None:
        if request["epoch"] != self.epoch:
            send(encode.replay_gone(self.epoch, min(self.kept, default=1)))
            return
        asked = range(request["after"] + 1, request["after"] + 1 + request["limit"])
        found = [serial for serial in asked if serial in self.kept]
        for serial in found:
            send(self.kept[serial])
        send(encode.replay_end(found[-1] if found else max(self.kept, default=0)))


def silent(request: dict[str, int], send: Send) -> None:
    """Give no answer."""


class Follower:
    """A subscriber with its journal, like the daemon's.

    Attributes:
        pace: seconds that pass with a step; more of them where somebody is silent.
    """

    def __init__(self, feed: Feed, directory: Path, limits: Limits = LIMITS) -> None:
        self.feed = feed
        self.limits = limits
        self.context: zmq.Context[Any] = zmq.Context()
        self.journal = Journal(directory, lambda: NOW)
        self.now = 1000.0
        self.pace = 0.001
        self.start()

    def start(self) -> None:
        self.subscriber = Subscriber(
            self.context,
            self.feed.changes,
            self.feed.replay,
            self.journal.position,
            self.journal.feed_epoch,
            lambda: NOW,
            lambda: self.now,
            limits=self.limits,
        )

    def stop(self) -> None:
        self.subscriber.close()

    def close(self) -> None:
        self.stop()
        self.context.term()
        self.journal.close()

    def step(self, most: int = 10_000) -> None:
        self.journal.append(self.subscriber.receive(most, self.now + 1))
        self.subscriber.tick()
        self.now += self.pace

    @property
    def accepted(self) -> list[str]:
        return [row.message.data.package for row in self.journal.reader.read(0, 100_000)]

    @property
    def broken(self) -> list[str]:
        return [feed.broken for feed in self.journal.reader.feeds() if feed.broken is not None]


@pytest.fixture
def publisher(ipc: Feed) -> Iterator[FakePublisher]:
    found = FakePublisher(ipc)
    yield found
    found.close()


@pytest.fixture
def follower(
    ipc: Feed, publisher: FakePublisher, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Follower]:
    """A subscriber of `publisher`, with the limits that a test may give as its parameter."""
    found = Follower(ipc, tmp_path / "journal", getattr(request, "param", LIMITS))
    publisher.wait_for_subscriber()
    yield found
    found.close()


def pump(
    follower: Follower, publisher: FakePublisher | FeedPublisher, condition: Callable[[], bool]
) -> None:
    """Let both sides work until a condition holds."""
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"{len(follower.accepted)}: {follower.accepted[-5:]} {follower.broken}")
        if isinstance(publisher, FakePublisher):
            publisher.serve()
        else:
            publisher.serve(0.0)
        follower.step()
        time.sleep(0.001)


def follow(follower: Follower, publisher: FakePublisher, expected: list[str]) -> None:
    """Let both sides work until exactly these messages are there."""
    pump(follower, publisher, lambda: follower.journal.serial >= len(expected))
    for _ in range(20):
        publisher.serve()
        follower.step()
    assert follower.accepted == expected


# What a publisher may do


def test_messages_in_order_need_no_replay(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(*range(1, 101))
    follow(follower, publisher, packages(100))
    assert publisher.requests == []
    assert follower.broken == []


@pytest.mark.parametrize(
    ("sent", "last"),
    [
        ([3, 4, 5], 5),  # a hole at the start
        ([1, 2, 5, 6], 6),  # in the middle
        ([1, 4, 5, 8], 8),  # two of them
        ([1, 2, 3], 7),  # at the end
        ([], 5),  # everything was sent before
        ([5], 5),  # only the last is seen
        ([2, 1, 3], 3),  # reordered
        ([5, 4, 3, 2, 1], 5),
        ([1, 1, 2, 2, 1, 3, 2], 3),  # duplicates
        ([1, 3, 3, 2, 2, 4, 1], 4),
    ],
)
def test_holes_and_duplicates(
    sent: list[int], last: int, follower: Follower, publisher: FakePublisher
) -> None:
    publisher.keep(*range(1, last + 1))
    publisher.send(*sent)
    publisher.heartbeat(last)
    follow(follower, publisher, packages(last))
    assert follower.broken == []
    assert follower.journal.position(MASTER, 1) == last


def test_hole_before_what_is_known(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1, 2)
    follow(follower, publisher, packages(2))
    publisher.keep(3, 4)
    publisher.send(5)
    follow(follower, publisher, packages(5))
    assert publisher.requests == [{"epoch": 1, "after": 2, "limit": REPLAY_LIMIT}]


def test_live_messages_wait_for_the_hole_to_be_filled(
    follower: Follower, publisher: FakePublisher
) -> None:
    follower.pace = 0.02
    publisher.answers = [silent]
    publisher.keep(1, 2)
    publisher.send(3, 4)
    pump(follower, publisher, lambda: len(publisher.requests) == 1)
    assert follower.accepted == []
    publisher.send(5, 6)
    follow(follower, publisher, packages(6))


def test_large_hole_is_filled_by_parts(
    follower: Follower, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publisher.keep(*range(1, 2501))
    publisher.heartbeat(2500)
    follow(follower, publisher, packages(2500))
    pump(follower, publisher, lambda: "2500 have arrived" in caplog.text)
    told = [vars(record)["piw_event"] for record in caplog.records]
    assert told == ["feed-heard", "hole-noticed", "hole-filled"], "one each, however large it is"
    assert [request["after"] for request in publisher.requests] == [0, 1000, 2000]
    assert {request["limit"] for request in publisher.requests} == {REPLAY_LIMIT}


@pytest.mark.parametrize("follower", [Limits(early=10)], indirect=True)
def test_memory_for_early_messages_is_bounded(follower: Follower, publisher: FakePublisher) -> None:
    """Messages that do not fit are dropped, and requested again."""
    follower.pace = 0.02
    publisher.keep(1)
    publisher.answers = [silent]
    publisher.send(*range(2, 300))
    pump(follower, publisher, lambda: bool(publisher.requests))
    assert len(follower.subscriber.feeds[MASTER].early) <= 10
    publisher.heartbeat(299)
    follow(follower, publisher, packages(299))


def test_publisher_that_does_not_answer_at_first(
    follower: Follower, publisher: FakePublisher
) -> None:
    follower.pace = 0.02
    publisher.answers = [silent] * 3
    publisher.keep(1)
    publisher.send(2)
    follow(follower, publisher, packages(2))
    assert len(publisher.requests) == 4
    assert follower.broken == []


def test_replay_that_stops_half_way(follower: Follower, publisher: FakePublisher) -> None:
    follower.pace = 0.02

    def half(request: dict[str, int], send: Send) -> None:
        for serial in range(request["after"] + 1, request["after"] + 4):
            send(publisher.kept[serial])

    publisher.keep(*range(1, 10))
    publisher.answers = [half, half, silent]
    publisher.heartbeat(9)
    follow(follower, publisher, packages(9))
    assert [request["after"] for request in publisher.requests] == [0, 3, 6, 6]
    assert follower.broken == []


def test_answers_that_come_too_late(follower: Follower, publisher: FakePublisher) -> None:
    follower.pace = 0.02
    late: list[Callable[[], None]] = []

    def later(request: dict[str, int], send: Send) -> None:
        late.append(lambda: publisher.honest(request, send))

    publisher.keep(*range(1, 6))
    publisher.answers = [later]
    publisher.heartbeat(5)
    pump(follower, publisher, lambda: len(publisher.requests) == 2)
    late[0]()
    follow(follower, publisher, packages(5))
    publisher.send(6)
    follow(follower, publisher, packages(6))


def test_replay_with_duplicates_and_disorder(follower: Follower, publisher: FakePublisher) -> None:
    def disorderly(request: dict[str, int], send: Send) -> None:
        for serial in (2, 1, 1, 4, 3, 2):
            send(publisher.kept[serial])
        send(encode.replay_end(4))

    publisher.keep(*range(1, 5))
    publisher.answers = [disorderly]
    publisher.send(5)
    follow(follower, publisher, packages(5))


def test_garbage_in_a_replay(follower: Follower, publisher: FakePublisher) -> None:
    def garbage(request: dict[str, int], send: Send) -> None:
        for frame in (b"", b"\xc1", b"\x80", b"\x91" * 2000, b"\xc0", b"\x81\xa3end\xc0"):
            send(frame)
        send(encode.replay_end(5))

    publisher.keep(*range(1, 6))
    publisher.answers = [garbage]
    publisher.heartbeat(5)
    follow(follower, publisher, packages(5))
    assert follower.broken == []
    assert quarantine.waiting(follower.journal.reader) == 6
    assert {one.source for one in quarantine.entries(follower.journal.reader)} == {
        follower.feed.replay
    }


def test_garbage_on_the_feed(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1)
    for frames in ([b"x"], [b"x", b"\xc1"], [b"HEARTBEAT", b"\x80"], [b"a", b"b", b"c"]):
        publisher.send_frames(*frames)
    publisher.send(2)
    follow(follower, publisher, packages(2))
    assert quarantine.waiting(follower.journal.reader) == 4
    assert all(one.feed is None for one in quarantine.entries(follower.journal.reader))


def refused_alone(
    replayed: bool, follower: Follower, publisher: FakePublisher
) -> quarantine.Quarantined:
    """The second of three kept messages, which is refused; the others are accepted."""
    if replayed:
        publisher.heartbeat(3)
    else:
        publisher.send(1, 2, 3)
    follow(follower, publisher, ["package-1-1", "package-1-3"])
    [refused] = quarantine.entries(follower.journal.reader)
    assert follower.journal.position(MASTER, 1) == 3
    assert follower.broken == []
    return refused


@pytest.mark.parametrize("replayed", [False, True])
def test_refused_message_keeps_its_place(
    replayed: bool, follower: Follower, publisher: FakePublisher
) -> None:
    publisher.keep(1, 3)
    payload = {"feed": MASTER, "epoch": 1, "serial": 2, "msg": "NEWPKG", "data": {"package": ".."}}
    publisher.kept[2] = msgpack.packb(payload)
    refused = refused_alone(replayed, follower, publisher)
    assert (refused.feed, refused.feed_serial, refused.path) == (MASTER, 2, "data.package")
    assert refused.raw == publisher.kept[2]


@pytest.mark.parametrize("replayed", [False, True])
def test_malformed_timestamp_costs_one_message(
    replayed: bool, follower: Follower, publisher: FakePublisher
) -> None:
    """It once broke the feed: nothing of the frame could be read, not even its position."""
    publisher.keep(1, 3)
    payload = {"feed": MASTER, "epoch": 1, "serial": 2, "msg": "DELPKG", "at": b"12345", "data": {}}
    publisher.kept[2] = msgpack.packb(payload).replace(b"\xc4\x0512345", b"\xc7\x05\xff12345")
    refused = refused_alone(replayed, follower, publisher)
    assert (refused.feed, refused.feed_serial) == (MASTER, 2)


def test_message_that_is_never_replayed_is_given_up(
    follower: Follower, publisher: FakePublisher
) -> None:
    """One missing message must not stop all later ones."""
    publisher.send(1)
    follow(follower, publisher, packages(1))
    publisher.send(3, 4)
    follow(follower, publisher, ["package-1-1", "package-1-3", "package-1-4"])
    assert len(publisher.requests) == MAX_TRIES
    [broken] = follower.broken
    assert "messages 2 to 2 are lost" in broken
    # It stays so, in all that follows.
    publisher.send(5)
    pump(follower, publisher, lambda: follower.journal.serial == 4)
    assert follower.broken == [broken]


def test_messages_that_are_kept_no_more(follower: Follower, publisher: FakePublisher) -> None:
    def gone(request: dict[str, int], send: Send) -> None:
        send(encode.replay_gone(publisher.epoch, 4))

    publisher.keep(4, 5, 6)
    publisher.answers = [gone]
    publisher.send(6)
    follow(follower, publisher, packages(6, first=4))
    [broken] = follower.broken
    assert "messages 1 to 3 are lost" in broken
    assert follower.journal.position(MASTER, 1) == 6


def test_publisher_that_still_keeps_the_next_message(
    follower: Follower, publisher: FakePublisher
) -> None:
    """Nothing is given up because of an answer without news."""

    def gone(request: dict[str, int], send: Send) -> None:
        send(encode.replay_gone(publisher.epoch, 1))

    publisher.answers = [gone]
    publisher.keep(1)
    publisher.send(2)
    follow(follower, publisher, packages(2))
    assert follower.broken == []


def test_early_messages_that_are_given_up_make_room(
    follower: Follower, publisher: FakePublisher
) -> None:
    def gone(request: dict[str, int], send: Send) -> None:
        send(encode.replay_gone(publisher.epoch, 4))

    publisher.keep(4, 5)
    publisher.answers = [gone]
    publisher.send(2, 6)
    follow(follower, publisher, packages(6, first=4))
    assert follower.subscriber.feeds[MASTER].early == {}


def test_a_new_spool_breaks_the_feed(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1, 2, 3)
    follow(follower, publisher, packages(3))
    publisher.epoch, publisher.kept = 2, {}
    publisher.keep(1)
    publisher.send(2)
    follow(follower, publisher, [*packages(3), *packages(2, epoch=2)])
    [broken] = follower.broken
    assert "new spool" in broken
    assert follower.journal.feed_epoch(MASTER) == 2
    # Its messages are known from now on, and those of the old one still are.
    follower.stop()
    follower.start()
    publisher.wait_for_subscriber()
    publisher.send(1, 2, 3)
    follow(follower, publisher, [*packages(3), *packages(3, epoch=2)])


def test_new_spool_that_a_replay_tells_of(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1)
    follow(follower, publisher, packages(1))
    publisher.heartbeat(3)
    publisher.epoch, publisher.kept = 7, {}
    publisher.keep(1, 2)
    publisher.heartbeat(2)
    follow(follower, publisher, [*packages(1), *packages(2, epoch=7)])
    assert len(follower.broken) == 1


def test_spool_that_went_back(
    follower: Follower, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a restore from a backup: its next messages would be taken for known ones."""
    publisher.send(*range(1, 11))
    follow(follower, publisher, packages(10))
    for _ in range(5):
        publisher.heartbeat(4)  # an old one or two may still be queued
    for _ in range(30):
        follower.step()
    assert follower.broken == []
    asked = len(publisher.requests)
    # One that says all is well begins the count anew, and with nothing.
    publisher.heartbeat(10)
    for _ in range(9):
        publisher.heartbeat(4)
    state = follower.subscriber.feeds[MASTER]
    pump(follower, publisher, lambda: state.behind >= 9)
    assert len(publisher.requests) == asked
    for _ in range(10):
        publisher.heartbeat(4)
    pump(follower, publisher, lambda: len(publisher.requests) > asked)
    for _ in range(30):
        publisher.serve()
        follower.step()
    assert follower.broken == [], "its spool still has them"
    publisher.kept = {serial: publisher.kept[serial] for serial in range(1, 5)}

    def is_noticed() -> bool:
        publisher.heartbeat(4)  # those that come while an answer is awaited do not count
        return bool(follower.broken)

    pump(follower, publisher, is_noticed)
    assert "went back to serial 4" in follower.broken[0]
    [logged] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert vars(logged)["piw_event"] == "feed-broken"


def test_heartbeat_that_was_ahead(follower: Follower, publisher: FakePublisher) -> None:
    """If a publisher says that it has nothing more, nothing is given up."""
    publisher.send(1)
    publisher.heartbeat(5)
    pump(follower, publisher, lambda: len(publisher.requests) >= 1)
    for _ in range(50):
        publisher.serve()
        follower.step()
    assert follower.broken == []
    publisher.send(2, 3)
    follow(follower, publisher, packages(3))
    assert follower.broken == []


def test_feed_without_a_replay_queue(ipc: Feed, publisher: FakePublisher, tmp_path: Path) -> None:
    follower = Follower(Feed(ipc.changes, ""), tmp_path / "journal")
    try:
        publisher.wait_for_subscriber()
        publisher.send(1, 4, 5)
        follow(follower, publisher, ["package-1-1", "package-1-4", "package-1-5"])
        assert "messages 2 to 3 are lost" in follower.broken[0]
        publisher.heartbeat(9)
        publisher.send(8)
        pump(follower, publisher, lambda: follower.journal.position(MASTER, 1) == 8)
        assert follower.accepted[-1] == "package-1-8"
    finally:
        follower.close()


def test_two_feeds_on_one_socket(follower: Follower, publisher: FakePublisher) -> None:
    other = encode.payload(Position("other", 9, 1), decoded(new_package("theirs")))
    publisher.send(1)
    publisher.send_frames(b"NEWPKG theirs", other)
    publisher.send(2)
    follow(follower, publisher, ["package-1-1", "theirs", "package-1-2"])
    assert [feed[:3] for feed in follower.journal.reader.feeds()] == [
        (MASTER, 1, 2),
        ("other", 9, 1),
    ]


def test_feed_that_calls_itself_a_file_is_refused(
    follower: Follower, publisher: FakePublisher
) -> None:
    position = Position("file:" + samples.HASH, 0, 1)
    publisher.send_frames(b"NEWPKG x", encode.payload(position, package(1)))
    publisher.send(1)
    follow(follower, publisher, packages(1))
    assert [feed.feed for feed in follower.journal.reader.feeds()] == [MASTER]
    assert quarantine.waiting(follower.journal.reader) == 1


# Restarts


def test_subscriber_that_restarts(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1, 2, 3)
    follow(follower, publisher, packages(3))
    follower.stop()
    publisher.keep(4, 5)
    follower.start()
    publisher.wait_for_subscriber()
    publisher.heartbeat(5)
    follow(follower, publisher, packages(5))
    assert publisher.requests == [{"epoch": 1, "after": 3, "limit": REPLAY_LIMIT}]


def test_what_was_received_and_not_journaled_comes_again(
    follower: Follower, publisher: FakePublisher
) -> None:
    """As after a crash before the commit."""
    publisher.send(1, 2, 3)
    until = time.monotonic() + DEADLINE
    lost: list[object] = []
    while len(lost) < 3 and time.monotonic() < until:
        lost += follower.subscriber.receive(10, follower.now)
    follower.stop()
    follower.start()
    publisher.wait_for_subscriber()
    publisher.send(4)
    follow(follower, publisher, packages(4))


def test_publisher_that_restarts(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1, 2)
    follow(follower, publisher, packages(2))
    publisher.close()
    publisher.keep(3)
    publisher.bind()
    pump(follower, publisher, publisher.subscribed)
    publisher.send(4)
    follow(follower, publisher, packages(4))
    assert follower.broken == []


def too_large(request: dict[str, int], send: Send) -> None:
    """An answer at which ZeroMQ ends the connection."""
    send(bytes(feed_sockets.MAX_MESSAGE + 1))


def test_announced_feed_whose_answers_break_off_ends_nobody(
    follower: Follower, publisher: FakePublisher
) -> None:
    """A heartbeat and too large answers once ended the daemon."""
    publisher.answers = [too_large] * (MAX_TRIES + 1)
    publisher.heartbeat(5)
    pump(follower, publisher, lambda: not publisher.answers)
    publisher.send(1, 2, 3, 4, 5)
    follow(follower, publisher, packages(5))
    assert follower.broken == []


def test_answers_that_break_off_where_nothing_is_missing_lose_nothing(
    follower: Follower, publisher: FakePublisher
) -> None:
    """After the last serial that SQLite can store, no message can be missing."""
    last = MAX_INTEGER

    def gone(request: dict[str, int], send: Send) -> None:
        send(encode.replay_gone(publisher.epoch, last))

    publisher.keep(last)
    publisher.answers = [gone]
    publisher.send(last)
    pump(follower, publisher, lambda: follower.journal.position(MASTER, 1) == last)
    publisher.answers = [too_large] * (MAX_TRIES + 1)

    def all_given() -> bool:
        publisher.heartbeat(1)  # it went back, so it is asked what it has
        return not publisher.answers

    pump(follower, publisher, all_given)
    [broken] = follower.broken
    assert f"messages 1 to {last - 1} are lost" in broken


@pytest.mark.parametrize("follower", [Limits(early_bytes=1000)], indirect=True)
def test_answers_that_skip_more_and_more_fill_no_memory(
    follower: Follower, publisher: FakePublisher
) -> None:
    """The first message of a replay is kept in any case, but not the first of each replay."""
    kept = []

    def skipping(request: dict[str, int], send: Send) -> None:
        first = request["after"] + 1
        publisher.keep(first)
        if request["after"]:
            send(publisher.kept[first])
        send(encode.replay_gone(publisher.epoch, first + 10))
        kept.append(follower.subscriber._early_bytes)

    publisher.answers = [skipping] * 100
    publisher.send(5000)
    pump(follower, publisher, lambda: not publisher.answers)
    largest = max(map(len, publisher.kept.values()))
    assert max(kept) <= 1000 + largest, "as many as there may be, and one"


@pytest.mark.parametrize("follower", [Limits(batch_bytes=1000)], indirect=True)
def test_messages_that_came_early_are_handed_on_in_several_batches(
    follower: Follower, publisher: FakePublisher
) -> None:
    """Decoded messages may be many times larger: all at once would not fit into memory."""
    publisher.answers = [silent]
    publisher.send(*range(2, 101))
    state = follower.subscriber.feeds
    pump(follower, publisher, lambda: MASTER in state and len(state[MASTER].early) == 99)
    publisher.send(1)
    handed_on = []
    until = time.monotonic() + DEADLINE
    while follower.journal.serial < 100 and time.monotonic() < until:
        before = follower.journal.serial
        follower.step()
        handed_on.append(follower.journal.serial - before)
    assert follower.accepted == packages(100)
    size = min(map(len, publisher.kept.values()))
    assert max(handed_on) <= 1000 // size + 1
    assert follower.subscriber.feeds[MASTER].early == {}
    assert len(publisher.requests) == 1, "what is there already is not asked for"


class Afraid:
    """A guard that puts a message aside from a given moment on."""

    careful = False
    put_aside: bytes | None = None

    def wants(self, size: int) -> bool:
        return self.put_aside is not None

    def refuses(self, payload: bytes) -> bool:
        return payload == self.put_aside


@pytest.mark.parametrize("seeming", [Position("other", 1, 9), Position(MASTER, -1, 2)])
def test_early_message_that_is_put_aside_keeps_its_place(
    seeming: Position, follower: Follower, publisher: FakePublisher
) -> None:
    """Unread, a message with two positions in it may seem to have another one, or none."""
    guard = follower.subscriber._guard = Afraid()
    publisher.answers = [silent]
    publisher.keep(2)
    honest = publisher.kept[2]
    head = [msgpack.packb(one) for named in seeming._asdict().items() for one in named]
    publisher.kept[2] = bytes([honest[0] + len(seeming)]) + b"".join(head) + honest[1:]
    publisher.send(2)
    feeds = follower.subscriber.feeds
    pump(follower, publisher, lambda: MASTER in feeds and 2 in feeds[MASTER].early)
    guard.put_aside = publisher.kept[2]
    publisher.send(1, 3)
    pump(follower, publisher, lambda: follower.journal.position(MASTER, 1) == 3)
    assert follower.accepted == ["package-1-1", "package-1-3"]
    [refused] = quarantine.entries(follower.journal.reader)
    assert (refused.feed, refused.feed_serial) == (MASTER, 2)
    assert [feed.feed for feed in follower.journal.reader.feeds()] == [MASTER]


def test_publisher_that_is_silent_again_and_again_fills_no_log(
    follower: Follower, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publisher.send(1)
    follow(follower, publisher, packages(1))
    state = follower.subscriber.feeds[MASTER]
    now = NOW
    follower.subscriber._clock = lambda: now
    for _ in range(10):
        now += SILENCE_TIMEOUT
        follower.step()
        publisher.heartbeat(1)
        pump(follower, publisher, lambda: not state.silent)
    told = [vars(record)["piw_event"] for record in caplog.records]
    assert [told.count(event) for event in ("feed-silent", "feed-back")] == [1, 1]
    follower.now += 60
    now += SILENCE_TIMEOUT
    follower.step()
    assert "(9 more were left out of the log before)" in caplog.text


# The real publisher


class Clock:
    """A clock that a test sets."""

    now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def real(ipc: Feed, clock: Clock, tmp_path: Path) -> Iterator[FeedPublisher]:
    found = FeedPublisher(tmp_path / "spool", MASTER, ipc.changes, ipc.replay, clock)
    yield found
    found.close()


MARK = b"mark"
"""A frame that no publisher sends."""


class Client:
    """Raw sockets at a publisher's addresses."""

    def __init__(self, publisher: FeedPublisher, feed: Feed) -> None:
        self._publisher = publisher
        self._feed = feed
        self._context: zmq.Context[Any] = zmq.Context()
        self._changes = self._socket(zmq.SUB)
        self._replay = self._socket(zmq.DEALER)
        self._replay.connect(feed.replay)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        return socket

    def close(self) -> None:
        self._changes.close(linger=0)
        self._replay.close(linger=0)
        self._context.term()

    def subscribe(self, topic: bytes = b"") -> list[list[bytes]]:
        """Subscribe; returns the heartbeats that greet us, at most one for each subscription."""
        self._changes.subscribe(topic)
        self._changes.subscribe(MARK)
        self._changes.connect(self._feed.changes)
        wanted = self._publisher.subscribers + 2
        until = time.monotonic() + DEADLINE
        while self._publisher.subscribers < wanted and time.monotonic() < until:
            self._publisher.serve(0.01)
        self._publisher.serve(0.0)
        return self.rest()

    def rest(self) -> list[list[bytes]]:
        """Everything that was sent and not received yet, up to a mark that is sent now."""
        self._publisher._own.changes.send(MARK)
        found = []
        while (frames := self._receive(self._changes)) != [MARK]:
            found.append(frames)
        return found

    def received(self) -> tuple[bytes, dict[str, Any]]:
        """The topic and the payload of the next message."""
        topic, payload = self._receive(self._changes)
        return topic, msgpack.unpackb(payload)

    def _receive(self, socket: zmq.Socket[bytes]) -> list[bytes]:
        until = time.monotonic() + DEADLINE
        while not socket.poll(1) and time.monotonic() < until:
            self._publisher.serve(0.0)
        return socket.recv_multipart(zmq.NOBLOCK)

    def asked(self, *requests: bytes) -> list[dict[str, Any]]:
        """The publisher's answer to the last of some requests."""
        for request in requests:
            self._replay.send(request)
        answers: list[dict[str, Any]] = []
        while not answers or not answers[-1].keys() & {"end", "gone"}:
            [frame] = self._receive(self._replay)
            answers.append(msgpack.unpackb(frame))
        return answers


@pytest.fixture
def client(real: FeedPublisher, ipc: Feed) -> Iterator[Client]:
    found = Client(real, ipc)
    yield found
    found.close()


def entries(*serials: int) -> list[Accepted]:
    return [Accepted(Position("file:x", 0, serial), package(serial)) for serial in serials]


def test_what_is_sent(client: Client, real: FeedPublisher) -> None:
    _, payload = client.subscribe()[0]  # a heartbeat at once
    assert msgpack.unpackb(payload)["serial"] == 0
    envelopes = [decoded(one) for one in samples.EVERY]
    real.publish([Accepted(Position("file:x", 0, n), one) for n, one in enumerate(envelopes, 1)])
    for serial, message in enumerate(envelopes, 1):
        topic, sent = client.received()
        names = [message.name, messages.package_of(message.data)]
        assert topic.decode() == " ".join(filter(None, names))
        assert sent.keys() == {"feed", "epoch", "serial", "at", "msg", "data"}
        assert (sent["feed"], sent["epoch"], sent["serial"]) == (MASTER, real.epoch, serial)
        assert sent["msg"] == message.name


def test_subscribers_can_filter_by_topic(client: Client, real: FeedPublisher) -> None:
    client.subscribe(b"NEWPKG package-1-2")
    real.publish(entries(1, 2, 3))
    assert client.received()[0] == b"NEWPKG package-1-2"
    assert client.rest() == []


def test_heartbeat_every_second(client: Client, real: FeedPublisher, clock: Clock) -> None:
    beat = {"feed": MASTER, "epoch": real.epoch, "serial": 0}
    greetings = client.subscribe(b"HEARTBEAT")
    assert greetings
    for topic, payload in greetings:
        assert (topic, msgpack.unpackb(payload)) == (b"HEARTBEAT", beat)
    clock.now += times.SECOND - 1
    real.serve(0.0)
    assert client.rest() == []
    clock.now += 1
    assert client.received()[1] == beat
    real.publish(entries(1, 2))
    clock.now += times.SECOND
    assert client.received()[1] == {**beat, "serial": 2}
    # A clock that jumps back does not silence it.
    clock.now -= 3600 * times.SECOND
    assert client.received()[1]["serial"] == 2


def test_a_replay_answers_from_a_serial_up_to_a_limit(client: Client, real: FeedPublisher) -> None:
    real.publish(entries(*range(1, 11)))

    def serials(after: int, limit: int) -> tuple[list[int], int]:
        *found, end = client.asked(encode.replay_request(real.epoch, after, limit))
        return [one["serial"] for one in found], end["end"]

    assert serials(0, 100) == (list(range(1, 11)), 10)
    assert serials(3, 4) == ([4, 5, 6, 7], 7)
    assert serials(10, 100) == ([], 10)
    assert serials(99, 100) == ([], 10)
    [sent, _] = client.asked(encode.replay_request(real.epoch, 4, 1))
    assert (sent["feed"], sent["msg"]) == (MASTER, "NEWPKG")
    assert sent["data"]["package"] == "package-1-5"


def test_replay_is_bounded(client: Client, real: FeedPublisher) -> None:
    real.publish(entries(*range(1, MAX_REPLAYED + 501)))
    answers = client.asked(encode.replay_request(real.epoch, 0, 2**60))
    assert len(answers) == MAX_REPLAYED + 1
    assert answers[-1] == {"end": MAX_REPLAYED}


def test_replay_of_another_epoch(client: Client, real: FeedPublisher) -> None:
    real.publish(entries(1, 2))
    for epoch in (real.epoch - 1, real.epoch + 1, 0):
        [gone] = client.asked(encode.replay_request(epoch, 0, 10))
        assert gone == {"gone": {"epoch": real.epoch, "first": 1}}


def test_replay_of_what_is_kept_no_more(ipc: Feed, clock: Clock, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    first = FeedPublisher(spool, MASTER, ipc.changes, ipc.replay, clock)
    first.publish(entries(1, 2, 3))
    clock.now += 40 * times.DAY
    first.publish(entries(4, 5))
    first.close()
    min(spool.glob("*.db")).unlink()
    again = FeedPublisher(spool, MASTER, ipc.changes, ipc.replay, clock)
    client = Client(again, ipc)
    try:
        assert again.epoch == first.epoch
        [gone] = client.asked(encode.replay_request(again.epoch, 2, 10))
        assert gone == {"gone": {"epoch": again.epoch, "first": 4}}
        answers = client.asked(encode.replay_request(again.epoch, 3, 10))
        assert [one.get("serial") for one in answers] == [4, 5, None]
    finally:
        client.close()
        again.close()


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x80", b"\x91" * 1000, b"replay"])
def test_requests_that_are_none(garbage: bytes, client: Client, real: FeedPublisher) -> None:
    real.publish(entries(1))
    answers = client.asked(garbage, encode.replay_request(real.epoch, 0, 10))
    assert [one.get("serial") for one in answers] == [1, None]


def test_restart_goes_on_with_the_spool(ipc: Feed, clock: Clock, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    first = FeedPublisher(spool, MASTER, ipc.changes, ipc.replay, clock)
    assert [row.serial for row in first.publish(entries(1, 2))] == [1, 2]
    first.close()
    clock.now += times.DAY
    again = FeedPublisher(spool, MASTER, ipc.changes, ipc.replay, clock)
    try:
        assert again.epoch == first.epoch == NOW
        # What was sent once is not sent again.
        assert [row.serial for row in again.publish(entries(1, 2, 3))] == [3]
    finally:
        again.close()


def test_what_cannot_be_spooled_is_not_sent(
    client: Client, real: FeedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.subscribe(b"NEWPKG")

    def full(found: object) -> None:
        raise JournalError("use the journal", "database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(real.spool, "append", full)
        with pytest.raises(JournalError):
            real.publish(entries(1))
    real.publish(entries(1))
    assert client.received()[1]["serial"] == 1


def test_spool_has_one_publisher(real: FeedPublisher, tmp_path: Path, sockets: Path) -> None:
    other = ipc_feed(sockets, "-other")
    with pytest.raises(StateError, match="locked"):
        FeedPublisher(tmp_path / "spool", MASTER, other.changes, other.replay, real.spool._clock)


def test_address_that_cannot_be_bound(
    real: FeedPublisher, clock: Clock, tmp_path: Path, ipc: Feed
) -> None:
    for changes, replay in (
        ("ipc:///no/such/directory/x", ipc.replay),
        ("tcp://nobody.invalid:1", ipc.replay),
    ):
        with pytest.raises(UsageError, match="bind"):
            FeedPublisher(tmp_path / "other", MASTER, changes, replay, clock)
    # The spool is free again.
    other = ipc_feed(Path(ipc.changes.removeprefix("ipc://")).parent, "-other")
    FeedPublisher(tmp_path / "other", MASTER, other.changes, other.replay, clock).close()


def test_subscriber_that_is_too_slow_misses_nothing(
    ipc: Feed, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sockets drop messages that they cannot hold; replay fetches them."""
    monkeypatch.setattr(feed_sockets, "HIGH_WATER", 50)
    real = FeedPublisher(tmp_path / "spool", MASTER, ipc.changes, ipc.replay, clock)
    follower = Follower(ipc, tmp_path / "journal", Limits(replay=20, early=100))
    try:
        pump(follower, real, lambda: real.subscribers == 1)
        for start in range(1, 5001, 500):
            real.publish(entries(*range(start, start + 500)))

        def all_there() -> bool:
            clock.now += times.SECOND // 100  # for heartbeats: they may be dropped, too
            return follower.journal.serial == 5000

        pump(follower, real, all_there)
        assert follower.accepted == packages(5000)
        assert follower.broken == []
    finally:
        follower.close()
        real.close()


def test_address_that_cannot_be_connected(tmp_path: Path) -> None:
    with zmq.Context() as context, pytest.raises(UsageError, match="connect"):
        Subscriber(
            context,
            "nonsense://x",
            "",
            lambda feed, epoch: 0,
            lambda feed: None,
            lambda: 0,
            lambda: 0.0,
        )
