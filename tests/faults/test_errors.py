"""The disk is full, over quota, read-only or broken at any call, and then works again.

The daemon stops its intake, says so, and goes on by itself; a command ends with a remedy and can
be run again.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from indexer.base import clock
from indexer.base.disk import MIN_SPACE
from indexer.watch.status import gather

from .. import tally
from ..crash.harness import AS_OF, Stream, daemon, journaled, publisher, seed, spooled
from ..support import Feed, Site, eventually
from ..tally import SCALE, amount
from .injection import ERRORS, Shim, Switch, counted

pytestmark = pytest.mark.crash

DAEMON_FAULTS = [
    ("write", "/journal/"),
    ("fsync", "/journal/"),
    ("rename", "/output/"),
    ("write", "/index.db"),
    ("write", "/output/"),
    ("fsync", "/output/"),
    ("open", "/output/"),
    ("any", "/output/"),
    ("any", ""),
]
"""Calls that go wrong, and part of the paths where."""

READ = ("ETIMEDOUT", ("read", "/index.db"))
"""A read that may go well the next time; that a disk gave back nothing, SQLite calls damage."""

REMEDIES = {
    "ENOSPC": "df -h",
    "EDQUOT": "quota -s",
    "EROFS": "mount",
    "EIO": "dmesg",
}
"""What is said to do about each; SQLite itself tells only a full disk."""


def problems(site: Site) -> list[str]:
    found = gather(site.state_dir, clock.now()).problems
    return found


def told(remedies: list[str], found: dict[str, Any]) -> bool:
    """Whether `status` names one of these remedies."""
    return any(remedy in problem for problem in found["problems"] for remedy in remedies)


def wait_for_more(site: Site, stream: Stream, count: int) -> None:
    """Wait until a publisher has sent this many more messages, or all."""
    wanted = min(spooled(site) + count, stream.count)
    eventually(lambda: spooled(site) >= wanted, lambda: (spooled(site), wanted))


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    return Switch(tmp_path / "fault")


def test_a_daemon_recovers_from_each_error_of_the_disk(
    stream: Stream, site: Site, shim: Shim, ipc: Feed, switch: Switch
) -> None:
    chance = random.Random(seed())
    every = [("EDQUOT", ("write", "/journal/")), READ]
    if SCALE:
        every = [*product(ERRORS, DAEMON_FAULTS), *[READ] * 4] * 2
        chance.shuffle(every)
        del every[amount(0, 60) :]
    # So slowly that there is always work to do.
    rate = ["--rate", stream.count / (30.0 * len(every))]
    settings = shim.settings(file=switch.path)
    site.publisher_dir = site.home / "publisher"  # on a disk of its own, which is well
    with daemon(site, ipc, settings) as victim:
        with publisher(site, ipc, stream.file, *rate) as source:
            site.wait(lambda found: found["applied_serial"] > 0, victim, source)
            for error, (kind, where) in every:
                shown = f"{error} at {kind} of {where or 'anything'}"
                switch.on(f"{error}+:{kind}:{chance.randint(1, 3)}:{where}")
                remedies = [REMEDIES.get(error, "")]
                if where == "/index.db" or (kind, where) == ("any", "/output/"):
                    remedies = ["what to do: "]
                elif where == "":
                    remedies.append("journalctl")  # nothing can be reported: the daemon is silent
                site.wait(partial(told, remedies), victim, source)
                if where in ("/journal/", ""):
                    # What is not safe is not taken: it can be asked for again.
                    before = journaled(site)
                    wait_for_more(site, stream, 5)
                    assert journaled(site) == before, shown
                tally.add("faults", "daemon")
                switch.off()
                site.wait(lambda found: not found["problems"], victim, source)
            source.kill()
        with publisher(site, ipc, stream.file) as source:
            site.wait_for_all(stream.count, victim, source)
            victim.terminate()
    site.piw("write", "--as-of", AS_OF)
    stream.check(site)
    assert "No differences" in site.piw("check").stdout


@pytest.mark.parametrize("where", ["/journal/", "/state/", "/output/"])
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_the_disk_brings_its_remedy(
    stream: Stream, site: Site, shim: Shim, error: str, where: str
) -> None:
    """SQLite distinguishes only a full disk; everything else is an I/O error to it."""
    plan = f"{error}+:write:1:{where}"
    said = site.ingest(stream.file, settings=shim.settings(plan), status=3).stderr
    assert REMEDIES[error] in said
    site.ingest(stream.file, as_of=AS_OF)
    stream.check(site)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ingest", "write", "rebuild"])
def test_a_command_recovers_from_each_error_of_the_disk(
    stream: Stream, site: Site, shim: Shim, command: str
) -> None:
    options: list[object] = ["--as-of", AS_OF]
    if command == "ingest":
        options += ["--write", *stream.parts]
    kept = site.home / "kept"
    if command == "ingest":
        kept.mkdir()
    else:
        site.piw("ingest", *stream.parts)
        shutil.copytree(shim.root, kept)

    def begin() -> None:
        shutil.rmtree(shim.root)
        shutil.copytree(kept, shim.root)

    counts = site.home / "counts"
    counts.mkdir()
    site.piw(command, *options, settings=shim.settings(counts=counts))
    begin()
    calls = {kind: number for kind, number in counted(counts).items() if number and kind != "send"}
    chance = random.Random(seed())
    ended: dict[int, int] = {}
    cases = faults(calls, chance)
    for number in range(amount(4, 60)):
        plan = next(cases)
        result = site.piw(command, *options, settings=shim.settings(plan), status=None)
        tally.add("faults", command)
        assert result.status in (0, 3), (plan, result)
        if result.status == 3:
            assert "what to do: " in result.stderr, (plan, result)
        ended[result.status] = ended.get(result.status, 0) + 1
        if number % 4 == 3 or result.status == 0:
            site.piw(command, *options)
            stream.check(site)
            begin()
    site.piw(command, *options)
    stream.check(site)
    assert "No differences" in site.piw("check").stdout
    print(ended)


def faults(calls: dict[str, int], chance: random.Random) -> Iterator[str]:
    """Every error at every kind of call, both once and permanently."""
    while True:
        for number, kind in enumerate(calls):
            error = ERRORS[(number + chance.randrange(4)) % 4] if kind != "read" else "EIO"
            for_good = chance.choice(("", "+"))
            yield f"{error}{for_good}:{kind}:{chance.randint(1, calls[kind])}"


def test_a_publisher_sends_only_what_it_has_spooled(
    stream: Stream, site: Site, shim: Shim, ipc: Feed
) -> None:
    """Messages that cannot be spooled are not sent; the next run continues where it stopped."""
    chance = random.Random(seed())
    with daemon(site, ipc) as survivor:
        for number in range(amount(2, 40)):
            plan = f"{ERRORS[number % 4]}:{('write', 'fsync')[number % 2]}:{chance.randint(1, 60)}:"
            plan += "/spool/"
            source = publisher(site, ipc, stream.file, settings=shim.settings(plan))
            with source:
                tally.add("faults", "publisher")
                status = source.ended(1.0)
                if status is None:
                    source.kill()
                else:
                    assert status == 3, (plan, source.output)
                    assert "what to do: " in source.output
        # Without --exit: it would leave a daemon behind that is slow to ask.
        with publisher(site, ipc, stream.file) as last:
            site.wait_for_all(stream.count, survivor, last)
            last.terminate()
        survivor.terminate()
    assert not site.status()["problems"]
    site.piw("write", "--as-of", AS_OF)
    stream.check(site, spool=True)


def test_a_daemon_recovers_when_the_disk_is_readable_again(
    stream: Stream, site: Site, shim: Shim, ipc: Feed
) -> None:
    """A disk that does not return what it holds, which SQLite takes for damage.

    The daemon may end, with a remedy. Its next start must do the right thing, whether it can read
    then or not.
    """
    chance = random.Random(seed())
    site.publisher_dir = site.home / "publisher"
    durable = 0
    turns = amount(3, 40)
    rate = ["--rate", stream.count / (1.5 * turns)]
    with publisher(site, ipc, stream.file, *rate) as source:
        for number in range(turns):
            for_good = "+" if number % 2 else ""
            where = ("/index.db", "/journal/", "")[number % 3]
            plan = f"EIO{for_good}:read:{chance.randint(1, 60)}:{where}"
            with daemon(site, ipc, shim.settings(plan)) as victim:
                status = victim.ended(1.5)
                if status is None:
                    victim.kill()
                else:
                    assert status == 3, (plan, victim.output)
                    assert "what to do: " in victim.output, plan
            tally.add("faults", "daemon that reads")
            assert journaled(site) >= durable, plan
            durable = journaled(site)
        source.kill()
    with publisher(site, ipc, stream.file) as source, daemon(site, ipc) as survivor:
        site.wait_for_all(stream.count, survivor, source)
        survivor.terminate()
    site.piw("write", "--as-of", AS_OF)
    stream.check(site)
    assert "No differences" in site.piw("check").stdout


@pytest.mark.parametrize("command", [["check"], ["write"], ["rebuild", "--salvage"]])
def test_unreadable_is_not_damaged(
    stream: Stream, site: Site, shim: Shim, command: list[str]
) -> None:
    """Data that a failing disk does not return now is not given up."""
    site.ingest(stream.file, as_of=AS_OF)
    before = journaled(site)
    said = site.piw(*command, status=3, settings=shim.settings("EIO+:read:1:/journal/2")).stderr
    assert "Input/output error" in said or "disk I/O error" in said
    assert "dmesg" in said
    assert journaled(site) == before
    assert not list(site.state_dir.glob("journal/*damaged*"))
    site.piw(*command, *([] if command == ["check"] else ["--as-of", AS_OF]))
    stream.check(site)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB: the write-ahead logs of two databases would grow to 16 each."""
    disk = tmp_path / "small"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    """Use all the free space."""
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


def test_a_daemon_continues_whenever_there_is_space(
    stream: Stream, site: Site, ipc: Feed, small_disk: Path
) -> None:
    """The disk is full, then has a little space, then is full again."""
    site.state_dir, site.output_path = small_disk / "state", small_disk / "output"
    filler = small_disk / "filler"
    rounds = amount(2, 12)
    rate = ["--rate", stream.count / (6.0 * rounds)]

    def log_bytes() -> int:
        return sum(path.stat().st_size for path in small_disk.rglob("*-wal"))

    with publisher(site, ipc, stream.file, *rate) as source, daemon(site, ipc) as victim:
        for number in range(rounds):
            before = journaled(site)
            eventually(lambda before=before: journaled(site) > before, lambda: victim.output)  # type: ignore[misc]
            reported = victim.output.count("free some")
            fill(filler)
            eventually(
                lambda reported=reported: victim.output.count("free some") > reported,  # type: ignore[misc]
                lambda: victim.output,
            )
            fill(filler)  # the daemon has emptied its logs meanwhile
            eventually(lambda: "free some" in "".join(problems(site)), lambda: victim.output)
            before = journaled(site)
            for process in (victim, source):
                process.assert_running()
            tally.add("faults", "daemon on a full disk")
            if number % 2:
                # Not enough yet, even if the daemon can empty its logs now; then just enough.
                size = filler.stat().st_size
                os.truncate(filler, size - max(0, MIN_SPACE // 2 - log_bytes()))
                before = journaled(site)
                wait_for_more(site, stream, stream.count // (3 * rounds))
                assert journaled(site) == before
                assert "KiB left" in "".join(problems(site))
                os.truncate(filler, size - MIN_SPACE - MIN_SPACE // 2)
                eventually(lambda before=before: journaled(site) > before, lambda: victim.output)  # type: ignore[misc]
            assert log_bytes() < 2.5 * 2**20
            filler.unlink()
            eventually(lambda: not problems(site), lambda: (problems(site), victim.output))
        source.kill()
        with publisher(site, ipc, stream.file) as last:
            site.wait_for_all(stream.count, victim, last)
        assert log_bytes() < 2.5 * 2**20
        victim.terminate()
    site.piw("write", "--as-of", AS_OF)
    stream.check(site)
    assert "No differences" in site.piw("check").stdout
