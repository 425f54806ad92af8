"""Where things are printed: results on stdout, progress bars on stderr if somebody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from . import printable

Advance = Callable[[int, int], None]
"""Is told how many of how many are done."""


class PrintableConsole(Console):
    """A console whose texts are printable, whoever wrote them; its own codes are untouched."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of `renderable`, in which nothing but rich's own codes steers a terminal."""
        for one in super().render(renderable, options):
            if one.control or one.text.isprintable() or one.text == "\n":
                yield one
            else:
                shown = printable.text(one.text, 10 * len(one.text) + 1)
                yield Segment(shown, one.style)


def console() -> PrintableConsole:
    """Where results are printed: as wide as they are, where no terminal sets a width."""
    found = PrintableConsole(highlight=False)
    return found if found.is_terminal else PrintableConsole(highlight=False, width=1000)


@contextmanager
def bar(description: str) -> Iterator[Advance]:
    """A bar with `description`; it appears with the first call of what it yields."""
    screen = PrintableConsole(stderr=True)
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
