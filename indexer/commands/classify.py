"""`piw-indexer classify`: why builds failed, from the logs that a master keeps."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import click

from ..base import clock, notes, options, printable
from ..base.bar import bar
from ..base.errors import UsageError
from ..base.privileges import as_owner
from ..base.progress import Progress
from ..messages.entries import Accepted, Entry
from ..piwheels import log_files
from ..reasons.note import NOTE, VERSION, Note, reading
from ..state.state import State

_CHUNK = 1000
"""Numbers of builds that are looked at, and committed, together."""

MAX_SHOWN = 20


@click.command()
@click.argument("directory", type=options.PathType(file_okay=False))
@options.configuration
@options.option("state-dir")
@options.flag("again")
@as_owner
def classify(directory: Path, state_dir: Path, again: bool) -> None:
    """Find out from their logs why builds failed.

    DIRECTORY is the master's `logs`, with files such as 0001/2345/6789.txt.gz. Only builds whose
    reason is not known are looked at. When a new version has better rules, --again reads all logs,
    and says which reasons have changed.

    An interrupted run continues where it stopped. The daemon must be stopped; `run --logs` does the
    same while it runs.
    """
    if fault := log_files.fault_of(directory):
        where = options.as_typed(directory)
        remedy = "name the master's `logs`, and see that it is mounted"
        raise UsageError(f"read the logs of failed builds in {where}", fault, remedy)
    with closing(State(state_dir, "classify", clock.now)) as state:
        note = reading(state_dir)
        with bar("builds") as progress:
            counts, changed = _take(state, directory, note if again else None, progress)
        if again:
            notes.leave(state_dir / NOTE, Note(VERSION))
    printable.echo(
        f"{options.as_typed(directory)}: {printable.many(counts['read'], 'log')} of failed builds"
        f" read with rules {VERSION}; reasons: {counts['new']:,} new, {changed.total():,} changed;"
        f" {printable.many(counts['missing'], 'build')} without a log"
    )
    for (before, after), number in sorted(changed.most_common(MAX_SHOWN), key=_by_number):
        printable.echo(f"  {number:,}: {before} -> {after}")
    if not again and note.outdated:
        printable.warn(
            f"earlier logs were read with rules {note.read_with}; --again reads them anew"
        )


def _by_number(change: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -change[1], change[0]


def _take(
    state: State, directory: Path, again: Note | None, progress: Progress
) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Read logs; with a note of an earlier run, also those of builds whose reason is known.

    Returns:
        what was done, and how many reasons of one category now have another one.
    """
    counts: Counter[str] = Counter()
    changed: Counter[tuple[str, str]] = Counter()
    newest = log_files.newest(state.connection)
    after = again.again_after if again and again.rules == VERSION else 0
    while after < newest:
        batch: list[Entry] = []
        until = after + _CHUNK
        builds = log_files.failed(state.connection, after, until, again=again is not None)
        for build_id, known in builds:
            failure = log_files.read(log_files.path_of(directory, build_id))
            counts["missing" if failure is None else "read"] += 1
            if failure is not None and failure != known:
                batch.append(Accepted(None, log_files.message(build_id, failure)))
                if known is None:
                    counts["new"] += 1
                else:
                    changed[known.category, failure.category] += 1
        state.take(batch)
        after = until
        if again is not None:
            place = again._replace(rules=VERSION, again_after=after)
            notes.leave(state.directory / NOTE, place)
        progress(min(after, newest), newest)
    return counts, changed
