"""`piw-indexer farm`: the live farm, on a screen that goes on, or once."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.live import Live

from .. import clock, config, farm_screen
from ..errors import PeerError
from ..progress import console
from ..status import live_farm

EVERY = 1.0
"""Seconds between two looks at the daemon, which says how it stands once a second."""


@click.command()
@config.configuration_to_look
@config.option("state-dir")
@config.flag("json")
def farm(state_dir: Path, as_json: bool) -> None:
    """The build slaves: what each is doing, its load and health, and the latest builds.

    A live screen on a terminal, until Ctrl-C; once elsewhere. A daemon has to run, with
    --status-queue.
    """
    found = live_farm(state_dir, clock.now())
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    screen = console()
    if not screen.is_terminal:
        screen.print(farm_screen.plain(found, screen.width))
        return
    ended = threading.Event()
    # An exception out of a signal may be lost, where one cannot be raised, and the screen stays.
    before = signal.signal(signal.SIGINT, lambda *_: ended.set())
    try:
        _watch(state_dir, found, screen, ended)
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(state_dir: Path, found: dict[str, Any], screen: Console, ended: threading.Event) -> None:
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        while not ended.is_set():
            note = "\n".join(found["problems"])
            live.update(farm_screen.frame(found, note, screen.width, screen.height), refresh=True)
            ended.wait(EVERY)
            try:
                found = live_farm(state_dir, clock.now())
            except PeerError as error:
                found["problems"] = [error.cause]  # it may be starting anew
