"""`python -m tests.bench.estimate`: how far the estimate of status.json is from what then happened.

Lives of a farm are replayed: versions arrive as the simulation has them, packages with all their
versions at once; two slaves for each ABI build what has waited longest. Durations are lognormal
(binary wheels: median 100 s, mean 6 minutes, up to 3 hours; the others: median 8 s). A slave goes
away every 12 hours for 2 hours, and what it was building waits again. Every 3 hours each estimate
is compared with the time until all that waited had a build.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from indexer.demo.simulation import Farm
from indexer.documents.estimate import done_in
from indexer.documents.status import MAX_BUILDS

ABIS = ("cp39", "cp311", "cp313")
SLAVES = 2
HOUR = 3600.0
LOADS = (3.0, 10.0, 20.0)
"""How many times longer builds take: farms with much time to spare, with some, and with none."""

_FITS = {"none": "every", "abi3": "newer"}


class Job(NamedTuple):
    """A version: when it arrives, which ABIs a wheel of it fits, and where its build fails."""

    at: float
    fits: str
    fails: frozenset[str]


class Compared(NamedTuple):
    """An estimate and what then happened, in seconds."""

    estimate: int
    actual: float

    @property
    def factor(self) -> float:
        """By which it is wrong, in either direction; less than a minute does not count."""
        estimate, actual = max(self.estimate, 60), max(self.actual, 60)
        return max(estimate / actual, actual / estimate)


def jobs(seed: int) -> list[Job]:
    """The versions of a simulated farm, in the order in which they arrive."""
    farm = Farm(seed=seed, packages=400, downloads=0, days=20, deletion_rate=0, abis=ABIS)
    begin = farm.now.timestamp() - farm.days * 24 * HOUR
    arrived: dict[tuple[str, str], float] = {}
    fits: dict[tuple[str, str], str] = {}
    fails: dict[tuple[str, str], set[str]] = {}
    for message in farm.messages():
        data = message["data"]
        key = data.get("package", ""), data.get("version", "")
        if message["msg"] == "NEWVER" and not data["skip"]:
            at = datetime.fromisoformat(message["at"]).timestamp()
            arrived.setdefault(key, at - begin)
        elif message["msg"] == "LOGBUILD" and data["files"]:
            fits[key] = _FITS.get(data["files"][0]["abi_tag"], "own")
        elif message["msg"] == "LOGBUILD":
            fails.setdefault(key, set()).add(data["abi_tag"])
    return [
        Job(at, fits.get(key, "own"), frozenset(fails.get(key, ()))) for key, at in arrived.items()
    ]


class Life:
    """The life of a farm that has work; `compared` fills while it is lived."""

    def __init__(self, seed: int, slowness: float) -> None:
        self._random = random.Random(seed)
        self._jobs = jobs(seed)
        self._slowness = slowness
        self._events: list[tuple[float, int, str, int]] = []
        self._waiting: dict[str, dict[int, None]] = {abi: {} for abi in ABIS}
        self._slaves = [abi for abi in ABIS for _ in range(SLAVES)]
        self._there = [True] * len(self._slaves)
        self._building: dict[int, tuple[int, float, float]] = {}  # slave: job, duration, its end
        self._recent: deque[tuple[str, float]] = deque(maxlen=MAX_BUILDS)
        self._open: list[tuple[str, float, int, set[int]]] = []  # estimates, what they wait for
        self.compared: list[Compared] = []

    def _later(self, at: float, what: str, number: int) -> None:
        heapq.heappush(self._events, (at, len(self._events), what, number))

    def live(self) -> list[Compared]:
        for number, job in enumerate(self._jobs):
            self._later(job.at, "arrives", number)
        for slave in range(len(self._slaves)):
            self._later(self._random.expovariate(1 / (12 * HOUR)), "leaves", slave)
        end = self._jobs[-1].at
        self._later(3 * HOUR, "asked", 0)
        while self._events and (self._events[0][0] < end or self._open):
            now, _, what, number = heapq.heappop(self._events)
            if what == "arrives":
                for abi in ABIS:
                    self._waiting[abi][number] = None
            elif what == "leaves":
                self._there[number] = False
                self._building.pop(number, None)
                self._later(now + self._random.expovariate(1 / (2 * HOUR)), "comes", number)
            elif what == "comes":
                self._there[number] = True
                self._later(now + self._random.expovariate(1 / (12 * HOUR)), "leaves", number)
            elif what == "asked" and now < end:
                self._ask(now)
                self._later(now + 3 * HOUR, "asked", 0)
            elif what == "done" and self._building.get(number, (0, 0, 0))[2] == now:
                self._built(number, now)
            self._give_work(now)
        return self.compared

    def _give_work(self, now: float) -> None:
        taken = {(self._slaves[slave], job) for slave, (job, _, _) in self._building.items()}
        for slave, abi in enumerate(self._slaves):
            if not self._there[slave] or slave in self._building:
                continue
            number = next((one for one in self._waiting[abi] if (abi, one) not in taken), None)
            if number is None:
                continue
            taken.add((abi, number))
            median, spread = (8, 1.0) if self._jobs[number].fits == "every" else (100, 1.6)
            duration = min(3 * HOUR, median * math.exp(self._random.gauss(0, spread)))
            duration *= self._slowness
            self._building[slave] = number, duration, now + duration
            self._later(now + duration, "done", slave)

    def _built(self, slave: int, now: float) -> None:
        number, duration, _ = self._building.pop(slave)
        abi, job = self._slaves[slave], self._jobs[number]
        self._recent.append((abi, duration))
        decided = [abi]
        if abi not in job.fails and job.fits != "own":
            decided = [*ABIS] if job.fits == "every" else [*ABIS[ABIS.index(abi) :]]
        for other in decided:
            self._waiting[other].pop(number, None)
        for asked, at, estimate, waits in self._open:
            if asked in decided:
                waits.discard(number)
                if not waits:
                    self.compared.append(Compared(estimate, now - at))
        self._open = [one for one in self._open if one[3]]

    def _ask(self, now: float) -> None:
        for abi, waiting in self._waiting.items():
            there = sum(self._there[one] for one, of in enumerate(self._slaves) if of == abi)
            durations = [duration for of, duration in self._recent if of == abi]
            estimate = done_in(len(waiting), there, durations)
            if waiting and estimate is not None:
                self._open.append((abi, now, estimate, set(waiting)))


def every(seeds: Iterable[int]) -> Iterator[Compared]:
    for seed in seeds:
        for slowness in LOADS:
            yield from Life(seed, slowness).live()


def factors(compared: Iterable[Compared]) -> tuple[int, float, float]:
    """How many, and the factor by which half of them, and nine of ten, are wrong at most."""
    found = [one.factor for one in compared]
    deciles = statistics.quantiles(found, n=10)
    return len(found), deciles[4], deciles[8]


def main() -> None:
    found = list(every(range(5)))
    print("what waited was built | estimates | half are wrong by at most | nine of ten")
    for least, most, what in (
        (0.0, HOUR, "in an hour"),
        (HOUR, 24 * HOUR, "in a day"),
        (24 * HOUR, math.inf, "later"),
        (0.0, math.inf, "all"),
    ):
        count, half, most_of_them = factors(one for one in found if least <= one.actual < most)
        print(f"{what:21} | {count:9} | {half:24.1f}x | {most_of_them:10.1f}x")


if __name__ == "__main__":
    main()
