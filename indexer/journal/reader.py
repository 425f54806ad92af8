"""Reading a journal: its months, its messages, its feeds and its quarantine.

The journal of another process may be read while that writes it.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database, disk, times
from ..base.errors import (
    ForeignFileError,
    JournalError,
    NewerDatabaseError,
    StateError,
    UnfinishedError,
)
from ..messages import encode
from ..messages.entries import Row
from ..schema import journal as schema

_UNCHECKED = "SELECT serial, at, msg, data, NULL"
_CHECKED = "SELECT serial, at, msg, data, checksum"

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of messages that are read at once: ten thousand of the largest do not fit into memory."""

_MONTH = re.compile(r"\d{4}-\d\d\.db", re.ASCII)


class Feed(NamedTuple):
    """How far a feed was accepted, and why it is broken, if it is."""

    feed: str
    epoch: int
    serial: int
    broken: str | None


class Quarantined(NamedTuple):
    """A refused message.

    Attributes:
        raw: what is kept of its bytes; empty if they were not asked for.
        retried: the serial under which it was accepted later, 0 if it was put aside.
        size: bytes of the whole message.
        sha256: of the whole message, if only its beginning is kept.
    """

    quarantine_id: int
    source: str
    feed: str | None
    feed_serial: int | None
    received: times.Time
    times: int
    format: str
    path: str
    reason: str
    raw: bytes
    retried: int | None
    size: int
    sha256: str | None


Span = tuple[int, int]
"""The first and the last of serials that follow each other."""


class Month(NamedTuple):
    """A file of the journal.

    Attributes:
        after: the last serial before it.
        lost: the serials that it should hold, and that an administrator gave up (`salvage`).
        checked: whether its messages have checksums.
    """

    path: Path
    after: int
    lost: tuple[Span, ...]
    journal_id: str
    checked: bool


def month_files(directory: Path) -> list[Path]:
    """The files of a journal, the oldest first; none if there is no such directory."""
    if not directory.is_dir():
        return []
    return [directory / name for name in sorted(os.listdir(directory)) if _MONTH.fullmatch(name)]


def lost_of(meta: dict[str, int | str]) -> tuple[Span, ...]:
    """The lost serials that the table `meta` of a month tells of."""
    return tuple((int(first), int(last)) for first, last in json.loads(str(meta.get("lost", "[]"))))


class JournalReader:
    """Reads a journal that another process may be writing.

    Args:
        directory: of the monthly files.

    Raises:
        JournalError: if a month is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._reader: tuple[Path, sqlite3.Connection] | None = None
        self._months: list[Month] = []
        self.scan()

    def scan(self) -> None:
        """Look again which months there are."""
        months = []
        for path in month_files(self.directory):
            meta = self._meta(path)
            with wrap_errors(path):
                checked = database.has_column(self._open(path), "messages", "checksum")
            after, journal_id = int(meta["after"]), str(meta["journal_id"])
            months.append(Month(path, after, lost_of(meta), journal_id, checked))
        self._months = months

    def _meta(self, path: Path) -> dict[str, int | str]:
        connection = self._open(path)
        with wrap_errors(path):
            meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
        for key in ("after", "journal_id", "epoch"):
            if key not in meta:
                raise JournalError(
                    f"read the journal's {path.name}",
                    f"it does not say its {key}",
                    restore_hint(path),
                )
        return meta

    def _open(self, path: Path) -> sqlite3.Connection:
        if self._reader is not None:
            if self._reader[0] == path:
                return self._reader[1]
            self._reader[1].close()
            self._reader = None
        try:
            connection = database.open_reader(path, schema.SCHEMA)
        except (NewerDatabaseError, UnfinishedError, ForeignFileError):
            raise
        except StateError as error:
            raise JournalError(
                f"read the journal's {path.name}",
                error.cause,
                error.remedy if error.passing else restore_hint(path),
                passing=error.passing,
            ) from error
        self._reader = path, connection
        return connection

    @property
    def months(self) -> list[Path]:
        """The files of the journal, the oldest first."""
        return [month.path for month in self._months]

    def months_before(self, serial: int) -> list[Path]:
        """The months that are over, and whose messages all have serials up to `serial`."""
        return [
            month.path
            for month, later in zip(self._months, self._months[1:], strict=False)
            if later.after <= serial
        ]

    @property
    def first(self) -> int:
        """The oldest serial that is still kept; 1 for a whole or an empty journal."""
        return self._months[0].after + 1 if self._months else 1

    @property
    def journal_id(self) -> str:
        """What tells this journal from others; empty as long as it is."""
        return self._months[-1].journal_id if self._months else ""

    @property
    def epoch(self) -> int:
        """When the journal was made, microseconds since 1970: the epoch of a spool."""
        return int(self._meta(self._months[-1].path)["epoch"]) if self._months else 0

    @property
    def lost(self) -> list[Span]:
        """The serials that were given up, in order."""
        return [span for month in self._months for span in month.lost]

    def last_serial(self) -> int:
        """The serial of the newest message, 0 if there is none."""
        return self._last_of(self._months[-1]) if self._months else 0

    def _last_of(self, month: Month) -> int:
        connection = self._open(month.path)
        with wrap_errors(month.path):
            last = connection.execute("SELECT max(serial) FROM messages").fetchone()[0]
        return max(month.after, last or 0, *(end for _, end in month.lost))

    def verify(self) -> None:
        """Check that every month begins where the one before it ends.

        Raises:
            JournalError: if messages are missing between two months, or a month belongs to
                another journal.
        """
        operation = f"read the journal in {self.directory}"
        for before, month in zip(self._months, self._months[1:], strict=False):
            if before.journal_id != month.journal_id:
                raise JournalError(
                    operation,
                    f"{before.path.name} and {month.path.name} belong to different journals",
                    "move the one that does not belong here away",
                )
            last = self._last_of(before)
            if last != month.after:
                raise JournalError(
                    operation,
                    f"{before.path.name} ends with serial {last}, but {month.path.name} "
                    f"begins after {month.after}",
                    "restore the missing or damaged month from a backup (or, if a checkpoint"
                    f" covers it, move the months before it away, too){SALVAGE_HINT}",
                )

    def read(self, after: int, limit: int, most: int | None = None) -> list[Row]:
        """Up to `limit` messages after serial `after`, in order; fewer only at the end.

        Args:
            after: a serial.
            limit: how many.
            most: bytes of data, after which there are no more; None for any number.

        Raises:
            JournalError: if they cannot be read.
        """
        rows: list[Row] = []
        for number, month in enumerate(self._months):
            until = self._months[number + 1].after if number + 1 < len(self._months) else None
            if until is not None and until <= after:
                continue
            rows += self._read(month, after, limit - len(rows), most)
            if len(rows) >= limit or (rows and most is not None):
                break
            after = max(after, until or 0)
        return rows

    def _read(self, month: Month, after: int, limit: int, most: int | None) -> list[Row]:
        """Likewise, of one month."""
        connection = self._open(month.path)
        with wrap_errors(month.path):
            selected = connection.execute(
                f"{_CHECKED if month.checked else _UNCHECKED} FROM messages WHERE serial > ?"
                " ORDER BY serial LIMIT ?",
                (after, limit),
            )
            found = selected.fetchall() if most is None else _up_to(selected, most)
        decode = encode.from_journal
        try:
            changed = encode.first_changed(found)
            if changed is not None:
                raise ValueError(f"the checksum of message {changed} is wrong")
            return [Row(serial, decode(msg, at, data)) for serial, at, msg, data, _ in found]
        except Exception as error:
            raise JournalError(
                f"read the journal's {month.path.name}",
                f"a message after serial {after} is damaged: {error}",
                restore_hint(month.path),
            ) from error

    def batches(self, after: int, size: int = 5000) -> Iterator[list[Row]]:
        """All messages after serial `after`, in order, `size` at a time, or fewer large ones."""
        while rows := self.read(after, size, MAX_BATCH_BYTES):
            last = rows[-1].serial
            if last - after != len(rows):
                self._refuse_holes(after, rows)
            yield rows
            after = last

    def _refuse_holes(self, after: int, rows: Sequence[Row]) -> None:
        """Refuse rows after serial `after` if more is missing than what was given up."""
        missing = after + 1
        for row in rows:
            while missing < row.serial:
                given_up = [last for first, last in self.lost if first <= missing <= last]
                if not given_up:
                    raise JournalError(
                        f"read the journal in {self.directory}",
                        f"message {missing} is missing",
                        f"restore the damaged month from a backup{SALVAGE_HINT}",
                    )
                missing = given_up[0] + 1
            missing = row.serial + 1

    def feeds(self) -> list[Feed]:
        """How far every feed was accepted, in the order in which they came."""
        if not self._months:
            return []
        path = self._months[-1].path
        with wrap_errors(path):
            return [
                Feed(*row)
                for row in self._open(path).execute(
                    "SELECT feed, epoch, serial, broken FROM feeds ORDER BY feed_id"
                )
            ]

    def quarantined(self) -> int:
        """How many refused messages wait in the quarantine."""
        found: set[int] = set()
        retried: set[int] = set()
        for month in self._months:
            connection = self._open(month.path)
            with wrap_errors(month.path):
                found.update(
                    row[0] for row in connection.execute("SELECT quarantine_id FROM quarantine")
                )
                retried.update(
                    row[0] for row in connection.execute("SELECT quarantine_id FROM retries")
                )
        return len(found - retried)

    def waiting(self, path: Path) -> int:
        """How many refused messages of one month wait in the quarantine."""
        with wrap_errors(path):
            rows = self._open(path).execute("SELECT quarantine_id FROM quarantine").fetchall()
        if not rows:
            return 0
        retried = self._retried()
        return sum(row[0] not in retried for row in rows)

    def _retried(self) -> dict[int, int]:
        """The serials under which refused messages were accepted later."""
        retried: dict[int, int] = {}
        for month in self._months:
            connection = self._open(month.path)
            with wrap_errors(month.path):
                retried.update(connection.execute("SELECT quarantine_id, serial FROM retries"))
        return retried

    def let_go(self) -> int:
        """How many refused messages are no longer kept, because their sources had too many."""
        gone = 0
        for month in self._months:
            connection = self._open(month.path)
            with wrap_errors(month.path):
                if database.has_table(connection, "quarantine_let_go"):
                    found = connection.execute("SELECT total(messages) FROM quarantine_let_go")
                    gone += int(found.fetchone()[0])
        return gone

    def quarantine(self) -> list[Quarantined]:
        """Everything that was refused and is kept, the oldest first."""
        return list(self.each_quarantined())

    def each_quarantined(self, *, raw: bool = True) -> Iterator[Quarantined]:
        """Everything that was refused and is kept, one after the other, the oldest first.

        Args:
            raw: whether to read the bytes, too. They may be many, and a list does not need them.
        """
        retried = self._retried()
        for month in self._months:
            connection = self._open(month.path)
            with wrap_errors(month.path):
                cut, joined = "NULL, NULL", ""
                if database.has_table(connection, "quarantine_cut"):
                    cut, joined = "bytes, sha256", " LEFT JOIN quarantine_cut USING (quarantine_id)"
                for *row, length, whole, sha256 in connection.execute(
                    "SELECT quarantine_id, source, feed, feed_serial, received, times, format,"
                    f" path, reason, {'raw' if raw else 'zeroblob(0)'}, length(raw), {cut}"
                    f" FROM quarantine LEFT JOIN feeds USING (feed_id){joined}"
                    " ORDER BY quarantine_id"
                ):
                    yield Quarantined._make(
                        (
                            *row,
                            retried.get(row[0]),
                            length if whole is None else whole,
                            None if sha256 is None else sha256.hex(),
                        )
                    )

    def close(self) -> None:
        """Close what is open."""
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None


def _up_to(rows: Iterable[tuple[Any, ...]], most: int) -> list[tuple[Any, ...]]:
    """Rows of messages, until their data have so many bytes."""
    found, size = [], 0
    for row in rows:
        found.append(row)
        size += len(row[3])
        if size >= most:
            break
    return found


@contextmanager
def wrap_errors(path: Path, *, writing: bool = False) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a `JournalError` naming the month."""
    beside = path.parent if writing else None
    with database.wrap_errors(f"use the journal's {path.name}", JournalError, beside=beside):
        try:
            yield
        except sqlite3.DatabaseError as error:
            # "no such table", too: an empty file, or somebody else's.
            damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in damaged:
                operation = f"use the journal's {path.name}"
                refuse_unreadable(path, operation)
                raise JournalError(operation, error, restore_hint(path)) from error
            raise


def refuse_unreadable(path: Path, operation: str) -> None:
    """Refuse a file that the disk does not give back, which is not yet lost.

    Raises:
        JournalError: if that is so.
    """
    found = disk.unreadable(path)
    log = Path(f"{path}-wal")
    if not found and log.exists():
        found = disk.unreadable(log)
    if found:
        raise JournalError(
            operation,
            f"{path}: {os.strerror(found)}",
            "look at the disk (dmesg). If it stays so, copy the file to another disk with what"
            f" can still be read (ddrescue), or restore it from a backup{SALVAGE_HINT}",
            passing=True,
        )


SALVAGE_HINT = "; without one, `piw-indexer rebuild --salvage` goes on with what can be read"


def restore_hint(path: Path) -> str:
    """What to do about a damaged month."""
    return (
        f"restore {path} from a backup: the journal is the only record of these messages"
        f"{SALVAGE_HINT}"
    )
