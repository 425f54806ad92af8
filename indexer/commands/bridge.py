"""`piw-indexer bridge`: a piwheels master whose changes are published on a change feed."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import click

from ..base import clock, network, options, places, privileges
from ..base.directories import SPOOL
from ..feed.spool_server import Options, SpoolServer
from ..piwheels.bridge.bridge import Bridge
from ..piwheels.bridge.changes import TESTED_WITH
from ..piwheels.bridge.master import Master
from ..piwheels.bridge.outbox import Outbox
from ..piwheels.bridge.unsettled import Marks
from .publisher_options import Publishing


@click.command(
    help=f"""Run the installed piwheels master, and publish its changes.

    The arguments after -- are those of piw-master, which runs in this process as usual, whatever
    happens to the feed. Every change that its database has committed is published on a change
    feed, whose spool is STATE_DIR/spool. The command ends as piw-master does. Tested with piwheels
    {TESTED_WITH}. What another master lacks is named at the start, and everything else is
    published.
    """
)
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@options.configuration
@options.state_to_write
@options.grouped(Publishing)
@options.flag("no-downloads")
@click.pass_context
def bridge(
    context: click.Context,
    arguments: tuple[str, ...],
    state_dir: Path,
    publishing: Publishing,
    no_downloads: bool,
) -> Any:
    """See `help` above."""
    privileges.become_owner(state_dir)  # the master stays in its directory
    # Report mistakes at once, and not from the process that serves.
    queues, _ = publishing.checked("bridge")
    _keep_our_log_apart()
    sys.argv = ["piw-master", *arguments]
    os.umask(context.meta[options.UMASK])
    master = Master()
    if master.only_speaks(list(arguments)):
        return master.run(list(arguments))
    network.refuse(state_dir)
    places.refuse_others(state_dir)
    marks = Marks(state_dir)
    outbox = Outbox(marks, clock.now)
    server = SpoolServer(
        Options(
            str((state_dir / SPOOL).absolute()),
            publishing.name,
            *queues,
            _absolute(publishing.curve_key),
            _absolute(publishing.allowed_keys),
            publishing.allow_insecure_tcp,
            publishing.ipc_mode,
            publishing.ipc_group,
            logging.getLogger(__package__.partition(".")[0]).level,
        )
    )
    ended = threading.Event()
    thread = Bridge(
        state_dir / SPOOL,
        server,
        outbox,
        marks,
        lambda: not ended.is_set() or _others_run(),
    )
    try:
        thread.open()
    except BaseException:
        marks.close()
        raise
    master.wrap(outbox, downloads=not no_downloads)
    thread.start()
    try:
        return master.run(list(arguments))
    finally:
        ended.set()
        outbox.ring()


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _keep_our_log_apart() -> None:
    """Keep logging our messages as before, without logging the master's twice."""
    root, ours = logging.getLogger(), logging.getLogger(__package__.partition(".")[0])
    ours.setLevel(root.level)
    ours.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        ours.addHandler(handler)
    root.setLevel(logging.WARNING)


def _others_run() -> bool:
    """True if threads of the master run: it waits for them, and they may still change something."""
    return any(
        not thread.daemon
        and thread is not threading.main_thread()
        and not isinstance(thread, Bridge)
        for thread in threading.enumerate()
    )
