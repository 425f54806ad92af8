"""`piw-indexer import-site`: packages from a published site, without its master."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click
import orjson

from ..base import clock, filesystem, options, printable
from ..base.bar import bar
from ..base.errors import DecodeError
from ..base.privileges import as_owner
from ..base.progress import Progress
from ..index import queries
from ..messages.entries import Accepted, Entry
from ..messages.redact import refused
from ..piwheels.backfill import from_site as sites
from ..piwheels.compare import Comparer
from ..state.state import State

_BATCH = 500


@click.command("import-site")
@click.argument("site", type=options.PathType(file_okay=False))
@options.configuration
@options.state_to_write
@as_owner
def import_site(site: Path, state_dir: Path) -> None:
    """Import packages and counters from the documents below SITE, the root of a piwheels site.

    The documents may be of any age. One that is unusable is quarantined, as is a row of
    packages.json; the others are imported. Packages with the same content are skipped, so the
    command can be repeated. The build ABIs are those of the index, or else those that the files
    and documents name.
    """
    documents = sites.packages(site)
    with closing(State(state_dir, "import-site", clock.now)) as state:
        with bar("documents") as progress:
            taken, unusable = _take_documents(state, site, documents, progress)
        counted, odd, unreadable = _take_counters(state, site / sites.COUNTERS)
    printable.echo(
        f"{options.as_typed(site)}: {printable.many(len(documents), 'document')}, {taken:,} of them"
        f" new, {printable.many(counted, 'counter')} taken"
    )
    for number, noun, missing in (
        (unusable, "document", "the packages"),
        (odd, "row", f"counters of {sites.COUNTERS}"),
        (unreadable, sites.COUNTERS, "all counters"),
    ):
        if number:
            printable.warn(
                f"{printable.many(number, f'unusable {noun}')}, so that {missing} are"
                " missing; `piw-indexer quarantine` shows why"
            )


def _take_documents(
    state: State, site: Path, documents: list[Path], progress: Progress
) -> tuple[int, int]:
    spellings = sites.aliases(site)
    comparer = Comparer(state.connection)
    taken = unusable = 0
    batch: list[Entry] = []
    for number, path in enumerate(documents, 1):
        content = b""
        package = path.parent.parent.name
        try:
            content = _read(path)
            found = sites.snapshot(content, spellings.get(package, []), clock.now())
            if comparer.differences(found):
                batch.append(Accepted(None, found))
                taken += 1
        except DecodeError as error:
            batch.append(refused(None, str(path), "json", error, content))
            unusable += 1
        if len(batch) == _BATCH:
            state.take(batch)
            batch.clear()
        progress(number, len(documents))
    state.take(batch)
    comparer.close()
    return taken, unusable


def _take_counters(state: State, path: Path) -> tuple[int, int, int]:
    """Counters that were taken, rows that are unusable, and whether the whole file is."""
    if not path.is_file():
        return 0, 0, 0
    known = dict(
        state.connection.execute("SELECT package, downloads_all FROM download_counts").fetchall()
    )
    content = b""
    try:
        content = _read(path)
        rows = sites.rows(content)
    except DecodeError as error:
        state.take([refused(None, str(path), "json", error, content)])
        return 0, 0, 1
    taken = unusable = 0
    batch: list[Entry] = []
    for number, row in enumerate(rows):
        try:
            message = sites.counters(row, number, clock.now())
            package, ever, _ = message.data
            if queries.is_package(state.connection, package) and known.get(package, 0) != ever:
                batch.append(Accepted(None, message))
                taken += 1
        except DecodeError as error:
            batch.append(refused(None, str(path), "json", error, orjson.dumps(row)))
            unusable += 1
        if len(batch) == _BATCH:
            state.take(batch)
            batch.clear()
    state.take(batch)
    return taken, unusable, 0


def _read(path: Path) -> bytes:
    """The content of a document, or of the target of a link in its place.

    Raises DecodeError if it cannot be read.
    """
    try:
        return filesystem.read_linked(path, filesystem.MAX_DOCUMENT)
    except OSError as error:
        raise DecodeError("", f"cannot be read: {error.strerror or error}") from error
