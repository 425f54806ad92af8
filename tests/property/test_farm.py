"""The farm is what the master says, whenever one begins to listen and whatever is said again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from indexer.base import times
from indexer.base.notes import plain
from indexer.base.times import SECOND
from indexer.piwheels.farm import messages, store
from indexer.piwheels.farm.farm import MAX_SLAVES, Farm
from indexer.piwheels.farm.messages import Build, MasterHello, Slave, SlaveHello
from indexer.piwheels.farm.picture import Finished, MasterStats, Picture, SlaveStats

from ..master.farm import Master, Message, frames
from ..master.farm import Slave as TrueSlave
from .profiles import examples

pytestmark = pytest.mark.property

QUEUE = "ipc:///run/nobody/status"


class Listener:
    """Somebody who listens from now on, on a clock of its own."""

    def __init__(self, start: int = 0) -> None:
        self.farm = Farm()
        self.now = start
        self.ended: list[Finished] = []

    def hear(self, said: list[Message]) -> None:
        for frame in frames(said):
            self.ended += self.farm.hear(messages.decode([frame]), self.now)

    def tick(self) -> None:
        self.ended += self.farm.tick(self.now)

    @property
    def picture(self) -> Picture:
        return self.farm.picture(self.now)


def truth(slave: TrueSlave) -> dict[str, Any]:
    """What a picture must say of a slave."""
    return {
        "label": slave.hello[5],
        "first_seen": times.from_datetime(slave.first_seen),
        "last_seen": times.from_datetime(slave.last_seen),
        "doing": slave.doing,
        "build": None if slave.build is None else tuple(slave.build),
        "stats": times.from_datetime(slave.stats[-1][0]) if slave.stats else None,
        "clock_skew": slave.slow.total_seconds() if slave.stats else None,
        "since": times.from_datetime(slave.since),
        "succeeded": slave.succeeded,
        "failed": slave.failed,
    }


def told(picture: Picture) -> dict[int, dict[str, Any]]:
    return {
        one.slave_id: {
            "label": one.label,
            "first_seen": one.first_seen,
            "last_seen": one.last_seen,
            "doing": one.doing,
            "build": None if one.package is None else (one.package, one.version),
            "stats": one.stats.at if one.stats else None,
            "clock_skew": one.clock_skew,
            "since": one.since,
            "succeeded": one.builds_succeeded,
            "failed": one.builds_failed,
        }
        for one in picture.slaves
    }


class FarmMachine(RuleBasedStateMachine):
    """A master, and who listens: one always, one since it came, one now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.master = Master()
        self.first = Listener()
        self.second: Listener | None = None
        self.third = Listener(start=-(10**15))
        self.deaf = False  # the third hears nothing
        self.repeated = False  # everything was said again since it was deaf
        self.complete = False  # the second has heard a hello since it came
        self.packages = 0
        self.restarted = False  # nobody has said hello since

    def say(self, said: list[Message]) -> None:
        for listener in self.listeners:
            listener.hear(said)
        if not self.deaf:
            self.third.hear(said)

    @property
    def listeners(self) -> list[Listener]:
        return [one for one in (self.first, self.second) if one is not None]

    @initialize()
    def begin(self) -> None:
        self.say(self.master.hello())

    @rule(seconds=st.sampled_from([1, 2, 7, 10, 45]))
    def time_passes(self, seconds: int) -> None:
        """Less than any time-out, in sum: the master hears of every slave meanwhile."""
        for _ in range(seconds):
            self.master.now += timedelta(seconds=1)
            for listener in (*self.listeners, self.third):
                listener.now += SECOND
                listener.tick()
        for number, slave in list(self.master.slaves.items()):
            if self.master.now - slave.last_seen > timedelta(minutes=3):
                self.say(self.master.expire(number))

    @rule(slow=st.sampled_from([timedelta(0), timedelta(days=9000), timedelta(seconds=-3)]))
    def join(self, slow: timedelta) -> None:
        if len(self.master.slaves) < 4:
            self.restarted = False
            self.say(self.master.join(f"pi{len(self.master.slaves)}", slow=slow))

    @rule()
    def stats(self) -> None:
        self.say(self.master.stats())

    @rule()
    def monitor(self) -> None:
        self.complete, self.restarted = True, False
        self.deaf, self.repeated = False, True
        self.say(self.master.hello())

    @rule()
    def restart(self) -> None:
        self.master.now += timedelta(seconds=5)
        self.master.restart()
        self.restarted = True

    def among(self, data: st.DataObject, *doing: str) -> int | None:
        numbers = [n for n, slave in self.master.slaves.items() if slave.doing in doing]
        return data.draw(st.sampled_from(numbers)) if numbers else None

    @rule(data=st.data(), what=st.sampled_from(["build", "sleep", "pause"]))
    def idle(self, data: st.DataObject, what: str) -> None:
        number = self.among(data, "starting", "idle", "paused", "cleaning")
        if number is not None:
            self.packages += 1
            build = [f"package-{self.packages}", "1.0"] if what == "build" else None
            self.say(self.master.idle(number, build, pause=what == "pause"))

    @rule(data=st.data())
    def busy(self, data: st.DataObject) -> None:
        number = self.among(data, "building")
        if number is not None:
            self.say(self.master.busy(number))

    @rule(data=st.data(), files=st.integers(0, 2))
    def built(self, data: st.DataObject, files: int) -> None:
        number = self.among(data, "building")
        if number is not None:
            build = self.master.slaves[number].build
            assert build is not None
            wheel = f"{build[0].replace('-', '_')}-1.0-cp311-cp311-linux_armv{{}}l.whl"
            self.say(self.master.built(number, *(wheel.format(one) for one in range(files))))

    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        number = self.among(data, "sending")
        if number is not None:
            self.say(self.master.sent(number))

    @rule(data=st.data(), expire=st.booleans())
    def leaves(self, data: st.DataObject, expire: bool) -> None:
        if self.master.slaves:
            number = data.draw(st.sampled_from(sorted(self.master.slaves)))
            said = self.master.expire(number) if expire else self.master.bye(number)
            self.say(said if expire else said * 2)

    @rule()
    def third_is_deaf(self) -> None:
        self.deaf, self.repeated = True, False

    @rule()
    def third_hears_again(self) -> None:
        self.deaf = False

    @precondition(lambda self: self.second is None)
    @rule()
    def second_comes(self) -> None:
        self.second = Listener(start=10**15)
        self.complete = False

    @rule()
    def second_goes(self) -> None:
        self.second = None

    @rule()
    def first_restarts(self) -> None:
        """What it has stored is what it begins with."""
        before = self.first
        rows = store.rows(QUEUE, before.picture)
        self.first = Listener(start=before.now)
        self.first.ended = before.ended
        master, slaves = store.pictures(rows, QUEUE)
        wall_clock = before.picture.at or 0
        self.first.farm.restore(master, slaves, before.now, wall_clock)

    @invariant()
    def the_first_knows_everything(self) -> None:
        if self.restarted:
            return  # nothing on the feed tells; they leave when they are silent for too long
        picture = told(self.first.picture)
        assert picture.keys() == self.master.slaves.keys()
        for number, slave in self.master.slaves.items():
            found = picture[number]
            for name, value in truth(slave).items():
                if name in ("first_seen", "last_seen", "since", "stats"):
                    # Its restarts cut the fractions off.
                    assert _seconds(found[name]) == _seconds(value), (number, name)
                else:
                    assert found[name] == value, (number, name)
        ended = [(one.package, one.version, one.outcome) for one in self.first.ended]
        assert sorted(ended) == sorted(self.master.ended)

    @invariant()
    def the_second_knows_what_it_was_told(self) -> None:
        if self.second is None or self.restarted:
            return
        picture = told(self.second.picture)
        for number, found in picture.items():
            slave = self.master.slaves[number]
            assert found["label"] in (None, slave.hello[5])
            assert found["since"] is None or found["since"] >= truth(slave)["since"]
            assert found["last_seen"] == truth(slave)["last_seen"]
            if found["doing"] == slave.doing and found["build"] is not None:
                assert found["build"] == tuple(slave.build or ())
        if self.complete:
            assert picture.keys() == self.master.slaves.keys()
            for number, slave in self.master.slaves.items():
                assert picture[number]["doing"] == slave.doing
                assert picture[number]["first_seen"] == truth(slave)["first_seen"]
                assert picture[number]["stats"] == truth(slave)["stats"]
        for one in self.second.picture.slaves:
            if one.since_exact:
                assert one.since == truth(self.master.slaves[one.slave_id])["since"]

    @invariant()
    def the_third_recovers(self) -> None:
        """What it has missed is made good when everything is said again."""
        if not self.repeated or self.restarted:
            return
        picture = told(self.third.picture)
        for number, slave in self.master.slaves.items():
            for name in ("label", "first_seen", "last_seen", "doing"):
                assert picture[number][name] == truth(slave)[name], (number, name)
            if slave.doing != "cleaning":  # after what, is not said again
                assert picture[number]["build"] == truth(slave)["build"]


def _seconds(value: int | None) -> int | None:
    return None if value is None else value // SECOND


def test_the_farm_is_what_the_master_says() -> None:
    run_state_machine_as_test(FarmMachine, settings=examples(30))


# Whatever is said

_time = st.one_of(
    st.integers(times.EARLIEST, times.LATEST),
    st.integers(0, 9).map(lambda second: second * SECOND),
    st.sampled_from([times.EARLIEST, times.LATEST, 0]),
)
_number = st.one_of(st.integers(0, 4), st.integers(0, 2**63 - 1))
_text = st.text(max_size=9)
_float = st.floats(allow_nan=False, allow_infinity=False)
_counts = st.dictionaries(_text, _number, max_size=3)
_sizes = [_number] * 6
_hello = st.builds(SlaveHello, st.floats(0, 1e13), st.floats(0, 1e13), *[_text] * 8)
_said: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("HELLO"), _hello),
    st.tuples(st.just("STATS"), st.builds(SlaveStats, _time, *_sizes, _float, _float)),
    st.tuples(st.sampled_from(["ACK", "CONT", "DONE", "DIE"]), st.none()),
    st.tuples(st.just("SLEEP"), st.booleans()),
    st.tuples(st.just("BUILD"), st.builds(Build, _text, _text)),
    st.tuples(st.just("SEND"), st.one_of(_text, st.just("a_b-1.0-py3-none-any.whl"))),
)
_message: st.SearchStrategy[messages.Message] = st.one_of(
    st.builds(MasterHello, _time, *[_text] * 5),
    st.builds(
        MasterStats,
        *(_time, _number, _counts, st.floats(0, 1e13), _number, _counts, *[_number] * 5),
        *(*_sizes, _float, _float),
    ),
    st.builds(lambda number, at, said: Slave(number, at, *said), _number, _time, _said),
)


@examples(60)
@given(st.lists(st.tuples(st.integers(0, 10**9), _message), max_size=30))
def test_whatever_is_said_there_is_a_picture(
    said: list[tuple[int, messages.Message]],
) -> None:
    farm, now = Farm(), 0
    for later, message in said:
        now += later
        farm.hear(message, now)
        farm.tick(now)
        picture = farm.picture(now)
        assert orjson.loads(orjson.dumps(plain(picture)))["slaves"] is not None
        rows = store.rows(QUEUE, picture)
        master, slaves = store.pictures(rows, QUEUE)
        assert master is not None
        again = Picture(picture.at, master, slaves, ())
        assert store.rows(QUEUE, again) == rows, "what is stored comes back"
        Farm().restore(master, slaves, now, picture.at or 0)


def test_there_are_never_too_many_slaves() -> None:
    farm = Farm()
    for number in range(2 * MAX_SLAVES):
        farm.hear(Slave(number, number * SECOND, "SLEEP", False), number * SECOND)
    picture = farm.picture(2 * MAX_SLAVES * SECOND)
    assert [one.slave_id for one in picture.slaves] == list(range(MAX_SLAVES, 2 * MAX_SLAVES))
