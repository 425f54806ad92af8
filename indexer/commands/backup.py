"""`piw-indexer backup`: a copy of the state while the daemon runs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..base import clock, notes, options, printable, times
from ..base.bar import bar
from ..base.directories import BACKUP, BACKUP_FAILURE, JOURNAL, SPOOL
from ..base.errors import IndexerError
from ..base.privileges import as_owner
from ..state import backup as backups
from ..watch.notes import Backup as BackupNote
from ..watch.notes import BackupFailure


@click.command()
@click.argument("directory", metavar="DIRECTORY", type=options.PathType(file_okay=False))
@options.configuration
@options.option("state-dir")
@as_owner
def backup(directory: Path, state_dir: Path) -> None:
    """Copy the journal, the newest checkpoint and a publisher's spool, and verify the copies.

    A daemon and a publisher may run meanwhile. The next backup to the same directory copies only
    what has changed. To restore, use a copy of the directory as --state-dir; the index is rebuilt
    then.
    """
    place = os.path.realpath(directory)
    try:
        with bar("copying") as progress:
            turn = clock.now() // (24 * times.HOUR)
            done = backups.backup(state_dir, JOURNAL, SPOOL, directory, progress, turn)
    except IndexerError as error:
        if (state_dir / JOURNAL).is_dir():
            failure = BackupFailure(clock.now(), place, *error.problem)
            notes.leave(state_dir / BACKUP_FAILURE, failure)
        raise
    _forget_failure(state_dir / BACKUP_FAILURE, place)
    if done.journal is not None:
        note = BackupNote(clock.now(), place, done.journal.last)
        notes.leave(state_dir / BACKUP, note)
        kept = done.checkpoint
        also = f", and a checkpoint at serial {kept.serial}" if kept is not None else ""
        printable.echo(f"{options.as_typed(directory)}: {_said(done.journal)}{also}")
    if done.spool is not None:
        printable.echo(f"{options.as_typed(directory / SPOOL)}: {_said(done.spool)}")


def _forget_failure(path: Path, place: str) -> None:
    """Remove the note of a failed backup to the same directory."""
    try:
        failure = notes.read(path, BackupFailure)
    except notes.NoteError:
        failure = None  # it is of no use
    else:
        if failure is None or failure.directory != place:
            return
    path.unlink(missing_ok=True)


def _said(done: backups.Copied) -> str:
    held = f"messages {done.first} to {done.last}" if done.last >= done.first else "no messages"
    return f"{done.copied} months copied, {done.unchanged} unchanged; it holds {held}"
