"""Fixtures that every tier uses."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import tally
from .postgres import Server, server
from .support import Feed, Site, ipc_feed, tcp_feed

# A shell starts what is in the background without Ctrl-C, and nohup without hang-ups: all that a
# test starts would ignore them, too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


MIN_MEMORY = 2 << 30
"""Bytes that /dev/shm must have free before the tests' files go there; they take up to 0.9 GB."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory, where nobody waits for a disk to sync.

    A soak stays on the disk, and so does who names a directory.
    """
    memory = Path("/dev/shm")
    if hasattr(config, "workerinput") or "TMPDIR" in os.environ or "PIW_INDEXER_SOAK" in os.environ:
        return
    try:
        place = os.statvfs(memory)
    except OSError:
        return
    room = place.f_bavail * place.f_frsize >= MIN_MEMORY and os.access(memory, os.W_OK)
    if room and not place.f_flag & os.ST_NOEXEC:  # some tests run programs that they write
        os.environ["TMPDIR"] = str(memory)
        tempfile.tempdir = None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        left_out[reason][report.nodeid.partition("::")[0]] += 1
    if left_out:
        terminalreporter.section("tests left out")
    for reason, files in sorted(left_out.items()):
        terminalreporter.line(f"{files.total()}: {reason}")
        for file, count in sorted(files.items()):
            terminalreporter.line(f"    {file} ({count})")
    lines = tally.summary()
    if lines:
        terminalreporter.section("tried")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def same_directory() -> Iterator[None]:
    """Restore the working directory, which a command that runs in this process leaves."""
    before = os.getcwd()
    yield
    os.chdir(before)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty state directory and output path."""
    return Site(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL of our own."""
    with server() as found:
        yield found


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory for ipc sockets; pytest's own may be too long for an address."""
    with tempfile.TemporaryDirectory(prefix="piw-") as directory:
        yield Path(directory)


@pytest.fixture
def ipc(sockets: Path) -> Feed:
    """The addresses of a change feed."""
    return ipc_feed(sockets)


@pytest.fixture
def tcp() -> Feed:
    """The addresses of a change feed."""
    return tcp_feed()


@pytest.fixture(params=["ipc", "tcp"])
def feed(request: pytest.FixtureRequest, sockets: Path) -> Feed:
    """The addresses of a change feed, of either kind."""
    return ipc_feed(sockets) if request.param == "ipc" else tcp_feed()
