"""A piwheels master as its status feed shows it, simulated: what it says, and what is true.

Source: piwheels 0.23, `piwheels/master/slave_driver.py`, `big_brother.py` and `piwheels/states.py`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from indexer.piwheels import cbor
from indexer.schema.piwheels import NO_DATA

Message = tuple[str, Any]
"""A message of the feed: its name and its data, as piwheels has them."""

BEGINNING = datetime(2026, 11, 22, 14, 15, 13, 23173, tzinfo=UTC)


@dataclass
class Slave:
    """What the master knows of a slave, and what is true of it.

    Attributes:
        number: the master's.
        hello: what it said of itself.
        slow: by how much its clock is behind.
        doing: what it does, as we call it.
        since: when it began to.
        build: what it builds, sends, or cleans up after.
        files: those that it has still to send.
    """

    number: int
    hello: list[Any]
    slow: timedelta
    first_seen: datetime
    last_seen: datetime
    stats: deque[list[Any]] = field(default_factory=lambda: deque(maxlen=100))
    reply: Message = ("ACK", [1, "https://pypi.org/simple"])
    doing: str = "starting"
    since: datetime = BEGINNING
    build: list[str] | None = None
    files: list[str] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0


class Master:
    """Every method is something that happens; it returns what the master says then.

    Attributes:
        now: its time; let it pass between what happens.
        slaves: those that are there.
        ended: (package, version, outcome) of every build that has ended.
    """

    def __init__(self, now: datetime = BEGINNING) -> None:
        self.now = now
        self.started = now
        self.slaves: dict[int, Slave] = {}
        self.ended: list[tuple[str, str, str]] = []
        self._stats: deque[list[Any]] = deque(maxlen=100)
        self._number = 0
        self._measured = 0

    def restart(self) -> None:
        """It stops and starts; its slaves will have to say hello again."""
        for slave in self.slaves.values():
            if slave.doing in ("building", "sending"):
                assert slave.build is not None
                self.ended.append((*slave.build, "unknown"))  # type: ignore[arg-type]
        self.slaves.clear()
        self.started = self.now
        self._stats.clear()
        self._number = 0

    def hello(self) -> list[Message]:
        """A monitor says hello: everything is said again, to everyone."""
        said: list[Message] = [
            ("HELLO", [self.started, "vm", "Debian GNU/Linux", "12 (bookworm)", "c03115", "77"])
        ]
        said += [("STATS", stats) for stats in self._stats]
        for slave in self.slaves.values():
            said += self._hello(slave)
        return said

    def stats(self) -> list[Message]:
        """Its own figures, every ten seconds."""
        self._measured += 1
        self._stats.append(
            [
                *(self.now, self._measured, {"cp311": 1}, timedelta(seconds=5), 1000),
                *({"cp311": 2, "cp39": 0}, 0, 3, 4, 5, 6, 8000, 4000, 2000, 1000, 0, 0, 0.5, 0.0),
            ]
        )
        return [("STATS", self._stats[-1])]

    def join(self, label: str = "slave", abi: str = "cp311", **more: Any) -> list[Message]:
        """A slave says hello."""
        self._number += 1
        busy = more.get("busy_timeout", timedelta(minutes=5))
        slave = Slave(
            self._number,
            [
                *(timedelta(hours=3), busy, abi.removeprefix("cp"), abi, "linux_armv7l"),
                *(label, "Debian GNU/Linux", "12 (bookworm)", "b03115", "1000000012345678"),
            ],
            more.get("slow", timedelta(0)),
            self.now,
            self.now,
            since=self.now,
        )
        self.slaves[slave.number] = slave
        return self._hello(slave)

    def idle(self, number: int, build: list[str] | None = None, pause: bool = False) -> Any:
        """A slave asks for work, and gets it, or is to sleep."""
        slave = self.slaves[number]
        said = self._measure(slave)
        if build is None:
            said += self._reply(slave, "SLEEP", pause)
            self._does(slave, "paused" if pause else "idle", None)
        else:
            said += self._reply(slave, "BUILD", build)
            self._does(slave, "building", build)
        return said

    def busy(self, number: int) -> list[Message]:
        """A slave is still building; that it may go on the feed does not show."""
        return self._measure(self.slaves[number])

    def built(self, number: int, *files: str) -> list[Message]:
        """A build succeeds with these files, or fails without any."""
        slave = self.slaves[number]
        slave.last_seen = self.now
        slave.files = list(files)
        return self._next(slave)

    def sent(self, number: int) -> list[Message]:
        """A file has arrived."""
        slave = self.slaves[number]
        slave.last_seen = self.now
        slave.files.pop(0)
        return self._next(slave)

    def bye(self, number: int) -> list[Message]:
        """A slave ends."""
        self.slaves[number].last_seen = self.now
        return self._leaves(number, NO_DATA)

    def expire(self, number: int) -> list[Message]:
        """The master gives up a slave."""
        return self._leaves(number, None)

    def _leaves(self, number: int, data: object) -> list[Message]:
        slave = self.slaves.pop(number)
        if slave.doing in ("building", "sending"):
            assert slave.build is not None
            self.ended.append((*slave.build, "unknown"))  # type: ignore[arg-type]
        return self._reply(slave, "DIE", data)

    def _hello(self, slave: Slave) -> list[Message]:
        return [
            ("SLAVE", [slave.number, slave.first_seen, "HELLO", slave.hello]),
            *[("SLAVE", [slave.number, slave.last_seen, "STATS", one]) for one in slave.stats],
            ("SLAVE", [slave.number, slave.last_seen, *slave.reply]),
        ]

    def _measure(self, slave: Slave) -> list[Message]:
        slave.last_seen = self.now
        self._measured += 1
        at = self.now - slave.slow
        slave.stats.append(
            [at, 32000, 7000, 4000, 1000 + self._measured % 99, 100, 100, 3.97, 61.8]
        )
        return [("SLAVE", [slave.number, slave.last_seen, "STATS", slave.stats[-1]])]

    def _reply(self, slave: Slave, name: str, data: object) -> list[Message]:
        slave.reply = (name, data)
        return [("SLAVE", [slave.number, slave.last_seen, name, data])]

    def _next(self, slave: Slave) -> list[Message]:
        if slave.files:
            said = self._reply(slave, "SEND", slave.files[0])
            self._does(slave, "sending", slave.build)
            return said
        said = self._reply(slave, "DONE", NO_DATA)
        assert slave.build is not None
        outcome = "success" if slave.doing == "sending" else "fail"
        slave.succeeded += outcome == "success"
        slave.failed += outcome == "fail"
        self.ended.append((*slave.build, outcome))  # type: ignore[arg-type]
        self._does(slave, "cleaning", slave.build)
        return said

    def _does(self, slave: Slave, doing: str, build: list[str] | None) -> None:
        if slave.doing != doing or doing == "building":
            slave.since = self.now
        slave.doing, slave.build = doing, build


def frames(said: list[Message]) -> list[bytes]:
    """Messages as the feed sends them."""
    return [cbor.dumps(*one) for one in said]
