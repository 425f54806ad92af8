"""What systemd's journal receives, read from a socket in its place."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from .. import samples
from ..support import COMMAND, DEADLINE, Feed, Site, environment, eventually, ipc_feed

pytestmark = pytest.mark.integration

Entry = dict[str, str]


def parse(datagram: bytes) -> Entry:
    """The fields of an entry; source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    fields: Entry = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", datagram)
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


class Journal:
    """A socket like journald's; `entries` holds what came so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def look(self) -> list[Entry]:
        while True:
            try:
                datagram, descriptors, _, _ = socket.recv_fds(self._socket, 2**20, 1)
            except BlockingIOError:
                return self.entries
            for descriptor in descriptors:  # larger than a datagram may be
                with open(descriptor, "rb") as file:
                    file.seek(0)
                    datagram = file.read()
            self.entries.append(parse(datagram))

    def has(self, event: str) -> bool:
        return any(one.get("PIW_EVENT") == event for one in self.look())

    def wait(self, event: str) -> Entry:
        eventually(lambda: self.has(event), lambda: self.entries)
        return next(one for one in self.entries if one.get("PIW_EVENT") == event)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journald")
    yield made
    made.close()


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(journal: Journal) -> Iterator[Start]:
    """Starts a command that takes its stderr, a file, for the journal."""
    processes: list[subprocess.Popen[bytes]] = []

    def popen(site: Site, *arguments: object) -> subprocess.Popen[bytes]:
        log = site.home / "stderr"
        with log.open("wb") as stderr:
            status = log.stat()
            process = subprocess.Popen(
                [COMMAND, *map(str, arguments)],
                env=environment(
                    site.home,
                    JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}",
                    PIW_INDEXER_JOURNAL_SOCKET=str(journal.path),
                ),
                cwd=site.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        processes.append(process)
        return process

    yield popen
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_life_of_a_daemon(journal: Journal, start: Start, site: Site, ipc: Feed) -> None:
    messages = site.home / "messages.jsonl"
    lines = [samples.message("NEWPKG", package=f"p{number}") for number in range(50)]
    messages.write_text("".join(json.dumps(one) + "\n" for one in lines))
    nonsense = ipc_feed(site.home, "-nonsense")
    queues = [*ipc.options, *nonsense.options]
    # A file in the way of a document: the writer, a process of its own, has something to say.
    (site.output_path / "project").mkdir(parents=True)
    (site.output_path / "project" / "p7").write_bytes(b"theirs")

    daemon = start(site, "run", *site.state, *site.output, *queues, "--settle", 0)
    entry = journal.wait("ready")
    assert (entry["PRIORITY"], entry["PIW_SERIAL"]) == ("6", "0")
    assert entry["SYSLOG_IDENTIFIER"] == "piw-indexer"
    assert entry["CODE_FILE"].endswith("daemon.py")
    assert entry["CODE_FUNC"] == "_follow"
    assert int(entry["CODE_LINE"]) > 0
    assert journal.has("started")

    with site.publisher(ipc, messages) as publisher:
        assert journal.wait("feed-heard")["PIW_FEED"] == "master"
        site.wait(lambda found: found["serial"] == 50)
        assert "p7" in journal.wait("publishing-fails")["MESSAGE"]
        publisher.terminate()
    with zmq.Context() as context, context.socket(zmq.PUB) as junk:
        junk.linger = 0
        junk.bind(nonsense.changes)

        def refused() -> bool:
            junk.send_multipart([b"NEWPKG", b"no message"])
            return journal.has("message-quarantined") and site.gather()["quarantined"] > 0

        eventually(refused)
        for _ in range(100):
            junk.send_multipart([b"NEWPKG", b"no message"])
        silent = journal.wait("feed-silent")
    assert (silent["PRIORITY"], silent["PIW_FEED"]) == ("4", "master")
    with site.publisher(ipc):
        assert journal.wait("feed-back")["PRIORITY"] == "5"

    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(DEADLINE) == 0
    stopped = journal.wait("stopped")
    assert (stopped["PIW_SERIAL"], stopped["PIW_ACCEPTED"]) == ("50", "50")
    assert int(stopped["PIW_REFUSED"]) > 100
    events = [one["PIW_EVENT"] for one in journal.entries]
    assert events.count("message-quarantined") < 10, "one a minute, never one a message"
    assert len(events) < 25, events
    assert (site.home / "stderr").read_text() == "", "nothing is said twice"


def test_a_long_error_of_several_lines_is_one_entry(
    journal: Journal, start: Start, site: Site
) -> None:
    deep = site.home / ("x" * 200) / ("y" * 200)
    failed = start(site, "status", "--state-dir", deep)
    assert failed.wait(DEADLINE) == 3
    entry = journal.wait("failed")
    assert entry["PRIORITY"] == "2"
    assert entry["PIW_STATUS"] == "3"
    assert str(deep) in entry["MESSAGE"]
    assert "\n" in entry["MESSAGE"]


def test_elsewhere_lines_stay_plain(journal: Journal, site: Site) -> None:
    """The variable was set for a parent process, and not for this pipe."""
    result = site.piw(
        "status",
        status=3,
        settings={"JOURNAL_STREAM": "1:2", "PIW_INDEXER_JOURNAL_SOCKET": str(journal.path)},
    )
    assert result.stderr.startswith("piw-indexer: ")
    assert journal.look() == []
    for nonsense in ("nonsense", "1:", ":"):
        site.piw("status", status=3, settings={"JOURNAL_STREAM": nonsense})
