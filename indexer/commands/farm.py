"""`piw-indexer farm`: the live farm, on a screen that updates itself, or printed once."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import orjson
from rich.live import Live

from ..base import clock, options, printable
from ..base.console import console
from ..base.errors import PeerError
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..screens import farm as farm_screen
from ..watch.status import live_farm

INTERVAL = 1.0
"""Seconds between two looks at the daemon, which reports its status once a second."""


@click.command()
@options.configuration_to_look
@options.option("state-dir")
@options.flag("json")
@as_owner
def farm(state_dir: Path, as_json: bool) -> None:
    """Show what each build slave is doing, its load and health, and the latest builds.

    On a terminal the screen updates itself until Ctrl-C; elsewhere the farm is printed once. This
    needs a running daemon with --status-queue.
    """
    shown = live_farm(state_dir, clock.now())
    if as_json:
        printable.echo(orjson.dumps(shown.as_data(), option=orjson.OPT_INDENT_2))
        return
    screen = console()
    if not screen.is_terminal:
        screen.print(farm_screen.plain(printable.facts(shown.farm), screen.width))
        return
    with (
        Interruption(signal.SIGINT) as interruption,
        Live(console=screen, screen=True, auto_refresh=False) as live,
    ):
        while not interruption.wished:
            farm = printable.facts(shown.farm)
            note = shown.problems[0].partition("\n")[0] if shown.problems else ""
            live.update(farm_screen.frame(farm, note, *screen.size), refresh=True)
            interruption.wait(INTERVAL)
            try:
                shown = live_farm(state_dir, clock.now())
            except PeerError as error:
                shown = shown._replace(problems=[error.cause])  # the daemon may be restarting
