"""A slave that is ill is noticed, and nothing else is: on lives of a simulated farm."""

from __future__ import annotations

import random
from typing import Any

import pytest

from indexer.base import printable
from indexer.watch.cusum import Cusum
from indexer.watch.illness import Build, Illness, Judge

from ..bench.ill import ILLS, Ill, life

pytestmark = pytest.mark.unit

WELL = 1800
"""Builds of the farm before a slave falls ill."""


def test_what_is_expected_raises_no_alarm() -> None:
    rng, cusum = random.Random(1), Cusum(3.0, 12.0)
    for _ in range(50_000):
        expected = rng.random()
        cusum.add(rng.random() < expected, expected)
        assert not cusum.alarmed


def raised() -> tuple[Cusum, int]:
    """A test whose alarm was raised by events alone, and how many it took."""
    cusum = Cusum(3.0, 12.0)
    trials = 0
    while not cusum.alarmed:
        cusum.add(True, 0.5)
        trials += 1
    return cusum, trials


def test_it_counts_from_the_moment_when_more_happens() -> None:
    cusum = Cusum(3.0, 12.0)
    for _ in range(100):
        cusum.add(False, 0.5)
    for _ in range(20):
        cusum.add(True, 0.5)
    assert (cusum.trials, cusum.events, cusum.expected) == (20, 20, 10.0)


def test_an_alarm_takes_the_evidence_of_its_limit() -> None:
    assert raised()[1] == 30  # each adds log(3 / 2)


def test_an_alarm_ends_soon_however_long_it_was() -> None:
    cusum, _ = raised()
    for _ in range(10_000):
        cusum.add(True, 0.5)
    ended = []
    for event in (False, True, False, False, False):
        cusum.add(event, 0.5)
        ended.append(not cusum.alarmed)
    assert ended == [False, False, False, False, True]
    assert not cusum.level


def ill(builds: list[Build]) -> list[Illness]:
    judge = Judge()
    for build in builds:
        judge.take(build)
    return judge.ill()


@pytest.mark.parametrize(
    ("fields", "symptom"),
    [(fields, symptom) for name, fields, symptom in ILLS if not name.startswith(("1.5", "2"))],
    ids=[name for name, *_ in ILLS if not name.startswith(("1.5", "2"))],
)
def test_an_ill_slave_is_noticed_and_no_other(fields: dict[str, Any], symptom: str) -> None:
    [found] = ill(list(life(2, WELL + 1000, Ill(**fields), WELL)))
    assert (found.slave_id, found.symptom) == (fields["slave_id"], symptom)
    assert found.events > 2 * found.expected or found.symptom == "failures"
    assert found.since is not None


def test_a_farm_that_is_well() -> None:
    assert ill(list(life(2, 3000))) == []


def built(slave_id: int, package: str, failed: bool) -> Build:
    return Build(slave_id, None, True, "cp311", package, failed, 1.0, None, None, frozenset())


def turns(count: int, name: str, failed_by: set[int]) -> list[Build]:
    """Three slaves build the same packages, one after the other."""
    return [
        built(slave, name.format(number), slave in failed_by)
        for number in range(count)
        for slave in (1, 2, 3)
    ]


def test_a_slave_that_fails_what_others_build() -> None:
    [found] = ill(turns(100, "good{}", set()) + turns(30, "new{}", {3}))
    assert found.slave_id == 3
    assert found.what == "30 of 30 builds failed, about 1 expected from what other slaves build"


def test_its_own_failures_are_no_excuse() -> None:
    [found] = ill(turns(100, "good{}", set()) + 2 * turns(60, "new{}", {3}))
    assert (found.builds, found.events) == (120, 120)
    assert found.expected < 3


def test_a_slave_alone_with_its_abi_is_compared_with_its_past() -> None:
    """Builds for a new Python fail more often."""
    builds = turns(100, "good{}", set())
    for number in range(200):
        builds += turns(1, f"more{number}", {1, 2, 3} if number % 5 == 0 else set())
        builds.append(built(4, f"alone{number}", number % 10 < 7)._replace(abi_tag="cp314"))
    assert ill(builds) == []
    broken = [built(4, f"broken{number}", True)._replace(abi_tag="cp314") for number in range(100)]
    [found] = ill(builds + broken)
    assert found.slave_id == 4


def test_what_fails_everywhere_is_not_the_fault_of_a_slave() -> None:
    """Neither packages that nobody can build, nor a day from which on nothing can be built."""
    mixed = [
        build
        for number in range(100)
        for build in turns(1, f"mixed{number}", set() if number % 2 else {1, 2, 3})
    ]
    assert ill(mixed) == []
    assert ill(mixed + turns(100, "broken{}", {1, 2, 3})) == []


@pytest.mark.parametrize("name", ["burst", "family-{}"])
def test_what_fails_together_counts_once(name: str) -> None:
    """Hundreds of releases of a package, or packages of one family, that one slave gets."""
    burst = [built(3, name.format(number), True) for number in range(500)]
    assert ill(turns(100, "good{}", set()) + burst) == []
    others = [built(3, f"other{number}", True) for number in range(500)]
    assert ill(turns(100, "good{}", set()) + others) != []


def test_a_slave_that_has_left_is_not_reported() -> None:
    builds = turns(100, "good{}", set()) + turns(30, "new{}", {3})
    assert ill([build._replace(present=build.slave_id != 3) for build in builds]) == []


def test_a_platform_tag_is_shown_as_one_line() -> None:
    """Whoever feeds us says what it is."""
    usual = [
        build._replace(platforms=frozenset({"linux"})) for build in turns(100, "good{}", set())
    ]
    odd = [
        built(3, f"odd{number}", False)._replace(platforms=frozenset({"\x1b[2J" + "x" * 10_000}))
        for number in range(30)
    ]
    [found] = ill(usual + odd)
    assert found.symptom == "platforms"
    assert found.detail.startswith("\\x1b[2Jxxx")
    assert len(found.detail) == printable.MAX_LINE
