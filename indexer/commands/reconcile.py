"""`piw-indexer reconcile`: the index against a running master."""

from __future__ import annotations

from pathlib import Path

import click

from ..base import clock, names, options, printable
from ..base.directories import JOURNAL, refuse_missing
from ..base.errors import UsageError
from ..base.privileges import as_owner
from ..base.progress import bar
from ..feed import ipc, security
from ..index import queries
from ..messages.entries import Accepted
from ..piwheels.backfill.from_master import Asker, Difference, differences
from ..piwheels.queues.oracle import connected
from ..state.state import State


@click.command()
@click.argument("packages", metavar="[PACKAGE]...", nargs=-1)
@options.configuration
@options.option("state-dir")
@options.option("db-queue")
@options.option("ipc-peer")
@options.flag("allow-insecure-tcp")
@options.option("pause")
@options.flag("fix")
@as_owner
def reconcile(
    packages: tuple[str, ...],
    state_dir: Path,
    db_queue: str | None,
    ipc_peer: tuple[str, ...],
    allow_insecure_tcp: bool,
    pause: float,
    fix: bool,
) -> int:
    """Compare packages (or all) with what a running master says of them; exit status 1 if any
    differs. Download counters are not compared.

    With --fix, what the master says is taken; the daemon must not run then. What a master does
    not tell (durations) is not compared.
    """
    refuse_missing(state_dir, JOURNAL)
    if db_queue is None:
        raise UsageError("reconcile", "there is no --db-queue to ask", "give the master's db-queue")
    protection = security.Connecting(insecure=allow_insecure_tcp, peers=ipc.user_ids(ipc_peer))
    security.endpoint("connect to", db_queue, protection)
    state = State(state_dir, "reconcile", clock.now) if fix else None
    connection = state.connection if state else queries.open_reader(state_dir / queries.FILE)
    different = mended = 0
    try:
        with (
            connected(db_queue, clock.monotonic, protection) as oracle,
            bar("packages") as progress,
        ):
            asker = Asker(oracle, pause, clock.now, clock.sleep)
            wanted = [names.canonical(package) for package in packages]
            for found in differences(connection, asker, wanted, progress):
                different += 1
                _tell(found)
                if state is not None and found.mend is not None:
                    state.take([found.mend])
                    mended += isinstance(found.mend, Accepted)
    finally:
        if state is not None:
            state.close()
        else:
            connection.close()
    if not different:
        printable.echo("No differences.")
    elif fix:
        printable.echo(f"Taken from the master: {mended}. `piw-indexer write` publishes them.")
        if mended < different:
            printable.echo(f"Not mended: {different - mended}.")
    return 1 if different > mended else 0


def _tell(found: Difference) -> None:
    for what in found.what:
        said = f"{found.package}: {what}" if found.package else what
        printable.echo(printable.whole_line(said))
