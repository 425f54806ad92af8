"""Who may use the name of a feed, and which of its numbers are trusted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.feed.names import FeedNames, Source
from indexer.feed.security import Connecting
from indexer.feed.subscriber import TRIES, Subscriber
from indexer.journal.journal import Journal
from indexer.messages import encode
from indexer.messages.types import Position

from ..samples import NOW
from ..support import Feed, eventually, ipc_feed
from .test_feed import MASTER, FakePublisher, Follower, Send, follow, package, packages, pump

pytestmark = pytest.mark.integration

HUGE = 2**63 - 1


class Daemon:
    """Subscribers of several addresses with one journal, like the daemon's."""

    def __init__(self, directory: Path, feeds: list[Feed], keys: tuple[bytes, ...] = ()) -> None:
        self.journal = Journal(directory, lambda: NOW)
        self.now = 1000.0
        self.context: zmq.Context[Any] = zmq.Context()
        keys = keys or (b"",) * len(feeds)
        names = FeedNames(
            self.journal.address,
            [Source(feed.changes, key.decode()) for feed, key in zip(feeds, keys, strict=True)],
        )
        self.subscribers = [
            Subscriber(
                self.context,
                feed.changes,
                feed.replay,
                self.journal.position,
                self.journal.feed_epoch,
                lambda: NOW,
                lambda: self.now,
                Connecting(server_key=key),
                names=names,
            )
            for feed, key in zip(feeds, keys, strict=True)
        ]

    def step(self) -> None:
        entries = [entry for one in self.subscribers for entry in one.receive(10_000, self.now + 1)]
        self.journal.append(entries)
        for one in self.subscribers:
            one.tick()
        self.now += 0.01

    def until(self, publishers: list[FakePublisher], serial: int) -> None:
        """Work until this many messages are journaled and no more come."""

        def done() -> bool:
            self.work(publishers)
            return self.journal.serial >= serial

        eventually(done, lambda: (self.accepted, [one.conflict for one in self.subscribers]))
        for _ in range(20):
            self.work(publishers)

    def until_conflict(self, publishers: list[FakePublisher], number: int) -> None:
        def done() -> bool:
            self.work(publishers)
            return bool(self.subscribers[number].conflict)

        eventually(done)

    def work(self, publishers: list[FakePublisher]) -> None:
        for publisher in publishers:
            if publisher.kept:  # who was not there when it was sent asks for it
                publisher.heartbeat(max(publisher.kept))
            publisher.serve()
        self.step()

    @property
    def accepted(self) -> list[str]:
        return [row.message.data.package for row in self.journal.reader.read(0, 1000)]

    @property
    def broken(self) -> list[str]:
        return [one.broken for one in self.journal.reader.feeds() if one.broken is not None]

    def close(self) -> None:
        for one in self.subscribers:
            one.close()
        self.context.term()
        self.journal.close()


@pytest.fixture
def feeds(sockets: Path) -> list[Feed]:
    return [ipc_feed(sockets, "-a"), ipc_feed(sockets, "-b")]


@pytest.fixture
def publishers(feeds: list[Feed]) -> Iterator[list[FakePublisher]]:
    found = [FakePublisher(feed) for feed in feeds]
    yield found
    for one in found:
        one.close()


# Names


def test_name_of_another_address_is_not_taken(
    tmp_path: Path, feeds: list[Feed], publishers: list[FakePublisher]
) -> None:
    honest, other = publishers
    daemon = Daemon(tmp_path / "journal", feeds)
    for one in publishers:
        one.wait_for_subscriber()
    honest.send(1, 2)
    daemon.until(publishers, 2)
    # The other one takes the next serial first; and a new epoch, and a huge serial.
    forged = encode.payload(Position(MASTER, 1, 3), package(99))
    other.send_frames(b"NEWPKG x", forged)
    daemon.until_conflict(publishers, 1)
    other.send_frames(*encode.heartbeat(Position(MASTER, 1, HUGE)))
    other.send_frames(*encode.heartbeat(Position(MASTER, HUGE, HUGE)))
    other.send_frames(b"NEWPKG x", encode.payload(Position(MASTER, 8, 1), package(98)))
    honest.send(3, 4)
    honest.heartbeat(4)
    daemon.until(publishers, 4)
    assert daemon.accepted == packages(4)
    assert daemon.broken == []
    conflict = str(daemon.subscribers[1].conflict)
    assert f"take the feed {MASTER} from {feeds[1].changes}" in conflict
    assert f"belongs to {feeds[0].changes}" in conflict
    assert daemon.subscribers[0].conflict is None
    daemon.close()


def test_name_belongs_to_its_address_after_a_restart_and_a_new_month(
    tmp_path: Path, feeds: list[Feed], publishers: list[FakePublisher], caplog: Any
) -> None:
    honest, other = publishers
    daemon = Daemon(tmp_path / "journal", feeds)
    honest.wait_for_subscriber()
    honest.send(1)
    daemon.until(publishers, 1)
    daemon.close()
    later = Journal(tmp_path / "journal", lambda: NOW + 40 * 86_400 * 1_000_000)
    later.begin()
    assert len(later.reader.months) == 2
    later.close()
    daemon = Daemon(tmp_path / "journal", feeds)
    other.keep(1)
    other.send(2)
    daemon.until_conflict(publishers, 1)
    daemon.close()
    # An address that is not followed any more has no names, and the log says where they go.
    with caplog.at_level(logging.INFO):
        daemon = Daemon(tmp_path / "journal", feeds[1:])
        other.wait_for_subscriber()
        other.send(3)
        daemon.until(publishers, 3)
    assert daemon.accepted == packages(3)
    assert daemon.journal.address(MASTER) == (feeds[1].changes, "")
    [said] = [one for one in caplog.messages if "from now on" in one]
    assert feeds[0].changes in said
    daemon.close()


def test_first_message_counts_and_not_the_first_heartbeat(
    tmp_path: Path, feeds: list[Feed], publishers: list[FakePublisher]
) -> None:
    honest, other = publishers
    daemon = Daemon(tmp_path / "journal", feeds)
    for one in publishers:
        one.wait_for_subscriber()
    other.heartbeat(0)

    def heard() -> bool:
        daemon.work(publishers)
        return bool(daemon.subscribers[1].feeds)

    eventually(heard)
    honest.send(1)
    daemon.until(publishers, 1)
    other.send(2)
    daemon.until_conflict(publishers, 1)
    assert daemon.subscribers[1].feeds == {}
    assert daemon.accepted == packages(1)
    daemon.close()


def test_names_and_keys() -> None:
    one, two, gone = Source("a", "k"), Source("a", "l"), Source("b", "")
    names = FeedNames({"x": ("a", "k"), "y": ("b", "")}.get, [one, two])
    assert names.elsewhere("x", one) is None
    assert names.elsewhere("x", two) == one, "another key at the same address"
    assert names.elsewhere("y", two) is None, "its address is not followed any more"
    assert names.claim("y", two) == gone
    assert names.elsewhere("y", one) == two
    assert names.claim("z", one) is None
    assert names.elsewhere("z", two) == one


# Numbers


@pytest.fixture
def publisher(ipc: Feed) -> Iterator[FakePublisher]:
    found = FakePublisher(ipc)
    yield found
    found.close()


@pytest.fixture
def follower(ipc: Feed, publisher: FakePublisher, tmp_path: Path) -> Iterator[Follower]:
    found = Follower(ipc, tmp_path / "journal")
    publisher.wait_for_subscriber()
    yield found
    found.close()


def work(follower: Follower, publisher: FakePublisher) -> None:
    for _ in range(50):
        publisher.serve()
        follower.step()


def test_heartbeats_are_only_a_reason_to_ask(follower: Follower, publisher: FakePublisher) -> None:
    publisher.send(1, 2)
    follow(follower, publisher, packages(2))
    for epoch, serial in ((1, HUGE), (HUGE, HUGE), (HUGE, 1), (7, 0), (0, HUGE)):
        asked = len(publisher.requests)
        publisher.send_frames(*encode.heartbeat(Position(MASTER, epoch, serial)))
        if serial:
            pump(follower, publisher, lambda: len(publisher.requests) > asked)  # noqa: B023
        work(follower, publisher)
        assert follower.broken == []
    publisher.send(3, 4)
    follow(follower, publisher, packages(4))
    assert follower.subscriber.feeds[MASTER].published == 4
    assert follower.broken == []


def test_first_heartbeat_is_only_a_reason_to_ask(
    follower: Follower, publisher: FakePublisher
) -> None:
    publisher.send_frames(*encode.heartbeat(Position(MASTER, HUGE, HUGE)))
    pump(follower, publisher, lambda: bool(publisher.requests))
    work(follower, publisher)
    publisher.send(1, 2)
    follow(follower, publisher, packages(2))
    assert follower.broken == []


@pytest.mark.parametrize("first", [3, 1000, HUGE])
@pytest.mark.parametrize("epoch", [1, 7, HUGE])
def test_gone_is_only_a_reason_to_ask(
    first: int, epoch: int, follower: Follower, publisher: FakePublisher
) -> None:
    def gone(request: dict[str, int], send: Send) -> None:
        send(encode.replay_gone(epoch, first))

    publisher.send(1)
    follow(follower, publisher, packages(1))
    publisher.answers = [gone, gone, gone]
    publisher.keep(2)
    publisher.heartbeat(2)
    follow(follower, publisher, packages(2))
    publisher.send(3)
    follow(follower, publisher, packages(3))
    assert follower.broken == []


def test_message_that_its_publisher_does_not_know(
    follower: Follower, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.send(1)
    follow(follower, publisher, packages(1))
    publisher.send_frames(
        b"NEWPKG x", encode.payload(Position(MASTER, 1, HUGE - 1), package(HUGE - 1))
    )
    pump(follower, publisher, lambda: len(publisher.requests) >= 3)
    work(follower, publisher)
    publisher.send(2, 3)
    follow(follower, publisher, packages(3))
    assert follower.broken == []
    assert [one for one in caplog.messages if "does not know 1 messages" in one]


def test_new_epochs_without_end_do_not_fill_the_log(
    follower: Follower, publisher: FakePublisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.send(1)
    follow(follower, publisher, packages(1))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for epoch in range(2, 302):
            message = encode.payload(Position(MASTER, epoch, 1), package(epoch))
            publisher.send_frames(b"NEWPKG x", message)
        pump(follower, publisher, lambda: follower.subscriber.feeds[MASTER].epoch == 301)
        for epoch in range(1, 301):  # back to those that are known
            message = encode.payload(Position(MASTER, epoch, 2), package(epoch))
            publisher.send_frames(b"NEWPKG x", message)
        pump(follower, publisher, lambda: follower.subscriber.feeds[MASTER].epoch == 300)
    said = [getattr(one, "piw_event", "") for one in caplog.records]
    assert said.count("feed-broken") == 1
    assert said.count("feed-epoch-back") == 1
    assert len(said) < 10, said


def test_end_that_nothing_bears_out(follower: Follower, publisher: FakePublisher) -> None:
    def end(request: dict[str, int], send: Send) -> None:
        send(encode.replay_end(HUGE))

    publisher.send(1)
    follow(follower, publisher, packages(1))
    publisher.answers = [end] * TRIES
    publisher.keep(2)
    publisher.heartbeat(2)
    pump(follower, publisher, lambda: not publisher.answers or follower.journal.serial > 1)
    publisher.heartbeat(2)
    follow(follower, publisher, packages(2))
    assert follower.broken == []


def test_what_is_gone_is_lost_when_the_next_one_comes(
    follower: Follower, publisher: FakePublisher
) -> None:
    def gone(request: dict[str, int], send: Send) -> None:
        if request["after"] < 4:
            send(encode.replay_gone(1, 5))
        else:
            publisher.honest(request, send)

    publisher.send(1)
    follow(follower, publisher, packages(1))
    publisher.answers = [gone] * 100
    publisher.heartbeat(4)
    work(follower, publisher)
    assert follower.broken == [], "nothing has come that follows"
    publisher.keep(5, 6)
    publisher.heartbeat(6)
    pump(follower, publisher, lambda: follower.journal.serial == 3)
    assert follower.accepted == ["package-1-1", "package-1-5", "package-1-6"]
    assert follower.broken == ["messages 2 to 4 are lost: its publisher keeps them no more"]


def test_another_feed_in_an_answer_is_not_taken(
    follower: Follower, publisher: FakePublisher
) -> None:
    def other(request: dict[str, int], send: Send) -> None:
        send(encode.payload(Position("other", 1, 1), package(77)))
        publisher.honest(request, send)

    publisher.answers = [other]
    publisher.keep(1, 2)
    publisher.heartbeat(2)
    follow(follower, publisher, packages(2))
    assert {one.feed for one in follower.journal.reader.feeds()} == {MASTER}
