"""SIGKILL before or after any system call, and a correct state after the next run.

`tests/crash` kills at calls of Python; this also kills at every call of SQLite and ZeroMQ.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from indexer.base import clock, times

from .. import master, tally
from ..crash.harness import AS_OF, Stream, Victim, daemon, journaled, publisher, seed
from ..property.world import Tree, tree
from ..support import Feed, Site
from ..tally import amount
from .injection import Shim, counted

pytestmark = pytest.mark.crash

CHAIN = 3
"""Kills between two looks at what has come of them."""


class Seams:
    """Where to kill `command` next: every kind of call in turn, spread over its occurrences."""

    def __init__(self, command: str, calls: dict[str, int], share: float = 1.0) -> None:
        self.command = command
        self.chance = random.Random(seed())
        self.calls = {kind: max(1, int(number * share)) for kind, number in calls.items() if number}
        self.calls.pop("read", None)
        self.kinds = [*self.calls, "any"]
        self.calls["any"] = sum(self.calls.values())
        self.planned = 0
        self.killed: Counter[str] = Counter()

    def next(self) -> str:
        kind = self.kinds[self.planned % len(self.kinds)]
        self.planned += 1
        how = self.chance.choice(("before", "after", "before-all", "after-all"))
        return f"{how}:{kind}:{self.chance.randint(1, self.calls[kind])}"

    def note(self, plan: str, status: int | None) -> None:
        if status == -signal.SIGKILL:
            tally.add("kills", self.command)
        self.killed[plan.split(":")[1] if status == -signal.SIGKILL else f"status {status}"] += 1

    def report(self) -> None:
        print(f"{sum(self.killed.values())} of {self.planned}: {dict(self.killed)}")


def calls_of(site: Site, shim: Shim, *command: object) -> dict[str, int]:
    """The calls of an undisturbed command."""
    counts = site.home / "counts"
    counts.mkdir()
    with Victim(site.home, *command, settings=shim.settings(counts=counts)) as undisturbed:
        assert undisturbed.wait() == 0, undisturbed.output
    return counted(counts)


def assert_clean(site: Site) -> None:
    """No temporary files are left."""
    left = [path.name for path in site.state_dir.rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".check", "-journal"))], left
    assert "No differences" in site.piw("check").stdout


@pytest.mark.parametrize("command", ["ingest", "write", "rebuild"])
def test_a_command_killed_at_any_call_converges(
    stream: Stream, site: Site, shim: Shim, command: str
) -> None:
    options = [*site.state, *site.output, "--as-of", AS_OF]
    line: list[object] = [command, *options]
    if command == "ingest":
        line += ["--write", *stream.parts]
    kept = site.home / "kept"
    if command == "ingest":
        kept.mkdir()
    else:
        site.piw("ingest", *stream.parts)
        shutil.copytree(shim.root, kept)

    def begin() -> None:
        shutil.rmtree(shim.root)
        shutil.copytree(kept, shim.root)

    seams = Seams(command, calls_of(site, shim, *line))
    begin()
    durable = 0
    while seams.planned < amount(3, 60):
        plan = seams.next()
        with Victim(site.home, *line, settings=shim.settings(plan)) as victim:
            status = victim.wait()
            seams.note(plan, status)
        found = journaled(site) if command != "ingest" or seams.planned % 2 else durable
        assert found >= durable, plan
        durable = found
        if seams.planned % CHAIN == 0 or not status:
            site.piw(command, *line[len(options) + 1 :], "--as-of", AS_OF)
            stream.check(site)
            begin()
            durable = 0
    site.piw(command, *line[len(options) + 1 :], "--as-of", AS_OF)
    stream.check(site)
    assert_clean(site)
    seams.report()


@pytest.mark.parametrize("command", ["checkpoint", "backup", "check"])
def test_a_killed_copy_or_comparison_leaves_the_state_as_it_is(
    stream: Stream, site: Site, shim: Shim, command: str
) -> None:
    """A command that copies or compares a state never changes it, wherever it is killed."""
    line: list[object] = [command, *site.state]
    if command == "check":
        line += site.output
    target = site.state_dir.parent / "backup"
    if command == "backup":
        line.append(target)
    site.ingest(*stream.parts, as_of=AS_OF)
    kept = site.home / "kept"
    shutil.copytree(shim.root, kept, symlinks=True)

    def begin() -> None:
        shutil.rmtree(shim.root)
        shutil.copytree(kept, shim.root, symlinks=True)

    def look() -> None:
        """The next run works, and no temporary files of the killed one are left."""
        site.piw(command, *line[3:])
        stream.check(site)
        assert_clean(site)
        assert not [*site.state_dir.rglob("*.new*")]
        if command == "backup":
            restored = Site(site.home / "restored")
            shutil.rmtree(restored.home, ignore_errors=True)
            restored.home.mkdir()
            shutil.copytree(target, restored.state_dir)
            restored.piw("rebuild", "--as-of", AS_OF)
            stream.check(restored)

    seams = Seams(command, calls_of(site, shim, *line))
    begin()
    while seams.planned < amount(2, 40):
        plan = seams.next()
        with Victim(site.home, *line, settings=shim.settings(plan)) as victim:
            seams.note(plan, victim.wait())
        if seams.planned % CHAIN == 0:
            look()
            begin()
    look()
    seams.report()


@pytest.mark.parametrize("command", ["backfill", "import-site"])
def test_a_killed_backfill_continues_where_it_was(
    site: Site, shim: Shim, sockets: Path, command: str
) -> None:
    """It continues where it was killed, and accepts nothing twice."""
    address = f"ipc://{sockets}/db"
    rest = ["--db-queue", address, "--pause", 0] if command == "backfill" else [master.SITE]
    line: list[object] = [command, *site.state, *rest]

    def finish() -> Tree:
        site.piw(command, *rest)
        site.piw("write", "--as-of", AS_OF)
        assert_clean(site)
        return tree(site.output_path)

    with master.Master(address, master.small()):
        seams = Seams(command, calls_of(site, shim, *line))
        expected = finish()
        serial = site.status()["serial"]
        shutil.rmtree(shim.root)
        shim.root.mkdir()
        while seams.planned < amount(2, 40):
            plan = seams.next()
            with Victim(site.home, *line, settings=shim.settings(plan)) as victim:
                seams.note(plan, victim.wait())
            if seams.planned % 2 == 0:
                with tally.comparison("with an undisturbed run"):
                    assert finish() == expected
                    assert site.status()["serial"] == serial, "something was taken twice"
                shutil.rmtree(shim.root)
                shim.root.mkdir()
    seams.report()


@pytest.fixture
def half_made(stream: Stream, site: Site, shim: Shim) -> Path:
    """A month with a hot rollback journal, which no reader can undo.

    After a restore from a backup the file is not in WAL mode yet.
    """
    site.ingest(*stream.parts, as_of=AS_OF)
    backup = site.home / "backup"
    site.piw("backup", backup)
    shutil.rmtree(site.state_dir)
    shutil.copytree(backup, site.state_dir)
    month = site.state_dir / "journal" / f"{times.month(clock.now())}.db"
    plan = f"before:unlink:1:{month.name}-journal"
    with Victim(
        site.home, "write", *site.state, *site.output, settings=shim.settings(plan)
    ) as victim:
        assert victim.wait() == -signal.SIGKILL, victim.output
    assert Path(f"{month}-journal").stat().st_size
    return month


@pytest.mark.parametrize("command", ["status", "check", "backup"])
def test_whoever_only_reads_says_what_to_do(site: Site, half_made: Path, command: str) -> None:
    before = half_made.read_bytes()
    arguments = [site.home / "other"] if command == "backup" else []
    said = site.piw(command, *arguments, status=3).stderr
    assert "a process was killed while it wrote" in said
    assert "piw-indexer write" in said
    assert "damaged" not in said
    assert half_made.read_bytes() == before


@pytest.mark.parametrize("command", [["write"], ["rebuild"], ["rebuild", "--salvage"]])
def test_whoever_writes_undoes_what_was_half_done(
    stream: Stream, site: Site, half_made: Path, command: list[str]
) -> None:
    said = site.piw(*command, "--as-of", AS_OF).stdout
    assert "lost" not in said
    stream.check(site)
    assert_clean(site)
    assert site.status()["serial"] == stream.count


def test_a_half_made_index(stream: Stream, site: Site, shim: Shim) -> None:
    """Readers report it; a writer builds it again."""
    command = ["ingest", "--write", *site.state, *site.output, *stream.parts]
    plan = "before:unlink:2:index.db-journal"  # the first makes sure that there is none
    with Victim(site.home, *command, settings=shim.settings(plan)) as victim:
        assert victim.wait() == -signal.SIGKILL, victim.output
    for reader in ("status", "check"):
        said = site.piw(reader, status=3).stderr
        assert "a process was killed while it wrote" in said
        assert "piw-indexer write" in said
    site.ingest(*stream.parts, as_of=AS_OF)
    stream.check(site)
    assert_clean(site)


def test_an_index_without_tables(stream: Stream, site: Site, shim: Shim) -> None:
    command = ["ingest", "--write", *site.state, *site.output, *stream.parts]
    with Victim(
        site.home, *command, settings=shim.settings("after:unlink:2:index.db-journal")
    ) as victim:
        assert victim.wait() == -signal.SIGKILL, victim.output
    assert site.status()["applied_serial"] == 0
    assert "index" in site.piw("check", status=1).stdout
    site.ingest(*stream.parts, as_of=AS_OF)
    stream.check(site)
    assert_clean(site)


def test_daemon_and_publisher(stream: Stream, site: Site, shim: Shim, ipc: Feed) -> None:
    """Publisher and daemon are killed in turn while thousands of messages are sent."""
    turns = amount(4, 180)
    counts: list[Path] = [site.home / "daemon-calls", site.home / "publisher-calls"]
    for path in counts:
        path.mkdir()
    settings = [shim.settings(counts=path) for path in counts]
    with (
        daemon(site, ipc, settings[0]) as undisturbed,
        publisher(site, ipc, stream.file, settings=settings[1]) as source,
    ):
        site.wait_for_all(stream.count, undisturbed, source)
        undisturbed.terminate()
        source.terminate()
    shutil.rmtree(shim.root)
    shim.root.mkdir()
    # None lives as long as an undisturbed one.
    daemon_seams, publisher_seams = (
        Seams(command, counted(path), 0.15)
        for command, path in zip(("daemon", "publisher"), counts, strict=True)
    )
    for turn in range(turns):
        if turn and turn % 16 == 0:
            finish(stream, site, ipc)
            shutil.rmtree(shim.root)
            shim.root.mkdir()
        durable = journaled(site)
        # Slow enough that each of the two meets work of the other.
        rate = ["--rate", stream.count / 4.0]
        plan = daemon_seams.next() if turn % 3 else ""
        other = "" if plan else publisher_seams.next()
        with (
            daemon(site, ipc, shim.settings(plan)) as victim,
            publisher(site, ipc, stream.file, *rate, settings=shim.settings(other)) as source,
        ):
            chosen, seams = (victim, daemon_seams) if plan else (source, publisher_seams)
            status = chosen.ended(1.5)
            if status is None:  # it does not get there: so it is killed at any instant
                chosen.kill()
                status = -signal.SIGKILL
                seams.note("at:instant", status)
            else:
                seams.note(plan or other, status)
            for process in (victim, source):
                if process.ended() is None:
                    process.kill()
        assert journaled(site) >= durable
    finish(stream, site, ipc)
    assert_clean(site)
    daemon_seams.report()
    publisher_seams.report()


def finish(stream: Stream, site: Site, ipc: Feed) -> None:
    """Let them finish their work, and compare."""
    with daemon(site, ipc) as survivor, publisher(site, ipc, stream.file) as source:
        site.wait_for_all(stream.count, survivor, source)
        survivor.terminate()
        source.kill()
    assert not site.status()["problems"]
    site.piw("write", "--as-of", AS_OF)
    stream.check(site, spool=True)
