"""Save what can be read of a damaged journal, and give up the rest.

A damaged or missing month is replaced by a new file with every message that can still be read. The
new file lists the lost serials, and the damaged file stays beside it. An interrupted salvage can be
run again without losing more.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database, filesystem
from ..base.errors import IndexerError, JournalError
from ..base.log import event
from ..base.names import FILE_FEED
from ..base.progress import Progress, silent
from ..index import queries
from ..journal import damage
from ..journal.journal import roll_back
from ..journal.reader import Span, lost_of, month_files
from ..messages import encode
from ..schema import journal as schema
from . import checkpoint

log = logging.getLogger(__name__)


_INSERTS = {
    "feeds": "INSERT OR IGNORE INTO feeds VALUES (?, ?, ?, ?, ?)",
    "quarantine": "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "retries": "INSERT OR IGNORE INTO retries VALUES (?, ?)",
    "identities": "INSERT OR IGNORE INTO identities VALUES (?)",
    "quarantine_cut": "INSERT OR IGNORE INTO quarantine_cut VALUES (?, ?, ?)",
    "quarantine_let_go": "INSERT OR IGNORE INTO quarantine_let_go VALUES (?, ?, ?)",
    "addresses": "INSERT OR IGNORE INTO addresses VALUES (?, ?, ?)",
}


class Loss(NamedTuple):
    """A month that was replaced: the serials that it lost, and the name of the damaged file."""

    month: str
    lost: tuple[Span, ...]
    kept_as: str | None


class Salvaged(NamedTuple):
    """What was given up.

    Attributes:
        losses: the replaced months; empty if the journal was complete.
        covered: up to this serial the index has everything, whatever was lost.
        checkpoint: the index that held the lost messages, if it was needed and kept.
        feeds_lost: true if the positions of the feeds are no longer certain.
    """

    losses: tuple[Loss, ...]
    covered: int
    checkpoint: Path | None
    feeds_lost: bool


def salvage(state_dir: Path, journal: str, progress: Progress = silent) -> Salvaged:
    """Replace the damaged months of a state's journal; the caller holds its lock.

    Args:
        journal: the name of the journal's directory in it.
        progress: called with how many of how many months were read.

    Raises:
        JournalError: if it holds months of different journals.
        StateError: if it cannot be written.
    """
    directory = state_dir / journal
    try:
        roll_back(directory)  # an unfinished change of a killed process looks like damage
    except JournalError as error:
        if error.transient:
            raise
        log.info("%s", error, extra=event("not-rolled-back", path=directory))
    months = [damage.Month(path) for path in month_files(directory)]
    ids = {month.meta["journal_id"] for month in months if month.meta}
    if not months:
        return Salvaged((), 0, None, False)
    if len(ids) > 1:
        raise JournalError(
            f"salvage the journal in {directory}",
            "its months belong to different journals",
            "move the months that do not belong here away",
        )
    journal_id = ids.pop() if ids else _derived_id(state_dir)
    known = _index_serial(state_dir, journal_id)
    newest = max(
        (
            one.serial
            for one in checkpoint.every(state_dir)
            if not checkpoint.fault(one, journal_id)
        ),
        default=0,
    )
    plan = _plan(months, newest, max(known, newest), progress)
    if not plan:
        return Salvaged((), newest, None, False)
    # Without its newest month's feeds, the publishers send again what came after the month
    # before; an index that holds it already would count it twice.
    feeds_known = plan[-1].month.path != months[-1].path or bool(months[-1].table("feeds"))
    last_lost = max((span[1] for one in plan for span in one.lost), default=0)
    kept = None
    covered = newest
    if newest < last_lost <= known and feeds_known:
        with checkpoint.making(state_dir) as unfinished:
            copied = checkpoint.copy_index(state_dir, unfinished)
            kept = checkpoint.accept(state_dir, copied, journal_id)
        covered = kept.serial
    uncovered = [span for one in plan for span in one.lost if span[1] > covered]
    why = (
        f"messages {spans(uncovered)} of the journal were damaged and are lost" if uncovered else ""
    )
    broken = why if months[-1].path != plan[-1].month.path else ""
    if broken:
        _break_feeds(months[-1].path, broken)
    losses = []
    before: list[tuple[Any, ...]] = []
    replaced = {one.month.path: one for one in plan}
    for path in sorted({month.path for month in months} | set(replaced)):
        one = replaced.get(path)
        if one is None:
            before = next(month for month in months if month.path == path).table("feeds")
            continue
        feeds = one.month.table("feeds") or _advanced(before, one.month.rows(one.after, one.until))
        if path == months[-1].path and why:
            feeds = [_broken(feed, why) for feed in feeds]
        losses.append(_replace(one, feeds, months, journal_id))
        before = feeds
    return Salvaged(tuple(losses), covered, kept.path if kept else None, not feeds_known)


class _Plan(NamedTuple):
    """A month's new file: the serials that belong to it, and those of them that are lost."""

    month: damage.Month
    after: int
    until: int
    lost: tuple[Span, ...]


def _plan(months: list[damage.Month], covered: int, known: int, progress: Progress) -> list[_Plan]:
    """The months that must be replaced.

    Args:
        months: the existing months, the oldest first.
        covered: the serial of a checkpoint; what is missing before it may be archived.
        known: the highest serial that is known to have been used.
    """
    plan: list[_Plan] = []
    first = months[0]
    end = first.after
    if end is None:
        end = 0
        # Only its own messages show where a damaged first month began; what a checkpoint holds
        # may have been archived.
        if covered:
            end = min([covered, *(begin - 1 for begin, _ in first.held(0, None))])
    elif end > covered:
        name = _before(first.path)
        plan.append(_Plan(damage.Month(name), 0, end, ((1, end),)))
    for number, month in enumerate(months):
        progress(number, len(months))
        later = months[number + 1] if number + 1 < len(months) else None
        until = later.after if later is not None else None
        if month.after is not None and month.after < end:
            raise JournalError(
                f"salvage the journal in {month.path.parent}",
                f"{month.path.name} begins after serial {month.after}, before {end}, where the"
                " month before it ends",
                "move the one that does not belong here away",
            )
        held = month.held(end, until)
        lost = list(lost_of(month.meta))
        last = max((span[1] for span in held), default=end)
        given_up = max((span[1] for span in lost), default=0)
        if until is None:
            # A sound newest month ends the journal; where a damaged one ended is not known.
            until = max(last, given_up)
            if later is None and month.faults:
                until = max(until, known)
        missing = _missing(end, until, held)
        gone = [span for span in missing if span not in lost]
        if not month.faults and not gone and month.after == end:
            end = until
            continue
        following = _after(month.path)
        tail = missing[-1] if missing and missing[-1][1] == until else None
        if (
            tail is not None
            and tail not in lost
            and later is not None
            and following < later.path
            and not month.faults
        ):
            # A month between them is missing; this one is sound.
            begin = max(last, given_up)
            before = _missing(end, begin, held)
            if before != [span for span in lost if span[1] <= begin]:
                plan.append(_Plan(month, end, begin, tuple(before)))
            plan.append(_Plan(damage.Month(following), begin, until, ((begin + 1, until),)))
        else:
            plan.append(_Plan(month, end, until, tuple(missing)))
        end = until
    return plan


def _missing(after: int, until: int, held: Iterable[Span]) -> list[Span]:
    """The serials from `after` + 1 to `until` that are missing."""
    found: list[Span] = []
    expected = after + 1
    for first, last in [*held, (until + 1, until + 1)]:
        if first > expected:
            found.append((expected, first - 1))
        expected = max(expected, last + 1)
    return found


def _derived_id(state_dir: Path) -> str:
    """The id of the journal that the index or a checkpoint was made from, or else a new one."""
    paths = [state_dir / queries.FILE, *(one.path for one in reversed(checkpoint.every(state_dir)))]
    for path in paths:
        found = dict(row[:2] for row in damage.table(path, "state")).get("journal_id")
        if isinstance(found, str):
            return found
    return uuid.uuid4().hex


def _index_serial(state_dir: Path, journal_id: str) -> int:
    """The last message in the index; 0 if the index is not sound."""
    try:
        connection = database.open_reader(state_dir / queries.FILE)
    except IndexerError:
        return 0
    try:
        serial = queries.applied_serial(connection)
        one = checkpoint.Checkpoint(state_dir / queries.FILE, serial)
    except sqlite3.Error:
        return 0
    finally:
        connection.close()
    return 0 if checkpoint.fault(one, journal_id) else serial


def _advanced(
    feeds: list[tuple[Any, ...]], rows: Iterable[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """The feeds of the month before, moved on by the messages that could be read."""
    positions: dict[int, int] = {}
    for _, _, _, _, feed_id, feed_serial, _, _ in rows:
        if feed_id is not None and feed_serial is not None:
            positions[feed_id] = max(feed_serial, positions.get(feed_id, 0))
    return [
        (feed_id, feed, epoch, max(serial, positions.get(feed_id, 0)), broken)
        for feed_id, feed, epoch, serial, broken in feeds
    ]


def _broken(feed: tuple[Any, ...], why: str) -> tuple[Any, ...]:
    feed_id, name, epoch, serial, broken = feed
    return feed_id, name, epoch, serial, broken if name.startswith(FILE_FEED) else broken or why


def _break_feeds(path: Path, why: str) -> None:
    """Record in the newest month that messages of its feeds are lost."""
    with (
        database.wrap_errors(f"use the journal's {path.name}", JournalError),
        closing(database.open_writer(path, schema.SCHEMA, synchronous="FULL")) as connection,
    ):
        connection.execute(
            "UPDATE feeds SET broken = coalesce(broken, ?) WHERE feed NOT LIKE ? || '%'",
            (why, FILE_FEED),
        )


def _replace(
    one: _Plan, feeds: list[tuple[Any, ...]], months: list[damage.Month], journal_id: str
) -> Loss:
    """Replace a month by a new file; the damaged file stays under another name."""
    path = one.month.path
    epoch = next((month.meta["epoch"] for month in reversed(months) if month.meta), 0)
    quarantine = one.month.table("quarantine")
    after_quarantine = one.month.meta.get("after_quarantine")
    if after_quarantine is None:
        earlier = [
            row[0] for month in months if month.path < path for row in month.table("quarantine")
        ]
        after_quarantine = max(earlier, default=0)
    known = {feed[0] for feed in feeds}

    def linked(row: tuple[Any, ...], place: int) -> tuple[Any, ...]:
        """The row, without its feed if that is not known any more."""
        if row[place] is None or row[place] in known:
            return row
        return (*row[:place], None, *row[place + 1 :])

    def checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row with a new checksum."""
        serial, at, msg, _, _, _, data, _ = row
        return (*row[:7], encode.checksum(serial, at, msg, data))

    unfinished = path.with_suffix(".new")
    with database.wrap_errors(
        f"replace the journal's {path.name}", JournalError, beside=path.parent
    ):
        database.remove(unfinished)
        with closing(
            database.open_writer(unfinished, schema.SCHEMA, synchronous="FULL")
        ) as connection:
            with database.transaction(connection):
                connection.executemany(_INSERTS["feeds"], feeds)
                connection.executemany(
                    "INSERT INTO meta VALUES (?, ?)",
                    [
                        ("journal_id", journal_id),
                        ("epoch", epoch),
                        ("after", one.after),
                        ("after_quarantine", after_quarantine),
                        ("lost", json.dumps(one.lost)),
                    ],
                )
                connection.executemany(
                    "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (checked(linked(row, 4)) for row in one.month.rows(one.after, one.until)),
                )
                connection.executemany(
                    _INSERTS["quarantine"], [linked(row, 2) for row in quarantine]
                )
                for name in (
                    "retries",
                    "identities",
                    "quarantine_cut",
                    "quarantine_let_go",
                    "addresses",
                ):
                    connection.executemany(_INSERTS[name], one.month.table(name))
            database.truncate_wal(connection)
        kept_as = damage.put_aside(path) if one.month.exists else None
        filesystem.rename(unfinished, path)
    return Loss(path.name, one.lost, kept_as)


def _after(path: Path) -> Path:
    """The month after."""
    year, month = map(int, path.stem.split("-"))
    year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return path.with_name(f"{year:04d}-{month:02d}.db")


def _before(path: Path) -> Path:
    """The month before."""
    year, month = map(int, path.stem.split("-"))
    year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    return path.with_name(f"{year:04d}-{month:02d}.db")


def spans(found: Iterable[Span]) -> str:
    """`1 to 5, 7, 9 to 12`."""
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in found)
