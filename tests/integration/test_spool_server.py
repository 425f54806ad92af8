"""The process that serves a spool: strangers reach only it, and nothing of the master."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from indexer.base import clock
from indexer.base.backoff import Backoff
from indexer.feed import keys as curve
from indexer.feed import spool_server
from indexer.feed.publisher import Endpoint, Server, Spool
from indexer.feed.spool_server import Options, SpoolServer
from indexer.journal.reader import JournalReader
from indexer.messages import encode
from indexer.messages.entries import Accepted

from .. import samples
from ..samples import decoded
from ..support import Feed, eventually

pytestmark = pytest.mark.integration


class Served:
    """A spool that this process writes and another serves."""

    def __init__(self, directory: Path, feed: Feed, **options: Any) -> None:
        self.feed = feed
        self.spool = Spool(directory, clock.now)
        self.server = SpoolServer(
            Options(str(directory), "master", feed.changes, feed.replay, **options),
            backoff=Backoff(0.0, 0.0),
        )
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.look()

    def look(self) -> None:
        self.server.look(self.spool.reader.epoch)

    def looked(self) -> SpoolServer:
        self.look()
        return self.server

    def append(self, *numbers: int) -> None:
        self.spool.append(
            Accepted(None, decoded(samples.new_package(f"p{number}"))) for number in numbers
        )
        self.server.wake()

    def socket(self, kind: int, address: str) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self.context.socket(kind)
        if kind == zmq.SUB:
            made.subscribe(b"")
        made.connect(address)
        self.sockets.append(made)
        return made

    def subscribed(self) -> zmq.Socket[bytes]:
        made = self.socket(zmq.SUB, self.feed.changes)
        self.until_heard(made)
        return made

    def until_heard(self, socket: zmq.Socket[bytes]) -> None:
        def heard() -> bool:
            self.look()
            return bool(socket.poll(20))

        eventually(heard, lambda: self.server.error)

    def serials(self, socket: zmq.Socket[bytes], last: int) -> list[int]:
        """The serials that come up to the last, without heartbeats."""
        found: list[int] = []
        while last not in found:
            self.until_heard(socket)
            topic, payload = socket.recv_multipart()
            if topic != encode.HEARTBEAT:
                found.append(msgpack.unpackb(payload)["serial"])
        return found

    def close(self) -> None:
        self.server.close()
        self.context.destroy(linger=0)
        self.spool.close()


@pytest.fixture
def served(tmp_path: Path, ipc: Feed) -> Iterator[Served]:
    made = Served(tmp_path / "spool", ipc)
    yield made
    made.close()


def test_what_is_spooled_is_sent_and_replayed(served: Served) -> None:
    subscriber = served.subscribed()
    served.append(1, 2)
    served.append(3)
    assert served.serials(subscriber, 3) == [1, 2, 3]
    asks = served.socket(zmq.DEALER, served.feed.replay)
    asks.send(encode.replay_request(served.spool.reader.epoch, 1, 10))
    answers = []
    for _ in range(3):
        served.until_heard(asks)
        answers.append(msgpack.unpackb(asks.recv()))
    assert [one.get("serial") for one in answers] == [2, 3, None]
    assert answers[-1] == {"end": 3}


def test_a_month_that_begins(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    subscriber = served.subscribed()
    served.append(1)
    served.spool._clock = lambda: clock.now() + 40 * 86_400_000_000
    served.append(2, 3)
    assert served.serials(subscriber, 3) == [1, 2, 3]


def test_all_is_sent_before_it_ends(served: Served) -> None:
    subscriber = served.subscribed()
    served.append(*range(500))
    served.server.close()
    found: list[int] = []
    while len(found) < 500:
        assert subscriber.poll(10_000)
        topic, payload = subscriber.recv_multipart()
        if topic != encode.HEARTBEAT:
            found.append(msgpack.unpackb(payload)["serial"])
    assert found == list(range(1, 501))


def test_one_that_is_killed_is_started_again(served: Served, caplog: Any) -> None:
    subscriber = served.subscribed()
    before = served.server.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    served.append(1)  # nobody sends it: a heartbeat tells that it is missing
    eventually(lambda: served.looked().pid not in (None, before))
    assert "the feed is not served: its process ended with status -9" in caplog.text

    def told() -> bool:
        served.until_heard(subscriber)
        return bool(msgpack.unpackb(subscriber.recv_multipart()[1])["serial"] == 1)

    eventually(told)
    eventually(lambda: not served.looked().error)


def test_it_outlives_the_signals_of_the_terminal(served: Served) -> None:
    """The master handles these signals in its own time, and this process ends after it."""
    subscriber = served.subscribed()
    pid = served.server.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    served.append(1)
    assert served.serials(subscriber, 1) == [1]
    assert served.server.pid == pid


def test_a_spool_that_was_replaced_is_served_as_that(served: Served, tmp_path: Path) -> None:
    subscriber = served.subscribed()
    served.append(1)
    served.serials(subscriber, 1)
    served.spool.close()
    os.rename(tmp_path / "spool", tmp_path / "old")
    served.spool = Spool(tmp_path / "spool", clock.now)

    def told() -> bool:
        served.until_heard(subscriber)
        found = msgpack.unpackb(subscriber.recv_multipart()[1])
        return (found["epoch"], found["serial"]) == (served.spool.reader.epoch, 0)

    eventually(told)


def test_it_ends_with_who_spools(tmp_path: Path, ipc: Feed) -> None:
    script = f"""
import sys
from pathlib import Path
from indexer.base import clock
from indexer.feed.publisher import Spool
from indexer.feed.spool_server import Options, SpoolServer
spool = Spool(Path({str(tmp_path / "spool")!r}), clock.now)
server = SpoolServer(Options({str(tmp_path / "spool")!r}, "f", {ipc.changes!r}, {ipc.replay!r}))
server.look(spool.reader.epoch)
while not server._output:
    server.look(spool.reader.epoch)
print(server.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as master:
        assert master.stdout is not None
        pid = int(master.stdout.readline())
        master.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))


def test_it_ends_if_who_spools_had_ended_before_it_began(tmp_path: Path, ipc: Feed) -> None:
    """It once mistook the process that adopted it for its parent, and outlived a killed master."""
    Spool(tmp_path / "spool", clock.now).close()
    options = Options(str(tmp_path / "spool"), "f", ipc.changes, ipc.replay)
    starts = f"""
import os
from dataclasses import asdict, replace
import json
from indexer.base import process
from indexer.feed.spool_server import Options
options = replace({options!r}, parent=os.getpid())
started = process.start("indexer.feed.spool_server")
print(started.pid, json.dumps(asdict(options)), flush=True)
"""
    ours, its = os.pipe()  # as if a child of the master kept its end of the pipe open
    try:
        with subprocess.Popen(
            [sys.executable, "-c", starts], stdin=ours, stdout=subprocess.PIPE
        ) as master:
            assert master.stdout is not None
            number, _, line = master.stdout.readline().partition(b" ")
            master.wait()
            os.write(its, line)  # the process goes on from here, and its parent is gone
            pid = int(number)
            eventually(lambda: _is_zombie(pid))
    finally:
        os.close(its)
        os.close(ours)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_strangers_take_no_descriptor_of_the_master(tmp_path: Path, tcp: Feed) -> None:
    """Silent connections once took all 256 descriptors of the master's process."""
    master, index = curve.make(), curve.make()
    curve.write(tmp_path / "master", master)
    curve.write(tmp_path / "index", index)
    keys = {"curve_key": str(tmp_path / "master.key"), "allowed_keys": str(tmp_path / "index.pub")}
    served = Served(tmp_path / "spool", tcp, **keys)
    strangers: list[socket.socket] = []
    try:

        def friend() -> zmq.Socket[bytes]:
            made: zmq.Socket[bytes] = served.context.socket(zmq.SUB)
            made.curve_publickey, made.curve_secretkey = index.public, index.private
            made.curve_serverkey = master.public
            made.subscribe(b"")
            made.connect(tcp.changes)
            served.sockets.append(made)
            return made

        served.until_heard(friend())
        before = len(os.listdir("/proc/self/fd"))
        host, _, port = tcp.changes.removeprefix("tcp://").rpartition(":")
        for _ in range(2 * spool_server.MAX_DESCRIPTORS):
            one = socket.socket()
            one.settimeout(0.05)
            strangers.append(one)
            try:
                one.connect((host, int(port)))
            except OSError:
                pass
        assert len(os.listdir("/proc/self/fd")) == before + len(strangers)
        pid = served.server.pid
        assert len(os.listdir(f"/proc/{pid}/fd")) <= spool_server.MAX_DESCRIPTORS
        # And a friend gets in: who says nothing is let go after a moment.
        served.until_heard(friend())
        served.append(1)
        assert served.server.pid == pid
    finally:
        for one in strangers:
            one.close()
        served.close()


def test_it_goes_on_while_strangers_have_all_descriptors(tmp_path: Path, ipc: Feed) -> None:
    """It once ended, because it looked for a new month with each message."""
    spool = Spool(tmp_path / "spool", clock.now)
    spool.append([Accepted(None, decoded(samples.new_package("p1")))])
    reader = JournalReader(tmp_path / "spool")
    endpoint = Endpoint(ipc.changes, ipc.replay, clock.now)
    server = Server(reader, "f", endpoint, clock.now)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        spool.append([Accepted(None, decoded(samples.new_package("p2")))])
        with open(os.devnull) as lowest:  # all below are taken
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno(), before[1]))
            sent_all = spool_server._send_new(server, reader)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert not sent_all
        assert server.serial == 2
        assert spool_server._send_new(server, reader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        endpoint.close()
        reader.close()
        spool.close()


def test_its_process_has_bounds(served: Served) -> None:
    served.subscribed()
    pid = served.server.pid
    assert pid is not None
    most = spool_server.MAX_DESCRIPTORS
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (most, most)
    most = spool_server.MAX_MEMORY
    assert resource.prlimit(pid, resource.RLIMIT_DATA) == (most, most)


def test_what_cannot_be_served_is_told_once(
    served: Served, caplog: Any, tmp_path: Path, ipc: Feed
) -> None:
    served.subscribed()
    second = SpoolServer(Options(str(tmp_path / "spool"), "master", ipc.changes, ipc.replay))
    starts = set()

    def tried() -> bool:
        second._next_start = 0.0
        second.look(served.spool.reader.epoch)
        starts.add(second.pid)
        return len(starts) > 3

    eventually(tried)
    second.close()
    assert "another process has it" in second.error
    assert caplog.text.count("another process has it") == 1
