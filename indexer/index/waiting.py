"""How many versions wait to be built on each ABI, counted as documents are written.

What a count costs is in proportion to what has changed; the sums are kept, not made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

Waiting = Mapping[str, int]
"""How many versions of a package wait, by ABI; those of which none waits are left out."""


def note(
    connection: sqlite3.Connection, names: Iterable[str], waiting: Mapping[str, Waiting]
) -> None:
    """Note what the documents say that were written; in a transaction.

    Args:
        connection: of the index.
        names: whose documents were written, or removed.
        waiting: of those of which anything waits.
    """
    for name in names:
        now = waiting.get(name, {})
        before = dict(
            connection.execute(
                "SELECT abi_tag, versions FROM packages_waiting WHERE package = ?", (name,)
            ).fetchall()
        )
        if now == before:
            continue
        connection.execute("DELETE FROM packages_waiting WHERE package = ?", (name,))
        connection.executemany(
            "INSERT INTO packages_waiting VALUES (?, ?, ?)",
            [(name, abi_tag, versions) for abi_tag, versions in now.items()],
        )
        connection.executemany(
            "INSERT INTO waiting VALUES (?, ?)"
            " ON CONFLICT (abi_tag) DO UPDATE SET versions = versions + excluded.versions",
            [
                (abi_tag, now.get(abi_tag, 0) - before.get(abi_tag, 0))
                for abi_tag in now.keys() | before.keys()
            ],
        )


def totals(connection: sqlite3.Connection) -> dict[str, int]:
    """How many versions wait, by ABI."""
    return dict(connection.execute("SELECT abi_tag, versions FROM waiting").fetchall())
