"""Fills or repairs an index from piwheels' own database.

A package is journaled only if its rows in the index differ. Then it is deleted and made again, in
one commit of the journal. A file beside the journal says where an interrupted backfill stopped.

Beside a running daemon, what differs is handed to it. A package that it heard of after the moment
that is read is left for the next time.
"""

from __future__ import annotations

import gc
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from ...base import database, filesystem, lock, times
from ...base.directories import JOURNAL
from ...base.errors import StateError, UsageError
from ...base.progress import Progress
from ...index import downloads as counters
from ...index import queries
from ...journal.reader import JournalReader
from ...messages.entries import Accepted, Entry, Row
from ...messages.types import Failure, Message
from ...state import handover
from ...state.state import State
from .. import compare, translate
from ..queues import agenda
from .from_master import Record
from .postgres import Package, Source, hours_since

RECORD = "backfill-postgres.json"
"""The file in the state directory that says how far an unfinished backfill got."""


LOCK = "backfill.lock"
"""A lock file in the state directory: only one process hands messages to the daemon at a time."""


class Sizes(NamedTuple):
    """How much is done at once.

    Attributes:
        page: packages that are compared.
        batch: messages in one commit of the journal; a few more, so that packages stay whole.
        counts: hourly counts in one commit.
    """

    page: int = 500
    batch: int = 5000
    counts: int = 500_000


SIZES = Sizes()


class Outcome(NamedTuple):
    """What a backfill did.

    Attributes:
        packages: those that were read.
        taken: those that the index had differently.
        deleted: those that the database does not have.
        builds: those that were taken.
        counters: packages whose downloads were taken.
        refused: rows that are not valid messages.
    """

    packages: int
    taken: int
    deleted: int
    builds: int
    counters: int
    refused: int


def fill(
    state: State,
    source: Source,
    days: int | None,
    progress: Progress,
    sizes: Sizes = SIZES,
) -> Outcome:
    """Take everything that the database knows; an interrupted backfill continues.

    Args:
        state: takes it.
        days: for how many days downloads are kept by the hour; None for all.
        sizes: how much is done at once.

    Raises:
        PeerError: if the database does not answer; what was taken is kept.
        JournalError: if the journal cannot be written.
        UsageError: if the database is empty, but the index is not.
    """
    # There are millions of small tuples without cycles, which the collector would check repeatedly.
    gc.set_threshold(200_000, 50, 100)
    broken = [feed.feed for feed in state.journal.reader.feeds() if feed.broken]
    record = Record(state.directory / RECORD, broken, source.at)
    filler = _Filler(state, source, progress, sizes)
    filler.abis()
    if not record.packages_done:
        filler.packages(record)
        agenda.all_answered(state.connection, source.at)
    filler.downloads(days)
    for feed in record.broken:
        state.journal.repaired(feed)
    record.ended()
    return filler.outcome


class Beside:
    """A state that a running daemon holds, and that takes messages by handing them to it.

    Open it before the database: what the daemon hears in between must count as newer.

    Attributes:
        connection: reads the index.
        left: packages that are left for the next time.

    Raises StateError if the state cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        with database.wrap_errors(f"use the state directory {directory}"):
            self._lock = filesystem.open_own(directory / LOCK)
        if not lock.take(self._lock, lock.LOCK_TIMEOUT):
            os.close(self._lock)
            raise StateError(
                "hand messages to the daemon",
                "another backfill or reconcile does so",
                "wait until it ends",
            )
        self._reader = JournalReader(directory / JOURNAL)
        self.connection = queries.open_reader(directory / queries.FILE)
        self._news = handover.News(self._reader, self._reader.last_serial())
        self.left: set[str] = set()

    def counts_downloads(self) -> bool:
        """Whether the daemon has counted downloads meanwhile."""
        self._look()
        return self._news.downloads

    def take(self, entries: Iterable[Entry]) -> list[Row]:
        """Hand messages to the daemon; those that were refused are left out."""
        self._look()
        messages = [entry.message for entry in entries if isinstance(entry, Accepted)]
        given = handover.hand(self._directory, self._news, messages)
        self.left |= _packages(messages) - _packages(given)
        self._look()
        if not all(map(self._news.names, given)):
            raise StateError(
                "hand messages to the daemon",
                "it has not journaled all of them",
                "see what it has logged, then run it again",
            )
        return [Row(0, message) for message in given]

    def _look(self) -> None:
        self._reader.scan()  # a new month may have begun
        self._news.look()

    def close(self) -> None:
        self.connection.close()
        self._reader.close()
        os.close(self._lock)


def _packages(messages: list[Message]) -> set[str]:
    return {
        message.data.package for message in messages if message.name not in ("SETABIS", "DOWNLOADS")
    }


def fill_beside(
    state: Beside, source: Source, days: int | None, progress: Progress, sizes: Sizes = SIZES
) -> tuple[Outcome, bool]:
    """Have a running daemon take what differs; see `fill`.

    Download counters are left alone if the daemon counts downloads itself: some of those that it
    has counted are not in the database yet, and some of those in the database it counts later.

    Returns:
        What was done, and whether counters were compared.

    Raises:
        PeerError, StateError, UsageError: as `fill`; or if the daemon does not take them.
    """
    gc.set_threshold(200_000, 50, 100)
    filler = _Filler(state, source, progress, sizes)
    filler.abis()
    filler.packages(None)
    counting = state.counts_downloads()
    if not counting:
        filler.downloads(days)
    return filler.outcome, not counting


class Taker(Protocol):
    """Where messages go."""

    connection: sqlite3.Connection

    def take(self, entries: Iterable[Entry]) -> list[Row]:
        """Take messages; returns those that were taken."""


class _Filler:
    """Fills a state; `outcome` says what was done so far."""

    def __init__(self, state: Taker, source: Source, progress: Progress, sizes: Sizes) -> None:
        self._sizes = sizes
        self._state = state
        self._connection = state.connection
        self._source = source
        self._progress = progress
        self._total = source.count()
        self._fresh = not _any(self._connection, "packages")
        if not self._total and not self._fresh:
            raise UsageError(
                "backfill",
                "the database has no packages, but the index has: all of them would be deleted",
                "check --dsn",
            )
        self.outcome = Outcome(0, 0, 0, 0, 0, 0)

    def _count(self, **more: int) -> None:
        known = self.outcome._asdict()
        self.outcome = Outcome(**{name: known[name] + more.get(name, 0) for name in known})

    def abis(self) -> None:
        """Take the build ABIs, if they differ."""
        message = self._source.abis()
        if message.data != compare.set_abis(self._connection):
            self._state.take([Accepted(None, message)])

    # Packages

    def packages(self, record: Record | None) -> None:
        """Take the packages that differ, and note how far that is."""
        after = "" if record is None else record.after
        done = self._connection.execute(
            "SELECT count(*) FROM packages WHERE package <= ?", (after,)
        ).fetchone()[0]
        batch = _Batch()
        for page in _pages(self._source.packages(after), self._sizes.page):
            last = page[-1].package
            self._compare(page, after, last, batch)
            if len(batch) >= self._sizes.batch:
                self._take(batch)
                batch = _Batch()
                if record is not None:
                    record.reached(last)
            after = last
            done += len(page)
            self._progress(done, self._total)
        self._compare([], after, None, batch)
        self._take(batch)
        if record is not None:
            record.reached(after, packages_done=True)

    def _compare(self, page: list[Package], after: str, last: str | None, batch: _Batch) -> None:
        """Compare the packages between two names; put those that differ into a batch."""
        here = {} if self._fresh else _rows_here(self._connection, after, last)
        for package in page:
            known = here.pop(package.package, None)
            batch.refused += package.refused
            if package.known and (known is None or known != _rows_there(package)):
                if known is not None:
                    package = self._with_reasons(package)
                batch.changed.append(package)
                batch.messages += len(package.known) + len(package.builds)
                if known is not None:
                    batch.gone.append(package.package)
            elif known is not None and not package.known:
                batch.gone.append(package.package)
        batch.gone += here
        batch.read += len(page)
        batch.deleted += len(here)

    def _with_reasons(self, package: Package) -> Package:
        """A package with why its builds failed, which the index may know, but no database."""
        reasons = {
            build_id: Failure(*reason)
            for build_id, *reason in self._connection.execute(
                "SELECT build_id, failure_category, failure_detail FROM builds"
                " WHERE package = ? AND failure_category IS NOT NULL",
                (package.package,),
            )
        }
        builds = [
            message._replace(data=message.data._replace(failure=reasons.get(message.data.build_id)))
            if not message.data.status
            else message
            for message in package.builds
        ]
        return package._replace(builds=builds)

    def _take(self, batch: _Batch) -> None:
        """Take a batch in one commit, so that packages are always complete."""
        at = self._source.at
        entries: list[Entry] = [
            Accepted(None, translate.delete_package(package, at)) for package in sorted(batch.gone)
        ]
        entries += [
            Accepted(None, message) for package in batch.changed for message in package.known
        ]
        # Builds in a row are applied together.
        entries += [
            Accepted(None, message) for package in batch.changed for message in package.builds
        ]
        names = Counter(row.message.name for row in self._state.take(entries + batch.refused))
        self._count(
            packages=batch.read,
            taken=names["NEWPKG"],
            deleted=batch.deleted,
            builds=names["LOGBUILD"],
            refused=len(batch.refused),
        )

    # Downloads

    def downloads(self, days: int | None) -> None:
        """Take the counters that differ."""
        since = hours_since(self._source.at, days)
        window = counters.window_start(self._connection)
        entries: list[Entry] = []
        size = 0
        after = ""
        done = 0
        for page in _pages(self._source.downloads(since), self._sizes.page):
            last = page[-1].data.package
            here = self._counters_here(after, last)
            for message in page:
                known = here.pop(message.data.package, None)
                if known is not None and not _same(known, message, window, days):
                    entries.append(Accepted(None, message))
                    size += len(message.data.hours)
            entries += [self._no_downloads(package) for package, known in here.items() if known[0]]
            after = last
            if size >= self._sizes.counts or len(entries) >= self._sizes.batch:
                self._take_counters(entries)
                entries, size = [], 0
            done += len(page)
            self._progress(done, max(done, self._total))
        here = self._counters_here(after, None)
        entries += [self._no_downloads(package) for package, known in here.items() if known[0]]
        self._take_counters(entries)

    def _counters_here(self, after: str, last: str | None) -> dict[str, tuple[Any, ...]]:
        """Counts of the packages between two names: ever, recent, last hour, first hour."""
        return {
            package: tuple(counts)
            for package, *counts in self._connection.execute(
                "SELECT package, downloads_all, downloads_recent, last_hour, first_hour"
                " FROM download_counts WHERE listed"
                " AND package > ?1 AND (?2 IS NULL OR package <= ?2) ORDER BY package",
                (after, last),
            )
        }

    def _no_downloads(self, package: str) -> Entry:
        at = self._source.at
        data = {"package": package, "all": 0, "hours": {}}
        return Accepted(None, translate.message("DOWNLOADS", at, data))

    def _take_counters(self, entries: list[Entry]) -> None:
        self._count(counters=len(self._state.take(entries)))


class _Batch:
    """What is taken in one commit.

    Attributes:
        gone: packages to delete, even if they are made again.
        changed: packages to make.
        refused: rows that are not messages.
        messages: how many there are in `changed`.
        read: packages that were compared.
        deleted: those of `gone` that the database does not have.
    """

    def __init__(self) -> None:
        self.gone: list[str] = []
        self.changed: list[Package] = []
        self.refused: list[Entry] = []
        self.messages = self.read = self.deleted = 0

    def __len__(self) -> int:
        return self.messages + len(self.gone) + len(self.refused)


def _same(known: tuple[Any, ...], message: Message, window: int, days: int | None) -> bool:
    """True if the index has these counters.

    Comparing every hour would take longer than taking them again. If the sums and the first and
    last hours are equal, the counters are considered equal.
    """
    hours = message.data.hours
    recent = sum(count for hour, count in hours if hour >= window)
    there = message.data.all, recent, hours[-1][0] if hours else None
    if days is None:
        return known == (*there, hours[0][0] if hours else None)
    return known[:3] == there


_Item = TypeVar("_Item")


def _pages(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while page := list(islice(iterator, size)):
        yield page


def _any(connection: sqlite3.Connection, table: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None


# Rows of the index, and rows that messages would make

_Rows = dict[str, set[tuple[Any, ...]]]
"""The rows of a package by table, without its name."""

_BETWEEN = "{0} > ?1 AND (?2 IS NULL OR {0} <= ?2)"
_HERE = {
    "packages": "SELECT package, skip, description FROM packages WHERE "
    + _BETWEEN.format("package"),
    "package_names": "SELECT package, name, seen FROM package_names WHERE "
    + _BETWEEN.format("package"),
    "versions": "SELECT package, version, released, skip, yanked FROM versions WHERE "
    + _BETWEEN.format("package"),
    "builds": "SELECT package, build_id, built_by, version, abi_tag, status, duration, built_at"
    " FROM builds WHERE " + _BETWEEN.format("package"),
    "files": "SELECT b.package, f.* FROM builds b JOIN files f ON f.build_id = b.build_id WHERE "
    + _BETWEEN.format("b.package"),
    "dependencies": "SELECT b.package, d.* FROM builds b JOIN files f ON f.build_id = b.build_id"
    " JOIN dependencies d ON d.filename = f.filename WHERE " + _BETWEEN.format("b.package"),
}


def _rows_here(connection: sqlite3.Connection, after: str, last: str | None) -> dict[str, _Rows]:
    """The rows of the packages between two names."""
    packages: dict[str, _Rows] = {}
    for table, sql in _HERE.items():
        for package, *row in connection.execute(sql, (after, last)):
            if package not in packages:
                packages[package] = {name: set() for name in _HERE}
            packages[package][table].add(tuple(row))
    return packages


def _rows_there(package: Package) -> _Rows:
    """The rows that the messages of a package make."""
    rows: _Rows = {name: set() for name in _HERE}
    yanked = {message.data.version for message in package.known if message.name == "YANKVER"}
    for name, _, data in package.known:
        if name == "NEWPKG":
            rows["packages"].add((data.skip, data.description))
        elif name == "NEWPKGNAME":
            rows["package_names"].add((data.name, times.to_sql_precise(data.seen or 0)))
        elif name == "NEWVER":
            released = times.to_sql(data.released)
            is_yanked = int(data.version in yanked)
            rows["versions"].add((data.version, released, data.skip, is_yanked))
    for _, at, data in package.builds:
        rows["builds"].add(
            (
                data.build_id,
                data.slave_id,
                data.version,
                data.abi_tag,
                int(data.status),
                data.duration,
                times.to_sql(at),
            )
        )
        for file in data.files:
            rows["files"].add((file[0], data.build_id, *file[1:9], file[10]))
            for tool, needed in file.dependencies:
                rows["dependencies"].update((file.filename, tool, name) for name in needed)
    return rows
