"""An index for tests: messages are applied to it, and its tables are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from indexer.base import database
from indexer.documents.kind import Moment
from indexer.documents.project import Project
from indexer.index import downloads, queries
from indexer.index.apply import Applier
from indexer.messages.entries import Row
from indexer.messages.types import Message
from indexer.schema import index as schema

from ..samples import Envelope, decoded

URL = "https://www.piwheels.org"


class Index:
    """An index in a file, with its applier."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = queries.open_index(path)
        self._applier = Applier(self.connection)
        self.serial = 0

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exception: object) -> None:
        self.connection.close()

    def apply(self, *envelopes: Envelope | Message) -> dict[str, int]:
        """Apply messages in one batch; returns the touched names with their serials."""
        rows = []
        for envelope in envelopes:
            self.serial += 1
            message = envelope if isinstance(envelope, Message) else decoded(envelope)
            rows.append(Row(self.serial, message))
        before = dict(self.rows("SELECT package, serial FROM rewrites_pending"))
        self._applier.apply(rows)
        after = dict(self.rows("SELECT package, serial FROM rewrites_pending"))
        assert queries.applied_serial(self.connection) == self.serial
        assert self.rows("PRAGMA foreign_key_check") == []
        return {name: serial for name, serial in after.items() if before.get(name) != serial}

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, values).fetchall()

    def table(self, name: str) -> list[tuple[Any, ...]]:
        return self.rows(f"SELECT * FROM {name} ORDER BY 1, 2")

    def move_window(self, start: int) -> bool:
        with database.transaction(self.connection):
            return downloads.move_window(self.connection, start)

    def counts(self) -> list[tuple[str, int, int]]:
        """The rows of packages.json."""
        return queries.counts(self.connection).fetchall()

    def document(self, package: str) -> bytes | None:
        with database.snapshot(self.connection):
            found = Moment(self.connection, URL, 0).package(package)
            return None if found is None else Project().render(found)


def as_before(path: Path, migrations: int = 2) -> None:
    """Put in the place of an index what an earlier version would have made of the messages.

    Args:
        migrations: how many of them it had.
    """
    older = dict([*schema.SCHEMA.migrations.items()][:migrations])
    old = path.with_name("older.db")
    connection = database.open_writer(
        old, schema.SCHEMA._replace(migrations=older), synchronous="OFF"
    )
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("ATTACH ? AS new", (str(path),))
    tables = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table'"
        " AND name NOT LIKE 'sqlite_%' AND name <> '_sqlite_migrations'"
    ).fetchall()
    for (table,) in tables:
        found = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        columns = ", ".join(name for (name,) in found)
        connection.execute(f"DELETE FROM main.{table}")
        connection.execute(
            f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}"
        )
    # It read tags as they were written.
    connection.execute(
        "UPDATE abi_fits SET rank = NULL WHERE py_version_tag <> lower(py_version_tag)"
        " OR file_abi_tag <> lower(file_abi_tag)"
    )
    connection.execute("DETACH new")
    connection.close()
    database.remove(path)
    old.rename(path)
