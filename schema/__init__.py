"""The shapes of what is stored and sent: tables, messages, documents."""

from __future__ import annotations

from typing import NamedTuple


class Schema(NamedTuple):
    """What a database holds, as the scripts that make it.

    Attributes:
        name: of the set of migrations, for sqlite-utils.
        application_id: what `PRAGMA application_id` says of such a database.
        migrations: the SQL of each, by name, in the order in which they are applied. A statement
            ends with a semicolon at the end of a line.
    """

    name: str
    application_id: int
    migrations: dict[str, str]
