"""What the daemon reads from besides change feeds: the queues of a piwheels master.

The database queue is opened first, because the status feed tells it which packages to request.
What the relay of logs still holds at the end is passed on if the daemon starts again, or else
reported as lost.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..base import clock, options
from ..base.errors import UsageError
from ..base.log import event
from ..daemon.reload import Frames
from ..daemon.source import DaemonContext, Source
from ..feed import ipc, security
from ..reasons import note
from .farm.status_queue import StatusFeed, forget_farm
from .queues.log_queue import LogRelay
from .queues.reader_of_logs import ReaderOfLogs
from .queues.snapshots import Snapshots

log = logging.getLogger(__name__)

_HEADER = re.compile(r"\s*\[([^\]]*)\]")
_OUTPUT_PATH = re.compile(r"\s*output[-_]path\s*[=:]\s*(.*)")


class Queues(NamedTuple):
    """The options of `run` for the queues of a master; None if a queue is not used."""

    status_queue: str | None
    control_queue: str | None
    db_queue: str | None
    sweep_pause: float
    log_queue: str | None
    log_forward: str | None
    ipc_peer: tuple[str, ...]
    ipc_mode: int
    ipc_group: str | None
    logs: Path | None

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """The options that are given, and their addresses."""
        queues = {
            "--status-queue": self.status_queue,
            "--control-queue": self.control_queue,
            "--db-queue": self.db_queue,
            "--log-queue": self.log_queue,
            "--log-forward": self.log_forward,
        }
        return [(option, address) for option, address in queues.items() if address]


def refuse_inproc(option: str, queue: str) -> None:
    """Refuse an address inside the master's process, which is what piwheels has by default.

    Raises UsageError if it is one.
    """
    if queue.startswith("inproc://"):
        raise UsageError(
            f"use {option} {queue}",
            "only the process that binds an inproc address can reach it",
            "set an ipc address in the master's configuration, such as"
            " ipc:///run/piw-indexer/db, restart it, and give the same here",
        )


def refuse_masters_tree(output_path: Path, files: Sequence[str] = options.PIWHEELS_FILES) -> None:
    """Refuse the tree that a master's configuration names as its own.

    The master would replace our documents there, up to a minute after each build, and nobody would
    notice.

    Args:
        files: piwheels' configuration files; those that cannot be read are ignored, as no master
            runs with them.

    Raises UsageError if the master writes there, too.
    """
    theirs = {}
    for name in files:
        path = Path(name).expanduser()
        section = ""
        try:
            lines = options.read_text(path).splitlines()
        except (OSError, ValueError):
            continue
        for line in lines:
            if found := _HEADER.match(line):
                section = found[1]
            elif section != options.SECTION and (found := _OUTPUT_PATH.match(line)):
                theirs = {"path": found[1].strip(), "file": str(path)}  # the last one counts
    if theirs and os.path.realpath(theirs["path"]) == os.path.realpath(output_path):
        raise UsageError(
            f"publish to {output_path}",
            f"the master writes its own documents there, says {theirs['file']}: they would replace"
            " ours",
            "give an --output-path of its own; docs/beside-a-master.md has the lines for the web"
            " server",
        )


class Sources:
    """Opens the queues of a master.

    Args:
        insecure: true if tcp beyond this machine is allowed; piwheels has no CURVE.

    Raises UsageError if an option lacks another one, or an address may not be used.
    """

    def __init__(self, queues: Queues, insecure: bool) -> None:
        self._queues = queues
        self._inherited: Frames = []
        self._relay: LogRelay | None = None
        self._connecting = security.Connecting(
            insecure=insecure, peers=ipc.user_ids(queues.ipc_peer)
        )
        for option, queue in queues.addresses:
            refuse_inproc(option, queue)
        peers = queues.status_queue, queues.control_queue, queues.db_queue, queues.log_forward
        for queue in filter(None, peers):
            security.endpoint("connect to", queue, self._connecting)
        if queues.control_queue is not None and queues.status_queue is None:
            raise UsageError(
                "run", "what --control-queue asks for comes on --status-queue", "give both"
            )
        if queues.log_queue is not None:
            self._binding = security.for_publisher(
                [queues.log_queue], None, None, False, queues.ipc_mode, queues.ipc_group
            )
            ipc.refuse_unbindable(queues.log_queue)
        elif queues.log_forward is not None:
            raise UsageError("run", "--log-forward passes on what --log-queue takes", "give both")

    def inherit(self, frames: Frames) -> None:
        """Take what the daemon held for the master before it started again."""
        self._inherited = frames
        if self._queues.log_queue is None or self._queues.log_forward is None:
            self.report_lost()
            self._inherited = []

    def open(self, context: DaemonContext) -> Iterator[Source]:
        """Open the sources one after the other; see `OpenSources`."""
        queues, connecting = self._queues, self._connecting
        clocks = clock.now, clock.monotonic
        finished = None
        if queues.db_queue is not None:
            snapshots = Snapshots(context, queues.db_queue, queues.sweep_pause, *clocks, connecting)
            finished = snapshots.finished
            yield snapshots
        if queues.status_queue is not None:
            yield StatusFeed(
                context,
                queues.status_queue,
                queues.control_queue,
                *clocks,
                finished,
                connecting,
            )
        else:
            forget_farm(context)
        if queues.log_queue is not None:
            self._relay = LogRelay(
                context,
                queues.log_queue,
                queues.log_forward,
                self._binding,
                connecting,
                clock.now,
                self._inherited,
            )
            self._inherited = []
            yield self._relay
        if queues.logs is not None:
            note.reading(context.journal.reader.directory.parent)
            yield ReaderOfLogs(context, queues.logs, clock.monotonic)

    def left(self) -> Frames:
        """After the end: the log entries that the master has not accepted."""
        return [*self._inherited, *(self._relay.left() if self._relay is not None else [])]

    def report_lost(self) -> None:
        lost = self.left()
        if lost:
            address = self._queues.log_forward
            log.error(
                "%d log entries have not reached the master%s, which did not take them in time:"
                " its own counters lack them",
                len(lost),
                f" at {address}" if address else "",
                extra=event("logs-not-forwarded", messages=len(lost)),
            )
