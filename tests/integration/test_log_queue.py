"""The relay of log entries between piw-logger and a master that comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.base import clock
from indexer.daemon.source import DaemonContext
from indexer.feed.security import LOCAL_BINDING, LOCAL_CONNECTING
from indexer.feed.sockets import bound
from indexer.journal.journal import Journal
from indexer.piwheels import cbor
from indexer.piwheels.queues import log_queue
from indexer.piwheels.queues.log_queue import MAX_FRAME, LogRelay

from ..master.captured import DIRECTORY, captures
from ..support import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_a_relay_rests_while_its_master_is_away(sockets: Path, context: zmq.Context[Any]) -> None:
    """Its thread once polled the standard input instead of a closed socket."""
    logger, address = f"ipc://{sockets}/logger", f"ipc://{sockets}/master"
    daemon: Any = DaemonContext(context, None, None, lambda: None)  # type: ignore[arg-type]
    relay = LogRelay(daemon, logger, address, LOCAL_BINDING, LOCAL_CONNECTING, clock.now)
    forward = relay._forward
    assert forward is not None
    master, listener = bound(context, zmq.PULL, address, high_water=1, max_frame=MAX_FRAME)
    assert listener is not None
    push = context.socket(zmq.PUSH)
    push.connect(logger)
    for _ in range(50):
        push.send(bytes(MAX_FRAME))
    eventually(lambda: forward.forwarded > 0 and len(relay._ours) == 50)
    assert forward.behind, "the master does not read"
    before = forward.peer.socket
    master.close(linger=0)
    listener.remove()
    eventually(lambda: forward.peer.socket is not before)
    assert forward.behind
    assert relay._poller().poll(0) == []
    push.close()
    relay.close()


# Equal entries

BEGINNING = datetime(2026, 11, 26, 12, tzinfo=UTC)
SAMPLE = next(
    cbor.loads(one.frame)[1]
    for one in captures(DIRECTORY / "farm" / "wire-lumberjack.jsonl")
    if one.name == "LOGDOWNLOAD"
)


def entry(second: float, host: str = "198.51.100.1") -> bytes:
    at = BEGINNING + timedelta(seconds=second)
    return cbor.dumps("LOGDOWNLOAD", [SAMPLE[0], host, at, *SAMPLE[3:]])


A_LOG = [
    *(entry(number // 10, f"198.51.100.{number % 10}") for number in range(250)),
    *(entry(number // 10, f"198.51.100.{number % 10}") for number in range(200, 250)),
]
"""300 entries of 25 seconds, of which 50 pairs are the same to the letter."""


class Counting:
    """A relay with a journal, as in the daemon; `give` sends as a process of piw-logger does."""

    def __init__(self, context: zmq.Context[Any], sockets: Path, directory: Path) -> None:
        self._context = context
        self._address = f"ipc://{sockets}/logger"
        self.journal = Journal(directory / "journal", clock.now)
        daemon: Any = DaemonContext(context, None, None, lambda: None)  # type: ignore[arg-type]
        self.relay = LogRelay(
            daemon, self._address, None, LOCAL_BINDING, LOCAL_CONNECTING, clock.now
        )
        self._sent = 0

    def logger(self) -> zmq.Socket[bytes]:
        push: zmq.Socket[bytes] = self._context.socket(zmq.PUSH)
        push.connect(self._address)
        return push

    def take(self, sent: int) -> None:
        self._sent += sent
        entries = []

        def all_came() -> bool:
            entries.extend(self.relay.receive(1000, 0))
            return sum(self.relay.counted.values()) == self._sent

        eventually(all_came)
        self.journal.append(entries)

    def give(self, *frames: bytes) -> int:
        """Give a log to a new process; returns how many downloads are counted in all."""
        push = self.logger()
        for frame in frames:
            push.send(frame)
        self.take(len(frames))
        push.close()
        return self.journal.serial


@pytest.fixture
def counting(context: zmq.Context[Any], sockets: Path, tmp_path: Path) -> Iterator[Counting]:
    counting = Counting(context, sockets, tmp_path)
    yield counting
    counting.relay.close()
    counting.journal.close()


def test_equal_entries_count_each_and_once(counting: Counting) -> None:
    """A classroom behind one address: a master counted 300, and we counted 250."""
    assert counting.give(*A_LOG) == 300
    assert counting.give(*A_LOG) == 300
    assert counting.give(*A_LOG, entry(24, "198.51.100.9")) == 301
    assert counting.give(*sorted(A_LOG)) == 301


def test_three_of_one_second_are_three(counting: Counting) -> None:
    for _ in range(2):
        assert counting.give(entry(0), entry(0), entry(0)) == 3
    assert counting.give(entry(0), entry(0), entry(0), entry(0)) == 4


def test_one_process_may_read_a_log_again(counting: Counting) -> None:
    """It goes back in time: to the first entry of the log, or far."""
    assert counting.give(*A_LOG, *A_LOG) == 300
    hours = [entry(minute * 60) for minute in range(120)]
    assert counting.give(*hours, *hours[1:], *hours[50:], *hours) == 300 + 119


def test_a_line_that_comes_late_is_not_a_new_pass(counting: Counting) -> None:
    frames = [entry(0, "198.51.100.9"), entry(60), entry(30), entry(61), entry(60), entry(30)]
    assert counting.give(*frames) == 6
    assert counting.give(*frames) == 6


def test_two_loggers_at_the_same_moment(counting: Counting) -> None:
    """Each has a pass of its own: the same log from both counts once."""
    loggers = [counting.logger(), counting.logger()]
    for frame in A_LOG:
        for logger in loggers:
            logger.send(frame)
    counting.take(600)
    for logger in loggers:
        logger.close()
    assert counting.journal.serial == 300


def test_what_is_remembered_of_a_log_is_bounded(
    counting: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_queue, "MAX_EQUALS", 5)
    counting.give(*A_LOG)
    [over] = counting.relay._passes.values()
    assert len(over._seen) == 5
    monkeypatch.setattr(log_queue, "MAX_PASSES", 2)
    for _ in range(3):
        counting.give(entry(0))
    assert len(counting.relay._passes) == 2
