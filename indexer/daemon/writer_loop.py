"""The writer process: what it writes when, and what it reports.

It reads the marks from the index, and waits until a package is quiet (`settle`, `max_delay`). A
periodic kind is written when it is due, and not before its interval has passed. The
process tries again what fails, which holds up nothing else. Nothing is lost when the process is
killed, because the index says what has to be written.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection

from ..base import clock, database, process, times
from ..base import log as journal_log
from ..base.backoff import Backoff
from ..base.errors import IndexerError, PublishError, StateError
from ..base.log import NOTICE, event
from ..base.once_per import LimitedLog
from ..documents import registry, writer
from ..documents.kind import Moment, PeriodicKind, TreeDocument
from ..documents.publish import Publisher
from ..index import downloads
from . import writer_messages as messages
from .marks import Marks

log = logging.getLogger(__name__)

MIN_RETRY_DELAY = 1.0
MAX_RETRY_DELAY = 30.0
"""Seconds until what failed is tried again."""

INDEX_RETRY_DELAY = 1.0
"""Seconds until an index that could not be read is tried again."""

FLUSH_TIMEOUT = 10.0
"""Seconds that a stop may take to publish what is waiting."""

MAX_AT_STOP = 1.0
"""Seconds of CPU: a document that took longer is not written because of a stop, if it is rare."""

RARE_INTERVAL = 600.0
"""Seconds from which on a document is rare: it may be old as long as the daemon runs, too."""

_MAX_PAUSE = 60.0
"""Seconds that it sleeps when nothing is due."""

_POLL_INTERVAL = 0.02
"""Seconds between two looks at a thread that works, or while the process stops."""


def main() -> None:
    """The process: run until the daemon says stop, or is gone."""
    process.ignore_signals()
    descriptor, parent = map(int, sys.argv[1:])
    process.die_with_parent(parent)
    pipe = Connection(descriptor)
    try:
        options = pipe.recv()
        journal_log.set_up(options.log_level)
        WriterLoop(pipe, options).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the daemon is gone
    except IndexerError as error:
        log.critical("%s", error, extra=event("writer-ended"))
        raise SystemExit(error.exit_status) from None


class WriterLoop:
    """What the process does until the daemon says stop.

    Args:
        pipe: to the daemon.
        options: what it works with.

    Raises:
        IndexerError: if the index cannot be read, or another process publishes there.
    """

    def __init__(self, pipe: Connection, options: messages.Options) -> None:
        self._pipe = pipe
        self._options = options
        self._connection = database.open_reader(options.index_path, cache_kib=8 * 1024)
        self._periodic_connection = database.open_reader(options.index_path, cache_kib=1024)
        self._publisher = Publisher(options.output_path)
        self._publisher.hold()
        self._writer = writer.Writer(self._connection, self._publisher, options.site_url)
        self._marks = Marks(self._connection, options.settle, options.max_delay)
        self._woken = True
        self._stop_at: float | None = None  # when it ends at the latest
        self._unreadable_until = 0.0  # the index
        # Failures of the disk hold up everything, those of a name only that name.
        self._backoff = Backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._backing_off = False
        self._retry_at = 0.0
        self._retries: dict[str, tuple[float, Backoff]] = {}  # name: when to try again
        self._blocked: set[str] = set()  # kinds with something in the way of one of their documents
        self._failing = False  # and the daemon knows
        self._log = LimitedLog(log)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="periodic")
        self._periodic: tuple[PeriodicKind, Future[tuple[str, float]]] | None = None  # is written
        self._took: dict[str, float] = {}  # seconds of CPU, by the name of a kind
        self._window_asked = False
        self._behind: float | None = None  # the daemon, in seconds; None: not yet said
        self._reported: dict[str, str] = {}  # versions of kinds that are written
        self._look_at = {  # not before; live documents not before the daemon has spoken
            kind.name: math.inf if isinstance(kind, TreeDocument) and kind.live else 0.0
            for kind in registry.periodic()
        }

    def run(self) -> None:
        """Work until the daemon says stop.

        Raises:
            EOFError, OSError: if the daemon is gone.
            StateError: if the index cannot be read, and will not be readable by itself.
        """
        self._send(messages.Ready())
        while True:
            # While nothing is due, sleep until something is, or the daemon speaks.
            if self._pipe.poll(self._pause()):
                self._obey(self._pipe.recv())
            now = clock.monotonic()
            try:
                self._work(now)
            except StateError as error:
                if not error.transient:
                    raise
                self._unreadable_until = now + INDEX_RETRY_DELAY
                self._report_failure(error)
            if self._stop_at is not None and (self._is_done or now >= self._stop_at):
                self._writer.close()
                self._thread.shutdown()
                return

    def _send(self, report: messages.Report) -> None:
        self._pipe.send(report)

    def _obey(self, order: messages.Order) -> None:
        match order:
            case messages.Wake():
                self._woken = True
            case messages.Ping(behind_seconds):
                if self._behind is None:
                    self._look_at |= {
                        name: 0.0 for name, at in self._look_at.items() if at == math.inf
                    }
                self._behind = behind_seconds
                self._send(messages.Pong())
            case messages.WindowMoved():
                self._window_asked = False
            case messages.Stop():
                self._stop_at = clock.monotonic() + FLUSH_TIMEOUT - 2
                self._woken = True

    def _work(self, now: float) -> None:
        """Do what is due.

        Raises:
            StateError: if the index cannot be read; it can be called again.
        """
        if now < self._unreadable_until:
            return
        if self._woken:
            self._marks.read()
            self._woken = False
            self._send(messages.MarksRead())
        if now >= self._retry_at:
            self._write_names(now)
        self._write_periodic(now)
        self._unreadable_until = 0.0
        # A document that still cannot be written is not forgotten because others can be.
        if self._failing and not (self._backing_off or self._retries or self._blocked):
            self._failing = False
            self._send(messages.Recovered())

    @property
    def _is_done(self) -> bool:
        idle = self._periodic is None and not self._window_asked
        return idle and not self._woken and self._marks.empty

    def _pause(self) -> float:
        """Seconds until something is due."""
        now = clock.monotonic()
        stopping = self._stop_at is not None
        if now < self._unreadable_until:
            return _POLL_INTERVAL if stopping else self._unreadable_until - now
        if self._woken:
            return 0.0
        until = min(
            now + (_POLL_INTERVAL if stopping or self._periodic is not None else _MAX_PAUSE),
            self._marks.next_due(now),
            *(at for at, _ in self._retries.values()),
        )
        if self._retry_at > now:
            until = max(until, self._retry_at)
        if self._periodic is None and not self._window_asked:
            look_at = min(self._look_at.values(), default=until)
            until = min(until, max(look_at, now + _POLL_INTERVAL))
        return max(0.0, until - now)

    # What marks ask for

    def _write_names(self, now: float) -> None:
        names = [name for name, (at, _) in self._retries.items() if now >= at][: writer.CHUNK // 2]
        retried = set(names)
        stopping = self._stop_at is not None
        due = self._marks.due(now, writer.CHUNK - len(names), everything=stopping)
        names += [name for name in due if name not in retried]
        if not names:
            return
        written = self._writer.write(names)
        self._marks.forget(names)
        for name in written.names:
            self._retries.pop(name, None)
        if written.names:
            self._send(
                messages.NamesWritten(
                    written.serial, written.names, written.changed, written.waiting
                )
            )
        if written.failure is None:
            self._recover()
            return
        # One name that somebody's file stands in the way of must not hold up the others.
        for name in set(names).difference(written.names):
            _, backoff = self._retries.get(name, (0.0, Backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY)))
            self._retries[name] = now + backoff.failed(), backoff
        if written.failure.general:
            self._back_off(written.failure)
        else:
            self._report_failure(written.failure)

    # Failures

    def _back_off(self, failure: PublishError) -> None:
        """Leave the disk alone for a while."""
        self._backing_off = True
        self._retry_at = clock.monotonic() + self._backoff.failed()
        self._report_failure(failure)

    def _recover(self) -> None:
        """The disk takes documents."""
        if self._backing_off:
            log.log(NOTICE, "publishing continues", extra=event("publishing-goes-on"))
        self._backing_off = False
        self._backoff.worked()

    def _report_failure(self, failure: IndexerError) -> None:
        self._log.error("%s", failure, extra=event("publishing-fails"), of=failure.cause)
        self._failing = True
        self._send(messages.Failing(failure.problem))

    # What no mark asks for

    def _write_periodic(self, now: float) -> None:
        """Have what is due written by the thread, one kind at a time, and report it."""
        if self._periodic is not None and not self._report_periodic():
            return
        if self._window_asked or now < self._retry_at:
            return
        moment = Moment(self._connection, self._options.site_url, clock.now())
        start = times.window_start(moment.now)
        kinds = [kind for kind in registry.periodic() if self._is_looked_at(kind, now)]
        with database.wrap_errors("read the index"):
            present = downloads.window_start(self._connection) if kinds else start
            due = [kind for kind in kinds if self._is_due(kind, moment)]
        if start != present:
            # Only the daemon writes the index. It answers when the window is there.
            self._window_asked = True
            self._send(messages.MoveWindow(start))
            return
        for kind in kinds:
            if kind not in due:
                # Look again soon: the first change after a quiet time should not wait for long.
                self._look_at[kind.name] = now + min(1.0, self._interval(kind))
        if due:
            # The one that has waited longest: none keeps the others from being written.
            kind = min(due, key=lambda kind: self._look_at[kind.name])
            self._look_at[kind.name] = now + self._interval(kind)
            work = partial(
                writer.write_periodic,
                *(kind, self._periodic_connection, self._publisher, self._options.site_url),
                moment.now,
                behind_seconds=self._behind,
            )
            self._periodic = kind, self._thread.submit(_timed, work)

    def _is_looked_at(self, kind: PeriodicKind, now: float) -> bool:
        if self._stop_at is None:
            return now >= self._look_at[kind.name]
        if self._interval(kind) >= RARE_INTERVAL and self._took.get(kind.name, 0.0) > MAX_AT_STOP:
            return False  # the next start writes it
        if kind.name in self._blocked:
            return False  # or it would be tried again and again
        # A live document would be due for ever.
        return not (isinstance(kind, TreeDocument) and kind.live)

    def _is_due(self, kind: PeriodicKind, moment: Moment) -> bool:
        # The daemon may not have noted yet what was reported.
        return kind.due(moment) and kind.version(moment) != self._reported.get(kind.name)

    def _interval(self, kind: PeriodicKind) -> float:
        return self._options.intervals.get(kind.name, kind.interval)

    def _report_periodic(self) -> bool:
        """Report what the thread has written; false if it has not ended."""
        assert self._periodic is not None
        kind, written = self._periodic
        if not written.done():
            return False
        self._periodic = None
        try:
            version, self._took[kind.name] = written.result()
        except PublishError as error:
            if error.general:
                self._back_off(error)
            else:  # a directory in the place of one document must not hold up the others
                self._blocked.add(kind.name)
                self._report_failure(error)
        else:
            self._blocked.discard(kind.name)
            if not self._retries:  # names that fail end their own wait
                self._recover()
            self._reported[kind.name] = version
            self._send(messages.KindWritten(kind.name, version))
        gc.collect()
        return True


def _timed(write: Callable[[], tuple[str, int]]) -> tuple[str, float]:
    """Write a kind; returns its version, and the seconds of CPU that it took."""
    began = clock.cpu_of_thread()
    version, _ = write()
    return version, clock.cpu_of_thread() - began
