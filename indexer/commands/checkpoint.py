"""`piw-indexer checkpoint`: a verified copy of the index that replaces archived months."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from ..base import options, printable
from ..base.bar import bar
from ..base.directories import JOURNAL
from ..base.errors import StateError
from ..base.privileges import as_owner
from ..check.index import check_copy
from ..index import queries
from ..journal import quarantine
from ..journal.reader import JournalReader
from ..state import checkpoint as checkpoints


@click.command("checkpoint")
@options.configuration
@options.state_to_write
@as_owner
def checkpoint(state_dir: Path) -> None:
    """Make a compact, verified copy of the index, so that old months can be archived.

    A daemon may run meanwhile. The copy is compared with a replay of the journal, or of the part
    after the last checkpoint. Then the months that may be archived are listed.
    """
    operation = f"make a checkpoint of {state_dir}"
    if not (state_dir / queries.FILE).exists():
        raise StateError(
            operation,
            "there is no index in it",
            "check --state-dir; the daemon or `piw-indexer rebuild` makes the index",
        )
    with closing(JournalReader(state_dir / JOURNAL)) as reader:
        with checkpoints.making(state_dir) as unfinished:
            copied = checkpoints.copy_index(state_dir, unfinished)
            reader.scan()  # not older than the copy
            start = checkpoints.base(state_dir, reader, copied.serial)
            scratch = unfinished.with_name(checkpoints.REPLAYED)
            with bar("verifying") as progress:
                found = check_copy(
                    state_dir, copied, scratch, lambda _, done, total: progress(done, total)
                )
                with closing(found):
                    difference = next(iter(found), None)
            if difference is not None:
                raise StateError(
                    operation,
                    f"the index is not what the journal says: {difference.what}",
                    "run `piw-indexer check --fix`, then try again",
                )
            made = checkpoints.accept(state_dir, copied, reader.journal_id)
        origin = "a replay of the journal"
        if start is not None:
            origin = f"a replay from {start.path.name} on"
        printable.echo(
            f"{options.as_typed(made.path)}: the index at serial {made.serial},"
            f" the same as {origin}"
        )
        months = reader.months_before(made.serial)
        if months:
            printable.echo("These months may be archived now (move them away, the oldest first):")
        for path in months:
            waiting = quarantine.waiting(reader, [path])
            note = f"  ({waiting} messages of the quarantine go with it)" if waiting else ""
            printable.echo(f"  {options.as_typed(path)}{note}")
            write_ahead = Path(f"{path}-wal")
            if write_ahead.exists() and write_ahead.stat().st_size:
                printable.echo(f"  {options.as_typed(write_ahead)}  (belongs to it)")
