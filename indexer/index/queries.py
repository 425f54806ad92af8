"""Queries to the index: how far it is, and the rows that a document is made of.

The index is derived: whatever is wrong with it, it can be rebuilt from the journal.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database
from ..schema import index as schema

FILE = database.DERIVED
"""Its name in the state directory."""


def open_index(path: Path, *, synchronous: str = "NORMAL") -> sqlite3.Connection:
    """Open the index to write, or make an empty one; the caller holds the lock.

    Raises:
        NewerDatabaseError: if a newer version of the program made it.
        StateError: if it cannot be opened.
    """
    if not path.exists():
        database.remove(path)
    return database.open_writer(
        path,
        schema.SCHEMA,
        synchronous=synchronous,
        cache_kib=32 * 1024,
    )


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the index to read only.

    Raises:
        NewerDatabaseError: if a newer version of the program made it.
        StateError: if it does not exist or cannot be opened.
    """
    connection = database.open_reader(path, schema.SCHEMA)
    try:
        with database.wrap_errors(f"read {path}"):
            _supply(connection)
    except BaseException:
        connection.close()
        raise
    return connection


_SUPPLIED = (
    "CREATE TEMP VIEW builds AS SELECT *, NULL AS failure_category, NULL AS failure_detail"
    " FROM main.builds",
    "CREATE TEMP TABLE file_contents (content_id, filename, filehash, filesize, build_id,"
    " built_at)",
    "CREATE TEMP TABLE pythons_refused (requires_python, abi_tag)",
)


def _supply(connection: sqlite3.Connection) -> None:
    """Give a reader of an index from before what the index does not have yet, empty."""
    if not database.has_table(connection, "builds") or database.has_table(
        connection, "file_contents"
    ):
        return
    connection.execute("PRAGMA query_only = OFF")  # the file itself is open to read only
    connection.execute("PRAGMA temp_store = MEMORY")
    for statement in _SUPPLIED:
        connection.execute(statement)
    connection.execute("PRAGMA query_only = ON")


def open_in_memory() -> sqlite3.Connection:
    """An empty index in memory."""
    return database.open_in_memory(schema.SCHEMA)


def get(connection: sqlite3.Connection, key: str, default: Any) -> Any:
    """A value of the table `state`."""
    row = connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
    return default if row is None else row[0]


def put(connection: sqlite3.Connection, key: str, value: object) -> None:
    """Set a value of the table `state`."""
    connection.execute(
        "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def applied_serial(connection: sqlite3.Connection) -> int:
    """The serial of the last message that is in the index."""
    return int(get(connection, "applied_serial", 0))


def is_outdated(connection: sqlite3.Connection) -> bool:
    """Whether an earlier version, which kept less of the messages, applied some of them."""
    migrated = database.has_table(connection, "file_contents")
    return bool(get(connection, "outdated", 0) if migrated else applied_serial(connection))


class Abis(NamedTuple):
    """The build ABIs, on which every document depends.

    Attributes:
        active: the ABIs that are built for, sorted by name.
        preinstalled: the preinstalled apt packages by ABI.
        fits: how a file's (py_version_tag, abi_tag) fits an ABI; only those that fit.
    """

    active: tuple[str, ...]
    preinstalled: dict[str, frozenset[str]]
    fits: dict[tuple[str, str], dict[str, int]]


def load_abis(connection: sqlite3.Connection) -> Abis:
    """The build ABIs as the index has them."""
    preinstalled: dict[str, set[str]] = {}
    for abi_tag, package in connection.execute("SELECT * FROM preinstalled_apt_packages"):
        preinstalled.setdefault(abi_tag, set()).add(package)
    fits: dict[tuple[str, str], dict[str, int]] = {}
    for python, file_abi, abi_tag, rank in connection.execute(
        "SELECT py_version_tag, file_abi_tag, abi_tag, rank FROM abi_fits WHERE rank IS NOT NULL"
    ):
        fits.setdefault((python, file_abi), {})[abi_tag] = rank
    return Abis(
        tuple(
            row[0]
            for row in connection.execute(
                "SELECT abi_tag FROM build_abis WHERE skip = '' ORDER BY abi_tag"
            )
        ),
        {abi_tag: frozenset(found) for abi_tag, found in preinstalled.items()},
        fits,
    )


class Project(NamedTuple):
    """All rows that a project's document is made of.

    Attributes:
        versions: (version, released, skip, yanked)
        builds: (build_id, version, abi_tag, status, duration, built_at, slave_id,
            failure_category, failure_detail)
        files: (version, builder_abi, duration, built_at, build_id, filename, filesize, filehash,
            py_version_tag, abi_tag, platform_tag, requires_python, location)
        contents: (filename, filehash, filesize, build_id, built_at), what files had before, the
            latest first
        dependencies: (filename, tool, dependency), tools apt and pip
        aliases: every other spelling that is not the name of a package
    """

    package: str
    name: str
    skip: str
    description: str
    versions: list[tuple[str, str, str, int]]
    builds: list[tuple[Any, ...]]
    files: list[tuple[Any, ...]]
    contents: list[tuple[str, str, int, int | None, str | None]]
    dependencies: list[tuple[str, str, str]]
    aliases: list[str]


def load_project(connection: sqlite3.Connection, package: str) -> Project | None:
    """The rows of a package's document; None if there is no such package.

    Call it inside a `database.snapshot`; otherwise its parts may be from different moments.
    """
    execute = connection.execute
    row = execute("SELECT skip, description FROM packages WHERE package = ?", (package,)).fetchone()
    if row is None:
        return None
    skip, description = row
    # The spelling seen last is the display name; of several seen at once, the greatest.
    spellings = [
        found[0]
        for found in execute(
            "SELECT name FROM package_names WHERE package = ? ORDER BY seen DESC, name DESC",
            (package,),
        )
    ]
    aliases = []
    for spelling in spellings:
        if spelling != package and not is_package(connection, spelling):
            aliases.append(spelling)
    versions = execute(
        "SELECT version, released, skip, yanked FROM versions WHERE package = ?", (package,)
    ).fetchall()
    builds: list[Any] = []
    files: list[Any] = []
    contents: list[Any] = []
    dependencies: list[Any] = []
    if versions:
        builds = execute(
            "SELECT build_id, version, abi_tag, status, duration, built_at, built_by,"
            " failure_category, failure_detail FROM builds WHERE package = ?",
            (package,),
        ).fetchall()
    if builds:
        files = execute(
            "SELECT b.version, b.abi_tag, b.duration, b.built_at, f.build_id, f.filename,"
            " f.filesize, f.filehash, f.py_version_tag, f.abi_tag, f.platform_tag,"
            " f.requires_python, f.location FROM builds b JOIN files f ON f.build_id = b.build_id"
            " WHERE b.package = ?",
            (package,),
        ).fetchall()
    if files:
        contents = execute(
            "SELECT c.filename, c.filehash, c.filesize, c.build_id, c.built_at FROM builds b"
            " JOIN files f ON f.build_id = b.build_id"
            " JOIN file_contents c ON c.filename = f.filename AND c.filehash <> f.filehash"
            " WHERE b.package = ? ORDER BY c.content_id DESC",
            (package,),
        ).fetchall()
        dependencies = execute(
            "SELECT d.filename, d.tool, d.dependency FROM builds b"
            " JOIN files f ON f.build_id = b.build_id"
            " JOIN dependencies d ON d.filename = f.filename"
            " WHERE b.package = ? AND d.tool IN ('apt', 'pip')",
            (package,),
        ).fetchall()
    return Project(
        package,
        spellings[0] if spellings else package,
        skip,
        description,
        versions,
        builds,
        files,
        contents,
        dependencies,
        aliases,
    )


def build_ids(connection: sqlite3.Connection, package: str) -> list[int]:
    """The numbers of the builds of a package."""
    rows = connection.execute("SELECT build_id FROM builds WHERE package = ?", (package,))
    return [build_id for (build_id,) in rows]


def is_package(connection: sqlite3.Connection, name: str) -> bool:
    """True if there is a package of that (canonical) name."""
    row = connection.execute("SELECT 1 FROM packages WHERE package = ?", (name,)).fetchone()
    return row is not None


def alias_owner(connection: sqlite3.Connection, name: str) -> str | None:
    """The package that `name` is a spelling of; None if there is none."""
    row = connection.execute("SELECT package FROM package_names WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def counts(connection: sqlite3.Connection) -> sqlite3.Cursor:
    """(package, downloads of the last 30 days, downloads ever) of every package, by name."""
    return connection.execute(
        "SELECT package, downloads_recent, downloads_all FROM download_counts"
        " WHERE listed ORDER BY package"
    )


def downloads(connection: sqlite3.Connection, package: str) -> tuple[int, int]:
    """Downloads of a package in the last 30 days, and ever."""
    row = connection.execute(
        "SELECT downloads_recent, downloads_all FROM download_counts WHERE package = ?", (package,)
    ).fetchone()
    return row or (0, 0)
