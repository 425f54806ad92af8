"""Write-ahead logs that grow because somebody keeps reading; they are cut off when nobody does.

SQLite merges a log only as far as its oldest reader has come, and the file never becomes smaller by
itself while nothing is written. A shell that is left open makes it grow without bound.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from ..base import database
from ..base.backoff import Backoff
from .status_file import LiveLog

MAX_LOG = 32 * 1024 * 1024
"""Bytes of a log above which it is cut off; SQLite merges it from half of that on."""

HELD_DELAY = 10.0
"""Seconds that a log must be held before it is reported: every query holds it for a moment."""

MAX_RETRY_DELAY = 30.0


class LogWatch:
    """Watches the log of one database, which only this process writes.

    Args:
        state_dir: in which the database is.
        max_log: bytes that its log may have.
    """

    def __init__(self, state_dir: Path, max_log: int = MAX_LOG) -> None:
        self._state_dir = state_dir
        self._max_log = max_log
        self._backoff = Backoff(1.0, MAX_RETRY_DELAY)
        self._first: tuple[float, int] | None = None  # when it was found too large, and its size
        self._try_at = 0.0

    def look(self, connection: sqlite3.Connection, path: Path, now: float) -> LiveLog | None:
        """Cut the log off if it is too large.

        Args:
            now: seconds, on a clock that never jumps.

        Returns:
            How it grows, if somebody has kept it from being cut off for some time.
        """
        size = _size(path)
        if size > self._max_log and now >= self._try_at:
            if database.cut_wal(connection):
                self._backoff.worked()
            else:
                self._try_at = now + self._backoff.failed()
            size = _size(path)
        if size <= self._max_log:
            self._first = None
            return None
        since, before = self._first = self._first or (now, size)
        held = now - since
        if held < HELD_DELAY:
            return None
        name = path.relative_to(self._state_dir).as_posix()
        growth = max(0.0, (size - before) / held)
        return LiveLog(name, size, round(held, 1), round(growth, 1))


def _size(path: Path) -> int:
    try:
        return os.stat(f"{path}-wal").st_size
    except OSError:
        return 0
