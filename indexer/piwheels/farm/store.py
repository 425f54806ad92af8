"""The live farm in the index: the tables `slaves` and `masters`, which nothing else reads or needs.

They let a restarted daemon show the farm at once; the feed overwrites them as it reports.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, NamedTuple

from ...base import database, times
from . import view
from .picture import MasterPicture, MasterStats, Picture, SlavePicture, SlaveStats

_TIMES = {"first_seen", "last_seen", "since", "started", "stats_at"}
_COUNTS = {"builds_last_hour", "builds_pending"}  # by ABI
_DERIVED = {"board", "alerts", "stats"}  # not columns: `stats` has columns of its own

_SLAVE = [name for name in SlavePicture._fields if name not in _DERIVED]
_MASTER = [name for name in MasterPicture._fields if name not in _DERIVED]

Row = dict[str, Any]
"""Values by column."""


class Rows(NamedTuple):
    """What the tables hold: the master's row, and those of the slaves by number."""

    master: Row | None
    slaves: dict[int, Row]


NO_ROWS = Rows(None, {})


def rows(status_queue: str, picture: Picture) -> Rows:
    """The rows of a picture of the feed at `status_queue`."""
    master = picture.master
    return Rows(
        None
        if master is None
        else {"status_queue": status_queue, **_row(master, _MASTER, MasterStats._fields)},
        {slave.slave_id: _row(slave, _SLAVE, SlaveStats._fields) for slave in picture.slaves},
    )


def _row(
    picture: MasterPicture | SlavePicture, columns: list[str], measured: tuple[str, ...]
) -> Row:
    values = {name: getattr(picture, name) for name in columns}
    for name in measured:
        column = "stats_at" if name == "at" else name
        values[column] = None if picture.stats is None else getattr(picture.stats, name)
    for name, value in values.items():
        if value is not None and name in _TIMES:
            values[name] = times.to_sql(value)
        elif value is not None and name in _COUNTS:
            values[name] = json.dumps(value)
    return values


def write(connection: sqlite3.Connection, before: Rows, after: Rows) -> None:
    """Make the tables hold `after`, where they hold `before`; in a transaction of its own.

    Raises StateError if the index cannot be written.
    """
    if before == after:
        return
    gone = before.slaves.keys() - after.slaves.keys()
    with (
        database.wrap_errors("write the live farm to the index"),
        database.transaction(connection),
    ):
        connection.executemany(
            "DELETE FROM slaves WHERE slave_id = ?", [(number,) for number in gone]
        )
        for number, row in after.slaves.items():
            if before.slaves.get(number) != row:
                _insert(connection, "slaves", row)
        if after.master != before.master:
            connection.execute("DELETE FROM masters")
            if after.master is not None:
                _insert(connection, "masters", after.master)


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> None:
    marks = ", ".join("?" * len(row))
    sql = f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})"
    connection.execute(sql, tuple(row.values()))


def clear(connection: sqlite3.Connection) -> None:
    """Empty the tables: there is no feed any more.

    Raises StateError if the index cannot be written.
    """
    write(connection, read(connection), NO_ROWS)


def read(connection: sqlite3.Connection) -> Rows:
    """What the tables hold; raises StateError if the index cannot be read."""
    with database.wrap_errors("read the live farm from the index"), database.snapshot(connection):
        masters = _select(connection, "masters", ["status_queue", *_MASTER], MasterStats._fields)
        slaves = _select(connection, "slaves", _SLAVE, SlaveStats._fields)
    return Rows(masters[0] if masters else None, {row["slave_id"]: row for row in slaves})


def _select(
    connection: sqlite3.Connection, table: str, columns: list[str], measured: tuple[str, ...]
) -> list[Row]:
    names = [*columns, "stats_at", *measured[1:]]
    selected = connection.execute(f"SELECT {', '.join(names)} FROM {table}")
    return [dict(zip(names, row, strict=True)) for row in selected]


def pictures(
    rows: Rows, status_queue: str
) -> tuple[MasterPicture | None, tuple[SlavePicture, ...]]:
    """What rows say of the feed at `status_queue`; nothing if they are another feed's."""
    if rows.master is None or rows.master["status_queue"] != status_queue:
        return None, ()
    return (
        MasterPicture(**_fields(rows.master, _MASTER, MasterStats)),
        tuple(SlavePicture(**_fields(row, _SLAVE, SlaveStats)) for row in rows.slaves.values()),
    )


def _fields(row: Row, columns: list[str], measured: type[MasterStats | SlaveStats]) -> Row:
    values = dict(row)
    for name, value in values.items():
        if value is not None and name in _TIMES:
            values[name] = times.from_sql(value)
        elif value is not None and name in _COUNTS:
            values[name] = json.loads(value)
        elif name == "since_exact":
            values[name] = bool(value)
    revision = values["board_revision"]
    stats = {"at": values["stats_at"], **{name: values[name] for name in measured._fields[1:]}}
    return {
        **{name: values[name] for name in columns},
        "board": None if revision is None else view.board(revision),
        "stats": None if stats["at"] is None else measured(**stats),
        "alerts": (),
    }
