"""The parts of screens: panels, sparklines, bars, spans of time, sizes."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.panel import Panel
from rich.text import Text

_COLUMNS = "▁▂▃▄▅▆▇█"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Spark:
    """A sparkline: numbers as little columns, the latest at the right, as many as fit."""

    def __init__(self, numbers: Iterable[float]) -> None:
        self._numbers = tuple(numbers)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._numbers[-options.max_width :]
        highest = max(shown, default=0.0) or 1.0
        columns = (_COLUMNS[round(number / highest * (len(_COLUMNS) - 1))] for number in shown)
        yield Text("".join(columns), style="cyan", justify="right")


class Bar:
    """A bar with parts of several colours.

    Args:
        maximum: the number that fills the whole width.
        parts: (number, style), from the left.
    """

    def __init__(self, maximum: float, *parts: tuple[float, str]) -> None:
        self._maximum = maximum or 1
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bar = Text(no_wrap=True, overflow="crop")
        total = 0.0
        for number, style in self._parts:
            total += number
            bar.append("▄" * (round(total / self._maximum * options.max_width) - len(bar)), style)
        yield bar


def panel(title: str, content: RenderableType, rows: int | None = None) -> Panel:
    """Something in a frame, `rows` lines high or as high as its content."""
    return Panel(
        content,
        title=Text(title, "bold"),
        title_align="left",
        border_style="dim",
        box=box.ROUNDED,
        height=None if rows is None else rows + 2,
    )


def span(seconds: float) -> str:
    """A duration in at most two units: `8 s`, `2 min 5 s`, `3 h 20 min`, `4 d 3 h`."""
    left = round(seconds)
    if left < 60:
        return f"{left} s"
    for larger, smaller, name, part in ((60, 1, "min", "s"), (3600, 60, "h", "min")):
        if left < larger * (60 if name == "min" else 24):
            return _two(left // larger, name, left % larger // smaller, part)
    return _two(left // 86400, "d", left % 86400 // 3600, "h")


def _two(large: int, name: str, small: int, part: str) -> str:
    return f"{large:,} {name} {small} {part}" if small else f"{large:,} {name}"


def size(bytes_: float) -> str:
    """A size in the largest unit that keeps it at 1 or above: `21 GiB`, `1.5 MiB`."""
    for unit in _UNITS:
        if bytes_ < 1000 or unit == _UNITS[-1]:
            break
        bytes_ /= 1024
    return f"{bytes_:.0f} {unit}" if bytes_ >= 10 or unit == "B" else f"{bytes_:.1f} {unit}"
