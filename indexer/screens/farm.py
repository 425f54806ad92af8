"""How the live farm looks: a screen that is drawn again and again, or plain tables.

Pure: the farm as `piwheels.farm_view` gives it in, something that rich can print out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..base import times
from .parts import panel, size, span

Farm = dict[str, Any]
Slave = dict[str, Any]

DOING = {
    "": ("?", "dim"),
    "starting": ("starting", "yellow"),
    "idle": ("idle", "dim"),
    "paused": ("paused", "yellow"),
    "building": ("building", "green"),
    "sending": ("sending", "blue"),
    "cleaning": ("cleaning up", "magenta"),
}
"""What a slave may do, and its style."""

_OUTCOMES = {"success": ("✓", "green"), "fail": ("✗", "bold red"), "unknown": ("?", "yellow")}
_GAP = 2  # between two columns


def summary(farm: Farm) -> str:
    """The farm in a line."""
    slaves = farm["slaves"]
    counts: dict[str, int] = {}
    for one in slaves:
        doing = DOING[one["doing"]][0]
        counts[doing] = counts.get(doing, 0) + 1
    doings = ", ".join(f"{number} {doing}" for doing, number in sorted(counts.items()))
    found = f"{len(slaves)} slaves" if len(slaves) != 1 else "1 slave"
    if doings:
        found += f": {doings}"
    alerts = sum(len(one["alerts"]) for one in slaves)
    if alerts:
        found += f"; {alerts} to look at"
    return found


class _Column(NamedTuple):
    """A column of the slaves' table; of a lower rank goes first, 0 never, if room is short."""

    rank: int
    name: str
    right: bool
    cell: Callable[[Slave, str], Text]


def slaves(farm: Farm, width: int) -> Table:
    """The slaves, one a row; as many columns as there is room for.

    Args:
        farm: what it shows.
        width: columns of the terminal.
    """
    rows = farm["slaves"]
    cells = {one.name: [one.cell(row, farm["at"]) for row in rows] for one in _COLUMNS}
    widths = {
        name: max([len(name), *(cell.cell_len for cell in column)])
        for name, column in cells.items()
    }
    chosen: set[str] = set()
    room = width
    for one in sorted(_COLUMNS, key=lambda one: one.rank):
        room -= widths[one.name] + _GAP
        if one.rank and room < 0:
            break
        chosen.add(one.name)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
    shown = [one for one in _COLUMNS if one.name in chosen]
    for one in shown:
        table.add_column(
            one.name,
            justify="right" if one.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            # What it does is what is cut off.
            min_width=None if one.name == "does" else widths[one.name],
        )
    for number in range(len(rows)):
        table.add_row(*(cells[one.name][number] for one in shown))
    return table


def frame(farm: Farm, note: str, width: int, height: int) -> RenderableType:
    """The whole screen.

    Args:
        farm: what it shows.
        note: what is not well, in a line; empty if all is.
        width: columns that there are.
        height: lines that there are.
    """
    rows = max(3, height - 9 - len(farm["slaves"]) - 3)
    return Group(
        _head(farm, note),
        panel("the master", _master(farm)),
        panel("slaves", slaves(farm, width - 4) if farm["slaves"] else Text("none", "dim")),
        panel("latest builds", finished(farm, rows, expand=True)),
    )


def plain(farm: Farm, width: int) -> RenderableType:
    """All of it, for what is not a terminal."""
    parts: list[RenderableType] = [_master(farm), Text(""), slaves(farm, width)]
    if farm["finished"]:
        parts += [Text(""), finished(farm, len(farm["finished"]))]
    return Group(*parts)


def finished(farm: Farm, rows: int, *, expand: bool = False) -> Table:
    """The builds that ended last, the latest first.

    Args:
        farm: what it shows.
        rows: how many at most.
        expand: take the whole width, and cut names off if that is not enough.
    """
    table = Table.grid(padding=(0, 2, 0, 0), expand=expand)
    table.add_column(no_wrap=True, ratio=1 if expand else None, overflow="ellipsis")
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for one in farm["finished"][:rows]:
        sign, style = _OUTCOMES[one["outcome"]]
        duration = ""
        if one["began"] is not None and one["outcome"] != "unknown":
            duration = span(_seconds(one["began"], one["ended"]))
        table.add_row(
            Text.assemble((sign, style), " ", one["package"], (f" {one['version']}", "dim")),
            Text(one["abi_tag"], "cyan"),
            Text(one["label"]),
            Text(f"in {duration}" if duration else "", "dim"),
            Text(f"{_age(one['ended'], farm['at'])} ago", "dim"),
        )
    return table


def _head(farm: Farm, note: str) -> Table:
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    head.add_column(no_wrap=True)
    title = Text.assemble(("piw-indexer", "bold magenta"), f"  {summary(farm)}")
    if note:
        title = Text(note, "bold red")
    clock = "" if farm["at"] is None else times.to_sql(times.parse_rfc3339(farm["at"]))[11:]
    head.add_row(title, Text.assemble(clock, ("  Ctrl-C ends", "dim")))
    return head


def _master(farm: Farm) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    master = farm["master"]
    if master is None:
        table.add_row(Text("nothing has been heard of it yet", "dim"))
        return table
    system = f"{master['os_name']} {master['os_version']}, " if master["os_name"] else ""
    up = f"up {_age(master['started'], farm['at'])}, " if master["started"] else ""
    table.add_row(
        Text(master["label"] or "?", "bold"),
        Text(f"{system}{up}seen {_age(master['last_seen'], farm['at'])} ago"),
    )
    stats = master["stats"]
    if stats is not None:
        table.add_row(Text("machine", "dim"), Text(_machine(stats)))
        for name, text in (
            ("built", _counts(stats["builds_last_hour"], "in the last hour")),
            ("pending", _counts(stats["builds_pending"], "")),
            (
                "downloads",
                f"{stats['downloads_last_hour']:,} in the last hour,"
                f" {stats['downloads_last_month']:,} in the last month",
            ),
            (
                "packages",
                f"{stats['packages_built']:,} built, {stats['files_count']:,} files,"
                f" {size(stats['builds_size'])}",
            ),
        ):
            table.add_row(Text(name, "dim"), Text(text))
    if master["alerts"]:
        table.add_row(Text("look at"), Text(", ".join(master["alerts"]), "bold yellow"))
    return table


def _machine(stats: dict[str, Any]) -> str:
    parts = [f"load {stats['load_average']:.2f}"]
    if stats["cpu_temp"]:
        parts.append(f"{stats['cpu_temp']:.0f} °C")
    parts.append(f"memory {size(stats['mem_free'])} free of {size(stats['mem_size'])}")
    parts.append(f"disk {size(stats['disk_free'])} free of {size(stats['disk_size'])}")
    return ", ".join(parts)


def _counts(counts: dict[str, int], when: str) -> str:
    found = ", ".join(f"{number:,} {abi}" for abi, number in counts.items()) or "nothing"
    return f"{found} {when}".strip()


def _does(one: Slave, now: str) -> Text:
    doing, style = DOING[one["doing"]]
    if one["package"] is None:
        return Text(doing, style)
    if one["doing"] == "building" or one["doing"] == "cleaning":
        return Text.assemble((doing, style), f" {one['package']} ", (one["version"], "dim"))
    return Text.assemble((doing, style), f" {one['filename'] or one['package']}")


def _for(one: Slave, now: str) -> Text:
    if one["since"] is None:
        return Text("?", "dim")
    return Text(("" if one["since_exact"] else "≥ ") + _age(one["since"], now))


def _measured(one: Slave, show: Callable[[dict[str, Any]], str]) -> Text:
    return Text("?", "dim") if one["stats"] is None else Text(show(one["stats"]))


def _load(stats: dict[str, Any]) -> str:
    return f"{stats['load_average']:.2f}"


def _temperature(stats: dict[str, Any]) -> str:
    return f"{stats['cpu_temp']:.0f} °C" if stats["cpu_temp"] else "-"


def _free(what: str) -> Callable[[dict[str, Any]], str]:
    return lambda stats: size(stats[f"{what}_free"])


def _skew(one: Slave, now: str) -> Text:
    skew = one["clock_skew"]
    if skew is None:
        return Text("?", "dim")
    if abs(skew) < 1:
        return Text("right", "dim")
    return Text(f"{span(abs(skew))} {'slow' if skew > 0 else 'fast'}")


def _system(one: Slave, now: str) -> Text:
    return Text(f"{one['os_name'] or ''} {one['os_version'] or ''}".strip(), "dim")


_COLUMNS = (
    _Column(0, "slave", True, lambda one, now: Text(str(one["slave_id"]))),
    _Column(0, "label", False, lambda one, now: Text(one["label"] or "?", "bold")),
    _Column(0, "ABI", False, lambda one, now: Text(one["abi_tag"] or "?", "cyan")),
    _Column(0, "does", False, _does),
    _Column(0, "for", True, _for),
    _Column(2, "built", True, lambda one, now: Text(str(one["builds_succeeded"]), "green")),
    _Column(2, "failed", True, lambda one, now: Text(str(one["builds_failed"]), "red")),
    _Column(3, "load", True, lambda one, now: _measured(one, _load)),
    _Column(4, "temp", True, lambda one, now: _measured(one, _temperature)),
    _Column(5, "memory free", True, lambda one, now: _measured(one, _free("mem"))),
    _Column(6, "disk free", True, lambda one, now: _measured(one, _free("disk"))),
    _Column(7, "clock", True, _skew),
    _Column(0, "seen", True, lambda one, now: Text(_age(one["last_seen"], now))),
    _Column(8, "board", False, lambda one, now: Text(one["board"] or "", "dim")),
    _Column(9, "platform", False, lambda one, now: Text(one["platform"] or "", "dim")),
    _Column(10, "system", False, _system),
    _Column(1, "to look at", False, lambda one, now: Text(", ".join(one["alerts"]), "bold yellow")),
)


def _seconds(begin: str, end: str) -> float:
    return (times.parse_rfc3339(end) - times.parse_rfc3339(begin)) / times.SECOND


def _age(since: str, now: str) -> str:
    return span(max(0.0, _seconds(since, now)))
