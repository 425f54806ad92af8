"""The marked names that the writer has read from the index, and when each of them is due.

Memory is bounded: marks beyond `MAX_WAITING` stay in the index until there is room.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable

from ..base import clock, database
from ..index import pending, queries

MAX_WAITING = 10_000
"""Names that wait for their time in memory. More are left in the index until there is room."""

_LAST_NAME = "\U0010ffff"
"""Sorts after every name."""


class Marks:
    """The marked names, and when each of them is due.

    Args:
        settle: seconds that a name must not have been marked again.
        max_delay: seconds after which it is due even so.
    """

    def __init__(self, connection: sqlite3.Connection, settle: float, max_delay: float) -> None:
        self._connection = connection
        self._settle = settle
        self._max_delay = max_delay
        self._waiting: dict[str, tuple[float, float]] = {}  # name: first and last marked
        with database.wrap_errors("read the index"):
            self._high = queries.applied_serial(connection)  # marks up to here were read...
        self._backlog: tuple[int, str] | None = (0, "")  # ...but not those after this one...
        self._backlog_end = self._high  # ...up to this serial

    @property
    def empty(self) -> bool:
        return not self._waiting and self._backlog is None

    def read(self) -> None:
        """Read the marks that are new since the last time. Too many are left for later.

        Raises StateError if the index cannot be read.
        """
        limit = max(0, MAX_WAITING - len(self._waiting))
        after = self._high, _LAST_NAME
        with database.wrap_errors("read the marks"), database.snapshot(self._connection):
            applied = queries.applied_serial(self._connection)
            marks = pending.marked(self._connection, after, limit)
        self._high = max(self._high, applied)
        if len(marks) == limit:
            if self._backlog is None:
                self._backlog = (marks[-1][1], marks[-1][0]) if marks else after
            self._backlog_end = applied
        now = clock.monotonic()
        for name, _ in marks:
            first, _ = self._waiting.get(name, (now, now))
            self._waiting[name] = first, now

    def due(self, now: float, limit: int, *, everything: bool) -> list[str]:
        """Up to `limit` names that are due, and then some that were left for later.

        Args:
            now: on a clock that never jumps, in seconds.
            everything: all that wait are due.

        Raises StateError if the index cannot be read.
        """
        names: list[str] = []
        for name, (first, last) in self._waiting.items():
            if len(names) >= limit:
                break
            if everything or now >= last + self._settle or now >= first + self._max_delay:
                names.append(name)
        if self._backlog is not None and len(names) < limit:
            # What is left for later has waited long enough, and never holds up what is due.
            names += self._from_backlog(limit - len(names))
        return names

    def _from_backlog(self, limit: int) -> list[str]:
        assert self._backlog is not None
        with database.wrap_errors("read the marks"):
            marks = pending.marked(self._connection, self._backlog, limit)
        marks = [(name, serial) for name, serial in marks if serial <= self._backlog_end]
        self._backlog = (marks[-1][1], marks[-1][0]) if marks else None
        return [name for name, _ in marks if name not in self._waiting]

    def forget(self, names: Iterable[str]) -> None:
        """These were written, or are tried again at another time."""
        for name in names:
            self._waiting.pop(name, None)

    def next_due(self, now: float) -> float:
        """When the next name is due: now or later."""
        if self._backlog is not None:
            return now
        until = math.inf
        for first, last in self._waiting.values():
            until = min(until, last + self._settle, first + self._max_delay)
            if until <= now:
                return now
        return until
