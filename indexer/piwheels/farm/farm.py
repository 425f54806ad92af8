"""The farm as the master's status feed tells it: messages in, a frozen picture out.

Pure: no clock, no sockets. It does not trust a feed to be whole: messages may be lost, said twice,
said again long after they happened, and the master may start anew and count its slaves from 1.

Source: piwheels 0.23, `piwheels/master/slave_driver.py` and `piwheels/states.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ...base import names
from ...base.times import EARLIEST, LATEST, SECOND, Time
from .messages import Build, MasterHello, MasterStats, Message, Slave, SlaveHello, SlaveStats
from .picture import EMPTY, Doing, Finished, MasterPicture, Outcome, Picture, SlavePicture

MAX_SLAVES = 256
"""More there cannot be; of more, those that were not seen for the longest time leave."""

BUSY_TIMEOUT = 300.0
"""Seconds that a slave may be silent, if its own time-out is not known; piwheels' default."""

GRACE = 30.0
"""Seconds more: the master looks every ten for those that were silent for too long."""

HISTORY = 100
"""Of its old figures, so many does a master say again after a hello."""

FINISHED = 50
"""Builds that are remembered after their end."""


@dataclass(slots=True)
class _Slave:
    slave_id: int
    last_seen: Time
    deadline: Time  # on our clock; then it has left
    hello: SlaveHello | None = None
    first_seen: Time | None = None
    doing: Doing = ""
    since: Time | None = None
    since_exact: bool = False
    build: Build | None = None
    began: Time | None = None
    file: str = ""
    succeeded: int = 0
    failed: int = 0
    stats: SlaveStats | None = None
    clock_skew: float | None = None
    replaying: bool = False  # a hello is followed by old figures and the last reply
    replayed: Time | None = None  # the time that those bear
    unanswered: bool = False  # the last thing heard of it were figures

    @property
    def at_work(self) -> bool:
        return self.doing in ("building", "sending")

    @property
    def timeout(self) -> Time:
        seconds = BUSY_TIMEOUT if self.hello is None else self.hello.busy_timeout
        return round((seconds + GRACE) * SECOND)

    def begin(self, doing: Doing, at: Time, exact: bool) -> None:
        """It does something from now on; nothing if it did so already."""
        if self.doing != doing:
            self.doing, self.since, self.since_exact = doing, at, exact

    def picture(self) -> SlavePicture:
        return SlavePicture(
            self.slave_id,
            self.hello,
            self.first_seen,
            self.last_seen,
            self.doing,
            self.since,
            self.since_exact,
            self.build,
            self.file,
            self.succeeded,
            self.failed,
            self.stats,
            self.clock_skew,
        )


class Farm:
    """Follows the messages of one status feed.

    Every `now` is ours: microseconds on a clock that never jumps. What is told of the past is told
    in the master's time; the distance between both is learned from the messages.
    """

    def __init__(self) -> None:
        self._slaves: dict[int, _Slave] = {}
        self._finished: deque[Finished] = deque(maxlen=FINISHED)
        self._ended: list[Finished] = []  # not yet told
        self._hello: MasterHello | None = None
        self._stats: MasterStats | None = None
        self._history = 0  # old figures of the master that may still come
        self._offset: Time | None = None  # of the master's clock from ours
        self._heard: Time | None = None  # of the master, on our clock

    @property
    def complete(self) -> bool:
        """True if the master and all its slaves have said who they are."""
        return self._hello is not None and all(one.hello for one in self._slaves.values())

    def hear(self, message: Message, now: Time) -> list[Finished]:
        """Take in a message that came at `now`.

        Returns:
            The builds that have ended with it.
        """
        self._heard = now
        if isinstance(message, Slave):
            self._hear_slave(message, now)
        elif isinstance(message, MasterHello):
            self._master_hello(message)
        else:
            self._master_stats(message, now)
        return self._take_ended()

    def tick(self, now: Time) -> list[Finished]:
        """Let those leave that were silent for too long.

        Returns:
            Their builds; nobody knows how they ended.
        """
        for slave in [one for one in self._slaves.values() if now > one.deadline]:
            self._leave(slave)
        return self._take_ended()

    def picture(self, now: Time) -> Picture:
        """How the farm stands at `now`."""
        if self._heard is None and not self._slaves:
            return EMPTY
        heard = now if self._heard is None else self._heard
        return Picture(
            self._master_time(now),
            MasterPicture(self._master_time(heard), self._hello, self._stats),
            tuple(self._slaves[number].picture() for number in sorted(self._slaves)),
            tuple(self._finished),
        )

    def restore(
        self,
        master: MasterPicture | None,
        slaves: Iterable[SlavePicture],
        now: Time,
        wall_clock: Time,
    ) -> None:
        """Begin with what was known before a restart of ours; those that left since are left out.

        Args:
            master: how the master stood then.
            slaves: those that were there then.
            now: on the clock that never jumps.
            wall_clock: the same moment; for lack of anything better, the master's time.
        """
        self._offset = wall_clock - now
        if master is not None:
            self._hello, self._stats = master.hello, master.stats
            self._heard = now - (wall_clock - master.last_seen)
        for one in slaves:
            slave = _Slave(
                one.slave_id,
                one.last_seen,
                0,
                one.hello,
                one.first_seen,
                one.doing,
                one.since,
                one.since_exact,
                one.build,
                one.since if one.doing == "building" and one.since_exact else None,
                one.file,
                one.succeeded,
                one.failed,
                one.stats,
                one.clock_skew,
            )
            slave.deadline = now + slave.timeout - (wall_clock - one.last_seen)
            if slave.deadline >= now:
                self._slaves[slave.slave_id] = slave

    def _take_ended(self) -> list[Finished]:
        ended, self._ended = self._ended, []
        return ended

    def _saw(self, at: Time, now: Time, live: bool) -> None:
        """Learn the master's clock: from what was stamped just now, else the latest it named."""
        if live or self._offset is None or at - now > self._offset:
            self._offset = at - now

    def _master_time(self, ours: Time) -> Time:
        return max(EARLIEST, min(ours + (self._offset or 0), LATEST))

    # The master

    def _master_hello(self, hello: MasterHello) -> None:
        # Those of its former life that are still there will say hello again.
        for slave in list(self._slaves.values()):
            if _before(slave.last_seen, hello.started):
                self._leave(slave)
        self._hello = hello
        self._history = HISTORY

    def _master_stats(self, stats: MasterStats, now: Time) -> None:
        if self._history and self._stats is not None and stats.at <= self._stats.at:
            self._history -= 1
            return
        self._saw(stats.at, now, live=not self._history)
        self._history = max(0, self._history - 1)
        self._stats = stats

    # Slaves

    def _hear_slave(self, message: Slave, now: Time) -> None:
        slave = self._slaves.get(message.slave_id)
        if message.name == "HELLO":
            assert isinstance(message.data, SlaveHello)
            self._slave_hello(message.slave_id, message.at, message.data, now)
            return
        if message.name == "DIE":
            if slave is not None:
                slave.last_seen = message.at
                self._leave(slave)
            return
        if slave is None:
            slave = self._enter(_Slave(message.slave_id, message.at, 0))
        slave.last_seen = message.at
        if message.name == "STATS":
            assert isinstance(message.data, SlaveStats)
            self._slave_stats(slave, message.at, message.data, now)
        else:
            # A reply that is said again bears the time when the slave was seen last.
            exact = not slave.replaying or message.name == "ACK"
            slave.replaying = slave.unanswered = False
            self._reply(slave, message, exact)
        slave.deadline = now + slave.timeout
        if slave.replaying or message.name != "STATS":
            self._saw(message.at, now, live=False)
        if self._offset is not None:  # it may have been silent for long already
            slave.deadline -= max(0, now + self._offset - message.at)

    def _slave_hello(self, slave_id: int, at: Time, hello: SlaveHello, now: Time) -> None:
        slave = self._slaves.get(slave_id)
        if slave is not None and slave.first_seen is None and at <= slave.last_seen:
            slave.first_seen = at  # now we know whose number that was
        if (slave is not None and not _same(slave.first_seen, at)) or any(
            other.slave_id > slave_id
            and _before(other.last_seen if other.first_seen is None else other.first_seen, at)
            for other in self._slaves.values()
        ):
            # Numbers and times grow together, until a master starts anew and counts from 1.
            for other in list(self._slaves.values()):
                self._leave(other)
            slave = None
            self._hello = None  # when it started is not known
        if slave is None:
            slave = self._enter(_Slave(slave_id, at, 0, first_seen=at))
        slave.hello = hello
        slave.replaying, slave.replayed = True, None
        slave.deadline = now + slave.timeout

    def _slave_stats(self, slave: _Slave, at: Time, stats: SlaveStats, now: Time) -> None:
        if slave.replaying and slave.replayed in (None, at):
            slave.replayed = at
            if slave.clock_skew is None:  # none of its figures was heard when it was new
                slave.stats = stats
            return
        slave.replaying = False
        self._saw(at, now, live=True)
        if stats == slave.stats:
            return  # the same was said twice
        slave.stats = stats
        slave.clock_skew = (at - stats.at) / SECOND
        if slave.unanswered and not slave.at_work:
            # Only who builds is told to go on without the feed saying it.
            slave.build, slave.began, slave.file = None, None, ""
            slave.begin("building", at, exact=False)
        slave.unanswered = True

    def _reply(self, slave: _Slave, message: Slave, exact: bool) -> None:
        at = message.at
        known = slave.doing != ""  # else it may have slept, or sent files, for long
        if message.name == "BUILD":
            assert isinstance(message.data, Build)
            if slave.doing == "building" and slave.build in (None, message.data):
                slave.build = message.data
                return
            self._end(slave, at, "unknown")
            slave.build, slave.began = message.data, at if exact else None
            slave.begin("building", at, exact)
        elif message.name == "SEND":
            assert isinstance(message.data, str)
            if not slave.at_work or slave.build is None:
                slave.build, slave.began = _build_of(message.data), None
            slave.file = message.data
            slave.begin("sending", at, exact and known)
        elif message.name == "DONE":
            # Said again, it may be about a later build than the last that was heard of.
            build = slave.build if exact or slave.doing == "cleaning" else None
            self._end(slave, at, "fail" if exact else "unknown")
            slave.build = build
            slave.begin("cleaning", at, exact)
        elif message.name == "SLEEP":
            self._end(slave, at, "unknown")
            slave.begin("paused" if message.data else "idle", at, exact and known)
        elif message.name == "ACK":
            self._end(slave, at, "unknown")
            slave.begin("starting", at, exact)

    def _end(self, slave: _Slave, at: Time, unsent: Outcome) -> None:
        """End its build, if it has one; `unsent` is how, if no file of it was sent."""
        if slave.at_work:
            self._finish(slave, "success" if slave.doing == "sending" else unsent, at)
            slave.doing = ""
        slave.build, slave.began, slave.file = None, None, ""

    def _finish(self, slave: _Slave, outcome: Outcome, at: Time) -> None:
        slave.succeeded += outcome == "success"
        slave.failed += outcome == "fail"
        if slave.build is None:
            return
        hello = slave.hello
        found = Finished(
            slave.slave_id,
            hello.label if hello else "",
            hello.native_abi if hello else "",
            slave.build.package,
            slave.build.version,
            outcome,
            slave.began,
            at,
        )
        self._finished.appendleft(found)
        self._ended.append(found)

    def _enter(self, slave: _Slave) -> _Slave:
        if len(self._slaves) >= MAX_SLAVES:
            self._leave(min(self._slaves.values(), key=lambda slave: slave.last_seen))
        self._slaves[slave.slave_id] = slave
        return slave

    def _leave(self, slave: _Slave) -> None:
        if slave.at_work:
            self._finish(slave, "unknown", slave.last_seen)
        del self._slaves[slave.slave_id]


# Times are compared by the second: those that were known before a restart have no fraction.


def _same(one: Time | None, other: Time) -> bool:
    return one is not None and one // SECOND == other // SECOND


def _before(one: Time, other: Time) -> bool:
    return one // SECOND < other // SECOND


def _build_of(filename: str) -> Build | None:
    """The build that a wheel is likely of, if nobody said it; None if it is not a wheel's name."""
    package = names.wheel_package(filename)
    return None if package is None else Build(package, filename.split("-")[1])
