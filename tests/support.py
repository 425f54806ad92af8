"""What the tests share: the installed command, its daemons and publishers, and the cases."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from indexer.base import clock, notes
from indexer.base.errors import StateError
from indexer.watch.status import gather

from . import tally
from .forkserver import Forked
from .reasons import reasons

COMMAND = Path(sys.executable).with_name("piw-indexer")
REPOSITORY = Path(__file__).resolve().parent.parent
DEADLINE = 1200.0 if tally.SCALE else 60.0
"""Seconds after which something that a test waits for is taken to never happen.

A soak checks a journal of a million messages, beside whatever else the machine does.
"""

Environment = dict[str, str]

RUN = "run --status-queue=ipc:///run/nobody/status"
"""A daemon that has something to follow, for who does not care what."""


# Cases


@dataclass(frozen=True)
class Case:
    """A script of messages, and the documents that must be published for it."""

    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def messages(self) -> Path:
        return self.directory / "messages.jsonl"

    @property
    def expected(self) -> Path:
        return self.directory / "expected"

    @property
    def as_of(self) -> str:
        return (self.directory / "as-of").read_text().strip()

    @property
    def lines(self) -> list[bytes]:
        return self.messages.read_bytes().splitlines(keepends=True)

    @property
    def count(self) -> int:
        return len(self.lines)


def every_case() -> list[Case]:
    """The cases of this repository, by name."""
    return [
        Case(path.parent)
        for path in sorted((REPOSITORY / "tests" / "cases").glob("*/messages.jsonl"))
    ]


CASES = [case for case in every_case() if case.expected.is_dir()]
"""Those that say what is published."""

REFUSED = next(case for case in every_case() if case.name == "refused")
"""The lines that must be quarantined."""

by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)

_BRIEF = ("churn-1", "farm", "lifecycle")
by_few_cases = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name in _BRIEF else pytest.mark.soak)
        for case in CASES
    ],
)
"""All cases in a soak; otherwise those that have most in them."""


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


# Output trees


def ordered(document: bytes) -> Any:
    """A JSON document, in which the order of keys matters."""
    return json.loads(document, object_pairs_hook=lambda pairs: ("object", pairs))


def expected_tree(case: Case) -> dict[str, object]:
    """The documents of a case by path; in `expected/` a link is a file with its target."""
    tree: dict[str, object] = {}
    for path in case.expected.rglob("*"):
        name = path.relative_to(case.expected).as_posix()
        if path.is_file():
            if path.suffix == ".json" and (name.count("/") == 3 or name == "packages.json"):
                tree[name] = ordered(path.read_bytes())
            else:
                tree[name] = ("link", path.read_text().strip())
    documents = {
        path.parent.parent.name: path.read_bytes()
        for path in case.expected.glob("project/*/json/index.json")
    }
    rows = json.loads((case.expected / "packages.json").read_bytes())
    found = reasons(documents, {package: recent for package, recent, _ in rows})
    tree["failures.json"] = ordered(json.dumps({"reasons": found}).encode())
    return tree


def published_tree(output_path: Path) -> dict[str, object]:
    """The published documents by path, without compressed copies."""
    tree: dict[str, object] = {}
    for name, (content, _, _) in contents(output_path).items():
        if name.endswith(".json.gz"):
            continue
        if name == "status.json":  # it says how things were when it was written
            continue
        tree[name] = ("link", content) if isinstance(content, str) else ordered(content)
    return tree


def contents(output_path: Path) -> dict[str, tuple[bytes | str, int, int]]:
    """Every file below a directory: its bytes (a link's target as text), mtime and mode."""
    found: dict[str, tuple[bytes | str, int, int]] = {}
    for directory, directories, files in os.walk(output_path):
        for name in [*directories, *files]:
            path = Path(directory, name)
            status = path.lstat()
            content: bytes | str
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            else:
                continue
            key = path.relative_to(output_path).as_posix()
            found[key] = content, status.st_mtime_ns, stat.S_IMODE(status.st_mode)
    return found


def assert_published(case: Case, output_path: Path) -> None:
    """The output tree holds exactly what the case expects, well-formed in every respect."""
    expected, published = expected_tree(case), published_tree(output_path)
    assert sorted(published) == sorted(expected)
    for name, document in expected.items():
        assert published[name] == document, name
    found = contents(output_path)
    for name, (content, _, mode) in found.items():
        if isinstance(content, bytes):
            assert mode == 0o644, name
    for name in ("packages.json", "failures.json"):
        compressed, plain = found[f"{name}.gz"][0], found[name][0]
        assert isinstance(compressed, bytes)
        assert gzip.decompress(compressed) == plain


# The command


def environment(home: Path, **more: str) -> Environment:
    """An environment in which no setting of the machine's user reaches the command."""
    return {
        "HOME": str(home),
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        **more,
    }


@dataclass(frozen=True)
class Result:
    """The exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


_READ_BY_US = ("PIW_INDEXER_", "TMPDIR", "NOTIFY_SOCKET", "FAULT_", "LD_PRELOAD")
"""What the names of settings begin with that a process may have after Python has started."""


def _start(
    home: Path,
    arguments: Sequence[str],
    settings: Environment | None,
    streams: tuple[IO[bytes], IO[bytes], IO[bytes]],
    session: bool = False,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes] | Forked:
    """Start the command: the installed one if there are settings that may be Python's own."""
    given, output, errors = streams
    settings = settings or {}
    if all(name.startswith(_READ_BY_US) for name in settings):
        return Forked(
            arguments,
            environment=environment(home, **settings),
            cwd=cwd or home,
            streams=(given.fileno(), output.fileno(), errors.fileno()),
            session=session,
        )
    return subprocess.Popen(
        [COMMAND, *arguments],
        env=environment(home, **settings),
        cwd=cwd or home,
        stdin=given,
        stdout=output,
        stderr=errors,
        start_new_session=session,
    )


def piw(
    *arguments: object,
    home: Path,
    status: int | None = 0,
    input: bytes | None = None,
    settings: Environment | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run the installed command to its end.

    Args:
        arguments: of the command line.
        home: a directory of the test, for the environment.
        status: how it must end; None: whatever it does.
        input: for its standard input.
        settings: more environment variables.
        cwd: where it starts, if not in `home`.
    """
    line = list(map(str, arguments))
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        given.write(input or b"")
        given.seek(0)
        process = _start(home, line, settings, (given, output, errors), cwd=cwd)
        try:
            ended = process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise
        output.seek(0)
        errors.seek(0)
        result = Result(ended, output.read().decode(), errors.read().decode())
    assert "Traceback" not in result.stderr, result.stderr
    if status is not None:
        assert result.status == status, (arguments, result)
    return result


class Process:
    """A command that runs until it is stopped; what it says goes to a file."""

    def __init__(self, home: Path, *arguments: object, settings: Environment | None = None) -> None:
        self.arguments = list(map(str, arguments))
        number = len(list(home.glob("*.log")))
        self.log = home / f"{number}-{self.arguments[0]}.log"
        with self.log.open("wb") as log, open(os.devnull, "rb") as nothing:
            # A session of its own, so that a test can signal the whole group as systemd does.
            self._process = _start(
                home, self.arguments, settings, (nothing, log, log), session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    def assert_running(self) -> None:
        assert self._process.poll() is None, (self._process.returncode, self.output)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        try:
            return self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.arguments} does not end: {self.output}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        os.killpg(self.pid, number)

    def terminate(self) -> None:
        """End it as systemd would; it must succeed."""
        self.assert_running()
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.output

    def kill(self) -> None:
        """End it and what it started as the OOM killer would."""
        self.signal_group(signal.SIGKILL)
        self.wait()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        # Only while it runs: the number of one that was waited for may be another's by now.
        if self._process.poll() is None:
            self.signal_group(signal.SIGKILL)
            self._process.wait()
        if exception[0] is None:
            assert "Traceback" not in self.output, self.output


def eventually(condition: Callable[[], bool], why: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition holds."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > DEADLINE:
            pytest.fail(f"waited in vain: {why()}")
        # What takes long is asked for less often: to look takes as much work as some tests.
        time.sleep(min(0.1, 0.02 + waited / 20))


def read_until(screen: int, text: str | None) -> str:
    """What appears on a terminal until `text` does, or with None until the terminal is closed."""
    seen = b""
    until = time.monotonic() + DEADLINE
    while text is None or text.encode() not in seen:
        if not select.select([screen], [], [], max(0.0, until - time.monotonic()))[0]:
            pytest.fail(f"{text} does not appear: {seen.decode()}")
        try:
            seen += os.read(screen, 65_536)
        except OSError:  # EIO: the other side is closed
            if text is not None:
                pytest.fail(f"{text} did not appear: {seen.decode()}")
            break
    return seen.decode(errors="replace")


# Sites and feeds


@dataclass(frozen=True)
class Feed:
    """The addresses of a change feed."""

    changes: str
    replay: str

    @property
    def options(self) -> list[str]:
        return ["--changes-queue", self.changes, "--replay-queue", self.replay]


def ipc_feed(directory: Path, name: str = "") -> Feed:
    return Feed(f"ipc://{directory}/changes{name}", f"ipc://{directory}/replay{name}")


def tcp_feed() -> Feed:
    changes, replay = free_ports(2)
    return Feed(f"tcp://127.0.0.1:{changes}", f"tcp://127.0.0.1:{replay}")


MIN_PORT = 20_000
SLICE = 100
"""Ports that a process takes at a time; it has the first bound for as long as it lives."""


def _ports() -> Iterator[int]:
    """Ports that no other process of any suite is given, and that the kernel gives to nobody.

    The kernel gives those above to connections: one that was free a moment ago may be the client's
    end of a connection when a test binds it.
    """
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    guards = []
    for first in range(MIN_PORT, int(ephemeral) - SLICE, SLICE):
        guard = socket.socket()
        if not _binds(guard, first):
            guard.close()
            continue  # the slice is another's
        guards.append(guard)
        for port in range(first + 1, first + SLICE):
            with socket.socket() as tried:
                free = _binds(tried, port)
            if free:
                yield port
    pytest.fail(f"there are no free ports from {MIN_PORT} to {ephemeral}")


def _binds(tried: socket.socket, port: int) -> bool:
    try:
        tried.bind(("", port))
    except OSError:
        return False
    return True


_PORTS = _ports()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has bound, and that are given once only."""
    return list(itertools.islice(_PORTS, count))


class Site:
    """A state directory, an output path, and the commands on them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state_dir = home / "state"
        self.output_path = home / "output"
        self.publisher_dir = home / "publisher"

    @property
    def state(self) -> list[object]:
        return ["--state-dir", self.state_dir]

    @property
    def output(self) -> list[object]:
        return ["--output-path", self.output_path]

    def copy(self, other: Site) -> None:
        """Copy the state of another site."""
        shutil.copytree(other.state_dir, self.state_dir)
        shutil.copytree(other.output_path, self.output_path, symlinks=True)

    def piw(self, command: str, *arguments: object, status: int | None = 0, **more: Any) -> Result:
        """Run a command on this site."""
        options = [*self.state]
        if command in ("run", "ingest", "write", "rebuild", "check", "explain"):
            options += self.output
        return piw(command, *options, *arguments, home=self.home, status=status, **more)

    def ingest(self, *files: object, as_of: str | None = None, **more: Any) -> Result:
        """Ingest files and publish them."""
        when = [] if as_of is None else ["--as-of", as_of]
        return self.piw("ingest", "--write", *when, *files, **more)

    def take(self, *envelopes: dict[str, Any], write: bool = True) -> None:
        """Ingest messages from the standard input."""
        lines = b"".join(json.dumps(one).encode() + b"\n" for one in envelopes)
        self.piw("ingest", *(["--write"] if write else []), "-", input=lines)

    def daemon(self, feeds: Feed | Sequence[Feed], *options: object, **more: Any) -> Process:
        """Start the daemon, with --settle 0."""
        feeds = [feeds] if isinstance(feeds, Feed) else feeds
        queues = [option for feed in feeds for option in feed.options]
        waits = [] if "--settle" in options else ["--settle", 0]
        return Process(
            self.home, "run", *self.state, *self.output, *queues, *waits, *options, **more
        )

    def publisher(self, feed: Feed, *arguments: object) -> Process:
        """Start a publisher with a spool of its own."""
        options = ["--state-dir", self.publisher_dir, "--feed", "master", *feed.options]
        return Process(self.home, "publish", *options, *arguments)

    def status(self) -> dict[str, Any]:
        """What `status --json` prints."""
        found: dict[str, Any] = json.loads(self.piw("status", "--json").stdout)
        return found

    def gather(self) -> dict[str, Any]:
        """The same without starting a process, which takes longer than what a test waits for."""
        found: dict[str, Any] = notes.plain(gather(self.state_dir, clock.now()))
        return found

    def wait(self, condition: Callable[[dict[str, Any]], bool], *running: Process) -> None:
        """Wait until what `status` shows meets a condition, while processes keep running."""
        last: list[object] = [None]

        def holds() -> bool:
            for process in running:
                process.assert_running()
            try:
                found = self.gather()
            except StateError as error:  # there is no state yet
                last[0] = error
                return False
            last[0] = found
            return condition(found)

        eventually(holds, lambda: (last, [process.output for process in running]))

    def wait_for_all(self, count: int, daemon: Process, *running: Process) -> None:
        """Wait until a daemon has applied `count` messages and published what they touched."""
        self.wait(
            lambda found: (
                f"(pid {daemon.pid})" in found["held_by"]
                and found["applied_serial"] == count
                and found["pending"] == 0
            ),
            daemon,
            *running,
        )

    def write_and_compare(self, case: Case) -> None:
        """Publish as of the case's time, and compare."""
        self.piw("write", "--as-of", case.as_of)
        assert_published(case, self.output_path)
