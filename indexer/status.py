"""How a state directory stands: read only, whether a daemon runs or not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from . import database, disk, index, lock, pending, state, times
from .daemon import LIVE
from .decode import FILE_FEED
from .errors import PeerError
from .journal import LEAST, JournalReader
from .state import JOURNAL

STALE = 10.0
"""Seconds without a word of the daemon, or of a feed, until `status` wonders."""

COUNTED = ("packages", "versions", "builds", "files", "download_counts")


def gather(directory: Path, now: times.Time) -> dict[str, Any]:
    """Everything that `status` shows.

    Args:
        directory: of the state.
        now: for ages, microseconds since 1970.

    Returns:
        serial, applied_serial, pending, feeds, quarantined, counts, lag, daemon, farm, problems
        and more; see the keys.

    Raises:
        StateError: if there is no state there, or it cannot be read.
    """
    state.refuse_missing(directory, JOURNAL)
    held_by = lock.holder(directory)
    live = _live(directory, held_by)
    if live is not None:
        live["age_seconds"] = round((now - times.parse_rfc3339(live["at"])) / times.SECOND, 1)
    reader = JournalReader(directory / JOURNAL)
    try:
        serial = reader.last_serial()
        feeds = _feeds(reader, live, now)
        quarantined = reader.quarantined()
        journal_bytes = sum(path.stat().st_size for path in reader.months)
    finally:
        reader.close()
    status: dict[str, Any] = {
        "state_dir": str(directory),
        "held_by": held_by,
        "serial": serial,
        "applied_serial": 0,
        "pending": 0,
        "quarantined": quarantined,
        "feeds": [feed for feed in feeds if not feed["feed"].startswith(FILE_FEED)],
        "files_ingested": sum(feed["feed"].startswith(FILE_FEED) for feed in feeds),
        "counts": {},
        "not_a_wheel": 0,
        "journal_bytes": journal_bytes,
        "sqlite_version": sqlite3.sqlite_version,
        "daemon": live,
        "farm": live.pop("farm", None) if live is not None else None,
    }
    if (directory / index.FILE).exists():
        status |= _index(directory / index.FILE)
    status["disk_free_bytes"] = disk.room(directory)
    status["to_apply"] = max(0, serial - status["applied_serial"])
    status["to_accept"] = sum(feed["lag"] or 0 for feed in status["feeds"])
    status["lag"] = status["to_apply"] + status["to_accept"]  # messages
    status["problems"] = _problems(status)
    return status


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
    state.refuse_missing(directory, JOURNAL)
    operation = f"show the farm of {directory}"
    live = _live(directory, lock.holder(directory))
    if live is None:
        raise PeerError(operation, "no daemon runs there", "start it, with --status-queue")
    if "farm" not in live:
        raise PeerError(
            operation,
            "its daemon follows no master",
            "give it --status-queue, the address of piw-master's status queue",
        )
    live["age_seconds"] = round((now - times.parse_rfc3339(live["at"])) / times.SECOND, 1)
    farm: dict[str, Any] = live["farm"]
    return {**farm, "status_feed": live["status_feed"], "problems": _daemon_problems(live)}


def _index(path: Path) -> dict[str, Any]:
    connection = index.open_reader(path)
    try:
        if not database.has_tables(connection):
            return {}  # whoever began it was killed; the next one goes on
        with database.explained(f"read {path}"), database.snapshot(connection):
            return {
                "applied_serial": index.applied_serial(connection),
                "pending": pending.count(connection),
                "counts": {
                    table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in COUNTED
                },
                "downloads": connection.execute(
                    "SELECT CAST(total(downloads_all) AS INTEGER) FROM download_counts"
                ).fetchone()[0],
                "not_a_wheel": index.get(connection, "no_wheels", 0),
            }
    finally:
        connection.close()


def _live(directory: Path, held_by: str) -> dict[str, Any] | None:
    """What the daemon that holds the directory says of itself; None if there is none."""
    try:
        live: dict[str, Any] = json.loads((directory / LIVE).read_bytes())
    except (OSError, ValueError):
        return None
    # One that was killed leaves its last words behind.
    return live if f"(pid {live.get('pid')})" in held_by else None


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
            "silent_seconds": round((now - heard) / times.SECOND, 1),
        }
    return list(newest.values())


def _problems(status: dict[str, Any]) -> list[str]:
    """What is not well, each in one sentence; empty if all is well."""
    problems = []
    live = status["daemon"]
    free = status["disk_free_bytes"]
    if free is not None and free < LEAST:
        problems.append(
            f"the file system of {status['state_dir']} has only {free // 1024} KiB left: nothing"
            " is taken any more; free some disk space (df -h)"
        )
    if live is not None:
        problems += _daemon_problems(live)
    for feed in status["feeds"]:
        if feed["broken"]:
            problems.append(f"feed {feed['feed']} is broken: {feed['broken']}")
        if feed.get("silent_seconds") and feed["silent_seconds"] > STALE:
            problems.append(
                f"feed {feed['feed']} has been silent for {feed['silent_seconds']:.0f} s"
            )
    if status["quarantined"]:
        problems.append(
            f"{status['quarantined']} messages are in the quarantine: piw-indexer quarantine"
        )
    return problems


def _daemon_problems(live: dict[str, Any]) -> list[str]:
    problems = []
    if live["trouble"]:
        problems.append(live["trouble"])
    if live["age_seconds"] > STALE:
        problems.append(
            f"the daemon has not said how it stands for {live['age_seconds']:.0f} s: look at"
            " its messages (journalctl -u piw-indexer), and whether the disk is full"
        )
    return problems
