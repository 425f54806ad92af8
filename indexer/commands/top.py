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

import click
from rich.console import RenderableType
from rich.live import Live

from ..base import clock, options, printable
from ..base.console import PrintableConsole, console
from ..base.errors import StateError
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..screens import top as top_screen
from ..watch.status import Status, gather, unreadable

INTERVAL = 1.0
"""Seconds between two looks: the daemon reports its status once a second."""

MAX_RATES = 300
"""Rates that the curve can show."""

PLAIN = (100, 40)
"""Columns and lines of the one frame where there is no terminal."""


@click.command()
@options.configuration_to_look
@options.option("state-dir")
@as_owner
def top(state_dir: Path) -> None:
    """Show the status on a live screen: the verdict, throughput, feeds, the latest documents.

    On a terminal the screen updates itself until q or Ctrl-C; elsewhere it is printed once. It also
    works without the daemon.
    """
    rates: deque[float] = deque(maxlen=MAX_RATES)
    status = _look(state_dir, rates)  # an unreadable state is an error only at the start
    screen = console()
    if not screen.is_terminal:
        screen = PrintableConsole(width=PLAIN[0])
        screen.print(top_screen.frame(status, rates, PLAIN[1]))
        return
    with (
        Interruption(signal.SIGINT) as interruption,
        _keys() as keys,
        Live(console=screen, screen=True, auto_refresh=False) as live,
    ):
        live.update(top_screen.frame(status, rates, screen.height), refresh=True)
        while not interruption.wished:
            if interruption.wait(INTERVAL, *keys):
                pressed = os.read(keys[0], 100)
                if not pressed or b"q" in pressed.lower():
                    break
            live.update(_drawn(state_dir, rates, screen), refresh=True)


def _look(state_dir: Path, rates: deque[float]) -> Status:
    status: Status = printable.facts(gather(state_dir, clock.now(), counting=False))
    rates.append(status.daemon.live.rate if status.daemon else 0.0)
    return status


def _drawn(state_dir: Path, rates: deque[float], screen: PrintableConsole) -> RenderableType:
    try:
        return top_screen.frame(_look(state_dir, rates), rates, screen.height)
    except StateError as error:  # the index may be rebuilt at this moment
        alert = unreadable(error)
        return top_screen.unreadable(alert.what, alert.remedy)


@contextmanager
def _keys() -> Iterator[list[int]]:
    """The descriptor from which pressed keys can be read; empty if stdin is not a terminal."""
    if not sys.stdin.isatty():
        yield []
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield [sys.stdin.fileno()]
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
