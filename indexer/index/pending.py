"""Which names must be written again, and up to which serial; when is the writer's business."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping


def mark(connection: sqlite3.Connection, touched: Mapping[str, int]) -> None:
    """Mark names as touched by the message of a serial.

    Args:
        connection: of the index, in a transaction.
        touched: serial by name.
    """
    connection.executemany(
        "INSERT INTO rewrites_pending VALUES (?, ?)"
        " ON CONFLICT (package) DO UPDATE SET serial = max(serial, excluded.serial)",
        touched.items(),
    )


def mark_all(connection: sqlite3.Connection, serial: int) -> None:
    """Mark every package as touched by the message of `serial`."""
    connection.execute(
        "INSERT INTO rewrites_pending SELECT package, ? FROM packages WHERE true"
        " ON CONFLICT (package) DO UPDATE SET serial = max(serial, excluded.serial)",
        (serial,),
    )


def clear(connection: sqlite3.Connection, written: Iterable[tuple[str, int]]) -> None:
    """Clear the marks of names whose documents are safe on the disk.

    Args:
        connection: of the index, in a transaction.
        written: the name, and the serial up to which its document was rendered.
    """
    connection.executemany(
        "DELETE FROM rewrites_pending WHERE package = ? AND serial <= ?", written
    )


def marked(
    connection: sqlite3.Connection, after: tuple[int, str], limit: int
) -> list[tuple[str, int]]:
    """Up to `limit` marks, (name, serial), that come after the mark (serial, name) `after`.

    In the order of their serials, then names.
    """
    return connection.execute(
        "SELECT package, serial FROM rewrites_pending WHERE (serial, package) > (?, ?)"
        " ORDER BY serial, package LIMIT ?",
        (*after, limit),
    ).fetchall()


def names(connection: sqlite3.Connection) -> Iterable[str]:
    """All marked names, by name."""
    return (row[0] for row in connection.execute("SELECT package FROM rewrites_pending ORDER BY 1"))


def count(connection: sqlite3.Connection) -> int:
    """How many names are marked."""
    return int(connection.execute("SELECT count(*) FROM rewrites_pending").fetchone()[0])


def oldest(connection: sqlite3.Connection) -> int | None:
    """The lowest serial of a mark; None if nothing is marked."""
    found: int | None = connection.execute("SELECT min(serial) FROM rewrites_pending").fetchone()[0]
    return found
