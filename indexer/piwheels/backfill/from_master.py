"""Takes everything that a running master knows, package by package.

A package is journaled only if it differs in the index, so a second run costs little. A file beside
the journal says where an interrupted backfill stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...base import filesystem, notes
from ...base.errors import DecodeError
from ...base.progress import Progress
from ...base.times import DAY, Time
from ...messages.entries import Accepted, Entry, Refused
from ...state.state import State
from .. import cbor, compare, translate
from ..queues import agenda
from ..queues.oracle import CannotTellError
from ..redact import refused
from .asker import Asker, NoAnswer

RECORD = "backfill.json"
"""The file in the state directory that says how far an unfinished backfill got."""

MAX_AGE = 7 * DAY
"""An unfinished backfill continues only up to this age."""

BATCH = 50
MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Of answers for one commit, and one more: read, they have many times their size."""

COUNTERS_BATCH = 5000


class Outcome(NamedTuple):
    """What a backfill did.

    Attributes:
        packages: those asked for.
        taken: those that the index had differently.
        deleted: those that the master does not have any more.
        counters: those whose downloads were taken.
        unusable: those whose answer was quarantined.
        unanswered: those that the master cannot answer for, each with its error.
        after: the last package of the interrupted backfill that this one continued; else empty.
        no_counters: why the master could not tell of downloads; empty if it could.
        still_broken: feeds that broke after the beginning and may lack what was taken before.
    """

    packages: int
    taken: int
    deleted: int
    counters: int
    unusable: int
    unanswered: dict[str, str]
    after: str
    no_counters: str
    still_broken: list[str]


def backfill(
    state: State, asker: Asker, progress: Progress, max_batch_bytes: int = MAX_BATCH_BYTES
) -> Outcome:
    """Take everything that a master knows; an interrupted backfill continues.

    Args:
        state: where to.
        max_batch_bytes: of answers for one commit, and one more.

    Raises:
        PeerError: if the master does not answer; what was taken is kept.
        JournalError: if the journal cannot be written.
    """
    broken = [feed.feed for feed in state.journal.reader.feeds() if feed.broken]
    record = Record(state.directory / RECORD, broken, asker.clock())
    went_on_after = record.after
    known = compare.set_abis(state.connection)
    abis = asker.abis(known)
    if abis.data != known:
        state.take([Accepted(None, abis)])
    every = asker.packages()
    here = {row[0] for row in state.connection.execute("SELECT package FROM packages")}
    gone = sorted(here.difference(every)) if every else []
    state.take(
        [Accepted(None, translate.delete_package(package, asker.clock())) for package in gone]
    )
    taken = unusable = asked = 0
    unanswered: dict[str, str] = {}
    if not record.packages_done:
        comparer = compare.Comparer(state.connection)
        batch: list[Entry] = []
        taken_at = asker.received
        for number, package in enumerate(every, 1):
            if package <= record.after:
                continue
            answer = asker.package(package)
            asked += 1
            if isinstance(answer, Refused):
                batch.append(answer)
                unusable += 1
            elif isinstance(answer, NoAnswer):
                unanswered[package] = answer.why
            elif answer is not None and comparer.differences(answer):
                batch.append(Accepted(None, answer))
                taken += 1
            if asked % BATCH == 0 or asker.received - taken_at >= max_batch_bytes:
                state.take(batch)
                batch.clear()
                taken_at = asker.received
                record.reached(package)
                progress(number, len(every))
        state.take(batch)
        comparer.close()
        agenda.all_answered(state.connection, record.began)
        record.reached(every[-1] if every else "", packages_done=True)
    progress(len(every), len(every))
    no_counters, counted, unsound = "", 0, 0
    try:
        counted, unsound = _take_counters(state, asker)
    except CannotTellError as error:
        no_counters = error.cause
    unusable += unsound
    for feed in record.broken:
        state.journal.repaired(feed)
    record.ended()
    still_broken = sorted({*broken}.difference(record.broken))
    return Outcome(
        *(asked, taken, len(gone), counted, unusable, unanswered),
        *(went_on_after, no_counters, still_broken),
    )


def _take_counters(state: State, asker: Asker) -> tuple[int, int]:
    """How many were taken, and how many are quarantined."""
    known = {
        row[0]: row[1]
        for row in state.connection.execute("SELECT package, downloads_all FROM download_counts")
    }
    batch: list[Entry] = []
    counted = unusable = 0
    for package, downloads in sorted(asker.counters().items()):
        recent, ever = downloads["recent"], downloads["all"]
        if known.get(package, 0) == ever:
            continue
        try:
            message = translate.downloads(package, recent, ever, asker.clock())
        except DecodeError as error:
            batch.append(refused("db-queue", error, cbor.dumps("OK", {package: downloads})))
            unusable += 1
        else:
            batch.append(Accepted(None, message))
            counted += 1
        if len(batch) == COUNTERS_BATCH:
            state.take(batch)
            batch.clear()
    state.take(batch)
    return counted, unusable


class _Reached(NamedTuple):
    began: int
    broken: list[str]
    after: str
    packages_done: bool


class Record:
    """How far a backfill got; if the file is lost, packages are requested again.

    Attributes:
        began: when it began.
        broken: feeds that were broken at its beginning, which it repairs.
    """

    def __init__(self, path: Path, broken: list[str], now: Time) -> None:
        self._path = path
        self.began = now
        self.broken = broken
        self.after = ""
        self.packages_done = False
        try:
            reached = notes.read(path, _Reached)
        except notes.NoteError:
            return
        if reached is not None and 0 <= now - reached.began < MAX_AGE:
            self.began, self.broken, self.after, self.packages_done = reached

    def reached(self, package: str, *, packages_done: bool = False) -> None:
        self.after, self.packages_done = package, packages_done
        reached = _Reached(self.began, self.broken, package, packages_done)
        filesystem.write(self._path, notes.dumps(reached))

    def ended(self) -> None:
        self._path.unlink(missing_ok=True)
