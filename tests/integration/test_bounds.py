"""Those who connect to a publisher can use few resources, and none of each other."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.base.clock import now
from indexer.feed import peer_connection, sockets
from indexer.feed import publisher as module
from indexer.feed.publisher import FeedPublisher, Limits
from indexer.messages import encode
from indexer.messages.entries import Accepted

from .. import samples
from ..samples import decoded
from ..support import Feed, eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def publisher(ipc: Feed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FeedPublisher]:
    """A publisher, whose `Limits` a test may give as its parameter."""
    made = FeedPublisher(
        tmp_path / "spool",
        "master",
        ipc.changes,
        ipc.replay,
        now,
        limits=getattr(request, "param", Limits()),
    )
    yield made
    made.close()


class Peers:
    """Raw sockets and their connections."""

    def __init__(self) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._kept: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        self._kept.append(self._context.socket(kind))
        return self._kept[-1]

    def deaf(self, kind: int) -> zmq.Socket[bytes]:
        """A socket with tiny buffers that is never read."""
        made = self.socket(kind)
        made.rcvhwm = 1
        made.setsockopt(zmq.RCVBUF, 4096)
        return made

    def disconnections(self, socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        """Becomes readable when the other side has ended the connection."""
        self._kept.append(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED))
        return self._kept[-1]

    def close(self) -> None:
        for one in self._kept:
            if not one.closed and one.type != zmq.PAIR:
                one.disable_monitor()
        self._context.destroy(linger=0)


@pytest.fixture
def context() -> Iterator[Peers]:
    made = Peers()
    yield made
    made.close()


def large(number: int, size: int = 40_000) -> Accepted:
    return Accepted(None, decoded(samples.new_package(f"p{number}", description="x" * size)))


def serve(publisher: FeedPublisher, until: Callable[[], bool]) -> None:
    def done() -> bool:
        publisher.serve(0.001)
        return until()

    eventually(done)


def subscribed(publisher: FeedPublisher, context: Peers, feed: Feed) -> zmq.Socket[bytes]:
    before = publisher.subscribers
    made: zmq.Socket[bytes] = context.socket(zmq.SUB)
    made.subscribe(b"")
    made.connect(feed.changes)
    serve(publisher, lambda: publisher.subscribers > before)
    return made


def heartbeats(socket: zmq.Socket[bytes]) -> int:
    count = 0
    while socket.poll(0):
        count += socket.recv_multipart()[0] == encode.HEARTBEAT
    return count


def test_who_makes_up_subscriptions_is_let_go(
    publisher: FeedPublisher, context: Peers, ipc: Feed, caplog: Any
) -> None:
    """A flood of them once blocked the publisher, and took a gigabyte within seconds."""
    friend = subscribed(publisher, context, ipc)
    flood = context.socket(zmq.XSUB)
    flood.sndhwm = 0
    flood.connect(ipc.changes)
    monitor = context.disconnections(flood)
    for number in range(200_000):
        flood.send(b"\1" + number.to_bytes(8, "big"))
    before = heartbeats(friend)
    serve(publisher, lambda: "disconnected a subscriber: it makes up" in caplog.text)
    eventually(lambda: bool(monitor.poll(10)))
    publisher._next_heartbeat = 0
    publisher.serve(0.0)
    eventually(lambda: heartbeats(friend) > before)
    flood.close(0)
    serve(publisher, lambda: publisher.subscribers == 1)
    assert caplog.text.count("disconnected a subscriber") == 1, "once a minute"


def test_a_few_subscriptions_are_looked_at_before_the_next_message(
    publisher: FeedPublisher, context: Peers, ipc: Feed
) -> None:
    many = context.socket(zmq.XSUB)
    many.connect(ipc.changes)
    for number in range(10 * module.MAX_AT_ONCE):
        many.send(b"\1" + number.to_bytes(2, "big"))
    serve(publisher, lambda: publisher.subscribers > 0)
    assert publisher.subscribers <= module.MAX_AT_ONCE


@pytest.mark.parametrize("topic", [b"x" * (module.MAX_TOPIC + 1), b"x" * 10_000])
def test_long_subscriptions_are_refused(
    topic: bytes, publisher: FeedPublisher, context: Peers, ipc: Feed
) -> None:
    one = context.socket(zmq.XSUB)
    monitor = context.disconnections(one)
    one.connect(ipc.changes)
    one.send(b"\1" + topic)
    serve(publisher, lambda: bool(monitor.poll(0)))


@pytest.mark.parametrize("publisher", [Limits(topics=5)], indirect=True)
def test_there_are_so_many_subscriptions(
    publisher: FeedPublisher,
    context: Peers,
    ipc: Feed,
    caplog: Any,
) -> None:
    friend = subscribed(publisher, context, ipc)
    for number in range(10):
        one = context.socket(zmq.XSUB)
        one.connect(ipc.changes)
        one.send(b"\1" + bytes([number]))
    serve(publisher, lambda: "there are 5 subscriptions, and it has most of them" in caplog.text)
    publisher.publish([large(1, 10)])
    eventually(lambda: bool(friend.poll(10)))


def spoken(feed: Feed, *messages: bytes) -> socket.socket:
    """A subscriber that sends what no library would: ZeroMQ leaves out redundant subscriptions.

    Source: https://rfc.zeromq.org/spec/23/
    """
    made = socket.socket(socket.AF_UNIX)
    made.connect(feed.changes.removeprefix("ipc://"))
    greeting = b"\xff" + bytes(8) + b"\x7f\3\0NULL" + bytes(48)
    ready = b"\5READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"
    made.sendall(greeting)
    made.sendall(bytes([4, len(ready)]) + ready)
    heard = b""
    while b"XPUB" not in heard:
        heard += made.recv(1000)
    made.sendall(b"".join(bytes([0, len(one)]) + one for one in messages))
    return made


def test_subscriptions_that_are_said_twice_are_one(publisher: FeedPublisher, ipc: Feed) -> None:
    """A client that did this and left once locked everybody else out, because the count stayed."""
    for _ in range(2):
        with spoken(ipc, *[b"\1same"] * 50):
            serve(publisher, lambda: publisher.subscribers > 0)
            for _ in range(20):
                publisher.serve(0.001)
            assert publisher.subscribers == 1
        serve(publisher, lambda: publisher.subscribers <= 0)
        assert publisher.subscribers == 0


def test_subscriptions_that_nobody_had_are_not_ended(publisher: FeedPublisher, ipc: Feed) -> None:
    """After that there was once no bound on subscriptions."""
    with spoken(ipc, *[b"\0never"] * 50, b"\1one", b"\1two"):
        serve(publisher, lambda: publisher.subscribers == 2)
    serve(publisher, lambda: publisher.subscribers == 0)


def test_who_closes_one_half_has_left(publisher: FeedPublisher, ipc: Feed) -> None:
    with spoken(ipc, b"\1") as one:
        serve(publisher, lambda: publisher.subscribers == 1)
        one.shutdown(socket.SHUT_WR)
        serve(publisher, lambda: publisher.subscribers == 0)


def test_an_address_in_a_request_is_short(
    publisher: FeedPublisher, context: Peers, ipc: Feed
) -> None:
    """The envelope is repeated with each message of an answer: a megabyte became a gigabyte."""
    publisher.publish([large(1, 10)])
    one = context.socket(zmq.DEALER)
    one.connect(ipc.replay)
    request = encode.replay_request(publisher.epoch, 0, 1000)
    for parts in (2, 300):
        one.send_multipart([*[b"x" * 1000] * parts, request])
    one.send(request)
    serve(publisher, lambda: bool(one.poll(0)))
    answered = [one.recv_multipart() for _ in range(2)]
    assert [len(frames) for frames in answered] == [1, 1]


def test_who_does_not_read_answers_gets_no_more(
    publisher: FeedPublisher, context: Peers, ipc: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of 60 bytes once took 1.5 GB within seconds."""
    publisher.publish([large(number) for number in range(200)])
    answers: list[int] = []
    answered = publisher._endpoint.answered

    def counted(connection: Any, size: int) -> None:
        answers.append(size)
        answered(connection, size)

    monkeypatch.setattr(publisher._endpoint, "answered", counted)
    request = encode.replay_request(publisher.epoch, 0, 1000)
    for _ in range(5):
        one = context.deaf(zmq.DEALER)
        one.connect(ipc.replay)
        for _ in range(40):
            one.send(request)
    friend = context.socket(zmq.DEALER)
    friend.connect(ipc.replay)
    after = 0
    while after < 200:
        friend.send(encode.replay_request(publisher.epoch, after, 1000))
        serve(publisher, lambda: bool(friend.poll(0)))
        while True:
            serve(publisher, lambda: bool(friend.poll(0)))
            frame = friend.recv()
            if frame == encode.replay_end(max(after, 0)):
                break
            after += 1
    whole = 40_000 * 200
    assert len(answers) < 5 * 3 + whole // module.MAX_REPLAYED_BYTES + 2, "not 200 answers"
    assert max(answers) < module.MAX_REPLAYED_BYTES + 50_000


@pytest.mark.parametrize("publisher", [Limits(unread_bytes=3_000_000)], indirect=True)
def test_all_who_do_not_read_have_one_bound(
    publisher: FeedPublisher,
    context: Peers,
    ipc: Feed,
) -> None:
    publisher.publish([large(number) for number in range(100)])
    for _ in range(20):
        one = context.deaf(zmq.DEALER)
        one.connect(ipc.replay)
        one.send(encode.replay_request(publisher.epoch, 0, 1000))
    serve(publisher, lambda: publisher._endpoint.unread_bytes >= 3_000_000)
    for _ in range(50):
        publisher.serve(0.001)
    assert publisher._endpoint.unread_bytes < 3_000_000 + 1.1 * module.MAX_REPLAYED_BYTES


@pytest.mark.parametrize("publisher", [Limits(unread_bytes=3_000_000)], indirect=True)
def test_an_answer_that_zeromq_has_not_sent_yet_is_unread(
    publisher: FeedPublisher, context: Peers, ipc: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it once counted as read: the kernel did not hold it."""
    asked: list[bool] = []
    may_be_answered = publisher._endpoint.may_be_answered

    def counted(connection: Any) -> bool:
        asked.append(may_be_answered(connection))
        return asked[-1]

    monkeypatch.setattr(publisher._endpoint, "may_be_answered", counted)
    monkeypatch.setattr(peer_connection, "unread", lambda descriptor: 0)
    monkeypatch.setattr(module, "SENDING_TIME", 1e6)
    publisher.publish([large(number) for number in range(100)])
    for _ in range(10):
        one = context.deaf(zmq.DEALER)
        one.connect(ipc.replay)
        one.send(encode.replay_request(publisher.epoch, 0, 1000))
    serve(publisher, lambda: len(asked) == 10)
    assert asked.count(True) == 3


@pytest.mark.parametrize("publisher", [Limits(unread_bytes=5_000_000)], indirect=True)
def test_a_subscriber_that_does_not_read_is_let_go(
    publisher: FeedPublisher,
    context: Peers,
    ipc: Feed,
    caplog: Any,
) -> None:
    """The bound counts bytes, long before ZeroMQ would drop messages by their number."""
    friend = subscribed(publisher, context, ipc)
    deaf = context.deaf(zmq.SUB)
    deaf.subscribe(b"")
    deaf.connect(ipc.changes)
    serve(publisher, lambda: publisher.subscribers == 2)
    read = 0

    def has_it_all() -> bool:
        nonlocal read
        while friend.poll(20):
            read += friend.recv_multipart()[0] != encode.HEARTBEAT
        return read == publisher.serial

    def let_go() -> bool:
        publisher.publish([large(number) for number in range(20)])
        publisher._endpoint.look()
        has_it_all()
        return publisher.subscribers == 1

    serve(publisher, let_go)
    assert "it does not read what it subscribed to" in caplog.text
    eventually(has_it_all, lambda: (read, publisher.serial))


def test_a_very_large_message_is_only_replayed(
    publisher: FeedPublisher, context: Peers, ipc: Feed
) -> None:
    """A bound on what is sent to all also bounds what a subscriber receives unasked."""
    friend = subscribed(publisher, context, ipc)
    publisher.publish([large(1, 100), large(2, sockets.MAX_PUBLISHED), large(3, 100)])
    topics = []

    def told() -> bool:
        while friend.poll(0):
            topics.append(friend.recv_multipart()[0])
        return topics.count(encode.HEARTBEAT) > 1

    serve(publisher, told)
    assert [one for one in topics if one != encode.HEARTBEAT] == [b"NEWPKG p1", b"NEWPKG p3"]
    asks = context.socket(zmq.DEALER)
    asks.connect(ipc.replay)
    asks.send(encode.replay_request(publisher.epoch, 1, 1))
    serve(publisher, lambda: bool(asks.poll(0)))
    assert len(asks.recv()) > sockets.MAX_PUBLISHED
