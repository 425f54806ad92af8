"""`piw-indexer quarantine`: refused messages, the reasons, and another try."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import click
import orjson
from rich.table import Table
from rich.text import Text

from ..base import clock, lock, options, printable, times
from ..base.console import console
from ..base.directories import JOURNAL, SPOOL, refuse_missing
from ..base.errors import DecodeError, UsageError
from ..base.privileges import as_owner
from ..journal import quarantine as entries
from ..journal.quarantine import Quarantined
from ..journal.reader import JournalReader
from ..messages import decode
from ..messages.types import Message
from ..piwheels.queues import log_queue
from ..state import dismissal
from ..state.state import State

_VALUE = re.compile(r"""(?<!\w)(?:'[^']*'|"[^"]*"|-?\d[\d.]*)""")
"""What differs between reasons of one kind: a quoted value, or a number."""

MIN_GROUP = 5
"""Messages of one kind of reason that are listed as one; fewer are listed each."""

MAX_GROUPS = 200
"""Reasons that are listed; one of them for each message would be a list that nobody reads."""


def _ids(text: str) -> range:
    """A number of the quarantine, or the first and the last of a range."""
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise ValueError("not an ID, such as 7, or a range of IDs, such as 7-12")
    return range(int(first), int(last if dash else first) + 1)


@click.command()
@click.argument("ids", metavar="[ID|ID-ID]...", nargs=-1, type=options.Parsed("id", _ids))
@options.configuration
@options.state_to_write
@options.option("source")
@options.option("reason")
@options.flag("retry")
@options.flag("dismiss")
@options.flag("all")
@options.flag("json")
@options.flag("spool")
@as_owner
def quarantine(
    ids: tuple[range, ...],
    state_dir: Path,
    source: str | None,
    reason: str | None,
    retry: bool,
    dismiss: bool,
    everything: bool,
    as_json: bool,
    spool: bool,
) -> None:
    """List refused messages by their reasons; or show, retry or dismiss some of them.

    Choose the messages by their IDs or ranges of IDs, by their source or by their reason.
    """
    journal = SPOOL if spool else JOURNAL
    refuse_missing(state_dir, journal)
    chosen = bool(ids) or source is not None or reason is not None
    if dismiss and (retry or not (chosen or everything)):
        raise UsageError(
            "put messages aside",
            "--retry is given, too" if retry else "no ID is given",
            "give IDs, --source, --reason or --all",
        )
    if retry and spool:
        raise UsageError(
            "retry messages of the spool",
            "they were refused as the publisher's file has them",
            "correct that file, and publish it again",
        )
    reader = JournalReader(state_dir / journal)
    # All of them may be many megabytes, so each is read when it is needed.
    shown = list(entries.entries(reader, raw=False))
    let_go = entries.let_go(reader)
    if ids:
        known = {entry.quarantine_id for entry in shown}
        unknown = [each for each in ids if known.isdisjoint(each)]
        if unknown:
            raise UsageError(
                "show from the quarantine",
                f"there is no {', '.join(map(_written, unknown))} in it",
                "run `piw-indexer quarantine` for a list",
            )
        shown = [entry for entry in shown if any(entry.quarantine_id in each for each in ids)]
    elif not everything:
        shown = [entry for entry in shown if entry.retried is None]
    if source is not None:
        shown = [entry for entry in shown if printable.line(entry.source) == source]
    if reason is not None:
        shown = [entry for entry in shown if reason in _reason(entry) or reason in _kind(entry)]
    wanted = {entry.quarantine_id for entry in shown}
    waiting = [entry.quarantine_id for entry in shown if entry.retried is None]
    if dismiss:
        reader.close()
        _dismiss(state_dir, journal, waiting)
    elif retry:
        _retry(state_dir, reader, waiting)
    elif as_json or ids:
        for entry in entries.entries(reader):
            if entry.quarantine_id not in wanted:
                continue
            if as_json:
                printable.echo(orjson.dumps({**entry._asdict(), "raw": entry.raw.hex()}))
            else:
                _show(entry)
    else:
        _list(shown, let_go)
    reader.close()


def _written(ids: range) -> str:
    return str(ids.start) if len(ids) == 1 else f"{ids.start}-{ids.stop - 1}"


def _reason(entry: Quarantined) -> str:
    return f"{entry.path}: {entry.reason}" if entry.path else entry.reason


def _kind(entry: Quarantined) -> str:
    """The reason without the values that it quotes."""
    return _VALUE.sub("...", _reason(entry))


def _list(shown: list[Quarantined], let_go: int) -> None:
    kinds: dict[str, list[Quarantined]] = {}
    for entry in shown:
        kinds.setdefault(_kind(entry), []).append(entry)
    groups = [
        group
        for kind in kinds.values()
        for group in ([kind] if len(kind) >= MIN_GROUP else [[entry] for entry in kind])
    ]
    groups.sort(key=lambda group: group[0].quarantine_id)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "messages", "received", "from", "reason"):
        table.add_column(column, justify="right" if column in ("id", "messages") else "left")
    for group in groups[:MAX_GROUPS]:
        first, last = group[0], group[-1]
        sources = {entry.source for entry in group}
        place = f" {first.feed_serial}" if first is last and first.feed_serial is not None else ""
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else place
        table.add_row(
            str(first.quarantine_id)
            if first is last
            else f"{first.quarantine_id}...{last.quarantine_id}",
            f"{sum(entry.times for entry in group):,}",
            times.to_sql(last.received),
            Text(printable.line(first.source) + more),
            Text(printable.line(_reason(first) if first is last else _kind(first))),
        )
    if shown:
        console().print(table)
    else:
        printable.echo("The quarantine is empty.")
    if len(groups) > MAX_GROUPS:
        printable.echo(
            f"{len(groups) - MAX_GROUPS} more lines are not shown; --reason and --json find them."
        )
    if let_go:
        printable.echo(
            f"{let_go} older messages were deleted, because their sources sent too many."
        )


def _show(entry: Quarantined) -> None:
    for name, value in entry._asdict().items():
        if name == "received":
            value = times.to_rfc3339(entry.received)
        if name != "raw" and value is not None:
            printable.echo(f"{name:14} {printable.whole_line(str(value))}")
    if entry.format == "json":
        raw = entry.raw.decode(errors="backslashreplace").rstrip("\n")
        printable.echo(printable.whole_line(raw))
    else:
        printable.echo(f"raw, in hex    {entry.raw.hex()}")


def _dismiss(state_dir: Path, journal: str, ids: list[int]) -> None:
    if journal == SPOOL:
        raise UsageError(
            "put messages of the spool aside",
            "only the publisher writes to its spool",
            "correct them in the publisher's file, or leave them",
        )
    if lock.holder(state_dir).startswith("piw-indexer run "):
        dismissal.request(state_dir, state_dir / journal, ids)
    else:
        with closing(State(state_dir, "quarantine", clock.now)) as state:
            state.journal.dismiss(ids)
    printable.echo(f"{len(ids)} put aside; `piw-indexer quarantine --all` lists them")


def _retry(state_dir: Path, reader: JournalReader, waiting: list[int]) -> None:
    wanted = set(waiting)
    state = State(state_dir, "quarantine", clock.now)
    accepted = 0
    with closing(state):
        for entry in entries.entries(reader):
            if entry.quarantine_id not in wanted:
                continue
            try:
                message = _decode(entry)
            except DecodeError as error:
                printable.echo(f"{entry.quarantine_id}: still refused: {error}", err=True)
                continue
            accepted += state.retry(entry.quarantine_id, message)
    printable.echo(f"{accepted} of {len(waiting)} accepted")


def _decode(entry: Quarantined) -> Message:
    if entry.sha256 is not None and not entry.raw:
        raise DecodeError(
            "",
            f"none of its {entry.size} bytes is kept, because they may hold the address of a"
            " downloader; have it sent again",
        )
    if entry.sha256 is not None:
        raise DecodeError(
            "",
            f"only the first {len(entry.raw)} of its {entry.size} bytes are kept; have it sent"
            " again",
        )
    if entry.format == "json":
        return decode.from_json(entry.raw, entry.received)
    if entry.format == "cbor":
        if entry.source != log_queue.SOURCE:
            raise DecodeError("", "nothing has to be done: the master is asked again")
        return log_queue.message(entry.raw, entry.received)
    return decode.from_msgpack(entry.raw, entry.received)
