"""`piw-indexer history`: what happened to a package and when."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click
import msgpack
import orjson
from rich.text import Text

from ..ask import history as past
from ..ask import lookup
from ..base import names, options, printable, times
from ..base.bar import bar
from ..base.console import console
from ..base.directories import JOURNAL, refuse_missing
from ..base.errors import UsageError
from ..base.privileges import as_owner
from ..index import queries


@click.command()
@click.argument("package", metavar="PACKAGE|FILE")
@options.configuration_to_look
@options.option("state-dir")
@options.option("since")
@options.option("limit")
@options.flag("with-downloads")
@options.flag("json")
@as_owner
def history(
    package: str,
    state_dir: Path,
    since: times.Time | None,
    limit: int | None,
    with_downloads: bool,
    as_json: bool,
) -> None:
    """Show what happened to a package and when, the oldest first.

    The command reads the whole journal. Any spelling of the package's name is accepted. Of a wheel
    that is named, the contents that it has had are shown, with their builds. Times are UTC.
    """
    refuse_missing(state_dir, JOURNAL)
    name, close, counted, builds = names.canonical(package), [], [], []
    if with_downloads or (state_dir / queries.FILE).exists():
        with closing(queries.open_reader(state_dir / queries.FILE)) as connection:
            if contents := past.contents(connection, package):
                if with_downloads:
                    cause = "downloads are counted for packages only"
                    raise UsageError(f"show the downloads of {package}", cause, "name its package")
                _print_contents(contents, since, limit, as_json=as_json)
                return
            name = lookup.package_of(connection, package) or name
            close = lookup.close_to(connection, package)
            builds = queries.build_ids(connection, name)
            if with_downloads:
                counted = list(past.downloads(connection, name, since))
    with bar("reading the journal") as progress:
        events = list(past.events(state_dir / JOURNAL, name, since, progress, builds))
    named = any(event.what != "SETABIS" for event in events)
    refused = [
        event
        for event in past.refused(state_dir / JOURNAL, name)
        if since is None or event.at >= since
    ]
    if not (named or counted or refused):
        if since is None:
            raise lookup.unknown(f"show the history of {package}", package, close)
        shown = printable.line(name)
        printable.echo(f"Nothing happened to {shown} since {times.to_sql(since)}.", err=True)
        return
    # Events of the same moment stay in the order of the journal.
    every = sorted([*events, *refused, *counted], key=lambda event: event.at)
    _print(every if limit is None else every[-limit:], as_json=as_json)


def _print(events: list[past.Event], *, as_json: bool) -> None:
    screen = console()
    for event in events:
        if as_json:
            line = {**event._asdict(), "at": times.to_rfc3339(event.at)}
            printable.echo(orjson.dumps(line, default=_plain))
            continue
        # A day of downloads has no time of day.
        when = times.to_sql(event.at)
        shown = Text(when[:10].ljust(19) if event.what == "DOWNLOADED" else when, style="dim")
        shown.append(f"  {printable.line(event.words)}", style=_style(event))
        where = past.origin(event)
        if where:
            shown.append(f"  ({printable.line(where)})", style="dim")
        screen.print(shown, soft_wrap=True)


def _print_contents(
    contents: list[past.Content], since: times.Time | None, limit: int | None, *, as_json: bool
) -> None:
    earliest = "" if since is None else times.to_sql(since)
    shown = [content for content in contents if (content.built_at or "") >= earliest]
    for content in shown if limit is None else shown[-limit:]:
        if as_json:
            printable.echo(orjson.dumps(content._asdict()))
            continue
        build = f"build {content.build_id}" if content.build_id else "a build that is not known"
        present = ", the present content" if content.current else ""
        line = f"{content.filesize:,} bytes, sha256 {content.filehash}, by {build}{present}"
        printable.echo(f"{content.built_at or 'not known':19}  {line}")


def _style(event: past.Event) -> str:
    if event.what == "REFUSED" or (event.what == "LOGBUILD" and not event.data["status"]):
        return "not dim red"
    return "not dim"


def _plain(value: Any) -> Any:
    if isinstance(value, msgpack.Timestamp):
        return value.to_datetime()
    raise TypeError
