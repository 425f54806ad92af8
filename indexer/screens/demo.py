"""How the demo looks: a screen that is drawn again and again, or a line now and then.

Pure: a `Picture` in, something that rich can print out.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..base import times
from .parts import Bar, Spark, panel

PHASES = {
    "starting": "the daemon starts",
    "history": "its past, as fast as it goes",
    "live": "live",
    "settling": "the last documents are written",
    "done": "the story is told",
    "interrupted": "interrupted",
}

_FIXED = 11  # lines of the screen that are always there


class Picture(NamedTuple):
    """How the demo stands at one moment.

    Attributes:
        phase: "starting", "history", "live", "settling", "done" or "interrupted".
        elapsed: seconds since the start.
        progress: of the phase, 0 to 1.
        farm_time: how far the farm's life is told; None at the beginning.
        published: messages sent.
        applied: messages in the index.
        pending: documents to be written.
        written: documents written so far.
        rate: messages a second that the index took of late.
        rates: the same, every half second, the oldest first; of this phase only.
        recent: the names published last, the latest first.
        trouble: what keeps the daemon from its work; empty if nothing does.
        details: what the index tells of the farm.
    """

    phase: str
    elapsed: float
    progress: float
    farm_time: times.Time | None
    published: int
    applied: int
    pending: int
    written: int
    rate: float
    rates: tuple[float, ...]
    recent: tuple[str, ...]
    trouble: str
    details: Details

    @property
    def lag(self) -> int:
        """Messages that were sent and are not in the index."""
        return max(0, self.published - self.applied)


class Details(NamedTuple):
    """What the index tells of the farm.

    Attributes:
        abis: (abi_tag, builds, failures)
        slaves: (slave_id, builds, failures)
        builds: (status, package, version, abi_tag, duration), the latest first
        top: (package, downloads in the last 30 days)
        packages: number
        downloads: number, ever
    """

    abis: list[tuple[str, int, int]]
    slaves: list[tuple[int, int, int]]
    builds: list[tuple[str, str, str, str, float]]
    top: list[tuple[str, int]]
    packages: int
    downloads: int


def line(picture: Picture) -> str:
    """One line of progress, for a log."""
    when = "" if picture.farm_time is None else f"  farm at {_clock(picture.farm_time)}"
    trouble = f"  TROUBLE: {picture.trouble}" if picture.trouble else ""
    return (
        f"{picture.elapsed:5.1f} s  {picture.phase:8}"
        f"  published {picture.published:,}  accepted {picture.applied:,}"
        f"  {picture.rate:,.0f}/s  lag {picture.lag:,}  pending {picture.pending:,}"
        f"  documents {picture.written:,}{when}{trouble}"
    )


def frame(picture: Picture, title: str, height: int) -> RenderableType:
    """The whole screen.

    Args:
        picture: what it shows.
        title: what farm it is.
        height: lines that there are.
    """
    room = height - _FIXED
    upper = max(5, min(15, room - room // 3))
    lower = max(2, min(10, room - upper))
    body = Table.grid(expand=True, padding=(0, 1, 0, 0))
    body.add_column(ratio=1)
    body.add_column(ratio=1)
    body.add_row(_farm(picture, upper), _top(picture, upper))
    body.add_row(_builds(picture, lower), _published(picture, lower))
    return Group(_head(picture, title), _river(picture), body)


def _head(picture: Picture, title: str) -> Table:
    seconds = int(picture.elapsed)
    stands = Text.assemble(
        (PHASES[picture.phase], "bold green" if picture.phase == "live" else "yellow"),
        f"  {seconds // 60}:{seconds % 60:02d}",
        ("" if picture.phase in ("done", "interrupted") else "  Ctrl-C ends", "dim"),
    )
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True, ratio=1)
    head.add_column(no_wrap=True, min_width=stands.cell_len)
    head.add_row(Text.assemble(("piw-indexer", "bold magenta"), f"  {title}"), stands)
    return head


def _river(picture: Picture) -> Panel:
    """The stages that a message passes, with how many are there."""
    stages = Table.grid(expand=True)
    for _ in range(4):
        stages.add_column(ratio=3, justify="center", no_wrap=True)
        stages.add_column(ratio=1, justify="center", no_wrap=True)
    names: list[RenderableType] = []
    numbers: list[RenderableType] = []
    for name, number, style in (
        ("published", picture.published, "cyan"),
        ("in the index", picture.applied, "green"),
        ("pages waiting", picture.pending, "yellow" if picture.pending else "dim"),
        ("pages written", picture.written, "magenta"),
    ):
        names += [Text(name, style="dim"), Text("→", style="dim")]
        numbers += [Text(f"{number:,}", style=f"bold {style}"), Text("")]
    stages.add_row(*names[:-1])
    stages.add_row(*numbers[:-1])
    speed = Table.grid(expand=True, padding=(0, 1))
    speed.add_column(no_wrap=True)
    speed.add_column(no_wrap=True, ratio=1)
    speed.add_column(no_wrap=True)
    lag = Text(f"{picture.lag:,} behind", style="yellow" if picture.lag > 1000 else "green")
    if picture.trouble:
        lag = Text(picture.trouble.splitlines()[0], style="bold red")
    speed.add_row(
        Text.assemble((f"{picture.rate:7,.0f}", "bold"), (" messages/s", "dim")),
        Spark(picture.rates),
        lag,
    )
    return panel("the river", Group(stages, Text(""), speed))


def _farm(picture: Picture, rows: int) -> Panel:
    details = picture.details
    when = Table.grid(expand=True, padding=(0, 1, 0, 0))
    when.add_column(no_wrap=True)
    when.add_column(ratio=1)
    when.add_row(
        Text("its clock" if picture.farm_time is None else _clock(picture.farm_time), "bold"),
        ProgressBar(1.0, picture.progress, complete_style="magenta", finished_style="magenta"),
    )
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True, justify="right")
    table.add_column(ratio=1)
    table.add_row("", Text("builds", "dim"), Text("failed", "dim"))
    abis = [(abi_tag, builds, failed, "cyan") for abi_tag, builds, failed in details.abis]
    slaves = [(f"slave {number}", builds, failed, "") for number, builds, failed in details.slaves]
    for rows_of in (sorted(abis, key=lambda row: (len(row[0]), row[0])), slaves):
        most = max((row[1] for row in rows_of), default=1)
        for name, builds, failed, style in rows_of:
            table.add_row(
                Text(name, style),
                f"{builds:,}",
                Text(f"{failed:,}", "red"),
                Bar(most, (builds - failed, "green"), (failed, "red")),
            )
    counts = Text.assemble(
        (f"{details.packages:,}", "bold"), (" packages   ", "dim"),
        (f"{details.downloads:,}", "bold"), (" downloads", "dim"),
    )  # fmt: skip
    return panel("the farm", Group(when, counts, table), rows)


def _top(picture: Picture, rows: int) -> Panel:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(ratio=1)
    top = picture.details.top[:rows]
    most = max((count for _, count in top), default=1) or 1
    for package, count in top:
        table.add_row(
            Text(package),
            Text(f"{count:,}", "bold"),
            Bar(most, (count, "cyan")),
        )
    return panel("downloads, last 30 days", table, rows)


def _builds(picture: Picture, rows: int) -> Panel:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for status, package, version, abi_tag, duration in picture.details.builds[:rows]:
        good = status == "success"
        table.add_row(
            Text("✓" if good else "✗", "green" if good else "bold red"),
            Text.assemble(package, (f" {version}", "dim")),
            Text(abi_tag, "cyan"),
            Text(f"{duration:,.0f} s", "dim"),
        )
    return panel("latest builds", table, rows)


def _published(picture: Picture, rows: int) -> Panel:
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for name in picture.recent[:rows]:
        table.add_row(Text.assemble(("project/", "dim"), name, ("/json/index.json", "dim")))
    return panel("just published", table, rows)


def _clock(farm_time: times.Time) -> str:
    return times.to_sql(farm_time)[:16]
