"""`piw-indexer rebuild`: a fresh index from the journal."""

from __future__ import annotations

from pathlib import Path

import click

from .. import clock, config, times
from ..progress import bar
from ..publish import Publisher
from ..state import State
from .write import publish_all


@click.command()
@config.configuration
@config.option("state-dir")
@config.option("output-path")
@config.option("site-url")
@config.option("as-of")
def rebuild(state_dir: Path, output_path: Path, site_url: str, as_of: times.Time | None) -> None:
    """Make the index anew from the journal, then write what differs.

    The present index stays in use until the new one is complete.
    """
    publisher = Publisher(output_path, alone=True)
    with bar("rebuilding") as progress:
        state = State(state_dir, "rebuild", clock.now, progress, rebuild=True)
    try:
        click.echo(f"{state.index_path}: rebuilt from {state.journal.serial} messages")
        publish_all(state, publisher, site_url, as_of)
    finally:
        state.close()
