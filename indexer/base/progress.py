"""Progress bars on stderr, if that is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from .console import PrintableConsole

Advance = Callable[[int, int], None]
"""Is called with how many are done, and how many there are."""


@contextmanager
def bar(description: str) -> Iterator[Advance]:
    """A progress bar; it appears when the yielded function is first called."""
    screen = PrintableConsole(stderr=True)
    if not screen.is_terminal:
        yield lambda done, total: None
        return
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
    ) as progress:
        task = progress.add_task(description, total=None, visible=False)
        yield lambda done, total: progress.update(
            task, completed=done, total=total, visible=total > 0
        )
