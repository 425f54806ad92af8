"""Where things are printed: results on stdout, progress bars on stderr if somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, int], None]
"""Is told how many of how many are done."""


def console() -> Console:
    """Where results are printed: as wide as they are, where no terminal sets a width."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=1000)


@contextmanager
def bar(description: str) -> Iterator[Advance]:
    """A bar with `description`; it appears with the first call of what it yields."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda done, total: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
    ) as progress:
        task = progress.add_task(description, total=None, visible=False)
        yield lambda done, total: progress.update(
            task, completed=done, total=total, visible=total > 0
        )
