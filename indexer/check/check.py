"""Journal, index and documents against each other; reports, and repairs if asked to.

The index is compared with a fresh one, made from the journal up to the same serial; documents
with what the index says. A daemon may run meanwhile, unless something is to be repaired.
"""

from __future__ import annotations

import bisect
import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database, names
from ..base.directories import JOURNAL
from ..base.errors import (
    IndexerError,
    JournalError,
    NewerDatabaseError,
    StateError,
    UnfinishedError,
)
from ..documents import render, writer
from ..documents.publish import Publisher, compressed
from ..index import apply, downloads, pending, queries
from ..journal import damage
from ..journal.reader import JournalReader, month_files
from ..state import checkpoint
from ..state.state import BATCH, replay
from . import differences
from .differences import Difference
from .resume import Run

CHECK_INDEX = "index.db.check"
"""Its name in the state directory: what is replayed to; an interrupted check leaves it."""

_EXAMPLES = 5
_CHUNK = 20_000
"""Rows that are compared at once: a long snapshot would keep the write-ahead log from being folded
in, and a daemon's would grow."""

_NEAR = 1000
"""Messages that may be applied while a snapshot is held."""


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
        ("build_id", "package", "version", "abi_tag", "status", "built_by", "built_at", "duration"),
        1,
    ),
    _Table(
        "files",
        ("filename", "build_id", "filesize", "filehash", "package_tag", "package_version_tag",
         "py_version_tag", "abi_tag", "platform_tag", "requires_python", "location"),
        1,
    ),
    _Table("dependencies", ("filename", "tool", "dependency"), 3),
    _Table("build_abis", ("abi_tag", "skip"), 1),
    _Table("preinstalled_apt_packages", ("abi_tag", "apt_package"), 2),
    _Table("abi_fits", ("py_version_tag", "file_abi_tag", "abi_tag", "rank"), 3),
    _Table("download_counts", ("package", "downloads_recent", "downloads_all", "listed"), 1),
    _Table("download_hours", ("hour", "package", "downloads"), 2),
)  # fmt: skip


Progress = Callable[[str, int, int], None]
"""Is told what is being checked, and how many of how many are done."""


def check_journal(directory: Path, run: Run, progress: Progress) -> Iterator[Difference]:
    """Every month's file, that they follow each other, and what stands for those archived."""
    sound = True
    paths = month_files(directory / JOURNAL)
    for number, path in enumerate(paths):
        progress("journal", number, len(paths))
        try:
            status = path.stat()
        except OSError:
            continue  # somebody archives it; what follows tells whether it is missed
        seen = [status.st_size, status.st_mtime_ns, status.st_ino]
        if path != paths[-1] and run.months.get(path.name) == seen:
            continue  # a closed month, which this check has looked through
        faults = list(damage.faults(path))
        for fault in faults:
            sound = False
            yield Difference(
                "journal",
                f"{path.name} is damaged: {fault}",
                "month",
                fault="the disk, or somebody who changed it",
            )
        if not faults:
            run.months[path.name] = seen
            run.save(now=True)
    progress("journal", len(paths), len(paths))
    if not sound:
        return
    reader = JournalReader(directory / JOURNAL)
    try:
        reader.verify()
        checkpoint.base(directory, reader, reader.last_serial())
    except IndexerError as error:
        yield Difference("journal", f"cannot {error.operation}: {error.cause}")
    finally:
        reader.close()


def check_checkpoints(directory: Path) -> Iterator[Difference]:
    """Every checkpoint's file."""
    reader = JournalReader(directory / JOURNAL)
    try:
        for one in checkpoint.every(directory):
            fault = checkpoint.fault(one, reader.journal_id)
            if not fault and one.serial > reader.last_serial():
                fault = f"the journal ends with serial {reader.last_serial()}"
            if fault:
                yield Difference("checkpoint", f"{one.path.name} cannot be used: {fault}")
    finally:
        reader.close()


def check_copy(
    directory: Path, copied: checkpoint.Checkpoint, scratch: Path, progress: Progress
) -> Generator[Difference, None, None]:
    """A copy of the index against a replay up to its serial.

    Args:
        scratch: where to replay to.
    """
    reader = JournalReader(directory / JOURNAL)
    try:
        fresh = replay(
            reader, scratch, copied.serial, lambda n, total: progress("checkpoint", n, total)
        )
        try:
            yield from _compare(fresh, copied.path, reader, copied.serial, progress)
        finally:
            fresh.close()
    finally:
        reader.close()


def check_index(directory: Path, run: Run, progress: Progress) -> Iterator[Difference]:
    """The index against a fresh one, made from the journal.

    What an interrupted check has replayed is gone on with.
    """
    path = directory / queries.FILE
    if not path.exists():
        yield Difference("index", f"there is no {path}")
        return
    try:
        live = queries.open_reader(path)
    except (NewerDatabaseError, UnfinishedError):
        raise
    except StateError as error:
        yield Difference("index", f"it is damaged: {error.cause}")
        return
    try:
        for (found,) in live.execute("PRAGMA quick_check(5)").fetchall():
            if found != "ok":
                yield Difference("index", f"it is damaged: {found}")
                return
        for table, row, parent, _ in live.execute("PRAGMA foreign_key_check").fetchmany(_EXAMPLES):
            yield Difference("index", f"row {row} of {table} has no parent in {parent}")
        applied = queries.applied_serial(live)
    except sqlite3.Error as error:
        yield Difference("index", f"it is damaged: {error}")
        return
    finally:
        live.close()
    reader = JournalReader(directory / JOURNAL)
    scratch = directory / CHECK_INDEX
    try:
        if applied > reader.last_serial():
            yield Difference(
                "index", f"it holds messages up to {applied}, the journal to {reader.last_serial()}"
            )
            return
        fresh = _replay(reader, scratch, applied, run, progress)
        try:
            yield from _compare(fresh, path, reader, applied, progress)
        finally:
            fresh.close()
    except JournalError as error:
        yield Difference("journal", f"cannot {error.operation}: {error.cause}")
    finally:
        reader.close()
    run.scratch = False
    run.save(now=True)
    database.remove(scratch)


def _replay(
    reader: JournalReader, scratch: Path, applied: int, run: Run, progress: Progress
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
        """Come near, without a snapshot."""
        while (now := queries.applied_serial(live)) - self._applied > _NEAR:
            self._apply(now)

    def follow(self, live: sqlite3.Connection) -> None:
        """Come to where a snapshot of the index is."""
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
    fresh: sqlite3.Connection, path: Path, reader: JournalReader, applied: int, progress: Progress
) -> Iterator[Difference]:
    live = queries.open_reader(path)
    try:
        follower = _Follower(fresh, reader, applied)
        for number, table in enumerate(_TABLES):
            progress("tables", number, len(_TABLES))
            yield from _compare_table(table, live, follower)
        progress("tables", len(_TABLES), len(_TABLES))
    finally:
        live.close()


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


def check_documents(
    directory: Path, publisher: Publisher, site_url: str, run: Run, progress: Progress
) -> Iterator[Difference]:
    """The documents against the index; goes on after those that this check has compared."""
    connection = queries.open_reader(directory / queries.FILE)
    try:
        every = [row[0] for row in connection.execute("SELECT package FROM packages ORDER BY 1")]
        done = bisect.bisect_right(every, run.documents) if run.documents else 0
        for some in writer.chunks(every[done:], 256):
            with database.snapshot(connection):
                abis = queries.load_abis(connection)
                waiting = _pending(connection, some)
                for package in some:
                    rows = queries.load_project(connection, package)
                    if rows is None or package in waiting:
                        continue
                    yield from _of_package(directory, publisher, rows, abis, site_url)
            run.documents = some[-1]
            run.save()
            done += len(some)
            progress("documents", done, len(every))
        yield from _strays(connection, publisher)
        yield from _of_counters(directory, connection, publisher)
    finally:
        connection.close()


def look_again(
    directory: Path, publisher: Publisher, site_url: str, repaired: Sequence[Difference]
) -> Iterator[Difference]:
    """What still differs of what was repaired; nobody else may hold the state."""
    some = sorted({one.package for one in repaired if one.package})
    connection = queries.open_reader(directory / queries.FILE)
    try:
        with database.snapshot(connection):
            abis = queries.load_abis(connection)
            for package in some:
                rows = queries.load_project(connection, package)
                if rows is not None:
                    yield from _of_package(None, publisher, rows, abis, site_url)
        if any(one.kind == "stray" for one in repaired):
            yield from (one for one in _strays(connection, publisher) if one.package in some)
        if any(not one.package for one in repaired):
            yield from _of_counters(None, connection, publisher)
    finally:
        connection.close()


def _of_package(
    directory: Path | None,
    publisher: Publisher,
    rows: queries.Project,
    abis: queries.Abis,
    site_url: str,
) -> Iterator[Difference]:
    """The document and the aliases of a package.

    Args:
        directory: of a state that a daemon may be writing; None if nobody can.
    """
    package = rows.package
    document = render.project(rows, abis, site_url)
    found = differences.document(publisher.document_path(package), document)
    if found and directory and _changed_meanwhile(directory, package, document, site_url):
        return
    if found:
        kind, what, fault = found
        yield Difference("documents", f"{package}: {what}", kind, package, fault)
    for alias in rows.aliases:
        target = publisher.links_to(alias)
        if target not in (package, None):
            what = f"is a link to {target}" if target else "is missing"
            yield Difference(
                "documents",
                f"{package}: its alias {alias} {what}, should be a link to it",
                "link",
                package,
            )


def _of_counters(
    directory: Path | None, connection: sqlite3.Connection, publisher: Publisher
) -> Iterator[Difference]:
    """The documents of all counters, unless they wait for a daemon to write them."""
    with database.snapshot(connection):
        if directory and writer.counters_due(connection):
            return
        rows = queries.counts(connection).fetchall()
    document = b"".join(render.packages([rows]))
    for path, content in zip(
        publisher.counters_paths(), (document, compressed(document)), strict=True
    ):
        found = differences.document(path, content)
        if found and directory and _counted_meanwhile(directory, rows):
            return
        if found:
            kind, what, fault = found
            yield Difference("documents", what, f"packages.json: {kind}", "", fault)


def _counted_meanwhile(directory: Path, rows: list[tuple[Any, ...]]) -> bool:
    """True if a running daemon has other plans for packages.json by now."""
    connection = queries.open_reader(directory / queries.FILE)
    try:
        with database.snapshot(connection):
            due = writer.counters_due(connection)
            return due or queries.counts(connection).fetchall() != rows
    finally:
        connection.close()


def _changed_meanwhile(directory: Path, package: str, document: bytes, site_url: str) -> bool:
    """True if a running daemon has other plans for a document by now."""
    connection = queries.open_reader(directory / queries.FILE)
    try:
        with database.snapshot(connection):
            rows = queries.load_project(connection, package)
            if rows is None or _pending(connection, [package]):
                return True
            return render.project(rows, queries.load_abis(connection), site_url) != document
    finally:
        connection.close()


def _pending(connection: sqlite3.Connection, some: list[str]) -> set[str]:
    marks = ",".join("?" * len(some))
    rows = connection.execute(
        f"SELECT package FROM rewrites_pending WHERE package IN ({marks})", some
    )
    return {row[0] for row in rows}


def _strays(connection: sqlite3.Connection, publisher: Publisher) -> Iterator[Difference]:
    """What looks like ours in the output tree and belongs to no package."""
    with os.scandir(publisher.output_path / "project") as entries:
        for entry in entries:
            name = entry.name
            if names.unsafe(name, names.MAX_NAME):
                continue
            if entry.is_symlink():
                target = os.readlink(entry.path)
                if not names.is_canonical(target):
                    continue
                if queries.alias_owner(connection, name) and not queries.is_package(
                    connection, name
                ):
                    continue  # it was looked at with its package
                what = f"{name} is a link to {target}, and no alias of it"
            elif os.path.lexists(publisher.document_path(name)):
                what = f"{name} has a document, and is not a package"
            else:
                continue
            if queries.is_package(connection, name) and not entry.is_symlink():
                continue
            if _pending(connection, [name]):
                continue
            yield Difference("documents", what, "stray", name, "left behind, or made by others")


def mark_for_repair(connection: sqlite3.Connection, touched: list[str], counts: bool) -> None:
    """Mark names whose documents differ, so that the writer writes them."""
    with database.transaction(connection):
        serial = queries.applied_serial(connection)
        pending.mark(connection, dict.fromkeys(touched, serial))
        if counts:
            queries.put(connection, "counters_written", -1)
