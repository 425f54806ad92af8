"""A bridge in this process: a wrapped `Database`, its outbox, and the thread that publishes."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from indexer.base import clock
from indexer.base.backoff import Backoff
from indexer.feed.spool_server import Options, SpoolServer
from indexer.journal import quarantine
from indexer.journal.reader import JournalReader
from indexer.messages.types import Message
from indexer.piwheels.bridge.bridge import LAST_TRIES_TIMEOUT, Bridge
from indexer.piwheels.bridge.changes import CLIENT_FIELDS
from indexer.piwheels.bridge.master import Master, Watch
from indexer.piwheels.bridge.outbox import MAX_WAITING, Outbox
from indexer.piwheels.bridge.unsettled import Marks

from ..support import Feed, eventually

STANDIN = Path(__file__).resolve().parent.parent / "standin"
HOST = "203.0.113.77"
OUTPUT = "the whole output of a build"
HASH = "0123456789abcdef" * 4
WHEN = datetime(2026, 11, 20, 12, tzinfo=UTC)


@contextmanager
def imported(directory: Path) -> Iterator[None]:
    """Import `piwheels` from a directory, whatever is installed."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_piwheels(name)}
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
        for name in [name for name in sys.modules if _is_piwheels(name)]:
            del sys.modules[name]
        sys.modules.update(kept)


def _is_piwheels(name: str) -> bool:
    return name.partition(".")[0] == "piwheels"


class Bridged:
    """A stand-in's `Database` that is bridged.

    Attributes:
        database: a connection of it; `connect` makes more.
    """

    def __init__(
        self,
        home: Path,
        feed: Feed,
        *,
        most: int = MAX_WAITING,
        downloads: bool = True,
        last_tries: float = LAST_TRIES_TIMEOUT,
    ) -> None:
        self.home = home
        self.state_dir = home / "state"
        self.dsn = str(home / "piwheels.db")
        master = Master()
        self._class: Any = sys.modules["piwheels.master.db"].Database
        self.states: Any = sys.modules["piwheels.states"]
        self._original = dict(vars(self._class))
        self.marks = Marks(self.state_dir)
        self.outbox = Outbox(self.marks, clock.now, most)
        self.server = SpoolServer(Options(str(self.spool), "master", feed.changes, feed.replay))
        self._ended = threading.Event()
        self.bridge = Bridge(
            self.spool,
            self.server,
            self.outbox,
            self.marks,
            lambda: not self._ended.is_set(),
            Backoff(0.05, 0.05),
            last_tries,
        )
        self.bridge.open()
        master.wrap(self.outbox, downloads=downloads)
        self.bridge.start()
        self.database = self.connect()

    @property
    def spool(self) -> Path:
        return self.state_dir / "spool"

    def connect(self) -> Any:
        return self._class(self.dsn)

    def sql(self, *statements: str) -> list[Any]:
        """Run a statement, as an administrator does by hand."""
        connection = sqlite3.connect(self.dsn, timeout=60)
        with connection:
            rows = [connection.execute(statement).fetchall() for statement in statements]
        connection.close()
        return rows[-1]

    def build(self, package: str, version: str, *filenames: str, **fields: Any) -> int:
        """Log a build."""
        found: int = self.database.log_build(
            build(self.states, package, version, *filenames, **fields)
        )
        return found

    def download(self, filename: str, host: str = HOST, **fields: Any) -> None:
        self.database.log_download(download(self.states, filename, host, **fields))

    def wait(self) -> None:
        """Wait until everything is published."""
        eventually(lambda: not self.marks.unsettled, lambda: self.marks.unsettled)

    def published(self) -> list[Message]:
        """The messages in the spool."""
        self.wait()
        return published(self.spool)

    def changes(self) -> list[Message]:
        """The messages in the spool, except the build ABIs, which come at a time of their own."""
        return [message for message in self.published() if message.name != "SETABIS"]

    @property
    def epoch(self) -> int:
        """The epoch of the feed."""
        spool = self.bridge._spool
        assert spool is not None
        return spool.reader.epoch

    def stop(self) -> None:
        """End like the master."""
        if self.bridge.is_alive():
            self._ended.set()
            self.outbox.ring()
            self.bridge.join()
        for thread in threading.enumerate():
            if isinstance(thread, Watch):  # else it logs into a later test, after a minute
                thread.ended.set()
                thread.join()
        for name in vars(self._class).keys() - {"__dict__", "__weakref__"}:
            if name in self._original and vars(self._class)[name] is not self._original[name]:
                setattr(self._class, name, self._original[name])


def published(spool: Path) -> list[Message]:
    reader = JournalReader(spool)
    try:
        return [row.message for row in reader.read(0, 100_000)]
    finally:
        reader.close()


def quarantined(spool: Path) -> list[tuple[str, Any]]:
    """The refused messages: the reasons, and the messages."""
    reader = JournalReader(spool)
    try:
        return [
            (f"{one.path}: {one.reason}", json.loads(one.raw)) for one in quarantine.entries(reader)
        ]
    finally:
        reader.close()


def build(states: Any, package: str, version: str, *filenames: str, **fields: Any) -> Any:
    """A build as a slave reports it; fields that a test does not give are plausible."""
    known = {
        "slave_id": 3,
        "abi_tag": "cp311",
        "status": True,
        "duration": timedelta(minutes=2, milliseconds=500),
        "output": OUTPUT,
        **fields,
    }
    files = {}
    for filename in filenames:
        tags = filename.removesuffix(".whl").split("-")
        tags = [*tags[:2], *tags[-3:]]
        files[filename] = states.FileState(
            filename, 1000, HASH, *tags, ">=3.9", {"apt": ["libx"], "pip": []}, "/simple"
        )
    return states.BuildState(
        known["slave_id"],
        package,
        version,
        known["abi_tag"],
        known["status"],
        known["duration"],
        known["output"],
        files,
    )


def download(states: Any, filename: str, host: str = HOST, **fields: Any) -> Any:
    """A download as piw-logger reports it."""
    texts = [fields.get(name) for name in CLIENT_FIELDS]
    return states.DownloadState(filename, host, fields.get("timestamp", WHEN), *texts)
