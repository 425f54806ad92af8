"""How `status` looks: the verdict first, then how everything stands.

Pure: what `status.gather` says in, something that rich can print out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..base import times
from ..watch import alerts as problems
from . import farm
from .parts import size, span

_SIGNS = {
    problems.CRITICAL: ("✗", "bold red"),
    problems.WARNING: ("!", "bold yellow"),
    problems.NOTICE: ("i", "dim"),
}


def verdict(found: dict[str, Any]) -> Text:
    """Whether it is well, in a line."""
    count: dict[str, int] = {}
    for one in found["alerts"]:
        count[one["severity"]] = count.get(one["severity"], 0) + 1
    parts = [
        f"{count[severity]} {severity}"
        for severity in (problems.CRITICAL, problems.WARNING)
        if severity in count
    ]
    if not parts:
        return Text("✓ All is well.", "bold green")
    sign, style = _SIGNS[problems.worst(found["alerts"])]
    return Text(f"{sign} Not well: {', '.join(parts)}.", style)


def alerts(found: dict[str, Any]) -> Table:
    """What is wrong, and what to do about it."""
    return _rows(one for one in found["alerts"] if one["severity"] != problems.NOTICE)


def _notices(found: dict[str, Any]) -> Table:
    return _rows(one for one in found["alerts"] if one["severity"] == problems.NOTICE)


def _rows(shown: Iterable[dict[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    for one in shown:
        sign, style = _SIGNS[one["severity"]]
        table.add_row(
            Text(sign, style),
            Text.assemble((one["id"], style), f"  {one['what']}"),
        )
        table.add_row("", Text.assemble(("what to do: ", "dim"), one["remedy"]))
    return table


def screen(found: dict[str, Any], width: int) -> RenderableType:
    """The whole screen.

    Args:
        found: what it shows.
        width: columns that there are.
    """
    parts: list[RenderableType] = [verdict(found), alerts(found), Text(""), _summary(found)]
    if found["feeds"]:
        parts += [Text(""), feeds(found["feeds"])]
    if found["farm"] is not None and found["farm"]["slaves"]:
        parts += [Text(""), farm.slaves(found["farm"], width)]
    notices = _notices(found)
    if notices.row_count:
        parts += [Text(""), notices]
    return Group(*parts)


def pending(found: dict[str, Any]) -> str:
    """What waits to be written."""
    text = f"{found['pending']:,} documents to write"
    if found["oldest_pending_seconds"] is not None and found["pending"]:
        text += f", the oldest for {span(found['oldest_pending_seconds'])}"
    return text


def disk(found: dict[str, Any]) -> str:
    """The journal, and the room that there is."""
    text = f"journal {size(found['journal_bytes'])}"
    if found["journal_bytes_a_month"] is not None:
        text += f", growing {size(found['journal_bytes_a_month'])} a month"
    if found["disk_free_bytes"] is not None:
        text += f"; {size(found['disk_free_bytes'])} free"
    if found["output_disk_free_bytes"] is not None:
        text += f", {size(found['output_disk_free_bytes'])} for documents"
    return text


def ago(at: str | None, now: str) -> str:
    """How long something is past: `5 s ago`; "never" if it was not."""
    if at is None:
        return "never"
    seconds = (times.parse_rfc3339(now) - times.parse_rfc3339(at)) / times.SECOND
    return f"{span(max(0.0, seconds))} ago"


def _summary(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    live = found["daemon"]
    now = found["at"]

    def row(name: str, value: object) -> None:
        table.add_row(Text(name, style="bold"), Text(str(value)))

    row("state", found["state_dir"])
    row("held by", found["held_by"] or "nobody: no daemon runs")
    row("serial", f"{found['serial']:,} journaled, {found['applied_serial']:,} applied")
    late = f", for {span(found['lag_seconds'])}" if found["lag_seconds"] else ""
    row("lag", f"{found['lag']:,} messages{late}")
    row("pending", pending(found))
    if live:
        row("rate", f"{live['rate']:,.0f} messages/s")
        row(
            "published",
            f"{live['written']:,} documents, the last {ago(live['last_published'], now)}",
        )
        row("packages.json", f"written {ago(live['counters_published'], now)}")
        if "db_queue" in live:
            asking = live["db_queue"]
            row(
                "master",
                f"{asking['asked']:,} packages asked for, {asking['taken']:,} were different,"
                f" {asking['due']:,} waiting",
            )
        if "log_queue" in live:
            logs = live["log_queue"]
            passed = f", {logs['forwarded']:,} passed on" if logs["forward"] else ""
            row(
                "log queue",
                f"{sum(logs['counted'].values()):,} entries{passed},"
                f" {logs['waiting_for_master']:,} waiting for the master",
            )
    gone = found["quarantined_let_go"]
    let_go = f"; {gone:,} more were let go" if gone else ""
    row("quarantined", f"{found['quarantined']:,}{let_go}")
    counts = found["counts"]
    names = {"download_counts": "packages with downloads"}
    row("index", ", ".join(f"{n:,} {names.get(table, table)}" for table, n in counts.items()))
    row(
        "downloads",
        f"{found.get('downloads', 0):,} counted, {found['not_a_wheel']:,} of what is not a wheel",
    )
    if found["farm"] is not None:
        row("farm", farm.summary(found["farm"]))
    row("disk", disk(found))
    row("last check", _checked(found["last_check"], now))
    row("last backup", _note(found["last_backup"], now))
    row("version", f"{found['version']}, SQLite {found['sqlite_version']}")
    return table


def _checked(note: dict[str, Any] | None, now: str) -> str:
    text = _note(note, now)
    if note is None:
        return text
    if not note["finished"]:
        return f"{text}, not finished"
    return f"{text}, {note['differences'] or 'no'} differences"


def _note(note: dict[str, Any] | None, now: str) -> str:
    """When something was done that left a note."""
    return ago(note["at"] if note is not None else None, now)


def feeds(found: list[dict[str, Any]]) -> Table:
    """The feeds, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("feed", "accepted", "behind", "for", "silent for", "state"):
        table.add_column(
            column, justify="left" if column in ("feed", "state") else "right", no_wrap=True
        )
    for feed in found:
        lag, late, silent = feed["lag"], feed["lag_seconds"], feed["silent_seconds"]
        table.add_row(
            Text(feed["feed"], "bold"),
            f"{feed['serial']:,}",
            "?" if lag is None else f"{lag:,}",
            "?" if late is None else span(late),
            "?" if silent is None else span(max(0.0, silent)),
            _feed_state(feed),
        )
    return table


def _feed_state(feed: dict[str, Any]) -> Text:
    if feed["broken"]:
        return Text("broken", style="bold red")
    if feed["filling"]:
        return Text("a hole is filled", style="yellow")
    if feed["silent_seconds"] is None:
        return Text("not heard", style="yellow")
    return Text("ok", style="green")
