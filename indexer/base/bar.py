"""Progress bars on stderr, if that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as columns

from .console import PrintableConsole
from .progress import Progress, silent


@contextmanager
def bar(description: str) -> Iterator[Progress]:
    """A progress bar; it appears when the yielded function is first called."""
    screen = PrintableConsole(stderr=True)
    if not screen.is_terminal:
        yield silent
        return
    with columns.Progress(
        columns.TextColumn("{task.description}", markup=False),
        columns.BarColumn(),
        columns.MofNCompleteColumn(),
        columns.TimeRemainingColumn(),
        console=screen,
    ) as progress:
        task = progress.add_task(description, total=None, visible=False)
        yield lambda done, total: progress.update(
            task, completed=done, total=total, visible=total > 0
        )
