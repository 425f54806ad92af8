"""What root does to whose files, and what other users of the machine can do to ours."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.base import privileges
from indexer.cli import piw_indexer
from indexer.documents.publish import LOCK

from .. import samples
from ..support import DEADLINE, REPOSITORY, Result, environment, eventually, piw

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

OURS = 4242
"""The daemon's user."""

OTHER = 4343
"""Somebody else on the machine."""

MANY = 1000
"""Packages: so many are written by several processes."""


class Place:
    """A directory that every user may enter, and a command that every user may start."""

    def __init__(self, directory: Path, interpreter: str, python: Path) -> None:
        self.directory = directory
        self.interpreter = interpreter
        self.state = directory / "state"
        self.output = directory / "site"
        self.environment = environment(directory, PYTHONPATH=str(python))

    @property
    def options(self) -> list[object]:
        return ["--state-dir", self.state, "--output-path", self.output]

    def arguments(self, *arguments: object) -> list[str]:
        return [self.interpreter, "-m", "indexer", *map(str, arguments)]

    def piw(self, *arguments: object, status: int | None = 0, cwd: Path | None = None) -> Result:
        """Run the command to its end, as root."""
        return piw(*arguments, home=self.directory, cwd=cwd, status=status)

    def start(self, *arguments: object, cwd: Path, **who: Any) -> str:
        """Run the command to its end, with an interpreter that its children can start as well."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            self.arguments(*arguments),
            env=self.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=True,
            **who,
        )
        return done.stdout

    def messages(self, *packages: str) -> Path:
        """A file of messages that every user may read."""
        path = self.directory / f"{packages[0]}.jsonl"
        path.write_text("".join(json.dumps(samples.new_package(one)) + "\n" for one in packages))
        path.chmod(0o644)
        return path

    def fill(self, *packages: str) -> None:
        """Give the state to the daemon's user, and packages to the state."""
        for path in (self.state, self.output):
            path.mkdir(exist_ok=True)
            os.chown(path, OURS, OURS)
        self.piw("ingest", "--write", self.messages(*packages), *self.options)


def who(user: int) -> dict[str, Any]:
    """Arguments of subprocess for another user without groups."""
    return {"user": user, "group": user, "extra_groups": []}


@pytest.fixture(scope="module")
def python() -> Iterator[tuple[str, Path]]:
    """An interpreter that every user may start, and where it finds us."""
    with tempfile.TemporaryDirectory(prefix="piw-") as name:
        os.chmod(name, 0o755)
        directory = Path(name)
        packages = [path for path in sys.path if path.endswith("site-packages")]
        (directory / "sitecustomize.py").write_text(
            f"import site, sys\nsys.path.append({str(REPOSITORY)!r})\n"
            f"for path in {packages!r}: site.addsitedir(path)\n"
        )
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        for interpreter in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
            found = Place(directory, interpreter, directory)
            try:
                done = subprocess.run(
                    found.arguments("--version"),
                    env=found.environment,
                    cwd="/",
                    capture_output=True,
                    check=False,
                    **who(OURS),
                )
            except OSError:
                continue
            if done.returncode == 0:
                yield interpreter, directory
                return
    pytest.skip(f"other users may not start {version}, or not read what is installed for it")


@pytest.fixture
def place(python: tuple[str, Path]) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="piw-") as directory:
        os.chmod(directory, 0o755)
        yield Place(Path(directory), *python)


@pytest.fixture
def private(place: Place) -> Path:
    """A directory of root that others may not enter, like /root."""
    private = place.directory / "root"
    private.mkdir(mode=0o700)
    return private


def owners(directory: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_uid for path in (directory, *directory.rglob("*"))}


# Root's commands


@pytest.mark.slow
def test_every_command_works_as_the_owner_of_the_state(place: Place, private: Path) -> None:
    """However a command ends, everything that it leaves behind belongs to the owner."""
    place.fill("numpy")
    backup = place.directory / "backup"
    backup.mkdir()
    os.chown(backup, OURS, OURS)
    more = place.messages("scipy")
    state = ["--state-dir", place.state]
    queues = [
        *("--changes-queue", f"ipc://{place.state}/changes"),
        *("--replay-queue", f"ipc://{place.state}/replay"),
    ]
    commands: dict[str, list[object]] = {
        "ingest": [more, *state],
        "write": ["--all", *place.options],
        "publish": ["--exit", more, *state, *queues],
        "bridge": [*state, *queues],
        "rebuild": place.options,
        "check": ["--fix", *place.options],
        "checkpoint": state,
        "classify": ["--again", place.output, *state],
        "backup": [backup, *state],
        "backfill": ["--dsn", "host=/nonexistent", *state],
        "reconcile": ["--fix", "--db-queue", "tcp://127.0.0.1:1", "numpy", *state],
        "import-site": [place.output, *state],
        "status": state,
        "top": state,
        "farm": state,
        "metrics": state,
        "show": ["numpy", *state],
        "history": ["numpy", *state],
        "explain": ["numpy", *place.options],
        "quarantine": ["--retry", *state],
    }
    others = {"run", "demo", "keys", "install"}
    assert commands.keys() | others == piw_indexer.commands.keys()
    for command, arguments in commands.items():
        place.piw(command, *arguments, status=None, cwd=private)
        for directory in (place.state, place.output, backup):
            assert set(owners(directory).values()) == {OURS}, (command, owners(directory))
    assert (place.state / "spool").is_dir()
    assert (backup / "journal").is_dir()
    assert list((place.state / "checkpoint").glob("*.db"))
    for directory in (place.state, backup):
        for path in directory.rglob("*"):
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o027, path


def test_metrics_for_node_exporter_are_roots(place: Place, private: Path) -> None:
    """The directory of the textfiles belongs to root; the state is read as its owner."""
    place.fill("numpy")
    victim = private / "victim"
    victim.write_text("theirs")
    textfile = private / "piw.prom"
    textfile.symlink_to(victim)
    write = ("metrics", "--textfile", "piw.prom", "--state-dir", place.state)
    place.piw(*write, cwd=private, status=2)
    textfile.unlink()
    place.piw(*write, cwd=private)
    assert "piw_indexer_up 0.0" in textfile.read_text()
    assert stat.S_IMODE(textfile.lstat().st_mode) == 0o644
    assert (textfile.lstat().st_uid, victim.read_text()) == (0, "theirs")
    assert set(owners(place.state).values()) == {OURS}


def test_root_looks_as_the_owner_and_is_root_again(place: Place, private: Path) -> None:
    place.fill("numpy")
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with privileges.looking_as_owner(place.state):
        assert (os.geteuid(), os.getegid()) == (OURS, OURS)
        assert not set(os.getgroups()) - {OURS}
        with pytest.raises(PermissionError):
            list(private.iterdir())
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before
    with privileges.looking_as_owner(private):
        assert os.geteuid() == 0


@pytest.mark.parametrize("name", ["backup.json", ".backup.json.piw-indexer", "backup.json.new"])
def test_links_in_the_state_lead_root_nowhere(place: Place, private: Path, name: str) -> None:
    place.fill("numpy")
    victim = private / "victim"
    victim.write_text("theirs")
    (place.state / name).symlink_to(victim)
    os.chown(place.state / name, OURS, OURS, follow_symlinks=False)
    backup = place.directory / "backup"
    backup.mkdir()
    os.chown(backup, OURS, OURS)
    place.piw("backup", backup, "--state-dir", place.state)
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize("name", ["lock", "journal", "checkpoint", "checkpoint.lock", "spool"])
def test_links_in_a_backup_lead_root_nowhere(place: Place, private: Path, name: str) -> None:
    place.fill("numpy")
    place.piw("checkpoint", "--state-dir", place.state)
    victim = private / "victim"
    if name.endswith("lock"):
        victim.write_text("theirs")
    else:
        victim.mkdir()
    backup = place.directory / "backup"
    backup.mkdir()
    os.chown(backup, OURS, OURS)
    (backup / name).symlink_to(victim)
    said = place.piw("backup", backup, "--state-dir", place.state, status=3).stderr
    assert f"cannot use the backup directory {backup}: {backup}/{name}: it is" in said
    assert victim.read_text() == "theirs" if victim.is_file() else not list(victim.iterdir())


def test_a_backup_where_the_owner_may_not_write(place: Place) -> None:
    place.fill("numpy")
    backup = place.directory / "backup"
    said = place.piw("backup", backup, "--state-dir", place.state, status=3).stderr
    assert f"install -d -o USER -m 750 {backup}" in said


@pytest.mark.parametrize("what", ["link", "directory"])
def test_a_state_that_others_could_exchange(place: Place, private: Path, what: str) -> None:
    """Otherwise root would work as root on whatever the other user puts there."""
    home = place.directory / "home"
    home.mkdir()
    if what == "link":
        (home / "state").symlink_to(private)
        os.chown(home / "state", OTHER, OTHER, follow_symlinks=False)
    else:
        (home / "state").mkdir()
        os.chown(home, OTHER, OTHER)
    messages = place.messages("numpy")
    said = place.piw("ingest", messages, "--state-dir", home / "state", status=3).stderr
    assert f"on the way to it is a {'symbolic link' if what == 'link' else what} of" in said
    assert not list((home / "state").iterdir())
    said = place.piw("status", "--monitor", "--state-dir", home / "state", status=3).stdout
    assert said.startswith("PIW-INDEXER UNKNOWN - ")


# The directory that a command was typed in


@pytest.mark.slow
@pytest.mark.parametrize("user", [0, OURS])
def test_a_directory_that_the_owner_may_not_enter(place: Place, private: Path, user: int) -> None:
    """As root in /root, or with sudo -u there; children start in their parent's directory."""
    packages = [f"p{number}" for number in range(MANY)]
    place.fill("numpy")
    place.piw("ingest", place.messages(*packages), "--state-dir", place.state)
    someone = {} if user == 0 else who(user)
    said = place.start("write", "--all", *place.options, cwd=private, **someone)
    assert f"{MANY + 1:,} documents written" in said
    place.piw("ingest", place.messages("scipy"), "--state-dir", place.state)
    with daemon(place, private, **someone) as process:
        document = place.output / "project" / "scipy" / "json" / "index.json"
        eventually(lambda: document.exists() or process.poll() is not None)
        assert process.poll() is None


@contextmanager
def daemon(place: Place, cwd: Path, **someone: Any) -> Iterator[subprocess.Popen[bytes]]:
    queues = [
        *("--changes-queue", f"ipc://{place.state}/changes"),
        *("--replay-queue", f"ipc://{place.state}/replay"),
    ]
    log = place.directory / "daemon.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            place.arguments("run", *place.options, *queues, "--settle", 0),
            env=place.environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            **someone,
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_relative_paths_are_of_where_they_were_typed(place: Place) -> None:
    place.fill("numpy")
    messages = place.messages("scipy").name
    paths = ["--state-dir", "state", "--output-path", "site"]
    said = place.piw("ingest", "--write", messages, *paths).stdout
    assert f"{messages}: 1 message" in said
    assert (place.output / "project" / "scipy" / "json" / "index.json").exists()
    assert set(owners(place.output).values()) == {OURS}
    sockets = ["--changes-queue", "ipc://changes", "--replay-queue", "ipc://state/replay"]
    said = place.piw("publish", *sockets, *paths[:2], status=2).stderr
    assert f"bind ipc://{place.directory}/changes: " in said


# Other users


TAKE = """
import fcntl, os, sys
taken = []
for root in sys.argv[1:]:
    for directory, directories, files in os.walk(root):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken.append(path)
            except OSError:
                pass
print(*taken, sep="\\n", flush=True)
print(flush=True)
sys.stdin.read()
"""
"""Locks all that it may open, and keeps it."""


@contextmanager
def locked(place: Place, *directories: Path, **someone: Any) -> Iterator[list[str]]:
    """Lock everything that another user may open; yields what that is."""
    with subprocess.Popen(
        [place.interpreter, "-c", TAKE, *map(str, directories)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        **someone,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield list(iter(process.stdout.readline, "\n"))
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("group", [OTHER, OURS])
def test_whoever_may_only_read_locks_nothing(place: Place, group: int) -> None:
    place.fill("numpy")
    place.piw("checkpoint", "--state-dir", place.state)
    place.piw("ingest", place.messages("scipy"), "--state-dir", place.state)
    place.state.chmod(0o755)
    with locked(place, place.output, place.state, user=OTHER, group=group, extra_groups=[]) as all:
        assert f"{place.output}/project\n" in all
        assert f"{place.state}\n" in all
        assert (f"{place.state}/index.db\n" in all) == (group == OURS)
        place.piw("write", *place.options)
        place.piw("check", "--fix", *place.options)
        place.piw("checkpoint", "--state-dir", place.state)
        with daemon(place, place.directory):
            status = place.state / "daemon.json"
            eventually(status.exists)
    assert (place.output / "project" / "scipy").is_dir()
    assert stat.S_IMODE((place.output / LOCK).stat().st_mode) == 0o700
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o750


def test_a_member_of_the_group_sees_who_holds_the_state(place: Place) -> None:
    place.fill("numpy")
    script = (
        "import sys; from pathlib import Path; from indexer.base import lock;"
        " print(lock.holder(Path(sys.argv[1])))"
    )

    def seen() -> str:
        return subprocess.run(
            [place.interpreter, "-c", script, place.state],
            env=place.environment,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
            user=OTHER,
            group=OURS,
            extra_groups=[],
        ).stdout

    assert seen() == "\n"
    with daemon(place, place.directory) as process:
        eventually((place.state / "daemon.json").exists)
        assert f"(pid {process.pid})" in seen()
