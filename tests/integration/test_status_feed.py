"""The status feed over real sockets: masters that come, go, come back, and send nonsense."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.base import notes, times
from indexer.base.errors import StateError, UsageError
from indexer.daemon.source import DaemonContext, Source
from indexer.index import queries as indexes
from indexer.journal import quarantine
from indexer.journal.journal import Journal
from indexer.messages.entries import Entry, Refused
from indexer.piwheels.farm import status_queue as status_feed
from indexer.piwheels.farm.status_queue import StatusFeed

from ..master import captured
from ..master.farm import BEGINNING, Master, Message, frames
from ..master.status_queue import StatusQueue
from ..support import eventually, free_ports

pytestmark = pytest.mark.integration

CAPTURED = [one.frame for one in captured.STATUS]


class Ours:
    """The daemon's side: the feed, its index, and clocks that a test sets."""

    def __init__(self, directory: Path, status: str, control: str | None = None) -> None:
        self.seconds = 1000.0
        self.status, self.control = status, control
        self.connection = indexes.open_index(directory / "index.db")
        self._journal = Journal(directory / "journal", lambda: times.from_datetime(BEGINNING))
        self.finished: list[tuple[str, str]] = []
        self.refused: list[Refused] = []
        self.feed = self.open()

    def open(self) -> Source:
        self._context: zmq.Context[Any] = zmq.Context()
        daemon = DaemonContext(self._context, self._journal, self.connection, lambda: None)
        return StatusFeed(
            daemon,
            self.status,
            self.control,
            lambda: times.from_datetime(BEGINNING) + round((self.seconds - 1000) * times.SECOND),
            lambda: self.seconds,
            lambda build: self.finished.append((build.package, build.version)),
        )

    def close_feed(self) -> None:
        self.feed.close()
        self._context.destroy(linger=0)

    def close(self) -> None:
        self.close_feed()
        self.connection.close()
        self._journal.close()

    def step(self) -> None:
        """One round of the daemon."""
        for entry in self.feed.receive(10_000, self.seconds + 1):
            assert isinstance(entry, Refused)
            self.refused.append(entry)
        self.feed.tick()

    def wait(self, condition: Any, why: str = "") -> None:
        def holds() -> bool:
            self.step()
            return bool(condition())

        eventually(holds, lambda: (why, self.live))

    def hear(self, count: int) -> None:
        """Wait until this many more frames have come."""
        until = self.live["status_feed"]["frames"] + count
        self.wait(lambda: self.live["status_feed"]["frames"] >= until)
        assert self.live["status_feed"]["frames"] == until

    def told(self, queue: StatusQueue, said: list[Message]) -> None:
        """Let the master send messages, and hear all of them."""
        queue.say(*frames(said))
        self.hear(len(said))

    def later(self, seconds: float) -> None:
        self.seconds += seconds
        self.step()

    @property
    def live(self) -> dict[str, Any]:
        return {name: notes.plain(part) for name, part in self.feed.live().items()}

    @property
    def numbers(self) -> list[int]:
        return [one["slave_id"] for one in self.live["farm"]["slaves"]]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()


@pytest.fixture(params=["ipc", "tcp"])
def address(request: pytest.FixtureRequest, sockets: Path) -> str:
    """The address of a status queue."""
    if request.param == "ipc":
        return f"ipc://{sockets}/status"
    return f"tcp://127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
def ours(address: str, tmp_path: Path) -> Iterator[Ours]:
    found = Ours(tmp_path, address)
    yield found
    found.close()


@pytest.fixture
def asking(sockets: Path, tmp_path: Path) -> Iterator[Ours]:
    """A side that may ask the master."""
    found = Ours(tmp_path, f"ipc://{sockets}/status", f"ipc://{sockets}/control")
    yield found
    found.close()


def test_the_captured_life(address: str, ours: Ours) -> None:
    """A minute of a real farm, as fast as possible."""
    with StatusQueue(address) as master:
        master.wait_for_subscriber(ours.step)
        master.say(*CAPTURED)
        ours.hear(len(CAPTURED))
    assert ours.refused == []
    assert len(ours.finished) == 16
    assert ours.finished[0] == ("numpy", "1.19.5")
    assert ours.finished[-1] == ("slowpoke", "1.0")
    farm = ours.live["farm"]
    assert farm["master"]["label"] == "vm"
    assert [one["label"] for one in farm["slaves"]] == ["trixie-1", "bullseye-1"]
    assert len(farm["finished"]) == 16
    query = "SELECT slave_id, label, doing, abi_tags, since FROM farm"
    assert ours.rows(query) == [
        (4, "trixie-1", "idle", "cp313", "2026-11-22 14:15:52"),
        (5, "bullseye-1", "idle", "cp39", "2026-11-22 14:15:51"),
    ]
    query = "SELECT status_queue, label, packages_built, builds_pending ->> 'cp311' FROM masters"
    assert ours.rows(query) == [(address, "vm", 5, 0)]
    assert ours.feed.problem is None


def test_the_index_follows(address: str, ours: Ours) -> None:
    master = Master()
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, [*master.hello(), *master.join(), *master.idle(1, ["numpy", "2.0"])])
        assert ours.rows("SELECT doing, package, version FROM slaves") == [
            ("building", "numpy", "2.0")
        ]
        said: list[str] = []
        ours.connection.set_trace_callback(said.append)
        ours.step()
        ours.connection.set_trace_callback(None)
        assert said == [], "nothing has changed"
        ours.told(queue, master.built(1))
        assert ours.rows("SELECT doing, builds_failed FROM slaves") == [("cleaning", 1)]
        ours.told(queue, master.bye(1))
        assert ours.rows("SELECT * FROM slaves") == []
    assert ours.finished == [("numpy", "2.0")]


def test_slaves_that_are_silent_leave(address: str, ours: Ours) -> None:
    master = Master()
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, [*master.join(), *master.idle(1)])
        assert ours.numbers == [1]
        ours.later(331)
        assert ours.numbers == []
        assert ours.rows("SELECT * FROM slaves") == []


# Masters that come and go


def test_a_master_that_goes_and_comes_back(address: str, ours: Ours) -> None:
    assert ours.feed.problem is None
    ours.later(status_feed.SILENCE_TIMEOUT + 1)
    assert str(ours.feed.problem).startswith(f"no master is at {address}")
    assert not ours.live["status_feed"]["connected"]
    master = Master()
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, [*master.hello(), *master.join("first"), *master.join("second")])
        ours.wait(lambda: ours.live["status_feed"]["connected"])
        assert ours.feed.problem is None
        assert ours.numbers == [1, 2]
    ours.wait(lambda: not ours.live["status_feed"]["connected"])
    # At once: all was well for half a minute.
    assert str(ours.feed.problem) == f"the master at {address} is gone: does piw-master run?"
    assert ours.numbers == [1, 2], "they may still work"
    ours.later(status_feed.SILENCE_TIMEOUT + 1)
    assert "is gone" in str(ours.feed.problem)
    master.now += timedelta(seconds=62)
    master.restart()
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, master.stats())
        ours.wait(lambda: ours.feed.problem is None)
        assert ours.numbers == [1, 2], "nothing says yet that it is another one"
        ours.told(queue, master.join("third"))
        assert ours.numbers == [1]
        assert ours.live["farm"]["slaves"][0]["label"] == "third"


def test_a_master_that_is_silent(address: str, ours: Ours) -> None:
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.wait(lambda: ours.live["status_feed"]["connected"])
        ours.later(status_feed.SILENCE_TIMEOUT + 1)
        assert str(ours.feed.problem) == f"the master at {address} has been silent for 31 s"
        ours.told(queue, Master().stats())
        assert ours.feed.problem is None
        assert ours.live["status_feed"]["silent_seconds"] == 0


# Nonsense


def test_nonsense_goes_to_the_quarantine(address: str, ours: Ours, tmp_path: Path) -> None:
    master = Master()
    good = frames(master.join())
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        queue.say(good[0], b"", b"\xff", *[b"nonsense"] * 5, b"\x67goodbye", good[1])
        queue.say_parts(b"\x65STATS", b"and more")
        ours.hear(11)
    assert ours.numbers == [1]
    assert {(one.position, one.source, one.format) for one in ours.refused} == {
        (None, "status-queue", "cbor")
    }
    assert [one.raw for one in ours.refused] == [
        *(b"", b"\xff", *[b"nonsense"] * 5, b"\x67goodbye", b"\x65STATSand more")
    ]
    assert ours.refused[-2].error.cause == "there is no message 'goodbye' here"
    assert ours.live["status_feed"]["refused"] == 9
    assert ours.feed.problem is None, "the quarantine says it"
    journal = Journal(tmp_path / "other", lambda: times.from_datetime(BEGINNING))
    entries: list[Entry] = [*ours.refused]
    journal.append(entries)
    assert sorted((one.times, one.raw) for one in quarantine.entries(journal.reader)) == [
        *((1, b""), (1, b"\x65STATSand more"), (1, b"\x67goodbye"), (1, b"\xff")),
        (5, b"nonsense"),
    ]
    journal.close()


def test_what_a_newer_master_says_is_named_and_ignored(
    address: str, ours: Ours, caplog: pytest.LogCaptureFixture
) -> None:
    """Other messages, and more fields at the end of those that are known."""
    (name, hello), *rest = Master().join()
    number, at, word, fields = hello
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, [(name, [number, at, word, [*fields, "riscv64", 5], "more"]), *rest])
        ours.told(queue, [("ARCHIVED", ["numpy"]), (name, [number, at, "REST", 5])] * 3)
    assert ours.numbers == [1]
    assert ours.live["status_feed"]["refused"] == 0
    assert ours.live["status_feed"]["unknown"] == ["ARCHIVED", "SLAVE REST"]
    assert caplog.text.count("sends a message that is not known: ARCHIVED") == 1


def test_nonsense_without_end_is_counted(address: str, ours: Ours) -> None:
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        queue.say(*[b"%d" % number for number in range(1000)])
        ours.hear(1000)
        assert len(ours.refused) == status_feed.MAX_KEPT
        assert ours.live["status_feed"]["refused"] == 1000
        trouble = str(ours.feed.problem)
        assert trouble.startswith(f"900 messages of {address} could not be read, and are too many")
        ours.told(queue, Master().join())
        assert ours.numbers == [1]
        ours.later(status_feed.KEPT_INTERVAL * 3)
        queue.say(*[b"more%d" % number for number in range(10)])
        ours.hear(10)
        assert len(ours.refused) == status_feed.MAX_KEPT + 3
        assert str(ours.feed.problem).startswith("907 messages of ")
        ours.later(status_feed.DROP_TIMEOUT + 1)
        ours.told(queue, Master().stats())
        assert ours.feed.problem is None
        queue.say(*[b"again%d" % number for number in range(20)])
        ours.hear(20)
        assert str(ours.feed.problem).startswith("15 messages of "), "those before are forgotten"


def test_a_frame_of_any_size(address: str, ours: Ours) -> None:
    """A peer that sends too much is disconnected, and ZeroMQ would not connect again."""
    master = Master()
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        queue.say(b"x" * status_feed.MAX_FRAME)
        ours.hear(1)
        queue.say(b"x" * (status_feed.MAX_FRAME + 1))
        ours.wait(lambda: not ours.live["status_feed"]["connected"])
        ours.wait(lambda: ours.live["status_feed"]["connected"])
        queue.say(*frames(master.join()))
        ours.wait(lambda: ours.numbers == [1])
        assert len(ours.refused) == 1


def test_a_batch_ends(address: str, ours: Ours) -> None:
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        queue.say(*CAPTURED)
        seen = 0
        for most, until, limit in ((10, ours.seconds + 1, 10), (10_000, ours.seconds, 64)):
            for _ in range(5):
                eventually(lambda: bool(ours.feed.sockets()[0].poll(0)))
                ours.feed.receive(most, until)
                frames_now = ours.live["status_feed"]["frames"]
                assert 1 <= frames_now - seen <= limit
                seen = frames_now


# Asking the master


def test_hello_is_said_when_the_master_hears_it(asking: Ours) -> None:
    assert asking.control is not None
    master = Master()
    master.join()
    with StatusQueue(asking.status, asking.control) as queue:
        queue.wait_for_subscriber(asking.step)
        asking.wait(lambda: asking.live["status_feed"]["connected"])
        asking.later(status_feed.SUBSCRIPTION_TIMEOUT / 2)
        assert queue.asked() == [], "the answer might be lost"
        asking.told(queue, master.idle(1))
        asking.wait(lambda: queue.asked() == ["HELLO"])
        asking.told(queue, master.hello())
        assert asking.live["farm"]["slaves"][0]["label"] == "slave"
        asking.later(10 * status_feed.HELLO_INTERVAL)
        assert queue.asked() == [], "nothing is missing"


def test_hello_is_said_to_a_silent_master(asking: Ours) -> None:
    assert asking.control is not None
    with StatusQueue(asking.status, asking.control) as queue:
        queue.wait_for_subscriber(asking.step)
        asking.wait(lambda: asking.live["status_feed"]["connected"])
        asking.later(status_feed.SUBSCRIPTION_TIMEOUT + 1)
        asking.wait(lambda: queue.asked() == ["HELLO"])
        asking.later(status_feed.HELLO_INTERVAL - 1)
        assert queue.asked() == []
        asking.later(2)
        asking.wait(lambda: queue.asked() == ["HELLO"])


def test_hello_is_said_to_a_master_that_comes_back(asking: Ours) -> None:
    assert asking.control is not None
    master = Master()
    for _ in range(2):
        with StatusQueue(asking.status, asking.control) as queue:
            queue.wait_for_subscriber(asking.step)
            asking.wait(lambda: asking.live["status_feed"]["connected"])
            asking.later(status_feed.MIN_HELLO_INTERVAL + 1)
            asking.wait(lambda: queue.asked() == ["HELLO"])
            queue.say(*frames(master.hello()))
            asking.wait(lambda: asking.live["farm"]["master"])
        asking.wait(lambda: not asking.live["status_feed"]["connected"])


def test_no_hello_without_a_control_queue(asking: Ours) -> None:
    """The control queue is away: nothing waits for it, and nothing is queued."""
    assert asking.control is not None
    with StatusQueue(asking.status) as queue:
        queue.wait_for_subscriber(asking.step)
        asking.told(queue, Master().stats())
        for _ in range(5):
            asking.later(2 * status_feed.HELLO_INTERVAL)
        assert asking.live["farm"]["master"]["stats"] is not None
        queue.bind_control(asking.control)
        asking.wait(lambda: queue.asked() == ["HELLO"])


# Ourselves


def test_a_restart_of_ours(address: str, ours: Ours) -> None:
    master = Master()
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, [*master.hello(), *master.join("pi"), *master.idle(1, ["numpy", "2.0"])])
        before = ours.rows("SELECT * FROM slaves")
        ours.close_feed()
        ours.seconds += 20
        ours.feed = ours.open()
        ours.step()
        assert ours.rows("SELECT * FROM slaves") == before
        assert ours.live["farm"]["slaves"][0]["label"] == "pi"
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, master.built(1))
        assert ours.finished == [("numpy", "2.0")]
        ours.close_feed()
        ours.seconds += 1000
        ours.feed = ours.open()
        ours.step()
        assert ours.numbers == []
        assert ours.rows("SELECT * FROM slaves") == []
        assert ours.live["farm"]["master"]["label"] == "vm"


def test_another_feed_begins_with_nothing(address: str, ours: Ours) -> None:
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, Master().join())
    ours.close_feed()
    ours.status += "1"
    ours.feed = ours.open()
    ours.step()
    assert ours.live["farm"]["master"] is None
    assert ours.rows("SELECT * FROM slaves") == ours.rows("SELECT * FROM masters") == []


def test_a_full_disk(address: str, ours: Ours) -> None:
    """The farm continues without the index, which catches up later."""
    master = Master()
    pages = ours.rows("PRAGMA page_count")[0][0]
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(60):
            ours.told(queue, master.join(f"slave {number} {'x' * 200}"))
        assert "database or disk is full" in str(ours.feed.problem)
        assert "free some disk space" in str(ours.feed.problem)
        assert len(ours.numbers) == 60
        ours.connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
        ours.step()
        assert ours.feed.problem is None
        assert ours.rows("SELECT count(*) FROM slaves") == [(60,)]


def test_a_broken_index_stops_it(address: str, ours: Ours) -> None:
    ours.connection.execute("DROP TABLE slaves")
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        queue.say(*frames(Master().join()))
        with pytest.raises(StateError, match="cannot write the live farm to the index"):
            ours.hear(2)


@pytest.mark.parametrize("control", [None, "tcp://203.0.113.1:5556"])
def test_tcp_beyond_this_machine_is_refused(control: str | None, ours: Ours) -> None:
    if control is None:
        ours.status = "tcp://203.0.113.1:5555"
    ours.control = control
    ours.close_feed()
    with pytest.raises(UsageError, match="tcp beyond this machine"):
        ours.open()
    assert ours.live["status_feed"]["frames"] == 0


def test_the_index_is_there_for_readers(address: str, ours: Ours, tmp_path: Path) -> None:
    with StatusQueue(address) as queue:
        queue.wait_for_subscriber(ours.step)
        ours.told(queue, Master().join("pi"))
    reader = sqlite3.connect(f"file:{tmp_path}/index.db?mode=ro", uri=True)
    assert reader.execute("SELECT label, doing FROM farm").fetchall() == [("pi", "starting")]
    reader.close()
