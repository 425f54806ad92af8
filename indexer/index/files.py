"""The files of builds: their rows, dependencies and earlier contents, and which ABIs they fit.

Files of consecutive builds are added together, sorted, which is a third faster than adding each
build by itself. Call `flush` before reading or deleting files or builds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ..messages import types as messages
from . import fits

_INSERT = "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

# The first build of a content is the one that counts: it is there when the content comes again.
_KEEP_CONTENTS = """
    INSERT OR IGNORE INTO file_contents (filename, filehash, filesize, build_id, built_at)
    SELECT f.filename, f.filehash, f.filesize, CASE WHEN b.build_id > 0 THEN b.build_id END,
        b.built_at
    FROM builds b JOIN files f ON f.build_id = b.build_id
    WHERE {} ORDER BY f.filename
"""


class BuiltFiles:
    """Adds files to the index, inside the transaction that applies a batch.

    Args:
        touched: the names that must be rewritten, each with the serial of the last message that
            touched it; packages that lose files are added.
    """

    def __init__(self, connection: sqlite3.Connection, touched: dict[str, int]) -> None:
        self._connection = connection
        self._touched = touched
        self._tags: set[tuple[str, str]] = set()
        self._requirements: set[str] = set()
        self._build_abis: list[str] = []
        self._rows: dict[str, tuple[Any, ...]] = {}  # by filename
        self._serials: dict[str, int] = {}
        self._dependencies: list[tuple[str, str, str]] = []

    def begin(self) -> None:
        """Begin a batch: what is remembered of the index may have been rolled back."""
        self._rows.clear()
        self._serials.clear()
        self._dependencies.clear()
        self._requirements.clear()
        execute = self._connection.execute
        self._build_abis = [row[0] for row in execute("SELECT abi_tag FROM build_abis")]
        self._tags = set(
            execute("SELECT DISTINCT py_version_tag, file_abi_tag FROM abi_fits").fetchall()
        )

    def add(self, serial: int, build_id: int, files: Sequence[messages.File]) -> None:
        """Add files to a build; an existing file moves to it, with its new dependencies."""
        if len(files) > 1:
            files = list({file.filename: file for file in files}.values())  # the last one counts
        rows, dependencies = self._rows, self._dependencies
        for file in files:
            filename = file.filename
            if filename in rows:
                self.flush()
            rows[filename] = (filename, build_id, *file[1:9], file[10])
            self._serials[filename] = serial
            if (file.py_version_tag, file.abi_tag) not in self._tags:
                self._add_tags(file.py_version_tag, file.abi_tag)
            if file.requires_python and file.requires_python not in self._requirements:
                self._add_requirement(file.requires_python)
            for tool, names in file.dependencies:
                for name in names:
                    dependencies.append((filename, tool, name))

    def flush(self) -> None:
        """Write to the index what was added so far."""
        if not self._rows:
            return
        rows = sorted(self._rows.values())
        if self._connection.executemany(_INSERT, rows).rowcount < len(rows):
            for row in rows:
                self._move(row)
        # If there are few, the rows of a file lie beside each other anyway.
        self._dependencies.sort()
        self._connection.executemany(
            "INSERT OR IGNORE INTO dependencies VALUES (?, ?, ?)", self._dependencies
        )
        self._rows.clear()
        self._serials.clear()
        self._dependencies.clear()

    def _move(self, row: tuple[Any, ...]) -> None:
        """Move a file from another build to the build in its row."""
        execute = self._connection.execute
        owner = execute(
            "SELECT b.package FROM files f JOIN builds b ON b.build_id = f.build_id"
            " WHERE f.filename = ? AND f.build_id <> ?",
            row[:2],
        ).fetchone()
        if owner is not None:
            serial = self._serials[row[0]]
            self._touched[owner[0]] = max(serial, self._touched.get(owner[0], 0))
            self.keep_contents("f.filename = ?", row[:1])
            execute("DELETE FROM files WHERE filename = ?", row[:1])
            execute(_INSERT, row)

    def keep_contents(self, where: str, parameters: Sequence[Any]) -> None:
        """Remember the contents of files that go, or that move to another build.

        Args:
            where: a condition of SQL on builds b and files f.
        """
        self._connection.execute(_KEEP_CONTENTS.format(where), parameters)

    def move(self, serial: int, package: str, filename: str, location: str) -> None:
        """Have a file served from elsewhere, if it is one of that package."""
        if self._connection.execute(
            "UPDATE files SET location = ? WHERE filename = ? AND location <> ? AND"
            " (SELECT package FROM builds b WHERE b.build_id = files.build_id) = ?",
            (location, filename, location, package),
        ).rowcount:
            self._touched[package] = serial

    def set_abis(self, build_abis: Iterable[str]) -> None:
        """Compute again which files fit, after the build ABIs have changed."""
        self._connection.execute("DELETE FROM abi_fits")
        self._build_abis = [*build_abis]
        self._tags.clear()
        self._requirements.clear()
        execute = self._connection.execute
        for py_version_tag, abi_tag in execute(
            "SELECT DISTINCT py_version_tag, abi_tag FROM files"
        ).fetchall():
            self._add_tags(py_version_tag, abi_tag)
        execute("DELETE FROM pythons_refused")
        for (requires_python,) in execute(
            "SELECT DISTINCT requires_python FROM files WHERE requires_python <> ''"
        ).fetchall():
            self._add_requirement(requires_python)

    def _add_tags(self, py_version_tag: str, abi_tag: str) -> None:
        """Compute which build ABIs files with these tags fit."""
        self._tags.add((py_version_tag, abi_tag))
        self._connection.executemany(
            "INSERT OR REPLACE INTO abi_fits VALUES (?, ?, ?, ?)",
            [
                (py_version_tag, abi_tag, build_abi, fits.fit(py_version_tag, abi_tag, build_abi))
                for build_abi in self._build_abis
            ],
        )

    def _add_requirement(self, requires_python: str) -> None:
        """Work out which build ABIs' Pythons a Requires-Python leaves out."""
        self._requirements.add(requires_python)
        self._connection.executemany(
            "INSERT OR IGNORE INTO pythons_refused VALUES (?, ?)",
            [
                (requires_python, build_abi)
                for build_abi in self._build_abis
                if not fits.admits(requires_python, build_abi)
            ],
        )
