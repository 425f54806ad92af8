"""`piw-indexer backfill`: everything that a master knows, from its queue or its database."""

from __future__ import annotations

from pathlib import Path

import click

from ..base import clock, lock, options, printable
from ..base.privileges import as_owner
from ..base.progress import bar
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
    state = State(state_dir, "backfill", clock.now)
    try:
        with asking.asker(protection) as asker, bar("packages") as progress:
            outcome = backfills.backfill(state, asker, progress)
    finally:
        state.close()
    after = f" (it continued after {printable.line(outcome.after)})" if outcome.after else ""
    printable.echo(
        f"{asking.db_queue}: {printable.many(outcome.packages, 'package')} asked for{after},"
        f" {outcome.taken:,} different, {outcome.deleted:,} gone,"
        f" {printable.many(outcome.counters, 'counter')} taken"
    )
    if outcome.unusable:
        printable.echo(
            f"piw-indexer: {printable.many(outcome.unusable, 'unusable answer')};"
            " `piw-indexer quarantine` shows why",
            err=True,
        )
    for package, why in outcome.unanswered.items():
        said = printable.line(f"{package}: {why}")
        printable.echo(f"piw-indexer: the master cannot describe {said}", err=True)
    if outcome.no_counters:
        printable.echo(
            "piw-indexer: no download counters were taken: the master cannot answer GETSEARCH:"
            f" {printable.line(outcome.no_counters)}; everything else was taken",
            err=True,
        )
    if outcome.still_broken:
        feeds = printable.line(", ".join(outcome.still_broken))
        printable.echo(
            f"piw-indexer: {feeds} broke after this backfill had begun:"
            " run it once more, from the beginning",
            err=True,
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
                state = State(state_dir, "backfill", clock.now)
                try:
                    outcome = from_database.fill(state, source, days, progress)
                finally:
                    state.close()
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
        printable.echo(f"piw-indexer: the database does not tell: {lost}", err=True)
    if not counters:
        printable.echo("Download counters were not compared: the daemon counts downloads itself.")
    if beside is not None and beside.left:
        left = printable.many(len(beside.left), "package")
        printable.echo(f"Left for the next time, because the daemon has just heard of them: {left}")
    if outcome.refused and beside is not None:
        rows = printable.many(outcome.refused, "row")
        printable.echo(
            f"piw-indexer: not taken, because not valid: {rows}; without a daemon, they go to the"
            " quarantine, which says why",
            err=True,
        )
    elif outcome.refused:
        printable.echo(
            f"piw-indexer: not taken, because not valid: {printable.many(outcome.refused, 'row')};"
            " `piw-indexer quarantine` shows why",
            err=True,
        )
