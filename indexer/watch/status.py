"""How a state directory stands: read only, whether a daemon runs or not."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from .. import __version__
from ..base import database, directories, disk, lock, notes, printable, sqlite_bug, times
from ..base.directories import BACKUP, CHECK, JOURNAL, LIVE
from ..base.errors import NewerDatabaseError, PeerError, StateError
from ..base.names import FILE_FEED
from ..index import pending, queries
from ..journal import quarantine
from ..journal.reader import JournalReader
from . import notes as shapes
from .alerts import Alert, alert, explained, is_well, sentences

STALE = 10.0
"""Seconds without a word of the daemon, or of a feed, until `status` wonders."""

LATE = 60.0
"""Seconds that published messages may wait until it is worth a word."""

STUCK = 300.0
"""Seconds that a package may wait to be written."""

LITTLE = 2**30
"""Bytes of a file system below which somebody should make room."""

COUNTED = ("packages", "versions", "builds", "files", "download_counts")

_OURS = "piw-indexer "
_DAEMON = f"{_OURS}run (pid "


def gather(directory: Path, now: times.Time, *, counting: bool = True) -> dict[str, Any]:
    """Everything that `status` shows.

    Args:
        directory: of the state.
        now: for ages, microseconds since 1970.
        counting: whether to count the rows of the index, which reads much of a large one.

    Returns:
        What schema/status.schema.json describes.

    Raises:
        StateError: if there is no state there, or it cannot be read.
    """
    directories.refuse_missing(directory, JOURNAL)
    held_by = lock.holder(directory)
    noted = _Noted(directory)
    live = noted.live(held_by, now)
    reader = JournalReader(directory / JOURNAL)
    try:
        serial = reader.last_serial()
        feeds = _feeds(reader, live, now)
        quarantined, let_go = quarantine.waiting(reader), quarantine.let_go(reader)
        months = [{"month": path.stem, "bytes": path.stat().st_size} for path in reader.months]
    finally:
        reader.close()
    status: dict[str, Any] = {
        "version": __version__,
        "at": times.to_rfc3339(now),
        "well": False,
        "alerts": [],
        "state_dir": printable.utf8(str(directory)),
        "held_by": held_by,
        "serial": serial,
        "applied_serial": 0,
        "pending": 0,
        "oldest_pending_serial": None,
        "oldest_pending_seconds": live.get("oldest_pending_seconds") if live else None,
        "quarantined": quarantined,
        "quarantined_let_go": let_go,
        "feeds": [feed for feed in feeds if not feed["feed"].startswith(FILE_FEED)],
        "files_ingested": sum(feed["feed"].startswith(FILE_FEED) for feed in feeds),
        "counts": {},
        "not_a_wheel": 0,
        "journal_bytes": sum(month["bytes"] for month in months),
        "journal_months": months,
        # Of a month that is over; the present one is not.
        "journal_bytes_a_month": months[-2]["bytes"] if len(months) > 1 else None,
        "sqlite_version": sqlite3.sqlite_version,
        "sqlite_wal_reset_bug": sqlite_bug.has_wal_reset_bug(sqlite3.sqlite_version_info),
        "last_check": noted.read(CHECK, shapes.CHECK),
        "last_backup": noted.read(BACKUP, shapes.BACKUP),
        "daemon": live,
        "farm": live.pop("farm", None) if live is not None else None,
    }
    if (directory / queries.FILE).exists():
        status |= _index(directory / queries.FILE, counting)
    status["disk_free_bytes"], status["disk_bytes"] = disk.sizes(directory)
    status["output_path"] = live.get("output_path") if live else None
    status["output_disk_free_bytes"], status["output_disk_bytes"] = (
        disk.sizes(Path(status["output_path"])) if status["output_path"] else (None, None)
    )
    status["to_apply"] = max(0, serial - status["applied_serial"])
    # Publishers say how far they are, and JSON has no larger numbers.
    status["to_accept"] = min(sum(feed["lag"] or 0 for feed in status["feeds"]), notes.MAX_COUNT)
    status["lag"] = min(status["to_apply"] + status["to_accept"], notes.MAX_COUNT)  # messages
    status["lag_seconds"] = max(
        (feed["lag_seconds"] or 0.0 for feed in status["feeds"]), default=0.0
    )
    alerts = _alerts(status, noted.unreadable)
    status["alerts"] = [one.as_data() for one in alerts]
    status["well"] = is_well(alerts)
    status["problems"] = sentences(alerts)
    return status


def unreadable(error: StateError) -> Alert:
    """What it means that `gather` raised this."""
    kind = "database-newer" if isinstance(error, NewerDatabaseError) else "state-unreadable"
    return alert(kind, f"cannot {error.operation}: {error.cause}", error.remedy)


def live_farm(directory: Path, now: times.Time) -> dict[str, Any]:
    """The farm as the daemon sees it at this moment.

    Args:
        directory: of the state.
        now: microseconds since 1970.

    Returns:
        at, master, slaves, finished, status_feed, problems.

    Raises:
        StateError: if there is no state there.
        PeerError: if no daemon runs on it, or none that follows a master.
    """
    directories.refuse_missing(directory, JOURNAL)
    operation = f"show the farm of {directory}"
    noted = _Noted(directory)
    live = noted.live(lock.holder(directory), now)
    for one in noted.unreadable.values():
        raise PeerError(operation, one.what, one.remedy)
    if live is None:
        raise PeerError(operation, "no daemon runs there", "start it, with --status-queue")
    if "farm" not in live:
        raise PeerError(
            operation,
            "its daemon follows no master",
            "give it --status-queue, the address of piw-master's status queue",
        )
    farm: dict[str, Any] = live["farm"]
    alerts = sentences(_daemon_alerts(live))
    return {**farm, "status_feed": live.get("status_feed"), "problems": alerts}


def _index(path: Path, counting: bool) -> dict[str, Any]:
    connection = queries.open_reader(path)
    try:
        if not database.has_tables(connection):
            return {}  # whoever began it was killed; the next one goes on
        with database.wrap_errors(f"read {path}"), database.snapshot(connection):
            found = {
                "applied_serial": queries.applied_serial(connection),
                "pending": pending.count(connection),
                "oldest_pending_serial": pending.oldest(connection),
                "not_a_wheel": queries.get(connection, "no_wheels", 0),
            }
            return {**found, **_counts(connection)} if counting else found
    finally:
        connection.close()


def _counts(connection: sqlite3.Connection) -> dict[str, Any]:
    """How many rows there are; 0.3 s for ten million versions in memory, more from a disk."""
    return {
        "counts": {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in COUNTED
        },
        "downloads": connection.execute(
            "SELECT CAST(total(downloads_all) AS INTEGER) FROM download_counts"
        ).fetchone()[0],
    }


class _Noted:
    """The notes of a state directory; one that cannot be read is as if it were not there.

    Attributes:
        unreadable: what is to be said of those, by name.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.unreadable: dict[str, Alert] = {}

    def read(self, name: str, shape: notes.Shape) -> dict[str, Any] | None:
        """What a note says; None if there is none."""
        try:
            found: dict[str, Any] | None = notes.read(self._directory / name, shape)
        except notes.NoteError as error:
            what = f"the note {name} in the state directory cannot be read: {error}"
            self.unreadable[name] = alert("note-unreadable", what)
            return None
        return found

    def live(self, held_by: str, now: times.Time) -> dict[str, Any] | None:
        """What the daemon that holds the directory says of itself; None if there is none."""
        if not held_by or (held_by.startswith(_OURS) and not held_by.startswith(_DAEMON)):
            return None
        live = self.read(LIVE, shapes.DAEMON)
        # One that was killed leaves its last words behind.
        if live is None or f"(pid {live['pid']})" not in held_by:
            return None
        live["age_seconds"] = round((now - times.parse_rfc3339(live["at"])) / times.SECOND, 1)
        return live


def _feeds(
    reader: JournalReader, live: dict[str, Any] | None, now: times.Time
) -> list[dict[str, Any]]:
    """Every feed in its newest epoch, with what the daemon knows of it."""
    newest: dict[str, dict[str, Any]] = {}
    for feed, epoch, serial, broken in reader.feeds():
        before = newest.get(feed)
        newest[feed] = {
            "feed": feed,
            "epoch": epoch,
            "serial": serial,
            # A feed stays broken in its next lives, until it is repaired.
            "broken": broken or (before["broken"] if before else None),
            "published": None,
            "lag": None,
            "lag_seconds": None,
            "filling": False,
            "silent_seconds": None,
        }
    for known in live["feeds"] if live else ():
        found = newest.setdefault(
            known["feed"],
            {"feed": known["feed"], "serial": known["serial"], "broken": None},
        )
        heard = times.parse_rfc3339(known["heard"])
        found |= {
            "epoch": known["epoch"],
            "published": known["published"],
            "lag": max(0, known["published"] - found["serial"]),
            "lag_seconds": known["lag_seconds"],
            "filling": known["filling"],
            "silent_seconds": round((now - heard) / times.SECOND, 1),
        }
    return list(newest.values())


def _alerts(status: dict[str, Any], unreadable_notes: dict[str, Alert]) -> list[Alert]:
    """What is not well, the worst first; empty if all is well."""
    found = [*unreadable_notes.values(), *_disk_alerts(status)]
    if LIVE not in unreadable_notes:
        found += _holder_alerts(status)
    if status["daemon"] is not None:
        found += _daemon_alerts(status["daemon"])
    for feed in status["feeds"]:
        found += _feed_alerts(feed)
    found += _index_alerts(status)
    if status["quarantined"]:
        found.append(alert("quarantine", f"{status['quarantined']} messages are in the quarantine"))
    checked = status["last_check"]
    if checked is not None and checked["finished"] and checked["differences"]:
        found.append(
            alert(
                "check-differences",
                f"the check of {checked['at']} found {checked['differences']} differences",
            )
        )
    if status["sqlite_wal_reset_bug"]:
        found.append(
            alert(
                "sqlite-wal-reset",
                f"SQLite {status['sqlite_version']} can corrupt a database that two connections"
                " write or checkpoint at once",
            )
        )
    rank = {"critical": 0, "warning": 1, "notice": 2}
    return sorted(found, key=lambda one: rank[one.kind.severity])


def _holder_alerts(status: dict[str, Any]) -> list[Alert]:
    held_by = status["held_by"]
    if status["daemon"] is not None:
        return []
    if held_by.startswith(_DAEMON):
        return [
            alert(
                "daemon-starting",
                f"the daemon is starting: {status['serial'] - status['applied_serial']:,}"
                " messages of the journal are still to be applied",
            )
        ]
    beside = f"; {held_by} holds the state" if held_by else ""
    return [alert("daemon-not-running", f"no daemon runs{beside}")]


def _disk_alerts(status: dict[str, Any]) -> list[Alert]:
    found = []
    free = status["disk_free_bytes"]
    if free is not None:
        enough = max(LITTLE, 2 * (status["journal_bytes_a_month"] or 0))
        where = f"the file system of {status['state_dir']}"
        if free < disk.MIN_SPACE:
            found.append(
                alert(
                    "disk-full",
                    f"{where} has only {free // 1024} KiB left: nothing is taken any more",
                )
            )
        elif free < enough:
            found.append(alert("state-disk-low", f"{where} has only {free / 2**20:,.0f} MiB left"))
    free = status["output_disk_free_bytes"]
    if free is not None and free < LITTLE:
        found.append(
            alert(
                "output-disk-low",
                f"the file system of {status['output_path']} has only {free / 2**20:,.0f} MiB left",
            )
        )
    return found


def _daemon_alerts(live: dict[str, Any]) -> list[Alert]:
    """What the daemon says is wrong."""
    found = [explained(one["id"], one["text"]) for one in live["troubles"]]
    age = live["age_seconds"]
    if age > STALE:
        found.append(
            alert("daemon-silent", f"the daemon has not reported its state for {age:.0f} s")
        )
    elif age < -STALE:
        found.append(
            alert(
                "clock-jump",
                f"what the daemon said last is {-age:.0f} s in the future: the clock was set back",
            )
        )
    running = times.parse_rfc3339(live["at"]) - times.parse_rfc3339(live["started"])
    if running > STALE * times.SECOND:
        heard = {feed["changes_queue"] for feed in live["feeds"]}
        told = {"feed-refused", "feed-name-taken", "peer-not-believed"}
        refused = any(one["id"] in told for one in live["troubles"])
        found += [
            alert("feed-never-heard", f"nobody has been heard at {changes} yet")
            for changes, _ in live["queues"]
            if changes not in heard and not refused
        ]
    return found


def _feed_alerts(feed: dict[str, Any]) -> list[Alert]:
    found = []
    name = feed["feed"]
    if feed["broken"]:
        found.append(alert("feed-broken", f"feed {name} is broken: {feed['broken']}"))
    silent = feed["silent_seconds"]
    if silent is not None and silent > STALE:
        found.append(alert("feed-silent", f"feed {name} has been silent for {silent:.0f} s"))
    late = feed["lag_seconds"] or 0.0
    if feed["filling"] and late > STALE:
        found.append(
            alert("feed-filling", f"a hole in feed {name} is being filled for {late:.0f} s")
        )
    elif late > LATE:
        found.append(
            alert(
                "feed-behind",
                f"feed {name} is {feed['lag']:,} messages behind, for {late:.0f} s",
            )
        )
    return found


def _index_alerts(status: dict[str, Any]) -> list[Alert]:
    found = []
    if status["to_apply"] and not status["held_by"]:
        found.append(
            alert(
                "index-behind",
                f"{status['to_apply']:,} messages of the journal are not in the index",
            )
        )
    waiting = status["oldest_pending_seconds"] or 0.0
    if waiting > STUCK:
        found.append(
            alert(
                "writer-stuck",
                f"{status['pending']:,} documents are waiting to be written, the oldest for"
                f" {waiting:.0f} s",
            )
        )
    return found
