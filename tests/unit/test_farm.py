"""The model of the farm: a captured life, and what the feed shows only indirectly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from indexer.base import times
from indexer.base.notes import plain
from indexer.base.times import SECOND
from indexer.piwheels.farm import messages, view
from indexer.piwheels.farm.farm import BUSY_TIMEOUT, GRACE, MAX_SLAVES, Farm
from indexer.piwheels.farm.picture import (
    EMPTY,
    Finished,
    Picture,
    SlavePicture,
    SlaveStats,
    unknown_slave,
)

from ..master import captured
from ..master.farm import BEGINNING, Master, Message, frames

pytestmark = pytest.mark.unit


def build(slave: SlavePicture) -> tuple[str | None, str | None]:
    return slave.package, slave.version


class Watched:
    """A farm that hears a master, on a clock that agrees with the master's."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self.farm = Farm()
        self.ended: list[Finished] = []

    def hear(self, said: list[Message]) -> None:
        for frame in frames(said):
            message = messages.decode([frame])
            self.ended += self.farm.hear(message, self.now)

    @property
    def now(self) -> int:
        return times.from_datetime(self.master.now)

    @property
    def picture(self) -> Picture:
        return self.farm.picture(self.now)

    def wait(self, seconds: float) -> None:
        self.master.now += timedelta(seconds=seconds)
        self.ended += self.farm.tick(self.now)

    def slave(self, number: int) -> SlavePicture:
        return next(one for one in self.picture.slaves if one.slave_id == number)

    @property
    def numbers(self) -> list[int]:
        return [one.slave_id for one in self.picture.slaves]

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(one.package, one.outcome) for one in self.ended]


@pytest.fixture
def watched() -> Watched:
    """A farm that is watched from its beginning."""
    found = Watched(Master())
    found.hear(found.master.hello())
    return found


def at(text: str) -> int:
    return times.from_datetime(datetime.fromisoformat(f"2026-11-22T{text}").replace(tzinfo=UTC))


# The captured life


def life(until: str) -> tuple[Picture, list[Finished]]:
    """The picture of a real farm at a time, and the builds that had ended."""
    farm, ended, now = Farm(), [], 0
    for one in captured.STATUS:
        assert one.at is not None
        if times.from_datetime(one.at) > at(until):
            break
        now = times.from_datetime(one.at) - 10**15
        ended += farm.tick(now) + farm.hear(messages.decode([one.frame]), now)
    return farm.picture(now), ended


def test_a_real_farm_at_work() -> None:
    picture, _ = life("14:15:23.7")
    assert [one.slave_id for one in picture.slaves] == [1, 3, 4, 5], "2 was told to die"
    ghost, builder, idle, _ = picture.slaves
    assert ghost.label == "ghost"
    assert ghost.clock_skew is not None
    assert round(ghost.clock_skew / 86400) == 20780, "its clock thinks it is 1970"
    assert (builder.label, builder.abi_tag) == ("bookworm-1", "cp311")
    assert (builder.doing, *build(builder)) == ("building", "numpy", "2.3.4")
    assert builder.since == at("14:15:23.502056")
    assert builder.since_exact
    assert builder.first_seen == at("14:15:20.404043")
    assert (builder.builds_succeeded, builder.builds_failed) == (3, 0)
    assert builder.stats is not None
    assert builder.stats.mem_size == 25_276_502_016
    assert (idle.doing, idle.since, idle.package) == ("idle", at("14:15:22.395225"), None)
    assert picture.master is not None
    assert picture.master.label == "vm"


def test_every_build_of_a_real_farm() -> None:
    """The sixteenth build was told to stop, and is not in the master's database."""
    picture, ended = life("14:17")
    assert [(one.slave_id, one.package, one.version, one.outcome) for one in ended] == [
        (3, "numpy", "1.19.5", "success"),
        (3, "rpi-gpio", "0.7.1", "success"),
        (3, "gpiozero", "2.0.1", "success"),
        (3, "numpy", "2.3.4", "success"),
        (4, "numpy", "1.19.5", "success"),
        (3, "brokenlib", "1.0", "fail"),
        (4, "rpi-gpio", "0.7.1", "success"),
        (3, "cryptography", "46.0.3", "success"),
        (3, "twofold", "0.1rc1", "success"),
        (5, "numpy", "1.19.5", "success"),
        (4, "brokenlib", "1.0", "fail"),
        (5, "rpi-gpio", "0.7.1", "success"),
        (4, "numpy", "2.3.4", "success"),
        (5, "brokenlib", "1.0", "fail"),
        (5, "numpy", "2.3.4", "success"),
        (3, "slowpoke", "1.0", "fail"),
    ]
    assert picture.finished == tuple(reversed(ended))
    assert {(one.label, one.abi_tag) for one in ended} == {
        ("bookworm-1", "cp311"),
        ("trixie-1", "cp313"),
        ("bullseye-1", "cp39"),
    }
    assert all(one.began is not None and one.began < one.ended for one in ended)


def test_a_real_farm_at_its_end() -> None:
    """The hellos of two monitors have changed nothing; slave 3 was told to die, and left."""
    picture, _ = life("14:17")
    assert [(one.slave_id, one.doing) for one in picture.slaves] == [(4, "idle"), (5, "idle")]
    assert [one.since for one in picture.slaves] == [at("14:15:52.112484"), at("14:15:51.272673")]
    assert picture.master is not None
    assert picture.master.stats is not None
    assert picture.master.stats.at == at("14:15:56.144947"), "the last figures, none of the old"
    assert dict(picture.master.stats.builds_last_hour) == {"cp311": 7, "cp313": 4, "cp39": 4}


# Slaves


def test_nothing_was_heard() -> None:
    farm = Farm()
    farm.tick(10**12)
    assert farm.picture(10**12) == EMPTY
    assert not farm.complete


def test_a_slave_that_is_silent_for_too_long_leaves(watched: Watched) -> None:
    watched.hear(watched.master.join(busy_timeout=timedelta(seconds=60)))
    watched.hear(watched.master.idle(1, ["a", "1"]))
    watched.wait(60 + GRACE - 1)
    assert watched.numbers == [1]
    watched.wait(2)
    assert watched.numbers == []
    assert watched.outcomes == [("a", "unknown")]


def test_of_too_many_the_one_that_was_seen_last_stays(watched: Watched) -> None:
    """A slave says itself how long it may be silent, and could so push out all the others."""
    watched.hear(watched.master.join())
    for _ in range(MAX_SLAVES - 1):
        watched.hear(watched.master.join(busy_timeout=timedelta(days=1000)))
    watched.wait(60)
    watched.hear(watched.master.idle(1))
    watched.hear(watched.master.join(busy_timeout=timedelta(days=1000)))
    assert len(watched.numbers) == MAX_SLAVES
    assert watched.numbers[0] == 1


def test_it_stays_while_it_is_heard(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.idle(1, ["a", "1"]))
    for _ in range(20):
        watched.wait(BUSY_TIMEOUT - 1)
        watched.hear(watched.master.busy(1))
    assert watched.numbers == [1]
    assert watched.slave(1).since == times.from_datetime(BEGINNING)


def test_old_figures_keep_nobody() -> None:
    """A repeated reply bears the time when the slave was last seen."""
    master = Master()
    master.join()
    master.idle(1)
    master.now += timedelta(seconds=BUSY_TIMEOUT - 10)
    late = Watched(master)
    late.hear(master.stats())
    late.hear(master.hello())
    assert late.numbers == [1]
    late.wait(GRACE + 11)
    assert late.numbers == []


def test_who_has_died_does_not_come_back(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.bye(1))
    watched.hear([("SLAVE", [1, watched.master.now, "DIE", None])])
    assert watched.numbers == []


def test_what_is_said_again_changes_nothing(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.join("other", "cp39"))
    watched.hear(watched.master.idle(1, ["a", "1"]))
    for _ in range(3):
        watched.wait(10)
        watched.hear(watched.master.busy(1))
        watched.hear(watched.master.stats())
    before = watched.picture
    for one in watched.master.hello() * 2:
        watched.hear([one])
        assert watched.picture == before, one
    assert watched.ended == []


def test_what_is_said_again_does_not_turn_the_time_back() -> None:
    master = Master()
    master.join()
    for _ in range(3):
        master.stats()
        master.idle(1)
        master.now += timedelta(seconds=10)
    late = Watched(master)
    late.hear(master.idle(1))
    for one in master.hello():
        late.hear([one])
        assert late.picture.at == late.now, one


def test_who_comes_late_says_so() -> None:
    master = Master()
    master.join()
    master.idle(1, ["a", "1"])
    master.now += timedelta(seconds=100)
    master.busy(1)
    late = Watched(master)
    late.hear(master.hello())
    slave = late.slave(1)
    assert (slave.doing, *build(slave), slave.since_exact) == ("building", "a", "1", False)
    assert slave.since == late.now
    assert slave.first_seen == times.from_datetime(BEGINNING)
    assert slave.clock_skew is None, "old figures bear another time"
    late.wait(10)
    late.hear(master.busy(1))
    assert late.slave(1).clock_skew == 0.0
    late.hear(master.built(1))
    assert late.outcomes == [("a", "fail")]


def test_without_any_hello_there_still_is_a_farm() -> None:
    master = Master()
    master.join()
    master.idle(1, ["a", "1"])
    late = Watched(master)
    late.hear(master.busy(1))
    assert (late.slave(1).label, late.slave(1).doing) == (None, "")
    late.wait(10)
    late.hear(master.busy(1))
    assert (late.slave(1).doing, late.slave(1).package) == ("building", None)
    late.hear(master.built(1, "Foo.Bar-2.0-cp311-cp311-linux_armv7l.whl"))
    assert (late.slave(1).doing, *build(late.slave(1))) == ("sending", "foo-bar", "2.0")
    late.hear(master.sent(1))
    assert late.outcomes == [("foo-bar", "success")]
    late.hear(master.hello())
    assert late.farm.complete
    assert late.slave(1).doing == "cleaning"


def test_ends_that_were_not_heard(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.idle(1, ["a", "1"]))
    watched.master.built(1)
    watched.hear(watched.master.idle(1, ["b", "1"]))
    watched.hear(watched.master.built(1, "b-1-py3-none-any.whl"))
    watched.master.sent(1)
    watched.hear(watched.master.idle(1))
    assert watched.outcomes == [("a", "unknown"), ("b", "success")]
    assert watched.slave(1).doing == "idle"


def test_a_build_whose_beginning_was_not_heard(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.idle(1))
    watched.master.idle(1, ["a", "1"])
    for _ in range(2):
        watched.wait(10)
        watched.hear(watched.master.busy(1))
    assert (watched.slave(1).doing, watched.slave(1).package) == ("building", None)
    watched.hear(watched.master.hello())
    assert build(watched.slave(1)) == ("a", "1")


def test_the_same_figures_twice_are_no_work(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.idle(1))
    figures = watched.master.idle(1)[0]
    watched.hear([figures, figures])
    assert watched.slave(1).doing == "idle"


# The master


def test_slaves_of_a_master_that_began_anew_leave(watched: Watched) -> None:
    for _ in range(3):
        watched.hear(watched.master.join())
    watched.hear(watched.master.idle(2, ["a", "1"]))
    watched.master.restart()
    watched.wait(20)
    assert watched.numbers == [1, 2, 3], "nothing tells yet"
    watched.hear(watched.master.join("new", "cp313"))
    assert watched.numbers == [1]
    assert watched.slave(1).label == "new"
    assert watched.outcomes == [("a", "unknown")]
    assert not watched.farm.complete, "when the master started is not known any more"


def test_a_hello_of_a_master_that_began_anew(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.wait(20)
    watched.master.restart()
    watched.hear(watched.master.hello())
    assert watched.numbers == []
    master = watched.picture.master
    assert master is not None
    assert master.started == watched.now


def test_clocks_that_disagree() -> None:
    """The master's time is learned from its messages; our clock only has to run evenly."""
    master = Master(BEGINNING + timedelta(days=400))
    farm = Farm()
    for frame in frames([*master.hello(), *master.join(), *master.idle(1), *master.stats()]):
        farm.hear(messages.decode([frame]), 5 * SECOND)
    farm.tick(20 * SECOND)
    picture = farm.picture(20 * SECOND)
    assert picture.at == times.from_datetime(master.now) + 15 * SECOND
    assert picture.master is not None
    assert picture.master.last_seen == times.from_datetime(master.now)
    assert [one.slave_id for one in picture.slaves] == [1]


def test_a_master_whose_clock_goes_back(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.stats())
    farm, ours = watched.farm, watched.now
    watched.master.now -= timedelta(days=2)
    for seconds in range(0, 1000, 10):
        watched.master.now += timedelta(seconds=10)
        for frame in frames([*watched.master.idle(1), *watched.master.stats()]):
            farm.hear(messages.decode([frame]), ours + seconds * SECOND)
        farm.tick(ours + seconds * SECOND)
    picture = farm.picture(ours + 990 * SECOND)
    assert [one.slave_id for one in picture.slaves] == [1]
    assert picture.at == times.from_datetime(watched.master.now)
    assert picture.master is not None
    assert picture.master.stats is not None
    assert picture.master.stats.at == picture.at


def test_the_end_of_all_calendars() -> None:
    farm = Farm()
    last = datetime.max.replace(tzinfo=UTC)
    for frame in frames([("SLAVE", [1, last, "SLEEP", False])]):
        farm.hear(messages.decode([frame]), 0)
    picture = farm.picture(10 * SECOND)
    assert picture.at == times.LATEST
    assert plain(picture)["at"].startswith("9999-12-31")


# After a restart of ours


def test_what_was_known_before_is_known_again(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.hear(watched.master.join("other", busy_timeout=timedelta(seconds=10)))
    watched.hear(watched.master.idle(1, ["a", "1"]))
    before = watched.picture
    again = Farm()
    assert before.at is not None
    later = before.at + (GRACE + 11) * SECOND
    again.restore(before.master, before.slaves, 0, round(later))
    assert again.tick(0) == []
    picture = again.picture(0)
    assert picture.slaves == before.slaves[:1], "the other has been silent for too long"
    assert picture.master == before.master
    watched.master.now = times.to_datetime(round(later))
    (frame,) = frames(watched.master.built(1))
    (ended,) = again.hear(messages.decode([frame]), 0)
    assert (ended.package, ended.outcome) == ("a", "fail")
    assert ended.began == before.slaves[0].since


def test_builds_of_slaves_that_left_meanwhile_have_ended(watched: Watched) -> None:
    """Their packages were asked for only by the sweep: at full size after days."""
    watched.hear(watched.master.join(busy_timeout=timedelta(seconds=10)))
    watched.hear(watched.master.idle(1, ["a", "1"]))
    before = watched.picture
    assert before.at is not None
    again = Farm()
    again.restore(before.master, before.slaves, 0, before.at + round((GRACE + 11) * SECOND))
    assert [(one.package, one.outcome) for one in again.tick(0)] == [("a", "unknown")]


# What an admin should look at


def _alerts(**changes: Any) -> tuple[str, ...]:
    stats = SlaveStats(0, 100, 50, 100, 50, 100, 80, 3.9, 61.8)
    slave = unknown_slave(1, 0)._replace(doing="idle", clock_skew=0.0)
    for name, value in changes.items():
        if name in stats._fields:
            stats = stats._replace(**{name: value})
        else:
            slave = slave._replace(**{name: value})
    return view.alerts(slave._replace(stats=stats), 0)


@pytest.mark.parametrize(
    ("changes", "alerts"),
    [
        ({}, []),
        ({"disk_free": 9}, ["disk 91 % full"]),
        ({"mem_free": 1}, ["memory 99 % full"]),
        ({"swap_free": 0}, ["swap 100 % full"]),
        ({"swap_size": 0, "swap_free": 0}, []),
        ({"load_average": 12.25}, ["load 12.2"]),
        ({"cpu_temp": 81.6}, ["82 °C"]),
        ({"clock_skew": 3600.0}, ["its clock is 3,600 s slow"]),
        ({"clock_skew": -61.0}, ["its clock is 61 s fast"]),
        ({"clock_skew": None}, []),
    ],
)
def test_each_alert_of_a_slave(changes: dict[str, Any], alerts: list[str]) -> None:
    assert _alerts(**changes) == tuple(alerts)


@pytest.mark.parametrize(
    ("revision", "machine"),
    [
        ("a020d3", "Pi 3B+ 1.3, 1 GiB"),
        ("b03115", "Pi 4B 1.5, 2 GiB"),
        ("d04170", "Pi 5 1.0, 8 GiB"),
        ("902120", "Pi Zero 2 W 1.0, 512 MiB"),
        ("0010", "0010"),
        ("unknown", "unknown"),
        ("", ""),
        ("-a020d3", "-a020d3"),
        ("f" * 20, "f" * 20),
        ("a02fff", "a02fff"),
    ],
)
def test_revision_codes_become_boards(revision: str, machine: str) -> None:
    assert view.board(revision) == machine


def test_slaves_that_hang_after_a_restart_of_the_master(watched: Watched) -> None:
    """They were shown as idle for minutes."""
    for label in ("works", "hangs"):
        watched.hear(watched.master.join(label))
    for number in (1, 2):
        watched.hear(watched.master.idle(number))
    watched.wait(5)
    watched.farm.reached(watched.now)
    watched.wait(5)
    watched.hear(watched.master.idle(1))
    watched.wait(GRACE - 6)
    assert watched.slave(2).alerts == ()
    watched.wait(2)
    assert watched.slave(1).alerts == ()
    assert watched.slave(2).alerts == ("silent since the master came back: restart its piw-slave",)
    watched.hear(watched.master.idle(2))
    assert watched.slave(2).alerts == ()


def test_an_alert_of_silence(watched: Watched) -> None:
    watched.hear(watched.master.join())
    watched.wait(BUSY_TIMEOUT / 2 + 1)
    data = plain(watched.picture)
    assert data["slaves"][0]["alerts"] == ["silent for 151 s"]


def test_the_farm_as_data(watched: Watched) -> None:
    watched.hear(watched.master.join("pi", slow=timedelta(seconds=1.5)))
    watched.hear(watched.master.idle(1, ["a", "1"]))
    watched.hear(watched.master.stats())
    data = plain(watched.picture)
    assert data["at"] == "2026-11-22T14:15:13.023173+00:00"
    (slave,) = data["slaves"]
    assert slave["label"] == "pi"
    assert slave["platform"] == "linux_armv7l"
    assert (slave["doing"], slave["package"], slave["version"]) == ("building", "a", "1")
    assert slave["since"] == slave["last_seen"] == slave["first_seen"] == data["at"]
    assert slave["clock_skew"] == 1.5
    assert slave["stats"]["cpu_temp"] == 61.8
    assert data["master"]["label"] == "vm"
    assert data["master"]["stats"]["builds_pending"] == {"cp311": 2, "cp39": 0}
    assert data["finished"] == []
    assert plain(EMPTY) == {"at": None, "master": None, "slaves": [], "finished": []}
