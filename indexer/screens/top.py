"""The screen of `top` and of the demo: drawn again and again.

Pure functions from a `Status` and earlier rates to something that rich can print.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..base import times
from ..base.printable import many
from ..watch.status import Status
from . import farm as farm_screen
from . import status as status_screen
from .parts import Bar, Spark, panel, span

_FIXED = 19
"""Lines that the screen of `top` always has."""

_DEMO_FIXED = 11
"""Lines that the screen of the demo always has."""

PHASES = {
    "starting": "the daemon starts",
    "history": "history, as fast as possible",
    "live": "live",
    "settling": "writing the last documents",
    "done": "the end",
    "interrupted": "interrupted",
}


class Details(NamedTuple):
    """What the index says of a small farm.

    Attributes:
        abis: (abi_tag, builds, failures)
        slaves: (slave_id, builds, failures)
        builds: (status, package, version, abi_tag, duration), the latest first
        top: (package, downloads in the last 30 days)
        packages: how many there are
        downloads: how many there ever were
    """

    abis: list[tuple[str, int, int]]
    slaves: list[tuple[int, int, int]]
    builds: list[tuple[str, str, str, str, float]]
    top: list[tuple[str, int]]
    packages: int
    downloads: int


class Story(NamedTuple):
    """Where the demo is in the simulated farm's life.

    Attributes:
        title: which farm it is.
        phase: one of `PHASES`.
        elapsed: seconds since the start.
        progress: of the phase, 0 to 1.
        farm_time: how far the farm's simulated life has been sent; None at the beginning.
        details: what the index says of it.
    """

    title: str
    phase: str
    elapsed: float
    progress: float
    farm_time: times.Time | None
    details: Details


def frame(
    status: Status,
    rates: Iterable[float],
    height: int,
    story: Story | None = None,
) -> RenderableType:
    """The whole screen: of the demo with `story`, and of `top` without.

    The `rates` are messages a second, the oldest first.
    """
    alerts = status_screen.alerts(status)
    parts: list[RenderableType] = [_head(status, story)]
    if alerts.row_count:
        parts.append(alerts)
    parts.append(panel("the river", _river(status, rates)))
    height -= alerts.row_count
    if story is not None:
        room = height - _DEMO_FIXED
        upper = max(5, min(15, room - room // 3))
        lower = max(2, min(10, room - upper))
        parts.append(_beside(_farm(story, upper), _downloads(story, upper)))
        parts.append(_beside(_builds(story, lower), _published(status, lower, lower)))
        return Group(*parts)
    if status.feeds:
        parts.append(panel("feeds", status_screen.feeds(status.feeds)))
    parts.append(panel("the rest", _rest(status)))
    rows = max(2, height - _FIXED - len(status.feeds))
    if status.farm is None:
        parts.append(_published(status, rows, None))
    else:
        builds = panel("latest builds", farm_screen.Builds(status.farm, rows, expand=True), rows)
        parts.append(_beside(builds, _published(status, rows, rows)))
    return Group(*parts)


def unreadable(what: str, remedy: str) -> RenderableType:
    """The screen while the state cannot be read."""
    return Group(Text(f"✗ {what}", "bold red"), Text(f"  what to do: {remedy}"))


def _beside(left: Panel, right: Panel) -> Table:
    body = Table.grid(expand=True, padding=(0, 1, 0, 0))
    body.add_column(ratio=1)
    body.add_column(ratio=1)
    body.add_row(left, right)
    return body


def _head(status: Status, story: Story | None) -> Table:
    if story is None:
        left = Text.assemble(status_screen.verdict(status), (f"  {status.state_dir}", "dim"))
        right = Text.assemble(times.to_sql(status.at)[11:], ("  q ends", "dim"))
    else:
        left = Text(story.title)
        seconds = int(story.elapsed)
        right = Text.assemble(
            (PHASES[story.phase], "bold green" if story.phase == "live" else "yellow"),
            f"  {seconds // 60}:{seconds % 60:02d}",
            ("" if story.phase in ("done", "interrupted") else "  Ctrl-C ends", "dim"),
        )
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    head.add_column(no_wrap=True, min_width=right.cell_len)
    head.add_row(Text.assemble(("piw-indexer", "bold magenta"), "  ", left), right)
    return head


def _river(status: Status, rates: Iterable[float]) -> RenderableType:
    """The stages that a message passes, each with a count."""
    live = status.daemon.live if status.daemon is not None else None
    stages = Table.grid(expand=True)
    for _ in range(4):
        stages.add_column(ratio=3, justify="center", no_wrap=True)
        stages.add_column(ratio=1, justify="center", no_wrap=True)
    names: list[RenderableType] = []
    numbers: list[RenderableType] = []
    for name, number, style in (
        ("journaled", f"{status.serial:,}", "cyan"),
        ("in the index", f"{status.applied_serial:,}", "green"),
        ("pages waiting", f"{status.pending:,}", "yellow" if status.pending else "dim"),
        ("pages written", f"{live.written:,}" if live else "?", "magenta"),
    ):
        names += [Text(name, style="dim"), Text("→", style="dim")]
        numbers += [Text(number, style=f"bold {style}"), Text("")]
    stages.add_row(*names[:-1])
    stages.add_row(*numbers[:-1])
    speed = Table.grid(expand=True, padding=(0, 1))
    speed.add_column(no_wrap=True)
    speed.add_column(no_wrap=True, ratio=1)
    speed.add_column(no_wrap=True)
    late = f" for {span(status.lag_seconds)}" if status.lag_seconds >= 1 else ""
    behind = Text(f"{status.lag:,} behind{late}", "yellow" if late else "green")
    if live is None:
        behind = Text("no daemon runs", "bold red")
    rate = live.rate if live else 0.0
    speed.add_row(
        Text.assemble((f"{rate:7,.0f}", "bold"), (" messages/s", "dim")), Spark(rates), behind
    )
    return Group(stages, Text(""), speed)


def _rest(status: Status) -> Table:
    rows = [("pending", status_screen.pending(status))]
    if status.daemon is not None:
        last = status_screen.ago(status.daemon.live.last_published, status.at)
        counters = status_screen.ago(status.daemon.live.counters_published, status.at)
        rows.append(("published", f"last {last}, packages.json {counters}"))
    rows.append(("quarantine", many(status.quarantined, "message")))
    rows.append(("disk", status_screen.disk(status)))
    if status.farm is not None:
        rows.append(("farm", farm_screen.summary(status.farm)))
    table = Table.grid(expand=True, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    for name, text in rows:
        table.add_row(Text(name, "dim"), Text(text))
    return table


def _published(status: Status, rows: int, height: int | None) -> Panel:
    """The documents that were published last, the latest first."""
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    recent = status.daemon.live.recently_published if status.daemon is not None else []
    for name in recent[::-1][:rows]:
        table.add_row(Text.assemble(("project/", "dim"), name, ("/json/index.json", "dim")))
    return panel("just published", table, height)


def _farm(story: Story, rows: int) -> Panel:
    """The simulated farm: its clock, and what every ABI and slave has built."""
    details = story.details
    when = Table.grid(expand=True, padding=(0, 1, 0, 0))
    when.add_column(no_wrap=True)
    when.add_column(ratio=1)
    when.add_row(
        Text("its clock" if story.farm_time is None else clock(story.farm_time), "bold"),
        ProgressBar(1.0, story.progress, complete_style="magenta", finished_style="magenta"),
    )
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True, justify="right")
    table.add_column(ratio=1)
    table.add_row("", Text("builds", "dim"), Text("failed", "dim"))
    abis = [(abi_tag, builds, failed, "cyan") for abi_tag, builds, failed in details.abis]
    slaves = [(f"slave {number}", builds, failed, "") for number, builds, failed in details.slaves]
    for builders in (sorted(abis, key=lambda row: (len(row[0]), row[0])), slaves):
        highest = max((row[1] for row in builders), default=1)
        for name, builds, failed, style in builders:
            table.add_row(
                Text(name, style),
                f"{builds:,}",
                Text(f"{failed:,}", "red"),
                Bar(highest, (builds - failed, "green"), (failed, "red")),
            )
    counts = Text.assemble(
        (f"{details.packages:,}", "bold"), (" packages   ", "dim"),
        (f"{details.downloads:,}", "bold"), (" downloads", "dim"),
    )  # fmt: skip
    return panel("the farm", Group(when, counts, table), rows)


def _downloads(story: Story, rows: int) -> Panel:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right")
    table.add_column(ratio=1)
    top = story.details.top[:rows]
    highest = max((count for _, count in top), default=1) or 1
    for package, count in top:
        table.add_row(Text(package), Text(f"{count:,}", "bold"), Bar(highest, (count, "cyan")))
    return panel("downloads, last 30 days", table, rows)


def _builds(story: Story, rows: int) -> Panel:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for outcome, package, version, abi_tag, duration in story.details.builds[:rows]:
        good = outcome == "success"
        table.add_row(
            Text("✓" if good else "✗", "green" if good else "bold red"),
            Text.assemble(package, (f" {version}", "dim")),
            Text(abi_tag, "cyan"),
            Text(f"{duration:,.0f} s", "dim"),
        )
    return panel("latest builds", table, rows)


def clock(farm_time: times.Time) -> str:
    """The time on a simulated farm's clock, by the minute."""
    return times.to_sql(farm_time)[:16]
