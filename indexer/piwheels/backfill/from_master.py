"""Everything that a running master knows, asked for package by package.

A package is journaled only if the index has it differently, so that a second run costs little.
Where it stopped is kept beside the journal.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ...base import filesystem, notes
from ...base.clock import Clock
from ...base.errors import DecodeError, PeerError
from ...base.times import DAY, Time
from ...messages.entries import Accepted, Entry, Refused
from ...messages.types import Message, SetAbis
from ...schema import piwheels as schema
from ...state.state import State
from .. import cbor, compare, translate
from ..queues.oracle import SUMS_TIMEOUT, CannotTellError, Oracle
from ..redact import refused

log = logging.getLogger(__name__)

RECORD = "backfill.json"
"""Its name in the state directory: how far a backfill got that has not ended."""

OLDEST = 7 * DAY
"""Age of a record that is still gone on with."""

MAX_UNTOLD = 10
"""Packages in a row of which the master cannot tell, until its database is thought to be ill."""

BATCH = 50
COUNTERS_BATCH = 5000

Progress = Callable[[int, int], None]
"""Is told how many of how many packages are done."""

_Found = TypeVar("_Found")


class Outcome(NamedTuple):
    """What a backfill did.

    Attributes:
        packages: those asked for.
        taken: those that the index had differently.
        deleted: those that the master does not have any more.
        counters: those whose downloads were taken.
        unusable: those whose answer was quarantined.
        untold: those of which the master cannot tell, each with its words.
        after: the last package of an earlier one that this went on with; empty if there was none.
        still_broken: feeds that broke after the beginning, and may lack what was asked for before.
    """

    packages: int
    taken: int
    deleted: int
    counters: int
    unusable: int
    untold: dict[str, str]
    after: str
    still_broken: list[str]


class Untold(NamedTuple):
    """That the master has a package, and cannot tell of it."""

    why: str


class Asker:
    """Asks a master for what a backfill or a comparison needs.

    Args:
        oracle: the master.
        pause: seconds between two packages.
        clock: the time of what is asked.
        sleep: waits.
    """

    def __init__(
        self, oracle: Oracle, pause: float, clock: Clock, sleep: Callable[[float], None]
    ) -> None:
        self._oracle = oracle
        self._pause = pause
        self._sleep = sleep
        self._untold = 0  # in a row
        self.clock = clock

    def abis(self, known: SetAbis) -> Message:
        """The build ABIs; what a master does not tell of them is as it is known.

        Raises:
            PeerError: if the master does not answer.
        """
        active, every = (self._oracle.request("GETABIS", skipped) for skipped in (True, False))
        return self._sound(
            "GETABIS",
            lambda: translate.set_abis(
                translate.checked(schema.NAMES, active),
                translate.checked(schema.NAMES, every),
                dict(known.build_abis),
                dict(known.preinstalled_apt_packages),
                self.clock(),
            ),
        )

    def packages(self) -> list[str]:
        """All packages, sorted.

        Raises:
            PeerError: if the master does not answer.
        """
        answer = self._oracle.request("ALLPKGS")
        found: list[str] = self._sound(
            "ALLPKGS", lambda: translate.checked(schema.NAMES, answer, "ALLPKGS")
        )
        return sorted(found)

    def package(self, package: str) -> Message | Refused | Untold | None:
        """The SNAPSHOT of a package; what the quarantine keeps of an answer that is none; that
        the master cannot tell of it; or None if it does not have it (any more).

        Raises:
            PeerError: if the master does not answer.
        """
        self._sleep(self._pause)
        try:
            project = self._oracle.request("PROJDATA", package)
        except CannotTellError as error:
            if not self._oracle.request("PKGEXISTS", package):
                return None
            self._untold += 1
            if self._untold > MAX_UNTOLD:
                raise CannotTellError(
                    f"{error.operation}, of {package} and {MAX_UNTOLD} before it",
                    error.cause,
                    error.remedy,
                ) from error
            return Untold(error.cause)
        self._untold = 0
        if translate.is_unknown(project):
            return None
        spellings = self._oracle.request("GETPKGNAMES", package)
        try:
            return translate.snapshot(package, project, spellings, self.clock())
        except DecodeError as error:
            return refused("db-queue", error, cbor.dumps("OK", project))

    def counters(self) -> dict[str, dict[str, int]]:
        """Downloads of the last 30 days, and ever, of every package.

        Raises:
            PeerError: if the master does not answer.
        """
        answer = self._oracle.request("GETSEARCH", within=SUMS_TIMEOUT)
        found: dict[str, dict[str, int]] = self._sound(
            "GETSEARCH", lambda: translate.checked(schema.COUNTERS, answer, "GETSEARCH")
        )
        return found

    @staticmethod
    def _sound(name: str, make: Callable[[], _Found]) -> _Found:
        try:
            return make()
        except DecodeError as error:
            raise PeerError(
                f"understand the master's answer to {name}",
                str(error),
                "see that the versions of piwheels and piw-indexer go together",
            ) from error


def backfill(state: State, asker: Asker, progress: Progress) -> Outcome:
    """Take all that a master knows into a state; one that was interrupted goes on.

    Raises:
        PeerError: if the master does not answer; what it told so far is kept.
        JournalError: if it could not be journaled.
    """
    broken = [feed.feed for feed in state.journal.reader.feeds() if feed.broken]
    record = Record(state.directory / RECORD, broken, asker.clock())
    went_on_after = record.after
    abis = compare.set_abis(state.connection)
    if abis != asker.abis(abis).data:
        state.take([Accepted(None, asker.abis(abis))])
    every = asker.packages()
    here = {row[0] for row in state.connection.execute("SELECT package FROM packages")}
    gone = sorted(here.difference(every)) if every else []
    state.take(
        [Accepted(None, translate.delete_package(package, asker.clock())) for package in gone]
    )
    taken = unusable = asked = 0
    untold: dict[str, str] = {}
    if not record.packages_done:
        comparer = compare.Comparer(state.connection)
        batch: list[Entry] = []
        for number, package in enumerate(every, 1):
            if package <= record.after:
                continue
            found = asker.package(package)
            asked += 1
            if isinstance(found, Refused):
                batch.append(found)
                unusable += 1
            elif isinstance(found, Untold):
                untold[package] = found.why
            elif found is not None and comparer.differences(found):
                batch.append(Accepted(None, found))
                taken += 1
            if asked % BATCH == 0:
                state.take(batch)
                batch.clear()
                record.reached(package)
                progress(number, len(every))
        state.take(batch)
        comparer.close()
        record.reached(every[-1] if every else "", packages_done=True)
    progress(len(every), len(every))
    counted = _take_counters(state, asker)
    for feed in record.broken:
        state.journal.repaired(feed)
    record.ended()
    still_broken = sorted({*broken}.difference(record.broken))
    return Outcome(asked, taken, len(gone), counted, unusable, untold, went_on_after, still_broken)


def _take_counters(state: State, asker: Asker) -> int:
    known = {
        row[0]: row[1]
        for row in state.connection.execute("SELECT package, downloads_all FROM download_counts")
    }
    batch: list[Entry] = []
    counted = 0
    for package, found in sorted(asker.counters().items()):
        if known.get(package, 0) == found["all"]:
            continue
        message = translate.downloads(package, found["recent"], found["all"], asker.clock())
        batch.append(Accepted(None, message))
        counted += 1
        if len(batch) == COUNTERS_BATCH:
            state.take(batch)
            batch.clear()
    state.take(batch)
    return counted


_RECORD = {
    "began": notes.count,
    "broken": [notes.text],
    "after": notes.text,
    "packages_done": notes.boolean,
}


class Record:
    """How far a backfill got; if it is lost, packages are asked for again.

    Attributes:
        broken: feeds that were broken when it began: what they lost it has asked for, or will.
    """

    def __init__(self, path: Path, broken: list[str], now: Time) -> None:
        self._path = path
        self._began = now
        self.broken = broken
        self.after = ""
        self.packages_done = False
        try:
            found = notes.read(path, _RECORD)
        except notes.NoteError:
            return
        if found is not None and 0 <= now - found["began"] < OLDEST:
            self._began = found["began"]
            self.broken = found["broken"]
            self.after = found["after"]
            self.packages_done = found["packages_done"]

    def reached(self, package: str, *, packages_done: bool = False) -> None:
        self.after, self.packages_done = package, packages_done
        found = {
            "began": self._began,
            "broken": self.broken,
            "after": package,
            "packages_done": packages_done,
        }
        filesystem.write(self._path, json.dumps(found).encode())

    def ended(self) -> None:
        self._path.unlink(missing_ok=True)


class Difference(NamedTuple):
    """How a package stands differently in the index, in words; and what would mend it, if that is
    known.
    """

    package: str
    what: list[str]
    mend: Entry | None


def differences(
    connection: Any, asker: Asker, packages: list[str], progress: Progress
) -> Iterator[Difference]:
    """Compare an index with a master.

    Args:
        connection: reads the index; a daemon may write it meanwhile.
        asker: the master.
        packages: which ones; all that either has, if there are none.
        progress: is told how far it is.

    Raises:
        PeerError: if the master does not answer.
    """
    abis = compare.set_abis(connection)
    there = asker.abis(abis)
    if abis != there.data:
        yield Difference("", ["the build ABIs differ"], Accepted(None, there))
    if not packages:
        here = [row[0] for row in connection.execute("SELECT package FROM packages")]
        packages = sorted({*asker.packages(), *here})
    comparer = compare.Comparer(connection)
    for number, package in enumerate(packages, 1):
        found = asker.package(package)
        if isinstance(found, Untold):
            yield Difference(package, [f"the master cannot tell of it: {found.why}"], None)
        elif isinstance(found, Refused):
            yield Difference(package, [f"the master's answer is unusable: {found.error}"], found)
        elif found is None:
            if connection.execute(
                "SELECT 1 FROM packages WHERE package = ?", (package,)
            ).fetchone():
                gone = translate.delete_package(package, asker.clock())
                yield Difference(package, ["the master does not have it"], Accepted(None, gone))
            else:
                yield Difference(package, ["neither the master nor the index has it"], None)
        else:
            what = comparer.differences(found)
            if what:
                yield Difference(package, what, Accepted(None, found))
        progress(number, len(packages))
    comparer.close()
