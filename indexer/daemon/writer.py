"""The daemon's side of its writer, which is a process: publishing never holds up intake.

The writer decides what to write when, and reports what is safe on the disk. The daemon alone
writes the index. The writer ends when the daemon does.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ..base import clock, database, process, times
from ..base.errors import Problem, StateError
from ..documents import registry
from ..index import downloads, pending, queries, waiting
from . import writer_loop
from . import writer_messages as messages

START_TIMEOUT = 60.0
"""Seconds that the process may take to start."""

STUCK_TIMEOUT = 300.0
"""Seconds without an answer after which the daemon gives the writer up."""

QUIET_DELAY = 120.0
"""Seconds without an answer after which the writer is said to make no progress."""

_MAX_RECENT = 10


def start_process(pipe: Connection) -> subprocess.Popen[bytes]:
    """Start the process, with its end of the pipe."""
    descriptor = pipe.fileno()
    return process.start(
        writer_loop.__name__,
        descriptor,
        os.getpid(),
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
    )


class WriterHandle:
    """Starts the process, wakes it, and acts on its reports.

    Args:
        options: of the writer.
        connection: that writes the index.

    Raises:
        StateError: if the process does not start.
    """

    def __init__(self, options: messages.Options, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._pipe, its_end = Pipe()
        with its_end:
            self._process = start_process(its_end)
        try:
            self._pipe.send(options)
        except OSError as error:
            raise self._died("start the writer process") from error
        # Until it has started nothing is published, and it may find that it cannot.
        if not self._pipe.poll(START_TIMEOUT):
            raise StateError(
                "start the writer process", f"it did not answer within {START_TIMEOUT:g} s"
            )
        try:
            self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died("start the writer process") from error
        self._woken = self._wake_again = False
        self._woken_at = 0.0
        self._pinged_at: float | None = None  # since when it owes an answer
        self._reports: deque[messages.Report] = deque()
        self.written = 0
        """Documents that had to be written, so far."""
        self.last_published: tuple[str, int] | None = None
        """The last name that was published, and when."""
        self.published: dict[str, times.Time] = {}
        """When documents were published last, by the name of their kind."""
        self.failure: Problem | None = None
        """Why publishing fails at present; None if it does not."""
        self.recent: list[str] = []
        """The names that were published last, the latest at the end."""

    def fileno(self) -> int:
        """For pollers: readable when there are reports."""
        return self._pipe.fileno()

    def wake(self) -> None:
        """Tell it that there are new marks."""
        if self._woken:
            # It may have read the marks before these: wake it again when it says that it has.
            self._wake_again = True
        else:
            self._woken = True
            self._woken_at = clock.monotonic()
            self._send(messages.Wake())

    def ping(self, behind_seconds: float = 0.0) -> None:
        """Ask it for a sign of life, unless it owes one, and say how far the daemon is behind."""
        if self._pinged_at is None:
            self._pinged_at = clock.monotonic()
            self._send(messages.Ping(behind_seconds))

    @property
    def unresponsive_for(self) -> float:
        """Seconds that it has owed an answer to a ping."""
        return 0.0 if self._pinged_at is None else clock.monotonic() - self._pinged_at

    def _send(self, order: messages.Order) -> None:
        try:
            self._pipe.send(order)
        except OSError as error:
            raise self._died() from error

    def _died(self, operation: str = "continue publishing") -> StateError:
        process.wait(self._process)
        return StateError(
            operation,
            f"the writer process ended with status {self._process.returncode}",
            f"see its message above, if there is one, and that this user may run {sys.executable};"
            " systemd starts the service again",
        )

    def handle(self) -> None:
        """Act on the writer's reports.

        Raises:
            StateError: if the writer has ended, or the index cannot be written; if that is
                `transient`, the reports are kept for the next call.
        """
        self.listen()
        self._act()
        woken_for = clock.monotonic() - self._woken_at if self._woken else 0.0
        if max(woken_for, self.unresponsive_for) > STUCK_TIMEOUT:
            raise StateError(
                "continue publishing",
                f"the writer process has not answered for {STUCK_TIMEOUT:g} s",
                "look at the file system of --output-path; systemd starts the service again",
            )

    def listen(self) -> None:
        """Take the writer's reports, and keep them for `handle`.

        Raises:
            StateError: if the writer has ended.
        """
        while True:
            try:
                if not self._pipe.poll(0):
                    return
                report: messages.Report = self._pipe.recv()
            except (EOFError, OSError) as error:
                raise self._died() from error
            if isinstance(report, messages.Pong):
                self._pinged_at = None
                continue
            self._reports.append(report)
            if self._pinged_at is not None:
                self._pinged_at = clock.monotonic()  # the answer is on its way

    def _act(self) -> None:
        while self._reports:
            self._act_on(self._reports[0])
            self._reports.popleft()
            self._woken_at = clock.monotonic()

    def _act_on(self, report: messages.Report) -> None:
        match report:
            case messages.MarksRead():
                self._woken = False
                if self._wake_again:
                    self._wake_again = False
                    self.wake()
            case messages.NamesWritten(serial, names, changed, counts):
                with self._writing("clear marks"):
                    pending.clear(self._connection, [(name, serial) for name in names])
                    waiting.note(self._connection, names, counts)
                now = clock.now()
                self.written += changed
                self.last_published = names[-1], now
                self.published.update((kind.name, now) for kind in registry.marked())
                latest = names[-_MAX_RECENT:]  # other spellings of names are links
                latest = [name for name in latest if queries.is_package(self._connection, name)]
                self.recent = (self.recent + latest)[-_MAX_RECENT:]
            case messages.MoveWindow(start):
                with self._writing("move the window of the counters"):
                    downloads.move_window(self._connection, start)
                self._send(messages.WindowMoved())
            case messages.KindWritten(kind, version):
                with self._writing("note what was written"):
                    pending.note_written(self._connection, kind, version)
                self.published[kind] = clock.now()
            case messages.Failing(problem):
                self.failure = problem
            case messages.Recovered():
                self.failure = None

    @contextmanager
    def _writing(self, doing: str) -> Iterator[None]:
        with (
            database.wrap_errors(f"{doing} in the index"),
            database.transaction(self._connection),
        ):
            yield

    def stop(self) -> None:
        """Let it publish what is waiting, for `FLUSH_TIMEOUT` seconds at most, and end it."""
        try:
            try:
                self._pipe.send(messages.Stop())
                until = clock.monotonic() + writer_loop.FLUSH_TIMEOUT
                while self._process.poll() is None and clock.monotonic() < until:
                    if self._pipe.poll(0.1):
                        self.handle()
                self.handle()
            except (OSError, StateError):
                pass  # it has ended, which is what was wanted
            self._act()  # its end may be heard together with its last reports
        except (OSError, StateError):
            pass  # marks that are left cost a comparison
        finally:
            self._process.kill()  # it has had its time, and may be killed at any instant
            process.wait(self._process)
            self._pipe.close()
