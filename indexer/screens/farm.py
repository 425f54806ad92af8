"""The live farm: a screen that is drawn again and again, or plain tables.

Pure functions from a `Picture` to something that rich can print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from ..base import times
from ..base.printable import many
from ..base.times import Time
from ..piwheels.farm.picture import (
    Doing,
    Finished,
    MasterStats,
    Outcome,
    Picture,
    SlavePicture,
    SlaveStats,
)
from .parts import panel, size, span

DOING: dict[Doing, tuple[str, str]] = {
    "": ("?", "dim"),
    "starting": ("starting", "yellow"),
    "idle": ("idle", "dim"),
    "paused": ("paused", "yellow"),
    "building": ("building", "green"),
    "sending": ("sending", "blue"),
    "cleaning": ("cleaning up", "magenta"),
}
"""What a slave may be doing, in words, and its style."""

_OUTCOMES: dict[Outcome, tuple[str, str]] = {
    "success": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "unknown": ("?", "yellow"),
}
_GAP = 2  # between two columns


def summary(farm: Picture) -> str:
    """The farm in one line."""
    slaves = farm.slaves
    counts = Counter(DOING[slave.doing][0] for slave in slaves)
    text = many(len(slaves), "slave")
    if counts:
        doings = (f"{number} {doing}" for doing, number in sorted(counts.items()))
        text += f": {', '.join(doings)}"
    if alerts := sum(len(slave.alerts) for slave in slaves):
        text += f"; {alerts} to look at"
    return text


class _Column(NamedTuple):
    """A column of the slaves' table; where room is short, the highest rank goes first, 0 never."""

    rank: int
    name: str
    right: bool
    cell: Callable[[SlavePicture, Time], Text]


def slaves(farm: Picture, width: int) -> Table:
    """The slaves, one a row, with as many columns as fit into `width`."""
    rows = farm.slaves
    now = farm.at or 0
    cells = {column.name: [column.cell(row, now) for row in rows] for column in _COLUMNS}
    widths = {
        name: max([len(name), *(cell.cell_len for cell in texts)]) for name, texts in cells.items()
    }
    chosen: set[str] = set()
    room = width
    for column in sorted(_COLUMNS, key=lambda column: column.rank):
        room -= widths[column.name] + _GAP
        if column.rank and room < 0:
            break
        chosen.add(column.name)
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim")
    shown = [column for column in _COLUMNS if column.name in chosen]
    for column in shown:
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            # If the table is too wide, this column is cut.
            min_width=None if column.name == "does" else widths[column.name],
        )
    for number in range(len(rows)):
        table.add_row(*(cells[column.name][number] for column in shown))
    return table


def frame(farm: Picture, note: str, width: int, height: int) -> RenderableType:
    """The whole screen; `note` says in a line what is wrong, if anything is."""
    rows = max(3, height - 9 - len(farm.slaves) - 3)
    return Group(
        _head(farm, note),
        panel("the master", _master(farm)),
        panel("slaves", slaves(farm, width - 4) if farm.slaves else Text("none", "dim")),
        panel("latest builds", Builds(farm, rows, expand=True)),
    )


def plain(farm: Picture, width: int) -> RenderableType:
    """Everything, for an output that is not a terminal."""
    parts: list[RenderableType] = [_master(farm), Text(""), slaves(farm, width)]
    if farm.finished:
        parts += [Text(""), Builds(farm, len(farm.finished))]
    return Group(*parts)


class Builds:
    """The builds that ended last, the latest first.

    With `expand`, they use the whole width. Where it is not enough, the label goes, then the
    duration; then names are cut.
    """

    def __init__(self, farm: Picture, rows: int, *, expand: bool = False) -> None:
        self._rows = [_build(build, farm.at) for build in farm.finished[:rows]]
        self._expand = expand

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(cell.cell_len for cell in cells) for cells in zip(*self._rows, strict=True)]
        shown = list(range(len(widths)))
        for column in (_LABEL, _DURATION):
            if sum(widths[one] + _GAP for one in shown) > options.max_width:
                shown.remove(column)
        table = Table.grid(padding=(0, _GAP, 0, 0), expand=self._expand)
        for column in shown:
            table.add_column(
                no_wrap=True,
                overflow="ellipsis",
                ratio=1 if self._expand and not column else None,
                min_width=widths[column] if column else None,
                justify="right" if column == shown[-1] else "left",
            )
        for row in self._rows:
            table.add_row(*(row[column] for column in shown))
        yield table


_LABEL, _DURATION = 2, 3


def _build(build: Finished, now: Time | None) -> tuple[Text, ...]:
    """The name, ABI, label, duration and age of a build."""
    sign, style = _OUTCOMES[build.outcome]
    duration = ""
    if build.began is not None and build.outcome != "unknown":
        duration = span(_seconds(build.began, build.ended))
    return (
        Text.assemble((sign, style), " ", build.package, (f" {build.version}", "dim")),
        Text(build.abi_tag, "cyan"),
        Text(build.label),
        Text(f"in {duration}" if duration else "", "dim"),
        Text(f"{_age(build.ended, now)} ago", "dim"),
    )


def _head(farm: Picture, note: str) -> Table:
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    head.add_column(no_wrap=True)
    title = Text.assemble(("piw-indexer", "bold magenta"), f"  {summary(farm)}")
    if note:
        title = Text(note, "bold red")
    clock = "" if farm.at is None else times.to_sql(farm.at)[11:]
    head.add_row(title, Text.assemble(clock, ("  Ctrl-C ends", "dim")))
    return head


def _master(farm: Picture) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    master = farm.master
    if master is None:
        table.add_row(Text("nothing has been heard of it yet", "dim"))
        return table
    system = f"{master.os_name} {master.os_version}, " if master.os_name else ""
    up = f"up {_age(master.started, farm.at)}, " if master.started else ""
    table.add_row(
        Text(master.label or "the master", "bold"),
        Text(f"{system}{up}seen {_age(master.last_seen, farm.at)} ago"),
    )
    stats = master.stats
    if stats is not None:
        table.add_row(Text("machine", "dim"), Text(_machine(stats)))
        for name, text in (
            ("built", _counts(stats.builds_last_hour, "in the last hour")),
            ("pending", _counts(stats.builds_pending, "")),
            (
                "downloads",
                f"{stats.downloads_last_hour:,} in the last hour,"
                f" {stats.downloads_last_month:,} in the last month",
            ),
            (
                "packages",
                f"{stats.packages_built:,} built, {stats.files_count:,} files,"
                f" {size(stats.builds_size)}",
            ),
        ):
            table.add_row(Text(name, "dim"), Text(text))
    if master.alerts:
        table.add_row(Text("look at"), Text(", ".join(master.alerts), "bold yellow"))
    return table


def _machine(stats: MasterStats) -> str:
    parts = [f"load {stats.load_average:.2f}"]
    if stats.cpu_temp:
        parts.append(f"{stats.cpu_temp:.0f} °C")
    parts.append(f"memory {size(stats.mem_free)} free of {size(stats.mem_size)}")
    parts.append(f"disk {size(stats.disk_free)} free of {size(stats.disk_size)}")
    return ", ".join(parts)


def _counts(counts: dict[str, int], when: str) -> str:
    numbers = ", ".join(f"{number:,} {abi}" for abi, number in counts.items()) or "nothing"
    return f"{numbers} {when}".strip()


def _does(slave: SlavePicture, now: Time) -> Text:
    doing, style = DOING[slave.doing]
    if slave.package is None:
        return Text(doing, style)
    if slave.doing == "building" or slave.doing == "cleaning":
        return Text.assemble((doing, style), f" {slave.package} ", (slave.version or "", "dim"))
    return Text.assemble((doing, style), f" {slave.filename or slave.package}")


def _for(slave: SlavePicture, now: Time) -> Text:
    if slave.since is None:
        return Text("?", "dim")
    return Text(("" if slave.since_exact else "≥ ") + _age(slave.since, now))


def _measured(show: Callable[[SlaveStats], str]) -> Callable[[SlavePicture, Time], Text]:
    return lambda slave, now: Text("?", "dim") if slave.stats is None else Text(show(slave.stats))


def _temperature(stats: SlaveStats) -> str:
    return f"{stats.cpu_temp:.0f} °C" if stats.cpu_temp else "-"


def _skew(slave: SlavePicture, now: Time) -> Text:
    skew = slave.clock_skew
    if skew is None:
        return Text("?", "dim")
    if abs(skew) < 1:
        return Text("right", "dim")
    return Text(f"{span(abs(skew))} {'slow' if skew > 0 else 'fast'}")


def _system(slave: SlavePicture, now: Time) -> Text:
    return Text(f"{slave.os_name or ''} {slave.os_version or ''}".strip(), "dim")


_COLUMNS = (
    _Column(0, "slave", True, lambda slave, now: Text(str(slave.slave_id))),
    _Column(0, "label", False, lambda slave, now: Text(slave.label or "?", "bold")),
    _Column(0, "ABI", False, lambda slave, now: Text(slave.abi_tag or "?", "cyan")),
    _Column(0, "does", False, _does),
    _Column(0, "for", True, _for),
    _Column(2, "built", True, lambda slave, now: Text(str(slave.builds_succeeded), "green")),
    _Column(2, "failed", True, lambda slave, now: Text(str(slave.builds_failed), "red")),
    _Column(3, "load", True, _measured(lambda stats: f"{stats.load_average:.2f}")),
    _Column(4, "temp", True, _measured(_temperature)),
    _Column(5, "memory free", True, _measured(lambda stats: size(stats.mem_free))),
    _Column(6, "disk free", True, _measured(lambda stats: size(stats.disk_free))),
    _Column(7, "clock", True, _skew),
    _Column(0, "seen", True, lambda slave, now: Text(_age(slave.last_seen, now))),
    _Column(8, "board", False, lambda slave, now: Text(slave.board or "", "dim")),
    _Column(9, "platform", False, lambda slave, now: Text(slave.platform or "", "dim")),
    _Column(10, "system", False, _system),
    _Column(
        1, "to look at", False, lambda slave, now: Text(", ".join(slave.alerts), "bold yellow")
    ),
)


def _seconds(begin: Time, end: Time) -> float:
    return (end - begin) / times.SECOND


def _age(since: Time, now: Time | None) -> str:
    return span(max(0.0, _seconds(since, since if now is None else now)))
