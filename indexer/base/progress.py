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
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                shown = printable.text(segment.text, 10 * len(segment.text) + 1)
                yield Segment(shown, segment.style)


def console() -> PrintableConsole:
    """Where results are printed: as wide as they are, where no terminal sets a width."""
    screen = PrintableConsole(highlight=False)
    return screen if screen.is_terminal else PrintableConsole(highlight=False, width=1000)


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
