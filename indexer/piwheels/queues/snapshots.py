"""Packages as a running master has them: requested one at a time, and journaled if they differ.

Packages whose builds have just finished come first, then those that differed and are to be asked
for once more, then those that the index lacks. All others are requested slowly and for ever,
because the master's feeds do not report every change: first those that have likely changed.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import zmq

from ...base import names, times
from ...base.backoff import Backoff
from ...base.clock import Clock
from ...base.errors import DecodeError, PeerError, Problem
from ...base.log import NOTICE, event
from ...base.once_per import LimitedLog
from ...daemon.source import DaemonContext
from ...daemon.status_file import LiveDbQueue
from ...feed.security import LOCAL_CONNECTING, Connecting
from ...index import queries
from ...messages.entries import Accepted, Entry, Row
from ...messages.types import Message, package_of
from ...schema.piwheels import NAMES, NO_DATA
from .. import compare, translate
from ..farm.picture import Finished
from ..redact import refused
from .agenda import Agenda, Ages
from .oracle import Answer, Oracle

log = logging.getLogger(__name__)

SOURCE = "db-queue"
"""Where quarantined answers came from."""

LIST_INTERVAL = 3600
"""Pauses between two requests for the list of all packages."""

SWEEP_DELAY = 60
"""Pauses between the end of a sweep over all packages and the next."""

MAX_RETRY_DELAY = 60.0

LIST_RETRY_DELAY = 60
"""Pauses between two such requests, at least."""

SURE_DELAY = 3.0
"""Seconds until a difference counts: a message about it may be on its way."""

WITHOUT = {
    "GETABIS": "new build ABIs are not noticed",
    "ALLPKGS": "new and deleted packages are not noticed",
}
"""What does not work if the master does not answer these requests; the rest does."""

AGES_INTERVAL = 60.0
"""Seconds between two looks at how old the answers are: at full size it takes some 20 ms."""

MAX_DUE = 10_000
"""Packages that are due, that differed, or that the master does not answer for; each kind. The
sweep over all packages finds any more of them."""

Step = tuple[str, Any]

_ALL_HERE = "SELECT package FROM packages ORDER BY package"


def unlike(there: list[str], here: Iterable[tuple[str]]) -> tuple[list[str], list[str]]:
    """What only `there` has, and what only `here` has; both are sorted.

    Sets of 600,000 names each would take a hundred megabytes.
    """
    lacking: list[str] = []
    gone: list[str] = []
    position = 0
    for (package,) in here:
        while position < len(there) and there[position] < package:
            lacking.append(there[position])
            position += 1
        if position == len(there) or there[position] != package:
            gone.append(package)
        while position < len(there) and there[position] == package:
            position += 1
    return lacking + there[position:], gone


def _holds(names: list[str], name: str) -> bool:
    """Whether a sorted list contains a name."""
    position = bisect_left(names, name)
    return position < len(names) and names[position] == name


def _tells_ends(snapshot: Message) -> bool:
    """Whether a snapshot tells when a build ended: the index does not know that yet."""
    return any(
        getattr(abi, "built_at", None) is not None
        for release in snapshot.data.releases
        for abi in release.abis
    )


class Snapshots:
    """A source of the daemon: the master's database queue.

    Args:
        address: the master's `db-queue`.
        pause: seconds between two requests that nobody waits for.
        clock: the time of a snapshot.
        monotonic: seconds, for pauses and timeouts.
        protection: who may be the master.
        sure_delay: seconds until a difference counts.
    """

    def __init__(
        self,
        daemon: DaemonContext,
        address: str,
        pause: float,
        clock: Clock,
        monotonic: Callable[[], float],
        protection: Connecting = LOCAL_CONNECTING,
        sure_delay: float = SURE_DELAY,
    ) -> None:
        self._sure_delay = sure_delay
        self._connection = daemon.connection
        self._wake = daemon.wake
        self._oracle = Oracle(daemon.context, address, monotonic, protection)
        self._pause = pause
        self._rhythm = max(pause, 0.01)
        self._clock = clock
        self._monotonic = monotonic
        self._log = LimitedLog(log, monotonic)
        self._comparer = compare.Comparer(daemon.connection)
        self._agenda = Agenda(daemon.connection, clock)
        # Their builds have finished; since when.
        self._due = dict(self._agenda.due(MAX_DUE))
        self._builds: list[translate.EndedBuild] = []  # of the package that is being requested
        self._doubtful: dict[str, float] = {}  # they differ; since when
        self._lacking: dict[str, None] = {}
        self._sweep = clock()  # began then
        self._ages = Ages(None, None, 0)
        self._next_ages = 0.0
        self._steps: Iterator[Step] = iter(())
        self._package = ""  # that is being requested
        self._again = False  # whether a message about it came meanwhile
        # The package whose answer is being journaled, and its builds that had ended.
        self._journaled: tuple[str, list[translate.EndedBuild]] | None = None
        self._answers: list[Answer] = []
        self._next = 0.0
        self._idle = False  # nothing was to be asked when we last looked
        self._next_list = self._listed = 0.0
        self._unanswered: set[str] = set()  # listed, but the master does not answer for them
        self._next_sweep = 0.0
        self._backoff = Backoff(1.0, MAX_RETRY_DELAY)
        self._abis_known = False
        self._failure: Problem | None = None
        self._unanswerable: dict[str, str] = {}  # what the master cannot answer, by the request
        self.taken = 0
        """Snapshots that differed from the index, so far."""
        self.asked = 0
        """Packages asked for, so far."""

    @property
    def problem(self) -> Problem | None:
        """Why the master cannot be asked, or what it does not answer; None if all is well."""
        if self._failure is None and self._unanswerable:
            return Problem("; ".join(self._unanswerable.values()))
        return self._failure

    def finished(self, build: Finished) -> None:
        """Request a package soon: one of its builds has ended."""
        package = names.canonical(build.package)
        if package == self._package:
            self._again = True
        if len(self._due) < MAX_DUE or package in self._due:
            self._due.setdefault(package, self._clock())
            self._agenda.add(build)
            self._idle = False

    def accepted(self, rows: Sequence[Row]) -> None:
        """Request the present package again if one of the messages is about it."""
        if self._journaled is not None:
            self._agenda.answered(*self._journaled, differed=True)
            self._journaled = None
        if self._package:
            for row in rows:
                if package_of(row.message.data) == self._package:
                    self._again = True
                    return

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        """The socket to the master, while an answer is awaited."""
        return [self._oracle.peer.socket] if self._oracle.busy else []

    def receive(self, limit: int, until: float) -> list[Entry]:
        """Answers that differ from the index; sends the next requests."""
        entries: list[Entry] = []
        while True:
            try:
                answer = self._oracle.answer()
            except PeerError as error:
                self._fail(error.problem.what)
                return entries
            except DecodeError as error:
                self._fail(str(error))
                return entries
            if answer is not None:
                self._take(answer, entries)
                if entries:
                    self._wake()  # or the daemon would wait before the next request
                    return entries  # they must be applied before the next comparison
            if self._oracle.busy or self._monotonic() >= until or not self._ask():
                return entries

    def _ask(self) -> bool:
        """Send the next request; false if there is none now, or the master is away."""
        now = self._monotonic()
        if now < self._next:
            return False
        step = next(self._steps, None)
        if step is None:
            self._steps = self._begin(now)
            step = next(self._steps, None)
        self._idle = step is None
        if step is None:
            return False
        if not self._oracle.ask(*step):
            self._fail(f"cannot ask the master at {self._oracle.peer.address}: nobody is there")
            return False
        return True

    def _begin(self, now: float) -> Iterator[Step]:
        """The requests to send next."""
        self._answers = []
        self._package = ""
        if not self._abis_known:
            return iter([("GETABIS", True), ("GETABIS", False)])
        if self._due:
            return self._of_package(next(iter(self._due)))
        doubtful = next(iter(self._doubtful.items()), None)
        if doubtful is not None and now >= doubtful[1] + self._sure_delay:
            return self._of_package(doubtful[0])
        if self._lacking:
            return self._of_package(next(iter(self._lacking)))
        if now >= self._next_list:
            return iter([("ALLPKGS", NO_DATA)])
        if now < self._next_sweep:
            return iter(())
        package = self._agenda.next(self._sweep)
        if package is None:
            self._sweep = self._clock()
            self._next_list = self._next_sweep = now + max(1.0, SWEEP_DELAY * self._pause)
            return iter(())
        return self._of_package(package)

    def _of_package(self, package: str) -> Iterator[Step]:
        self._due.pop(package, None)
        self._lacking.pop(package, None)
        self._package = package
        self._builds = self._agenda.builds(package)
        self._again = False
        return iter([("PROJDATA", package), ("GETPKGNAMES", package)])

    def _take(self, answer: Answer, entries: list[Entry]) -> None:
        """Handle an answer; what differs from the index is added to `entries`."""
        self._recover()
        self._answers.append(answer)
        try:
            if answer.error:
                self._refused(answer)
            elif answer.name == "GETABIS" and len(self._answers) == 2:
                self._take_abis(entries)
            elif answer.name == "ALLPKGS":
                self._take_list(answer, entries)
            elif answer.name == "GETPKGNAMES":
                self._take_package(entries)
        except DecodeError as error:
            self._steps = iter(())
            self._package = ""
            entries.append(refused(SOURCE, error, answer.frame))

    def _refused(self, answer: Answer) -> None:
        """Handle an error of the master: the package is gone, or its database has a problem."""
        self._steps = iter(())
        self._next = self._monotonic() + max(self._pause, 1.0)
        if answer.name == "PROJDATA":
            log.debug(
                "the master does not describe %s: %s",
                self._package,
                answer.error,
                extra=event("package-not-told", package=self._package),
            )
            self._not_told(self._package)
            self._package = ""
        elif answer.name in WITHOUT:
            self._cannot(answer)
        else:
            self._fail(f"the master cannot answer {answer.name}: {answer.error}")

    def _cannot(self, answer: Answer) -> None:
        """Go on without an answer, and try again with the next list of packages."""
        now = self._monotonic()
        if answer.name == "GETABIS":
            self._abis_known = True
        else:
            self._next_list = now + LIST_INTERVAL * self._rhythm
        what = f"the master cannot answer {answer.name}: {answer.error}; {WITHOUT[answer.name]}"
        if answer.name not in self._unanswerable:
            log.warning(
                "%s", what, extra=event("master-cannot-answer", address=self._oracle.peer.address)
            )
        self._unanswerable[answer.name] = what

    def _not_told(self, package: str) -> None:
        """Request the list earlier, to see whether a package is gone; once for each package."""
        if package not in self._unanswered and len(self._unanswered) < MAX_DUE:
            self._unanswered.add(package)
            self._next_list = min(self._next_list, self._listed + LIST_RETRY_DELAY * self._rhythm)

    def _take_abis(self, entries: list[Entry]) -> None:
        active, every = (
            translate.checked(NAMES, answer.data, "GETABIS") for answer in self._answers
        )
        self._abis_known = True
        self._unanswerable.pop("GETABIS", None)
        known = compare.set_abis(self._connection)
        skips = dict(known.build_abis)
        if {abi for abi, skip in skips.items() if not skip} != {*active} or {*skips} != {*every}:
            message = translate.set_abis(
                active, every, skips, dict(known.preinstalled_apt_packages), self._clock()
            )
            entries.append(Accepted(None, message))

    def _take_list(self, answer: Answer, entries: list[Entry]) -> None:
        """Compare the list of all packages: request what is missing, delete what is gone."""
        there = sorted(translate.checked(NAMES, answer.data, "ALLPKGS"))
        self._answers.clear()
        lacking, gone = unlike(there, self._connection.execute(_ALL_HERE))
        now = self._monotonic()
        every = LIST_INTERVAL * self._rhythm
        if now >= self._listed + every:
            self._unanswered.clear()
        self._unanswered = {package for package in self._unanswered if _holds(there, package)}
        self._lacking = dict.fromkeys(
            package for package in lacking if package not in self._unanswered
        )
        if there:  # an empty list means that the master lost its database
            entries += [
                Accepted(None, translate.delete_package(package, self._clock())) for package in gone
            ]
        self._next_list, self._listed = now + every, now
        self._unanswerable.pop("ALLPKGS", None)
        if "GETABIS" in self._unanswerable:
            self._abis_known = False
        for package, since in self._agenda.due(MAX_DUE).items():
            if _holds(there, package):  # the master failed when it was asked
                self._due.setdefault(package, since)
            elif there:
                self._agenda.unknown(package, self._agenda.builds(package))

    def _take_package(self, entries: list[Entry]) -> None:
        (project, spellings), self._answers = self._answers, []
        package, again = self._package, self._again
        self._package = ""
        self.asked += 1
        if again:
            # The answer may be older than a message that came meanwhile.
            self._doubtful.pop(package, None)
            self._due.setdefault(package, self._clock())
            return
        if translate.is_unknown(project.data):
            self._doubtful.pop(package, None)
            self._agenda.unknown(package, self._builds)
            self._not_told(package)
            return
        self._unanswered.discard(package)
        message = translate.snapshot(
            package,
            project.data,
            spellings.data,
            self._clock(),
            self._builds,
            self._agenda.timed(package) if self._builds else (),
        )
        del project  # of a large package, comparing takes as much memory once more
        if not self._news(message) and not _tells_ends(message):
            self._doubtful.pop(package, None)
            self._agenda.answered(package, self._builds, differed=False)
        elif self._sure(package):
            self._doubtful.pop(package, None)
            entries.append(Accepted(None, message))
            self._journaled = package, self._builds
            self.taken += 1
        if not self._due and not self._lacking:
            self._next = self._monotonic() + self._pause
        if {abi for release in message.data.releases for abi, *_ in release.abis} - self._active():
            self._abis_known = False  # the master builds for ABIs that we do not know

    def _sure(self, package: str) -> bool:
        """Whether a difference has lasted; a package that the index lacks is taken at once."""
        if not queries.is_package(self._connection, package):
            return True
        now = self._monotonic()
        if len(self._doubtful) >= MAX_DUE and package not in self._doubtful:
            return False  # the sweep will request it again
        return now >= self._doubtful.setdefault(package, now) + self._sure_delay

    def _active(self) -> set[str]:
        return {*queries.load_abis(self._connection).active}

    def _news(self, message: Message) -> bool:
        different = self._comparer.differences(message)
        if different:
            log.debug(
                "%s: %s",
                message.data.package,
                "; ".join(different[:3]),
                extra=event("snapshot-differs", package=message.data.package),
            )
        return bool(different)

    def _fail(self, what: str) -> None:
        """Pause after an error."""
        if self._package:
            self._due.setdefault(self._package, self._clock())
            self._package = ""
        self._steps = iter(())
        self._abis_known = False  # another master may come back
        self._next = self._monotonic() + self._backoff.failed()
        if not self._failure:
            self._log.warning(
                "%s; we ask again",
                what,
                extra=event("master-silent", address=self._oracle.peer.address),
            )
        self._failure = Problem(what)

    def _recover(self) -> None:
        if self._failure:
            self._log.log(
                NOTICE,
                "the master at %s answers again",
                self._oracle.peer.address,
                extra=event("master-answers", address=self._oracle.peer.address),
            )
        self._failure = None
        self._backoff.worked()

    @property
    def distrust(self) -> Problem | None:
        return self._oracle.peer.distrust

    def tick(self) -> None:
        """Look at how old the answers are, now and then."""
        now = self._monotonic()
        if now >= self._next_ages:
            self._next_ages = now + AGES_INTERVAL
            self._ages = self._agenda.ages()

    def due_in(self) -> float:
        """Seconds until the next request; infinite if there is nothing to ask, or to wait for."""
        if self._idle or self._oracle.busy:
            return math.inf
        return max(0.0, self._next - self._monotonic())

    def live(self) -> dict[str, tuple[Any, ...]]:
        due = len(self._due) + len(self._lacking) + len(self._doubtful)
        what = self.problem.what if self.problem is not None else ""
        since = self._agenda.waiting_since()
        waits = None if since is None else max(0, self._clock() - since) / times.SECOND
        return {
            "db_queue": LiveDbQueue(
                self._oracle.peer.address, self.asked, self.taken, due, what, waits, *self._ages
            )
        }

    def drain(self) -> None:
        """Do nothing: a lost answer is requested again."""

    def close(self) -> None:
        self._oracle.close()
        self._comparer.close()
