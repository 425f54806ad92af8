"""`piw-indexer backfill`: everything that a running master knows."""

from __future__ import annotations

from pathlib import Path

import click

from .. import clock, config
from ..errors import UsageError
from ..piwheels import backfill as backfills
from ..piwheels.oracle import connected
from ..progress import bar
from ..state import State


@click.command()
@config.configuration
@config.option("state-dir")
@config.option("db-queue")
@config.option("pause")
def backfill(state_dir: Path, db_queue: str | None, pause: float) -> None:
    """Take all packages and download counters that a running master knows.

    Asks for one package at a time. One that was interrupted goes on where it stopped; what is
    known already is not taken twice. Feeds that were broken are whole after it.

    While the daemon runs it holds the state; with --db-queue it does the same by itself, slowly.
    """
    if db_queue is None:
        raise UsageError(
            "backfill",
            "there is no --db-queue to ask",
            "set db-queue = ipc:///tmp/piw-db in the master's configuration, restart it, and give"
            " the same here",
        )
    state = State(state_dir, "backfill", clock.now)
    try:
        with connected(db_queue, clock.monotonic) as oracle, bar("packages") as progress:
            asker = backfills.Asker(oracle, pause, clock.now, clock.sleep)
            found = backfills.backfill(state, asker, progress)
    finally:
        state.close()
    click.echo(
        f"{db_queue}: {found.packages:,} packages asked for, {found.taken:,} were different,"
        f" {found.deleted:,} are gone, {found.counters:,} counters taken"
    )
    if found.unusable:
        click.echo(
            f"piw-indexer: {found.unusable} answers were unusable; `piw-indexer quarantine` shows"
            " why",
            err=True,
        )
