"""A state directory and an output tree for tests, and snapshots of them to compare."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from indexer.base import database, times
from indexer.documents import writer
from indexer.documents.publish import Publisher
from indexer.index import downloads, pending, queries
from indexer.messages import decode
from indexer.messages.entries import Accepted
from indexer.messages.types import Position
from indexer.state.state import State, replay

from . import strategies as s
from .model import SITE

Tree = dict[str, tuple[str, object]]
Rows = dict[str, list[tuple[Any, ...]]]

MEMORY = "/dev/shm"

_ROWS = {
    table: f"SELECT * FROM {table} ORDER BY 1, 2, 3"
    for table in (
        "packages package_names versions builds files dependencies abi_fits"
    ).split()
} | {
    # The order of contents counts only among those of one file.
    "file_contents": "SELECT filename, filehash, filesize, build_id, built_at"
    " FROM file_contents ORDER BY filename, content_id",
    "pythons_refused": "SELECT * FROM pythons_refused ORDER BY 1, 2",
    "build_abis": "SELECT * FROM build_abis ORDER BY 1",
    "preinstalled_apt_packages": "SELECT * FROM preinstalled_apt_packages ORDER BY 1, 2",
    "download_counts": "SELECT package, downloads_recent, downloads_all, listed"
    " FROM download_counts ORDER BY 1",
    "download_hours": "SELECT package, hour, downloads FROM download_hours"
    " LEFT JOIN download_counts USING (counter_id) ORDER BY 1, 2",
    "state": "SELECT key, value FROM state WHERE key IN"
    " ('journal_id', 'applied_serial', 'window_start', 'no_wheels', 'abis_serial') ORDER BY 1",
}  # fmt: skip


def rows(connection: sqlite3.Connection) -> Rows:
    """The content of an index, except what depends on when its documents were written."""
    return {table: connection.execute(select).fetchall() for table, select in _ROWS.items()}


def tree(root: Path) -> Tree:
    """Everything below a directory: its kind, and its bytes or its target."""
    found: Tree = {}
    for directory, names, files in os.walk(root):
        if ".piw-indexer" in names:  # what is locked; it is empty
            names.remove(".piw-indexer")
        for name in names + files:
            path = Path(directory, name)
            at = os.fsdecode(path.relative_to(root))
            if path.is_symlink():
                found[at] = "link", os.readlink(path)
            elif path.is_dir():
                found[at] = "directory", None
            else:
                mode = oct(path.stat().st_mode & 0o777)
                found[at] = f"file {mode}", path.read_bytes()
    return found


def microseconds(value: datetime) -> int:
    return times.from_datetime(value)


class World:
    """A state directory that is opened and closed again and again, and its output tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = s.NOW
        self.output = root / "www"
        self.sent = 0
        self.state = self._open()

    def _open(self) -> State:
        return State(self.root / "state", "test", lambda: microseconds(self.now))

    def restart(self) -> None:
        self.state.close()
        self.state = self._open()

    def take(self, messages: Iterable[s.Message]) -> None:
        """Journal and apply messages, one batch."""
        entries = []
        for message in messages:
            self.sent += 1
            position = Position("test", 1, self.sent)
            entries.append(Accepted(position, decode.from_json(s.line(message), 0)))
        self.state.take(entries)

    def take_all(self, messages: Sequence[s.Message], sizes: Iterable[int]) -> None:
        """Likewise, in batches of these sizes, the last one of what is left."""
        start = 0
        for size in sizes:
            self.take(messages[start : start + size])
            start += size
        self.take(messages[start:])

    def move_window(self, now: datetime) -> None:
        with database.transaction(self.state.connection):
            downloads.move_window(self.state.connection, times.window_start(microseconds(now)))

    def publish(self, now: datetime, *, everything: bool = False) -> int:
        return writer.publish_pending(
            self.state.connection,
            self.state.index_path,
            Publisher(self.output),
            SITE,
            microseconds(now),
            everything=everything,
        )

    def pending(self) -> list[str]:
        return list(pending.names(self.state.connection))

    @contextmanager
    def rebuilt(self) -> Iterator[sqlite3.Connection]:
        """A fresh index from the journal, with the window of the present one."""
        path = self.root / "rebuilt.db"
        fresh = replay(self.state.journal.reader, path, self.state.journal.serial)
        try:
            start = downloads.window_start(self.state.connection)
            with database.transaction(fresh):
                downloads.move_window(fresh, start)
            yield fresh
        finally:
            fresh.close()
            database.remove(path)

    def scratch_tree(self, now: datetime) -> Tree:
        """What a rebuild publishes into an empty output tree."""
        output = self.root / "scratch"
        with self.rebuilt() as fresh:
            writer.publish_pending(
                fresh,
                self.root / "rebuilt.db",
                Publisher(output),
                SITE,
                microseconds(now),
                everything=True,
            )
        return tree(output)

    def document(self, package: str) -> bytes:
        return (self.output / "project" / package / "json" / "index.json").read_bytes()

    def view(self, select: str) -> list[tuple[Any, ...]]:
        return self.state.connection.execute(select).fetchall()

    def applied_serial(self) -> int:
        return queries.applied_serial(self.state.connection)


@contextmanager
def world() -> Iterator[World]:
    """A new world; it ends with the block."""
    # In memory, where there is such a place: nobody pulls the plug here.
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="piw-", dir=memory) as directory:
        made = World(Path(directory))
        try:
            yield made
        finally:
            made.state.close()
