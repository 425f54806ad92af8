"""`piw-indexer ingest`: messages from files."""

from __future__ import annotations

from pathlib import Path

import click

from ..base import clock, options, printable, times
from ..base.bar import bar
from ..base.privileges import as_owner
from ..base.progress import Progress
from ..documents.publish import Publisher
from ..messages.entries import Accepted, Entry
from ..messages.jsonl import MessageFile
from ..state.state import State
from .write import publish_all

_BATCH = 5000


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@options.configuration
@options.state_to_write
@options.flag("write")
@options.option("output-path")
@options.option("site-url")
@options.option("as-of")
@as_owner
def ingest(
    files: tuple[str, ...],
    state_dir: Path,
    write: bool,
    output_path: Path,
    site_url: str,
    as_of: times.Time | None,
) -> None:
    """Accept messages from JSON-lines files; - is the standard input.

    A file may be compressed with gzip. One that was given before changes nothing, one that has
    grown since goes on where it ended, and an interrupted run continues where it stopped. If none
    of the first 1,000 lines is a message, the file is refused.
    """
    publisher = Publisher(output_path) if write else None
    opened = [MessageFile(name, clock.now) for name in files]
    with bar("catching up") as progress:
        state = State(state_dir, "ingest", clock.now, progress)
    try:
        for file in opened:
            with bar(Path(file.name).name) as progress:
                _ingest(state, file, progress)
        if publisher is not None:
            publish_all(state, publisher, site_url, as_of)
    finally:
        state.close()
        for file in opened:
            file.close()


def _ingest(state: State, file: MessageFile, progress: Progress) -> None:
    """Ingest one file, in batches."""
    after = file.known(state.journal.position)
    accepted = refused = 0
    batch: list[Entry] = []
    for entry, read in file.entries(after):
        batch.append(entry)
        refused += not isinstance(entry, Accepted)
        if len(batch) >= min(_BATCH, state.batch):
            accepted += len(state.take(batch))
            batch.clear()
            progress(read, file.size)
    accepted += len(state.take(batch))
    known = ", the rest was known" if after else ""
    quarantined = f", {refused} quarantined" if refused else ""
    name = printable.line(file.name)
    printable.echo(f"{name}: {printable.many(accepted, 'message')}{quarantined}{known}")
    if refused:
        printable.warn(
            f"not taken from {name}, because not valid: {printable.many(refused, 'line')};"
            " `piw-indexer quarantine` shows why"
        )
