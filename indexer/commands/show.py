"""`piw-indexer show`: the status of the versions of a package on every ABI."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click
import orjson

from ..ask import lookup
from ..base import options, printable
from ..base.console import console
from ..base.privileges import as_owner
from ..index import queries
from ..screens import package as project_screen


@click.command()
@click.argument("package")
@click.argument("version", required=False)
@options.configuration_to_look
@options.option("state-dir")
@options.option("site-url")
@options.flag("all", "Show all versions, not only the newest.")
@options.flag("json")
@as_owner
def show(
    package: str,
    version: str | None,
    state_dir: Path,
    site_url: str,
    everything: bool,
    as_json: bool,
) -> None:
    """Show the build matrix of a package; with VERSION, its build attempts and files.

    Any spelling of the package's name is accepted. A terminal shows the newest 20 versions, or all
    of them with --all.
    """
    with closing(queries.open_reader(state_dir / queries.FILE)) as connection:
        known = lookup.package_of(connection, package)
        document = known and lookup.document(connection, known, site_url.rstrip("/"))
        if not document:
            close = lookup.close_to(connection, package)
            raise lookup.unknown(f"show {package}", package, close)
    versions = list(document["releases"])
    chosen = None
    if version is not None:
        chosen = lookup.version_of(versions, version)
        if chosen is None:
            raise lookup.unknown_version(document["package"], version, versions)
    if chosen is not None:
        document["releases"] = {chosen: document["releases"][chosen]}
    if as_json:
        printable.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    screen = console()
    document = printable.facts(document)
    if chosen is not None:
        [chosen] = document["releases"]
        screen.print(project_screen.details(document, chosen))
        return
    limit = None if everything or not screen.is_terminal else project_screen.FIRST
    screen.print(project_screen.matrix(document, limit, signs=screen.is_terminal))
