"""Beside a piwheels master: its database queue, its log queue, and the site that it published."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.journal import quarantine
from indexer.journal.reader import JournalReader
from indexer.piwheels import cbor
from indexer.piwheels.backfill.from_master import MAX_AGE, Record
from indexer.schema.piwheels import NO_DATA

from .. import samples
from ..master.captured import DIRECTORY, captures
from ..master.database_queue import SITE, Master, answers_in_time, farm, small
from ..support import Feed, Process, Site, eventually

pytestmark = pytest.mark.acceptance

DOWNLOADS = [
    capture.frame
    for capture in captures(DIRECTORY / "farm" / "wire-lumberjack.jsonl")
    if capture.name == "LOGDOWNLOAD"
]
LOGS = [capture.frame for capture in captures(DIRECTORY / "farm" / "wire-lumberjack.jsonl")]


@pytest.fixture
def master(sockets: Path) -> Iterator[Master]:
    with Master(f"ipc://{sockets}/db", farm()) as master:
        yield master


def documents(root: Path) -> dict[str, Any]:
    """Every project's document below a site."""
    return {
        path.parent.parent.name: json.loads(path.read_bytes())
        for path in root.glob("project/*/json/index.json")
        if not path.parent.parent.is_symlink()
    }


def assert_agrees(theirs: Any, ours: Any, path: str = "") -> None:
    """Every field that piwheels published is in ours, with the same value."""
    if isinstance(theirs, dict):
        for key, value in theirs.items():
            assert key in ours, f"{path} {key}"
            assert_agrees(value, ours[key], f"{path} {key}")
    else:
        assert ours == theirs, path


def assert_site(output_path: Path) -> None:
    """The farm's documents are those that its master published."""
    theirs, ours = documents(SITE), documents(output_path)
    assert sorted(ours) == sorted(theirs)
    assert_agrees(theirs, ours)


def serial(site: Site) -> int:
    return int(site.status()["serial"])


# backfill


def test_backfill_publishes_what_the_master_did(site: Site, master: Master) -> None:
    done = site.piw("backfill", "--db-queue", master.address)
    assert "7 packages asked for, 7 different" in done.stdout
    site.piw("write")
    assert_site(site.output_path)
    published = json.loads((site.output_path / "packages.json").read_bytes())
    assert published == sorted(json.loads((SITE / "packages.json").read_bytes()))
    before = serial(site)
    again = site.piw("backfill", "--db-queue", master.address)
    assert "0 different, 0 gone, 0 counters taken" in again.stdout
    assert serial(site) == before


def test_a_master_without_counters_tells_all_else(site: Site, master: Master) -> None:
    """A newer piwheels may drop a request."""
    del master.answers[cbor.dumps("GETSEARCH")]
    done = site.piw("backfill", "--db-queue", master.address)
    assert "7 packages asked for, 7 different" in done.stdout
    assert "no download counters were taken: the master cannot answer GETSEARCH" in done.stderr
    site.piw("write")
    assert_site(site.output_path)


def test_every_package_of_the_captures(site: Site, sockets: Path) -> None:
    with Master(f"ipc://{sockets}/db", small()) as master:
        site.piw("backfill", "--db-queue", master.address)
        asked = [name for name, _ in master.asked]
        assert asked.count("GETABIS") == 2, "the answer that differed is the one that is journaled"
        assert "No differences" in site.piw("reconcile", "--db-queue", master.address).stdout
        site.piw("write")
        found = documents(site.output_path)
        assert sorted(found) == sorted(master.get("ALLPKGS"))
        for package, document in found.items():
            project = master.get("PROJDATA", package)
            assert document["name"] == project["name"]
            assert document["releases"].keys() == project["releases"].keys()
            for version, release in document["releases"].items():
                there = project["releases"][version]
                assert release["files"].keys() == there["files"].keys()
    site.piw("rebuild")
    assert site.piw("check").stdout == "No differences.\n"


def test_backfill_that_is_killed_goes_on_where_it_stopped(site: Site, sockets: Path) -> None:
    answers = small()
    with Master(f"ipc://{sockets}/db", answers) as master:
        real = sorted(master.get("ALLPKGS"))
        every = [f"{name}-{number}" for name in real for number in range(4)]
        for name in every:
            like = name.rpartition("-")[0]
            master.put("PROJDATA", name, {**master.get("PROJDATA", like), "releases": {}})
            master.put("GETPKGNAMES", name, [])
        answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", {*every})
        answers[cbor.dumps("GETSEARCH")] = cbor.dumps("OK", {})
        command = ["backfill", *site.state, "--db-queue", master.address, "--pause", 0.02]
        with Process(site.home, *command) as process:
            eventually((site.state_dir / "backfill.json").exists, lambda: process.output)
            process.kill()
        asked = len(master.asked)
        site.piw("backfill", "--db-queue", master.address, "--pause", 0)
        later = [data for name, data in master.asked[asked:] if name == "PROJDATA"]
        assert later == sorted(every)[-len(later) :]
        assert 0 < len(later) <= len(every) - 50
        assert site.status()["counts"]["packages"] == len(every)
        assert not (site.state_dir / "backfill.json").exists()


def test_backfill_repairs_a_broken_feed(ipc: Feed, site: Site, master: Master) -> None:
    site.publisher_dir.mkdir()
    lines = site.home / "messages.jsonl"
    for number in range(2):
        lines.write_bytes(samples.line(samples.new_package(f"numpy{number}")))
        with site.daemon(ipc) as daemon, site.publisher(ipc, lines) as publisher:
            site.wait_for_all(number + 1, daemon, publisher)
            publisher.terminate()
            daemon.terminate()
        shutil.rmtree(site.publisher_dir)
    assert any("broken" in problem for problem in site.status()["problems"])
    site.piw("backfill", "--db-queue", master.address)
    assert site.status()["problems"] == []
    assert site.status()["counts"]["packages"] == 7, "what the master lacks has gone"


def test_backfill_repairs_only_feeds_that_were_broken_when_it_began(tmp_path: Path) -> None:
    """A feed that broke later may have lost what the backfill had asked for."""
    path = tmp_path / "backfill.json"
    record = Record(path, ["one"], 1000)
    record.reached("numpy")
    gone_on = Record(path, ["one", "two"], 1000 + MAX_AGE - 1)
    assert (gone_on.after, gone_on.broken) == ("numpy", ["one"])
    anew = Record(path, ["one", "two"], 1000 + MAX_AGE)
    assert (anew.after, anew.broken) == ("", ["one", "two"])
    path.write_text('{"after": "numpy", "packages_done": true}')
    assert not Record(path, [], 1000).packages_done, "of an older version"


def test_a_package_that_the_master_cannot_tell_of_is_named(site: Site, master: Master) -> None:
    queue = ["--db-queue", master.address]
    everything = {*master.get("ALLPKGS")}
    master.answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", {*everything, "ill"})
    told = site.piw("backfill", *queue)
    assert "the master cannot describe ill: no such thing" in told.stderr
    assert site.status()["counts"]["packages"] == len(everything)
    found = site.piw("reconcile", "--fix", *queue, status=1).stdout
    assert found == (
        "ill: the master cannot describe it: no such thing\n"
        "Taken from the master: 0. `piw-indexer write` publishes them.\nNot repaired: 1.\n"
    )
    assert site.piw("reconcile", "NumPy", *queue).stdout == "No differences.\n"
    unknown = site.piw("reconcile", "no_such", *queue, status=1).stdout
    assert unknown == "no-such: neither the master nor the index has it\n"
    # One after the other, it is not a single package's fault.
    ill = {f"ill{number}" for number in range(20)}
    master.answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", everything | ill)
    given_up = site.piw("backfill", *queue, status=4).stderr
    assert "for PROJDATA, of ill18 and 10 before it: no such thing" in given_up


def test_master_that_is_not_there(site: Site, sockets: Path) -> None:
    site.take(samples.new_package("numpy"))
    with Master(f"ipc://{sockets}/db", {}) as master:
        result = site.piw("backfill", "--db-queue", master.address, status=4)
        assert "no such thing" in result.stderr
    assert "what to do: " in result.stderr
    assert site.piw("backfill", status=2).stderr.count("--db-queue") >= 1


def test_answer_that_is_none_is_quarantined(site: Site, master: Master) -> None:
    project = master.get("PROJDATA", "numpy")
    project["releases"]["../x"] = next(iter(project["releases"].values()))
    master.put("PROJDATA", "numpy", project)
    result = site.piw("backfill", "--db-queue", master.address)
    assert "1 unusable answer;" in result.stderr
    assert site.status()["counts"]["packages"] == 6
    assert "'../x'" in site.piw("quarantine").stdout


def test_counters_that_are_none_are_quarantined(site: Site, master: Master) -> None:
    """Once one such counter ended every backfill with a traceback, at its very end."""
    counters = {**master.get("GETSEARCH"), "../x": [1, 2], "huge": [1, 2**63 - 1]}
    master.answers[cbor.dumps("GETSEARCH")] = cbor.dumps("OK", counters)
    result = site.piw("backfill", "--db-queue", master.address)
    assert "2 unusable answers;" in result.stderr
    assert ", 2 counters taken" in result.stdout
    listed = site.piw("quarantine").stdout
    assert """'../x' has a "/\"""" in listed
    assert "is not between 0 and 1099511627776" in listed
    site.piw("write")
    assert_site(site.output_path)


def test_a_name_begins_no_line_of_its_own(site: Site, master: Master) -> None:
    name = "zzz\n0 packages asked for, all is well"
    master.answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", [name])
    master.put("PROJDATA", name, {"name": name, "description": "", "releases": {}})
    master.put("GETPKGNAMES", name, [])
    good = master.answers[cbor.dumps("GETSEARCH")]
    master.put("GETSEARCH", NO_DATA, "nonsense")
    site.piw("backfill", "--db-queue", master.address, status=4)  # it stops before the counters
    master.answers[cbor.dumps("GETSEARCH")] = good
    told = site.piw("backfill", "--db-queue", master.address).stdout
    assert told.count("\n") == 1
    assert "(it continued after zzz\\n0 packages asked for, all is well)" in told


# reconcile


def test_reconcile_tells_what_differs_and_mends_it(site: Site, master: Master) -> None:
    queue = ["--db-queue", master.address]
    site.piw("backfill", *queue)
    assert site.piw("reconcile", *queue).stdout == "No differences.\n"
    site.take(
        samples.message("SKIPPKG", package="numpy", reason="for fun"),
        samples.message("DELPKG", package="empty"),
        samples.new_package("unheard-of"),
    )
    master.put("PROJDATA", "unheard-of", {"name": None, "description": None, "releases": {}})
    before = serial(site)
    found = site.piw("reconcile", *queue, status=1).stdout
    assert "numpy: " in found
    assert "'for fun' in the index, '' at the master" in found
    assert "empty: the index does not have it" in found
    assert "unheard-of: the master does not have it" in found
    assert serial(site) == before
    only = site.piw("reconcile", "empty", *queue, status=1).stdout
    assert only == "empty: the index does not have it\n"
    site.piw("reconcile", "--fix", *queue)
    assert site.piw("reconcile", *queue).stdout == "No differences.\n"
    site.piw("write")
    assert_site(site.output_path)


# The daemon


def test_daemon_takes_everything_from_a_master(ipc: Feed, site: Site, master: Master) -> None:
    options = ["--db-queue", master.address, "--sweep-pause", 0]
    with site.daemon(ipc, *options) as daemon:
        site.wait(lambda found: found["counts"].get("packages") == 7, daemon)
        eventually(lambda: documents(site.output_path).keys() == documents(SITE).keys())
        site.wait(lambda found: found["pending"] == 0, daemon)
        assert_site(site.output_path)
        eventually(lambda: "7 different" in site.piw("status").stdout)
        # What the master changes, and no feed tells, is found.
        project = master.get("PROJDATA", "empty")
        master.put("PROJDATA", "empty", {**project, "description": "Nothing in it"})
        changed = site.output_path / "project" / "empty" / "json" / "index.json"
        eventually(lambda: json.loads(changed.read_bytes())["summary"] == "Nothing in it")
        daemon.terminate()
    assert site.piw("check").stdout == "No differences.\n"


@pytest.mark.slow
def test_daemon_survives_its_master(ipc: Feed, site: Site, sockets: Path) -> None:
    address = f"ipc://{sockets}/db"
    with site.daemon([], "--db-queue", address, "--sweep-pause", 0) as daemon:
        site.wait(lambda found: "nobody is there" in str(found["problems"]), daemon)
        for _ in range(2):
            with Master(address, farm()):
                site.wait(
                    lambda found: found["counts"]["packages"] == 7 and not found["problems"], daemon
                )
            site.wait(lambda found: "master" in str(found["problems"]), daemon)
        daemon.terminate()


# The log queue


class TheirLog:
    """A master's own log queue; it keeps what comes."""

    def __init__(self, address: str) -> None:
        self.frames: list[list[bytes]] = []
        self._stop = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(20):
                self.frames.append(self._socket.recv_multipart())

    def __enter__(self) -> TheirLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)


class Logger:
    """Pushes as piw-logger does."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.PUSH)
        self.socket.connect(address)

    def push(self, frames: list[bytes]) -> None:
        for frame in frames:
            assert self.socket.poll(30_000, zmq.POLLOUT), "piw-logger is blocked"
            self.socket.send(frame)

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy(linger=0)


def counted(site: Site) -> int:
    return int(site.status()["downloads"]) + int(site.status()["not_a_wheel"])


def log_queue(status: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = status["daemon"]["log_queue"]
    return found


@pytest.fixture
def queues(sockets: Path) -> tuple[str, str]:
    return f"ipc://{sockets}/log", f"ipc://{sockets}/master-log"


def test_every_frame_is_counted_and_passed_on(
    ipc: Feed, site: Site, queues: tuple[str, str]
) -> None:
    options = ["--log-queue", queues[0], "--log-forward", queues[1]]
    with site.daemon(ipc, *options) as daemon, TheirLog(queues[1]) as theirs:
        with Logger(queues[0]) as logger:
            logger.push([*LOGS, b"nonsense"])
            site.wait(lambda found: found["serial"] == len(DOWNLOADS), daemon)
            eventually(lambda: len(theirs.frames) == len(LOGS) + 1)
            assert theirs.frames == [[frame] for frame in [*LOGS, b"nonsense"]]
            # The same file once more: nothing counts twice.
            logger.push([*LOGS, DOWNLOADS[0].replace(b"numpy", b"scipy")])
            site.wait(lambda found: found["serial"] == len(DOWNLOADS) + 1, daemon)
            eventually(lambda: len(theirs.frames) == 2 * len(LOGS) + 2)
        site.wait(lambda found: found["quarantined"] == 1, daemon)
        site.wait(lambda found: log_queue(found)["counted"].get("LOGPAGE") == 2, daemon)
        live = log_queue(site.status())
        assert (live["lost"], live["not_forwarded"]) == (0, 0)
        assert " entries, " in site.piw("status").stdout
        daemon.terminate()
    assert counted(site) == len(DOWNLOADS) + 1
    assert "log-queue" in site.piw("quarantine").stdout


def test_a_file_given_again_after_a_restart_counts_once(
    ipc: Feed, site: Site, queues: tuple[str, str]
) -> None:
    for expected in (len(DOWNLOADS) // 2, len(DOWNLOADS)):
        with site.daemon(ipc, "--log-queue", queues[0]) as daemon, Logger(queues[0]) as logger:
            logger.push(DOWNLOADS[:expected])
            site.wait(lambda found, expected=expected: found["serial"] == expected, daemon)  # type: ignore[misc]
            daemon.terminate()
    assert counted(site) == len(DOWNLOADS)
    site.piw("rebuild")
    assert counted(site) == len(DOWNLOADS)


def test_master_that_is_away_neither_loses_nor_delays(
    ipc: Feed, site: Site, queues: tuple[str, str]
) -> None:
    """More than sockets hold: piw-logger is not blocked, and the master gets everything later."""
    many = [
        cbor.dumps("LOGDOWNLOAD", [f"numpy-1.{number}-py3-none-any.whl", *cbor.loads(frame)[1][1:]])
        for number in range(200)
        for frame in DOWNLOADS
    ]
    options = ["--log-queue", queues[0], "--log-forward", queues[1]]
    with site.daemon(ipc, *options) as daemon, Logger(queues[0]) as logger:
        logger.push(many)
        site.wait(lambda found: found["serial"] == len(many), daemon)
        assert site.status()["daemon"]["log_queue"]["forwarded"] == 0
        with TheirLog(queues[1]) as theirs:
            eventually(lambda: len(theirs.frames) == len(many))
            assert theirs.frames == [[frame] for frame in many]
        daemon.terminate()
    assert counted(site) == len(many)


def test_what_waits_for_the_master_is_passed_on_when_we_stop(
    ipc: Feed, site: Site, queues: tuple[str, str]
) -> None:
    """As long as the master takes it; what it does not take is told."""
    many = [frame for _ in range(20) for frame in DOWNLOADS]

    def waiting(found: dict[str, Any], count: int) -> bool:
        return bool(found["daemon"]) and log_queue(found)["waiting_for_master"] == count

    options = ["--log-queue", queues[0], "--log-forward", queues[1]]
    with site.daemon(ipc, *options) as daemon, Logger(queues[0]) as logger:
        logger.push(many)
        site.wait(lambda found: waiting(found, len(many)), daemon)
        context: zmq.Context[Any] = zmq.Context()
        slow = context.socket(zmq.PULL)
        slow.rcvhwm = 1
        slow.bind(queues[1])
        try:
            site.wait(lambda found: log_queue(found)["forwarded"] > 0, daemon)
            before = log_queue(site.status())
            assert before["waiting_for_master"] > 0
            daemon.signal(signal.SIGTERM)
            came = 0
            while came < len(many) and (slow.poll(100) or daemon.is_running or slow.poll(1000)):
                if slow.poll(0):
                    assert slow.recv() == many[came]
                    came += 1
                    if came > len(many) - 500:  # more than the kernel holds: we wait for its reader
                        time.sleep(0.001)
            assert daemon.wait() == 0, daemon.output
        finally:
            context.destroy(linger=0)
    # The 20 seconds of a stop may not suffice on a machine that is very busy.
    told = re.search(r"(\d+) log entries have not reached the master", daemon.output)
    assert came + int(told[1] if told else 0) >= len(many), daemon.output
    assert came > before["forwarded"], daemon.output
    with site.daemon(ipc, *options) as daemon, Logger(queues[0]) as logger:
        logger.push(LOGS)
        site.wait(lambda found: waiting(found, len(LOGS)), daemon)
        daemon.terminate()
    assert f"{len(LOGS)} log entries have not reached the master" in daemon.output


def test_a_master_that_hangs_does_not_hold_up_a_stop(
    ipc: Feed, site: Site, queues: tuple[str, str]
) -> None:
    """The log also says what was sent and not read, because nobody knows whether it will be."""
    with (
        site.daemon(ipc, "--log-queue", queues[0], "--log-forward", queues[1]) as daemon,
        Logger(queues[0]) as logger,
    ):
        context: zmq.Context[Any] = zmq.Context()
        hung = context.socket(zmq.PULL)
        hung.rcvhwm = 1
        hung.bind(queues[1])
        try:
            logger.push([frame for _ in range(400) for frame in DOWNLOADS])
            site.wait(lambda found: found["serial"] == len(DOWNLOADS), daemon)
            daemon.terminate()
        finally:
            context.destroy(linger=0)
    assert "log entries have not reached the master" in daemon.output
    assert "has not read all that was passed on to it" in daemon.output


def test_an_error_tells_what_the_master_will_not_get(
    ipc: Feed, site: Site, queues: tuple[str, str]
) -> None:
    options = ["--log-queue", queues[0], "--log-forward", queues[1]]
    with site.daemon(ipc, *options) as daemon, Logger(queues[0]) as logger:
        logger.push(DOWNLOADS[:1])
        site.wait(lambda found: found["serial"] == 1, daemon)
        for path in (*site.state_dir.glob("index.db*"), *site.state_dir.glob("journal/*.db*")):
            path.write_bytes(bytes(path.stat().st_size))
        logger.push(DOWNLOADS[1:])
        assert daemon.wait() != 0, daemon.output
    assert "log entries have not reached the master" in daemon.output


def test_no_address_is_stored(ipc: Feed, site: Site, queues: tuple[str, str]) -> None:
    host = "198.51.100.77"
    good = cbor.loads(DOWNLOADS[0])[1]
    frames = [
        cbor.dumps("LOGDOWNLOAD", [good[0], host, *good[2:]]),
        cbor.dumps("LOGDOWNLOAD", ["../x", host, *good[2:]]),
        cbor.dumps("LOGWHAT", ["x", host]),
    ]
    with site.daemon(ipc, "--log-queue", queues[0]) as daemon, Logger(queues[0]) as logger:
        logger.push(frames)
        site.wait(lambda found: found["quarantined"] == 2 and found["serial"] == 1, daemon)
        daemon.terminate()
    for path in site.state_dir.rglob("*.db*"):
        assert host.encode() not in path.read_bytes(), path
    reader = JournalReader(site.state_dir / "journal")
    assert {one.format for one in quarantine.entries(reader)} == {"cbor"}
    reader.close()
    result = site.piw("quarantine", "--retry")
    assert "0 of 2 accepted" in result.stdout


# import-site


def test_site_is_imported_as_it_was(site: Site) -> None:
    shutil.copytree(SITE, site.home / "old")
    for number, spelling in enumerate(("numPY", "NumPy", "NUMPY"), 1):
        link = site.home / "old" / "project" / spelling
        link.symlink_to("numpy")
        os.utime(link, (number % 3, number % 3), follow_symlinks=False)
    done = site.piw("import-site", site.home / "old")
    assert "7 documents, 7 of them new, 2 counters taken" in done.stdout
    site.piw("write")
    assert_site(site.output_path)
    for spelling in ("numPY", "NumPy", "NUMPY"):
        assert (site.output_path / "project" / spelling).readlink() == Path("numpy")
    # A master's own documents do not say how the name is spelled; only its links do.
    assert documents(site.output_path)["numpy"]["name"] == "NumPy"
    published = json.loads((site.output_path / "packages.json").read_bytes())
    assert published == sorted(json.loads((SITE / "packages.json").read_bytes()))
    again = site.piw("import-site", site.home / "old")
    assert "0 of them new, 0 counters taken" in again.stdout
    # Our own documents are a site, too: builds and their numbers come with them.
    other = Site(site.home / "other")
    other.home.mkdir()
    other.piw("import-site", site.output_path)
    other.piw("write")
    assert documents(other.output_path) == documents(site.output_path)


def test_site_with_a_document_that_is_none(site: Site) -> None:
    shutil.copytree(SITE, site.home / "old")
    (site.home / "old" / "project" / "numpy" / "json" / "index.json").write_bytes(b"{")
    result = site.piw("import-site", site.home / "old")
    assert "1 unusable document, so that the packages are missing" in result.stderr
    assert site.status()["counts"]["packages"] == 6
    assert site.piw("import-site", site.home, status=2).stderr.count("project") >= 1


LATER = {
    "file": ("file_url", "requires_python", "pip_dependencies"),
    "release": ("yanked",),
}


def test_documents_of_any_age_are_imported(site: Site) -> None:
    """A field that piwheels added later once refused the whole package."""
    shutil.copytree(SITE, site.home / "old")
    path = site.home / "old" / "project" / "numpy" / "json" / "index.json"
    document = json.loads(path.read_bytes())
    for release in document["releases"].values():
        for name in LATER["release"]:
            del release[name]
        for file in release["files"].values():
            for name in LATER["file"]:
                del file[name]
    path.write_text(json.dumps(document))
    result = site.piw("import-site", site.home / "old")
    assert "7 documents, 7 of them new, 2 counters taken" in result.stdout
    assert result.stderr == ""
    site.piw("write")
    found = json.loads((site.output_path / "project/numpy/json/index.json").read_bytes())
    for version, release in document["releases"].items():
        assert found["releases"][version]["yanked"] is False
        files = found["releases"][version]["files"]
        assert files.keys() == release["files"].keys()
        for name, file in files.items():
            assert file["file_url"] == f"/simple/numpy/{name}"
            assert (file["requires_python"], file["pip_dependencies"]) == (None, [])


@pytest.mark.parametrize(
    ("rows", "published", "unusable"),
    [
        ([["numpy", 5, 10]], ["numpy", 5, 10], 0),
        ([["numpy", 5, 10, 0]], ["numpy", 5, 10], 0),
        ([["other", None, None], ["numpy", 5, 10]], ["numpy", 5, 10], 1),
        (
            [["numpy", 5, 10], ["numpy"], 7, ["../x", 1, 1], ["numpy", 1, 2**50]],
            ["numpy", 5, 10],
            4,
        ),
    ],
)
def test_a_row_that_is_unusable_is_refused_alone(
    rows: list[object], published: list[object], unusable: int, site: Site
) -> None:
    """One odd row, or one more column, once dropped the counters of all packages in silence."""
    shutil.copytree(SITE, site.home / "old")
    (site.home / "old" / "packages.json").write_text(json.dumps(rows))
    result = site.piw("import-site", site.home / "old")
    assert "1 counter taken" in result.stdout
    if unusable:
        assert f"{unusable} unusable row" in result.stderr
    else:
        assert result.stderr == ""
    assert site.status()["quarantined"] == unusable
    site.piw("write")
    assert published in json.loads((site.output_path / "packages.json").read_bytes())


def test_counters_that_are_none_are_reported(site: Site) -> None:
    shutil.copytree(SITE, site.home / "old")
    (site.home / "old" / "packages.json").write_text("{}")
    result = site.piw("import-site", site.home / "old")
    assert "0 counters taken" in result.stdout
    assert "1 unusable packages.json, so that all counters are missing" in result.stderr
    assert site.status()["quarantined"] == 1


def test_a_site_with_documents_that_cannot_be_read(site: Site) -> None:
    """The first of them once ended the command with a traceback."""
    shutil.copytree(SITE, site.home / "old")
    there = site.home / "old" / "project" / "numpy" / "json" / "index.json"
    there.unlink()
    there.symlink_to("/dev/zero")
    os.truncate(site.home / "old" / "packages.json", 2**40)  # a terabyte, and no block on the disk
    large = site.home / "old" / "project" / "large" / "json" / "index.json"
    large.parent.mkdir(parents=True)
    large.touch()
    os.truncate(large, 2**40)
    result = site.piw("import-site", site.home / "old")
    assert "1 unusable document, so that the packages are missing" in result.stderr
    assert site.status()["counts"]["packages"] == 6
    assert "it has more than 128 MiB" in site.piw("quarantine").stdout


# All of it at once


def life() -> list[tuple[Any, str, bytes, bytes]]:
    """A farm's recorded life in order: when, on which queue, the frame, what it answers."""
    found = []
    for name, queue in (("status", "status"), ("wire-lumberjack", "log")):
        for capture in captures(DIRECTORY / "farm" / f"{name}.jsonl"):
            found.append((capture.at, queue, capture.frame, b""))
    for at, request, answer in answers_in_time(DIRECTORY / "farm" / "wire-the_oracle.jsonl"):
        found.append((at, "db", answer, request))
    return sorted(found, key=lambda event: event[0])


def test_a_recorded_life_gives_the_documents_that_its_master_published(
    ipc: Feed, site: Site, sockets: Path, queues: tuple[str, str]
) -> None:
    """35 seconds of three slaves, in one or two."""
    status_queue, db_queue = f"ipc://{sockets}/status", f"ipc://{sockets}/db"
    options = ["--status-queue", status_queue, "--db-queue", db_queue, "--sweep-pause", 0]
    options += ["--log-queue", queues[0], "--log-forward", queues[1]]
    context: zmq.Context[Any] = zmq.Context()
    status = context.socket(zmq.XPUB)
    status.bind(status_queue)
    answers: dict[bytes, bytes] = {}
    try:
        with (
            Master(db_queue, answers),
            TheirLog(queues[1]) as theirs,
            site.daemon(ipc, *options) as daemon,
            Logger(queues[0]) as logger,
        ):
            assert status.poll(60_000), "the daemon does not subscribe"
            status.recv()
            for number, (_, queue, frame, request) in enumerate(life()):
                if queue == "status":
                    status.send(frame)
                elif queue == "log":
                    logger.push([frame])
                else:
                    answers[request] = frame
                if number % 10 == 0:
                    time.sleep(0.01)
            answers.update(farm())
            eventually(lambda: documents(site.output_path).keys() == documents(SITE).keys())
            site.wait(lambda found: found["downloads"] + found["not_a_wheel"] == 31, daemon)
            eventually(lambda: agrees(documents(SITE), documents(site.output_path)))
            eventually(lambda: len(theirs.frames) == len(LOGS))
            assert theirs.frames == [[frame] for frame in LOGS]
            daemon.terminate()
    finally:
        context.destroy(linger=0)
    assert_site(site.output_path)
    ours = json.loads((site.output_path / "packages.json").read_bytes())
    published = json.loads((SITE / "packages.json").read_bytes())
    assert [[row[0], row[2]] for row in ours] == sorted([row[0], row[2]] for row in published)
    assert site.status()["quarantined"] == 0
    assert site.piw("check").stdout == "No differences.\n"


def agrees(theirs: Any, ours: Any) -> bool:
    try:
        assert_agrees(theirs, ours)
    except AssertionError:
        return False
    return True


# Options that contradict each other


def test_an_address_inside_the_master_is_refused(site: Site) -> None:
    """It is the master's default; `backfill` said after a minute that nobody answers."""
    for command in ("run --validate", "run", "backfill"):
        name, *more = command.split()
        refused = site.piw(name, "--db-queue", "inproc://db", *more, status=2)
        assert "only the process that binds" in refused.stderr


def test_downloads_that_come_twice_are_an_alert(
    site: Site, sockets: Path, ipc: Feed, tmp_path: Path
) -> None:
    """By the bridge and by piw-logger: 200 lines counted 400, and all was well."""
    queue = f"ipc://{sockets}/logs"
    file = tmp_path / "messages.jsonl"
    file.write_text(json.dumps(samples.log_download("a-1.0-py3-none-any.whl")) + "\n")
    with site.publisher(ipc, file), site.daemon(ipc, "--log-queue", queue) as daemon:
        site.wait(
            lambda found: any("count twice" in alert["what"] for alert in found["alerts"]), daemon
        )
        daemon.terminate()
