"""`ingest`, `write` and `rebuild`, killed and run again, end where undisturbed ones do."""

from __future__ import annotations

import shutil

import pytest

from ..support import Site, eventually
from ..tally import amount
from .harness import AS_OF, Chance, Stream, Victim, Watcher, journaled, session

pytestmark = pytest.mark.crash

INGEST_SEAMS = (
    ("journal", 13), ("index", 16), ("fsync", 130), ("rename", 60), ("symlink", 17), ("unlink", 25),
)  # fmt: skip
WRITE_SEAMS = (
    ("index", 3), ("fsync", 120), ("rename", 60), ("symlink", 17), ("mkdir", 80), ("unlink", 17),
)  # fmt: skip
REBUILD_SEAMS = (
    ("index", 6), ("fsync", 120), ("rename", 60), ("symlink", 17), ("mkdir", 80), ("unlink", 28),
)  # fmt: skip


def run_and_kill(
    stream: Stream,
    site: Site,
    chance: Chance,
    seams: tuple[tuple[str, int], ...],
    *arguments: object,
) -> None:
    settings = chance.settings(seams)
    command = [*arguments[:1], *site.state, *site.output, "--as-of", AS_OF, *arguments[1:]]
    with Victim(site.home, *command, settings=settings) as victim:
        chance.kill(victim, settings, stream.seconds)


def test_ingest_killed_anywhere_converges(stream: Stream, site: Site) -> None:
    chance = Chance("ingest")
    durable = 0
    site.output_path.mkdir()
    with Watcher(site.output_path):
        for turn in range(amount(3, 40)):
            if durable == stream.count and turn % 2:
                for directory in (site.state_dir, site.output_path):
                    shutil.rmtree(directory)
                durable = 0
            run_and_kill(stream, site, chance, INGEST_SEAMS, "ingest", "--write", *stream.parts)
            assert journaled(site) >= durable
            durable = journaled(site)
        site.ingest(*stream.parts, as_of=AS_OF)
    print(chance.kills)
    stream.check(site)


def test_write_killed_anywhere_converges(stream: Stream, site: Site) -> None:
    chance = Chance("write")
    site.piw("ingest", stream.file)
    site.output_path.mkdir()
    with Watcher(site.output_path):
        for turn in range(amount(3, 40)):
            if turn % 3 == 2:
                shutil.rmtree(site.output_path)  # so that there is something to do again
            run_and_kill(stream, site, chance, WRITE_SEAMS, "write", "--all")
    site.piw("write", "--all", "--as-of", AS_OF)
    print(chance.kills)
    stream.check(site)


def test_rebuild_killed_anywhere_converges(stream: Stream, site: Site) -> None:
    chance = Chance("rebuild")
    site.piw("ingest", stream.file)
    for turn in range(amount(3, 40)):
        run_and_kill(stream, site, chance, REBUILD_SEAMS, "rebuild")
        if turn % 3 == 2:
            # Whatever a killed rebuild leaves, everything else goes on.
            site.piw("write", "--as-of", AS_OF)
            stream.check(site)
            shutil.rmtree(site.output_path)
    site.piw("rebuild", "--as-of", AS_OF)
    print(chance.kills)
    stream.check(site)


def test_no_worker_outlives_a_killed_write(site: Site) -> None:
    """Many documents are written by several processes."""
    names = [f"package-{number}" for number in range(1500)]
    site.take(*({"msg": "NEWPKG", "data": {"package": name}} for name in names), write=False)
    command = "write", *site.state, *site.output
    with Victim(site.home, *command) as victim:
        eventually(lambda: any(site.output_path.glob("project/*")) or victim.ended() is not None)
        workers = session(victim.pid)
        assert len(workers) > 1
        victim.kill_alone()
        eventually(lambda: not session(victim.pid), lambda: session(victim.pid))
    site.piw("write")
    assert len([*site.output_path.glob("project/*/json/index.json")]) == len(names)
