"""The farm as the master's status feed shows it: messages in, a frozen picture out.

Pure: no clock, no sockets. It does not trust a feed to be complete: messages may be lost, sent
twice, or repeated long after they happened, and a restarted master counts its slaves from 1 again.

Source: piwheels 0.23, `piwheels/master/slave_driver.py` and `piwheels/states.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ...base import names
from ...base.times import EARLIEST, LATEST, SECOND, Time
from . import view
from .messages import Build, MasterHello, Message, Slave, SlaveHello
from .picture import (
    EMPTY,
    UNKNOWN_MASTER,
    Doing,
    Finished,
    MasterPicture,
    MasterStats,
    Outcome,
    Picture,
    SlavePicture,
    SlaveStats,
    unknown_slave,
)

MAX_SLAVES = 256
"""Of more, those that were not seen for the longest time leave."""

BUSY_TIMEOUT = 300.0
"""Seconds that a slave may be silent if its own time-out is not known; piwheels' default."""

GRACE = 30.0
"""Seconds more: the master looks for silent slaves every ten seconds."""

HISTORY = 100
"""Old figures that a master repeats after a hello."""

FINISHED = 50
"""Builds that are remembered after their end."""


@dataclass(slots=True)
class _Slave:
    """A slave, and what has to be remembered to understand its next message.

    Attributes:
        picture: what is known of it.
        deadline: on our clock; then it has left.
        began: when its build began, if that was heard.
        replaying: true after a hello, while old figures and the last reply are repeated.
        replayed: the time that the repeated figures bear.
        heard: on our clock, when anything was last heard of it; None if not since we started.
        unanswered: true if the last thing heard of it were figures.
    """

    picture: SlavePicture
    deadline: Time = 0
    began: Time | None = None
    replaying: bool = False
    replayed: Time | None = None
    unanswered: bool = False
    heard: Time | None = None

    @property
    def at_work(self) -> bool:
        return self.picture.doing in ("building", "sending")

    @property
    def build(self) -> Build | None:
        package, version = self.picture.package, self.picture.version
        return None if package is None or version is None else Build(package, version)

    @property
    def timeout(self) -> Time:
        seconds = BUSY_TIMEOUT if self.picture.busy_timeout is None else self.picture.busy_timeout
        return round((seconds + GRACE) * SECOND)

    def begin(self, doing: Doing, at: Time, exact: bool) -> None:
        """It does something from now on; nothing changes if it did so already."""
        if self.picture.doing != doing:
            self.picture = self.picture._replace(doing=doing, since=at, since_exact=exact)

    def take(self, build: Build | None, began: Time | None = None) -> None:
        """It has this build, of which no file was sent yet."""
        package, version = (None, None) if build is None else build
        self.picture = self.picture._replace(package=package, version=version, filename=None)
        self.began = began


class Farm:
    """Follows the messages of one status feed.

    Every `now` is ours: microseconds on a clock that never jumps. The feed speaks of the past in
    the master's time; the distance between both clocks is learned from the messages.
    """

    def __init__(self) -> None:
        self._slaves: dict[int, _Slave] = {}
        self._finished: deque[Finished] = deque(maxlen=FINISHED)
        self._ended: list[Finished] = []  # not yet returned
        self._master = UNKNOWN_MASTER
        self._history = 0  # old figures of the master that may still come
        self._offset: Time | None = None  # of the master's clock from ours
        self._heard: Time | None = None  # of the master, on our clock
        self._reached: Time | None = None  # the master, on our clock

    @property
    def complete(self) -> bool:
        """True if the master and all its slaves have said who they are."""
        return self._master.started is not None and all(
            slave.picture.label is not None for slave in self._slaves.values()
        )

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
        elif isinstance(message, MasterStats):
            self._master_stats(message, now)
        return self._take_ended()

    def reached(self, now: Time) -> None:
        """The connection to the master was made (again): it may be another life of the master.

        Slaves of the former life hang until they give up: those that say nothing any more are
        shown as silent.
        """
        self._reached = now

    def tick(self, now: Time) -> list[Finished]:
        """Let those leave that were silent for too long.

        Returns:
            Their builds; nobody knows how they ended.
        """
        for slave in [slave for slave in self._slaves.values() if now > slave.deadline]:
            self._leave(slave)
        return self._take_ended()

    def picture(self, now: Time) -> Picture:
        if self._heard is None and not self._slaves:
            return EMPTY
        at = self._master_time(now)
        slaves = [self._slaves[number] for number in sorted(self._slaves)]
        return Picture(
            at,
            self._master._replace(
                last_seen=at if self._heard is None else self._master_time(self._heard),
                alerts=view.machine_alerts(self._master.stats),
            ),
            tuple(
                slave.picture._replace(
                    alerts=(*self._silence(slave, now), *view.alerts(slave.picture, at))
                )
                for slave in slaves
            ),
            tuple(self._finished),
        )

    def restore(
        self,
        master: MasterPicture | None,
        slaves: Iterable[SlavePicture],
        now: Time,
        wall_clock: Time,
    ) -> None:
        """Begin with what was known before this process started, less those that left since.

        The next call of `hear` or `tick` returns the builds of those that left.

        Args:
            master: what was known of it.
            slaves: those that were connected.
            now: on the clock that never jumps.
            wall_clock: the same moment; it stands for the master's time until the master speaks.
        """
        self._offset = wall_clock - now
        if master is not None:
            self._master = master
            self._heard = now - (wall_clock - master.last_seen)
        for picture in slaves:
            heard_begin = picture.doing == "building" and picture.since_exact
            slave = _Slave(picture, began=picture.since if heard_begin else None)
            slave.deadline = now + slave.timeout - (wall_clock - picture.last_seen)
            self._slaves[picture.slave_id] = slave
            if slave.deadline < now:
                self._leave(slave)

    def _silence(self, slave: _Slave, now: Time) -> tuple[str, ...]:
        """What an admin should look at if a slave may belong to a former life of the master."""
        reached = self._reached
        if reached is None or now - reached < GRACE * SECOND:
            return ()
        if slave.heard is not None and slave.heard >= reached:
            return ()
        return ("silent since the master came back: restart its piw-slave",)

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
        # Slaves of its former life that are still connected will say hello again.
        for slave in list(self._slaves.values()):
            if _before(slave.picture.last_seen, hello.started):
                self._leave(slave)
        self._master = self._master._replace(
            label=hello.label,
            os_name=hello.os_name,
            os_version=hello.os_version,
            board=view.board(hello.board_revision),
            board_revision=hello.board_revision,
            board_serial=hello.board_serial,
            started=hello.started,
        )
        self._history = HISTORY

    def _master_stats(self, stats: MasterStats, now: Time) -> None:
        before = self._master.stats
        if self._history and before is not None and stats.at <= before.at:
            self._history -= 1
            return
        self._saw(stats.at, now, live=not self._history)
        self._history = max(0, self._history - 1)
        self._master = self._master._replace(stats=stats)

    # Slaves

    def _hear_slave(self, message: Slave, now: Time) -> None:
        slave = self._slaves.get(message.slave_id)
        if message.name == "HELLO":
            assert isinstance(message.data, SlaveHello)
            self._slave_hello(message.slave_id, message.at, message.data, now)
            return
        if message.name == "DIE":
            if slave is not None:
                slave.picture = slave.picture._replace(last_seen=message.at)
                self._leave(slave)
            return
        if slave is None:
            slave = self._enter(unknown_slave(message.slave_id, message.at))
        slave.picture = slave.picture._replace(last_seen=message.at)
        slave.heard = now
        if message.name == "STATS":
            assert isinstance(message.data, SlaveStats)
            self._slave_stats(slave, message.at, message.data, now)
        else:
            # A reply that is repeated bears the time when the slave was seen last.
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
        if slave is not None and slave.picture.first_seen is None and at <= slave.picture.last_seen:
            slave.picture = slave.picture._replace(first_seen=at)  # now we know whose number it is
        if (slave is not None and not _same(slave.picture.first_seen, at)) or any(
            other.slave_id > slave_id
            and _before(other.last_seen if other.first_seen is None else other.first_seen, at)
            for other in [each.picture for each in self._slaves.values()]
        ):
            # Numbers and times grow together, until a restarted master counts from 1 again.
            for former in list(self._slaves.values()):
                self._leave(former)
            slave = None
            self._master = UNKNOWN_MASTER._replace(stats=self._master.stats)
        if slave is None:
            slave = self._enter(unknown_slave(slave_id, at)._replace(first_seen=at))
        slave.picture = slave.picture._replace(
            label=hello.label,
            abi_tag=hello.native_abi,
            platform=hello.native_platform,
            py_version=hello.native_py_version,
            os_name=hello.os_name,
            os_version=hello.os_version,
            board=view.board(hello.board_revision),
            board_revision=hello.board_revision,
            board_serial=hello.board_serial,
            build_timeout=hello.build_timeout,
            busy_timeout=hello.busy_timeout,
        )
        slave.replaying, slave.replayed = True, None
        slave.deadline = now + slave.timeout

    def _slave_stats(self, slave: _Slave, at: Time, stats: SlaveStats, now: Time) -> None:
        if slave.replaying and slave.replayed in (None, at):
            slave.replayed = at
            if slave.picture.clock_skew is None:  # none of its figures was heard when it was new
                slave.picture = slave.picture._replace(stats=stats)
            return
        slave.replaying = False
        self._saw(at, now, live=True)
        if stats == slave.picture.stats:
            return  # the feed sent them twice
        slave.picture = slave.picture._replace(stats=stats, clock_skew=(at - stats.at) / SECOND)
        if slave.unanswered and not slave.at_work:
            # The feed shows every answer to a slave but one: that it shall go on building.
            slave.take(None)
            slave.begin("building", at, exact=False)
        slave.unanswered = True

    def _reply(self, slave: _Slave, message: Slave, exact: bool) -> None:
        at = message.at
        doing = slave.picture.doing
        known = doing != ""  # else it may have slept, or sent files, for long
        if message.name == "BUILD":
            assert isinstance(message.data, Build)
            if doing == "building" and slave.build in (None, message.data):
                slave.take(message.data, slave.began)
                return
            self._end(slave, at, "unknown")
            slave.take(message.data, at if exact else None)
            slave.begin("building", at, exact)
        elif message.name == "SEND":
            assert isinstance(message.data, str)
            if not slave.at_work or slave.build is None:
                slave.take(_build_of(message.data))
            slave.picture = slave.picture._replace(filename=message.data or None)
            slave.begin("sending", at, exact and known)
        elif message.name == "DONE":
            # Said again, it may be about a later build than the last that was heard of.
            build = slave.build if exact or doing == "cleaning" else None
            self._end(slave, at, "fail" if exact else "unknown")
            slave.take(build)
            slave.begin("cleaning", at, exact)
        elif message.name == "SLEEP":
            self._end(slave, at, "unknown")
            slave.begin("paused" if message.data else "idle", at, exact and known)
        elif message.name == "ACK":
            self._end(slave, at, "unknown")
            slave.begin("starting", at, exact)

    def _end(self, slave: _Slave, at: Time, unsent: Outcome) -> None:
        """End its build, if it has one; `unsent` is the outcome if no file of it was sent."""
        if slave.at_work:
            self._finish(slave, "success" if slave.picture.doing == "sending" else unsent, at)
            slave.picture = slave.picture._replace(doing="")
        slave.take(None)

    def _finish(self, slave: _Slave, outcome: Outcome, at: Time) -> None:
        picture = slave.picture = slave.picture._replace(
            builds_succeeded=slave.picture.builds_succeeded + (outcome == "success"),
            builds_failed=slave.picture.builds_failed + (outcome == "fail"),
        )
        if (build := slave.build) is None:
            return
        finished = Finished(
            picture.slave_id,
            picture.label or "",
            picture.abi_tag or "",
            build.package,
            build.version,
            outcome,
            slave.began,
            at,
        )
        self._finished.appendleft(finished)
        self._ended.append(finished)

    def _enter(self, picture: SlavePicture) -> _Slave:
        if len(self._slaves) >= MAX_SLAVES:
            self._leave(min(self._slaves.values(), key=lambda slave: slave.picture.last_seen))
        slave = self._slaves[picture.slave_id] = _Slave(picture)
        return slave

    def _leave(self, slave: _Slave) -> None:
        if slave.at_work:
            self._finish(slave, "unknown", slave.picture.last_seen)
        del self._slaves[slave.picture.slave_id]


# Times are compared by the second: those that were known before a restart have no fraction.


def _same(first: Time | None, second: Time) -> bool:
    return first is not None and first // SECOND == second // SECOND


def _before(first: Time, second: Time) -> bool:
    return first // SECOND < second // SECOND


def _build_of(filename: str) -> Build | None:
    """The build that a wheel most likely comes from; None if it is not a wheel's name."""
    package = names.wheel_package(filename)
    return None if package is None else Build(package, filename.split("-")[1])
