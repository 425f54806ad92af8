"""The rows of the index that several messages change, and the names that this touches.

What is missing above a row is created; what goes takes all below it along, except the earlier
contents of files.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from ..base import times
from . import downloads
from .files import BuiltFiles

_INSERT_BUILD = "INSERT INTO builds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Rows:
    """Packages, versions and builds, inside of the transaction that applies a batch.

    Args:
        connection: of the index; nobody else writes it.

    Attributes:
        touched: the names that must be rewritten, and the serial of the last message that touched
            each.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.touched: dict[str, int] = {}
        self.counters = downloads.Counters(connection)
        self.files = BuiltFiles(connection, self.touched)

    def begin(self) -> None:
        """A new batch: what is remembered of the index may have been rolled back."""
        self.touched.clear()
        self.counters.begin()
        self.files.begin()

    def add_package(self, serial: int, package: str, skip: str = "", summary: str = "") -> bool:
        """Add a package, unless it exists; whether it was added."""
        added = self.execute(
            "INSERT OR IGNORE INTO packages VALUES (?, ?, ?)", (package, skip, summary)
        ).rowcount
        if added:
            self.counters.list_package(package, True)
            self.touched[package] = serial
        return bool(added)

    def forget_names(self, serial: int, package: str) -> None:
        """Remove the spellings of a package's name; the writer removes their links."""
        for (name,) in self.execute(
            "DELETE FROM package_names WHERE package = ? RETURNING name", (package,)
        ).fetchall():
            self.touched[name] = serial

    def add_version(
        self, serial: int, package: str, version: str, released: times.Time, skip: str = ""
    ) -> None:
        """Add a version, unless it exists."""
        self.add_package(serial, package)
        if self.execute(
            "INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, 0)",
            (package, version, times.to_sql(released), skip),
        ).rowcount:
            self.touched[package] = serial

    def delete_version(self, serial: int, package: str, version: str) -> None:
        """Delete a version, with its builds and files."""
        self.files.keep_contents("b.package = ? AND b.version = ?", (package, version))
        if self.execute(
            "DELETE FROM versions WHERE package = ? AND version = ?", (package, version)
        ).rowcount:
            self.touched[package] = serial

    def insert_build(self, build: tuple[Any, ...]) -> None:
        """Add a build of a version that exists, and that is new.

        Raises:
            sqlite3.IntegrityError: if one or the other is not so.
        """
        self.execute(_INSERT_BUILD, build)

    def add_build(self, serial: int, build: tuple[Any, ...]) -> None:
        """Add a build of a version that exists; one with its build_id is replaced."""
        try:
            self.execute(_INSERT_BUILD, build)
        except sqlite3.IntegrityError:
            self.files.flush()
            self.files.keep_contents("b.build_id = ?", build[:1])
            for (package,) in self.execute(
                "DELETE FROM builds WHERE build_id = ? RETURNING package", build[:1]
            ).fetchall():
                self.touched[package] = serial
            self.execute(_INSERT_BUILD, build)
        self.touched[build[1]] = serial
