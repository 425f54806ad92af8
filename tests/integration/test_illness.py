"""Which slaves are ill, from the builds of a real index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from indexer.base import times
from indexer.watch.illness import Illness, ill_slaves

from .. import samples
from .index import Index

pytestmark = pytest.mark.integration

NOW = times.parse_rfc3339(samples.AT)
DISK_FULL = {"category": "disk-full", "detail": ""}


class Farm:
    """Three slaves that build every package."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._builds = 0

    def build(self, packages: int, failed_by: int = 0, odd: int = 0) -> None:
        """So many more packages; one of the slaves fails, or makes files for another platform."""
        messages = []
        for _ in range(packages * 3):
            self._builds += 1
            slave = self._builds % 3 + 1
            package = f"p{(self._builds - 1) // 3}"
            wheel = f"{package}-{slave}-cp311-cp311-linux_{'x' if slave == odd else 'armv7l'}.whl"
            outcome: dict[str, Any] = {"status": slave != failed_by}
            if slave == failed_by:
                outcome["failure"] = DISK_FULL
            messages.append(
                samples.log_build(
                    self._builds, package, f"{slave}", wheel, slave_id=slave, **outcome
                )
            )
        self._index.apply(*messages)

    def ill(self, now: times.Time = NOW) -> list[Illness]:
        return ill_slaves(self._index.connection, now)


def test_it_shows_until_the_slave_is_well_again(tmp_path: Path) -> None:
    with Index(tmp_path / "index.db") as index:
        farm = Farm(index)
        farm.build(60)
        assert farm.ill() == []
        farm.build(20, failed_by=3)
        [found] = farm.ill()
        assert found == Illness(
            *(3, None, "cp311", "failures", 20, 20, found.expected, "disk-full", NOW, NOW)
        )
        assert farm.ill(NOW + 25 * times.HOUR) == [], "it has left"
        farm.build(5)
        assert farm.ill() == []


def test_a_platform_tag_of_no_other_slave(tmp_path: Path) -> None:
    with Index(tmp_path / "index.db") as index:
        farm = Farm(index)
        farm.build(30)
        farm.build(10, odd=2)
        [found] = farm.ill()
        assert (found.slave_id, found.symptom, found.detail) == (2, "platforms", "linux_x")


def test_a_number_that_belonged_to_another_slave(tmp_path: Path) -> None:
    """With a master's status feed, only slaves that are connected now, since they came."""
    with Index(tmp_path / "index.db") as index:
        farm = Farm(index)
        farm.build(60)
        farm.build(20, failed_by=3)
        came = "INSERT OR REPLACE INTO slaves (slave_id, label, first_seen, last_seen, doing,"
        came += " since_exact, builds_succeeded, builds_failed) VALUES (?, 'pi', ?, ?, '', 0, 0, 0)"
        before, after = (times.to_sql(NOW + hours * times.HOUR) for hours in (-1, 1))
        index.connection.execute(came, (3, before, after))
        assert [one.name for one in farm.ill()] == ["slave 3 (pi, cp311)"]
        index.connection.execute(came, (3, after, after))
        assert farm.ill() == []


def test_only_the_last_builds_are_read(tmp_path: Path) -> None:
    with Index(tmp_path / "index.db") as index:
        farm = Farm(index)
        farm.build(60)
        farm.build(20, failed_by=3)
        assert ill_slaves(index.connection, NOW, limit=150) != []
        assert ill_slaves(index.connection, NOW, limit=30) == [], "too few to say"
