"""`piw-indexer reconcile`: the index against a running master."""

from __future__ import annotations

from pathlib import Path

import click

from ..base import clock, names, options, printable
from ..base.bar import bar
from ..base.directories import JOURNAL, refuse_missing
from ..base.errors import UsageError
from ..base.privileges import as_owner
from ..index import queries
from ..messages.entries import Accepted
from ..piwheels.backfill.reconcile import Difference, differences
from ..state.state import State
from .master_options import Asking


@click.command()
@click.argument("packages", metavar="[PACKAGE]...", nargs=-1)
@options.configuration
@options.state_to_write
@options.grouped(Asking)
@options.flag("fix", "Accept the master's answers where they differ.")
@as_owner
def reconcile(
    packages: tuple[str, ...],
    state_dir: Path,
    asking: Asking,
    fix: bool,
) -> int:
    """Compare packages, or all packages, with a running master; exit status 1 if any differs.

    With --fix, the master's answers are accepted; the daemon must be stopped for that. Download
    counters and what a master does not report (such as durations) are not compared.
    """
    refuse_missing(state_dir, JOURNAL)
    if asking.db_queue is None:
        raise UsageError("reconcile", "--db-queue is not given", "give the master's db-queue")
    protection = asking.protection()
    state = State(state_dir, "reconcile", clock.now) if fix else None
    connection = state.connection if state else queries.open_reader(state_dir / queries.FILE)
    different = fixed = 0
    try:
        with asking.asker(protection) as asker, bar("packages") as progress:
            wanted = [names.canonical(package) for package in packages]
            for difference in differences(connection, asker, wanted, progress):
                different += 1
                _print(difference)
                if state is not None and difference.fix is not None:
                    state.take([difference.fix])
                    fixed += isinstance(difference.fix, Accepted)
    finally:
        if state is not None:
            state.close()
        else:
            connection.close()
    if not different:
        printable.echo("No differences.")
    elif fix:
        printable.echo(f"Taken from the master: {fixed}. `piw-indexer write` publishes them.")
        if fixed < different:
            printable.echo(f"Not repaired: {different - fixed}.")
    return 1 if different > fixed else 0


def _print(difference: Difference) -> None:
    for what in difference.what:
        said = f"{difference.package}: {what}" if difference.package else what
        printable.echo(printable.whole_line(said))
