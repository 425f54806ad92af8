"""`piw-indexer bridge`: a master runs in it as before, and a daemon follows its changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexer.base.lock import Lock
from indexer.journal.reader import JournalReader

from ..support import REPOSITORY, Feed, Process, Site, eventually, piw

pytestmark = pytest.mark.acceptance

STANDIN = REPOSITORY / "tests" / "standin"
HASH = "0123456789abcdef" * 4
WHEN = {"$datetime": "2026-11-20T12:00:00+00:00"}
FILE = "numpy-2.2.6-cp311-cp311-linux_armv7l.whl"


class Master:
    """A stand-in for piw-master, its database, and the bridge that runs it."""

    def __init__(self, home: Path, feed: Feed, standin: Path = STANDIN) -> None:
        self.home = home
        self.state_dir = home / "master"
        self.dsn = home / "piwheels.db"
        self._feed = feed
        self.settings = {"PYTHONPATH": str(standin)}

    def requests(self, *requests: Any) -> Path:
        """A file of requests, which one thread of the master executes."""
        path = self.home / f"requests-{len(list(self.home.glob('requests-*')))}"
        path.write_text("".join(json.dumps(one) + "\n" for one in requests))
        return path

    def options(self, *arguments: object) -> list[object]:
        ours = ["--state-dir", self.state_dir, "--feed", "master", *self._feed.options]
        return [*ours, "--", "--dsn", self.dsn, *arguments]

    def start(self, *files: Path, stay: bool = True, dawdle: float = 0.0) -> Process:
        arguments: list[object] = [x for file in files for x in ("--requests", file)]
        arguments += ["--stay"] * stay + ["--dawdle", dawdle]
        return Process(self.home, "bridge", *self.options(*arguments), settings=self.settings)

    def run_alone(self) -> None:
        """Run the master without a bridge, to make its tables."""
        script = f"from piwheels.master import main; main(['--dsn', {str(self.dsn)!r}])"
        subprocess.run([sys.executable, "-c", script], env=self.settings, check=True)

    def sql(self, *statements: str) -> list[Any]:
        connection = sqlite3.connect(self.dsn, timeout=60)
        with connection:
            rows = [connection.execute(statement).fetchall() for statement in statements]
        connection.close()
        return rows[-1]

    def spool(self) -> JournalReader:
        return JournalReader(self.state_dir / "spool")


@pytest.fixture
def master(site: Site, ipc: Feed) -> Master:
    return Master(site.home, ipc)


def ready(process: Process) -> None:
    eventually(lambda: "all tasks ready" in process.output, lambda: process.output)


def log_build(package: str, version: str, filename: str) -> list[Any]:
    tags = filename.removesuffix(".whl").split("-")
    file = [filename, 1000, HASH, *tags, None, {"apt": ["libx", "libc6"]}, "/simple"]
    return ["LOGBUILD", [1, package, version, "cp311", True, 1.5, "its output", [file]]]


def log_download(filename: str) -> list[Any]:
    return ["LOGDOWNLOAD", [filename, "203.0.113.77", WHEN, *[None] * 10]]


def test_a_daemon_follows_a_master(site: Site, master: Master, ipc: Feed) -> None:
    master.run_alone()
    master.sql(
        "INSERT INTO build_abis VALUES ('cp311', ''), ('cp39', '')",
        "INSERT INTO preinstalled_apt_packages VALUES ('cp311', 'libc6')",
    )
    requests = master.requests(
        ["NEWPKG", ["numpy", "", "Arrays"]],
        ["NEWPKGNAME", ["numpy", "NumPy", WHEN]],
        ["NEWVER", ["numpy", "2.2.6", WHEN, ""]],
        log_build("numpy", "2.2.6", FILE),
        log_download(FILE),
        ["NEWVER", ["unknown", "1.0", WHEN, ""]],
        ["ALLPKGS", None],
        log_download(FILE),
    )
    with master.start(requests) as process, site.daemon(ipc) as daemon:
        site.wait_for_all(7, daemon, process)
        process.terminate()
        daemon.terminate()
    site.piw("write", "--as-of", "2026-11-20T13:00:00Z")
    assert (site.output_path / "packages.json").read_bytes() == b'[["numpy",2,2]]'
    assert os.readlink(site.output_path / "project" / "NumPy") == "numpy"
    path = site.output_path / "project" / "numpy" / "json" / "index.json"
    document = json.loads(path.read_bytes())
    assert document["summary"] == "Arrays"
    assert document["name"] == "NumPy"
    release = document["releases"]["2.2.6"]
    assert release["released"] == "2026-11-20 12:00:00"
    assert {abi: one["status"] for abi, one in release["abis"].items()} == {
        "cp311": "success",
        "cp39": "pending",
    }
    assert release["abis"]["cp311"]["build_id"] == 1
    assert release["abis"]["cp311"]["duration"] == 1.5
    assert release["files"][FILE]["apt_dependencies"] == ["libx"]


def test_the_master_runs_as_ever(master: Master) -> None:
    """The master keeps its log, umask and exit status; our log is separate."""
    before = os.umask(0o027)
    try:
        process = master.start(stay=True)
    finally:
        os.umask(before)
    ready(process)
    process.terminate()
    lines = process.output.splitlines()
    assert [line for line in lines if "ready" in line] == ["all tasks ready, umask 27"]
    assert "shutting down on SIGTERM" in lines
    failing = piw(
        "bridge", *master.options("--fail", 7), home=master.home, status=7, settings=master.settings
    )
    assert failing.stderr.count("all tasks ready") == 1


def test_all_is_published_before_it_ends(master: Master) -> None:
    requests = [["NEWPKG", [f"package-{number}", "", ""]] for number in range(2000)]
    process = master.start(master.requests(*requests), stay=False)
    assert process.wait() == 0
    spool = master.spool()
    found = [row.message.data[0] for row in spool.read(0, 10_000) if row.message.name == "NEWPKG"]
    spool.close()
    assert found == [one[1][0] for one in requests]


def test_masters_own_help_and_mistakes(master: Master) -> None:
    def run(*arguments: str, status: int) -> str:
        options = master.options(*arguments)
        result = piw("bridge", *options, home=master.home, status=status, settings=master.settings)
        assert not master.state_dir.exists(), "nothing is made"
        return result.stdout + result.stderr

    assert "usage: piw-master" in run("--help", status=0)
    assert run("--version", status=0) == "0.23\n"
    assert "piw-master: error: unrecognized arguments: --nonsense" in run("--nonsense", status=2)


def refusal(master: Master, status: int = 2) -> str:
    options = master.options()
    result = piw("bridge", *options, home=master.home, status=status, settings=master.settings)
    assert result.stderr.startswith("piw-indexer: cannot ")
    assert "\n  what to do: " in result.stderr
    return result.stderr


def test_a_second_feed_is_refused(master: Master) -> None:
    options = ["--changes-queue", "ipc:///nowhere/other", *master.options()]
    result = piw("bridge", *options, home=master.home, status=2, settings=master.settings)
    assert "one --changes-queue" in result.stderr


def test_without_piwheels_installed_it_says_so(site: Site, ipc: Feed, tmp_path: Path) -> None:
    package = tmp_path / "none" / "piwheels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module 'piwheels'\")\n")
    master = Master(site.home, ipc, tmp_path / "none")
    assert "not installed" in refusal(master)
    assert not master.state_dir.exists()


def test_a_piwheels_that_cannot_be_wrapped(site: Site, ipc: Feed, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(STANDIN, other)
    (other / "piwheels" / "__init__.py").write_text('__version__ = "1.0"\n')
    (other / "piwheels" / "master" / "__init__.py").write_text("")
    master = Master(site.home, ipc, other)
    says = refusal(master)
    assert "piwheels 1.0 does not look like 0.23" in says
    assert "has no attribute 'main'" in says
    assert not master.state_dir.exists()


def test_a_newer_piwheels_is_published(site: Site, ipc: Feed, tmp_path: Path) -> None:
    """One request is gone, one is new, and one takes more than it did."""
    newer = tmp_path / "newer"
    shutil.copytree(STANDIN, newer)
    (newer / "piwheels" / "__init__.py").write_text('__version__ = "0.26"\n')
    database = newer / "piwheels" / "master" / "db.py"
    text = database.read_text()
    for before, after in (
        ('@rpc("DELBUILD")', '@rpc("PURGEBUILD")'),
        (
            "_description(self, package, description)",
            "_description(self, package, description, x=1)",
        ),
    ):
        assert before in text
        text = text.replace(before, after)
    database.write_text(text)
    master = Master(site.home, ipc, newer)
    process = master.start(
        master.requests(["NEWPKG", ["numpy", "", ""]], ["SETDESC", ["numpy", "Arrays"]]), stay=False
    )
    assert process.wait() == 0
    assert "deleted builds are not published" in process.output
    assert "requests that the bridge does not know: PURGEBUILD" in process.output
    spool = master.spool()
    names = [row.message.name for row in spool.read(0, 10)]
    spool.close()
    assert "SETDESC" in names


def test_spool_of_another(site: Site, master: Master) -> None:
    lock = Lock(master.state_dir / "spool", "publish")
    assert "locked by piw-indexer publish" in refusal(master, status=3)
    lock.release()


def test_killed_masters_lose_nothing_in_silence(site: Site, master: Master) -> None:
    """Whenever it is killed, the feed has what the database has, or begins a new epoch."""
    number = 0
    for share in (1, 300, 600):
        committed = f"SELECT count(*) FROM packages WHERE substr(package, 9) + 0 >= {number}"
        files = []
        for _ in range(3):
            packages = [f"package-{number + one}" for one in range(300)]
            number += 300
            files.append(master.requests(*(["NEWPKG", [one, "", ""]] for one in packages)))
        with master.start(*files, dawdle=0.005) as process:
            ready(process)
            eventually(lambda: master.sql(committed)[0][0] >= share)  # noqa: B023 - called at once
            process.kill()
        spool = master.spool()
        epoch = spool.epoch
        known = {
            row.message.data.package
            for row in spool.read(0, 10_000)
            if row.message.name == "NEWPKG"
        }
        spool.close()
        missing = {row[0] for row in master.sql("SELECT package FROM packages")} - known
        with master.start() as process:
            ready(process)
            process.signal(signal.SIGTERM)
            assert process.wait() == 0
        spool = master.spool()
        if missing:
            assert spool.epoch != epoch, missing
            master.sql("DELETE FROM packages")
        spool.close()
