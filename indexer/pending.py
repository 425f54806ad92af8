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


def marked(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[str, int]]:
    """Up to about `limit` (name, serial) marks with a serial above `after`, in their order.

    All marks of a serial come together, so that the next call can go on after it.
    """
    row = connection.execute(
        "SELECT serial FROM rewrites_pending WHERE serial > ? ORDER BY serial LIMIT 1 OFFSET ?",
        (after, limit),
    ).fetchone()
    return connection.execute(
        "SELECT package, serial FROM rewrites_pending WHERE serial > ? AND serial <= ?"
        " ORDER BY serial",
        (after, row[0] if row else 2**63 - 1),
    ).fetchall()


def names(connection: sqlite3.Connection) -> Iterable[str]:
    """All marked names, by name."""
    return (row[0] for row in connection.execute("SELECT package FROM rewrites_pending ORDER BY 1"))


def count(connection: sqlite3.Connection) -> int:
    """How many names are marked."""
    return int(connection.execute("SELECT count(*) FROM rewrites_pending").fetchone()[0])
