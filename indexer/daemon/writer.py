"""The daemon's writer: a process of its own, so that publishing never holds up intake.

It decides when (settle, max-delay, counters-interval), reads the marks from the index, and tells
the daemon what is safe on the disk; the daemon alone writes the index. It ends when the daemon
does.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sqlite3
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..base import clock, database, process, times
from ..base import log as journal_log
from ..base.errors import IndexerError, PublishError, StateError
from ..base.log import NOTICE, event
from ..base.once_per import OncePer, left_out
from ..documents import registry, writer
from ..documents.kind import Moment, PeriodicKind, TreeDocument
from ..documents.publish import Publisher
from ..index import downloads, pending, queries

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Names that wait for their time in memory; more are left in the index until there is room."""

_LAST_NAME = "\U0010ffff"
"""Sorts after every name."""

MAX_BACKOFF = 30.0
INDEX_RETRY_DELAY = 1.0
"""Seconds until an index that could not be read is tried again."""

START_TIMEOUT = 60.0
STUCK_TIMEOUT = 300.0
"""Seconds that the writer may be silent after it was woken, until it is given up."""

QUIET_DELAY = 120.0
"""Seconds after which a writer that does not answer is taken to make no progress."""

FLUSH_TIMEOUT = 10.0
"""Seconds that a stop may take to publish what is waiting."""

_IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Options:
    """What the writer works with.

    Attributes:
        index_path: of the index.
        output_path: the root of the site.
        site_url: of the site, without a slash at its end.
        settle: seconds that a package must have been quiet.
        max_delay: seconds after which it is written even if it never is.
        intervals: seconds between two times that documents are written, by the name of a kind,
            where they are not the kind's own.
        log_level: of its log.
    """

    index_path: Path
    output_path: Path
    site_url: str
    settle: float
    max_delay: float
    intervals: Mapping[str, float]
    log_level: int = logging.WARNING


class WriterHandle:
    """The daemon's end: starts the process, wakes it, takes its reports.

    Args:
        options: of the writer.
        connection: that writes the index.
    """

    def __init__(self, options: Options, connection: sqlite3.Connection) -> None:
        self._connection = connection
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_main, args=(other, options, os.getpid()), name="piw-indexer writer", daemon=True
        )
        # Until it can say that it does not listen to signals, they wait.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        other.close()
        # Until it has started nothing would be published, and it may find that it cannot.
        if not self._pipe.poll(START_TIMEOUT):
            raise StateError("start the writer process", f"it was silent for {START_TIMEOUT:g} s")
        try:
            self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        self._woken = self._again = False
        self._woken_at = 0.0
        self._asked_at: float | None = None  # since when it owes an answer
        self._reports: deque[tuple[Any, ...]] = deque()
        self.written = 0
        """Documents that had to be written, so far."""
        self.last_published: tuple[str, int] | None = None
        """The last name that was published, and when."""
        self.published: dict[str, times.Time] = {}
        """When documents were published last, by the name of their kind."""
        self.failure = ""
        """Why publishing fails at present; empty if it does not."""
        self.recent: list[str] = []

    def fileno(self) -> int:
        """For pollers: readable when there are reports."""
        return self._pipe.fileno()

    def wake(self) -> None:
        """Tell it that there are new marks."""
        if self._woken:
            # It may have read the marks before these: wake it again when it says that it has.
            self._again = True
        else:
            self._woken = True
            self._woken_at = clock.monotonic()
            self._send(("wake",))

    def ask(self) -> None:
        """Ask it for a sign of life, unless it owes one."""
        if self._asked_at is None:
            self._asked_at = clock.monotonic()
            self._send(("ask",))

    @property
    def silence(self) -> float:
        """Seconds that it has owed an answer."""
        return 0.0 if self._asked_at is None else clock.monotonic() - self._asked_at

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            self._pipe.send(message)
        except OSError as error:
            raise self._died() from error

    def _died(self) -> StateError:
        self._process.join(5)
        return StateError(
            "go on publishing",
            f"the writer process ended with status {self._process.exitcode}",
            "see its message above; the service starts again by itself",
        )

    def handle(self) -> None:
        """Act on the writer's reports.

        Raises:
            StateError: if the writer has ended, or the index cannot be written; if that is
                `passing`, the reports are kept for the next call.
        """
        self.listen()
        self._act()
        woken = clock.monotonic() - self._woken_at if self._woken else 0.0
        if max(woken, self.silence) > STUCK_TIMEOUT:
            raise StateError(
                "go on publishing",
                f"the writer process has said nothing for {STUCK_TIMEOUT:g} s",
                "look at the file system of --output-path; the service starts again by itself",
            )

    def _act(self) -> None:
        while self._reports:
            self._act_on(self._reports[0])
            self._reports.popleft()
            self._woken_at = clock.monotonic()

    def listen(self) -> None:
        """Take the writer's reports, and keep them for `handle`.

        Raises:
            StateError: if the writer has ended.
        """
        while self._poll():
            try:
                report = self._pipe.recv()
            except (EOFError, OSError) as error:
                raise self._died() from error
            if report[0] == "alive":
                self._asked_at = None
                continue
            self._reports.append(report)
            if self._asked_at is not None:
                self._asked_at = clock.monotonic()  # it is on its way

    def _act_on(self, report: tuple[Any, ...]) -> None:
        kind, *values = report
        if kind == "read":
            self._woken = False
            if self._again:
                self._again = False
                self.wake()
        elif kind == "written":
            serial, names, changed = values
            with self._writing("clear marks"):
                pending.clear(self._connection, [(name, serial) for name in names])
            self.written += changed
            self.last_published = names[-1], clock.now()
            self.published |= dict.fromkeys(
                (kind.name for kind in registry.marked()), self.last_published[1]
            )
            self.recent = (self.recent + names)[-10:]
        elif kind == "window":
            with self._writing("move the window of the counters"):
                downloads.move_window(self._connection, values[0])
            self._send(report)
        elif kind == "documents":
            with self._writing("note what was written"):
                pending.note_written(self._connection, *values)
            self.published[values[0]] = clock.now()
        elif kind == "failed":
            self.failure = values[0]
        elif kind == "well":
            self.failure = ""

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        with (
            database.wrap_errors(f"{doing} in the index"),
            database.transaction(self._connection),
        ):
            yield

    def _poll(self) -> bool:
        try:
            return self._pipe.poll(0)
        except OSError as error:
            raise self._died() from error

    def stop(self) -> None:
        """Let it publish what is waiting, for `FLUSH_TIMEOUT` seconds at most, and end it."""
        try:
            try:
                self._pipe.send(("stop",))
                until = clock.monotonic() + FLUSH_TIMEOUT
                while self._process.is_alive() and clock.monotonic() < until:
                    if self._pipe.poll(0.1):
                        self.handle()
                self.handle()
            except (OSError, StateError):
                pass  # it has ended, which is what was wanted
            self._act()  # its end may be heard together with its last reports
        except (OSError, StateError):
            pass  # marks that are left cost a rewrite
        finally:
            self._process.kill()  # it has had its time, and may be killed at any instant
            self._process.join(5)
            self._pipe.close()


def _main(pipe: Connection, options: Options, parent: int) -> None:
    """The process: run until the daemon says stop, or is gone."""
    # systemd and Ctrl-C tell the whole group to stop; the daemon tells us when it has drained.
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED_SIGNALS)
    journal_log.set_up(options.log_level)
    process.die_with_parent(parent)
    try:
        _WriterLoop(pipe, options).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the daemon is gone
    except IndexerError as error:
        log.critical("%s", error, extra=event("writer-ended"))
        raise SystemExit(error.exit_status) from None


class _WriterLoop:
    def __init__(self, pipe: Connection, options: Options) -> None:
        self._pipe = pipe
        self._options = options
        self._connection = database.open_reader(options.index_path, cache_kib=8 * 1024)
        self._periodic_connection = database.open_reader(options.index_path, cache_kib=1024)
        self._publisher = Publisher(options.output_path)
        self._publisher.hold()
        self._writer = writer.Writer(self._connection, self._publisher, options.site_url)
        self._waiting: dict[str, tuple[float, float]] = {}  # name: first and last touched
        self._high = 0  # marks up to this serial were read, but for the backlog
        self._backlog: tuple[int, str] | None = (0, "")  # marks after this one were not
        self._backlog_end = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="periodic")
        self._periodic: tuple[PeriodicKind, Future[tuple[str, int]]] | None = None  # is written
        self._asked_window = False
        self._reported: dict[str, str] = {}  # versions of kinds that are written
        self._next = {kind.name: 0.0 for kind in registry.periodic()}  # not to be looked at before
        self._woken = True
        self._unreadable_until = 0.0
        self._retry_at = 0.0
        self._backoff = 0.0
        self._told = OncePer()
        self._failing = False  # and the daemon knows
        self._retries: dict[str, tuple[float, float]] = {}  # name: when, after how long a wait

    def run(self) -> None:
        with database.wrap_errors("read the index"):
            self._high = queries.applied_serial(self._connection)
        self._backlog_end = self._high
        self._pipe.send(("ready",))
        stopping = 0.0
        while True:
            # While nothing is due, sleep until something is, or the daemon speaks.
            if self._pipe.poll(self._pause(stopping)):
                message = self._pipe.recv()
                if message[0] == "wake":
                    self._woken = True
                elif message[0] == "ask":
                    self._pipe.send(("alive",))
                elif message[0] == "stop":
                    stopping = clock.monotonic() + FLUSH_TIMEOUT - 2
                    self._woken = True
                elif message[0] == "window":
                    self._asked_window = False
            now = clock.monotonic()
            try:
                self._work(now, bool(stopping))
            except StateError as error:
                if not error.passing:
                    raise
                self._unreadable_until = now + INDEX_RETRY_DELAY
                self._tell(error)
            if stopping and (self._flushed() or now >= stopping):
                self._writer.close()
                self._thread.shutdown()
                return

    def _work(self, now: float, stopping: bool) -> None:
        """Do what is due.

        Raises:
            StateError: if the index cannot be read; it can be called again.
        """
        if now < self._unreadable_until:
            return
        if self._woken:
            self._read_marks()
            self._woken = False
            self._pipe.send(("read",))
        if now >= self._retry_at:
            self._write_due(now, everything=stopping)
        self._write_periodic(now, stopping)
        self._unreadable_until = 0.0
        # A document that still cannot be written is not forgotten because others can be.
        if self._failing and not self._backoff and not self._retries:
            self._failing = False
            self._pipe.send(("well",))

    def _flushed(self) -> bool:
        idle = self._periodic is None and not self._asked_window
        return idle and not self._woken and not self._waiting and self._backlog is None

    def _pause(self, stopping: float) -> float:
        """Seconds until something is due."""
        now = clock.monotonic()
        if now < self._unreadable_until:
            return 0.02 if stopping else self._unreadable_until - now
        if self._woken:
            return 0.0
        until = now + (0.02 if stopping or self._periodic is not None else 60.0)
        if self._backlog is not None:
            until = now
        for first, last in self._waiting.values():
            until = min(until, last + self._options.settle, first + self._options.max_delay)
            if until <= now:
                break
        for at, _ in self._retries.values():
            until = min(until, at)
        if self._retry_at > now:
            until = max(until, self._retry_at)
        if self._periodic is None and not self._asked_window:
            until = min(until, max(min(self._next.values(), default=until), now + 0.02))
        return max(0.0, until - now)

    # Marks

    def _read_marks(self) -> None:
        """Read the marks that are new since the last time; too many are left for later."""
        room = max(0, MAX_WAITING - len(self._waiting))
        after = self._high, _LAST_NAME
        with database.wrap_errors("read the marks"), database.snapshot(self._connection):
            applied = queries.applied_serial(self._connection)
            found = pending.marked(self._connection, after, room)
        self._high = max(self._high, applied)
        if len(found) == room:
            if self._backlog is None:
                self._backlog = (found[-1][1], found[-1][0]) if found else after
            self._backlog_end = applied
        now = clock.monotonic()
        for name, _ in found:
            first, _ = self._waiting.get(name, (now, now))
            self._waiting[name] = first, now

    def _from_backlog(self, most: int) -> list[str]:
        """Names whose marks were left for later."""
        assert self._backlog is not None
        with database.wrap_errors("read the marks"):
            found = pending.marked(self._connection, self._backlog, most)
        found = [(name, serial) for name, serial in found if serial <= self._backlog_end]
        self._backlog = (found[-1][1], found[-1][0]) if found else None
        return [name for name, _ in found if name not in self._waiting]

    def _write_due(self, now: float, everything: bool) -> None:
        settle, max_delay = self._options.settle, self._options.max_delay
        due = [name for name, (at, _) in self._retries.items() if now >= at][: writer.CHUNK // 2]
        again = set(due)
        for name, (first, last) in self._waiting.items():
            if len(due) >= writer.CHUNK:
                break
            if everything or now >= last + settle or now >= first + max_delay:
                if name not in again:
                    due.append(name)
        if self._backlog is not None and len(due) < writer.CHUNK:
            # What is left for later has waited long enough, and never holds up what is due.
            due += [
                name for name in self._from_backlog(writer.CHUNK - len(due)) if name not in again
            ]
        if not due:
            return
        written = self._writer.write(due)
        for name in due:
            self._waiting.pop(name, None)
        for name in written.names:
            self._retries.pop(name, None)
        if written.names:
            self._pipe.send(("written", written.serial, written.names, written.changed))
        if written.failure is not None:
            # One name that somebody's file stands in the way of must not hold up the others.
            for name in set(due).difference(written.names):
                wait = min(MAX_BACKOFF, self._retries.get(name, (0.0, 0.5))[1] * 2)
                self._retries[name] = now + wait, wait
        if written.failure is None or written.failure.general:
            self._back_off(written.failure)
        else:
            self._tell(written.failure)

    def _back_off(self, failure: PublishError | None) -> None:
        """Leave the disk alone for a while, or, without a failure, no longer."""
        if failure is None:
            if self._backoff:
                log.log(NOTICE, "publishing goes on", extra=event("publishing-goes-on"))
            self._backoff = 0.0
            return
        self._backoff = min(MAX_BACKOFF, self._backoff * 2 or 1.0)
        self._retry_at = clock.monotonic() + self._backoff
        self._tell(failure)

    def _tell(self, failure: IndexerError) -> None:
        text = str(failure)
        if many := self._told.count(failure.cause):
            log.error("%s%s", text, left_out(many), extra=event("publishing-fails"))
        self._failing = True
        self._pipe.send(("failed", text))

    # Documents that no mark of a package marks

    def _write_periodic(self, now: float, stopping: bool) -> None:
        """Have what is due written by the thread, one kind at a time, and report it."""
        if self._periodic is not None and not self._report_periodic():
            return
        if self._asked_window or now < self._retry_at:
            return
        moment = Moment(self._connection, self._options.site_url, clock.now())
        start = times.window_start(moment.now)
        kinds = [
            kind
            for kind in registry.periodic()
            if (not _is_live(kind) if stopping else now >= self._next[kind.name])
        ]
        with database.wrap_errors("read the index"):
            present = downloads.window_start(self._connection) if kinds else start
            due = [kind for kind in kinds if self._is_due(kind, moment)]
        if start != present:
            # Only the daemon writes the index. It answers when the window is there.
            self._asked_window = True
            self._pipe.send(("window", start))
            return
        for kind in kinds:
            if kind not in due:
                # Look again soon: the first change after a quiet time should not wait for long.
                self._next[kind.name] = now + min(1.0, self._interval(kind))
        if due:
            kind = due[0]
            self._next[kind.name] = now + self._interval(kind)
            work = (kind, self._periodic_connection, self._publisher, self._options.site_url)
            self._periodic = (
                kind,
                self._thread.submit(writer.write_periodic, *work, moment.now),
            )

    def _report_periodic(self) -> bool:
        """Report what the thread has written; false if it has not ended."""
        assert self._periodic is not None
        kind, written = self._periodic
        if not written.done():
            return False
        self._periodic = None
        try:
            version, _ = written.result()
        except PublishError as error:
            self._back_off(error)
        else:
            if not self._retries:  # documents that fail end their own wait
                self._back_off(None)
            self._reported[kind.name] = version
            self._pipe.send(("documents", kind.name, version))
        gc.collect()
        return True

    def _is_due(self, kind: PeriodicKind, moment: Moment) -> bool:
        # The daemon may not have noted yet what was reported.
        return kind.due(moment) and kind.version(moment) != self._reported.get(kind.name)

    def _interval(self, kind: PeriodicKind) -> float:
        return self._options.intervals.get(kind.name, kind.interval)


def _is_live(kind: PeriodicKind) -> bool:
    """Whether a kind is due for ever."""
    return isinstance(kind, TreeDocument) and kind.live
