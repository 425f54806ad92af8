"""SIGKILL before or after any call to the system, and what comes of it.

Where Python calls the system is in `tests/crash`; here it is every call of SQLite and ZeroMQ, too.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from indexer import clock, times

from ..crash.harness import AS_OF, Stream, Victim, daemon, journaled, publisher, seed
from ..support import Feed, Site
from .injection import Shim, counted

pytestmark = pytest.mark.crash

KILLS = int(os.environ.get("PIW_INDEXER_SOAK_KILLS", "0"))
"""Kills of one test; 0: as many as there is time for on every change."""

CHAIN = 3
"""Kills between two looks at what has come of them."""


class Seams:
    """Where to kill next: every kind of call in turn, spread over all of that kind."""

    def __init__(self, calls: dict[str, int], share: float = 1.0) -> None:
        self.chance = random.Random(seed())
        self.calls = {kind: max(1, int(number * share)) for kind, number in calls.items() if number}
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
        self.killed[plan.split(":")[1] if status == -signal.SIGKILL else f"status {status}"] += 1

    def report(self) -> None:
        print(f"{sum(self.killed.values())} of {self.planned}: {dict(self.killed)}")


def calls_of(site: Site, shim: Shim, *command: object) -> dict[str, int]:
    """The calls of a command that nobody disturbs."""
    counts = site.home / "counts"
    counts.mkdir()
    with Victim(site.home, *command, settings=shim.settings(counts=counts)) as undisturbed:
        assert undisturbed.wait() == 0, undisturbed.output
    return counted(counts)


def assert_clean(site: Site) -> None:
    """Nothing is left of what was under way."""
    left = [path.name for path in site.state_dir.rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".check", "-journal"))], left
    assert "No differences" in site.piw("check").stdout


@pytest.mark.parametrize("command", ["ingest", "write", "rebuild"])
def test_command(stream: Stream, site: Site, shim: Shim, command: str) -> None:
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

    seams = Seams(calls_of(site, shim, *line))
    begin()
    durable = 0
    while seams.planned < (KILLS or 5):
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


def test_half_made(stream: Stream, site: Site, shim: Shim) -> None:
    """A month is left with a hot rollback journal, which no reader can undo; and again so."""
    for _ in range(2):
        plan = f"before:unlink:1:{times.month(clock.now())}.db-journal"
        command = ["ingest", "--write", *site.state, *site.output, *stream.parts]
        with Victim(site.home, *command, settings=shim.settings(plan)) as victim:
            assert victim.wait() == -signal.SIGKILL, victim.output
    site.ingest(*stream.parts, as_of=AS_OF)
    stream.check(site)
    assert_clean(site)


def test_daemon_and_publisher(stream: Stream, site: Site, shim: Shim, ipc: Feed) -> None:
    """Both are killed, now the one, now the other, while thousands of messages are sent."""
    turns = KILLS or 6
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
    daemon_seams, publisher_seams = (Seams(counted(path), 0.15) for path in counts)
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
    """Let them end what was begun, and compare."""
    with daemon(site, ipc) as survivor, publisher(site, ipc, stream.file) as source:
        site.wait_for_all(stream.count, survivor, source)
        survivor.terminate()
        source.kill()
    assert not site.status()["problems"]
    site.piw("write", "--as-of", AS_OF)
    stream.check(site, spool=True)
