"""The daemon as systemd sees it: over a real NOTIFY_SOCKET, with the signals of a unit."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from indexer.base.errors import StateError
from indexer.daemon import writer as writer_handle
from indexer.daemon.writer_messages import Options
from indexer.index import queries
from indexer.piwheels import cbor

from .. import samples
from ..support import DEADLINE, Feed, Site, eventually
from .test_piwheels import DOWNLOADS, Logger, log_queue

pytestmark = pytest.mark.acceptance


class Systemd:
    """systemd's end of a NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.settings = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(DEADLINE)
        self.told: list[dict[str, str]] = []

    def until(self, name: str) -> list[dict[str, str]]:
        """The next notifications, up to the first with `name`."""
        begin = len(self.told)
        while True:
            lines = self._socket.recv(10_000).decode().splitlines()
            self.told.append(dict(line.split("=", 1) for line in lines))
            if name in self.told[-1]:
                return self.told[begin:]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    found = Systemd(tmp_path / "notify")
    yield found
    found.close()


@pytest.fixture
def queues(sockets: Path) -> list[str]:
    """The queue for piw-logger, and the master's own log queue."""
    return [f"ipc://{sockets}/log", f"ipc://{sockets}/master-log"]


def packages(count: int) -> bytes:
    return b"".join(samples.line(samples.new_package(f"package-{one}")) for one in range(count))


def configured(site: Site, text: str) -> Path:
    path = site.home / "piw-indexer.conf"
    path.write_text(f"[indexer]\n{text}")
    return path


def children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(one) for one in text.split()}


def test_ready_when_the_index_has_caught_up(site: Site, ipc: Feed, systemd: Systemd) -> None:
    site.piw("ingest", "-", input=packages(3000))
    index = site.state_dir / "index.db"
    for path in site.state_dir.glob("index.db*"):
        path.unlink()
    with site.daemon(ipc, settings=systemd.settings) as daemon:
        before = systemd.until("READY")
        assert index.exists()
        caught_up = [one for one in before if "EXTEND_TIMEOUT_USEC" in one]
        assert caught_up[-1]["STATUS"] == "catching up with the journal: 3000 of 3000"
        assert int(caught_up[-1]["EXTEND_TIMEOUT_USEC"]) > 1_000_000
        assert site.gather()["applied_serial"] == 3000
        alive = systemd.until("WATCHDOG")[-1]
        assert alive["STATUS"].startswith("serial 3000, 0 messages behind")
        daemon.signal(signal.SIGTERM)
        systemd.until("STOPPING")
        assert daemon.wait() == 0
    assert site.gather()["pending"] == 0


def test_a_reload_begins_anew_in_the_same_process(site: Site, ipc: Feed, systemd: Systemd) -> None:
    file = configured(site, "site-url = https://old.example\n")
    # By a name that only holds where the daemon was started, which it has left.
    with site.daemon(ipc, "-c", file.name, settings=systemd.settings) as daemon:
        systemd.until("READY")
        for name in ("new", "newer"):
            configured(site, f"site-url = https://{name}.example\n")
            daemon.signal(signal.SIGHUP)
            reloading = systemd.until("RELOADING")[-1]
            assert int(reloading["MONOTONIC_USEC"]) > 0
            told = systemd.until("READY")
            assert not any("STOPPING" in one for one in told)
            daemon.assert_running()
            assert site.gather()["daemon"]["pid"] == daemon.pid
        # No child of the one before is left: only the writer.
        eventually(lambda: len(children(daemon.pid)) == 1, lambda: children(daemon.pid))
        (site.home / "numpy.jsonl").write_bytes(samples.line(samples.new_package("numpy")))
        with site.publisher(ipc, site.home / "numpy.jsonl") as publisher:
            site.wait_for_all(1, daemon, publisher)
        daemon.terminate()
    document = site.output_path / "project" / "numpy" / "json" / "index.json"
    assert "https://newer.example" in document.read_text()


def test_a_reload_with_a_mistake_changes_nothing(site: Site, ipc: Feed, systemd: Systemd) -> None:
    file = configured(site, "max-delay = 5\n")
    with site.daemon(ipc, "-c", file, settings=systemd.settings) as daemon:
        systemd.until("READY")
        started = site.gather()["daemon"]["started"]
        configured(site, "max-delay = soon\n")
        daemon.signal(signal.SIGHUP)
        site.wait(lambda found: "max-delay = soon" in str(found["problems"]), daemon)
        live = site.gather()["daemon"]
        assert "the old configuration goes on" in live["trouble"]
        assert live["started"] == started
        assert "max-delay = soon" in daemon.output
        configured(site, "max-delay = 6\n")
        daemon.signal(signal.SIGHUP)
        systemd.until("RELOADING")
        systemd.until("READY")
        site.wait(lambda found: found["problems"] == [], daemon)
        daemon.terminate()


def frames(count: int) -> list[bytes]:
    """Downloads of different files."""
    _, data = cbor.loads(DOWNLOADS[0])
    return [
        cbor.dumps("LOGDOWNLOAD", [f"numpy-1.{number}-py3-none-any.whl", *data[1:]])
        for number in range(count)
    ]


def test_what_waits_for_the_master_survives_a_reload(
    site: Site, ipc: Feed, systemd: Systemd, queues: list[str]
) -> None:
    options = ["--log-queue", queues[0], "--log-forward", queues[1]]
    sent = frames(700)
    with site.daemon(ipc, *options, settings=systemd.settings) as daemon:
        systemd.until("READY")
        with Logger(queues[0]) as logger:
            logger.push(sent[:600])
            site.wait(
                lambda found: (
                    found["daemon"] is not None and log_queue(found)["waiting_for_master"] == 600
                ),
                daemon,
            )
            daemon.signal(signal.SIGHUP)
            systemd.until("READY")
            logger.push(sent[600:])
            site.wait(lambda found: found["serial"] == 700, daemon)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        with context.socket(zmq.PULL) as master:
            master.bind(queues[1])
            master.rcvtimeo = round(DEADLINE * 1000)
            assert [master.recv() for _ in sent] == sent
        context.term()
        daemon.terminate()
    assert "lost" not in daemon.output


def test_what_the_master_never_gets_is_said(
    site: Site, ipc: Feed, systemd: Systemd, queues: list[str]
) -> None:
    options = ["--log-queue", queues[0], "--log-forward", queues[1]]
    with site.daemon(ipc, *options, settings=systemd.settings) as daemon:
        systemd.until("READY")
        with Logger(queues[0]) as logger:
            logger.push(frames(5))
            site.wait(lambda found: found["serial"] == 5, daemon)
        daemon.terminate()
    assert "5 log entries have not reached the master" in daemon.output


def test_a_stop_journals_what_has_arrived(
    site: Site, ipc: Feed, systemd: Systemd, queues: list[str]
) -> None:
    """Frames that were pushed while the daemon could not handle them."""
    with site.daemon(ipc, "--log-queue", queues[0], settings=systemd.settings) as daemon:
        systemd.until("READY")
        with Logger(queues[0]) as logger:
            logger.push(frames(1))
            site.wait(lambda found: found["serial"] == 1, daemon)
            daemon.signal(signal.SIGSTOP)
            logger.push(frames(900)[1:])
            daemon.signal(signal.SIGTERM)
            daemon.signal(signal.SIGCONT)
            assert daemon.wait() == 0, daemon.output
    found = site.gather()
    assert (found["serial"], found["applied_serial"], found["pending"]) == (900, 900, 0)


def test_validate_only_looks(site: Site, ipc: Feed) -> None:
    options = [*site.state, *site.output, *ipc.options, "--validate"]
    assert site.piw("run", *options[2:]).stdout == ""
    assert not site.state_dir.exists()
    assert not site.output_path.exists()
    taken = site.home / "taken"
    taken.mkdir()
    (taken / "project").touch()
    refused = site.piw("run", *ipc.options, "--validate", "--output-path", taken, status=3)
    assert "is not a directory" in refused.stderr
    file = configured(site, "settle = soon\n")
    assert "settle = soon" in site.piw("run", *options[2:], "-c", file, status=2).stderr


def answered(handle: writer_handle.WriterHandle) -> bool:
    handle.listen()
    return handle.unresponsive_for == 0


def handled(handle: writer_handle.WriterHandle) -> bool:
    handle.handle()
    return False


def test_a_writer_that_hangs_is_no_progress(
    site: Site, ipc: Feed, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.piw("ingest", "-", input=packages(1))
    monkeypatch.setattr(writer_handle, "STUCK_TIMEOUT", 2.0)
    connection = queries.open_index(site.state_dir / "index.db")
    options = Options(
        site.state_dir / "index.db", site.output_path, "https://example.org", 0, 1, {}
    )
    handle = writer_handle.WriterHandle(options, connection)
    try:
        for _ in range(3):
            handle.ping()
            eventually(lambda: answered(handle))
        (writer,) = [
            one
            for one in children(os.getpid())
            if b"writer_loop" in Path(f"/proc/{one}/cmdline").read_bytes()
        ]
        os.kill(writer, signal.SIGSTOP)
        handle.ping()
        eventually(lambda: handle.unresponsive_for > 1.0)
        with pytest.raises(StateError, match="said nothing"):
            eventually(lambda: handled(handle))
        os.kill(writer, signal.SIGCONT)
        eventually(lambda: answered(handle))
    finally:
        handle.stop()
        connection.close()
