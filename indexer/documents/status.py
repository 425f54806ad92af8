"""status.json: what the farm does now, what waits, and how far behind we are.

Source: docs/documents.md. Of a machine it tells the label, and nothing else.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson

from ..base import printable, times
from ..index import waiting
from .estimate import done_in
from .kind import Document, Moment, TreeDocument
from .project import attempt

MAX_RECENT = 20
"""Builds that are listed."""

MAX_BUILDS = 1000
"""The last builds, whose durations the estimate is made from..."""

MAX_AGE = 7 * times.DAY
"""...if they are not older than this."""

MAX_DURATION = 7 * 86_400.0
"""Seconds: a longer build does not count. A sum of such numbers may not even fit into JSON."""

MAX_LABEL = 100
MAX_TEXT = 200
"""Characters of what slaves say."""

_BUILDERS = """
    SELECT label, abi_tag, doing, package, version, since FROM slaves
    ORDER BY label, abi_tag, slave_id
"""

_RECENT = f"""
    SELECT build_id, version, abi_tag, status, duration, built_at, built_by,
        failure_category, failure_detail, package
    FROM builds WHERE build_id > 0 ORDER BY build_id DESC LIMIT {MAX_BUILDS}
"""

_BUILT = "SELECT abi_tag, count(*) FROM builds WHERE built_at > ? AND built_at <= ? GROUP BY 1"


class Status(TreeDocument):
    """The kind. While a daemon runs it is written again and again; no other command makes one."""

    name = "status"
    path = "status.json"
    interval = 10.0
    when = "every 10 seconds"
    live = True

    def version(self, moment: Moment) -> str:
        """The time: it is another one whenever it is written."""
        return times.to_rfc3339(moment.now)

    def documents(self, moment: Moment, since: str | None) -> Iterator[Document]:
        """The one file."""
        # What the index has of the farm is old if no daemon follows it.
        running = moment.behind_seconds is not None
        yield Document(self.path, orjson.dumps(_status(moment)) if running else None)


def _status(moment: Moment) -> dict[str, Any]:
    connection, now = moment.connection, moment.now
    slaves = connection.execute(_BUILDERS).fetchall()
    recent = connection.execute(_RECENT).fetchall()
    since = times.to_sql(now - MAX_AGE)
    durations: dict[str, list[float]] = {}
    for _, _, abi_tag, _, duration, built_at, *_ in recent:
        told = duration is not None and built_at is not None
        if told and duration <= MAX_DURATION and built_at > since:
            durations.setdefault(abi_tag, []).append(duration)
    builders = Counter(abi_tag for _, abi_tag, doing, *_ in slaves if doing != "paused")
    pending = waiting.totals(connection)
    built_last_hour = _built(connection, now - times.HOUR, now)
    built_last_day = _built(connection, now - times.DAY, now)
    return {
        "at": times.to_sql(now),
        "serial": moment.serial,
        "behind_seconds": moment.behind_seconds,
        "abis": {
            abi: {
                "pending": pending.get(abi, 0),
                "built_last_hour": built_last_hour.get(abi, 0),
                "built_last_day": built_last_day.get(abi, 0),
                "done_in_seconds": done_in(
                    pending.get(abi, 0), builders[abi], durations.get(abi, ())
                ),
            }
            for abi in moment.abis.active
        },
        "builders": [
            {
                "label": printable.line(label or "", MAX_LABEL),
                "abi": _line(abi_tag),
                "doing": doing or "unknown",
                "package": _line(package),
                "version": _line(version),
                "since": since,
            }
            for label, abi_tag, doing, package, version, since in slaves
        ],
        "recent_builds": [
            {"package": package, "version": build[1], **attempt(*build)}
            for *build, package in recent[:MAX_RECENT]
        ],
    }


def _built(connection: sqlite3.Connection, after: times.Time, until: times.Time) -> dict[str, int]:
    """How many builds there were in a time, by ABI."""
    span = times.to_sql(after), times.to_sql(until)
    return dict(connection.execute(_BUILT, span).fetchall())


def _line(value: str | None) -> str | None:
    return None if value is None else printable.line(value, MAX_TEXT)
