"""The console for results, on stdout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from . import printable


class PrintableConsole(Console):
    """A console that makes all texts printable, but keeps rich's own codes.

    No text is taken for markup: a file may be called `[/]`, which would end the command.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """The segments of `renderable`; only rich's own codes can control the terminal."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable() or segment.text == "\n":
                yield segment
            else:
                shown = printable.text(segment.text, 10 * len(segment.text) + 1)
                yield Segment(shown, segment.style)


def console() -> PrintableConsole:
    """The console for results; without a terminal, lines are not wrapped."""
    screen = PrintableConsole()
    return screen if screen.is_terminal else PrintableConsole(width=1000)
