"""Reads, while the daemon runs, the logs of failed builds whose reasons are not known.

The newest builds are looked at every minute, all others once an hour, from the newest to the
oldest. A process of its own with the lowest priority reads the logs, so they hold nothing up, and a
log that ends it does not end the daemon. That the directory is gone, as when it is not mounted, is
a problem until it is there again.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from ...base import process
from ...base.backoff import Backoff
from ...base.errors import Problem, StateError
from ...base.log import event
from ...daemon.source import DaemonContext
from ...messages.entries import Accepted, Entry, Row
from ...messages.types import Failure
from .. import log_files

log = logging.getLogger(__name__)

MODULE = "indexer.piwheels.log_files"
"""What the process runs."""

AT_ONCE = 200
"""Logs that the process is told to read; their numbers fit into a pipe."""

CHUNK = 2000
"""Numbers of builds that are looked at together in the index, once a second."""

RECENT_INTERVAL = 60.0
"""Seconds between looks at the newest builds."""

PASS_INTERVAL = 3600.0
"""Seconds between looks at all builds."""

MAX_SKIPPED = 1000
"""Logs that ended the process and are not read again by this daemon."""

SILENCE_DELAY = 300.0
"""Seconds without an answer of the process until that is reported: the file system may hang."""

_LISTEN_DELAY = 0.2
MIN_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 60.0


class ReaderOfLogs:
    """A source of the daemon; see `daemon.source.Source`.

    Args:
        directory: the directory `logs` of the master.
    """

    distrust: Problem | None = None

    def __init__(
        self, context: DaemonContext, directory: Path, monotonic: Callable[[], float]
    ) -> None:
        self._connection = context.connection
        self._directory = directory
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._output = b""
        self._asked: deque[int] = deque()  # what the process has not answered
        self._skipped: deque[int] = deque(maxlen=MAX_SKIPPED)
        self._below: int | None = None  # of the look at all builds: those are left
        self._next_recent = self._next_pass = self._next_start = monotonic()
        self._backoff = Backoff(MIN_RESTART_DELAY, MAX_RESTART_DELAY)
        self._failure: Problem | None = None
        self._heard = 0.0  # when the process was asked or answered last

    @property
    def problem(self) -> Problem | None:
        return self._failure

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        return ()

    def receive(self, limit: int, until: float) -> list[Entry]:
        """The reasons that the process has found."""
        if self._process is None or self._process.stdout is None:
            return []
        try:
            piece = os.read(self._process.stdout.fileno(), 64 * 1024)
        except BlockingIOError:
            return []
        if not piece:
            self._ended()
            return []
        *lines, self._output = (self._output + piece).split(b"\n")
        found: list[Entry] = []
        self._heard = self._monotonic()
        for line in lines:
            build_id, failure, fault = json.loads(line)
            self._asked.popleft()
            if failure is not None:
                found.append(Accepted(None, log_files.message(build_id, Failure(*failure))))
            if not fault:
                self._failure = None
            elif (build_id, fault) != (log_files.NO_LOG, log_files.EMPTY):  # as of a new master
                what = f"the logs of failed builds cannot be read in {self._directory}: {fault}"
                self._failure = Problem(what, "see that it is mounted, and that --logs is right")
        self._backoff.worked()
        return found

    def accepted(self, rows: Sequence[Row]) -> None:
        pass

    def tick(self) -> None:
        """Have the next logs read."""
        now = self._monotonic()
        if self._asked and now - self._heard > SILENCE_DELAY:
            what = f"the log of build {self._asked[0]} has not been read for {SILENCE_DELAY:.0f} s"
            self._failure = Problem(what, f"see that {self._directory} answers (ls, dmesg)")
        if self._asked or now < self._next_start:
            return
        wanted = [number for number in self._wanted(now) if number not in self._skipped]
        if wanted:
            self._ask(wanted)

    def _wanted(self, now: float) -> list[int]:
        if now >= self._next_recent:
            self._next_recent = now + RECENT_INTERVAL
            return [*self._newest_below(log_files.newest(self._connection)), log_files.NO_LOG]
        if self._below is None and now >= self._next_pass:
            self._next_pass = now + PASS_INTERVAL
            self._below = log_files.newest(self._connection)
        if self._below is None:
            return []
        found = self._newest_below(self._below)
        # Go on below those that are read now, or below all that were looked at.
        below = found[0] - 1 if len(found) == AT_ONCE else self._below - CHUNK
        # Over gaps in the numbers at once: a million of them once took nine minutes.
        below = log_files.newest(self._connection, below)
        self._below = below if below > 0 else None
        return found

    def _newest_below(self, upper: int) -> list[int]:
        found = log_files.failed(self._connection, max(0, upper - CHUNK), upper)
        return [number for number, _ in found[-AT_ONCE:]]

    def _ask(self, numbers: list[int]) -> None:
        try:
            if self._process is None:
                self._process = process.start(
                    MODULE,
                    self._directory,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
                assert self._process.stdout is not None
                os.set_blocking(self._process.stdout.fileno(), False)
            assert self._process.stdin is not None
            self._process.stdin.write(b"".join(b"%d\n" % number for number in numbers))
            self._process.stdin.flush()
        except (OSError, StateError) as error:
            self._ended(str(error))
            return
        self._asked.extend(numbers)
        self._heard = self._monotonic()

    def _ended(self, why: str = "") -> None:
        """The process has ended: the log that it was reading is left out from now on."""
        if self._asked and self._asked[0] != log_files.NO_LOG:
            self._skipped.append(self._asked[0])
            why = why or f"it ended with the log of build {self._asked[0]}"
        what = f"the process that reads build logs failed: {why or 'it ended'}"
        if self._failure is None:
            log.warning("%s; it is started again", what, extra=event("log-reader-ended"))
        self._failure = Problem(what, "look at that log")
        self._next_start = self._monotonic() + self._backoff.failed()
        self._stop()

    def due_in(self) -> float:
        return _LISTEN_DELAY if self._asked else 3600.0

    def live(self) -> dict[str, tuple[Any, ...]]:
        return {}

    def drain(self) -> None:
        """What is not read yet is read by the next daemon."""
        self._stop()

    def close(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            process.wait(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        pass  # it has not read what it was asked
        self._process = None
        self._output = b""
        self._asked.clear()
