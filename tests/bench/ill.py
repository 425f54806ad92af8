"""`python -m tests.bench.ill`: how soon an ill slave is noticed, and how often a healthy one is.

The lives are made up, and heavier than a real farm's: failures depend on the package, the ABI and
the slave, durations have heavy tails, releases come in bursts and by day, slaves of two speeds come
and go. Prints the tables of docs/operating.md.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from indexer.base import times
from indexer.watch.illness import MAX_BUILDS, Build, Judge, Symptom

DAILY = 1000
"""Builds of the farm a day."""

FARM = {
    **dict.fromkeys((1, 2, 3), ("cp39", 1.0)),
    **{number: ("cp311", 1.0 if number < 6 else 2.2) for number in (4, 5, 6, 7)},
    **dict.fromkeys((8, 9), ("cp313", 1.0)),
    10: ("cp314", 2.2),
}
"""The ABI of each slave, and how slow it is: some are of an older model."""

NEW, LEAVES, ALONE = 7, 3, 10
"""The slave that comes in the middle of a life, the one that goes, and the one of its ABI."""

ABI_ODDS = {"cp39": 0.8, "cp311": 1.0, "cp313": 1.3, "cp314": 2.5}
"""Of failures: new Pythons have more."""

START = times.parse_rfc3339("2026-01-01T00:00:00Z")


@dataclass
class Ill:
    """What befalls a slave from one of its builds on, until it is `over`."""

    slave_id: int
    fails: float = 0.0  # of what would have succeeded
    slower: float = 1.0
    platform: str = "linux_armv7l"
    over: bool = False


HEALTHY = Ill(0)


class _Package(NamedTuple):
    name: str
    odds: float  # of a failure
    pure: bool
    duration: float  # logarithm


def _package(rng: random.Random, name: str) -> _Package:
    share = min(max(rng.betavariate(0.25, 0.5), 1e-4), 1 - 1e-4)
    odds = share / (1 - share)
    return _Package(name, odds, rng.random() < 0.5, rng.gauss(3.5, 1.5))


def life(seed: int, builds: int, ill: Ill | None = None, after: int = 0) -> Iterator[Build]:
    """The builds of a farm, the same for the same seed; `ill` begins after so many of them."""
    rng = random.Random(seed)
    packages = [_package(rng, f"p{number}") for number in range(3000)]
    waiting: list[tuple[float, int, _Package, float, list[str]]] = []  # a heap
    burst: list[tuple[_Package, float]] = []
    moment, turn, done = 0.0, 0, 0
    while done < builds:
        if not waiting or waiting[0][0] > moment:
            release(rng, packages, burst)
            package, odds = burst.pop()
            # By day twice as many as at night.
            day = 1.3 + 0.7 * math.sin(moment / 86400 * 2 * math.pi)
            moment += rng.expovariate(day * DAILY / 2 / 86400) if not burst else 1.0
            abis = list(ABI_ODDS)
            rng.shuffle(abis)
            turn += 1
            heapq.heappush(waiting, (moment, turn, package, odds, abis))
            continue
        at, _, package, odds, abis = heapq.heappop(waiting)
        abi = abis.pop()
        number = _free(rng, abi, done / builds)
        here = ill if ill and ill.slave_id == number and done >= after and not ill.over else HEALTHY
        odds_here = odds * ABI_ODDS[abi] * (1.25 if FARM[number][1] > 1 else 1.0)
        failed = rng.random() < odds_here / (1 + odds_here)
        failed = failed or rng.random() < here.fails
        # Student's t with three degrees of freedom: now and then a build takes ten times longer.
        noise = rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3)
        spent = math.exp(package.duration - failed + 0.35 * noise) * FARM[number][1]
        platform = here.platform if rng.random() < 0.99 else "manylinux_2_17_armv7l"
        done += 1
        yield Build(
            number, None, True, abi, package.name, failed, spent * here.slower,
            times.to_sql(START + round(at * times.SECOND)), None,
            frozenset() if failed or package.pure else frozenset([platform]),
        )  # fmt: skip
        if abis and (failed or not package.pure):  # one wheel of a pure package serves all ABIs
            turn += 1
            later = at + rng.expovariate(1 / 3600)
            heapq.heappush(waiting, (later, turn, package, odds, abis))


def release(
    rng: random.Random, packages: list[_Package], burst: list[tuple[_Package, float]]
) -> None:
    """What comes out next, if nothing of a burst waits."""
    if burst:
        return
    chance = rng.random()
    if chance < 0.0004:  # one package with hundreds of releases of the same fate
        package = _package(rng, f"many{rng.random()}")
        odds = 1e4 if rng.random() < 0.5 else 1e-4
        burst += [(package, odds)] * rng.randrange(100, 500)
    elif chance < 0.001:  # packages of one author with the same fate
        odds = 1e4 if rng.random() < 0.5 else 1e-4
        word = rng.choice(["kin-", "kin"])  # half of the time their names show it
        burst += [
            (_package(rng, f"{word}{rng.random()}"), odds) for _ in range(rng.randrange(20, 80))
        ]
    elif chance < 0.3:
        package = _package(rng, f"new{rng.random()}")
        burst.append((package, package.odds))
    else:
        package = packages[int(len(packages) ** rng.random()) - 1]
        burst.append((package, package.odds))


def _free(rng: random.Random, abi: str, passed: float) -> int:
    """A slave of an ABI; the quick ones are free more often."""
    there = [
        number
        for number, (its, _) in FARM.items()
        if its == abi and (number != NEW or passed > 0.5) and (number != LEAVES or passed < 0.7)
    ]
    return rng.choices(there, [1 / FARM[number][1] for number in there])[0]


def alarms(seed: int, builds: int) -> Counter[tuple[int, str]]:
    """The false alarms of a life, by slave and symptom.

    `status` judges the last `MAX_BUILDS`; here each build comes after at least half as many.
    """
    found: Counter[tuple[int, str]] = Counter()
    whole = list(life(seed, builds))
    half = MAX_BUILDS // 2
    for begin in range(0, builds - half, half):
        judge = Judge()
        before: set[tuple[int, str]] = set()
        for number, build in enumerate(whole[begin : begin + MAX_BUILDS]):
            judge.take(build)
            if number % 10 == 0:
                now = {(one.slave_id, str(one.symptom)) for one in judge.ill()}
                if number >= half or not begin:
                    found.update(now - before)
                before = now
    return found


def delays(seed: int, ill: Ill, symptom: str) -> tuple[float, float]:
    """Builds of the slave from falling ill to the alarm, and from being well to its end.

    Infinite if that does not come. It is well again as soon as the alarm is there.
    """
    judge, after = Judge(), MAX_BUILDS * 2 // 3
    own = raised = 0
    for number, build in enumerate(life(seed, 2 * MAX_BUILDS, ill, after)):
        judge.take(build)
        if number < after or build.slave_id != ill.slave_id:
            continue
        own += 1
        there = (ill.slave_id, symptom) in {(one.slave_id, one.symptom) for one in judge.ill()}
        if there and not raised:
            raised = own
            ill.over = True
        elif raised and not there:
            return raised, own - raised
    return raised or math.inf, math.inf


ILLS: tuple[tuple[str, dict[str, Any], Symptom], ...] = (
    ("everything fails", {"slave_id": 4, "fails": 1.0}, "failures"),
    ("everything fails, alone with its ABI", {"slave_id": 10, "fails": 1.0}, "failures"),
    ("twice as many fail", {"slave_id": 4, "fails": 0.8}, "failures"),
    ("1.5 times as many fail", {"slave_id": 4, "fails": 0.4}, "failures"),
    ("3 times slower", {"slave_id": 4, "slower": 3.0}, "speed"),
    ("2 times slower", {"slave_id": 4, "slower": 2.0}, "speed"),
    ("another platform tag", {"slave_id": 4, "platform": "linux_aarch64"}, "platforms"),
    (
        "the same, one of two with its ABI",
        {"slave_id": 8, "platform": "linux_aarch64"},
        "platforms",
    ),
)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ill", description=__doc__)
    parser.add_argument("--lives", type=int, default=25, help="of each kind")
    parser.add_argument("--days", type=int, default=30, help="of a life without illness")
    arguments = parser.parse_args()
    console = Console(width=100)
    table = Table("from some build on", "noticed after", "90 %", "over after", "90 %", box=None)
    for name, fields, symptom in ILLS:
        measured = [delays(seed, Ill(**fields), symptom) for seed in range(arguments.lives)]
        cells = []
        for ranked in (sorted(some) for some in zip(*measured, strict=True)):
            cells += [f"{ranked[len(ranked) * tenth // 10]:.0f}" for tenth in (5, 9)]
        table.add_row(name, *cells)
    console.print(table)
    total: Counter[tuple[int, str]] = Counter()
    for seed in range(1000, 1000 + arguments.lives):
        total += alarms(seed, arguments.days * DAILY)
    years = arguments.lives * arguments.days / 365
    alone = sum(count for (slave, _), count in total.items() if slave == ALONE)
    rows = (
        ("others have its ABI", total.total() - alone, years * (len(FARM) - 1)),
        ("no other has its ABI", alone, years),
    )
    for name, count, of in rows:
        console.print(f"{name}: {count} false alarms in {of:.0f} years, {count / of:.2f} a year")
    console.print(*(f"slave {who}, {what}: {count}" for (who, what), count in total.items()))


if __name__ == "__main__":
    main()
