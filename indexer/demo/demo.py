"""The demo: a simulated farm sends its life over real sockets to the real daemon.

However it ends, no process of it stays. Its state and documents stay, for a look.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import orjson

from ..base import clock, database, filesystem, network, times
from ..base.directories import SPOOL
from ..base.errors import PeerError, StateError
from ..feed.publisher import FeedPublisher
from ..index import queries
from ..messages import decode
from ..messages.entries import Accepted
from ..messages.types import Message
from ..screens.top import PHASES, Details, Story
from ..screens.top import clock as farm_clock
from ..watch.status import Status, gather
from .simulation import Farm

LOG = "daemon.log"
"""The file in the state directory that has the daemon's log."""

DAEMON_OPTIONS = ("--settle=0.5", "--max-delay=2", "--counters-interval=2")
"""Shorter delays than a server's, because somebody is watching."""

LOOK_INTERVAL = 0.25
BATCH = 500
SLICE = 0.05
"""Seconds between two batches of the live part."""

MAX_AHEAD = 20_000
"""Messages of the history that may be sent and not yet be in the index."""

START_TIMEOUT = 60.0
SETTLE_TIMEOUT = 15.0
STOP_TIMEOUT = 25.0

MAX_ADDRESS = 100
"""Bytes in the path of an ipc socket; the system's limit is 107."""


@dataclass(frozen=True)
class Options:
    """What to show.

    Attributes:
        farm: the farm; its `now` is the present.
        rate: messages a second of the live part, on average.
        live: number of messages in the live part; those before are sent as fast as possible.
        state_dir: of the daemon; an empty directory.
        output_path: likewise.
    """

    farm: Farm
    rate: float
    live: int
    state_dir: Path
    output_path: Path


class Seen(NamedTuple):
    """The demo at one moment.

    Attributes:
        status: of its state.
        rates: messages a second that the daemon accepted, the oldest first.
        story: how far the farm's simulated life has been sent.
        published: messages sent.
    """

    status: Status
    rates: tuple[float, ...]
    story: Story
    published: int

    @property
    def written(self) -> int:
        return self.status.daemon.live.written if self.status.daemon is not None else 0

    def line(self) -> str:
        status, story = self.status, self.story
        when = "" if story.farm_time is None else f"  farm at {farm_clock(story.farm_time)}"
        rate = status.daemon.live.rate if status.daemon is not None else 0.0
        problem = status.daemon.live.trouble if status.daemon is not None else ""
        return (
            f"{story.elapsed:5.1f} s  {story.phase:8}"
            f"  published {self.published:,}  accepted {status.applied_serial:,}"
            f"  {rate:,.0f}/s  lag {max(0, self.published - status.applied_serial):,}"
            f"  pending {status.pending:,}  documents {self.written:,}{when}"
            + (f"  PROBLEM: {problem}" if problem else "")
        )


class Demo:
    """A farm's publisher in this process, and the daemon in another.

    Args:
        options: what to show.
        title: which farm it is.
        watch: called about every `LOOK_INTERVAL` seconds with what there is to see.
        interrupted: returns whether the demo has to end early.

    Raises IndexerError if one of them cannot start.
    """

    def __init__(
        self,
        options: Options,
        title: str,
        watch: Callable[[Seen], None],
        interrupted: Callable[[], bool],
    ) -> None:
        self._options = options
        self._watch = watch
        self._interrupted = interrupted
        self._began = clock.monotonic()
        self._title = title
        self._rates: deque[float] = deque(maxlen=120)
        self._rated_at = 0
        self._enter("starting")
        self._progress = 0.0
        self._farm_time: times.Time | None = None
        self._next_look = 0.0
        self._reader: sqlite3.Connection | None = None
        self._details = Details([], [], [], [], 0, 0)
        self._next_details = 0.0
        self._temporary: Path | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        state_dir = options.state_dir
        directory = state_dir
        if len(os.fsencode(directory / "changes")) > MAX_ADDRESS:
            directory = self._temporary = Path(tempfile.mkdtemp(prefix="piw-", dir="/tmp"))
        self._sockets = directory / "changes", directory / "replay"
        changes, replay = (f"ipc://{path}" for path in self._sockets)
        options_there = []
        if network.name_of(state_dir):  # nothing is lost with a simulation
            network.allow()
            options_there.append("--allow-network-file-system")
        try:
            self._publisher = FeedPublisher(state_dir / SPOOL, "demo", changes, replay, clock.now)
        except BaseException:
            self._remove_sockets()
            raise
        self.command = [
            *("run", f"--state-dir={state_dir}", f"--output-path={options.output_path}"),
            *(f"--changes-queue={changes}", f"--replay-queue={replay}"),
            *DAEMON_OPTIONS,
            *options_there,
        ]

    def play(self) -> None:
        """Send the farm's life to its end, or until the demo is interrupted.

        Raises IndexerError if the daemon ended, or does not subscribe.
        """
        with open(filesystem.create(self._options.state_dir / LOG), "wb") as log:
            self._daemon = subprocess.Popen(
                # -P: do not import a folder `indexer` of the current directory.
                [sys.executable, "-P", "-m", "indexer", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = clock.monotonic() + START_TIMEOUT
        while not self._publisher.subscribers and not self._interrupted():
            if clock.monotonic() > until:
                raise PeerError("run the demo", "the daemon does not listen", self._what_to_see)
            self._turn(SLICE)
        tail: deque[Message] = deque()
        self._send_history(tail)
        self._send_live(tail)
        self._settle()
        self._enter("interrupted" if self._interrupted() else "done")
        self._look()

    def _enter(self, phase: str) -> None:
        assert phase in PHASES
        self._phase = phase
        if phase == "live":  # the rates of the history would dwarf them
            self._rates.clear()

    def _send_history(self, tail: deque[Message]) -> None:
        """Publish all but the last messages, as fast as the daemon accepts them."""
        self._enter("history")
        farm = self._options.farm
        end = times.from_datetime(farm.now)
        start = end - farm.days * times.DAY
        messages = self._held_back(tail)
        while not self._interrupted() and (batch := list(islice(messages, BATCH))):
            self._publish(batch)
            self._progress = (batch[-1].at - start) / (end - start)
            self._turn(0.0)
            while self._lag() > MAX_AHEAD and not self._interrupted():
                self._turn(SLICE)

    def _held_back(self, tail: deque[Message]) -> Iterator[Message]:
        """The farm's messages in order, except the last ones, which remain in `tail`."""
        for message in self._options.farm.messages():
            tail.append(decode.from_json(orjson.dumps(message), clock.now()))
            if len(tail) > self._options.live:
                yield tail.popleft()

    def _send_live(self, tail: deque[Message]) -> None:
        """Publish the last messages in the rhythm of the farm's days and nights."""
        self._enter("live")
        if not tail:
            return
        first, last = tail[0].at, tail[-1].at
        seconds = len(tail) / self._options.rate
        began = clock.monotonic()
        while tail and not self._interrupted():
            progress = (clock.monotonic() - began) / seconds
            until = first + int((last - first) * progress)
            batch: list[Message] = []
            while tail and len(batch) < BATCH and tail[0].at <= until:
                batch.append(tail.popleft())
            self._publish(batch)
            self._progress = min(1.0, progress)
            self._turn(0.0 if len(batch) == BATCH else SLICE)

    def _settle(self) -> None:
        """Wait until the daemon says that everything that was sent is in the documents."""
        self._enter("settling")
        sent = self._publisher.spool.serial
        before: tuple[int, int] | None = None
        until = 0.0
        while not self._interrupted():
            status = self._status()
            reached = None
            if status is not None and status.daemon is not None:
                reached = status.daemon.live.applied_serial, status.daemon.live.pending
            if reached == (sent, 0):
                return
            if reached != before:  # the daemon makes progress, however slow the machine is
                before, until = reached, clock.monotonic() + SETTLE_TIMEOUT
            elif clock.monotonic() > until:
                return
            self._turn(SLICE)

    def _publish(self, messages: Iterable[Message]) -> None:
        rows = self._publisher.publish(Accepted(None, message) for message in messages)
        if rows:
            self._farm_time = rows[-1].message.at

    def _turn(self, seconds: float) -> None:
        """Serve the daemon for about `seconds`, and look at it now and then."""
        until = clock.monotonic() + seconds
        while True:
            self._publisher.serve(max(0.0, until - clock.monotonic()))
            if clock.monotonic() >= until:
                break
        if clock.monotonic() >= self._next_look:
            self._look()
            self._next_look = clock.monotonic() + LOOK_INTERVAL

    # Looking

    def _index(self) -> sqlite3.Connection | None:
        path = self._options.state_dir / queries.FILE
        # The daemon creates the index before it subscribes.
        if self._reader is None and self._publisher.subscribers:
            self._reader = database.open_reader(path)
        return self._reader

    def _applied(self) -> int:
        connection = self._index()
        return 0 if connection is None else queries.applied_serial(connection)

    def _lag(self) -> int:
        return self._publisher.spool.serial - self._applied()

    def _status(self) -> Status | None:
        """What `top` shows; None while the daemon has not created its state yet."""
        try:
            return gather(self._options.state_dir, clock.now(), counting=False)
        except StateError:
            return None

    def _look(self) -> None:
        """Show the state; raises StateError if the daemon has ended."""
        assert self._daemon is not None
        if self._daemon.poll() is not None and not self._interrupted():
            raise self._ended()
        status = self._status()
        if status is None:
            return
        if status.daemon is not None and status.daemon.live.at != self._rated_at:
            self._rated_at = status.daemon.live.at
            self._rates.append(status.daemon.live.rate)
        self._look_closer()
        elapsed = clock.monotonic() - self._began
        story = Story(
            self._title, self._phase, elapsed, self._progress, self._farm_time, self._details
        )
        self._watch(Seen(status, tuple(self._rates), story, self._publisher.spool.serial))

    def _look_closer(self) -> None:
        """Query the index for the farm; seldom if the farm is large, because that is slow."""
        began = clock.monotonic()
        connection = self._index()
        if connection is None or began < self._next_details:
            return
        execute = connection.execute
        with database.wrap_errors("read the index"), database.snapshot(connection):
            self._details = Details(
                execute(
                    "SELECT abi_tag, count(*), sum(status = 0) FROM builds GROUP BY abi_tag"
                ).fetchall(),
                execute("SELECT slave_id, builds, failures FROM farm ORDER BY slave_id").fetchall(),
                execute(
                    "SELECT status, package, version, abi_tag, duration FROM recent_builds LIMIT 20"
                ).fetchall(),
                execute("SELECT package, downloads_recent FROM top_downloads LIMIT 20").fetchall(),
                *execute("SELECT count(*) FROM packages").fetchone(),
                *execute("SELECT coalesce(sum(downloads_all), 0) FROM download_counts").fetchone(),
            )
        self._next_details = began + max(1.0, 20 * (clock.monotonic() - began))

    # The end

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop the daemon, which publishes what is pending, and the publisher.

        Raises StateError if the daemon failed, and nothing else is wrong.
        """
        try:
            if self._reader is not None:
                self._reader.close()
            if self._daemon is not None:
                self._stop(self._daemon)
                # A signal to the process group may have come before the daemon was ready for it.
                if self._daemon.returncode and kind is None and not self._interrupted():
                    raise self._ended()
        finally:
            self._publisher.close()
            self._remove_sockets()

    def _stop(self, daemon: subprocess.Popen[bytes]) -> None:
        try:
            daemon.terminate()
            daemon.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the daemon if it still runs; its writer ends with it."""
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.kill()
            self._daemon.wait()

    def _ended(self) -> StateError:
        assert self._daemon is not None
        said = (self._options.state_dir / LOG).read_text(errors="replace").splitlines()
        return StateError(
            "continue the demo",
            f"the daemon ended with status {self._daemon.returncode}; it said last:"
            f" {said[-1].strip() if said else 'nothing'}",
            self._what_to_see,
        )

    @property
    def _what_to_see(self) -> str:
        return f"see {self._options.state_dir / LOG}"

    def _remove_sockets(self) -> None:
        for path in self._sockets:
            path.unlink(missing_ok=True)  # ZeroMQ does not remove them
        if self._temporary is not None:
            self._temporary.rmdir()
