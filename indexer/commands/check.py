"""`piw-indexer check`: journal, index and documents against each other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from .. import check as checks
from .. import clock, config
from ..check import Difference
from ..errors import StateError
from ..progress import bar
from ..publish import Publisher
from ..state import JOURNAL, State, refuse_missing
from .write import publish_all


@click.command()
@config.configuration
@config.option("state-dir")
@config.option("output-path")
@config.option("site-url")
@config.flag("fix")
def check(state_dir: Path, output_path: Path, site_url: str, fix: bool) -> int:
    """Compare journal, index and documents, and report what differs."""
    refuse_missing(state_dir, JOURNAL)
    publisher = Publisher(output_path)
    site_url = site_url.rstrip("/")
    # Only one process may repair; State also brings the index up to date.
    state = State(state_dir, "check", clock.now) if fix else None
    try:
        damaged = _report(checks.check_journal(state_dir))
        if damaged:
            raise StateError(
                f"check the rest of {state_dir}",
                "the journal is damaged",
                "restore it from a backup; the index and the documents can wait. Without one,"
                " `piw-indexer rebuild --salvage` goes on with what can be read",
            )
        unusable = _report(checks.check_checkpoints(state_dir))
        with bar("index") as progress:
            differing = _report(
                checks.check_index(state_dir, lambda _, done, total: progress(done, total))
            )
        if differing and state is not None:
            state.close()
            state = None
            with bar("rebuilding") as progress:
                state = State(state_dir, "check", clock.now, progress, rebuild=True)
        if differing and state is None:
            click.echo("The documents were not compared with an index that differs.")
            return 1
        with bar("documents") as progress:
            found = list(
                checks.check_documents(
                    state_dir, publisher, site_url, lambda _, done, total: progress(done, total)
                )
            )
        wrong = _report(difference for difference, _ in found)
        if state is None:
            if not wrong and not unusable:
                click.echo("No differences.")
            return 1 if wrong or unusable else 0
        touched = [name for _, name in found if name is not None]
        checks.mark_for_repair(state.connection, touched, any(name is None for _, name in found))
        publish_all(state, publisher, site_url, None)
        if unusable:
            click.echo("Restore the checkpoints from a backup, or make a new one and remove them.")
            return 1
        click.echo("Repaired." if differing or wrong else "No differences.")
        return 0
    finally:
        if state is not None:
            state.close()


def _report(found: Iterable[Difference]) -> int:
    """Print differences; how many there are."""
    count = 0
    for difference in found:
        click.echo(str(difference))
        count += 1
    return count
