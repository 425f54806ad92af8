"""The quarantine of a journal: refused messages, each with its bytes and the reason.

It is bounded: a source that sends too much in a month loses its oldest entries. How many that are
is counted, so nothing is dropped silently.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..base import database, times
from .reader import JournalReader, wrap_errors

if TYPE_CHECKING:
    from ..messages.entries import Refused

MAX_KEPT_BODY = 64 * 1024
"""Bytes of a refused message that are kept; of a larger one the beginning, length and SHA-256."""

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Bytes of refused messages that are kept for each source in a month; the oldest are deleted."""

MAX_KEPT_MESSAGES = 10_000
"""Refused messages that are kept for each source in a month; the oldest are deleted."""

SET_ASIDE = 0
"""The serial of an entry that was put aside: no message has it, and the entry waits no longer."""


class Kept(NamedTuple):
    """What a month keeps.

    Attributes:
        last_id: the last quarantine_id that was given, in whatever month.
        sources: messages and bytes that are kept of each source.
    """

    last_id: int
    sources: Mapping[str, tuple[int, int]]


class Quarantined(NamedTuple):
    """A refused message.

    Attributes:
        raw: what is kept of its bytes; empty if they were not asked for.
        retried: the serial under which it was accepted later, `SET_ASIDE` if it was put aside.
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


# Writing: in a transaction of the journal


def load(month: sqlite3.Connection, after: int) -> Kept:
    """What a month keeps; `after` is the last quarantine_id before it."""
    (last_id,) = month.execute("SELECT max(quarantine_id) FROM quarantine").fetchone()
    sources = {
        source: (messages, size)
        for source, messages, size in month.execute(
            "SELECT source, count(*), sum(length(raw)) FROM quarantine GROUP BY source"
        )
    }
    return Kept(after if last_id is None else last_id, sources)


def keep(
    month: sqlite3.Connection,
    refusals: Iterable[tuple[int | None, Refused]],
    received: times.Time,
    before: Kept,
    max_messages: int = MAX_KEPT_MESSAGES,
) -> Kept:
    """Keep refused messages, each with the number of its feed.

    The same bytes without a position, again and again, are only counted.

    Returns:
        What is kept once the transaction is committed.
    """
    import hashlib  # only here: `status` counts what is kept

    from ..messages.entries import Withheld

    last_id, sources = before.last_id, dict(before.sources)
    for feed_id, refusal in refusals:
        source, raw = refusal.source, refusal.raw
        digest = None
        if feed_id is None:
            content = raw if refusal.withheld is None else refusal.withheld.sha256
            digest = hashlib.sha256(source.encode() + b"\0" + content).digest()
            again = month.execute(
                "UPDATE quarantine SET times = times + 1 WHERE digest = ?", (digest,)
            )
            if again.rowcount:
                continue
        last_id += 1
        beginning = raw[:MAX_KEPT_BODY]
        _insert(month, last_id, feed_id, refusal._replace(raw=beginning), received, digest)
        whole = refusal.withheld
        if whole is None and len(beginning) < len(raw):
            whole = Withheld(len(raw), hashlib.sha256(raw).digest())
        if whole is not None:
            month.execute("INSERT INTO quarantine_cut VALUES (?, ?, ?)", (last_id, *whole))
        messages, size = sources.get(source, (0, 0))
        sources[source] = messages + 1, size + len(beginning)
    for source, (messages, size) in sources.items():
        if messages > max_messages or size > MAX_KEPT_BYTES:
            sources[source] = _let_go(month, source, messages, size, max_messages)
    return Kept(last_id, sources)


def keep_whole(
    month: sqlite3.Connection, refusal: Refused, received: times.Time, before: Kept
) -> Kept:
    """Likewise, whatever its size: it was a message of the journal, and can be retried."""
    _insert(month, before.last_id + 1, None, refusal, received, None)
    return before._replace(last_id=before.last_id + 1)


def _insert(
    month: sqlite3.Connection,
    quarantine_id: int,
    feed_id: int | None,
    refusal: Refused,
    received: times.Time,
    digest: bytes | None,
) -> None:
    position, source, encoding, error, raw, _ = refusal
    month.execute(
        "INSERT INTO quarantine (quarantine_id, source, feed_id, feed_serial, received,"
        " format, path, reason, raw, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            quarantine_id,
            source,
            feed_id,
            position and position.serial,
            received,
            encoding,
            error.path,
            error.cause,
            raw,
            digest,
        ),
    )


def _let_go(
    month: sqlite3.Connection, source: str, messages: int, size: int, max_messages: int
) -> tuple[int, int]:
    """Delete the oldest of a source; returns what is left of it, messages and bytes."""
    gone: list[tuple[int]] = []
    freed = 0
    for quarantine_id, length in month.execute(
        "SELECT quarantine_id, length(raw) FROM quarantine WHERE source = ? ORDER BY quarantine_id",
        (source,),
    ):
        if messages - len(gone) <= max_messages and size - freed <= MAX_KEPT_BYTES:
            break
        gone.append((quarantine_id,))
        freed += length
    month.executemany("DELETE FROM quarantine WHERE quarantine_id = ?", gone)
    month.executemany("DELETE FROM quarantine_cut WHERE quarantine_id = ?", gone)
    month.execute(
        "INSERT INTO quarantine_let_go VALUES (?, ?, ?) ON CONFLICT (source) DO UPDATE SET"
        " messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
        (source, len(gone), freed),
    )
    return messages - len(gone), size - freed


def retried(month: sqlite3.Connection, entries: Iterable[tuple[int, int]]) -> None:
    """Note the quarantine_id and the new serial of entries that were accepted."""
    month.executemany("INSERT INTO retries VALUES (?, ?)", entries)


# Reading: all months


def entries(journal: JournalReader, *, raw: bool = True) -> Iterator[Quarantined]:
    """Everything that was refused and is kept, the oldest first.

    Args:
        raw: whether to read the bytes, too. They may be many, and a list does not need them.
    """
    serials = retries(journal)
    for path in journal.months:
        month = journal.open(path)
        with wrap_errors(path):
            cut, joined = "NULL, NULL", ""
            if database.has_table(month, "quarantine_cut"):
                cut, joined = "bytes, sha256", " LEFT JOIN quarantine_cut USING (quarantine_id)"
            for *row, length, whole, sha256 in month.execute(
                "SELECT quarantine_id, source, feed, feed_serial, received, times, format,"
                f" path, reason, {'raw' if raw else 'zeroblob(0)'}, length(raw), {cut}"
                f" FROM quarantine LEFT JOIN feeds USING (feed_id){joined}"
                " ORDER BY quarantine_id"
            ):
                serial = serials.get(row[0])
                size = length if whole is None else whole
                digest = None if sha256 is None else sha256.hex()
                yield Quarantined._make((*row, serial, size, digest))


def retries(journal: JournalReader) -> dict[int, int]:
    """The serials under which refused messages were accepted later, by quarantine_id."""
    serials: dict[int, int] = {}
    for path in journal.months:
        month = journal.open(path)
        with wrap_errors(path):
            serials.update(month.execute("SELECT quarantine_id, serial FROM retries"))
    return serials


def was_retried(journal: JournalReader, quarantine_id: int) -> bool:
    """Whether a refused message was accepted later, or put aside."""
    for path in journal.months:
        month = journal.open(path)
        with wrap_errors(path):
            retry = month.execute("SELECT 1 FROM retries WHERE quarantine_id = ?", (quarantine_id,))
            if retry.fetchone() is not None:
                return True
    return False


def waiting_ids(journal: JournalReader, months: Iterable[Path] | None = None) -> set[int]:
    """The refused messages of some months, or of all, that were neither retried nor put aside."""
    refused: set[int] = set()
    for path in journal.months if months is None else months:
        month = journal.open(path)
        with wrap_errors(path):
            refused.update(row[0] for row in month.execute("SELECT quarantine_id FROM quarantine"))
    return refused - retries(journal).keys() if refused else refused


def waiting(journal: JournalReader, months: Iterable[Path] | None = None) -> int:
    """How many those are."""
    return len(waiting_ids(journal, months))


def let_go(journal: JournalReader) -> int:
    """How many refused messages are no longer kept, because their sources had too many."""
    messages = 0
    for path in journal.months:
        month = journal.open(path)
        with wrap_errors(path):
            if database.has_table(month, "quarantine_let_go"):
                (gone,) = month.execute("SELECT total(messages) FROM quarantine_let_go").fetchone()
                messages += int(gone)
    return messages
