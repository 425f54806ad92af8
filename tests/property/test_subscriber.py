"""Whatever the network does to a feed, every message is accepted once, and in order.

The publisher's side is a few lines over real sockets; what it loses, doubles and mixes up, and
where either side starts again, is drawn. The test says what time it is: nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from indexer.feed import sockets
from indexer.feed.subscriber import Limits, Subscriber
from indexer.messages import decode, encode
from indexer.messages.entries import Accepted, Claimed, Lost, Refused
from indexer.messages.types import Position

from . import strategies as s
from .profiles import examples

pytestmark = pytest.mark.property

FEED, EPOCH = "master", 7
BAD = 5
"""Every so many messages one is published that is not valid."""


def frames(serial: int) -> list[bytes]:
    if serial % BAD == 0:
        message: s.Message = {"msg": "NEWPKG", "data": {"package": "../x"}}
    else:
        message = {"msg": "NEWPKG", "data": {"package": f"package-{serial}"}}
    return [b"NEWPKG", s.wire(message, feed=FEED, epoch=EPOCH, serial=serial)]


class Network:
    """A publisher of serials 1, 2, 3..., its subscriber, and what lies between."""

    def __init__(self, context: zmq.Context[Any], limits: Limits) -> None:
        self.context = context
        self.limits = limits
        self.changes_queue, self.replay_queue = "inproc://c", "inproc://r"
        self.published = 0
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.now = 0.0
        self.cut_off = 0  # answers that stop half-way
        self.delayed: list[list[bytes]] = []
        self.start_publisher()
        self.start_subscriber()

    def start_publisher(self) -> None:
        self.changes, _ = sockets.bound(self.context, zmq.PUB, self.changes_queue)
        self.replay, _ = sockets.bound(self.context, zmq.ROUTER, self.replay_queue)

    def start_subscriber(self) -> None:
        self.subscriber = Subscriber(
            self.context,
            self.changes_queue,
            self.replay_queue,
            lambda feed, epoch: self.durable if (feed, epoch) == (FEED, EPOCH) else 0,
            lambda feed: EPOCH if feed == FEED and self.durable else None,
            lambda: 0,
            lambda: self.now,
            limits=self.limits,
        )

    @property
    def durable(self) -> int:
        return max([0, *self.accepted, *self.refused])

    def publish(self, fate: str) -> None:
        self.published += 1
        sent = frames(self.published)
        if fate == "delayed":
            self.delayed.append(sent)
        elif fate != "lost":
            self.changes.send_multipart(sent)
            if fate == "doubled":
                self.changes.send_multipart(sent)

    def deliver_delayed(self) -> None:
        for sent in reversed(self.delayed):
            self.changes.send_multipart(sent)
        self.delayed.clear()

    def heartbeat(self, serial: int) -> None:
        self.changes.send_multipart(encode.heartbeat(Position(FEED, EPOCH, serial)))

    def receive(self, *, lose: bool = False) -> None:
        """Take what has arrived; a crash before it is durable loses it."""
        for entry in self.subscriber.receive(1000, self.now + 1):
            if lose or isinstance(entry, Claimed):
                continue
            assert not isinstance(entry, Lost), entry
            assert entry.position is not None
            where = self.accepted if isinstance(entry, Accepted) else self.refused
            assert isinstance(entry, (Accepted, Refused))
            assert entry.position == Position(FEED, EPOCH, self.durable + 1)
            where.append(entry.position.serial)

    def answer(self) -> None:
        while self.replay.poll(0):
            sender, request = self.replay.recv_multipart()
            wanted = decode.replay_request(request)
            assert wanted.epoch == EPOCH
            last = min(self.published, wanted.after + wanted.limit)
            for serial in range(wanted.after + 1, last + 1):
                if self.cut_off and serial > wanted.after + 1:
                    self.cut_off -= 1
                    return  # and never again
                self.replay.send_multipart([sender, frames(serial)[1]])
            if self.cut_off:
                self.cut_off -= 1
                continue
            self.replay.send_multipart([sender, encode.replay_end(last)])

    def restart_subscriber(self) -> None:
        self.subscriber.close()
        self.start_subscriber()

    def close(self) -> None:
        self.subscriber.close()
        self.changes.close()
        self.replay.close()


@contextmanager
def network(limits: Limits) -> Iterator[Network]:
    context: zmq.Context[Any] = zmq.Context()
    made = Network(context, limits)
    try:
        yield made
    finally:
        made.close()
        context.destroy(linger=0)


events = st.lists(
    st.one_of(
        *[st.tuples(st.just("publish"), st.sampled_from(("sent", "sent", "lost", "doubled")))] * 4,
        st.tuples(st.just("publish"), st.just("delayed")),
        st.tuples(st.just("deliver"), st.just("")),
        *[st.tuples(st.just("receive"), st.just(""))] * 3,
        st.tuples(st.just("lose"), st.just("")),
        *[st.tuples(st.just("answer"), st.just(""))] * 3,
        st.tuples(st.just("cut off"), st.just("")),
        *[st.tuples(st.just("heartbeat"), st.sampled_from(("now", "old")))] * 2,
        st.tuples(st.just("time"), st.sampled_from(("0.3", "1", "3", "20"))),
    ),
    max_size=60,
)  # fmt: skip


def play(here: Network, script: list[tuple[str, str]]) -> None:
    for what, how in script:
        if what == "publish":
            here.publish(how)
        elif what == "deliver":
            here.deliver_delayed()
        elif what == "receive":
            here.receive()
        elif what == "lose":
            here.receive(lose=True)
            here.restart_subscriber()
        elif what == "answer":
            here.answer()
        elif what == "cut off":
            here.cut_off += 1
        elif what == "heartbeat":
            here.heartbeat(here.published if how == "now" else here.published // 2)
        else:
            here.now += float(how)
            here.subscriber.tick()


@examples(18)
@given(events, st.sampled_from((1, 3, 20_000)), st.sampled_from((1, 2, 1000)))
def test_every_message_once_and_in_order(
    script: list[tuple[str, str]], early: int, limit: int
) -> None:
    with network(Limits(early=early, replay=limit)) as here:
        play(here, script)
        here.cut_off = 0
        for _ in range(300 + 10 * here.published):
            # The publisher continues its heartbeats, and answers.
            if here.durable == here.published:
                break
            here.heartbeat(here.published)
            here.receive()
            here.answer()
            here.receive()
            here.now += 0.5
            here.subscriber.tick()
        everything = range(1, here.published + 1)
        assert sorted(here.accepted + here.refused) == list(everything)
        assert here.accepted == [serial for serial in everything if serial % BAD]
        assert here.refused == [serial for serial in everything if not serial % BAD]
