"""A new month begins while something fails: nothing is accepted twice, and nothing is lost.

A month's file begins with the positions of the feeds; without them every message would be
accepted again.
"""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from .. import tally
from ..crash.harness import AS_OF, SEAMS, Stream, Victim, daemon, journaled, publisher, seed
from ..crash.months import WrongClock
from ..support import Feed, Site, eventually
from ..tally import SCALE, amount
from .injection import Shim, Switch

pytestmark = pytest.mark.crash

SEAMS_OF_A_MONTH = 45
"""Calls with a new month's name in their path, from the first one to the first messages in it."""

FAULTS = [
    ("EROFS", "open", ".db"),  # SQLite opens it to be read, then, and says nothing
    ("ENOSPC", "write", ".new"),
    ("EIO", "fsync", ".new"),
    ("EROFS", "rename", ".new"),
    ("EDQUOT", "write", ".db-wal"),
    ("EROFS", "open", ".db-wal"),
    ("EROFS", "open", ".db-shm"),
    ("EIO", "unlink", ".new"),
    ("ENOSPC", "open", ".new"),
    ("EIO", "read", ".new"),
    ("EIO", "read", ".db"),
    ("EIO", "ftruncate", ""),
    ("EIO", "any", ""),
]
"""What goes wrong at a new month, at which call, on which of its files."""

AFTER_A_KILL = {"daemon-not-running", "index-behind", "sqlite-wal-reset"}
"""What `status` may say of a state that only has to be opened to be written."""


@pytest.fixture
def wrong(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path / "clock", SEAMS)


def months(site: Site) -> list[str]:
    return sorted(path.name for path in (site.state_dir / "journal").glob("*.db"))


def intake_waits(found: dict[str, Any]) -> bool:
    """Whether `status` has this alert; it may also have `clock-jump`."""
    return "intake-waiting" in {one["id"] for one in found["alerts"]}


def test_a_process_killed_at_a_new_month_converges(
    stream: Stream, site: Site, shim: Shim, wrong: WrongClock
) -> None:
    """At every call that creates a month or opens it for the first time."""
    half = len(stream.parts) // 2
    first = wrong.settings()
    site.piw("ingest", *stream.parts[:half], settings=first)
    kept = site.home / "kept"
    shutil.copytree(shim.root, kept)
    month = wrong.next_month()
    chance = random.Random(seed())
    seams = [(how, n) for n in range(1, SEAMS_OF_A_MONTH + 1) for how in ("before", "after")]
    if not SCALE:
        seams = chance.sample(seams, 4)
    killed = 0
    for how, number in seams:
        shutil.rmtree(shim.root)
        shutil.copytree(kept, shim.root)
        plan = f"{how}:any:{number}:/journal/{month}"
        command = ["ingest", *site.state, *stream.parts]
        settings = shim.settings(plan) | wrong.settings()
        with Victim(site.home, *command, settings=settings) as victim:
            status = victim.wait()
        assert status in (0, -signal.SIGKILL), victim.output
        killed += status == -signal.SIGKILL
        alerts = {one["id"] for one in site.status()["alerts"]}
        assert alerts <= AFTER_A_KILL, plan  # readers can read
        site.piw("ingest", "--write", *stream.parts, "--as-of", AS_OF, settings=wrong.settings())
        stream.check(site)
        assert len(months(site)) == 2, plan
        left = [path.name for path in (site.state_dir / "journal").iterdir()]
        assert not [name for name in left if ".new" in name], (plan, left)
    assert killed == len(seams)
    tally.add("kills", "ingest at a new month", killed)
    assert "No differences" in site.piw("check").stdout


def test_a_daemon_waits_until_it_can_make_a_new_month(
    stream: Stream, site: Site, shim: Shim, ipc: Feed, wrong: WrongClock, tmp_path: Path
) -> None:
    """It waits, says why, and continues by itself with a month that can be written."""
    switch = Switch(tmp_path / "fault")
    every = FAULTS if SCALE else FAULTS[: amount(2, 0)]
    site.publisher_dir = site.home / "publisher"
    rate = ["--rate", stream.count / (20.0 * len(every))]
    settings = shim.settings(file=switch.path) | wrong.settings()
    with (
        daemon(site, ipc, settings) as victim,
        publisher(site, ipc, stream.file, *rate) as source,
    ):
        for number, (error, kind, suffix) in enumerate(every, 1):
            site.wait(lambda found: found["serial"] > 0, victim, source)
            month = wrong.next_month(hold=True)
            switch.on(f"{error}+:{kind}:1:/journal/{month}{suffix}")
            wrong.turn()
            site.wait(intake_waits, victim, source)
            assert victim.output.count("what to do: ") >= number, (error, kind, suffix)
            before = journaled(site)
            tally.add("faults", "daemon at a new month")
            switch.off()
            site.wait(lambda found: not intake_waits(found), victim, source)
            eventually(lambda before=before: journaled(site) > before, lambda: victim.output)  # type: ignore[misc]
            assert months(site)[-1] == f"{month}.db"
        source.kill()
        with publisher(site, ipc, stream.file) as last:
            site.wait_for_all(stream.count, victim, last)
        victim.terminate()
    assert len(months(site)) == len(every) + 1
    site.piw("write", "--as-of", AS_OF)
    stream.check(site)
    assert "No differences" in site.piw("check").stdout
