"""A generated stream of messages, its expected result, and processes that are killed meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from indexer.base import database
from indexer.demo.simulation import Farm
from indexer.journal.reader import JournalReader
from indexer.messages import decode
from indexer.messages.types import Message

from .. import tally
from ..property.world import Rows, Tree, rows, tree
from ..support import Feed, Process, Site

AS_OF = "2026-11-22T14:00:00+00:00"
PARTS = 10
SEAMS = Path(__file__).with_name("seams")

# Where to kill, and among how many of such calls.
DAEMON_SEAMS = (
    ("journal", 15), ("journal", 15), ("index", 25), ("index", 25), ("fsync", 40), ("rename", 15),
    ("unlink", 8), ("symlink", 3), ("mkdir", 10),
)  # fmt: skip
PUBLISHER_SEAMS = (("journal", 20), ("send", 200))


def seed() -> int:
    """A new seed each time, except in CI; set PIW_INDEXER_CRASH_SEED to repeat a failure."""
    wanted = os.environ.get("PIW_INDEXER_CRASH_SEED")
    found = (
        int(wanted) if wanted else 1 if os.environ.get("CI") == "true" else random.randrange(10**6)
    )
    print(f"PIW_INDEXER_CRASH_SEED={found}")
    return found


@dataclass(frozen=True)
class Stream:
    """A file of messages, and a site that has ingested them undisturbed."""

    file: Path
    parts: list[Path]  # the same messages in several files
    reference: Site
    seconds: float  # that the reference took

    @cached_property
    def messages(self) -> list[Message]:
        return [decode.from_json(line, 0) for line in self.file.read_bytes().splitlines()]

    @cached_property
    def count(self) -> int:
        return len(self.messages)

    @cached_property
    def expected_rows(self) -> Rows:
        return index_rows(self.reference)

    @cached_property
    def expected_tree(self) -> Tree:
        return tree(self.reference.output_path)

    def check(self, site: Site, *, spool: bool = False) -> None:
        """A site that was written as of `AS_OF` is the same as the undisturbed one."""
        with tally.comparison("with an undisturbed run"):
            self._compare(site, spool)

    def _compare(self, site: Site, spool: bool) -> None:
        journaled = journal_messages(site.state_dir / "journal")
        assert len(journaled) == self.count
        assert journaled == self.messages
        if spool:
            assert journal_messages(site.publisher_dir / "spool") == self.messages
        found = index_rows(site)
        for table, expected in self.expected_rows.items():
            assert found[table] == expected, table
        published = tree(site.output_path)
        published.pop("status.json", None)  # of a daemon
        assert sorted(published) == sorted(self.expected_tree)
        for path, content in self.expected_tree.items():
            assert published[path] == content, path


def make_stream(directory: Path, scale: int = 1) -> Stream:
    """The life of a small farm, with what an undisturbed run makes of it."""
    farm = Farm(
        seed=4,
        packages=40 * scale,
        versions=3,
        downloads=1_200 * scale,
        deletion_rate=0.3,
        days=40,
        now=datetime.fromisoformat(AS_OF).astimezone(UTC),
    )
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "messages.jsonl"
    with file.open("w") as written:
        for message in farm.messages():
            written.write(json.dumps(message) + "\n")
    lines = file.read_bytes().splitlines(keepends=True)
    parts = []
    for number in range(PARTS):
        parts.append(directory / f"part-{number}.jsonl")
        start, end = (len(lines) * n // PARTS for n in (number, number + 1))
        parts[-1].write_bytes(b"".join(lines[start:end]))
    home = directory / "reference"
    home.mkdir()
    reference = Site(home)
    began = time.monotonic()
    reference.ingest(file, as_of=AS_OF)
    return Stream(file, parts, reference, time.monotonic() - began)


def journal_messages(directory: Path) -> list[Message]:
    reader = JournalReader(directory)
    try:
        reader.verify()
        return [row.message for batch in reader.batches(0) for row in batch]
    finally:
        reader.close()


def last_serial(directory: Path) -> int:
    """How many messages are durable in a journal."""
    if not any(directory.glob("*.db")):
        return 0
    reader = JournalReader(directory)
    try:
        return reader.last_serial()
    finally:
        reader.close()


def journaled(site: Site) -> int:
    return last_serial(site.state_dir / "journal")


def spooled(site: Site) -> int:
    return last_serial(site.publisher_dir / "spool")


def index_rows(site: Site) -> Rows:
    connection = database.open_reader(site.state_dir / "index.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not connection.execute("PRAGMA foreign_key_check").fetchall()
        found = rows(connection)
        found["state"] = [row for row in found["state"] if row[0] != "journal_id"]
        return found
    finally:
        connection.close()


class Victim(Process):
    """A command that will be killed."""

    def __enter__(self) -> Victim:
        return self

    def ended(self, seconds: float = 0.0) -> int | None:
        """Its exit status, within some seconds; None if it still runs."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill_alone(self) -> None:
        """Kill it, but not the processes that it started, as an administrator would."""
        self.signal(signal.SIGKILL)
        self.wait()


def daemon(site: Site, feed: Feed, settings: dict[str, str] | None = None) -> Victim:
    options = [*site.state, *site.output, *feed.options]
    waits = ["--settle", 0, "--counters-interval", 0.2]
    return Victim(site.home, "run", *options, *waits, settings=settings)


def publisher(
    site: Site, feed: Feed, file: Path, *arguments: object, settings: dict[str, str] | None = None
) -> Victim:
    options = ["--state-dir", site.publisher_dir, "--feed", "master", *feed.options]
    return Victim(site.home, "publish", file, *options, *arguments, settings=settings)


class Chance:
    """Where and when a process is killed; `command` names it in the summary."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.random = random.Random(seed())
        self.kills: dict[str, int] = {}

    def settings(self, seams: tuple[tuple[str, int], ...], share: float = 0.6) -> dict[str, str]:
        """The environment of the next process: with a seam at which it kills itself, or without."""
        if self.random.random() >= share:
            return {}
        seam, most = self.random.choice(seams)
        number = self.random.randint(1, most)
        when = self.random.choice(("before", "after"))
        settings = {"PYTHONPATH": str(SEAMS), "PIW_TEST_SEAM": f"{seam}:{number}:{when}"}
        if self.random.random() < 0.5:
            settings["PIW_TEST_SEAM_GROUP"] = "1"
        return settings

    def kill(self, process: Victim, settings: dict[str, str], seconds: float) -> None:
        """Kill a process that would run for some seconds, unless it ends before.

        A process that waits for its seam gets a little more time to reach it.
        """
        share = 1.2 if settings else self.random.uniform(0.2, 0.9)
        status = process.ended(seconds * share)
        if status is None:
            how = self.random.choice((process.kill, process.kill_alone))
            how()
            tally.add("kills", self.command)
            self.note(how.__name__)
        elif status == -signal.SIGKILL:
            tally.add("kills", self.command)
            self.note(settings["PIW_TEST_SEAM"].partition(":")[0])
        else:
            # One of its own children was killed; or it was done.
            if settings and status:
                tally.add("kills", f"{self.command}'s writer")
            self.note(f"status {status}")

    def note(self, what: str) -> None:
        self.kills[what] = self.kills.get(what, 0) + 1


class Watcher:
    """Somebody who reads the site all the time."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.torn: list[str] = []
        self.read = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.is_set():
            for path in [
                *self.output.glob("project/*/json/index.json"),
                *self.output.glob("packages.*"),
            ]:
                try:
                    content = path.read_bytes()
                except OSError:
                    continue  # gone meanwhile
                try:
                    json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
                except (ValueError, OSError, EOFError) as error:
                    self.torn.append(f"{path}: {error}: {content[:100]!r}")
                self.read += 1
            time.sleep(0.005)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.torn == []


def session(leader: int) -> list[int]:
    """The processes of a session that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            _, _, rest = (entry / "stat").read_text().rpartition(")")
        except OSError:
            continue  # it has just ended
        state, _, _, sid, *_ = rest.split()
        if int(sid) == leader and state != "Z":
            found.append(int(entry.name))
    return found
