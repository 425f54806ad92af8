"""Progress bars on stderr; silent where nobody watches."""

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


@contextmanager
def bar(description: str) -> Iterator[Advance]:
    """A bar with `description`; it appears with the first call of what it yields."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task(description, total=None, visible=False)
        yield lambda done, total: progress.update(
            task, completed=done, total=total, visible=total > 0
        )
