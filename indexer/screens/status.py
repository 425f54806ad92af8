"""The screen of `status`: the verdict first, then everything else.

Pure functions from a `Status` to something that rich can print.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..base import times
from ..base.printable import many
from ..base.times import Time
from ..daemon.status_file import LiveDbQueue
from ..watch import alerts as problems
from ..watch.alerts import Alert
from ..watch.notes import Check
from ..watch.status import FeedStatus, SpoolStatus, Status
from . import farm
from .parts import size, span

_SIGNS = {
    problems.CRITICAL: ("✗", "bold red"),
    problems.WARNING: ("!", "bold yellow"),
    problems.NOTICE: ("i", "dim"),
}


_ROWS = ("package", "version", "build", "file")
"""What the index has; shown with its number."""


def verdict(status: Status) -> Text:
    """Whether all is well, in one line."""
    count = Counter(alert.severity for alert in status.alerts)
    parts = [f"{count[problems.CRITICAL]} critical"] * (problems.CRITICAL in count)
    parts += [many(count[problems.WARNING], "warning")] * (problems.WARNING in count)
    if not parts:
        return Text("✓ All is well.", "bold green")
    sign, style = _SIGNS[problems.worst(status.alerts)]
    return Text(f"{sign} Not well: {', '.join(parts)}.", style)


def alerts(status: Status) -> Table:
    """What is wrong, and what to do about it."""
    return _rows(alert for alert in status.alerts if alert.severity != problems.NOTICE)


def _notices(status: Status) -> Table:
    return _rows(alert for alert in status.alerts if alert.severity == problems.NOTICE)


def _rows(shown: Iterable[Alert]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    for alert in shown:
        sign, style = _SIGNS[alert.severity]
        table.add_row(Text(sign, style), Text.assemble((alert.id, style), f"  {alert.what}"))
        table.add_row("", Text.assemble(("what to do: ", "dim"), alert.remedy))
    return table


def screen(status: Status, width: int) -> RenderableType:
    """The whole screen."""
    parts: list[RenderableType] = [verdict(status), alerts(status), Text(""), _summary(status)]
    if status.feeds:
        parts += [Text(""), feeds(status.feeds)]
    if status.farm is not None and status.farm.slaves:
        parts += [Text(""), farm.slaves(status.farm, width)]
    notices = _notices(status)
    if notices.row_count:
        parts += [Text(""), notices]
    return Group(*parts)


def pending(status: Status) -> str:
    """The documents that wait to be written."""
    text = f"{many(status.pending, 'document')} to write"
    if status.oldest_pending_seconds is not None and status.pending:
        text += f", the oldest for {span(status.oldest_pending_seconds)}"
    return text


def disk(status: Status) -> str:
    """The size of everything in the state, and the free space."""
    text = f"journal {size(status.journal_bytes)}"
    if status.journal_bytes_a_month is not None:
        text += f", growing {size(status.journal_bytes_a_month)} a month"
    for part, bytes_ in (status.state_parts or {}).items():
        if bytes_ and part != "journal":
            text += f"; {part} {size(bytes_)}"
    if status.disk_free_bytes is not None:
        text += f"; {size(status.disk_free_bytes)} free"
    if status.output_disk_free_bytes is not None:
        text += f", {size(status.output_disk_free_bytes)} for documents"
    return text


def ago(at: Time | None, now: Time) -> str:
    """How long ago something was: `5 s ago`; "never" without a time."""
    if at is None:
        return "never"
    return f"{span(max(0.0, (now - at) / times.SECOND))} ago"


def _summary(status: Status) -> Table:
    table = Table.grid(padding=(0, 2))
    now = status.at

    def row(name: str, value: object) -> None:
        table.add_row(Text(name, style="bold"), Text(str(value)))

    row("state", status.state_dir)
    if status.spool is not None:
        row("spool", _spooled(status.spool))
    if status.only_publishes:
        row("disk", disk(status))
        row("version", f"{status.version}, SQLite {status.sqlite_version}")
        return table
    row("held by", status.held_by or "nobody: no daemon runs")
    row("serial", f"{status.serial:,} journaled, {status.applied_serial:,} applied")
    late = f", for {span(status.lag_seconds)}" if status.lag_seconds else ""
    row("lag", many(status.lag, "message") + late)
    row("pending", pending(status))
    if status.daemon is not None:
        live, sources, _ = status.daemon
        row("rate", f"{live.rate:,.0f} messages/s")
        latest = f", the last {ago(live.last_published, now)}" if live.last_published else ""
        row("published", many(live.written, "document") + latest)
        row("packages.json", f"written {ago(live.counters_published, now)}")
        if (asking := sources.db_queue) is not None:
            row("master", _asked(asking))
        if (logs := sources.log_queue) is not None:
            passed = f", {logs.forwarded:,} passed on" if logs.forward else ""
            row(
                "log queue",
                f"{many(sum(logs.counted.values()), 'entry')}{passed},"
                f" {logs.waiting_for_master:,} waiting for the master",
            )
    gone = status.quarantined_let_go
    let_go = f"; {gone:,} more were deleted" if gone else ""
    row("quarantined", f"{status.quarantined:,}{let_go}")
    row("index", ", ".join(many(status.counts.get(f"{noun}s", 0), noun) for noun in _ROWS))
    packages = many(status.packages_with_downloads or 0, "package")
    row(
        "downloads",
        f"{status.downloads or 0:,} counted, of {packages};"
        f" {status.not_a_wheel:,} of what is not a wheel",
    )
    if status.farm is not None:
        row("farm", farm.summary(status.farm))
    row("disk", disk(status))
    row("last check", _checked(status.last_check, now))
    backup = status.last_backup
    row("last backup", ago(backup and backup.at, now))
    row("version", f"{status.version}, SQLite {status.sqlite_version}")
    return table


def _spooled(spool: SpoolStatus) -> str:
    """What a publisher has sent and refused, and who it is."""
    gone = spool.quarantined_let_go
    let_go = f" and {gone:,} more that were deleted" if gone else ""
    return (
        f"{many(spool.serial, 'message')} published, {spool.quarantined:,}{let_go} refused;"
        f" held by {spool.held_by or 'nobody'}"
    )


def _asked(asking: LiveDbQueue) -> str:
    """What was asked of the master, what waits to be asked, and how old its answers are."""
    text = (
        f"{many(asking.asked, 'package')} asked for, {asking.taken:,} different,"
        f" {asking.due:,} waiting"
    )
    if asking.oldest_due_seconds is not None:
        text += f", the oldest for {span(asking.oldest_due_seconds)}"
    if asking.oldest_answer_seconds is not None and asking.median_answer_seconds is not None:
        text += (
            f"; answers are {span(asking.median_answer_seconds)} old at the median,"
            f" {span(asking.oldest_answer_seconds)} at most"
        )
    if asking.unanswered:
        text += f"; {many(asking.unanswered, 'package')} not asked for yet"
    return text


def _checked(check: Check | None, now: Time) -> str:
    if check is None:
        return "never"
    if not check.finished:
        return f"{ago(check.at, now)}, not finished"
    found = many(check.differences, "difference") if check.differences else "no differences"
    return f"{ago(check.at, now)}, {found}"


def feeds(shown: list[FeedStatus]) -> Table:
    """The feeds, one a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("feed", "accepted", "behind", "for", "silent for", "state"):
        table.add_column(
            column, justify="left" if column in ("feed", "state") else "right", no_wrap=True
        )
    for feed in shown:
        lag, late, silent = feed.lag, feed.lag_seconds, feed.silent_seconds
        table.add_row(
            Text(feed.feed, "bold"),
            f"{feed.serial:,}",
            "?" if lag is None else f"{lag:,}",
            "?" if late is None else span(late),
            "?" if silent is None else span(max(0.0, silent)),
            _feed_state(feed),
        )
    return table


def _feed_state(feed: FeedStatus) -> Text:
    if feed.broken:
        return Text("broken", style="bold red")
    if feed.filling:
        return Text("fetching", style="yellow")
    if feed.silent_seconds is None:
        return Text("not heard", style="yellow")
    return Text("ok", style="green")
