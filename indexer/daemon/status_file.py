"""The status of the daemon, in a file of the state directory: written once a second, for `status`.

schema/status.schema.json says what the fields mean. Readers may be older or newer than the daemon.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..base import filesystem, notes
from ..base.directories import LIVE
from ..base.log import event
from ..base.notes import Amount, At, PathText

log = logging.getLogger(__name__)

_BLOCK = 4096


class LiveProblem(NamedTuple):
    """Something that is wrong.

    Attributes:
        id: of the alert.
        text: the whole of it.
        what: what is wrong; empty if an older daemon wrote this.
        remedy: what to do; empty if the usual remedy of the alert applies.
    """

    id: str
    text: str
    what: str = ""
    remedy: str = ""


class LiveFeed(NamedTuple):
    """A feed, as a subscriber knows it."""

    feed: str
    epoch: int | None
    serial: int
    published: int
    lag: int
    lag_seconds: Amount
    heard: At
    filling: bool
    changes_queue: str
    replay_queue: str


class LiveLog(NamedTuple):
    """The write-ahead log of a database that somebody keeps from being merged.

    Attributes:
        name: of the database, below the state directory.
        bytes: its size.
        held_seconds: for how long.
        growth: bytes a second meanwhile.
    """

    name: str
    bytes: int
    held_seconds: Amount
    growth: Amount


class Live(NamedTuple):
    """The status of the daemon itself; each source adds a field of its own."""

    pid: int
    at: At
    started: At
    serial: int
    applied_serial: int
    pending: int
    oldest_pending_serial: int | None
    oldest_pending_seconds: Amount | None
    accepted: int
    rate: Amount
    trouble: str
    troubles: list[LiveProblem]
    written: int
    recently_published: list[str]
    last_published: At | None
    counters_published: At | None
    feeds: list[LiveFeed]
    queues: list[tuple[str, ...]]
    output_path: PathText
    kinds_published: dict[str, At] | None = None  # by the name of the kind of documents
    logs_held: list[LiveLog] | None = None


class LiveStatusQueue(NamedTuple):
    """The connection to a master's status queue; `unknown` names the messages that are ignored."""

    status_queue: str
    control_queue: str | None
    connected: bool
    silent_seconds: float | None
    frames: int
    refused: int
    unknown: list[str] = []  # noqa: RUF012 - nobody changes it


class LiveDbQueue(NamedTuple):
    """What was asked of a master's database queue.

    Attributes:
        address: of the queue.
        asked: packages asked for, since the daemon started.
        taken: those that were different.
        due: packages to ask for at once: they were built, they differ, or the index lacks them.
        trouble: why the master cannot be asked; empty if it can.
        oldest_due_seconds: how long ago the build ended that waits the longest; None if none does.
        oldest_answer_seconds: the age of the oldest of the last answers for each package.
        median_answer_seconds: half of these answers are older.
        unanswered: packages that the master was not yet asked for.
    """

    address: str
    asked: int
    taken: int
    due: int
    trouble: str
    oldest_due_seconds: Amount | None = None
    oldest_answer_seconds: Amount | None = None
    median_answer_seconds: Amount | None = None
    unanswered: int = 0


class LiveLogQueue(NamedTuple):
    """What came from piw-logger; `counted` is by the name of the message."""

    address: str
    forward: str | None
    counted: dict[str, int]
    forwarded: int
    waiting: int
    waiting_for_master: int
    lost: int
    not_forwarded: int


class LiveFile:
    """The status file of a daemon.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LIVE

    def write(self, live: Live, sources: Mapping[str, tuple[Any, ...]]) -> None:
        """Replace the file, or, with a full disk, write over it.

        Args:
            live: the status of the daemon.
            sources: what each source adds, by the name of the field.

        Raises:
            OSError: if neither is possible.
        """
        fields = {name: notes.plain(source) for name, source in sources.items()}
        content = json.dumps({**notes.plain(live), **fields}).encode()
        # Padded: with a full disk the old file's blocks are all there is to write to.
        content += b" " * (-len(content) % _BLOCK)
        try:
            filesystem.write(self._path, content)
        except OSError:
            filesystem.overwrite(self._path, content)

    def remove(self) -> None:
        """Remove the file: the daemon ends."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "cannot remove %s: %s",
                self._path,
                error.strerror,
                extra=event("live-not-removed", path=self._path),
            )

    def log_unwritable(self, error: OSError) -> None:
        log.warning(
            "cannot write %s: %s",
            self._path,
            error.strerror,
            extra=event("live-unwritable", path=self._path),
        )
