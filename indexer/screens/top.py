"""How `top` looks: a screen that is drawn again and again.

Pure: what `status.gather` says in, and what was seen before; something that rich can print out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import farm as farm_screen
from . import status
from .parts import Spark, panel, span

_FIXED = 18
"""Lines of the screen that are always there."""


def frame(found: dict[str, Any], rates: Iterable[float], width: int, height: int) -> RenderableType:
    """The whole screen.

    Args:
        found: what `status.gather` says.
        rates: messages a second, the oldest first.
        width: columns that there are.
        height: lines that there are.
    """
    parts: list[RenderableType] = [_head(found)]
    alerts = status.alerts(found)
    if alerts.row_count:
        parts.append(alerts)
    parts.append(panel("the river", _river(found, rates)))
    if found["feeds"]:
        parts.append(panel("feeds", status.feeds(found["feeds"])))
    parts.append(panel("the rest", _rest(found)))
    room = height - _FIXED - alerts.row_count - len(found["feeds"])
    parts.append(_latest(found, max(2, room)))
    return Group(*parts)


def unreadable(what: str, remedy: str) -> RenderableType:
    """The screen while the state cannot be read."""
    return Group(Text(f"✗ {what}", "bold red"), Text(f"  what to do: {remedy}"))


def _head(found: dict[str, Any]) -> Table:
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    head.add_column(no_wrap=True, justify="right")
    head.add_row(
        Text.assemble(
            ("piw-indexer", "bold magenta"), "  ", status.verdict(found),
            (f"  {found['state_dir']}", "dim"),
        ),
        Text.assemble(found["at"][11:19], ("  q ends", "dim")),
    )  # fmt: skip
    return head


def _river(found: dict[str, Any], rates: Iterable[float]) -> RenderableType:
    stages = Table.grid(expand=True)
    live = found["daemon"]
    names, numbers = [], []
    for name, number, style in (
        ("journaled", f"{found['serial']:,}", "cyan"),
        ("in the index", f"{found['applied_serial']:,}", "green"),
        ("waiting", f"{found['pending']:,}", "yellow" if found["pending"] else "dim"),
        ("written", f"{live['written']:,}" if live else "?", "magenta"),
    ):
        stages.add_column(ratio=1, justify="center", no_wrap=True)
        names.append(Text(name, "dim"))
        numbers.append(Text(number, f"bold {style}"))
    stages.add_row(*names)
    stages.add_row(*numbers)
    speed = Table.grid(expand=True, padding=(0, 1))
    speed.add_column(no_wrap=True)
    speed.add_column(no_wrap=True, ratio=1)
    speed.add_column(no_wrap=True)
    late = f" for {span(found['lag_seconds'])}" if found["lag_seconds"] >= 1 else ""
    behind = Text(f"{found['lag']:,} behind{late}", "yellow" if late else "green")
    if live is None:
        behind = Text("no daemon runs", "bold red")
    rate = live["rate"] if live else 0.0
    speed.add_row(
        Text.assemble((f"{rate:7,.0f}", "bold"), (" messages/s", "dim")), Spark(rates), behind
    )
    return Group(stages, speed)


def _rest(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    rows = [("pending", status.pending(found))]
    live = found["daemon"]
    if live:
        last = status.ago(live["last_published"], found["at"])
        counters = status.ago(live["counters_published"], found["at"])
        rows.append(("published", f"last {last}, packages.json {counters}"))
    rows.append(("quarantine", f"{found['quarantined']:,} messages"))
    rows.append(("disk", status.disk(found)))
    if found["farm"] is not None:
        rows.append(("farm", farm_screen.summary(found["farm"])))
    for name, text in rows:
        table.add_row(Text(name, "dim"), Text(text))
    return table


def _latest(found: dict[str, Any], rows: int) -> RenderableType:
    """The documents that were published last, and the builds, if there is a farm."""
    published = Table.grid(expand=True)
    published.add_column(no_wrap=True, overflow="ellipsis")
    for name in (found["daemon"]["recently_published"] if found["daemon"] else [])[:rows]:
        published.add_row(Text.assemble(("project/", "dim"), name))
    farm = found["farm"]
    if farm is None:
        return panel("just published", published)
    body = Table.grid(expand=True)
    body.add_column(ratio=1)
    body.add_column(ratio=1)
    body.add_row(
        panel("just published", published, rows),
        panel("latest builds", farm_screen.finished(farm, rows), rows),
    )
    return body
