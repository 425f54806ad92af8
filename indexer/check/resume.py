"""What an interrupted check has done, so that the next one resumes it.

Only the work of one check is remembered: the next one finds bits that flip on the disk later.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from ..base import clock, filesystem, lock, notes, times
from ..base.errors import StateError
from ..base.notes import ExactText
from .differences import Difference

StepProgress = Callable[[str, int, int], None]
"""Is called with what is being checked, and how many of how many are done."""

RESUME = "check.resume"
_MAX_AGE = times.DAY
_MAX_DIFFERENCES = 10_000
"""Differences that are remembered; with more, it does not remember where it was."""

_SAVE_INTERVAL = 1.0
"""Seconds."""


class _Reached(NamedTuple):
    key: list[ExactText]
    started: int
    months: dict[str, list[int]]
    scratch: bool
    compared: int | None  # the serial
    documents: ExactText
    found: list[Difference]


_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Run:
    """A check under way; alone with its state directory, where that can be written.

    Args:
        against: what it compares; another one starts from the beginning.
        fresh: start from the beginning, whatever was done.

    Attributes:
        months: the journal's months that were found sound, with size and mtime.
        scratch: whether the index that it replays to can be used.
        index: the serial up to which the index was compared, without a difference; None: not yet.
        documents: the last package whose document was compared.
        found: differences of documents so far.
        resumed: true if it continues an earlier one.
        started: when its first part began.

    Raises StateError if another check runs there.
    """

    def __init__(self, directory: Path, against: list[str], fresh: bool) -> None:
        self._directory = directory
        self._key = [__version__, *against, _boot()]
        self._saved = 0.0
        self.months: dict[str, list[int]] = {}
        self.scratch = False
        self.index: int | None = None
        self.documents = ""
        self.found: list[Difference] = []
        self.resumed = False
        self.started = clock.now()
        self._descriptor = -1
        path = directory / RESUME
        try:
            self._descriptor = filesystem.open_own(path)
        except OSError:
            return  # it may not write there: nothing is remembered
        if not lock.take(self._descriptor, 0.0):
            raise StateError(
                f"check {directory}", "another check runs there", "wait until it has ended"
            )
        if not fresh:
            self._load()

    def _load(self) -> None:
        try:
            reached = notes.loads(os.pread(self._descriptor, notes.MAX_NOTE, 0), _Reached)
        except (OSError, notes.NoteError):
            return  # it was killed while it wrote this, or is the first
        if reached.key != self._key or not 0 <= clock.now() - reached.started < _MAX_AGE:
            return
        _, self.started, self.months, self.scratch, self.index, self.documents, self.found = reached
        self.resumed = True

    def save(self, *, now: bool = False) -> None:
        """Remember where it is; not more often than once a second, unless `now`."""
        if self._descriptor < 0 or len(self.found) > _MAX_DIFFERENCES:
            return
        if not now and clock.monotonic() - self._saved < _SAVE_INTERVAL:
            return
        self._saved = clock.monotonic()
        reached = _Reached(
            self._key,
            self.started,
            self.months,
            self.scratch,
            self.index,
            self.documents,
            self.found,
        )
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, notes.dumps(reached), 0)
        except OSError:
            pass  # a full disk must not end a check

    def finish(self) -> None:
        """Leave nothing for the next check to resume, where the state directory can be written."""
        try:
            (self._directory / RESUME).unlink(missing_ok=True)
        except OSError:
            return
        self.close()

    def close(self) -> None:
        """Let another check begin."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _boot() -> str:
    """What tells this start of the machine: a power failure may have torn the scratch index."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
