"""`piw-indexer top`: the state of the indexer, on a screen that updates itself."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.live import Live

from ..base import clock, options, printable
from ..base.errors import StateError
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..base.progress import PrintableConsole, console
from ..screens import top as top_screen
from ..watch.status import gather, unreadable

EVERY = 1.0
"""Seconds between two looks: the daemon reports its state once a second."""

KEPT = 300
"""Rates that are remembered."""

PLAIN = (100, 40)
"""Columns and lines of the one frame where there is no terminal."""


@click.command()
@options.configuration_to_look
@options.option("state-dir")
@as_owner
def top(state_dir: Path) -> None:
    """Show the state live: the verdict, feeds, throughput, what waits, what was published last.

    On a terminal it updates itself until q or Ctrl-C; elsewhere it prints once. It works without
    the daemon, too.
    """
    rates: deque[float] = deque(maxlen=KEPT)
    found = _look(state_dir, rates)  # what cannot be read at first is an error
    screen = console()
    if not screen.is_terminal:
        screen = PrintableConsole(width=PLAIN[0])
        screen.print(top_screen.frame(found, rates, *PLAIN))
        return
    with (
        Interruption(signal.SIGINT) as interruption,
        _keys() as keys,
        Live(console=screen, screen=True, auto_refresh=False) as live,
    ):
        live.update(top_screen.frame(found, rates, *screen.size), refresh=True)
        while not interruption.wished:
            if interruption.wait(EVERY, *keys):
                pressed = os.read(keys[0], 100)
                if not pressed or b"q" in pressed.lower():
                    break
            live.update(_drawn(state_dir, rates, screen), refresh=True)


def _look(state_dir: Path, rates: deque[float]) -> dict[str, Any]:
    found: dict[str, Any] = printable.facts(gather(state_dir, clock.now(), counting=False))
    rates.append(found["daemon"]["rate"] if found["daemon"] else 0.0)
    return found


def _drawn(state_dir: Path, rates: deque[float], screen: PrintableConsole) -> RenderableType:
    try:
        return top_screen.frame(_look(state_dir, rates), rates, *screen.size)
    except StateError as error:  # it may be rebuilt at the moment
        alert = unreadable(error)
        return top_screen.unreadable(alert.what, alert.remedy)


@contextmanager
def _keys() -> Iterator[list[int]]:
    """Where pressed keys can be read at once: a descriptor, or none where nobody types."""
    if not sys.stdin.isatty():
        yield []
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield [sys.stdin.fileno()]
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
