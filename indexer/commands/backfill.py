"""`piw-indexer backfill`: everything that a master knows, from its queue or its database."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from ..base import clock, lock, options, printable
from ..base.bar import bar
from ..base.privileges import as_owner
from ..piwheels.backfill import from_database
from ..piwheels.backfill import from_master as backfills
from ..piwheels.backfill.postgres import Source
from ..state.state import State
from .master_options import Asking


@click.command()
@options.configuration
@options.state_to_write
@options.grouped(Asking)
@options.option("download-days")
@as_owner
def backfill(
    state_dir: Path,
    asking: Asking,
    download_days: int | None,
) -> None:
    """Fetch all packages and download counters from a master.

    With --db-queue, a running master is asked for one package at a time. With --dsn, its database
    is read, which is much faster and gives more: all builds with their durations, and downloads by
    the hour, all of the same moment. Nothing is written to the database.

    An interrupted backfill continues where it stopped, and nothing is accepted twice. Afterwards,
    broken feeds are repaired.

    With --dsn, the daemon may run meanwhile: it is handed what differs, so a timer can repeat this.
    With --db-queue, it must be stopped; a running one does the same by itself, slowly.
    """
    dsn = asking.database("backfill")
    if dsn is not None:
        _from_database(state_dir, dsn, download_days)
        return
    protection = asking.protection()
    with (
        closing(State(state_dir, "backfill", clock.now)) as state,
        asking.asker(protection) as asker,
        bar("packages") as progress,
    ):
        outcome = backfills.backfill(state, asker, progress)
    after = f" (it continued after {printable.line(outcome.after)})" if outcome.after else ""
    printable.echo(
        f"{asking.db_queue}: {printable.many(outcome.packages, 'package')} asked for{after},"
        f" {outcome.taken:,} different, {outcome.deleted:,} gone,"
        f" {printable.many(outcome.counters, 'counter')} taken"
    )
    if outcome.unusable:
        printable.warn(
            f"{printable.many(outcome.unusable, 'unusable answer')};"
            " `piw-indexer quarantine` shows why"
        )
    for package, why in outcome.unanswered.items():
        said = printable.line(f"{package}: {why}")
        printable.warn(f"the master cannot describe {said}")
    if outcome.no_counters:
        printable.warn(
            "no download counters were taken: the master cannot answer GETSEARCH:"
            f" {printable.line(outcome.no_counters)}; everything else was taken"
        )
    if outcome.still_broken:
        feeds = printable.line(", ".join(outcome.still_broken))
        printable.warn(
            f"{feeds} broke after this backfill had begun: run it once more, from the beginning"
        )


def _from_database(state_dir: Path, dsn: str, days: int | None) -> None:
    beside = None
    if lock.holder(state_dir).startswith("piw-indexer run "):
        beside = from_database.Beside(state_dir)
    source = Source(dsn, clock.now)
    counters = True
    try:
        with bar("packages") as progress:
            if beside is not None:
                outcome, counters = from_database.fill_beside(beside, source, days, progress)
            else:
                with closing(State(state_dir, "backfill", clock.now)) as state:
                    outcome = from_database.fill(state, source, days, progress)
    finally:
        source.close()
        if beside is not None:
            beside.close()
    printable.echo(
        f"{printable.many(outcome.packages, 'package')} read, {outcome.taken:,} different and taken"
        f" with {printable.many(outcome.builds, 'build')}, {outcome.deleted:,} gone,"
        f" {printable.many(outcome.counters, 'counter')} taken"
    )
    if source.lost:
        lost = ", ".join(source.lost)
        printable.warn(f"the database does not tell: {lost}")
    if not counters:
        printable.echo("Download counters were not compared: the daemon counts downloads itself.")
    if beside is not None and beside.left:
        left = printable.many(len(beside.left), "package")
        printable.echo(f"Left for the next time, because the daemon has just heard of them: {left}")
    if outcome.refused and beside is not None:
        rows = printable.many(outcome.refused, "row")
        printable.warn(
            f"not taken, because not valid: {rows}; without a daemon, they go to the"
            " quarantine, which says why"
        )
    elif outcome.refused:
        printable.warn(
            f"not taken, because not valid: {printable.many(outcome.refused, 'row')};"
            " `piw-indexer quarantine` shows why"
        )
