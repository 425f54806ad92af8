"""Reading a journal: its months, its messages and its feeds.

A process may read the journal that another one writes. A message that is missing or damaged is an
error: nothing is passed over, except what an administrator gave up.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..base import database, disk
from ..base.errors import (
    ForeignFileError,
    JournalError,
    NewerDatabaseError,
    StateError,
    UnfinishedError,
)
from ..schema import journal as schema

if TYPE_CHECKING:
    from ..messages.entries import Row

_UNCHECKED = "SELECT serial, at, msg, data, NULL"
_CHECKED = "SELECT serial, at, msg, data, checksum"

MAX_BATCH_BYTES = 16 * 1024 * 1024
"""Bytes of messages that are read at once: 10,000 of the largest do not fit into memory."""

_MONTH = re.compile(r"\d{4}-\d\d\.db", re.ASCII)


class Feed(NamedTuple):
    """How far a feed was accepted, and why it is broken, if it is."""

    feed: str
    epoch: int
    serial: int
    broken: str | None


Span = tuple[int, int]
"""The first and the last of consecutive serials."""


class Month(NamedTuple):
    """A file of the journal.

    Attributes:
        after: the last serial before it.
        lost: serials of this month that an administrator gave up (`salvage`).
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
    """The lost serials in the table `meta` of a month."""
    return tuple((int(first), int(last)) for first, last in json.loads(str(meta.get("lost", "[]"))))


class JournalReader:
    """Reads a journal that another process may be writing.

    Args:
        directory: of the monthly files.

    Raises JournalError if a month is missing or damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._reader: tuple[Path, sqlite3.Connection] | None = None
        self._written: tuple[Path, sqlite3.Connection] | None = None
        self._months: list[Month] = []
        self.scan()

    def scan(self) -> None:
        """Look for months again."""
        months = []
        for path in month_files(self.directory):
            meta = self._meta(path)
            with wrap_errors(path):
                checked = database.has_column(self.open(path), "messages", "checksum")
            after, journal_id = int(meta["after"]), str(meta["journal_id"])
            months.append(Month(path, after, lost_of(meta), journal_id, checked))
        self._months = months

    def _meta(self, path: Path) -> dict[str, int | str]:
        connection = self.open(path)
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

    def read_through(self, path: Path, connection: sqlite3.Connection) -> None:
        """From now on, read a month through the connection that writes it."""
        self._written = path, connection

    def open(self, path: Path) -> sqlite3.Connection:
        """The connection that reads a month; opening another month may close it.

        Raises JournalError if the month cannot be read.
        """
        if self._written is not None and self._written[0] == path:
            return self._written[1]
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
                error.remedy if error.transient else restore_hint(path),
                transient=error.transient,
            ) from error
        self._reader = path, connection
        return connection

    @property
    def newest(self) -> Month:
        """The month that began last; there must be one."""
        return self._months[-1]

    @property
    def months(self) -> list[Path]:
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
        """The name of this journal, unlike any other's; empty before the first month."""
        return self._months[-1].journal_id if self._months else ""

    @property
    def epoch(self) -> int:
        """When the journal was made, in microseconds since 1970; the epoch of a spool."""
        return int(self._meta(self._months[-1].path)["epoch"]) if self._months else 0

    @property
    def lost(self) -> list[Span]:
        return [span for month in self._months for span in month.lost]

    def last_serial(self) -> int:
        """The serial of the newest message, 0 if there is none."""
        return self._last_of(self._months[-1]) if self._months else 0

    def _last_of(self, month: Month) -> int:
        connection = self.open(month.path)
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

    def read(self, after: int, limit: int, max_bytes: int | None = None) -> list[Row]:
        """Up to `limit` messages after serial `after`, in order; fewer only at the end.

        Args:
            after: a serial.
            max_bytes: of data, after which no more are read; None for no limit.

        Raises JournalError if they cannot be read.
        """
        rows: list[Row] = []
        for number, month in enumerate(self._months):
            until = self._months[number + 1].after if number + 1 < len(self._months) else None
            if until is not None and until <= after:
                continue
            rows += self._read(month, after, limit - len(rows), max_bytes)
            if len(rows) >= limit or (rows and max_bytes is not None):
                break
            after = max(after, until or 0)
        return rows

    def _read(self, month: Month, after: int, limit: int, max_bytes: int | None) -> list[Row]:
        # Only here: their import takes longer than the rest of `status`, which reads no message.
        from ..messages import encode
        from ..messages.entries import Row

        connection = self.open(month.path)
        with wrap_errors(month.path):
            selected = connection.execute(
                f"{_CHECKED if month.checked else _UNCHECKED} FROM messages WHERE serial > ?"
                " ORDER BY serial LIMIT ?",
                (after, limit),
            )
            rows = selected.fetchall() if max_bytes is None else _up_to(selected, max_bytes)
        decode = encode.from_journal
        try:
            changed = encode.first_changed(rows)
            if changed is not None:
                raise ValueError(f"the checksum of message {changed} is wrong")
            return [Row(serial, decode(msg, at, data)) for serial, at, msg, data, _ in rows]
        except Exception as error:
            raise JournalError(
                f"read the journal's {month.path.name}",
                f"a message after serial {after} is damaged: {error}",
                restore_hint(month.path),
            ) from error

    def batches(self, after: int, size: int = 5000) -> Iterator[list[Row]]:
        """All messages after serial `after`, in order; `size` at a time, or fewer large ones."""
        while rows := self.read(after, size, MAX_BATCH_BYTES):
            last = rows[-1].serial
            if last - after != len(rows):
                self._refuse_holes(after, rows)
            yield rows
            after = last

    def _refuse_holes(self, after: int, rows: Sequence[Row]) -> None:
        """Refuse rows after serial `after` if more is missing than was given up."""
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
                for row in self.open(path).execute(
                    "SELECT feed, epoch, serial, broken FROM feeds ORDER BY feed_id"
                )
            ]

    def close(self) -> None:
        """Close what this reader has opened; not the connection that writes."""
        self._written = None
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None


def _up_to(rows: Iterable[tuple[Any, ...]], max_bytes: int) -> list[tuple[Any, ...]]:
    """Rows of messages, until their data have so many bytes."""
    taken, size = [], 0
    for row in rows:
        taken.append(row)
        size += len(row[3])
        if size >= max_bytes:
            break
    return taken


@contextmanager
def wrap_errors(path: Path, *, writing: bool = False) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a `JournalError` naming the month."""
    beside = path.parent if writing else None
    with database.wrap_errors(f"use the journal's {path.name}", JournalError, beside=beside):
        try:
            yield
        except sqlite3.DatabaseError as error:
            # SQLITE_ERROR: "no such table" in an empty or foreign file.
            damaged = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in damaged:
                operation = f"use the journal's {path.name}"
                refuse_unreadable(path, operation)
                raise JournalError(operation, error, restore_hint(path)) from error
            raise


def refuse_unreadable(path: Path, operation: str) -> None:
    """Refuse a file that the disk cannot read: its content may not be lost.

    Raises JournalError if so.
    """
    number = disk.unreadable(path)
    log = Path(f"{path}-wal")
    if not number and log.exists():
        number = disk.unreadable(log)
    if number:
        raise JournalError(
            operation,
            f"{path}: {os.strerror(number)}",
            "look at the disk (dmesg). If it stays so, copy the file to another disk with what"
            f" can still be read (ddrescue), or restore it from a backup{SALVAGE_HINT}",
            transient=True,
        )


SALVAGE_HINT = "; without one, `piw-indexer rebuild --salvage` continues with what can be read"


def restore_hint(path: Path) -> str:
    """What to do about a damaged month."""
    return (
        f"restore {path} from a backup: the journal is the only record of these messages"
        f"{SALVAGE_HINT}"
    )
