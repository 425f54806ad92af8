"""What happened to a package and when, from the journal, in plain words.

Read only. The journal has no index by package, because every message would have to pay for it and
the question is rare. So each month is read from its first message to its last.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database, times
from ..base.errors import JournalError
from ..base.names import FILE_FEED
from ..base.printable import many
from ..base.progress import Progress
from ..journal import quarantine
from ..journal.reader import JournalReader, restore_hint, wrap_errors
from ..messages import encode
from ..messages import types as messages
from ..messages.types import Message
from ..schema import journal as schema
from .replaced import Past

_STEP = 200_000
"""Serials that are read between two reports of progress."""


class Event(NamedTuple):
    """Something that happened to a package.

    Attributes:
        at: when it happened; for a day of downloads, when the day began.
        serial: in the journal; None if it is not one of its messages.
        feed: the feed that it came from; None if that is not known.
        feed_serial: its number in that feed.
        what: the message's name, `DOWNLOADED` (a day) or `REFUSED` (in the quarantine).
        words: the same in plain words.
        data: its fields.
    """

    at: times.Time
    serial: int | None
    feed: str | None
    feed_serial: int | None
    what: str
    words: str
    data: dict[str, Any]


def events(
    directory: Path,
    package: str,
    since: times.Time | None,
    progress: Progress,
    build_ids: Iterable[int] = (),
) -> Iterator[Event]:
    """The messages of a journal that name a package, or concern every package, in their order.

    Args:
        package: canonical name.
        since: the earliest time that is wanted.
        progress: called with the number of serials that were read.
        build_ids: of builds of the package whose messages are not read: why one of them failed is
            told by its number only.

    Raises JournalError if a month cannot be read.
    """
    its_builds = {*build_ids}
    reader = JournalReader(directory)
    months = reader.months
    last = reader.last_serial()
    complete = reader.first <= 1
    reader.close()
    if since is not None:
        # A message may be journaled later than it happened, and a clock may be fast.
        earliest = times.month(max(times.EARLIEST, since - times.DAY))
        wanted = [path for path in months if path.stem >= earliest]
        complete = complete and len(wanted) == len(months)
        months = wanted
    with closing(Past(package, complete=complete)) as before:
        for path in months:
            with wrap_errors(path):
                yield from _of_month(path, package, since, last, progress, its_builds, before)


def _of_month(
    path: Path,
    package: str,
    since: times.Time | None,
    last: int,
    progress: Progress,
    build_ids: set[int],
    before: Past,
) -> Iterator[Event]:
    with closing(database.open_reader(path, schema.SCHEMA)) as connection:
        first, end = connection.execute("SELECT min(serial), max(serial) FROM messages").fetchone()
        for start in range(first or 0, (end or -1) + 1, _STEP):
            rows = connection.execute(
                "SELECT serial, at, msg, data, feed, feed_serial FROM ("
                " SELECT serial, at, msg, data, feed_id, m.feed_serial FROM messages m"
                " WHERE msg <> 'LOGDOWNLOAD' AND package = ?1 AND serial >= ?2 AND serial < ?3"
                " UNION ALL"
                " SELECT serial, at, msg, data, feed_id, m.feed_serial FROM messages m"
                " WHERE msg <> 'LOGDOWNLOAD' AND package IS NULL AND serial >= ?2 AND serial < ?3)"
                " LEFT JOIN (SELECT feed_id, feed FROM feeds) USING (feed_id) ORDER BY serial",
                (package, start, start + _STEP),
            ).fetchall()
            for serial, at, msg, data, feed, feed_serial in rows:
                message = _decoded(path, serial, at, msg, data)
                if not _concerns(message, build_ids):
                    continue
                changes = before.take(serial, message) if msg not in _OF_ALL else None
                if since is None or at >= since:
                    named = encode.fields(message)
                    words = in_words(message, changes)
                    if changes is not None:
                        named["changes"] = changes
                    yield Event(at, serial, feed, feed_serial, msg, words, named)
            progress(min(start + _STEP, end), last)


_OF_ALL = ("SETABIS", "FAILURE")
"""Messages that name no package."""

MAX_CHANGES = 10
"""Changes of one snapshot that are told in words."""


def _concerns(message: Message, build_ids: set[int]) -> bool:
    """Whether a message is of the package; remembers the numbers of its builds."""
    match message.data:
        case messages.LogFailure(build_id=build_id):
            return build_id in build_ids
        case messages.LogBuild(build_id=build_id):
            build_ids.add(build_id)
        case messages.Snapshot(releases=releases):
            told = (abi.build_id for release in releases for abi in release.abis)
            build_ids.update(build_id for build_id in told if build_id is not None)
    return True


def _decoded(path: Path, serial: int, at: times.Time, msg: str, data: bytes) -> Message:
    try:
        return encode.from_journal(msg, at, data)
    except Exception as error:
        raise JournalError(
            f"read the journal's {path.name}",
            f"message {serial} is damaged: {error}",
            restore_hint(path),
        ) from error


def refused(directory: Path, package: str) -> Iterator[Event]:
    """Refused messages that name the package and were not accepted later."""
    name = re.compile(rb"(?<![a-z0-9.-])" + re.escape(package.encode()) + rb"(?![a-z0-9-])")
    with closing(JournalReader(directory)) as reader:
        # One at a time: all of them may be many megabytes.
        entries = [
            entry._replace(raw=b"")
            for entry in quarantine.entries(reader)
            if entry.retried is None and name.search(entry.raw)
        ]
    for entry in entries:
        reason = f"{entry.path}: {entry.reason}" if entry.path else entry.reason
        yield Event(
            entry.received,
            None,
            entry.feed or entry.source,
            entry.feed_serial,
            "REFUSED",
            f"refused, number {entry.quarantine_id} in the quarantine: {reason}",
            {"quarantine_id": entry.quarantine_id, "reason": reason},
        )


def downloads(
    connection: sqlite3.Connection, package: str, since: times.Time | None
) -> Iterator[Event]:
    """The downloads that the index has counted, for each day (UTC)."""
    # Hour by hour, because the table has all packages in the order of the hours.
    rows = connection.execute(
        "WITH RECURSIVE hours (hour) AS ("
        " SELECT first_hour FROM download_counts WHERE package = ?1"
        " UNION ALL"
        " SELECT (SELECT min(d.hour) FROM download_hours d WHERE d.hour > h.hour)"
        " FROM hours h"
        " WHERE h.hour < (SELECT last_hour FROM download_counts WHERE package = ?1))"
        " SELECT d.hour / 86400, sum(d.downloads) FROM hours h"
        " JOIN download_counts c ON c.package = ?1"
        " JOIN download_hours d ON d.hour = h.hour AND d.counter_id = c.counter_id"
        " GROUP BY 1 ORDER BY 1",
        (package,),
    )
    for day, count in rows:
        at = day * times.DAY
        if since is None or at + times.DAY > since:
            words = f"{many(count, 'download')} on that day"
            yield Event(at, None, None, None, "DOWNLOADED", words, {"downloads": count})


class Content(NamedTuple):
    """A content that a file of a name has had, with its first build; None: not known."""

    filename: str
    filehash: str
    filesize: int
    build_id: int | None
    built_at: str | None
    current: bool


def contents(connection: sqlite3.Connection, filename: str) -> list[Content]:
    """Every content that a file of this name has had, the oldest first."""
    if not database.has_table(connection, "file_history"):
        return []  # an index from before
    rows = connection.execute("SELECT * FROM file_history WHERE filename = ?", (filename,))
    return [Content._make(row)._replace(current=bool(row[-1])) for row in rows][::-1]


def origin(event: Event) -> str:
    """Where an event is recorded, in words."""
    feed = event.feed
    if feed is not None and feed.startswith(FILE_FEED):
        feed = f"file {feed.removeprefix(FILE_FEED)[:12]}"
        part = f"{feed} line {event.feed_serial}"
    elif feed is not None:
        part = f"{feed} {event.feed_serial}" if event.feed_serial is not None else feed
    else:
        part = ""
    serial = f"serial {event.serial}" if event.serial is not None else ""
    return ", ".join(filter(None, (serial, part)))


def _skips(verb: str, reason: str) -> str:
    return f"{verb} skipped: {reason}" if reason else f"{verb} no longer skipped"


def in_words(message: Message, changes: list[str] | None = None) -> str:
    """What a message says, in plain words; of a snapshot what it changed, if that is known."""
    at, data = message.at, message.data
    match data:
        case messages.SetAbis():
            active = [abi for abi, skip in data.build_abis if not skip]
            gone = [f"{abi} ({skip})" for abi, skip in data.build_abis if skip]
            words = f"every package: the build ABIs are {', '.join(active) or 'none'}"
            return words + (f"; no longer {', '.join(gone)}" if gone else "")
        case messages.NewPackage():
            return "the package appears" + (f", skipped: {data.skip}" if data.skip else "")
        case messages.NewPackageName():
            seen = "" if data.seen in (None, at) else f", seen {times.to_sql(data.seen)}"
            return f"its name is spelled {data.name}{seen}"
        case messages.SetDescription():
            return f"its summary is {data.description!r}"
        case messages.SkipPackage():
            return _skips("the package is", data.reason)
        case messages.DeletePackage():
            return "the package is deleted, with all its versions, builds and files"
        case messages.NewVersion():
            released = at if data.released is None else data.released
            skip = f", skipped: {data.skip}" if data.skip else ""
            return f"version {data.version} appears, released {times.to_sql(released)}{skip}"
        case messages.SkipVersion():
            return _skips(f"version {data.version} is", data.reason)
        case messages.YankVersion():
            return f"version {data.version} is yanked"
        case messages.UnyankVersion():
            return f"version {data.version} is no longer yanked"
        case messages.DeleteVersion():
            return f"version {data.version} is deleted, with its builds and files"
        case messages.LogBuild():
            status = "success" if data.status else "failed"
            why = f" ({data.failure})" if data.failure and not data.status else ""
            return (
                f"build {data.build_id} of {data.version} on {data.abi_tag} by slave"
                f" {data.slave_id}: {status}{why}, {data.duration:.1f} s,"
                f" {many(len(data.files), 'file')}"
            )
        case messages.LogFailure():
            return f"why build {data.build_id} failed: {data.failure}"
        case messages.MoveFiles():
            first = f"{data.files[0][0]} to {data.files[0][1]}"
            more = f", and {len(data.files) - 1:,} more" if len(data.files) > 1 else ""
            return f"files are served from elsewhere: {first}{more}"
        case messages.DeleteBuild():
            return f"all builds and files of version {data.version} are deleted"
        case messages.Snapshot():
            files = sum(len(release.files) for release in data.releases)
            versions = many(len(data.releases), "version")
            if changes is None:
                return (
                    "everything is replaced by the master's answer:"
                    f" {versions}, {many(files, 'file')}"
                )
            left = len(changes) - MAX_CHANGES
            told = "; ".join(changes[:MAX_CHANGES]) or "nothing that the index did not know"
            return f"the master's answer: {told}" + (f"; and {left:,} more" if left > 0 else "")
        case messages.Downloads():
            return f"its counters are replaced: {many(data.all, 'download')} ever"
    return message.name
