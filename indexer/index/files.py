"""The files of builds: their rows, their dependencies, and which build ABIs their tags fit.

Files of consecutive builds are added together, sorted, which is a third faster than adding each
build by itself. Call `flush` before reading or deleting files or builds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ..messages import types as messages
from . import tags

_INSERT = "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class BuiltFiles:
    """Adds files to the index, inside the transaction that applies a batch.

    Args:
        connection: of the index.
        touched: the names that must be rewritten, each with the serial of the last message that
            touched it; packages that lose files are added.
    """

    def __init__(self, connection: sqlite3.Connection, touched: dict[str, int]) -> None:
        self._connection = connection
        self._touched = touched
        self._tags: set[tuple[str, str]] = set()
        self._build_abis: list[str] = []
        self._rows: dict[str, tuple[Any, ...]] = {}  # by filename
        self._serials: dict[str, int] = {}
        self._dependencies: list[tuple[str, str, str]] = []

    def begin(self) -> None:
        """Begin a batch: what is remembered of the index may have been rolled back."""
        self._rows.clear()
        self._serials.clear()
        self._dependencies.clear()
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
            execute("DELETE FROM files WHERE filename = ?", row[:1])
            execute(_INSERT, row)

    def set_abis(self, build_abis: Iterable[str]) -> None:
        """Compute again which files fit, after the build ABIs have changed."""
        self._connection.execute("DELETE FROM abi_fits")
        self._build_abis = [*build_abis]
        self._tags.clear()
        for py_version_tag, abi_tag in self._connection.execute(
            "SELECT DISTINCT py_version_tag, abi_tag FROM files"
        ).fetchall():
            self._add_tags(py_version_tag, abi_tag)

    def _add_tags(self, py_version_tag: str, abi_tag: str) -> None:
        """Compute which build ABIs files with these tags fit."""
        self._tags.add((py_version_tag, abi_tag))
        self._connection.executemany(
            "INSERT OR REPLACE INTO abi_fits VALUES (?, ?, ?, ?)",
            [
                (py_version_tag, abi_tag, build_abi, tags.fit(py_version_tag, abi_tag, build_abi))
                for build_abi in self._build_abis
            ],
        )
