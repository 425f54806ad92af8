"""Asking a master while other messages come: an old state never covers a newer one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.base import clock, times
from indexer.daemon.source import DaemonContext
from indexer.daemon.status_file import LiveDbQueue
from indexer.journal import quarantine
from indexer.messages.entries import Accepted, Entry, Row
from indexer.piwheels import cbor, compare
from indexer.piwheels.backfill import asker, from_master
from indexer.piwheels.compare import Comparer
from indexer.piwheels.farm.picture import Finished, Outcome
from indexer.piwheels.queues import oracle
from indexer.piwheels.queues.snapshots import Snapshots
from indexer.schema.piwheels import NO_DATA
from indexer.state.state import State

from .. import samples
from ..master.database_queue import Master, farm
from ..support import eventually

pytestmark = pytest.mark.integration


class Beside:
    """A state, and the source that asks a master; driven like in the daemon."""

    def __init__(self, directory: Path, address: str) -> None:
        self._directory, self._address = directory, address
        self.open()

    def open(self) -> None:
        directory, address = self._directory, self._address
        self.state = State(directory, "test", clock.now)
        self.context: zmq.Context[Any] = zmq.Context()
        daemon = DaemonContext(
            self.context, self.state.journal, self.state.connection, lambda: None
        )
        self.snapshots = Snapshots(daemon, address, 0.0, clock.now, clock.monotonic, sure_delay=0.0)

    @property
    def live(self) -> LiveDbQueue:
        [live] = self.snapshots.live().values()
        assert isinstance(live, LiveDbQueue)
        return live

    def step(self, *entries: Entry) -> None:
        """One round of the daemon, with messages from elsewhere."""
        found = self.snapshots.receive(1000, clock.monotonic() + 0.05)
        rows = self.state.take([*found, *entries])
        self.snapshots.accepted(rows)

    def until(self, condition: Callable[[], bool]) -> None:
        def holds() -> bool:
            self.step()
            return condition()

        eventually(holds, lambda: self.snapshots.live())

    def packages(self) -> list[str]:
        return [row[0] for row in self.state.connection.execute("SELECT package FROM packages")]

    def description(self, package: str) -> str:
        query = "SELECT description FROM packages WHERE package = ?"
        return str(self.state.connection.execute(query, (package,)).fetchone()[0])

    def close(self) -> None:
        self.snapshots.close()
        self.context.destroy(linger=0)
        self.state.close()


@pytest.fixture
def master(sockets: Path) -> Iterator[Master]:
    with Master(f"ipc://{sockets}/db", farm()) as master:
        yield master


@pytest.fixture
def beside(tmp_path: Path, master: Master) -> Iterator[Beside]:
    found = Beside(tmp_path / "state", master.address)
    yield found
    found.close()


def told(**data: Any) -> Entry:
    return Accepted(None, samples.decoded(samples.message("SETDESC", **data)))


def ended(package: str, version: str, outcome: Outcome = "success") -> Finished:
    """A build that the status feed showed to end; it took five minutes."""
    return Finished(
        *(3, "pi3", "cp311", package, version, outcome),
        samples.NOW - 300 * times.SECOND,
        samples.NOW,
    )


def asked_for(master: Master, package: str) -> int:
    return sum(1 for name, data in master.asked if (name, data) == ("PROJDATA", package))


def test_an_answer_that_may_be_old_is_asked_for_again(beside: Beside, master: Master) -> None:
    beside.until(lambda: len(beside.packages()) == 7)
    # The master is asked; before it answers, a feed tells what it has committed since.
    old = master.get("PROJDATA", "numpy")
    master.held = threading.Event()
    before = asked_for(master, "numpy")
    beside.snapshots.finished(ended("numpy", "1.0"))
    beside.until(lambda: asked_for(master, "numpy") > before)
    beside.step(told(package="numpy", description="newer"))
    assert beside.description("numpy") == "newer"
    serial = beside.state.journal.serial
    held, master.held = master.held, None
    held.set()  # it answers with what it knew then
    again = asked_for(master, "numpy")
    master.put("PROJDATA", "numpy", {**old, "description": "newer"})
    beside.until(lambda: asked_for(master, "numpy") > again + 1)
    assert beside.description("numpy") == "newer"
    assert beside.state.journal.serial == serial, "nothing is taken that says the same"


def test_a_build_that_has_ended_is_asked_for_at_once(beside: Beside, master: Master) -> None:
    beside.until(lambda: len(beside.packages()) == 7)
    project = master.get("PROJDATA", "numpy")
    master.put("PROJDATA", "numpy", {**project, "description": "built"})
    beside.snapshots.finished(ended("NumPy", "2.3.4"))
    beside.until(lambda: beside.description("numpy") == "built")


def test_a_build_that_has_ended_is_asked_for_after_a_restart(
    beside: Beside, master: Master
) -> None:
    """What was due was forgotten, and came with the sweep: at full size after days."""
    beside.until(lambda: len(beside.packages()) == 7)
    master.silent = True
    beside.snapshots.finished(ended("NumPy", "2.3.4"))
    assert beside.live.due == 1
    beside.close()
    master.silent = False
    asked = len(master.asked)
    beside.open()
    assert beside.live.due == 1
    beside.until(lambda: ("GETPKGNAMES", "numpy") in master.asked[asked:])
    [first, *_] = [data for name, data in master.asked[asked:] if name == "PROJDATA"]
    assert first == "numpy", "before the list of packages, and before all others"
    assert ("ALLPKGS", NO_DATA) not in master.asked[asked : master.asked.index(("PROJDATA", first))]
    beside.until(lambda: beside.live.oldest_due_seconds is None)
    assert beside.state.connection.execute("SELECT * FROM ended_builds").fetchall() == []


def test_a_build_waits_until_its_answer_is_in_the_journal(beside: Beside, master: Master) -> None:
    beside.until(lambda: len(beside.packages()) == 7)
    project = master.get("PROJDATA", "numpy")
    master.put("PROJDATA", "numpy", {**project, "description": "built"})
    beside.snapshots.finished(ended("numpy", "2.3.4"))

    def waiting() -> list[tuple[str]]:
        query = "SELECT package FROM ended_builds"
        return beside.state.connection.execute(query).fetchall()

    found: list[Entry] = []

    def answered() -> bool:
        found.extend(beside.snapshots.receive(1000, clock.monotonic() + 0.05))
        return bool(found)

    eventually(answered)
    assert waiting() == [("numpy",)], "the process may be killed now"
    beside.snapshots.accepted(beside.state.take(found))
    assert waiting() == []


def test_packages_that_have_gone_are_deleted(beside: Beside, master: Master) -> None:
    beside.until(lambda: len(beside.packages()) == 7)
    there = {*master.get("ALLPKGS")} - {"gpiozero"}
    del master.answers[cbor.dumps("PROJDATA", "gpiozero")]
    master.answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", there)
    beside.until(lambda: "gpiozero" not in beside.packages())
    assert len(beside.packages()) == 6
    # One that has lost its database is not believed.
    master.answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", set())
    asked = sum(1 for name, _ in master.asked if name == "ALLPKGS")
    beside.until(lambda: sum(1 for name, _ in master.asked if name == "ALLPKGS") > asked + 1)
    assert len(beside.packages()) == 6


def test_an_answer_that_is_none_is_quarantined(beside: Beside, master: Master) -> None:
    project = master.get("PROJDATA", "numpy")
    master.put("PROJDATA", "numpy", {**project, "releases": {"a/b": {}}})
    beside.until(lambda: quarantine.waiting(beside.state.journal.reader) == 1)
    beside.until(lambda: len(beside.packages()) == 6)
    [found] = quarantine.entries(beside.state.journal.reader)
    assert (found.source, found.format) == ("db-queue", "cbor")


def test_a_package_that_the_master_cannot_tell_of_holds_up_no_other(
    beside: Beside, master: Master
) -> None:
    there = {*master.get("ALLPKGS")}
    master.answers[cbor.dumps("ALLPKGS")] = cbor.dumps("OK", {*there, "ill", "nameless"})
    # A master that was killed between a package and its name; and one whose database is at fault.
    project: dict[str, Any] = {"name": None, "description": "", "releases": {}}
    master.put("PROJDATA", "nameless", project)
    master.put("GETPKGNAMES", "nameless", [])
    beside.until(lambda: len(beside.packages()) == 8)
    assert "nameless" in beside.packages()
    rounds = asked_for(master, "numpy")
    beside.until(lambda: asked_for(master, "numpy") > rounds + 3)
    lists = sum(1 for name, _ in master.asked if name == "ALLPKGS")
    assert asked_for(master, "ill") <= lists <= rounds + 5
    # When it is well again, it is taken.
    master.put("PROJDATA", "ill", {**project, "name": "Ill"})
    master.put("GETPKGNAMES", "ill", ["Ill"])
    beside.snapshots.finished(ended("ill", "1.0"))
    beside.until(lambda: "ill" in beside.packages())


def test_another_build_that_is_known_is_no_difference(beside: Beside) -> None:
    """Of equally good builds a master names any one; ours have more details."""
    envelopes = [
        samples.set_abis("cp39", "cp311"),
        samples.new_package("numpy"),
        samples.new_version("numpy", "1.0"),
        *(samples.log_build(number, "numpy", "1.0", status=False) for number in (1, 2)),
    ]
    beside.state.take([Accepted(None, samples.decoded(one)) for one in envelopes])

    def different(**abis: tuple[str, int | None]) -> list[str]:
        releases = {"1.0": samples.snapshot_release(abis=abis)}
        return Comparer(beside.state.connection).differences(
            samples.decoded(samples.snapshot("numpy", releases=releases))
        )

    pending: tuple[str, int | None] = ("pending", None)
    assert different(cp39=pending, cp311=("fail", 2)) == []
    assert different(cp39=pending, cp311=("fail", 1)) == []
    assert different(cp39=("success", 2), cp311=("fail", 2)) == []
    assert different(cp39=pending, cp311=("fail", 3)) != []
    assert different(cp39=pending, cp311=pending) != []
    # What a master calls well without a file is another ABI's: that is not a word about this one.
    assert different(cp39=pending, cp311=("success", 4)) == []


def test_what_a_master_never_tells_is_no_difference_and_where_files_are_is(beside: Beside) -> None:
    """Attempts, when a file was built, and its earlier contents are only in ours."""
    wheel = "numpy-1.0-cp311-cp311-linux_armv7l.whl"
    envelopes = [
        samples.set_abis("cp311"),
        samples.log_build(
            *(1, "numpy", "1.0"), status=False, failure={"category": "killed", "detail": ""}
        ),
        samples.log_build(2, "numpy", "1.0", samples.file(wheel, filehash="a" * 64)),
        samples.log_build(3, "numpy", "1.0", samples.file(wheel, filehash="b" * 64)),
    ]
    beside.state.take([Accepted(None, samples.decoded(one)) for one in envelopes])

    def different(location: str) -> list[str]:
        file = samples.snapshot_file(filehash="b" * 64, location=location)
        release = samples.snapshot_release({wheel: file}, {"cp311": ("success", 3)})
        return Comparer(beside.state.connection).differences(
            samples.decoded(samples.snapshot("numpy", releases={"1.0": release}))
        )

    assert different("/simple") == []
    [moved] = different("/archive")
    assert moved == (
        f"releases 1.0 files {wheel} file_url: '/simple/numpy/{wheel}' in the index,"
        f" '/archive/numpy/{wheel}' at the master"
    )
    moving = samples.message("MOVEFILES", package="numpy", files={wheel: "/archive"})
    beside.state.take([Accepted(None, samples.decoded(moving))])
    assert different("/archive") == []


@pytest.mark.parametrize("name", ["build_id", "duration", "status", "log_url"])
def test_versions_and_files_may_be_called_as_our_fields(beside: Beside, name: str) -> None:
    """Once a version called `build_id` ended the daemon, and others were never compared."""

    def told(filehash: str) -> Any:
        release = samples.snapshot_release(files={name: samples.snapshot_file(filehash=filehash)})
        return samples.decoded(samples.snapshot("numpy", releases={name: release}))

    beside.state.take([Accepted(None, told("a" * 64))])
    comparer = Comparer(beside.state.connection)
    assert comparer.differences(told("a" * 64)) == []
    [different] = comparer.differences(told("b" * 64))
    assert different.startswith(f"releases {name} files {name} filehash: 'aaa")
    no_versions = samples.decoded(samples.snapshot("numpy", releases={}))
    assert comparer.differences(no_versions) == [f"releases {name}: the master does not have it"]
    comparer.close()


def test_large_packages_do_not_add_up_in_what_they_are_compared_with(
    beside: Beside,
) -> None:
    comparer = Comparer(beside.state.connection, max_scratch=1024 * 1024)
    sizes = []
    for number in range(20):
        project = samples.snapshot(f"p{number}", description="x" * 200_000)
        beside.state.take([Accepted(None, samples.decoded(project))])
        assert comparer.differences(samples.decoded(project)) == []
        sizes.append(0 if comparer._memory is None else compare._size(comparer._memory))
    assert max(sizes) <= 1024 * 1024
    comparer.close()


def test_large_answers_are_not_gathered(
    beside: Beside, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty of them went into one commit, however large they were."""
    gathered: list[list[str]] = []
    take = beside.state.take

    def noted(entries: Sequence[Entry]) -> list[Row]:
        gathered.append([one.message.name for one in entries if isinstance(one, Accepted)])
        return take(entries)

    monkeypatch.setattr(beside.state, "take", noted)
    with oracle.connected(master.address, clock.monotonic) as asked:
        asking = asker.Asker(asked, 0.0, clock.now, clock.sleep)
        outcome = from_master.backfill(beside.state, asking, lambda done, total: None, 1)
    assert outcome.taken == 7
    assert [names for names in gathered if "SNAPSHOT" in names] == [["SNAPSHOT"]] * 7


def test_what_a_master_says_went_wrong_is_short(beside: Beside, master: Master) -> None:
    """It is in `daemon.json`, which is not read if it has many megabytes."""
    said = "\x1b[31m" + "x" * 1_000_000
    master.answers[cbor.dumps("GETABIS", True)] = cbor.dumps("ERROR", said)
    beside.until(lambda: beside.snapshots.problem is not None)
    trouble = beside.snapshots.problem
    assert trouble is not None
    assert len(trouble.what) < 1000
    assert trouble.what.isprintable()


@pytest.mark.parametrize(
    ("request_name", "data", "lost"),
    [("GETABIS", False, "build ABIs"), ("ALLPKGS", NO_DATA, "new and deleted packages")],
)
def test_what_a_master_cannot_answer_is_named_and_the_rest_is_asked(
    request_name: str, data: Any, lost: str, beside: Beside, master: Master
) -> None:
    beside.until(lambda: len(beside.packages()) == 7)
    answer = master.answers.pop(cbor.dumps(request_name, data))
    beside.close()
    beside.open()
    beside.until(lambda: f"cannot answer {request_name}" in str(beside.snapshots.problem))
    assert f"{lost} are not noticed" in str(beside.snapshots.problem)
    project = master.get("PROJDATA", "numpy")
    master.put("PROJDATA", "numpy", {**project, "description": "newer"})
    beside.until(lambda: beside.description("numpy") == "newer")
    master.answers[cbor.dumps(request_name, data)] = answer
    beside.until(lambda: beside.snapshots.problem is None)


def test_a_build_waits_while_the_master_fails(beside: Beside, master: Master) -> None:
    beside.until(lambda: len(beside.packages()) == 7)
    answer = master.answers.pop(cbor.dumps("PROJDATA", "numpy"))
    asked = asked_for(master, "numpy")
    beside.snapshots.finished(ended("numpy", "2.3.4"))
    beside.until(lambda: asked_for(master, "numpy") > asked)
    assert beside.live.oldest_due_seconds is not None
    master.answers[cbor.dumps("PROJDATA", "numpy")] = answer
    beside.until(lambda: beside.live.oldest_due_seconds is None)
