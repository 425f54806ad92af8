"""Checkpoints: a replay that starts from one gives the same result as the whole journal."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.base.errors import DecodeError, JournalError, NewerDatabaseError, StateError
from indexer.cli import piw_indexer
from indexer.index import queries
from indexer.journal.reader import JournalReader
from indexer.messages.entries import Accepted, Refused
from indexer.state import checkpoint
from indexer.state.state import replay

from .. import samples
from ..support import Case, case_named
from .journals import (
    MONTHS,
    archive,
    differences,
    fill,
    forget_index,
    messages_of,
    month,
    opened,
    parts,
    publish,
    take,
)

pytestmark = pytest.mark.integration

CASE = case_named("lifecycle")
SAID = {"package": "numpy", "description": "Something else"}


def make(state_dir: Path) -> str:
    """What the command prints."""
    done = CliRunner().invoke(piw_indexer, ["checkpoint", "--state-dir", str(state_dir)])
    if done.exception is not None:
        raise done.exception
    return done.output


def filled_with_checkpoints(state_dir: Path, case: Case, count: int = 1) -> list[int]:
    """Three months, and checkpoints after `count` months before the last; returns the serials."""
    made = []
    for number, (name, some) in enumerate(zip(MONTHS, parts(messages_of(case)), strict=True)):
        take(state_dir, name, some)
        if len(MONTHS) - 1 - count <= number < len(MONTHS) - 1:
            make(state_dir)
            made.append(checkpoint.every(state_dir)[-1].serial)
    return made


@pytest.mark.parametrize("name", ["churn-1", "downloads", "farm", "lifecycle"])
def test_documents_are_the_same_without_the_months_before(name: str, tmp_path: Path) -> None:
    case = case_named(name)
    fill(tmp_path / "whole", case)
    expected = publish(tmp_path / "whole", tmp_path / "whole-output", case)
    state_dir = tmp_path / "state"
    filled_with_checkpoints(state_dir, case)
    # Published in the meantime: the copy's window has moved, its marks are cleared.
    make(state_dir)
    archive(state_dir, *MONTHS[:2])
    forget_index(state_dir)
    assert publish(state_dir, tmp_path / "output", case) == expected
    assert differences(state_dir) == []
    assert publish(state_dir, tmp_path / "again", case, rebuild=True) == expected


def test_one_of_a_published_index(tmp_path: Path) -> None:
    """Its marks are cleared and its counters are written, so everything is written again."""
    state_dir = tmp_path / "state"
    take(state_dir, MONTHS[0], messages_of(CASE))
    publish(state_dir, tmp_path / "before", CASE)
    make(state_dir)
    take(state_dir, MONTHS[1], [samples.decoded(samples.message("SETDESC", **SAID))])
    expected = publish(state_dir, tmp_path / "before", CASE)
    archive(state_dir, MONTHS[0])
    forget_index(state_dir)
    assert publish(state_dir, tmp_path / "output", CASE) == expected
    assert "packages.json" in expected


def test_the_live_farm_is_no_part_of_it(tmp_path: Path) -> None:
    """The live farm is not in the journal, and is outdated when a checkpoint is restored."""
    state_dir = tmp_path / "state"
    take(state_dir, MONTHS[0], messages_of(CASE))
    with sqlite3.connect(state_dir / queries.FILE) as connection:
        connection.execute(
            "INSERT INTO slaves (slave_id, last_seen, doing, since_exact, builds_succeeded,"
            " builds_failed) VALUES (1, '2026-11-22 12:00:00', '', 0, 0, 0)"
        )
        connection.execute("INSERT INTO masters (status_queue, last_seen) VALUES ('ipc:///q', '')")
    connection.close()
    publish(state_dir, tmp_path / "output", CASE)
    assert differences(state_dir) == []
    make(state_dir)
    take(state_dir, MONTHS[1], [samples.decoded(samples.message("SETDESC", **SAID))])
    archive(state_dir, MONTHS[0])
    forget_index(state_dir)
    with opened(state_dir) as state:
        for table in ("slaves", "masters"):
            assert state.connection.execute(f"SELECT * FROM {table}").fetchall() == []


def test_one_that_is_newer_than_what_is_asked_for(tmp_path: Path) -> None:
    """As `check` does if the index is older than the last checkpoint."""
    older, newer = filled_with_checkpoints(tmp_path, CASE, 2)
    archive(tmp_path, MONTHS[0])
    reader = JournalReader(tmp_path / "journal")
    for serial in (older, newer - 1, newer):
        connection = replay(reader, tmp_path / "replayed.db", serial)
        assert queries.applied_serial(connection) == serial
        connection.close()
    reader.close()


def test_one_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes minutes for a large checkpoint; only a changed one is verified again."""
    filled_with_checkpoints(tmp_path, CASE)
    archive(tmp_path, MONTHS[0])
    look = checkpoint._look
    looked: list[str] = []

    def counted(one: checkpoint.Checkpoint, journal_id: str) -> str:
        looked.append(one.path.name)
        return look(one, journal_id)

    monkeypatch.setattr(checkpoint, "_look", counted)
    monkeypatch.setattr(checkpoint, "_sound", set())
    with opened(tmp_path, MONTHS[2]):
        pass
    assert differences(tmp_path) == []
    [one] = checkpoint.every(tmp_path)
    assert looked == [one.path.name]
    one.path.write_bytes(one.path.read_bytes()[:4096])
    assert differences(tmp_path)
    assert len(looked) > 1


def test_months_that_may_go_are_named(tmp_path: Path) -> None:
    filled_with_checkpoints(tmp_path, CASE, 0)
    said = make(tmp_path)
    assert f"serial {CASE.count}, the same as a replay of the journal" in said
    assert str(month(tmp_path, MONTHS[0])) in said
    assert str(month(tmp_path, MONTHS[1])) in said
    assert str(month(tmp_path, MONTHS[2])) not in said, "it is still written"
    assert "archived" not in make_in_first_month(tmp_path / "other")


def make_in_first_month(state_dir: Path) -> str:
    fill(state_dir, CASE, MONTHS[:1])
    return make(state_dir)


def test_what_goes_with_a_month_is_said(tmp_path: Path) -> None:
    refused = Refused(None, "s", "json", DecodeError("", "bad"), b"{")
    with opened(tmp_path, MONTHS[0]) as state:
        state.take([refused, Accepted(None, messages_of(CASE)[0])])
        shutil.copytree(tmp_path, tmp_path.parent / "crashed")
    take(tmp_path, MONTHS[1], messages_of(CASE)[1:])
    log = Path(f"{month(tmp_path, MONTHS[0])}-wal")
    shutil.copy(tmp_path.parent / "crashed" / "journal" / log.name, log)
    said = make(tmp_path)
    assert f"{MONTHS[0]}.db  (1 messages of the quarantine go with it)" in said
    assert f"{log}  (belongs to it)" in said
    with opened(tmp_path, MONTHS[1]) as state:  # which folds it in
        state.retry(1, messages_of(CASE)[0])
    said = make(tmp_path)
    assert "quarantine" not in said
    assert "belongs" not in said


def test_months_after_it_may_not_go(tmp_path: Path) -> None:
    filled_with_checkpoints(tmp_path, CASE, 2)
    archive(tmp_path, *MONTHS[:2])
    oldest, newest = checkpoint.every(tmp_path)
    newest.path.unlink()
    forget_index(tmp_path)
    with pytest.raises(JournalError, match="no checkpoint holds what was before"), opened(tmp_path):
        pass
    assert "no checkpoint holds" in "".join(differences(tmp_path))
    assert oldest.path.exists()


def test_the_second_is_verified_from_the_first(tmp_path: Path) -> None:
    (first,) = filled_with_checkpoints(tmp_path, CASE)
    archive(tmp_path, *MONTHS[:2])
    assert f"the same as a replay from {first:012d}.db on" in make(tmp_path)
    assert [one.serial for one in checkpoint.every(tmp_path)] == [first, CASE.count]


def test_two_are_kept(tmp_path: Path) -> None:
    made = []
    for some in parts(messages_of(CASE), 4):
        take(tmp_path, MONTHS[0], some)
        make(tmp_path)
        made.append(checkpoint.every(tmp_path)[-1].serial)
    assert [one.serial for one in checkpoint.every(tmp_path)] == made[-2:]


@pytest.mark.parametrize("archived", [False, True])
def test_an_index_that_is_not_what_the_journal_says(tmp_path: Path, archived: bool) -> None:
    filled_with_checkpoints(tmp_path, CASE)
    if archived:
        archive(tmp_path, *MONTHS[:2])
    before = checkpoint.every(tmp_path)
    connection = sqlite3.connect(tmp_path / queries.FILE)
    connection.execute("UPDATE download_counts SET downloads_all = downloads_all + 1")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="the index is not what the journal says"):
        make(tmp_path)
    assert checkpoint.every(tmp_path) == before
    assert sorted(os.listdir(tmp_path / checkpoint.DIRECTORY)) == [one.path.name for one in before]


def damage(path: Path) -> None:
    """Damage a table that is not needed to recognise a checkpoint."""
    connection = sqlite3.connect(path)
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'dependencies'"
    ).fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * size : root * size] = b"\xa5" * size
    path.write_bytes(content)


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path / "whole", CASE)
    expected = publish(tmp_path / "whole", tmp_path / "whole-output", CASE)
    state_dir = tmp_path / "state"
    filled_with_checkpoints(state_dir, CASE, 2)
    archive(state_dir, MONTHS[0])
    damage(checkpoint.every(state_dir)[-1].path)
    assert "checkpoint: " in "".join(differences(state_dir))
    forget_index(state_dir)
    assert publish(state_dir, tmp_path / "output", CASE) == expected
    archive(state_dir, MONTHS[1])
    forget_index(state_dir)
    with pytest.raises(JournalError, match="it needs a checkpoint"):
        publish(state_dir, tmp_path / "output", CASE)


@pytest.mark.parametrize("wrong", ["serial", "journal"])
def test_one_that_does_not_belong_here(tmp_path: Path, wrong: str) -> None:
    filled_with_checkpoints(tmp_path / "state", CASE)
    (one,) = checkpoint.every(tmp_path / "state")
    if wrong == "serial":
        one.path.rename(one.path.with_name(f"{one.serial + 1:012d}.db"))
    else:
        filled_with_checkpoints(tmp_path / "other", CASE)
        (other,) = checkpoint.every(tmp_path / "other")
        shutil.copy(other.path, one.path)
    archive(tmp_path / "state", *MONTHS[:2])
    forget_index(tmp_path / "state")
    with pytest.raises(JournalError, match="cannot be used"), opened(tmp_path / "state"):
        pass


def test_one_of_a_newer_version(tmp_path: Path) -> None:
    filled_with_checkpoints(tmp_path, CASE)
    (one,) = checkpoint.every(tmp_path)
    connection = sqlite3.connect(one.path)
    connection.execute("UPDATE _sqlite_migrations SET name = '999-later' WHERE name LIKE '001%'")
    connection.commit()
    connection.close()
    archive(tmp_path, *MONTHS[:2])
    forget_index(tmp_path)
    with pytest.raises(NewerDatabaseError, match=one.path.name), opened(tmp_path):
        pass


def test_a_journal_that_ends_before_it(tmp_path: Path) -> None:
    """An older journal was restored: its next messages would get serials that are in use."""
    filled_with_checkpoints(tmp_path, CASE, 2)
    newest = checkpoint.every(tmp_path)[-1]
    archive(tmp_path, *MONTHS[1:])
    forget_index(tmp_path)
    with pytest.raises(StateError, match="the journal has lost its end"), opened(tmp_path):
        pass
    with opened(tmp_path, rebuild=True) as state:
        assert state.journal.serial < newest.serial
    assert newest not in checkpoint.every(tmp_path)
    assert newest.path.with_suffix(".unused").exists()
    assert differences(tmp_path) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    fill(tmp_path, CASE)
    descriptor = os.open(tmp_path / checkpoint.LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="another process is doing that"):
            make(tmp_path)
    finally:
        os.close(descriptor)
    make(tmp_path)


def test_what_a_killed_one_left_is_no_checkpoint(tmp_path: Path) -> None:
    fill(tmp_path, CASE)
    directory = tmp_path / checkpoint.DIRECTORY
    directory.mkdir()
    for name in (checkpoint.UNFINISHED, checkpoint.REPLAYED, f"{checkpoint.REPLAYED}-wal"):
        (directory / name).write_bytes(b"half of it")
    assert checkpoint.every(tmp_path) == []
    make(tmp_path)
    assert os.listdir(directory) == [f"{CASE.count:012d}.db"]


def test_nothing_to_copy(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no index"):
        make(tmp_path)
    with opened(tmp_path):
        pass
    with pytest.raises(StateError, match="it holds no messages yet"):
        make(tmp_path)


def test_the_index_is_only_read(tmp_path: Path) -> None:
    """While another process holds the state, as a daemon does."""
    with opened(tmp_path, MONTHS[0]) as state:
        some, more = parts(messages_of(CASE), 2)
        for number, batch in enumerate((some, more)):
            before = {
                path.name: path.read_bytes()
                for path in tmp_path.glob("index.db*")
                if not path.name.endswith("-shm")
            }
            if number:
                make(tmp_path)
                assert checkpoint.every(tmp_path)[-1].serial == len(some)
                after = {name: (tmp_path / name).read_bytes() for name in before}
                assert after == before
            state.take(Accepted(None, one) for one in batch)
    assert differences(tmp_path) == []
