"""After a power cut, everything that was journaled is there, and the rest is rebuilt.

Processes are recorded, and possible states of their disk after a cut are written into new
directories.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.base import clock, database
from indexer.base.errors import StateError
from indexer.cli import piw_indexer
from indexer.index import queries
from indexer.journal.journal import Journal
from indexer.messages.entries import Accepted
from indexer.messages.types import Message, Position
from indexer.state.state import State

from .. import tally
from ..crash.harness import AS_OF, Stream, Victim, daemon, publisher, seed
from ..support import Feed, Site
from ..tally import amount
from .disk import EVERYTHING, Disk, Operation, cuts, losses, recorded
from .injection import Shim

pytestmark = pytest.mark.crash

CUTS = amount(1, 50)
"""Power cuts of one test; each may leave the disk in one of several states."""


def run(site: Site, command: str, *arguments: object) -> int:
    """Run a command in this process, because that is quicker and there are many states."""
    options = [*site.state, *site.output, *arguments]
    try:
        status = piw_indexer.main([command, *map(str, options)], standalone_mode=False)
    finally:
        # Its lock on the output tree would have ended with its process.
        for descriptor in os.listdir("/proc/self/fd"):
            path = f"/proc/self/fd/{descriptor}"
            if os.path.lexists(path) and os.readlink(path) == f"{site.output_path}/project":
                os.close(int(descriptor))
    return int(status or 0)


def applied(site: Site) -> int:
    """The last serial of a site's index; 0 without an index."""
    try:
        connection = database.open_reader(site.state_dir / queries.FILE)
    except StateError:
        return 0
    try:
        return queries.applied_serial(connection)
    except sqlite3.OperationalError:  # it has no tables yet
        return 0
    finally:
        connection.close()


def at(directory: Path) -> Site:
    """The site that a disk holds."""
    site = Site(directory)
    site.state_dir, site.output_path = directory / "state", directory / "output"
    site.publisher_dir = directory / "publisher"
    return site


class Cutter:
    """Cuts the power while recorded operations are replayed, and checks what is left."""

    def __init__(self, disk: Disk, log: Path, scratch: Path) -> None:
        self.disk = disk
        self.operations = recorded(log)
        self.scratch = scratch
        self.states = 0

    def cut(
        self, name: str, count: int, look: Callable[[Site, Site, Operation | None], None]
    ) -> None:
        """Call `look(left, before, last operation)` for each cut."""
        chance = random.Random(seed())
        played = 0
        for number in cuts(self.operations, chance, count):
            for operation in self.operations[played:number]:
                self.disk.play(operation)
            played = number
            last = self.operations[number - 1] if number else None
            for loss in losses(chance):
                for place in ("before", "left"):
                    shutil.rmtree(self.scratch / place, ignore_errors=True)
                    (self.scratch / place).mkdir(parents=True)
                self.disk.leave(self.scratch / "before", EVERYTHING)
                self.disk.leave(self.scratch / "left", loss)
                self.states += 1
                tally.add("power cuts", name)
                where = f"cut {number} of {len(self.operations)}, after {_shown(last)}"
                try:
                    look(at(self.scratch / "left"), at(self.scratch / "before"), last)
                except BaseException as error:
                    error.add_note(f"{where}; on the disk: {loss.name}")
                    raise
        print(f"{self.states} states of {len(self.operations)} operations")


def _shown(operation: Operation | None) -> str:
    return "nothing" if operation is None else f"{operation.kind} {operation.path}"


def kept_in(directory: Path) -> list[Message]:
    """The content of a journal that is opened to write, which rolls back what a reader cannot."""
    if not directory.is_dir():
        return []
    journal = Journal(directory, clock.now)
    try:
        return [row.message for rows in journal.reader.batches(0) for row in rows]
    finally:
        journal.close()


def assert_kept(stream: Stream, left: Site, before: Site) -> int:
    """The journal has everything that was acted on; returns its number of messages."""
    kept = kept_in(left.state_dir / "journal")
    assert len(kept) >= applied(before), "what was journaled is lost"
    assert kept == stream.messages[: len(kept)]
    return len(kept)


def test_ingest_converges_after_a_power_cut(
    stream: Stream, site: Site, shim: Shim, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.mkdir()
    disk = Disk(shim.root)
    for number in range(0, len(stream.parts), 2):
        parts = stream.parts[number : number + 2]
        site.ingest(*parts, as_of=AS_OF, settings=shim.settings(log=log))

    def look(left: Site, before: Site, last: Operation | None) -> None:
        if assert_kept(stream, left, before):
            run(left, "write", "--as-of", AS_OF)
            assert run(left, "check") == 0
        run(left, "ingest", "--write", "--as-of", AS_OF, *stream.parts)
        stream.check(left)

    Cutter(disk, log, tmp_path / "cut").cut("ingest", CUTS, look)


def take_rest(site: Site, stream: Stream, feed: str) -> None:
    """Accept what a feed's publisher still has, as the daemon would."""
    state = State(site.state_dir, "test", clock.now)
    try:
        epoch = state.journal.feed_epoch(feed) or 0
        known = state.journal.position(feed, epoch)
        state.take(
            Accepted(Position(feed, epoch, number), message)
            for number, message in enumerate(stream.messages, 1)
            if number > known
        )
    finally:
        state.close()


def test_a_daemon_converges_after_a_power_cut(
    stream: Stream, site: Site, shim: Shim, ipc: Feed, tmp_path: Path
) -> None:
    """The daemon is also killed and restarted meanwhile."""
    # A slow daemon gets all messages at once and writes each document once. The two that are killed
    # must leave enough of them for the next one to get to its call.
    assert len(list(stream.reference.output_path.glob("project/*/json/index.json"))) > 40
    log = tmp_path / "log"
    log.mkdir()
    site.publisher_dir = tmp_path / "publisher"
    disk = Disk(shim.root)
    with publisher(site, ipc, stream.file, "--rate", stream.count / 2.0):
        for plan in ("after:rename:10", "after:fsync:15:output", ""):
            with daemon(site, ipc, shim.settings(plan, log=log)) as victim:
                if plan:
                    victim.wait()
                else:
                    site.wait_for_all(stream.count, victim)
                    victim.terminate()

    def look(left: Site, before: Site, last: Operation | None) -> None:
        if assert_kept(stream, left, before):
            run(left, "write", "--as-of", AS_OF)
            assert run(left, "check") == 0
        take_rest(left, stream, "master")
        run(left, "write", "--as-of", AS_OF)
        stream.check(left)

    Cutter(disk, log, tmp_path / "cut").cut("daemon", CUTS, look)


def test_a_publisher_keeps_what_was_received_in_a_power_cut(
    stream: Stream, site: Site, shim: Shim, ipc: Feed, tmp_path: Path
) -> None:
    """Everything that a subscriber has received is in the spool."""
    log = tmp_path / "log"
    log.mkdir()
    site.state_dir = tmp_path / "subscriber"
    watched = Shim(shim.library, tmp_path)
    disks = Disk(tmp_path)
    with (
        daemon(site, ipc, watched.settings(log=log)) as survivor,
        publisher(
            site, ipc, stream.file, "--rate", stream.count / 1.0, settings=watched.settings(log=log)
        ) as source,
    ):
        site.wait_for_all(stream.count, survivor, source)
        source.terminate()
        survivor.terminate()

    def look(left: Site, before: Site, last: Operation | None) -> None:
        kept = kept_in(left.home / "disk" / "publisher" / "spool")
        received = applied_in(before.home / "subscriber")
        assert len(kept) >= received, "what was sent is lost"
        assert kept == stream.messages[: len(kept)]

    Cutter(disks, log, tmp_path.with_name(f"{tmp_path.name}-cut")).cut("publisher", CUTS, look)


def applied_in(state_dir: Path) -> int:
    site = Site(state_dir.parent)
    site.state_dir = state_dir
    return applied(site)


@pytest.mark.parametrize("command", ["write", "rebuild"])
def test_a_command_converges_after_a_power_cut(
    stream: Stream, site: Site, shim: Shim, tmp_path: Path, command: str
) -> None:
    """The command is killed meanwhile, and run again."""
    log = tmp_path / "log"
    log.mkdir()
    site.piw("ingest", *stream.parts)
    disk = Disk(shim.root)
    for plan in ("after:rename:10", "after:rename:31", ""):
        options = [*site.state, *site.output, "--as-of", AS_OF]
        with Victim(site.home, command, *options, settings=shim.settings(plan, log=log)) as victim:
            victim.wait()

    def look(left: Site, before: Site, last: Operation | None) -> None:
        assert assert_kept(stream, left, before) == stream.count
        run(left, "write", "--as-of", AS_OF)
        assert run(left, "check") == 0
        stream.check(left)

    Cutter(disk, log, tmp_path / "cut").cut(command, CUTS, look)
