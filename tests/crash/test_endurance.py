"""A long life: memory and file descriptors stay as they were, however many messages have come.

Meanwhile months begin, two feeds lose messages, which are replayed, and a third sends nonsense.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
import zmq

from indexer.base import clock
from indexer.base.errors import StateError
from indexer.feed.publisher import FeedPublisher
from indexer.messages import decode, encode
from indexer.messages.entries import Accepted, Row
from indexer.messages.types import Position

from .. import tally
from ..support import Feed, Site, eventually, ipc_feed
from .harness import SEAMS, Stream, Victim, journaled, session
from .months import WrongClock

pytestmark = pytest.mark.crash

PARTS = 10
MESSAGES = tally.amount(20_000, 1_000_000)
BATCH = 200
BEHIND = 2_000
"""Messages that the daemon may be behind: what it holds of a burst comes and goes."""

LOST = 997
"""Every so many messages one is not sent: it has to be asked for."""

NONSENSE = 3
"""Frames of a part that nobody can read, and as many messages that are not valid."""

SLACK = 8 * 2**20
"""Bytes by which a process may have grown: what its allocator keeps, not what it knows."""


class Lossy(FeedPublisher):
    """A publisher whose network loses some of its messages."""

    def send(self, rows: Iterable[Row]) -> None:
        super().send(row for row in rows if row.serial % LOST)


class Nonsense:
    """A publisher of invalid messages, which also answers requests for replay."""

    def __init__(self, context: zmq.Context[Any], feed: Feed) -> None:
        self.changes: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self.replay: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.changes.bind(feed.changes)
        self.replay.bind(feed.replay)
        self.sent = 0
        self.unreadable = 0

    def send(self, count: int) -> None:
        for _ in range(count):
            self.unreadable += 1
            self.changes.send_multipart([b"?", b"\xc1 %d" % self.unreadable])
            self.sent += 1
            self.changes.send_multipart([b"?", self._invalid(self.sent)])
        self.heartbeat()

    def heartbeat(self) -> None:
        self.changes.send_multipart(encode.heartbeat(Position("nonsense", 7, self.sent)))

    def _invalid(self, serial: int) -> bytes:
        body = {"feed": "nonsense", "epoch": 7, "serial": serial, "msg": "?", "data": {}}
        packed: bytes = msgpack.packb(body)
        return packed

    def serve(self) -> None:
        while self.replay.poll(0):
            sender, request = self.replay.recv_multipart()
            wanted = decode.replay_request(request)
            for serial in range(wanted.after + 1, self.sent + 1):
                self.replay.send_multipart([sender, self._invalid(serial)])
            self.replay.send_multipart([sender, encode.replay_end(self.sent)])


class Size(NamedTuple):
    """The memory in bytes and the open files of a daemon's processes."""

    memory: int
    files: int


def size_of(daemon: Victim) -> Size:
    memory = files = 0
    for pid in session(daemon.pid):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        memory += sum(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
        files += len(os.listdir(f"/proc/{pid}/fd"))
    return Size(memory, files)


@contextmanager
def publishers(site: Site, feeds: list[Feed]) -> Iterator[tuple[list[Lossy], Nonsense]]:
    context: zmq.Context[Any] = zmq.Context()
    made: list[Lossy] = []
    try:
        for number, feed in enumerate(feeds[:2]):
            directory = site.home / f"spool-{number}"
            made.append(Lossy(directory, f"feed-{number}", feed.changes, feed.replay, clock.now))
        yield made, Nonsense(context, feeds[2])
    finally:
        for one in made:
            one.close()
        context.destroy(linger=0)


class Life:
    """The publishers of a daemon, and what they have sent."""

    def __init__(
        self, site: Site, stream: Stream, sources: list[Lossy], nonsense: Nonsense
    ) -> None:
        self.site = site
        self.sources = sources
        self.nonsense = nonsense
        self.messages = itertools.cycle(stream.messages)
        self.sent = 0

    def send(self, until: int) -> None:
        """Send more messages; the second feed is ten times as slow as the first."""
        while self.sent < until:
            source = self.sources[self.sent // BATCH % 10 == 0]
            batch = list(itertools.islice(self.messages, BATCH))
            source.publish(Accepted(None, message) for message in batch)
            self.sent += len(batch)
            self.serve(0.0)
            if self.sent % BEHIND == 0:
                eventually(lambda: self.behind() < BEHIND, lambda: self.behind())
        self.nonsense.send(NONSENSE)

    def behind(self) -> int:
        """How many messages the daemon has not journaled yet."""
        self.serve(0.005)
        return self.sent - journaled(self.site)

    def serve(self, seconds: float) -> None:
        for one in self.sources:
            one.serve(seconds)
        self.nonsense.serve()

    def arrived(self) -> bool:
        """Everything is applied and published, and invalid messages are in the quarantine."""
        self.serve(0.01)
        self.nonsense.heartbeat()
        try:
            found = self.site.gather()
        except StateError:
            return False  # there is no state yet
        wrong = self.nonsense.sent + self.nonsense.unreadable
        standing = found["applied_serial"], found["quarantined"], found["pending"]
        return standing == (self.sent, wrong, 0)


def test_nothing_grows_over_a_long_time(
    stream: Stream, site: Site, sockets: Path, tmp_path: Path
) -> None:
    wrong = WrongClock(tmp_path / "clock", SEAMS)
    feeds = [ipc_feed(sockets, str(number)) for number in range(3)]
    options = [*site.state, *site.output, *(one for feed in feeds for one in feed.options)]
    waits = ["--settle", 0.1, "--counters-interval", 1]
    sizes: list[Size] = []
    with publishers(site, feeds) as (sources, nonsense):
        life = Life(site, stream, sources, nonsense)
        with Victim(site.home, "run", *options, *waits, settings=wrong.settings()) as daemon:
            eventually(lambda: bool(nonsense.changes.poll(10)), lambda: daemon.output)
            for part in range(1, PARTS + 1):
                life.send(MESSAGES * part // PARTS)
                eventually(life.arrived, lambda: daemon.output)
                sizes.append(size_of(daemon))
                wrong.next_month()
            daemon.terminate()
    shown = [f"{size.memory / 2**20:.1f} MiB, {size.files} files" for size in sizes]
    print(*shown, sep="\n")
    found = site.status()
    assert found["serial"] == life.sent
    assert found["quarantined"] == 2 * NONSENSE * PARTS
    assert not [feed for feed in found["feeds"] if feed["broken"]]
    assert len(list((site.state_dir / "journal").glob("*.db"))) == PARTS
    # A leak shows in each of the last parts; what comes and goes does not.
    early, late = sizes[1:4], sizes[-3:]
    assert min(late).memory <= max(early).memory + SLACK, shown
    assert min(size.files for size in late) <= max(size.files for size in early), shown
    assert "No differences" in site.piw("check").stdout
    tally.add("inputs", "messages of a long life", life.sent)
    shutil.rmtree(site.state_dir)
