"""The only place that opens databases: settings, migrations, and what is refused."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from . import directories, disk, filesystem, network
from .errors import ForeignFileError, NewerDatabaseError, StateError, UnfinishedError

OLDEST_SQLITE = (3, 37, 0)
"""STRICT tables came with it."""

LOG_PAGES = 4000
"""Pages of 4 KiB at which a write-ahead log is merged into the database..."""

LOW_SPACE_LOG_PAGES = 250
"""...and where disk space is short."""

BUSY_TIMEOUT = 5000
"""Milliseconds to wait for another connection."""

DERIVED = "index.db"
"""The name of the database that can be made again from the journal."""

_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""The files of a database: itself, and those that SQLite may put beside it."""


class Schema(NamedTuple):
    """What a database holds, as the scripts that make it.

    Attributes:
        name: of the set of migrations, for sqlite-utils.
        application_id: the value of `PRAGMA application_id`.
        migrations: the SQL of each, by name, in order. A statement ends with a semicolon at the end
            of a line.
    """

    name: str
    application_id: int
    migrations: dict[str, str]


def open_writer(
    path: Path,
    schema: Schema,
    *,
    synchronous: str,
    cache_kib: int = 16 * 1024,
) -> sqlite3.Connection:
    """Open a database for writing; make it if it is missing, and migrate it.

    Args:
        synchronous: `FULL` (every commit is on the disk) or `NORMAL` (only checkpoints are).
        cache_kib: size of the page cache, KiB.

    Raises:
        NewerDatabaseError: if a newer version of the program made it.
        StateError: if it cannot be opened, belongs to another program, or is on a network file
            system.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StateError(
            f"open {path}",
            f"SQLite {sqlite3.sqlite_version} is too old",
            "install a Python whose SQLite is 3.37 or newer",
        )
    network.refuse(path.parent)
    with wrap_errors(f"open {path}", beside=path.parent):
        _refuse_others_files(path, {0, os.geteuid()})
        if not os.path.lexists(path):
            os.close(filesystem.create(path))  # SQLite's own would have the mode of the umask
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
            if application_id != schema.application_id and has_tables(connection):
                raise StateError(
                    f"open {path}", "it is a database of another program", _move_aside(path)
                )
            refuse_newer(connection, path, schema)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            # Otherwise a log that a reader made large keeps its size.
            connection.execute(f"PRAGMA journal_size_limit = {LOG_PAGES * 4096}")
            _migrate(connection, schema)
            _refuse_read_only(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def _refuse_others_files(path: Path, owners: set[int]) -> None:
    """Refuse a database if one of its files is a link, or belongs to another user.

    The files are not opened: closing them would drop the locks of other connections.

    Raises ForeignFileError if so.
    """
    for name in (f"{path}{suffix}" for suffix in _SUFFIXES):
        try:
            status = os.lstat(name)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise ForeignFileError(
                f"open {name}", filesystem.NOT_REGULAR, "see who put it there, and move it away"
            )
        if status.st_uid not in owners:
            raise ForeignFileError(
                f"open {name}",
                f"it belongs to another user (uid {status.st_uid})",
                "see who put it there; our own files belong to the user that runs piw-indexer",
            )


def _refuse_read_only(connection: sqlite3.Connection) -> None:
    """Fail if nothing can be written.

    Without permission, SQLite silently opens a file read-only, and that stays so when the
    permission comes back. `BEGIN IMMEDIATE` does not fail, either.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {version}")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def has_tables(connection: sqlite3.Connection) -> bool:
    """True if a database is not empty."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """True if a table has a column; a database that is only read may not be migrated."""
    rows = connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table, column))
    return rows.fetchone() is not None


def roll_back(path: Path) -> None:
    """Undo what a crash left half done, which readers cannot."""
    _refuse_others_files(path, {0, os.geteuid()})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def open_reader(
    path: Path, schema: Schema | None = None, *, cache_kib: int = 4 * 1024
) -> sqlite3.Connection:
    """Open a database for reading; the connection can neither write nor checkpoint.

    Args:
        schema: what the reader knows.
        cache_kib: size of the page cache, KiB.

    Raises:
        NewerDatabaseError: if the database has other migrations.
        UnfinishedError: if a process was killed while it wrote to it.
        StateError: if it is missing or cannot be opened.
    """
    with wrap_errors(f"read {path}"), _by_its_user(path):
        if not os.path.lexists(path):
            raise StateError(f"read {path}", "it does not exist", "run the indexer first")
        # A reader may be another user than the owner of the state.
        _refuse_others_files(path, {0, os.geteuid(), os.stat(path.parent).st_uid})
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if schema is not None:
                refuse_newer(connection, path, schema)
        except BaseException:
            connection.close()
            raise
    return connection


def open_in_memory(schema: Schema) -> sqlite3.Connection:
    """An empty database in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    _migrate(connection, schema)
    return connection


@contextmanager
def _by_its_user(path: Path) -> Iterator[None]:
    """Explain that reading needs permission to write, because SQLite makes files for it."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or os.access(
            path.parent, os.W_OK | os.X_OK
        ):
            raise
        raise StateError(
            f"read {path}",
            f"{error}: SQLite must make files beside it, but we may not write to {path.parent}",
            "run this as the user that runs piw-indexer (sudo -u), or start the daemon",
        ) from error


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table of that name."""
    rows = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,))
    return rows.fetchone() is not None


def _applied(connection: sqlite3.Connection, schema: Schema) -> set[str]:
    """The names of the migrations of a database, from the table of sqlite-utils."""
    if not has_table(connection, "_sqlite_migrations"):
        return set()
    rows = connection.execute(
        "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (schema.name,)
    )
    return {name for (name,) in rows}


def _migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    if _applied(connection, schema).issuperset(schema.migrations):
        return
    # Only here: its import takes longer than the rest of a short command.
    from sqlite_utils import Database, Migrations

    migrations = Migrations(schema.name)
    for name, script in schema.migrations.items():

        def execute(database: Database, script: str = script) -> None:
            # `executescript` would commit the migration's own transaction.
            for statement in filter(None, map(str.strip, script.split(";\n"))):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {schema.application_id}")

        migrations(name=name)(execute)
    migrations.apply(Database(connection))


def refuse_newer(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Refuse a database with migrations that this version does not know.

    Raises NewerDatabaseError if there are any.
    """
    unknown = sorted(_applied(connection, schema) - schema.migrations.keys())
    if unknown:
        raise NewerDatabaseError(
            f"open {path}",
            f"a newer piw-indexer made it (it has {', '.join(unknown)}, unknown here)",
            "install that version again, or a newer one; or "
            + (
                f"stop the daemon and `rm {path}*`: the next start makes it again from the journal"
                if path.name == DERIVED
                else "restore a backup from before it"
            ),
        )


@contextmanager
def wrap_errors(
    operation: str,
    kind: type[StateError] = StateError,
    *,
    beside: Path | sqlite3.Connection | None = None,
) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a `StateError` that says what was being done.

    Args:
        beside: the directory or database that is written, to find the cause.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _HALF_DONE and beside is None:
            raise UnfinishedError(operation, _LEFT, _PUT_IN_ORDER) from error
        fault = 0
        if code & 0xFF in _VAGUE and beside is not None:
            fault = disk.fault(beside if isinstance(beside, Path) else _directory(beside))
        cause = f"{error} ({os.strerror(fault)})" if fault else error
        raise kind(
            operation, cause, _remedy(code & 0xFF, fault), transient=code & 0xFF in _TRANSIENT
        ) from error
    except OSError as error:
        number = error.errno or 0
        raise kind(
            operation,
            error.strerror or error,
            _remedy(0, number),
            transient=number in _TRANSIENT_ERRNOS,
        ) from error


def _directory(connection: sqlite3.Connection) -> Path:
    rows = connection.execute("PRAGMA database_list").fetchall()
    return Path(next(file for _, name, file in rows if name == "main")).parent


def _remedy(code: int, number: int) -> str:
    """What to do about an error of SQLite, or of the system if there is one."""
    of_the_disk = disk.remedy(number)
    if of_the_disk:
        return f"{of_the_disk}; {_SAFE}"
    return _OWNER if number in _OWNERSHIP else _REMEDIES.get(code, _LOOK)


_SAFE = "nothing that was journaled is lost"
_LOOK = f"look at the cause, then start again; {_SAFE}"
_OWNER = "check that the directory exists and belongs to the user that runs piw-indexer"
_OWNERSHIP = (errno.EACCES, errno.EPERM, errno.ENOENT)
_REMEDIES = {
    sqlite3.SQLITE_FULL: f"{disk.remedy(errno.ENOSPC)}; {_SAFE}",
    sqlite3.SQLITE_IOERR: f"look at the disk (dmesg) and at the user's quota (quota -s); {_SAFE}",
    sqlite3.SQLITE_CANTOPEN: _OWNER,
    sqlite3.SQLITE_PERM: _OWNER,
    sqlite3.SQLITE_READONLY: _OWNER,
    sqlite3.SQLITE_BUSY: f"see who else writes to it (fuser); sqlite3 -readonly does not; {_SAFE}",
    sqlite3.SQLITE_CORRUPT: "run `piw-indexer check` to see what is damaged",
    sqlite3.SQLITE_NOTADB: "run `piw-indexer check` to see what is damaged",
}
_VAGUE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}
"""Errors of SQLite that may have several causes, with different remedies."""

_TRANSIENT = {*_VAGUE, sqlite3.SQLITE_BUSY}
_TRANSIENT_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOENT}

_HALF_DONE = {
    sqlite3.SQLITE_READONLY_ROLLBACK,
    sqlite3.SQLITE_READONLY_RECOVERY,
    sqlite3.SQLITE_READONLY_CANTINIT,
    sqlite3.SQLITE_READONLY_CANTLOCK,
}
_LEFT = "a process was killed while it wrote to it, and whoever only reads cannot put that in order"
_PUT_IN_ORDER = (
    "start the daemon, or run `piw-indexer write` as its user: whoever opens it to write puts it"
    " in order; nothing is lost"
)


def _move_aside(path: Path) -> str:
    return f"move {path} away, or choose another --state-dir"


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit everything inside together, or nothing."""
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
    """Read everything inside as of one moment."""
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def truncate_wal(connection: sqlite3.Connection) -> None:
    """Merge the write-ahead log of a database into its file, and empty it.

    Raises:
        sqlite3.Error: if that fails, or another connection still reads the log.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another connection is reading its write-ahead log")


def cut_wal(connection: sqlite3.Connection, timeout: int = 200) -> bool:
    """Merge and empty the write-ahead log of a database if that is possible now.

    Args:
        timeout: milliseconds to wait for those who read it.

    Returns:
        Whether it was. If not, SQLite tries again when the log has grown.
    """
    connection.execute(f"PRAGMA busy_timeout = {timeout}")
    try:
        truncate_wal(connection)
    except sqlite3.Error:
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
    return True


def limit_wal(connection: sqlite3.Connection, low_on_space: bool) -> None:
    """Keep the write-ahead log small from now on, or no longer.

    It is emptied at once, unless another connection reads it or there is no space for that.
    """
    pages = LOW_SPACE_LOG_PAGES if low_on_space else LOG_PAGES
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
    if low_on_space:
        cut_wal(connection, 0)


def copy(source: Path, target: Path) -> None:
    """Copy a database as of one moment; the copy is compact, durable and has no log.

    Others may write to the database meanwhile. Only `target` is written here.

    Raises StateError if it cannot be read, or the copy cannot be written.
    """
    with wrap_errors(f"copy {source} to {target}"):
        remove(target)
        with closing(open_reader(source)) as connection:
            # SQLite's own would have the mode of the umask.
            mode = filesystem.STATE_FILE & source.stat().st_mode
            os.close(filesystem.create(target, mode))
            # VACUUM INTO counts as a write; the source itself is still opened read-only.
            connection.execute("PRAGMA query_only = OFF")
            # A URI, because SQLite does not accept every path as text.
            connection.execute("VACUUM INTO ?", (target.absolute().as_uri(),))
        sync_file(target)  # SQLite does not


def remove(path: Path) -> None:
    """Remove a database with its write-ahead log; the file itself first.

    A log without its database would be merged into the next database of that name.

    Raises StateError if it cannot be removed.
    """
    with wrap_errors(f"remove {path}"):
        for suffix in _SUFFIXES:
            try:
                os.unlink(f"{path}{suffix}")
            except FileNotFoundError:
                pass
        directories.sync(path.parent)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = filesystem.open_regular(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
