"""The one class that executes database requests, on SQLite instead of PostgreSQL."""

from __future__ import annotations

import inspect
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from ..states import BuildState, DownloadState

_LAYOUT = """
CREATE TABLE IF NOT EXISTS build_abis (abi_tag PRIMARY KEY, skip NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS preinstalled_apt_packages (abi_tag, apt_package);
CREATE TABLE IF NOT EXISTS packages (package PRIMARY KEY, skip, description);
CREATE TABLE IF NOT EXISTS package_names (
    name PRIMARY KEY, package REFERENCES packages ON DELETE CASCADE, seen);
CREATE TABLE IF NOT EXISTS versions (
    package REFERENCES packages ON DELETE CASCADE, version, released, skip,
    yanked DEFAULT 0, PRIMARY KEY (package, version));
CREATE TABLE IF NOT EXISTS builds (
    build_id INTEGER PRIMARY KEY AUTOINCREMENT, package, version, abi_tag, status,
    FOREIGN KEY (package, version) REFERENCES versions ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS files (
    filename PRIMARY KEY, build_id REFERENCES builds ON DELETE CASCADE,
    location NOT NULL DEFAULT '/simple');
CREATE TABLE IF NOT EXISTS downloads (filename, host, accessed_at);
-- Who committed when; the real one has nothing like it.
CREATE TABLE IF NOT EXISTS commits (number INTEGER PRIMARY KEY, message, package, detail);
"""


class IntegrityError(Exception):
    """The database refuses a change."""


class Connection:
    """As much of SQLAlchemy's as is used."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=60
        )
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("PRAGMA synchronous = OFF")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def begin(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        if Database.dawdle:
            # Those who committed after us may be done before us.
            time.sleep(random.random() * Database.dawdle)

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.IntegrityError as error:
            raise IntegrityError(str(error)) from error

    def exec_driver_sql(self, sql: str, execution_options: dict[str, Any]) -> sqlite3.Cursor:
        return self.execute(sql)

    def close(self) -> None:
        self._connection.close()


class Engine:
    """As much of SQLAlchemy's as is used."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self) -> Connection:
        return Connection(self._path)


def rpc(message: str, data_to_args: Callable[[Any], Any] | None = None) -> Any:
    """Marks a method as the one that executes a request."""

    def mark(method: Any) -> Any:
        one = len(inspect.signature(method).parameters) == 2
        method.message = message
        method.data_to_args = data_to_args or ((lambda data: (data,)) if one else tuple)
        method.args_to_data = list
        return method

    return mark


class Database:
    """Executes requests."""

    engines: dict[str, Engine] = {}  # noqa: RUF012 - as the real one has it
    dawdle = 0.0

    def __init__(self, dsn: str) -> None:
        engine = Database.engines.setdefault(dsn, Engine(dsn))
        self._conn = engine.connect()
        self._conn._connection.executescript(_LAYOUT)

    def close(self) -> None:
        self._conn.close()

    def _note(self, message: str, package: str, detail: Any = None) -> None:
        self._conn.execute(
            "INSERT INTO commits (message, package, detail) VALUES (?, ?, ?)",
            (message, package, detail),
        )

    def _changed(self, message: str, package: str, sql: str, *parameters: Any) -> bool:
        with self._conn.begin():
            changed = self._conn.execute(sql, parameters).rowcount > 0
            if changed:
                self._note(message, package, str(parameters))
            return changed

    @rpc("NEWPKG")
    def add_new_package(self, package, skip="", description=""):  # type: ignore[no-untyped-def]
        return self._changed(
            "NEWPKG",
            package,
            "INSERT OR IGNORE INTO packages VALUES (?, ?, ?)",
            package,
            skip,
            description,
        )

    @rpc("NEWVER")
    def add_new_package_version(  # type: ignore[no-untyped-def]
        self, package, version, released=None, skip=""
    ):
        with self._conn.begin():
            known = self._conn.execute(
                "SELECT 1 FROM versions WHERE package = ? AND version = ?", (package, version)
            ).fetchone()
            if known:
                return False
            when = released or datetime.now(tz=UTC)
            self._conn.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?, 0)",
                (package, version, when.isoformat(), skip),
            )
            self._note("NEWVER", package, version)
            return True

    @rpc("NEWPKGNAME")
    def add_package_name(self, package, name, seen=None):  # type: ignore[no-untyped-def]
        when = seen or datetime(1970, 1, 1, tzinfo=UTC)
        self._changed(
            "NEWPKGNAME",
            package,
            "INSERT INTO package_names VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET seen = excluded.seen",
            name,
            package,
            when.isoformat(),
        )

    @rpc("SETDESC")
    def set_package_description(self, package, description):  # type: ignore[no-untyped-def]
        self._changed(
            "SETDESC",
            package,
            "UPDATE packages SET description = ? WHERE package = ?",
            description,
            package,
        )

    @rpc("SKIPPKG")
    def skip_package(self, package, reason):  # type: ignore[no-untyped-def]
        self._changed(
            "SKIPPKG", package, "UPDATE packages SET skip = ? WHERE package = ?", reason, package
        )

    def _version(self, message: str, change: str, *parameters: Any) -> None:
        self._changed(
            message,
            parameters[-2],
            f"UPDATE versions SET {change} WHERE package = ? AND version = ?",
            *parameters,
        )

    @rpc("SKIPVER")
    def skip_package_version(self, package, version, reason):  # type: ignore[no-untyped-def]
        self._version("SKIPVER", "skip = ?", reason, package, version)

    @rpc("YANKVER")
    def yank_version(self, package, version):  # type: ignore[no-untyped-def]
        self._version("YANKVER", "yanked = 1", package, version)

    @rpc("UNYANKVER")
    def unyank_version(self, package, version):  # type: ignore[no-untyped-def]
        self._version("UNYANKVER", "yanked = 0", package, version)

    @rpc("DELPKG")
    def delete_package(self, package):  # type: ignore[no-untyped-def]
        self._changed("DELPKG", package, "DELETE FROM packages WHERE package = ?", package)

    @rpc("DELVER")
    def delete_version(self, package, version):  # type: ignore[no-untyped-def]
        self._changed(
            "DELVER",
            package,
            "DELETE FROM versions WHERE package = ? AND version = ?",
            package,
            version,
        )

    @rpc("DELBUILD")
    def delete_build(self, package, version):  # type: ignore[no-untyped-def]
        self._changed(
            "DELBUILD",
            package,
            "DELETE FROM builds WHERE package = ? AND version = ?",
            package,
            version,
        )

    @rpc("LOGBUILD", lambda data: (BuildState.from_message(data),))
    def log_build(self, build):  # type: ignore[no-untyped-def]
        with self._conn.begin():
            build_id = self._conn.execute(
                "INSERT INTO builds (package, version, abi_tag, status) VALUES (?, ?, ?, ?)",
                (build.package, build.version, build.abi_tag, build.status),
            ).lastrowid
            for filename in build.files:
                self._conn.execute(
                    "REPLACE INTO files (filename, build_id) VALUES (?, ?)", (filename, build_id)
                )
            self._note("LOGBUILD", build.package, build_id)
            build.logged(build_id)
            return build_id

    @rpc("LOGDOWNLOAD", lambda data: (DownloadState.from_message(data),))
    def log_download(self, download):  # type: ignore[no-untyped-def]
        if not download.host[0].isdigit():
            raise IntegrityError(f"{download.host} is not an address")
        with self._conn.begin():
            self._conn.execute(
                "INSERT INTO downloads VALUES (?, ?, ?)",
                (download.filename, download.host, download.timestamp.isoformat()),
            )

    @rpc("ALLPKGS", lambda data: ())
    def get_all_packages(self):  # type: ignore[no-untyped-def]
        with self._conn.begin():
            return {row[0] for row in self._conn.execute("SELECT package FROM packages")}

    def get_build_queue(self, limit=1000):  # type: ignore[no-untyped-def]
        return {}
