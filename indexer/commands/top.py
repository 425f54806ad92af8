"""`piw-indexer top`: how it stands, on a screen that goes on."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.live import Live

from .. import clock, config, top_screen
from ..errors import StateError
from ..progress import console
from ..status import gather, unreadable

EVERY = 1.0
"""Seconds between two looks: the daemon says how it stands once a second."""

KEPT = 300
"""Rates that are remembered."""

PLAIN = (100, 40)
"""Columns and lines of the one frame where there is no terminal."""


@click.command()
@config.configuration_to_look
@config.option("state-dir")
def top(state_dir: Path) -> None:
    """How it stands, live: the verdict, feeds, throughput, what waits, what was published last.

    A screen that goes on, on a terminal, until q or Ctrl-C; once elsewhere. It works without the
    daemon, too.
    """
    rates: deque[float] = deque(maxlen=KEPT)
    found = _look(state_dir, rates)  # what cannot be read at first is an error
    screen = console()
    if not screen.is_terminal:
        Console(highlight=False, width=PLAIN[0]).print(top_screen.frame(found, rates, *PLAIN))
        return
    try:
        with _keys() as ends, Live(console=screen, screen=True, auto_refresh=False) as live:
            live.update(top_screen.frame(found, rates, *screen.size), refresh=True)
            while not ends():
                live.update(_drawn(state_dir, rates, screen), refresh=True)
    except KeyboardInterrupt:
        pass  # that is how it ends


def _look(state_dir: Path, rates: deque[float]) -> dict[str, Any]:
    found = gather(state_dir, clock.now(), counting=False)
    rates.append(found["daemon"]["rate"] if found["daemon"] else 0.0)
    return found


def _drawn(state_dir: Path, rates: deque[float], screen: Console) -> RenderableType:
    try:
        return top_screen.frame(_look(state_dir, rates), rates, *screen.size)
    except StateError as error:  # it may be rebuilt at the moment
        alert = unreadable(error)
        return top_screen.unreadable(alert.what, alert.remedy)


@contextmanager
def _keys() -> Iterator[Callable[[], bool]]:
    """What waits for a key, a second at most; true if that was q."""
    if not sys.stdin.isatty():

        def wait() -> bool:
            clock.sleep(EVERY)
            return False

        yield wait
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)

    def pressed() -> bool:
        if not select.select([sys.stdin], [], [], EVERY)[0]:
            return False
        keys = os.read(sys.stdin.fileno(), 100)
        return not keys or b"q" in keys.lower()

    try:
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
