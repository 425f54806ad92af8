"""Which packages to ask a master for, kept in the index: it outlives the daemon, but not a rebuild.

A build that the status feed showed to end stays here until the master has answered for its package.
Of the packages without news, those come first whose last change is recent compared with the time
since the last answer; every fourth request is for the package whose answer is the oldest.

Nothing of this is in the journal. If the disk is full, it is kept in memory meanwhile.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappush, heappushpop
from typing import NamedTuple

from ...base import database, names, times
from ...base.clock import Clock
from ...base.errors import StateError
from ...base.log import event
from ...base.times import DAY, HOUR, Time
from ..farm.picture import Finished
from ..translate import EndedBuild

log = logging.getLogger(__name__)

MAX_LIKELY = 10_000
"""Packages that are likely to have changed and wait to be asked for; those most likely."""

CHUNK = 500
"""Packages that are looked at together: at full size, for some 5 ms."""

LOOK_INTERVAL = HOUR
"""Between two looks at all packages for those that are likely to have changed."""

DOWNLOADED_AGE = 30 * DAY
"""A package that was downloaded in the last 30 days counts as changed this long ago at least."""

MIN_AGE = HOUR
"""A change that is younger than this counts as this old."""

ASK_AGAIN = 10
"""A package is asked for after this part of the time since its last change: what was released ten
days ago is asked for once a day."""

FULL_SWEEP = 4
"""Every so many requests, the package with the oldest answer is asked for."""


class Ages(NamedTuple):
    """How old the master's answers are, in seconds; None where there is none."""

    oldest: float | None
    median: float | None
    unanswered: int


class Agenda:
    """Which packages to ask for next.

    Args:
        clock: the time of answers.
        chunk: packages that are looked at together.
    """

    def __init__(self, connection: sqlite3.Connection, clock: Clock, chunk: int = CHUNK) -> None:
        self._connection = connection
        self._clock = clock
        self._chunk = chunk
        self._looked = ""  # at packages up to this one
        self._next_look: Time = 0
        self._likely: list[tuple[float, str]] = []  # the most likely last
        self._found: list[tuple[float, str]] = []  # a heap of those of the present look
        self._turn = 0

    # Builds that have ended

    def add(self, build: Finished) -> None:
        """Remember that a build has ended; a later one of its version on its ABI replaces it."""
        with self._writing("remember a build that has ended"):
            self._connection.execute(
                "INSERT OR REPLACE INTO ended_builds VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    names.canonical(build.package),
                    build.version,
                    build.abi_tag,
                    build.slave_id,
                    build.outcome,
                    None if build.began is None else times.to_sql_precise(build.began),
                    times.to_sql_precise(build.ended),
                ),
            )

    def due(self, limit: int) -> dict[str, Time]:
        """The packages of builds that have ended, and since when they wait; the oldest first."""
        return {
            package: times.from_sql(ended)
            for package, ended in self._connection.execute(
                "SELECT package, min(ended) FROM ended_builds GROUP BY package ORDER BY 2 LIMIT ?",
                (limit,),
            )
        }

    def builds(self, package: str) -> list[EndedBuild]:
        """What the status feed told of the builds of a package, for which nobody has asked yet."""
        return [
            EndedBuild(
                version,
                abi_tag,
                slave_id,
                outcome,
                None if began is None else times.from_sql(began),
                times.from_sql(ended),
            )
            for version, abi_tag, slave_id, outcome, began, ended in self._connection.execute(
                "SELECT version, abi_tag, slave_id, outcome, began, ended FROM ended_builds"
                " WHERE package = ? ORDER BY ended, version, abi_tag",
                (package,),
            )
        ]

    def waiting_since(self) -> Time | None:
        """When the build ended that waits the longest for an answer; None if none waits."""
        ended = self._connection.execute("SELECT min(ended) FROM ended_builds").fetchone()[0]
        return None if ended is None else times.from_sql(ended)

    def timed(self, package: str) -> set[int]:
        """The numbers of the builds of a package of which the index knows when they ended."""
        return {
            build_id
            for (build_id,) in self._connection.execute(
                "SELECT build_id FROM builds WHERE package = ? AND built_at IS NOT NULL", (package,)
            )
        }

    # Answers

    def answered(self, package: str, builds: list[EndedBuild], differed: bool) -> None:
        """Note that the master has answered for a package, and that the index agrees with it now.

        Args:
            package: one that the index has.
            builds: those that had ended when it was asked.
            differed: whether the answer was another one than before.
        """
        now = self._clock()
        with self._writing("note an answer of the master"):
            self._forget_builds(package, builds)
            self._connection.execute(
                "INSERT INTO master_answers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                " answered_at = excluded.answered_at,"
                " differed_at = max(differed_at, excluded.differed_at)",
                (package, now, now if differed else 0),
            )

    def unknown(self, package: str, builds: list[EndedBuild]) -> None:
        """Note that the master does not answer for a package."""
        with self._writing("note that the master does not know a package"):
            self._forget_builds(package, builds)
            self._connection.execute("DELETE FROM master_answers WHERE package = ?", (package,))

    def _forget_builds(self, package: str, builds: list[EndedBuild]) -> None:
        self._connection.executemany(
            "DELETE FROM ended_builds"
            " WHERE package = ? AND version = ? AND abi_tag = ? AND ended <= ?",
            [
                (package, build.version, build.abi_tag, times.to_sql_precise(build.ended))
                for build in builds
            ],
        )

    def ages(self) -> Ages:
        """How old the answers are."""
        total, unanswered, oldest = self._connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE answered_at = 0),"
            " min(answered_at) FILTER (WHERE answered_at > 0) FROM master_answers"
        ).fetchone()
        if oldest is None:
            return Ages(None, None, unanswered)
        (median,) = self._connection.execute(
            "SELECT answered_at FROM master_answers WHERE answered_at > 0"
            " ORDER BY answered_at LIMIT 1 OFFSET ?",
            ((total - unanswered) // 2,),
        ).fetchone()
        now = self._clock()
        return Ages(
            max(0.0, (now - oldest) / times.SECOND),
            max(0.0, (now - median) / times.SECOND),
            unanswered,
        )

    # The sweep over packages without news

    def next(self, since: Time) -> str | None:
        """The package to ask for next; None if all were answered for after `since`."""
        self._look()
        self._turn += 1
        if self._turn % FULL_SWEEP:
            if not self._likely:  # what was found so far
                self._likely, self._found = sorted(self._found), []
            while self._likely:
                _, package = self._likely.pop()
                if self._is_known(package):
                    return package
        return self._oldest(since)

    def _oldest(self, since: Time) -> str | None:
        while True:
            row = self._connection.execute(
                "SELECT package, answered_at FROM master_answers ORDER BY answered_at LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            package, answered_at = row
            if not self._is_known(package):
                self.unknown(package, [])
                if self._connection.execute(
                    "SELECT 1 FROM master_answers WHERE package = ?", (package,)
                ).fetchone():
                    return None  # the disk is full
                continue
            return str(package) if answered_at < since else None

    def _is_known(self, package: str) -> bool:
        return bool(
            self._connection.execute(
                "SELECT 1 FROM packages WHERE package = ?", (package,)
            ).fetchone()
        )

    def _look(self) -> None:
        """Look at some more packages, for those that are likely to have changed."""
        now = self._clock()
        if not self._looked and now < self._next_look:
            return
        rows = self._connection.execute(
            "SELECT p.package, coalesce(a.answered_at, 0), coalesce(a.differed_at, 0),"
            " (SELECT max(released) FROM versions v WHERE v.package = p.package),"
            " (SELECT max(built_at) FROM builds b WHERE b.package = p.package),"
            " coalesce(c.downloads_recent, 0) > 0, a.package IS NULL OR a.answered_at > ?"
            " FROM packages p LEFT JOIN master_answers a USING (package)"
            " LEFT JOIN download_counts c USING (package)"
            " WHERE p.package > ? ORDER BY p.package LIMIT ?",
            (now, self._looked, self._chunk),
        ).fetchall()
        # Packages without a line have not been answered for; nor those of the future, which a
        # clock that was set back leaves.
        if missing := [(row[0],) for row in rows if row[-1]]:
            with self._writing("note the packages to ask the master for"):
                self._connection.executemany(
                    "INSERT OR REPLACE INTO master_answers VALUES (?, 0, 0)", missing
                )
        for package, answered, differed, released, built, downloaded, _ in rows:
            changed = max(
                differed, *(times.from_sql(text) for text in (released, built) if text), 0
            )
            if downloaded:
                changed = max(changed, now - DOWNLOADED_AGE)
            likelihood = (now - min(answered, now)) / max(now - changed, MIN_AGE)
            if likelihood * ASK_AGAIN >= 1 and answered:
                add = heappush if len(self._found) < MAX_LIKELY else heappushpop
                add(self._found, (likelihood, package))
        if len(rows) == self._chunk:
            self._looked = rows[-1][0]
            return
        self._likely = sorted({*self._likely, *self._found})[-MAX_LIKELY:]
        self._found = []
        self._looked, self._next_look = "", now + LOOK_INTERVAL

    @contextmanager
    def _writing(self, operation: str) -> Iterator[None]:
        """A transaction; if the disk is full, nothing is written, and the sweep makes it good.

        Raises StateError if the index cannot be written, and waiting does not help.
        """
        try:
            with database.wrap_errors(operation), database.transaction(self._connection):
                yield
        except StateError as error:
            if not error.transient:
                raise
            log.debug("%s", error, extra=event("agenda-not-written"))


def all_answered(connection: sqlite3.Connection, at: Time) -> None:
    """Note that a master has answered for every package of the index at `at`.

    Raises StateError if the index cannot be written.
    """
    with database.wrap_errors("note the master's answers"), database.transaction(connection):
        connection.execute(
            "INSERT INTO master_answers SELECT package, ?, 0 FROM packages WHERE true"
            " ON CONFLICT DO UPDATE SET answered_at = max(answered_at, excluded.answered_at)",
            (at,),
        )
