"""`piw-indexer write`: publish what is pending."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from ..base import clock, options, printable, times
from ..base.bar import bar
from ..base.directories import refuse_missing
from ..base.privileges import as_owner
from ..documents import writer
from ..documents.publish import Publisher
from ..state.state import OURS, State


@click.command()
@options.configuration
@options.state_to_write
@options.option("output-path")
@options.option("site-url")
@options.flag("all", "Publish every document, not only what is pending.")
@options.option("as-of")
@as_owner
def write(
    state_dir: Path,
    output_path: Path,
    site_url: str,
    everything: bool,
    as_of: times.Time | None,
) -> None:
    """Publish what is pending, and exit."""
    publisher = Publisher(output_path)
    refuse_missing(state_dir, *OURS)
    with bar("catching up") as progress:
        state = State(state_dir, "write", clock.now, progress)
    with closing(state):
        publish_all(state, publisher, site_url, as_of, everything=everything)


def publish_all(
    state: State,
    publisher: Publisher,
    site_url: str,
    as_of: times.Time | None,
    *,
    everything: bool = False,
) -> None:
    """Publish what is pending in a state, and print how much was written.

    Raises PublishError if a document could not be published; its mark stays.
    """
    changed = publish(state, publisher, site_url, as_of, everything=everything)
    printable.echo(written(publisher, changed))


def publish(
    state: State,
    publisher: Publisher,
    site_url: str,
    as_of: times.Time | None,
    *,
    everything: bool = False,
) -> int:
    """The same with only a progress bar; returns how many documents were written."""
    publisher.hold()
    with closing(publisher), bar("writing") as progress:
        return writer.publish_pending(
            state.connection,
            state.index_path,
            publisher,
            site_url.rstrip("/"),
            clock.now() if as_of is None else as_of,
            everything=everything,
            progress=progress,
        )


def written(publisher: Publisher, changed: int) -> str:
    """The line that says how many documents were written."""
    return (
        f"{options.as_typed(publisher.output_path)}: {printable.many(changed, 'document')} written"
    )
