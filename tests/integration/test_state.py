"""The state directory: its lock, and an index that agrees with the journal on every start."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

from indexer.base import lock
from indexer.base.errors import DecodeError, StateError
from indexer.index import queries
from indexer.messages.entries import Accepted, Entry, Refused
from indexer.messages.types import Position
from indexer.state import state
from indexer.state.state import State

from .. import samples
from ..samples import decoded, new_package

pytestmark = pytest.mark.integration


def opened(directory: Path, *, rebuild: bool = False) -> State:
    return State(directory, "test", lambda: samples.NOW, rebuild=rebuild)


def entries(*serials: int) -> list[Entry]:
    return [
        Accepted(Position("master", 1, serial), decoded(new_package(f"package-{serial}")))
        for serial in serials
    ]


def packages(found: State) -> list[str]:
    return [row[0] for row in found.connection.execute("SELECT package FROM packages ORDER BY 1")]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with three messages."""
    found = opened(tmp_path / "state")
    assert len(found.take(entries(1, 2, 3))) == 3
    found.close()
    return tmp_path / "state"


THREE = ["package-1", "package-2", "package-3"]


def test_what_is_taken_is_journaled_and_applied(directory: Path) -> None:
    found = opened(directory)
    assert (found.journal.serial, queries.applied_serial(found.connection)) == (3, 3)
    assert packages(found) == THREE
    assert found.take(entries(2, 3)) == []
    assert found.take([]) == []
    error = DecodeError("", "is nothing")
    assert found.take([Refused(None, "x", "json", error, b"")]) == []
    assert found.journal.serial == 3
    found.close()


def test_index_catches_up(directory: Path) -> None:
    """As after a crash between the commits of journal and index."""
    found = opened(directory)
    found.journal.append(entries(4, 5))
    found.close()
    progress: list[tuple[int, int]] = []
    found = State(directory, "test", lambda: samples.NOW, lambda *done: progress.append(done))
    assert packages(found) == [*THREE, "package-4", "package-5"]
    assert progress == [(2, 2)]
    found.close()


def test_batch_that_could_not_be_applied_is_applied_with_the_next(directory: Path) -> None:
    found = opened(directory)
    found.connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON packages BEGIN SELECT raise(ABORT, 'no'); END"
    )
    with pytest.raises(StateError):
        found.take(entries(4))
    found.connection.execute("DROP TRIGGER full")
    # The feed sends it again, or does not.
    assert found.take(entries(4)) == []
    assert packages(found) == [*THREE, "package-4"]
    found.take(entries(5))
    assert packages(found) == [*THREE, "package-4", "package-5"]
    found.close()


@pytest.mark.parametrize("how", ["gone", "garbage", "another journal's", "behind its beginning"])
def test_index_that_cannot_be_used_is_made_anew(how: str, directory: Path, tmp_path: Path) -> None:
    path = directory / queries.FILE
    match how:
        case "gone":
            path.unlink()
        case "garbage":
            path.write_bytes(b"garbage" * 1000)
        case "another journal's":
            other = opened(tmp_path / "other")
            other.take(entries(7))
            other.close()
            path.write_bytes((tmp_path / "other" / queries.FILE).read_bytes())
        case "behind its beginning":
            connection = sqlite3.connect(path)
            with connection:
                connection.execute("DELETE FROM packages")
                connection.execute("UPDATE state SET value = 0 WHERE key = 'applied_serial'")
            connection.close()
    found = opened(directory)
    assert packages(found) == THREE
    assert queries.applied_serial(found.connection) == 3
    found.close()


def test_rebuild_replaces_whatever_there_is(directory: Path) -> None:
    found = opened(directory)
    found.connection.execute("INSERT INTO packages (package) VALUES ('stranger')")
    found.close()
    found = opened(directory, rebuild=True)
    assert packages(found) == THREE
    assert {path.name for path in directory.iterdir()} >= {queries.FILE, "journal", "lock"}
    assert not (directory / state.NEW_INDEX).exists()
    found.close()


def test_rebuild_that_was_interrupted_leaves_the_index(directory: Path) -> None:
    (directory / state.NEW_INDEX).write_bytes(b"half an index")
    found = opened(directory)
    assert packages(found) == THREE
    found.close()
    found = opened(directory, rebuild=True)
    assert packages(found) == THREE
    found.close()


def test_present_index_stays_until_the_new_one_is_complete(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (directory / queries.FILE).read_bytes()

    def stop(*arguments: object) -> None:
        assert (directory / queries.FILE).read_bytes() == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        State(directory, "test", lambda: samples.NOW, stop, rebuild=True)
    assert (directory / queries.FILE).read_bytes() == before
    found = opened(directory)
    assert packages(found) == THREE
    found.close()


def test_index_ahead_of_the_journal_is_refused(directory: Path) -> None:
    connection = sqlite3.connect(directory / queries.FILE)
    with connection:
        connection.execute("UPDATE state SET value = 9 WHERE key = 'applied_serial'")
    connection.close()
    with pytest.raises(StateError, match="lost its end") as error:
        opened(directory)
    assert "rebuild" in error.value.remedy
    assert lock.holder(directory) == ""


def test_a_retry_is_applied_once(directory: Path) -> None:
    found = opened(directory)
    found.take([Refused(None, "x", "json", DecodeError("", "no"), b"")])
    message = decoded(new_package("scipy"))
    assert found.retry(1, message) is True
    assert found.retry(1, message) is False
    assert packages(found) == [*THREE, "scipy"]
    found.close()


def test_index_says_which_journal_it_was_made_from(directory: Path) -> None:
    found = opened(directory)
    assert queries.get(found.connection, "journal_id", "") == found.journal.reader.journal_id != ""
    found.close()


# The lock


def test_one_process_holds_it(directory: Path) -> None:
    found = opened(directory)
    assert lock.holder(directory) == f"piw-indexer test (pid {os.getpid()})"
    with pytest.raises(StateError, match=rf"locked by piw-indexer test \(pid {os.getpid()}\)"):
        opened(directory)
    found.close()
    assert lock.holder(directory) == ""
    opened(directory).close()


def test_lock_file_alone_locks_nothing(directory: Path) -> None:
    (directory / lock.FILE).write_text("piw-indexer run (pid 1)\n")
    assert lock.holder(directory) == ""
    opened(directory).close()


def test_nobody_holds_what_is_not_there(tmp_path: Path) -> None:
    assert lock.holder(tmp_path / "nothing") == ""


def test_looking_who_holds_it_locks_nobody_out(tmp_path: Path) -> None:
    """`status` may look at any moment, even while the daemon starts."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            lock.holder(tmp_path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            lock.Lock(tmp_path, "test").release()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
