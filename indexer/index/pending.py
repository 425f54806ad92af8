"""What must be rewritten: marked names, and for each kind of document the version last written.

The writer decides when.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping

from . import queries


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
        written: names, each with the serial up to which its document was rendered.
    """
    connection.executemany(
        "DELETE FROM rewrites_pending WHERE package = ? AND serial <= ?", written
    )


def marked(
    connection: sqlite3.Connection, after: tuple[int, str], limit: int
) -> list[tuple[str, int]]:
    """Up to `limit` marks (name, serial) after the mark `after` (serial, name).

    They are sorted by serial, then by name.
    """
    return connection.execute(
        "SELECT package, serial FROM rewrites_pending WHERE (serial, package) > (?, ?)"
        " ORDER BY serial, package LIMIT ?",
        (*after, limit),
    ).fetchall()


def serial(connection: sqlite3.Connection, name: str) -> int | None:
    """The serial of the mark of a name; None if it is not marked."""
    row = connection.execute(
        "SELECT serial FROM rewrites_pending WHERE package = ?", (name,)
    ).fetchone()
    return None if row is None else int(row[0])


def among(connection: sqlite3.Connection, some: Collection[str]) -> set[str]:
    """Which of some names are marked."""
    marks = ",".join("?" * len(some))
    rows = connection.execute(
        f"SELECT package FROM rewrites_pending WHERE package IN ({marks})", [*some]
    )
    return {row[0] for row in rows}


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


# Kinds of documents that no mark of a package marks


def written(connection: sqlite3.Connection, kind: str) -> str | None:
    """The version for which the documents of a kind were last written; None if they never were."""
    found = queries.get(connection, f"{kind}_written", None)
    return None if found is None else str(found)


def note_written(connection: sqlite3.Connection, kind: str, version: str) -> None:
    """Note that the documents of a kind are safe on the disk; in a transaction."""
    queries.put(connection, f"{kind}_written", version)


def forget_written(connection: sqlite3.Connection, kind: str = "*") -> None:
    """Let the documents of one kind or of all kinds be written again; in a transaction."""
    connection.execute("DELETE FROM state WHERE key GLOB ?", (f"{kind}_written",))
