"""`piw-indexer status`: is it well, and if not, what to do; on one screen, or for monitoring."""

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
    """Is it well, and if not, what to do? Then serials, feeds, what is pending and more.

    With --monitor one line for Nagios, Icinga and the like, and their exit status: 0 OK, 1
    WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    if monitor:
        if as_json:
            raise UsageError("show the status", "--json and --monitor are given", "give one")
        return _monitor(state_dir)
    become_owner(state_dir, only_to_look=True)
    found = gather(state_dir, clock.now())
    if as_json:
        import orjson

        printable.echo(orjson.dumps(notes.plain(found), option=orjson.OPT_INDENT_2))
        return 0
    # What draws screens takes longer to import than everything else, and monitoring needs none.
    from ..base.progress import console
    from ..screens import status as status_screen

    screen = console()
    width = screen.width if screen.is_terminal else 100
    screen.print(status_screen.screen(printable.facts(found), width))
    return 0


def _monitor(state_dir: Path) -> int:
    try:
        become_owner(state_dir, only_to_look=True)
        line, code = nagios.line(gather(state_dir, clock.now(), counting=False))
    except StateError as error:
        line, code = nagios.unknown(error)
    printable.echo(line)
    return code
