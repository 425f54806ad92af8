"""Which slaves are ill: their failures, speed or platform tags leave those of the others.

Derived from the last builds of the index alone, so that a restart forgets nothing. A pure function
of these builds but for the one query that reads them, whose cost does not grow with the index.

Each build is judged by what was known before it. What later builds show of its package would
deceive: after a success the other slaves often need not try at all.
"""

from __future__ import annotations

import math
import sqlite3
from bisect import insort
from collections import Counter, defaultdict
from copy import copy
from functools import lru_cache
from typing import Literal, NamedTuple

from ..base import database, printable, times
from ..base.notes import At
from .cusum import Cusum

MAX_BUILDS = 3000
"""The last builds of the index that are looked at; a large farm needs some days for them."""

MAX_AGE = 24 * times.HOUR
"""Microseconds since its last build after which a slave is taken to have left."""

LIMIT = 12.0
"""The level of an alarm; docs/operating.md has the false alarms and the delays with it."""

REPEATED = 50
"""Builds of a slave within which packages with the same first word count once.

The releases of a package, and those of a family such as `azure-mgmt-...`, fail together.
"""

FADE = 0.99
"""The weight of a build, of that of the next one: about a hundred make out what others do now.

What breaks builds everywhere, such as a release of setuptools, is the fault of no slave.
"""

MIN_OTHERS = 30
"""Builds of other slaves with its ABI, below which a slave is compared with its own past, too."""

MIN_OWN = 60
"""Builds of its own that such a slave needs before it is judged."""

MIN_DURATIONS = 30
"""Compared durations that a slave needs before its speed is judged."""

SLOW_SHARE = 0.1
"""The share of a slave's own earlier builds, the slowest ones, that count as slow."""

MIN_TAGGED = 5
"""Builds with a platform tag, from which on a slave shows which tags are usual."""

ODD_SHARE = 0.02
"""The share of builds that may have a platform tag of their own."""

Symptom = Literal["failures", "speed", "platforms"]


class Build(NamedTuple):
    """A build as it is judged.

    Attributes:
        label: of the slave; None if not known.
        present: false if the slave has left, or the number belonged to another one then.
        built_at: when it was logged, as the index has it; None if not known.
        platforms: the platform tags of its files but `any`.
    """

    slave_id: int
    label: str | None
    present: bool
    abi_tag: str
    package: str
    failed: bool
    duration: float | None
    built_at: str | None
    category: str | None
    platforms: frozenset[str]


_BRIEF: dict[Symptom, str] = {
    "failures": "fails too often",
    "speed": "has become slow",
    "platforms": "makes odd platform tags",
}


class Illness(NamedTuple):
    """What is wrong with a slave; the builds are those since `since` that could be compared.

    Attributes:
        events: builds of these that failed, were slow, or have the platform tags `detail`.
        expected: the events that the other slaves, or its own past, made likely.
        detail: the most frequent category of the failures, or platform tags; '' if not known.
        last_built_at: when its last build was logged.
    """

    slave_id: int
    label: str | None
    abi_tag: str
    symptom: Symptom
    builds: int
    events: int
    expected: float
    detail: str
    since: At | None
    last_built_at: At | None

    @property
    def brief(self) -> str:
        """What is wrong, in a few words."""
        return _BRIEF[self.symptom]

    @property
    def name(self) -> str:
        """Which slave it is."""
        label = f"{self.label}, " if self.label else ""
        return f"slave {self.slave_id} ({label}{self.abi_tag})"

    @property
    def what(self) -> str:
        """What is wrong, without the name."""
        text = f"{self.events:,} of {printable.many(self.builds, 'build')}"
        if self.since is not None:
            text += f" since {times.to_rfc3339(self.since)}"
        expected = f"about {self.expected:,.0f} expected"
        if self.symptom == "failures":
            text += f" failed, {expected} from what other slaves build"
            return f"{text}; most often {self.detail}" if self.detail else text
        if self.symptom == "speed":
            return f"{text} were slow, compared with other slaves and its own past, {expected}"
        return f"{text} have a platform tag of no other slave with its ABI: {self.detail}"


class _Test:
    """A test of one slave, and what was seen since its level was 0.

    Attributes:
        began: when that began.
        details: of the events since then.
    """

    def __init__(self, odds: float) -> None:
        self.cusum = Cusum(odds, LIMIT)
        self.began: str | None = None
        self.details: Counter[str] = Counter()

    def add(self, event: bool, expected: float, at: str | None, detail: str) -> bool:
        """Take in a build; true if the slave is like the others now."""
        if not self.cusum.level:
            self.began = at
            self.details.clear()
        self.cusum.add(event, expected)
        if event and detail:
            self.details[detail] += 1
        return not self.cusum.level


class _Counts:
    """Judged builds, those that failed, and those that were expected to; old ones weigh less.

    Args:
        fade: the weight of a build, of that of the next one.
    """

    def __init__(self, fade: float) -> None:
        self._fade = fade
        self.turn = 0
        self.builds = self.failed = self.expected = 0.0

    def go_to(self, turn: int) -> None:
        """Let what was counted before weigh as little as it does at that turn."""
        weight = self._fade ** (turn - self.turn)
        self.turn = turn
        self.builds *= weight
        self.failed *= weight
        self.expected *= weight

    def add(self, failed: bool, expected: float) -> None:
        self.builds += 1
        self.failed += failed
        self.expected += expected


class _Abi(_Counts):
    """What all slaves with an ABI did: also the builds with each platform tag."""

    def __init__(self) -> None:
        super().__init__(FADE)
        self.slaves: list[_Slave] = []
        self.tags: Counter[str] = Counter()


class _Slave:
    """A slave's tests and its own past, which does not include what may be an illness."""

    def __init__(self, build: Build) -> None:
        self.abi_tag = build.abi_tag
        self.last = build
        self.builds = 0
        self.latest: dict[str, int] = {}  # by the first word of packages, which build was of it
        self.tests: dict[Symptom, _Test] = {
            "failures": _Test(3.0),
            "speed": _Test(18.0),
            "platforms": _Test(50.0),
        }
        self.in_all, self.in_abi = _Counts(FADE), _Counts(FADE)  # its part of these
        self.own, self.past = _Counts(1), _Counts(1)
        self.past_durations: list[float] = []  # compared with the others', sorted
        self.new_durations: list[float] = []
        self.tagged = 0
        self.tags: Counter[str] = Counter()
        self.past_tags: set[str] = set()


class _Package:
    """What one slave has built of a package: how often, failures, and the last durations."""

    def __init__(self) -> None:
        self.builds = self.failures = 0
        self.durations: dict[bool, float] = {}  # logarithms, by whether it failed


class Judge:
    """Takes in builds, in their order, and says which slaves are ill."""

    def __init__(self) -> None:
        self.slaves: dict[tuple[int, str, bool], _Slave] = {}
        self._all = _Counts(FADE)
        self._abis: defaultdict[str, _Abi] = defaultdict(_Abi)
        self._packages: defaultdict[str, dict[_Slave, _Package]] = defaultdict(dict)

    def take(self, build: Build) -> None:
        """Take in the next build."""
        key = build.slave_id, build.abi_tag, build.present
        slave = self.slaves.get(key)
        if slave is None:
            slave = self.slaves[key] = _Slave(build)
            self._abis[build.abi_tag].slaves.append(slave)
        slave.last = build
        slave.builds += 1
        kin = build.package.partition("-")[0]
        before = slave.latest.get(kin)
        slave.latest[kin] = slave.builds
        seen = self._packages[build.package]
        if before is None or slave.builds - before > REPEATED:
            others = [other for owner, other in seen.items() if owner is not slave]
            self._judge_failure(slave, build, others)
            self._judge_speed(slave, build, others)
            self._judge_platforms(slave, build)
        own = seen.setdefault(slave, _Package())
        own.builds += 1
        own.failures += build.failed
        if build.duration:
            own.durations[build.failed] = math.log(build.duration)

    def _judge_failure(self, slave: _Slave, build: Build, others: list[_Package]) -> None:
        whole, part = self._all, slave.in_all
        abi, abi_part = self._abis[slave.abi_tag], slave.in_abi
        for all_, its in ((whole, part), (abi, abi_part)):
            all_.go_to(all_.turn + 1)
            its.go_to(all_.turn)
        # What the others' builds of the package make likely, else all their last builds...
        share = (whole.failed - part.failed + 1) / (whole.builds - part.builds + 2)
        builds = sum(other.builds for other in others)
        likely = (sum(other.failures for other in others) + share) / (builds + 1)
        # ... and how much more often the others with this ABI fail than that, or it in the past.
        ratio = _ratio(abi.failed - abi_part.failed, abi.expected - abi_part.expected, 1.0)
        ratio = max(ratio, _ratio(slave.past.failed, slave.past.expected, ratio))
        learns = whole.builds - part.builds < MIN_OTHERS or (
            abi.builds - abi_part.builds < MIN_OTHERS and slave.own.builds < MIN_OWN
        )
        for counts in (whole, part, abi, abi_part, slave.own):
            counts.add(build.failed, likely)
        likely = min(max(likely * ratio, 0.02), 0.95)
        test = slave.tests["failures"]
        if learns or test.add(build.failed, likely, build.built_at, build.category or ""):
            slave.past = copy(slave.own)

    def _judge_speed(self, slave: _Slave, build: Build, others: list[_Package]) -> None:
        durations = [
            other.durations[build.failed] for other in others if build.failed in other.durations
        ]
        if not durations or not build.duration:
            return
        compared = math.log(build.duration) - sorted(durations)[len(durations) // 2]
        own, new = slave.past_durations, slave.new_durations
        new.append(compared)
        if len(own) >= MIN_DURATIONS:
            slow = own[math.ceil((1 - SLOW_SHARE) * (len(own) + 1)) - 1]
            if not slave.tests["speed"].add(compared > slow, SLOW_SHARE, build.built_at, ""):
                return
        for one in new:
            insort(own, one)
        new.clear()

    def _judge_platforms(self, slave: _Slave, build: Build) -> None:
        if not build.platforms:
            return
        abi = self._abis[slave.abi_tag]
        odd = {tag for tag in build.platforms if abi.tags[tag] - slave.tags[tag] < 2}
        others = sum(one is not slave and one.tagged >= MIN_TAGGED for one in abi.slaves)
        alone = others < 2  # with one other, nobody can say which of the two is right
        if alone:
            odd -= slave.past_tags
        for tags in (abi.tags, slave.tags):
            tags.update(build.platforms)
        slave.tagged += 1
        learns = alone and slave.tagged <= 2 * MIN_TAGGED
        test = slave.tests["platforms"]
        if learns or test.add(bool(odd), ODD_SHARE, build.built_at, ", ".join(sorted(odd))):
            slave.past_tags = set(slave.tags)

    def ill(self) -> list[Illness]:
        """The slaves that are ill now, by number."""
        found = []
        for slave in self.slaves.values():
            for symptom, test in slave.tests.items():
                if test.cusum.alarmed and slave.last.present:
                    cusum = test.cusum
                    found.append(
                        Illness(
                            slave.last.slave_id,
                            slave.last.label,
                            slave.abi_tag,
                            symptom,
                            cusum.trials,
                            cusum.events,
                            round(cusum.expected, 1),
                            printable.line(next(iter(dict(test.details.most_common(1))), "")),
                            _time(test.began),
                            _time(slave.last.built_at),
                        )
                    )
        return sorted(found, key=lambda one: (one.slave_id, one.abi_tag, one.symptom))


def _ratio(failed: float, expected: float, before: float) -> float:
    """Failures to those expected, the more the less certain it is.

    From few builds it is not far from what it was `before`.
    """
    return (failed + math.sqrt(max(failed, 0.0)) + 10 * before) / (expected + 10)


def _time(built_at: str | None) -> times.Time | None:
    return None if built_at is None else times.from_sql(built_at)


_LAST_BUILDS = """
SELECT b.built_by, s.label,
    CASE
        WHEN NOT EXISTS (SELECT 1 FROM slaves) THEN 1  -- no master's status feed is followed
        WHEN s.slave_id IS NULL THEN 0
        ELSE coalesce(b.built_at >= s.first_seen, 1)
    END AS present,
    b.abi_tag, b.package, b.status = 0, b.duration, b.built_at, b.failure_category,
    (SELECT group_concat(DISTINCT platform_tag) FROM files
     WHERE files.build_id = b.build_id AND platform_tag <> 'any')
FROM (SELECT * FROM builds WHERE build_id > 0 ORDER BY build_id DESC LIMIT ?) b
LEFT JOIN slaves s ON s.slave_id = b.built_by
WHERE b.built_by IS NOT NULL
ORDER BY b.build_id
"""


def ill_slaves(
    connection: sqlite3.Connection, now: times.Time, limit: int = MAX_BUILDS
) -> list[Illness]:
    """The slaves of an index that are ill, by its last builds, less those that have left.

    Raises:
        sqlite3.Error: if it cannot be read.
    """
    if not database.has_table(connection, "slaves"):
        return []  # an index from before, until the daemon opens it
    builds = tuple(
        Build._make((*row, frozenset(tags.split(",")) if tags else frozenset()))
        for *row, tags in connection.execute(_LAST_BUILDS, (limit,))
    )
    return [
        one for one in judged(builds) if one.last_built_at and now - one.last_built_at < MAX_AGE
    ]


@lru_cache(maxsize=1)  # a screen asks every second, and builds are rarer
def judged(builds: tuple[Build, ...]) -> list[Illness]:
    """The slaves that are ill after these builds."""
    judge = Judge()
    for build in builds:
        judge.take(build)
    return judge.ill()
