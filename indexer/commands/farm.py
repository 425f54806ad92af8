"""`piw-indexer farm`: the live farm, on a screen that goes on, or once."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import orjson
from rich.live import Live

from ..base import clock, options, printable
from ..base.errors import PeerError
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..base.progress import console
from ..screens import farm as farm_screen
from ..watch.status import live_farm

EVERY = 1.0
"""Seconds between two looks at the daemon, which reports its state once a second."""


@click.command()
@options.configuration_to_look
@options.option("state-dir")
@options.flag("json")
@as_owner
def farm(state_dir: Path, as_json: bool) -> None:
    """The build slaves: what each is doing, its load and health, and the latest builds.

    A live screen on a terminal, until Ctrl-C; once elsewhere. A daemon has to run, with
    --status-queue.
    """
    found = live_farm(state_dir, clock.now())
    if as_json:
        printable.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    screen = console()
    if not screen.is_terminal:
        screen.print(farm_screen.plain(printable.facts(found), screen.width))
        return
    with (
        Interruption(signal.SIGINT) as interruption,
        Live(console=screen, screen=True, auto_refresh=False) as live,
    ):
        while not interruption.wished:
            note = found["problems"][0].partition("\n")[0] if found["problems"] else ""
            shown = farm_screen.frame(printable.facts(found), note, screen.width, screen.height)
            live.update(shown, refresh=True)
            interruption.wait(EVERY)
            try:
                found = live_farm(state_dir, clock.now())
            except PeerError as error:
                found["problems"] = [error.cause]  # it may be starting anew
