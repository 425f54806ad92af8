"""The live farm: a daemon that follows a master, and what `farm` and `status` show."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sqlite3
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.base import times
from indexer.base.clock import now

from .. import samples
from ..documentation.json_schemas import CLOSED
from ..master import captured
from ..master.database_queue import Master as Database
from ..master.database_queue import farm as database
from ..master.farm import Master, frames
from ..master.status_queue import StatusQueue
from ..support import (
    COMMAND,
    DEADLINE,
    Feed,
    Process,
    Site,
    environment,
    eventually,
    read_until,
)
from .test_status import valid

pytestmark = pytest.mark.acceptance

CAPTURED = [one.frame for one in captured.STATUS]


class Place:
    """The queues of a master, and a daemon that follows them."""

    def __init__(self, site: Site, sockets: Path, feed: Feed) -> None:
        self.site, self._feed = site, feed
        self.status = f"ipc://{sockets}/status"
        self.control = f"ipc://{sockets}/control"

    def daemon(self, *options: object) -> Process:
        return self.site.daemon(self._feed, "--status-queue", self.status, *options)

    def wait(self, condition: Any, *running: Process) -> None:
        """Wait until the farm, as `status` shows it, meets a condition."""
        self.site.wait(lambda found: found["farm"] is not None and condition(found), *running)

    def farm(self) -> dict[str, Any]:
        """What `farm --json` says."""
        found: dict[str, Any] = json.loads(self.site.piw("farm", "--json").stdout)
        return found

    def published(self) -> Any:
        """What status.json says; empty if it is not there."""
        path = self.site.output_path / "status.json"
        found = json.loads(path.read_bytes()) if path.exists() else {}
        if found:
            CLOSED["site-status"].validate(found)
        return found

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self.site.state_dir}/index.db?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@pytest.fixture
def place(site: Site, sockets: Path, ipc: Feed) -> Place:
    return Place(site, sockets, ipc)


@pytest.fixture
def queue(place: Place) -> Iterator[StatusQueue]:
    with StatusQueue(place.status) as found:
        yield found


def present() -> Master:
    """A master whose clock agrees with ours."""
    return Master(times.to_datetime(now()))


def labels(found: dict[str, Any]) -> list[str | None]:
    return [one["label"] for one in found["farm"]["slaves"]]


def test_the_captured_life_at_many_times_its_speed(place: Place, queue: StatusQueue) -> None:
    with place.daemon() as daemon:
        queue.wait_for_subscriber()
        for number in range(0, len(CAPTURED), 20):
            queue.say(*CAPTURED[number : number + 20])
            time.sleep(0.02)  # a minute of it in half a second
        place.wait(lambda found: len(found["farm"]["finished"]) == 16, daemon)
        place.wait(lambda found: labels(found) == ["trixie-1", "bullseye-1"], daemon)
        found = place.farm()
        assert found["problems"] == []
        assert found["status_feed"]["frames"] == len(CAPTURED)
        assert found["status_feed"]["refused"] == 0
        assert found["master"]["label"] == "vm"
        assert found["master"]["stats"]["builds_last_hour"] == {"cp311": 7, "cp313": 4, "cp39": 4}
        assert [one["doing"] for one in found["slaves"]] == ["idle", "idle"]
        plain = place.site.piw("farm").stdout
        assert re.search(r"^ +5  bullseye-1  cp39   idle ", plain, re.M)
        assert plain.count("✓") == 12
        assert plain.count("✗") == 4
        valid(place.site)
        status = place.site.piw("status").stdout
        assert re.search(r"^farm +2 slaves: 2 idle *$", status, re.M)
        assert "bullseye-1" in status
        assert "All is well." in status
        eventually(lambda: len(place.rows("SELECT * FROM slaves")) == 2)
        assert place.rows("SELECT slave_id, label, doing FROM farm") == [
            (4, "trixie-1", "idle"),
            (5, "bullseye-1", "idle"),
        ]
        assert place.rows("SELECT label, packages_built FROM masters") == [("vm", 5)]
        daemon.terminate()


def test_a_slave_that_is_ill(place: Place, queue: StatusQueue) -> None:
    soon = times.to_rfc3339(now() + 60 * times.SECOND)  # after the slaves have come
    place.site.take(
        *(
            samples.log_build(
                *(number * 3 + slave, f"p{number}", "1"),
                slave_id=slave,
                at=soon,
                status=slave < 3 or number < 40,
            )
            for number in range(70)
            for slave in (1, 2, 3)
        ),
        write=False,
    )
    master = present()
    with place.daemon() as daemon:
        queue.wait_for_subscriber()
        joined = [one for n in (1, 2, 3) for one in master.join(f"pi{n}")]
        queue.say(*frames([*master.hello(), *joined]))
        place.wait(lambda found: labels(found) == ["pi1", "pi2", "pi3"], daemon)
        place.wait(lambda found: bool(found["ill_slaves"]), daemon)
        found = place.farm()
        assert [one["alerts"] for one in found["slaves"]] == [[], [], ["fails too often"]]
        said = "slave 3 (pi3, cp311) fails too often: 30 of 30 builds since"
        assert any(problem.startswith(said) for problem in found["problems"])
        [one] = found["ill_slaves"]
        assert (one["slave_id"], one["symptom"], one["events"]) == (3, "failures", 30)
        assert "fails too often" in place.site.piw("farm").stdout
        status = valid(place.site)
        assert "slave-ill" in [alert["id"] for alert in status["alerts"]]
        assert status["ill_slaves"] == found["ill_slaves"]
        daemon.terminate()


def test_builds_that_have_ended_are_asked_for(
    place: Place, queue: StatusQueue, sockets: Path
) -> None:
    """At once, before their turn in the sweep over all packages."""
    with (
        Database(f"ipc://{sockets}/db", database()) as asked,
        place.daemon("--db-queue", asked.address, "--sweep-pause", 2) as daemon,
    ):

        def packages() -> list[Any]:
            return [data for name, data in asked.asked if name == "PROJDATA"]

        queue.wait_for_subscriber()
        eventually(lambda: len(packages()) == 7, lambda: (packages(), daemon.output))
        master = present()
        queue.say(*frames(master.join()))
        for count in range(7, 12):
            last = packages()[-1]
            queue.say(*frames([*master.idle(1, [last, "1.0"]), *master.built(1)]))
            eventually(lambda: len(packages()) > count, lambda: (packages(), daemon.output))  # noqa: B023
            if packages()[count] == last:
                break  # else it was too late this time
        else:
            pytest.fail(f"never at once: {packages()}")
        daemon.terminate()


def test_a_master_that_dies_and_comes_back(place: Place) -> None:
    master = present()
    with place.daemon() as daemon:
        with StatusQueue(place.status) as queue:
            queue.wait_for_subscriber()
            queue.say(*frames([*master.hello(), *master.join("old"), *master.join("older")]))
            place.wait(lambda found: labels(found) == ["old", "older"], daemon)
        place.wait(lambda found: not found["daemon"]["status_feed"]["connected"], daemon)
        master.now = times.to_datetime(now() + 2 * times.SECOND)
        master.restart()
        with StatusQueue(place.status) as queue:
            queue.wait_for_subscriber()
            queue.say(b"nonsense", *frames(master.join("new")), b"\xff\xff", b"nonsense")
            place.wait(lambda found: labels(found) == ["new"], daemon)
            place.wait(lambda found: found["daemon"]["status_feed"]["refused"] == 3, daemon)
            # The same again is counted.
            place.wait(lambda found: found["quarantined"] == 2, daemon)
        listed = place.site.piw("quarantine").stdout
        assert "status-queue" in listed
        daemon.terminate()
    assert "is not piwheels' CBOR" in place.site.piw("quarantine").stdout


def test_the_master_is_asked_to_say_everything_again(place: Place) -> None:
    master = present()
    master.join("pi")
    master.idle(1, ["numpy", "2.0"])
    with (
        StatusQueue(place.status, place.control) as queue,
        place.daemon("--control-queue", place.control) as daemon,
    ):
        queue.wait_for_subscriber()
        eventually(lambda: queue.asked() == ["HELLO"], lambda: daemon.output)
        queue.say(*frames(master.hello()))
        place.wait(lambda found: labels(found) == ["pi"], daemon)
        daemon.terminate()


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_restart_of_the_daemon(place: Place, queue: StatusQueue, end: str) -> None:
    """The slaves are known again without a hello."""
    master = present()
    with place.daemon() as daemon:
        queue.wait_for_subscriber()
        queue.say(*frames([*master.hello(), *master.join("pi"), *master.idle(1, ["a", "1"])]))
        eventually(lambda: bool(place.rows("SELECT * FROM slaves WHERE doing = 'building'")))
        getattr(daemon, end)()
    assert place.rows("SELECT label, package FROM slaves") == [("pi", "a")]
    (place.site.output_path / "status.json").unlink(missing_ok=True)
    with place.daemon() as daemon:
        place.wait(lambda found: labels(found) == ["pi"], daemon)
        eventually(place.published)
        [builder] = place.published()["builders"]
        assert builder.pop("since")
        assert builder == {
            "label": "pi",
            "abi": "cp311",
            "doing": "building",
            "package": "a",
            "version": "1",
        }
        assert place.published()["behind_seconds"] == 0
        queue.wait_for_subscriber()
        queue.say(*frames(master.built(1)))
        place.wait(lambda found: len(found["farm"]["finished"]) == 1, daemon)
        daemon.terminate()


def test_without_a_feed_the_farm_is_forgotten(place: Place, queue: StatusQueue, ipc: Feed) -> None:
    with place.daemon() as daemon:
        queue.wait_for_subscriber()
        queue.say(*frames(present().join("pi")))
        eventually(lambda: bool(place.rows("SELECT * FROM slaves")))
        daemon.terminate()
    (place.site.output_path / "status.json").unlink()
    with place.site.daemon(ipc) as daemon:
        place.site.wait(lambda found: found["daemon"] is not None, daemon)
        eventually(place.published)
        assert place.published()["builders"] == []
        assert place.rows("SELECT * FROM farm") == place.rows("SELECT * FROM masters") == []
        refused = place.site.piw("farm", status=4)
        assert "the daemon there does not follow a master" in refused.stderr
        assert "--status-queue" in refused.stderr
        daemon.terminate()


def test_the_farm_is_no_part_of_what_is_checked(place: Place, queue: StatusQueue) -> None:
    site = place.site
    site.take(samples.set_abis("cp311"), samples.log_build(1, "numpy", "1.0", status=False))
    with place.daemon() as daemon:
        queue.wait_for_subscriber()
        queue.say(*frames(present().join("pi")))
        eventually(lambda: len(place.rows("SELECT * FROM farm")) == 2)
        assert site.piw("check").stdout == "No differences.\n"
        daemon.terminate()
    assert site.piw("check").stdout == "No differences.\n"
    site.piw("rebuild")
    assert len(place.rows("SELECT * FROM farm")) == 1


def test_what_cannot_be_shown(place: Place) -> None:
    assert "there is no journal in it" in place.site.piw("farm", status=3).stderr
    place.site.take(samples.new_package("numpy"))
    refused = place.site.piw("farm", "--json", status=4)
    assert "no daemon runs there" in refused.stderr
    assert refused.stdout == ""
    assert place.site.status()["farm"] is None


def test_options_that_do_not_go_together(place: Place) -> None:
    output = place.site.output
    refused = place.site.piw("run", *output, "--control-queue", place.control, status=2)
    assert "--status-queue" in refused.stderr
    refused = place.site.piw("run", *output, "--status-queue", "tcp://203.0.113.1:5550", status=2)
    assert "tcp beyond this machine" in refused.stderr
    assert "--allow-insecure-tcp" in refused.stderr
    refused = place.site.piw("run", *output, "--status-queue", "/tmp/piw-status", status=2)
    assert "is not an address" in refused.stderr
    assert not place.site.state_dir.exists(), "nothing was begun"


def test_on_a_terminal(place: Place, queue: StatusQueue) -> None:
    master = present()
    with place.daemon() as daemon:
        queue.wait_for_subscriber()
        queue.say(*frames([*master.hello(), *master.join("pi"), *master.idle(1, ["numpy", "2.0"])]))
        place.wait(lambda found: labels(found) == ["pi"], daemon)
        screen, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        shown = subprocess.Popen(
            [COMMAND, "farm", *map(str, place.site.state)],
            env=environment(place.site.home, TERM="xterm-256color"),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        try:
            drawn = read_until(screen, "numpy")
            queue.say(*frames(master.built(1)))
            drawn += read_until(screen, "✗")
            daemon.terminate()
            drawn += read_until(screen, "no daemon runs there")
            os.killpg(shown.pid, signal.SIGINT)  # as Ctrl-C does
            drawn += read_until(screen, None)
            assert shown.wait(DEADLINE) == 0, drawn
        finally:
            os.close(screen)
            if shown.poll() is None:
                os.killpg(shown.pid, signal.SIGKILL)
            shown.wait()
    assert "Traceback" not in drawn
    for text in ("the master", "slaves", "latest builds", "Ctrl-C ends", "building"):
        assert text in drawn
    assert drawn.index("\x1b[?1049h") < drawn.index("the master") < drawn.rindex("\x1b[?1049l")
