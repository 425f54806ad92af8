"""Reads months that may be damaged: what is wrong with them, and which messages are left.

If SQLite cannot read one page, the messages on the other pages are still found.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..base import database, directories
from ..base.errors import ForeignFileError, StateError, UnfinishedError
from ..base.log import event
from ..messages import encode
from ..schema import journal as schema
from .reader import Span, lost_of, refuse_unreadable

log = logging.getLogger(__name__)

DAMAGED = ".damaged"
"""The suffix of a damaged month that was replaced."""

_EXAMPLES = 5
"""Faults of one kind that are listed."""

_BLOCK = 1000
"""Serials that are tried one by one where reading fails."""

_BEYOND = 100_000
"""Serials after the last known one that are tried if the end is not known."""

_HOPELESS = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
"""Not a database, or one without messages: there is nothing to find."""


def faults(path: Path) -> Iterator[str]:
    """What is wrong with the file of a month.

    Raises:
        UnfinishedError: if a process was killed while it wrote to the file.
        JournalError: if the disk cannot read the file.
    """
    for fault in _faults(path):
        refuse_unreadable(path, f"read the journal's {path.name}")
        yield fault


def _faults(path: Path) -> Iterator[str]:
    try:
        connection = database.open_reader(path)
    except (UnfinishedError, ForeignFileError):
        raise  # neither is damaged
    except StateError as error:
        yield error.cause
        return
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
            yield "it is not a month of a journal"
            return
        damaged = False
        for (fault,) in connection.execute("PRAGMA integrity_check(5)"):
            if fault != "ok":
                damaged = True
                yield "; ".join(str(fault).splitlines())
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        missing = {"after", "journal_id", "epoch", "after_quarantine"}.difference(meta)
        if missing:
            yield f"it does not say its {', '.join(sorted(missing))}"
        elif not damaged:
            yield from _holes(connection, meta["after"], lost_of(meta))
            yield from _flipped(connection)
    except (sqlite3.Error, ValueError, TypeError) as error:
        yield str(error)
    finally:
        connection.close()


def put_aside(path: Path) -> str:
    """Give a damaged month and its log a second name, then remove the log's first name.

    Returns:
        The second name of the month.
    """
    number = 1
    while True:
        aside = Path(f"{path}{DAMAGED}{number}")
        if not aside.exists():
            break
        number += 1
    os.link(path, aside)
    wal = Path(f"{path}-wal")
    if wal.exists():
        os.link(wal, f"{aside}-wal")
    directories.sync(path.parent)
    # Otherwise SQLite would apply the old log to the new file.
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    directories.sync(path.parent)
    return aside.name


def _holes(connection: sqlite3.Connection, after: int, lost: Iterable[Span]) -> Iterator[str]:
    """Serials that are missing in a month and were not given up."""
    count, first, last = connection.execute(
        "SELECT count(*), min(serial), max(serial) FROM messages"
    ).fetchone()
    if not count:
        return
    expected = last - after - sum(min(end, last) - begin + 1 for begin, end in lost if begin < last)
    if first <= after or count != expected:
        yield f"it has {count} messages from {first} to {last}, and should have {expected}"


def _flipped(connection: sqlite3.Connection) -> Iterator[str]:
    """Messages that differ from what was written, which SQLite does not notice."""
    count = 0
    for row in connection.execute(f"{_select(connection)} ORDER BY serial"):
        if not _unchanged(row):
            yield f"the checksum of message {row[0]} is wrong"
            count += 1
            if count == _EXAMPLES:
                return


def _select(connection: sqlite3.Connection) -> str:
    """All messages of a month, with their checksums or null."""
    checked = database.has_column(connection, "messages", "checksum")
    return (
        "SELECT serial, at, msg, package, feed_id, feed_serial, data,"
        f" {'checksum' if checked else 'NULL'} FROM messages"
    )


def _unchanged(row: tuple[Any, ...]) -> bool:
    serial, at, msg, _, _, _, data, checksum = row
    return checksum is None or checksum == encode.checksum(serial, at, msg, data)


class Month:
    """A month that may be damaged.

    Attributes:
        meta: its table of that name; empty if it cannot be read.
        faults: what is wrong with the month.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exists = path.exists()
        self.meta: dict[str, Any] = {}
        self.faults = list(faults(path)) if self.exists else ["it is missing"]
        # What an interrupted salvage put aside is read again.
        self.sources = [path] if self.exists else []
        self.sources += sorted(path.parent.glob(f"{path.name}{DAMAGED}*[0-9]"))
        meta = dict(table(path, "meta")) if self.exists else {}
        if {"after", "journal_id", "epoch"} <= meta.keys():
            self.meta = meta

    @property
    def after(self) -> int | None:
        after = self.meta.get("after")
        return after if isinstance(after, int) else None

    def rows(self, after: int, until: int | None) -> Iterator[tuple[Any, ...]]:
        """The undamaged messages after `after`; some may come twice."""
        for source in self.sources:
            yield from _messages(source, after, until)

    def held(self, after: int, until: int | None) -> list[Span]:
        """The serials of these messages, as spans: memory may be too small for all."""
        spans: list[Span] = []
        for source in self.sources:
            apart = True
            for row in _messages(source, after, until):
                serial = row[0]
                if apart or serial != spans[-1][1] + 1:
                    spans.append((serial, serial))
                    apart = False
                else:
                    spans[-1] = spans[-1][0], serial
        return sorted(spans)

    def table(self, name: str) -> list[tuple[Any, ...]]:
        for source in self.sources:
            rows = table(source, name)
            if rows:
                return rows
        return []


def table(path: Path, name: str) -> list[tuple[Any, ...]]:
    """The readable rows of a small table."""
    rows: list[tuple[Any, ...]] = []
    try:
        connection = database.open_reader(path)
    except StateError:
        return rows
    try:
        for row in connection.execute(f"SELECT * FROM {name}"):
            rows.append(row)
    except sqlite3.Error as error:
        log.debug("%s of %s: %s", name, path, error, extra=event("table-unreadable", path=path))
    finally:
        connection.close()
    return rows


def _messages(path: Path, after: int, until: int | None) -> Iterator[tuple[Any, ...]]:
    """The undamaged messages of a file."""
    try:
        connection = database.open_reader(path)
    except StateError:
        return
    with closing(connection):
        try:
            select = _select(connection)
        except sqlite3.Error:
            return  # not even its schema
        last = until if until is not None else _last(connection, after)
        while after < last:
            try:
                for row in connection.execute(
                    f"{select} WHERE serial > ? AND serial <= ? ORDER BY serial", (after, last)
                ):
                    after = row[0]
                    if _sound(row):
                        yield row
                return
            except sqlite3.Error as error:
                log.debug(
                    "%s, after serial %d: %s",
                    path,
                    after,
                    error,
                    extra=event("month-unreadable", path=path, serial=after),
                )
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in _HOPELESS:
                    return
            for serial in range(after + 1, min(after + _BLOCK, last) + 1):
                try:
                    row = connection.execute(f"{select} WHERE serial = ?", (serial,)).fetchone()
                except sqlite3.Error:
                    row = None
                if row is not None and _sound(row):
                    yield row
                after = serial


def _last(connection: sqlite3.Connection, after: int) -> int:
    try:
        last = connection.execute("SELECT max(serial) FROM messages").fetchone()[0]
        return int(last or after)
    except sqlite3.Error:
        return after + _BEYOND


def _sound(row: tuple[Any, ...]) -> bool:
    serial, at, msg, _, _, _, data, _ = row
    try:
        if not _unchanged(row):
            raise ValueError("its checksum is wrong")
        encode.from_journal(msg, at, data)
    except Exception as error:  # noqa: BLE001 - whatever damaged bytes lead to
        log.debug("message %d: %r", serial, error, extra=event("message-damaged", serial=serial))
        return False
    return True
