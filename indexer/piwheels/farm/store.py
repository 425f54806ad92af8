"""The live farm in the index: the tables `slaves` and `masters`, which nothing else reads or needs.

They let a restarted daemon show the farm at once; the feed overwrites them as it reports.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, NamedTuple

from ...base import database, times
from ...base.times import Time
from .messages import Build, MasterHello, MasterStats, SlaveHello, SlaveStats
from .picture import MasterPicture, Picture, SlavePicture

_HELLO = (
    "build_timeout busy_timeout py_version abi_tag platform label os_name os_version"
    " board_revision board_serial"
).split()
_STATS = (
    "stats_at disk_size disk_free mem_size mem_free swap_size swap_free load_average cpu_temp"
).split()
_SLAVE = [
    *"slave_id first_seen last_seen doing since since_exact package version filename".split(),
    *"builds_succeeded builds_failed clock_skew".split(),
    *_HELLO,
    *_STATS,
]
_MASTER_HELLO = "started label os_name os_version board_revision board_serial".split()
_MASTER_STATS = ["stats_at", *MasterStats._fields[1:]]
_MASTER = ["status_queue", "last_seen", *_MASTER_HELLO, *_MASTER_STATS]


def _insert(table: str, columns: list[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})"


_INSERT_SLAVE = _insert("slaves", _SLAVE)
_INSERT_MASTER = _insert("masters", _MASTER)

Row = tuple[Any, ...]


class Rows(NamedTuple):
    """What the tables hold: the master's row, and those of the slaves by number."""

    master: Row | None
    slaves: dict[int, Row]


NO_ROWS = Rows(None, {})


def rows(status_queue: str, picture: Picture) -> Rows:
    """The rows of a picture.

    Args:
        status_queue: where its feed is.
        picture: the farm.
    """
    master = picture.master
    return Rows(
        None
        if master is None
        else (status_queue, times.to_sql(master.last_seen), *_hello(master), *_stats(master)),
        {one.slave_id: _slave(one) for one in picture.slaves},
    )


def _hello(master: MasterPicture) -> Row:
    if master.hello is None:
        return (None,) * len(_MASTER_HELLO)
    return (times.to_sql(master.hello.started), *master.hello[1:])


def _stats(master: MasterPicture) -> Row:
    stats = master.stats
    if stats is None:
        return (None,) * len(_MASTER_STATS)
    return tuple(
        times.to_sql(value)
        if name == "at"
        else json.dumps(dict(value))
        if isinstance(value, tuple)
        else value
        for name, value in stats._asdict().items()
    )


def _slave(one: SlavePicture) -> Row:
    hello: Row = (None,) * len(_HELLO) if one.hello is None else one.hello
    stats: Row = (None,) * len(_STATS)
    if one.stats is not None:
        stats = (times.to_sql(one.stats.at), *one.stats[1:])
    return (
        one.slave_id,
        _text(one.first_seen),
        times.to_sql(one.last_seen),
        one.doing,
        _text(one.since),
        int(one.since_exact),
        one.build.package if one.build else None,
        one.build.version if one.build else None,
        one.file or None,
        one.succeeded,
        one.failed,
        one.clock_skew,
        *hello,
        *stats,
    )


def write(connection: sqlite3.Connection, before: Rows, after: Rows) -> None:
    """Bring the tables from one state to another, in one transaction; what is equal stays.

    Raises:
        StateError: if the index cannot be written.
    """
    changed = [row for number, row in after.slaves.items() if before.slaves.get(number) != row]
    gone = before.slaves.keys() - after.slaves.keys()
    if before == after:
        return
    with (
        database.wrap_errors("write the live farm to the index"),
        database.transaction(connection),
    ):
        connection.executemany("DELETE FROM slaves WHERE slave_id = ?", [(one,) for one in gone])
        connection.executemany(_INSERT_SLAVE, changed)
        if after.master != before.master:
            connection.execute("DELETE FROM masters")
            if after.master is not None:
                connection.execute(_INSERT_MASTER, after.master)


def clear(connection: sqlite3.Connection) -> None:
    """Empty the tables: there is no feed any more.

    Raises:
        StateError: if the index cannot be written.
    """
    write(connection, read(connection), NO_ROWS)


def read(connection: sqlite3.Connection) -> Rows:
    """What the tables hold.

    Raises:
        StateError: if the index cannot be read.
    """
    with database.wrap_errors("read the live farm from the index"), database.snapshot(connection):
        masters = connection.execute(f"SELECT {', '.join(_MASTER)} FROM masters").fetchone()
        slaves = connection.execute(f"SELECT {', '.join(_SLAVE)} FROM slaves").fetchall()
    return Rows(masters, {row[0]: row for row in slaves})


def pictures(
    found: Rows, status_queue: str
) -> tuple[MasterPicture | None, tuple[SlavePicture, ...]]:
    """What rows say of the feed at `status_queue`; nothing if they are another's."""
    if found.master is None or found.master[0] != status_queue:
        return None, ()
    return _load_master(found.master), tuple(map(_load_slave, found.slaves.values()))


def _load_master(row: Row) -> MasterPicture:
    hello, stats = None, None
    started, *rest = row[2 : 2 + len(_MASTER_HELLO)]
    if started is not None:
        hello = MasterHello(times.from_sql(started), *rest)
    at, *rest = row[2 + len(_MASTER_HELLO) :]
    if at is not None:
        stats = MasterStats(times.from_sql(at), *rest)
        stats = stats._replace(
            builds_last_hour=_pairs(stats.builds_last_hour),
            builds_pending=_pairs(stats.builds_pending),
        )
    return MasterPicture(times.from_sql(row[1]), hello, stats)


def _load_slave(row: Row) -> SlavePicture:
    number, first_seen, last_seen, doing, since, exact, package, version, file, *more = row
    succeeded, failed, clock_skew, *rest = more
    hello, stats = rest[: len(_HELLO)], rest[len(_HELLO) :]
    return SlavePicture(
        number,
        SlaveHello(*hello) if hello[0] is not None else None,
        _time(first_seen),
        times.from_sql(last_seen),
        doing,
        _time(since),
        bool(exact),
        Build(package, version) if package is not None else None,
        file or "",
        succeeded,
        failed,
        SlaveStats(times.from_sql(stats[0]), *stats[1:]) if stats[0] is not None else None,
        clock_skew,
    )


def _pairs(text: Any) -> tuple[tuple[str, int], ...]:
    return tuple(json.loads(text).items())


def _text(value: Time | None) -> str | None:
    return None if value is None else times.to_sql(value)


def _time(text: str | None) -> Time | None:
    return None if text is None else times.from_sql(text)
