"""The index against a fresh one, made from the journal up to the same serial.

A daemon may write the index meanwhile: the fresh one follows it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database
from ..base.directories import JOURNAL
from ..base.errors import JournalError, NewerDatabaseError, StateError, UnfinishedError
from ..index import apply, downloads, queries
from ..journal.reader import JournalReader
from ..state import checkpoint
from ..state.state import BATCH, replay
from . import differences
from .differences import Difference, Part
from .resume import Run, StepProgress

CHECK_INDEX = "index.db.check"
"""The name in the state directory of what is replayed to. An interrupted check leaves it there."""

_MAX_EXAMPLES = 5
_CHUNK = 20_000
"""Rows that are compared at once. During a long snapshot the write-ahead log of a daemon cannot be
truncated, and grows."""

_MAX_FOLLOWED = 1000
"""Messages that may be applied during a snapshot."""


class _Table(NamedTuple):
    """A table that is compared.

    Attributes:
        keys: how many columns tell a row from others, the first ones.
    """

    name: str
    columns: tuple[str, ...]
    keys: int

    def rows(self, connection: sqlite3.Connection, after: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """The rows after a key, in order; `_CHUNK` at most."""
        keys = ", ".join(self.columns[: self.keys])
        source, where = self.name, ""
        if self.name == "download_hours":
            # By package: the numbers that stand for them may be others.
            source = "download_hours CROSS JOIN download_counts USING (counter_id)"
            where = "WHERE hour >= ? AND (hour, package) > (?, ?)" if after else ""
            after = (after[0], *after) if after else ()
        elif after:
            where = f"WHERE ({keys}) > ({', '.join('?' * self.keys)})"
        return connection.execute(
            f"SELECT {', '.join(self.columns)} FROM {source} {where} ORDER BY {keys} LIMIT ?",
            (*after, _CHUNK),
        ).fetchall()


_TABLES = (
    _Table("packages", ("package", "skip", "description"), 1),
    _Table("package_names", ("name", "package", "seen"), 1),
    _Table("versions", ("package", "version", "released", "skip", "yanked"), 2),
    _Table(
        "builds",
        ("build_id", "package", "version", "abi_tag", "status", "built_by", "built_at", "duration",
         "failure_category", "failure_detail"),
        1,
    ),
    _Table(
        "files",
        ("filename", "build_id", "filesize", "filehash", "package_tag", "package_version_tag",
         "py_version_tag", "abi_tag", "platform_tag", "requires_python", "location"),
        1,
    ),
    _Table("dependencies", ("filename", "tool", "dependency"), 3),
    _Table("file_contents", ("filename", "filehash", "filesize", "build_id", "built_at"), 2),
    _Table("build_abis", ("abi_tag", "skip"), 1),
    _Table("preinstalled_apt_packages", ("abi_tag", "apt_package"), 2),
    _Table("abi_fits", ("py_version_tag", "file_abi_tag", "abi_tag", "rank"), 3),
    _Table("pythons_refused", ("requires_python", "abi_tag"), 2),
    _Table("download_counts", ("package", "downloads_recent", "downloads_all", "listed"), 1),
    _Table("download_hours", ("hour", "package", "downloads"), 2),
)  # fmt: skip


def check_index(directory: Path, run: Run, progress: StepProgress) -> Iterator[Difference]:
    """The index against a fresh one, made from the journal.

    It resumes from what an interrupted check has replayed.
    """
    path = directory / queries.FILE
    if not path.exists():
        yield Difference(Part.INDEX, f"there is no {path}")
        return
    try:
        live = queries.open_reader(path)
    except (NewerDatabaseError, UnfinishedError):
        raise
    except StateError as error:
        yield Difference(Part.INDEX, f"it is damaged: {error.cause}")
        return
    try:
        for (found,) in live.execute("PRAGMA quick_check(5)").fetchall():
            if found != "ok":
                yield Difference(Part.INDEX, f"it is damaged: {found}")
                return
        for table, row, parent, _ in live.execute("PRAGMA foreign_key_check").fetchmany(
            _MAX_EXAMPLES
        ):
            yield Difference(Part.INDEX, f"row {row} of {table} has no parent in {parent}")
        applied = queries.applied_serial(live)
        if queries.is_outdated(live):
            yield Difference(
                Part.INDEX,
                "an earlier version made it: the daemon rebuilds it when it starts the next time",
            )
            return
    except sqlite3.Error as error:
        yield Difference(Part.INDEX, f"it is damaged: {error}")
        return
    finally:
        live.close()
    reader = JournalReader(directory / JOURNAL)
    scratch = directory / CHECK_INDEX
    try:
        if applied > reader.last_serial():
            yield Difference(
                Part.INDEX,
                f"it holds messages up to {applied}, the journal to {reader.last_serial()}",
            )
            return
        with closing(_replay(reader, scratch, applied, run, progress)) as fresh:
            yield from _compare(fresh, path, reader, applied, progress)
    except JournalError as error:
        yield Difference(Part.JOURNAL, f"cannot {error.operation}: {error.cause}")
    finally:
        reader.close()
    run.scratch = False
    run.save(now=True)
    database.remove(scratch)


def _replay(
    reader: JournalReader, scratch: Path, applied: int, run: Run, progress: StepProgress
) -> sqlite3.Connection:
    """What the journal says, up to serial `applied`, in a scratch index."""

    def advance(done: int, total: int) -> None:
        if not run.scratch:
            run.scratch = True
            run.save(now=True)
        progress("index", done, total)

    if run.scratch:
        try:
            return replay(reader, scratch, applied, advance, keep=True)
        except StateError:
            run.scratch = False  # it is torn, or beyond the index
    database.remove(scratch)
    return replay(reader, scratch, applied, advance, keep=True)


class _Follower:
    """Keeps a fresh index at the serial of one that a daemon may be writing."""

    def __init__(self, fresh: sqlite3.Connection, reader: JournalReader, applied: int) -> None:
        self.fresh = fresh
        self._reader = reader
        self._applied = applied
        self._applier = apply.Applier(fresh)

    def approach(self, live: sqlite3.Connection) -> None:
        """Apply most of what is missing, outside of a snapshot."""
        while (now := queries.applied_serial(live)) - self._applied > _MAX_FOLLOWED:
            self._apply(now)

    def follow(self, live: sqlite3.Connection) -> None:
        """Apply up to the serial of a snapshot of the index."""
        now = queries.applied_serial(live)
        if now < self._applied:
            raise StateError("compare the index", "it was replaced meanwhile", "check again")
        self._apply(now)
        start = queries.get(live, "window_start", None)
        if start is not None and start != downloads.window_start(self.fresh):
            with database.transaction(self.fresh):
                downloads.move_window(self.fresh, int(start))

    def _apply(self, now: int) -> None:
        if now == self._applied:
            return
        self._reader.scan()
        for rows in self._reader.batches(self._applied, BATCH):
            self._applier.apply([row for row in rows if row.serial <= now])
            if rows[-1].serial >= now:
                break
        self._applied = now


def _compare(
    fresh: sqlite3.Connection,
    path: Path,
    reader: JournalReader,
    applied: int,
    progress: StepProgress,
) -> Iterator[Difference]:
    with closing(queries.open_reader(path)) as live:
        follower = _Follower(fresh, reader, applied)
        for number, table in enumerate(_TABLES):
            progress("tables", number, len(_TABLES))
            yield from _compare_table(table, live, follower)
        progress("tables", len(_TABLES), len(_TABLES))


def _compare_table(
    table: _Table, live: sqlite3.Connection, follower: _Follower
) -> Iterator[Difference]:
    """A table, some rows at a time: each time both are at one serial, which may be another."""
    keys = table.keys
    after: tuple[Any, ...] = ()
    while True:
        follower.approach(live)
        with database.snapshot(live):
            follower.follow(live)
            there = table.rows(live, after)
        here = table.rows(follower.fresh, after)
        ends = [rows[-1][:keys] for rows in (there, here) if len(rows) == _CHUNK]
        if ends:
            after = min(ends)
            there = [row for row in there if row[:keys] <= after]
            here = [row for row in here if row[:keys] <= after]
        if there != here:
            found = {row[:keys]: row for row in there}
            expected = {row[:keys]: row for row in here}
            for key in sorted(found.keys() | expected.keys()):
                if found.get(key) != expected.get(key):
                    of = _owner(follower.fresh, live, key) if table.name in _OF_FILES else ""
                    yield differences.row(
                        table.name, table.columns, found.get(key), expected.get(key), of
                    )
        if not ends:
            return


_OF_FILES = ("files", "dependencies")


def _owner(fresh: sqlite3.Connection, live: sqlite3.Connection, key: tuple[Any, ...]) -> str:
    """The package and version of a file, with a colon."""
    for connection in (fresh, live):
        row = connection.execute(
            "SELECT package, version FROM files JOIN builds USING (build_id) WHERE filename = ?",
            key[:1],
        ).fetchone()
        if row is not None:
            return f"{row[0]} {row[1]}: "
    return ""


def check_copy(
    directory: Path, copied: checkpoint.Checkpoint, scratch: Path, progress: StepProgress
) -> Generator[Difference, None, None]:
    """A copy of the index against a replay of the journal up to the serial of the copy.

    Args:
        scratch: where to replay to.
    """
    with (
        closing(JournalReader(directory / JOURNAL)) as reader,
        closing(
            replay(
                reader, scratch, copied.serial, lambda n, total: progress("checkpoint", n, total)
            )
        ) as fresh,
    ):
        yield from _compare(fresh, copied.path, reader, copied.serial, progress)
