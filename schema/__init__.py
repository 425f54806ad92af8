"""The shapes of what is stored and sent: tables, messages, documents."""

from __future__ import annotations

from pathlib import Path


def scripts(database: str) -> dict[str, str]:
    """The migrations of a database, in order, by name: DATABASE-NUMBER-NAME.sql beside this file.

    A statement ends with a semicolon at the end of a line. A script that was released never
    changes: a new one changes what it made.
    """
    found = sorted(Path(__file__).parent.glob(f"{database}-*.sql"))
    return {path.stem.removeprefix(f"{database}-"): path.read_text("utf-8") for path in found}
