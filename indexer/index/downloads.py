"""The download counters: by the hour, in the moving 30-day window, and ever.

Keeping them costs work in proportion to what changed. Names that are not packages (yet, or any
more) have counters, too: their downloads count when the package appears.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import orjson

from ..base import names
from ..schema.index import NO_WINDOW
from . import queries

_MAX_COUNTERS = 50_000


class Counters:
    """Counts downloads in an index.

    Args:
        connection: of the index; the caller holds the transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._downloads: dict[tuple[str, int], int] = {}
        self._listed: dict[str, bool] = {}
        self._counter_ids: dict[str, int] = {}
        self._next_id = 0
        self._window_start = NO_WINDOW
        self.changed = False

    def begin(self) -> None:
        """Forget everything uncommitted; call it at the start of a transaction."""
        self._downloads.clear()
        self._listed.clear()
        self._counter_ids.clear()
        self._next_id = 1 + int(
            self._connection.execute(
                "SELECT coalesce(max(counter_id), 0) FROM download_counts"
            ).fetchone()[0]
        )
        self._window_start = window_start(self._connection)
        self.changed = False

    def download(self, filename: str, hour: int) -> None:
        """Count a download; the next `flush` writes it.

        Args:
            hour: the start of the hour, seconds since 1970.
        """
        key = filename, hour
        downloads = self._downloads
        downloads[key] = downloads.get(key, 0) + 1

    @property
    def waiting(self) -> bool:
        """Whether there are downloads that `flush` would write."""
        return bool(self._downloads)

    def flush(self) -> None:
        """Write the counts, for the packages that the files belong to now."""
        if self._listed:
            self._ids(self._listed)
            self._connection.executemany(
                "UPDATE download_counts SET listed = ? WHERE package = ?",
                [(listed, package) for package, listed in self._listed.items()],
            )
            self._listed.clear()
            self.changed = True
        if not self._downloads:
            return
        execute = self._connection.execute
        packages = dict(
            execute(
                "SELECT f.filename, b.package FROM json_each(?) j"
                " JOIN files f ON f.filename = j.value JOIN builds b ON b.build_id = f.build_id",
                (orjson.dumps(list({filename for filename, _ in self._downloads})).decode(),),
            ).fetchall()
        )
        hours: dict[tuple[str, int], int] = {}
        no_wheels = 0
        for (filename, hour), downloads in self._downloads.items():
            package = packages.get(filename) or names.wheel_package(filename)
            if package is None:
                no_wheels += downloads
            else:
                key = package, hour
                hours[key] = hours.get(key, 0) + downloads
        self._downloads.clear()
        if no_wheels:
            queries.put(
                self._connection,
                "no_wheels",
                queries.get(self._connection, "no_wheels", 0) + no_wheels,
            )
        if hours:
            self._add(hours)

    def _add(self, hours: dict[tuple[str, int], int]) -> None:
        recent: dict[str, int] = {}
        ever: dict[str, int] = {}
        spans: dict[str, tuple[int, int]] = {}
        for (package, hour), downloads in hours.items():
            if package in ever:
                ever[package] += downloads
                first, last = spans[package]
                if not first <= hour <= last:
                    spans[package] = min(first, hour), max(last, hour)
            else:
                ever[package] = downloads
                spans[package] = hour, hour
            if hour >= self._window_start:
                recent[package] = recent.get(package, 0) + downloads
        counter_ids = self._ids(ever)
        self._connection.executemany(
            "UPDATE download_counts SET downloads_recent = downloads_recent + ?,"
            " downloads_all = downloads_all + ?, first_hour = min(coalesce(first_hour, ?3), ?3),"
            " last_hour = max(coalesce(last_hour, ?4), ?4) WHERE package = ?5",
            [
                (recent.get(package, 0), downloads, *spans[package], package)
                for package, downloads in ever.items()
            ],
        )
        self._connection.executemany(
            "INSERT INTO download_hours VALUES (?, ?, ?)"
            " ON CONFLICT (hour, counter_id)"
            " DO UPDATE SET downloads = downloads + excluded.downloads",
            sorted((hour, counter_ids[package], n) for (package, hour), n in hours.items()),
        )
        self.changed = True

    def _ids(self, packages: Iterable[str]) -> dict[str, int]:
        """The counter_ids of packages; missing ones are created."""
        known = self._counter_ids
        unknown = [package for package in packages if package not in known]
        if unknown:
            if len(known) + len(unknown) > _MAX_COUNTERS:
                known.clear()
                unknown = list(packages)
            known.update(
                self._connection.execute(
                    "SELECT c.package, c.counter_id FROM json_each(?) j"
                    " JOIN download_counts c ON c.package = j.value",
                    (orjson.dumps(unknown).decode(),),
                ).fetchall()
            )
            new = [package for package in unknown if package not in known]
            if new:
                for number, package in enumerate(new, self._next_id):
                    known[package] = number
                self._next_id += len(new)
                self._connection.executemany(
                    "INSERT INTO download_counts (package, counter_id) VALUES (?, ?)",
                    [(package, known[package]) for package in new],
                )
        return known

    def list_package(self, package: str, listed: bool) -> None:
        """Note that a package appeared or was deleted; the next `flush` writes it."""
        self._listed[package] = listed

    def replace(self, package: str, ever: int, hours: dict[int, int]) -> None:
        """Replace a package's counters.

        Args:
            package: canonical name.
            ever: downloads ever.
            hours: downloads by the start of the hour, seconds since 1970.
        """
        self.flush()
        counter_id = self._ids([package])[package]
        # Hour by hour, not over all rows: the table is ordered by hour so that live
        # downloads and the moving window touch few pages.
        self._connection.execute(
            "WITH RECURSIVE hours (hour) AS ("
            " SELECT first_hour FROM download_counts WHERE package = ?1"
            " UNION ALL"
            " SELECT (SELECT min(d.hour) FROM download_hours d WHERE d.hour > h.hour)"
            " FROM hours h"
            " WHERE h.hour < (SELECT last_hour FROM download_counts WHERE package = ?1))"
            " DELETE FROM download_hours WHERE counter_id = ?2 AND hour IN hours",
            (package, counter_id),
        )
        hours = {hour: n for hour, n in sorted(hours.items()) if n}
        self._connection.executemany(
            "INSERT INTO download_hours VALUES (?, ?, ?)",
            [(hour, counter_id, n) for hour, n in hours.items()],
        )
        recent = sum(n for hour, n in hours.items() if hour >= self._window_start)
        self._connection.execute(
            "UPDATE download_counts SET downloads_recent = ?, downloads_all = ?, first_hour = ?,"
            " last_hour = ? WHERE package = ?",
            (recent, ever, min(hours, default=None), max(hours, default=None), package),
        )
        self.changed = True


def window_start(connection: sqlite3.Connection) -> int:
    """The first hour that `downloads_recent` holds, seconds since 1970."""
    return int(queries.get(connection, "window_start", NO_WINDOW))


def move_window(connection: sqlite3.Connection, start: int) -> bool:
    """Move the start of the window forwards or back; the cost depends on the hours between.

    Args:
        connection: of the index, in a transaction.
        start: the first hour of the window, seconds since 1970.

    Returns:
        True if the counters of any package changed.
    """
    present = window_start(connection)
    if start == present:
        return False
    sign = -1 if start > present else 1
    changed = connection.execute(
        "UPDATE download_counts SET downloads_recent = downloads_recent + ? * moved.downloads"
        " FROM (SELECT counter_id, sum(downloads) AS downloads FROM download_hours"
        "   WHERE hour >= ? AND hour < ? GROUP BY counter_id) AS moved"
        " WHERE download_counts.counter_id = moved.counter_id",
        (sign, min(start, present), max(start, present)),
    ).rowcount
    queries.put(connection, "window_start", start)
    return changed > 0
