"""The one place that opens a database: settings, migrations, and what is refused."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlite_utils import Database, Migrations

from . import directories
from .errors import NewerDatabaseError, StateError

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables came with it."""


def open_writer(
    path: Path,
    migrations: Migrations,
    application_id: int,
    *,
    synchronous: str,
    cache_kib: int = 16 * 1024,
) -> sqlite3.Connection:
    """Open (or create) a database to write, with its schema brought up to date.

    Args:
        path: of the file.
        migrations: the schema.
        application_id: that tells our databases from others.
        synchronous: `FULL` (every commit is on the disk) or `NORMAL` (only checkpoints are).
        cache_kib: size of the page cache, KiB.

    Raises:
        NewerDatabaseError: if a newer version of the program made it.
        StateError: if it cannot be opened, or is no database of ours.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StateError(
            f"open {path}",
            f"SQLite {sqlite3.sqlite_version} is too old",
            "install a Python whose SQLite is 3.37 or newer",
        )
    with explained(f"open {path}"):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            found = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if found != application_id and tables:
                raise StateError(
                    f"open {path}", "it is a database of another program", _move_aside(path)
                )
            refuse_newer(connection, path, migrations)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            database = Database(connection)
            if migrations.pending(database):
                migrations.apply(database)
        except BaseException:
            connection.close()
            raise
    return connection


def roll_back(path: Path) -> None:
    """Undo what a crash left half done; whoever only reads a database cannot."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()


def open_reader(
    path: Path, migrations: Migrations | None = None, *, cache_kib: int = 4 * 1024
) -> sqlite3.Connection:
    """Open a database to read only; it can neither write nor checkpoint.

    Args:
        path: of the file.
        migrations: the schema that whoever reads it knows.
        cache_kib: size of the page cache, KiB.

    Raises:
        NewerDatabaseError: if it has migrations besides those.
        StateError: if it is not there or cannot be opened.
    """
    with explained(f"read {path}"):
        if not path.exists():
            raise StateError(f"read {path}", "it does not exist", "run the indexer first")
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if migrations is not None:
                refuse_newer(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
    return connection


def open_in_memory(migrations: Migrations) -> sqlite3.Connection:
    """An empty database that is gone when it is closed."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    migrations.apply(Database(connection))
    return connection


def refuse_newer(connection: sqlite3.Connection, path: Path, migrations: Migrations) -> None:
    """Refuse a database with migrations that this version does not know.

    Raises:
        NewerDatabaseError: if there are any.
    """
    database = Database(connection)
    known = {migration.name for migration in migrations.pending(database)}
    known |= {migration.name for migration in migrations._migrations}
    unknown = [one.name for one in migrations.applied(database) if one.name not in known]
    if unknown:
        raise NewerDatabaseError(
            f"open {path}",
            f"a newer piw-indexer made it (it has {', '.join(unknown)}, unknown here)",
            "install that version again, or a newer one",
        )


@contextmanager
def explained(operation: str, kind: type[StateError] = StateError) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a `StateError` that says what was being done."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        remedy = _REMEDIES.get(code, _LOOK)
        raise kind(operation, error, remedy, passing=code in _PASSING) from error
    except OSError as error:
        code = _SQLITE_CODES.get(error.errno or 0, 0)
        remedy = _REMEDIES.get(code, _LOOK)
        cause = error.strerror or error
        raise kind(operation, cause, remedy, passing=code in _PASSING) from error


_LOOK = "look at the cause, then start again; nothing that was journaled is lost"
_OWNER = "check that the directory exists and belongs to the user that runs piw-indexer"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some disk space; nothing that was journaled is lost",
    sqlite3.SQLITE_IOERR: "look at the disk (dmesg); nothing that was journaled is lost",
    sqlite3.SQLITE_CANTOPEN: _OWNER,
    sqlite3.SQLITE_PERM: _OWNER,
    sqlite3.SQLITE_READONLY: _OWNER,
    sqlite3.SQLITE_CORRUPT: "run `piw-indexer check` to see what is damaged",
    sqlite3.SQLITE_NOTADB: "run `piw-indexer check` to see what is damaged",
}
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}
_SQLITE_CODES = {
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.ENOENT: sqlite3.SQLITE_CANTOPEN,
}


def _move_aside(path: Path) -> str:
    return f"move {path} away, or choose another --state-dir"


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Everything inside is committed together, or nothing is."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Everything read inside is of one moment."""
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def copy(source: Path, target: Path) -> None:
    """Copy a database as it stands at one moment: compact, durable, without a log beside it.

    It may be written meanwhile; nothing but `target` is written here.

    Raises:
        StateError: if it cannot be read or the copy cannot be written.
    """
    with explained(f"copy {source} to {target}"):
        remove(target)
        connection = open_reader(source)
        try:
            # Its copy is a write, too; the file itself stays open to be read only.
            connection.execute("PRAGMA query_only = OFF")
            connection.execute("VACUUM INTO ?", (str(target.resolve()),))
        finally:
            connection.close()
        sync_file(target)  # SQLite does not


def remove(path: Path) -> None:
    """Remove a database with its write-ahead log, the file itself first.

    A log that outlived its database would be read into the next one of that name.

    Raises:
        StateError: if it cannot be removed.
    """
    with explained(f"remove {path}"):
        for suffix in ("", "-wal", "-shm", "-journal"):
            try:
                os.unlink(f"{path}{suffix}")
            except FileNotFoundError:
                pass
        directories.sync(path.parent)


def sync_directory(path: Path) -> None:
    """Make the entries of a directory durable."""
    directories.sync(path)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
