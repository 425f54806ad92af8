"""`piw-indexer backup`: a copy of the state while the daemon runs."""

from __future__ import annotations

from pathlib import Path

import click

from .. import backup as backups
from .. import config
from ..progress import bar
from ..state import JOURNAL


@click.command()
@click.argument("directory", metavar="DIRECTORY", type=click.Path(file_okay=False, path_type=Path))
@config.configuration
@config.option("state-dir")
def backup(directory: Path, state_dir: Path) -> None:
    """Copy the journal and the newest checkpoint to a directory, verified.

    A daemon may run meanwhile. The next backup to the same directory copies what has changed. To
    restore, use (a copy of) the directory as --state-dir; the index is made anew then.
    """
    with bar("copying") as progress:
        done = backups.backup(state_dir, JOURNAL, directory, progress)
    held = f"messages {done.first} to {done.last}" if done.last >= done.first else "no messages"
    if done.checkpoint is not None:
        held += f", and a checkpoint at serial {done.checkpoint.serial}"
    click.echo(
        f"{directory}: {done.copied} months copied, {done.unchanged} unchanged; it holds {held}"
    )
