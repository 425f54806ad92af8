"""Journal, index and documents against each other; reports, and repairs if asked to.

The index is compared with a fresh one, made from the journal up to the same serial; documents
with what the index says. A daemon may run meanwhile, unless something is to be repaired.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from . import (
    apply,
    checkpoint,
    counters,
    damaged,
    database,
    index,
    names,
    pending,
    render,
    writer,
)
from .errors import (
    IndexerError,
    JournalError,
    NewerDatabaseError,
    StateError,
    UnfinishedError,
)
from .journal_reader import JournalReader, month_files
from .publish import Publisher, compressed
from .state import BATCH, JOURNAL, replay

CHECK_INDEX = "index.db.check"
_EXAMPLES = 5

_TABLES = {
    "packages": "SELECT * FROM {0}.packages",
    "package_names": "SELECT * FROM {0}.package_names",
    "versions": "SELECT * FROM {0}.versions",
    "builds": "SELECT * FROM {0}.builds",
    "files": "SELECT * FROM {0}.files",
    "dependencies": "SELECT * FROM {0}.dependencies",
    "build_abis": "SELECT * FROM {0}.build_abis",
    "preinstalled_apt_packages": "SELECT * FROM {0}.preinstalled_apt_packages",
    "abi_fits": "SELECT * FROM {0}.abi_fits",
    "download_counts": "SELECT package, downloads_recent, downloads_all, listed"
    " FROM {0}.download_counts",
    "download_hours": "SELECT package, hour, downloads FROM {0}.download_hours"
    " JOIN {0}.download_counts USING (counter_id)",
}


class Difference(NamedTuple):
    """Something that is not as it should be: where ("index", ...), and what."""

    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.part}: {self.what}"


Progress = Callable[[str, int, int], None]
"""Is told what is being checked, and how many of how many are done."""


def check_journal(directory: Path) -> Iterator[Difference]:
    """Every month's file, that they follow each other, and what stands for those archived."""
    sound = True
    for path in month_files(directory / JOURNAL):
        for fault in damaged.faults(path):
            sound = False
            yield Difference("journal", f"{path.name} is damaged: {fault}")
    if not sound:
        return
    reader = JournalReader(directory / JOURNAL)
    try:
        reader.verify()
        checkpoint.base(directory, reader, reader.last_serial())
    except IndexerError as error:
        yield Difference("journal", str(error))
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
) -> Iterator[Difference]:
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
            yield from _compare(fresh, copied.path, reader, copied.serial)
        finally:
            fresh.close()
    finally:
        reader.close()


def check_index(directory: Path, progress: Progress) -> Iterator[Difference]:
    """The index against a fresh one, made from the journal."""
    path = directory / index.FILE
    if not path.exists():
        yield Difference("index", f"there is no {path}")
        return
    try:
        live = index.open_reader(path)
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
        applied = index.applied_serial(live)
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
        fresh = replay(reader, scratch, applied, lambda n, total: progress("index", n, total))
        try:
            yield from _compare(fresh, path, reader, applied)
        finally:
            fresh.close()
    except JournalError as error:
        yield Difference("journal", str(error))
    finally:
        reader.close()
        database.remove(scratch)


def _compare(
    fresh: sqlite3.Connection, path: Path, reader: JournalReader, applied: int
) -> Iterator[Difference]:
    fresh.execute("PRAGMA temp_store = FILE")  # what differs may not fit into memory
    fresh.execute("ATTACH ? AS live", (f"{path.resolve().as_uri()}?mode=ro",))
    applier = apply.Applier(fresh)
    while True:  # until the daemon has not applied anything meanwhile
        fresh.execute("BEGIN")
        row = fresh.execute("SELECT value FROM live.state WHERE key = 'applied_serial'").fetchone()
        now = 0 if row is None else int(row[0])
        if now == applied:
            break
        fresh.execute("ROLLBACK")
        reader.scan()
        for rows in reader.batches(applied, BATCH):
            applier.apply([row for row in rows if row.serial <= now])
            if rows[-1].serial >= now:
                break
        applied = now
    row = fresh.execute("SELECT value FROM live.state WHERE key = 'window_start'").fetchone()
    if row is not None:
        counters.move_window(fresh, int(row[0]))
    for table, select in _TABLES.items():
        for there, here, verb in (("live", "main", "should not have"), ("main", "live", "lacks")):
            found = fresh.execute(f"{select.format(there)} EXCEPT {select.format(here)}")
            examples = found.fetchmany(_EXAMPLES)
            for example in examples:
                yield Difference("index", f"{table} {verb} {example}")
            more = sum(1 for _ in found)
            if more:
                yield Difference("index", f"{table} {verb} {more} rows more")
    fresh.execute("ROLLBACK")


def check_documents(
    directory: Path, publisher: Publisher, site_url: str, progress: Progress
) -> Iterator[tuple[Difference, str | None]]:
    """The documents against the index; each difference with the name that must be written."""
    connection = index.open_reader(directory / index.FILE)
    try:
        every = [row[0] for row in connection.execute("SELECT package FROM packages ORDER BY 1")]
        done = 0
        links: dict[str, str] = {}
        for some in writer.chunks(every, 256):
            with database.snapshot(connection):
                abis = index.load_abis(connection)
                waiting = _pending(connection, some)
                for package in some:
                    rows = index.load_project(connection, package)
                    if rows is None:
                        continue
                    links.update(dict.fromkeys(rows.aliases, package))
                    if package in waiting:
                        continue
                    document = render.project(rows, abis, site_url)
                    what = _document_difference(publisher.document_path(package), document)
                    if what and _changed_meanwhile(directory, package, document, site_url):
                        continue
                    if what:
                        yield Difference("documents", f"{package}: {what}"), package
                    for alias in rows.aliases:
                        if publisher.links_to(alias) not in (package, None):
                            what = f"{package}: its alias {alias} is no link to it"
                            yield Difference("documents", what), package
            done += len(some)
            progress("documents", done, len(every))
        yield from _strays(connection, publisher, links)
        with database.snapshot(connection):
            if not writer.counters_due(connection):
                rows_of = index.counts(connection)
                document = b"".join(render.packages([rows_of.fetchall()]))
                path = f"{publisher.output_path}/packages.json"
                for name, content in ((path, document), (f"{path}.gz", compressed(document))):
                    what = _document_difference(name, content)
                    if what:
                        yield Difference("documents", what), None
    finally:
        connection.close()


def _changed_meanwhile(directory: Path, package: str, document: bytes, site_url: str) -> bool:
    """True if a running daemon has other plans for a document by now."""
    connection = index.open_reader(directory / index.FILE)
    try:
        with database.snapshot(connection):
            rows = index.load_project(connection, package)
            if rows is None or _pending(connection, [package]):
                return True
            return render.project(rows, index.load_abis(connection), site_url) != document
    finally:
        connection.close()


def _pending(connection: sqlite3.Connection, some: list[str]) -> set[str]:
    marks = ",".join("?" * len(some))
    rows = connection.execute(
        f"SELECT package FROM rewrites_pending WHERE package IN ({marks})", some
    )
    return {row[0] for row in rows}


def _document_difference(path: str, expected: bytes) -> str:
    """How a document differs from what it should be; empty if it does not."""
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return "" if found == expected else f"{path} is not what the index says"


def _strays(
    connection: sqlite3.Connection, publisher: Publisher, links: dict[str, str]
) -> Iterator[tuple[Difference, str | None]]:
    """What looks like ours in the output tree and belongs to no package."""
    with os.scandir(publisher.output_path / "project") as entries:
        for entry in entries:
            name = entry.name
            if name in links or names.unsafe(name, names.MAX_NAME):
                continue
            if entry.is_symlink():
                target = os.readlink(entry.path)
                if not names.is_canonical(target):
                    continue
                what = f"{name} is a link to {target}, and no alias of it"
            elif os.path.lexists(publisher.document_path(name)):
                what = f"{name} has a document, and is no package"
            else:
                continue
            if index.is_package(connection, name) and not entry.is_symlink():
                continue
            if _pending(connection, [name]):
                continue
            yield Difference("documents", what), name


def mark_for_repair(connection: sqlite3.Connection, touched: list[str], counts: bool) -> None:
    """Mark names whose documents differ, so that the writer writes them."""
    with database.transaction(connection):
        serial = index.applied_serial(connection)
        pending.mark(connection, dict.fromkeys(touched, serial))
        if counts:
            index.put(connection, "counters_written", -1)
