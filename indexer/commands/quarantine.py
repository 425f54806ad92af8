"""`piw-indexer quarantine`: refused messages, the reasons, and another try."""

from __future__ import annotations

from pathlib import Path

import click
import orjson
from rich.table import Table
from rich.text import Text

from ..base import clock, options, printable, times
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
from ..state.state import State


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=int)
@options.configuration
@options.option("state-dir")
@options.flag("retry")
@options.flag("dismiss")
@options.flag("all")
@options.flag("json")
@options.flag("spool")
@as_owner
def quarantine(
    ids: tuple[int, ...],
    state_dir: Path,
    retry: bool,
    dismiss: bool,
    everything: bool,
    as_json: bool,
    spool: bool,
) -> None:
    """List refused messages; or show, retry or dismiss those with the given IDs."""
    journal = SPOOL if spool else JOURNAL
    refuse_missing(state_dir, journal)
    reader = JournalReader(state_dir / journal)
    # All of them may be many megabytes, so each is read when it is needed.
    shown = list(entries.entries(reader, raw=False))
    let_go = entries.let_go(reader)
    unknown = set(ids).difference(entry.quarantine_id for entry in shown)
    if unknown:
        raise UsageError(
            "show from the quarantine",
            f"there is no {', '.join(map(str, sorted(unknown)))} in it",
            "run `piw-indexer quarantine` for a list",
        )
    if ids:
        shown = [entry for entry in shown if entry.quarantine_id in ids]
    elif not everything:
        shown = [entry for entry in shown if entry.retried is None]
    if dismiss and (retry or not ids):
        raise UsageError(
            "put aside", "--retry is given, too" if retry else "no ID is given", "give IDs only"
        )
    if retry and spool and not dismiss:
        raise UsageError("retry", "correct the message in the publisher's file")
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


def _list(shown: list[Quarantined], let_go: int) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "received", "from", "reason"):
        table.add_column(column, justify="right" if column == "id" else "left")
    for entry in shown:
        reason = f"{entry.path}: {entry.reason}" if entry.path else entry.reason
        times_seen = f" ({entry.times} times)" if entry.times > 1 else ""
        table.add_row(
            str(entry.quarantine_id),
            times.to_sql(entry.received),
            Text(
                printable.line(entry.source)
                + ("" if entry.feed_serial is None else f" {entry.feed_serial}")
            ),
            Text(printable.line(reason) + times_seen),
        )
    if shown:
        console().print(table)
    else:
        printable.echo("The quarantine is empty.")
    if let_go:
        printable.echo(
            f"{let_go} older messages were deleted, because their sources sent too many."
        )


def _show(entry: Quarantined) -> None:
    for name, value in entry._asdict().items():
        if name == "received":
            value = times.to_rfc3339(entry.received)
        if name != "raw":
            printable.echo(f"{name:14} {printable.whole_line(str(value))}")
    if entry.format == "json":
        raw = entry.raw.decode(errors="backslashreplace").rstrip("\n")
        printable.echo(printable.whole_line(raw))
    else:
        printable.echo(f"raw, in hex    {entry.raw.hex()}")


def _dismiss(state_dir: Path, journal: str, ids: list[int]) -> None:
    if journal == SPOOL:
        raise UsageError("put aside", "the spool's quarantine is its publisher's", "leave it")
    state = State(state_dir, "quarantine", clock.now)
    try:
        state.journal.dismiss(ids)
    finally:
        state.close()
    printable.echo(f"{len(ids)} put aside; `piw-indexer quarantine --all` lists them")


def _retry(state_dir: Path, reader: JournalReader, waiting: list[int]) -> None:
    wanted = set(waiting)
    state = State(state_dir, "quarantine", clock.now)
    accepted = 0
    try:
        for entry in entries.entries(reader):
            if entry.quarantine_id not in wanted:
                continue
            try:
                message = _decode(entry)
            except DecodeError as error:
                printable.echo(f"{entry.quarantine_id}: still refused: {error}", err=True)
                continue
            accepted += state.retry(entry.quarantine_id, message)
    finally:
        state.close()
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
