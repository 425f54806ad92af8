"""`piw-indexer rebuild`: a new index from the journal."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from ..base import clock, options, printable, times
from ..base.bar import bar
from ..base.directories import refuse_missing
from ..base.privileges import as_owner
from ..documents.publish import Publisher
from ..state.salvage import Salvaged, spans
from ..state.state import OURS, State
from .write import publish_all


@click.command()
@options.configuration
@options.state_to_write
@options.option("output-path")
@options.option("site-url")
@options.option("as-of")
@options.flag("salvage")
@as_owner
def rebuild(
    state_dir: Path,
    output_path: Path,
    site_url: str,
    as_of: times.Time | None,
    salvage: bool,
) -> None:
    """Rebuild the index from the journal, then write the documents that differ.

    The present index stays in use until the new one is complete. If older months of the journal
    are gone, it starts from a checkpoint.

    With --salvage, what can be read of a damaged month replaces it. What is lost is printed, and
    noted in the journal. The damaged file stays beside the new one.
    """
    publisher = Publisher(output_path)
    refuse_missing(state_dir, *OURS)
    with bar("rebuilding") as progress:
        state = State(
            state_dir, "rebuild", clock.now, progress, rebuild=True, salvage_journal=salvage
        )
    with closing(state):
        if state.salvaged is not None:
            _print_losses(state.salvaged)
        printable.echo(
            f"{options.as_typed(state.index_path)}: rebuilt from"
            f" {printable.many(state.journal.serial, 'message')}"
        )
        publish_all(state, publisher, site_url, as_of)


def _print_losses(salvaged: Salvaged) -> None:
    if not salvaged.losses:
        printable.echo("The journal is whole: there is nothing to salvage.")
    for month, lost, kept_as in salvaged.losses:
        what = (
            f"lost messages {spans(lost)}" if lost else "what could not be read is in a checkpoint"
        )
        where = f"; the damaged file is {kept_as} now" if kept_as else ""
        printable.echo(f"{month}: {what}{where}")
    if salvaged.feeds_lost:
        printable.echo(
            "How far the feeds were accepted could not be read: their publishers may send again"
            " what was accepted, and its downloads may count twice."
        )
    if salvaged.checkpoint is not None:
        printable.echo(
            f"The index held them all; it was kept as {salvaged.checkpoint}."
            " Nothing is missing from the documents."
        )
    elif any(last > salvaged.covered for loss in salvaged.losses for _, last in loss.lost):
        printable.echo(
            "What they said is missing from the documents, until the publishers have sent it"
            " again; status shows their feeds as broken."
        )
