"""`piw-indexer status`: whether all is well, and what to do if not; for people and monitoring."""

from __future__ import annotations

from pathlib import Path

import click

from ..base import clock, notes, options, printable
from ..base.errors import StateError, UsageError
from ..base.privileges import become_owner
from ..watch import nagios
from ..watch.status import gather


@click.command()
@options.configuration_to_look
@options.option("state-dir")
@options.flag("json")
@options.flag("monitor")
def status(state_dir: Path, as_json: bool, monitor: bool) -> int:
    """Say whether all is well, and what to do if not; then show serials, feeds, lag and more.

    --monitor prints one line for Nagios, Icinga and the like, and uses their exit status: 0 OK,
    1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    if monitor:
        if as_json:
            raise UsageError("show the status", "--json and --monitor are given", "give one")
        return _monitor(state_dir)
    if as_json:
        _print_json(state_dir)
    else:
        _print_screen(state_dir)
    return 0


# What prints JSON or draws a screen takes long to import, and monitoring needs none of it. It is
# imported before root becomes a user who may not read Python's files.


def _print_json(state_dir: Path) -> None:
    import orjson

    become_owner(state_dir, only_to_look=True)
    data = notes.plain(gather(state_dir, clock.now()))
    printable.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def _print_screen(state_dir: Path) -> None:
    from ..base.console import console
    from ..screens import status as status_screen

    become_owner(state_dir, only_to_look=True)
    status = printable.facts(gather(state_dir, clock.now()))
    screen = console()
    screen.print(status_screen.screen(status, screen.width if screen.is_terminal else 100))


def _monitor(state_dir: Path) -> int:
    try:
        become_owner(state_dir, only_to_look=True)
        line, code = nagios.line(gather(state_dir, clock.now(), counting=False))
    except StateError as error:
        line, code = nagios.unknown(error)
    printable.echo(line)
    return code
