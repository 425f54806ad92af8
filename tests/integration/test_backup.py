"""A backup is enough to get the same documents, and is never replaced by less."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.base import clock
from indexer.base.directories import JOURNAL, SPOOL
from indexer.base.errors import IndexerError, JournalError, StateError
from indexer.base.lock import Lock
from indexer.cli import piw_indexer
from indexer.index import queries
from indexer.journal.damage import faults
from indexer.journal.journal import Journal
from indexer.journal.reader import JournalReader, month_files
from indexer.messages.entries import Accepted
from indexer.messages.types import Message
from indexer.state import checkpoint
from indexer.state.backup import backup
from indexer.watch.status import gather

from ..support import case_named, contents
from .journals import (
    FEED,
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
    spoil_leaf,
    take,
)
from .test_checkpoint import filled_with_checkpoints, make

pytestmark = pytest.mark.integration

CASE = case_named("lifecycle")
LONG = case_named("churn-1")


def back_up(state_dir: Path, target: Path) -> str:
    """What the command prints."""
    done = CliRunner().invoke(piw_indexer, ["backup", str(target), "--state-dir", str(state_dir)])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def kept(target: Path) -> dict[str, bytes]:
    """The databases of a backup."""
    return {
        name: content
        for name, (content, _, _) in contents(target).items()
        if name.endswith(".db") and isinstance(content, bytes)
    }


@pytest.mark.parametrize("name", ["lifecycle", "orphans", "random-1"])
def test_a_restored_one_publishes_the_same(
    name: str, state_dir: Path, target: Path, tmp_path: Path
) -> None:
    case = case_named(name)
    fill(state_dir, case)
    back_up(state_dir, target)
    expected = publish(state_dir, tmp_path / "output", case)
    assert publish(target, tmp_path / "restored", case) == expected
    assert differences(target) == []


def test_of_a_journal_whose_months_are_archived(
    state_dir: Path, target: Path, tmp_path: Path
) -> None:
    filled_with_checkpoints(state_dir, CASE)
    archive(state_dir, *MONTHS[:2])
    assert "a checkpoint at serial" in back_up(state_dir, target)
    expected = publish(state_dir, tmp_path / "output", CASE)
    assert publish(target, tmp_path / "restored", CASE) == expected


def test_feeds_go_on_from_where_it_ends(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    back_up(state_dir, target)
    with opened(target) as state:
        assert state.journal.position(FEED, 7) == CASE.count
        assert state.journal.serial == CASE.count


def test_only_what_has_changed_is_copied_again(state_dir: Path, target: Path) -> None:
    earlier, later = parts(messages_of(CASE), 2)
    take(state_dir, MONTHS[0], earlier[:10])
    take(state_dir, MONTHS[1], earlier[10:])
    make(state_dir)
    assert "2 months copied, 0 unchanged" in back_up(state_dir, target)
    before = contents(target)
    assert "0 months copied, 2 unchanged" in back_up(state_dir, target)
    assert {**contents(target), "lock": 0} == {**before, "lock": 0}
    take(state_dir, MONTHS[1], later[:10])
    take(state_dir, MONTHS[2], later[10:])
    assert "2 months copied, 1 unchanged" in back_up(state_dir, target)
    first = f"journal/{MONTHS[0]}.db"
    assert contents(target)[first] == before[first]
    assert f"checkpoint/{len(earlier):012d}.db" in kept(target)
    forget_index(state_dir)
    shutil.rmtree(state_dir)
    with opened(target) as state:
        assert state.journal.serial == CASE.count


def test_a_new_place_in_the_quarantine_or_a_feed_is_a_change(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    back_up(state_dir, target)
    for statement in (
        "UPDATE feeds SET broken = 'x'",
        "INSERT INTO retries VALUES (1, 1)",
        "INSERT INTO quarantine VALUES (1, 's', NULL, NULL, 0, 1, 'json', '', 'r', x'00', NULL)",
        "UPDATE quarantine SET times = 2",
    ):
        connection = sqlite3.connect(month(state_dir, MONTHS[2]))
        connection.execute(statement)
        connection.commit()
        connection.close()
        assert "1 months copied, 2 unchanged" in back_up(state_dir, target), statement


def test_archived_months_stay_in_it(state_dir: Path, target: Path, tmp_path: Path) -> None:
    filled_with_checkpoints(state_dir, CASE)
    back_up(state_dir, target)
    archive(state_dir, *MONTHS[:2])
    assert "it holds messages 1 to" in back_up(state_dir, target)
    expected = publish(state_dir, tmp_path / "output", CASE)
    assert publish(target, tmp_path / "restored", CASE) == expected


def test_a_damaged_checkpoint_in_it_is_copied_again(state_dir: Path, target: Path) -> None:
    filled_with_checkpoints(state_dir, CASE)
    back_up(state_dir, target)
    (one,) = checkpoint.every(target)
    one.path.write_bytes(one.path.read_bytes()[:-4096])
    back_up(state_dir, target)
    assert one.path.read_bytes() == checkpoint.every(state_dir)[0].path.read_bytes()


def spoil_leaves(path: Path) -> None:
    """Damage what only a complete reading finds."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


@pytest.mark.parametrize("name", MONTHS)
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x" * 8192), spoil_leaves])
def test_a_damaged_copy_is_made_again_and_kept_beside(
    state_dir: Path, target: Path, name: str, damage: Callable[[Path], object]
) -> None:
    fill(state_dir, LONG)
    back_up(state_dir, target)
    before, spoiled = kept(target), month(target, name)
    damage(spoiled)
    wrong = spoiled.read_bytes()
    for turn in range(3):  # one after the other is read to its end
        backup(state_dir, JOURNAL, SPOOL, target, lambda done, total: None, turn)
    assert spoiled.with_name(f"{name}.db.damaged1").read_bytes() == wrong
    assert kept(target).keys() == before.keys()
    assert not any(list(faults(path)) for path in month_files(target / JOURNAL))
    assert "0 months copied, 3 unchanged" in back_up(state_dir, target)


def test_a_damaged_copy_of_a_month_that_the_journal_has_no_more(
    state_dir: Path, target: Path
) -> None:
    filled_with_checkpoints(state_dir, CASE)
    back_up(state_dir, target)
    archive(state_dir, *MONTHS[:2])
    spoiled = month(target, MONTHS[0])
    spoiled.write_bytes(b"x" * 8192)
    refused(
        state_dir, target, f"its copy .*{MONTHS[0]}.db is damaged .*the journal itself is sound"
    )
    assert spoiled.read_bytes() == b"x" * 8192
    status = gather(state_dir, clock.now())
    assert status.backup_failure is not None
    assert "the journal itself is sound" in status.backup_failure.what
    assert "backup-failed" in {alert.id for alert in status.alerts}


def test_a_backup_that_lacks_a_month(state_dir: Path, target: Path) -> None:
    filled_with_checkpoints(state_dir, CASE)
    back_up(state_dir, target)
    archive(state_dir, *MONTHS[:2])
    month(target, MONTHS[1]).unlink()
    refused(state_dir, target, "the backup is not complete: .* the journal is sound")


def test_a_failure_is_forgotten_when_a_backup_to_that_directory_works(
    state_dir: Path, target: Path
) -> None:
    fill(state_dir, CASE)
    target.mkdir()
    (target / queries.FILE).touch()
    refused(state_dir, target, "has an index")
    back_up(state_dir, target.with_name("another"))
    failure = gather(state_dir, clock.now()).backup_failure
    assert failure is not None
    assert failure.directory == str(target)
    (target / queries.FILE).unlink()
    back_up(state_dir, target)
    assert gather(state_dir, clock.now()).backup_failure is None


def test_nothing_in_the_state_is_written(state_dir: Path, target: Path) -> None:
    """While a daemon holds the state, the last messages are only in its write-ahead log."""
    fill(state_dir, CASE, MONTHS[:1])
    with opened(state_dir, MONTHS[1]) as state:
        state.take(Accepted(None, one) for one in messages_of(CASE)[:5])
        log = Path(f"{month(state_dir, MONTHS[1])}-wal")
        assert log.stat().st_size
        before = contents(state_dir)
        back_up(state_dir, target)
        after = contents(state_dir)
        for name in before:
            if not name.endswith("-shm"):
                assert after[name] == before[name], name
    with opened(target) as restored:
        assert restored.journal.serial == CASE.count + 5


# What must not be replaced


@pytest.fixture
def backed_up(state_dir: Path, target: Path) -> Iterator[dict[str, bytes]]:
    """A state with a backup, whose content must stay, whatever a test tries."""
    fill(state_dir, LONG)
    back_up(state_dir, target)
    before = kept(target)
    yield before
    assert {name: kept(target)[name] for name in before} == before
    assert not list(target.glob("*/*.new*"))


def refused(state_dir: Path, target: Path, match: str) -> None:
    with pytest.raises(IndexerError, match=match) as error:
        back_up(state_dir, target)
    assert "what to do" in str(error.value)


@pytest.mark.usefixtures("backed_up")
def test_by_another_journal(state_dir: Path, target: Path) -> None:
    shutil.rmtree(state_dir)
    fill(state_dir, LONG)
    refused(state_dir, target, "backup of another journal")


@pytest.mark.usefixtures("backed_up")
def test_by_a_journal_that_has_lost_its_end(state_dir: Path, target: Path) -> None:
    archive(state_dir, MONTHS[2])
    refused(state_dir, target, "has lost its end")


@pytest.mark.parametrize("name", MONTHS)
def test_by_a_damaged_month(
    state_dir: Path, target: Path, name: str, backed_up: dict[str, bytes]
) -> None:
    take(state_dir, MONTHS[2], messages_of(CASE)[:1])  # the last would be copied
    spoil_leaf(month(state_dir, name), 2)
    connection = sqlite3.connect(month(state_dir, name))
    connection.execute("INSERT INTO retries VALUES (1, 1)")  # and so would this
    connection.commit()
    connection.close()
    refused(state_dir, target, "damaged|malformed")


@pytest.mark.usefixtures("backed_up")
@pytest.mark.parametrize("name", MONTHS[:2])
def test_by_a_month_that_was_salvaged(state_dir: Path, target: Path, name: str) -> None:
    spoil_leaf(month(state_dir, name), 2)
    with opened(state_dir, rebuild=True, salvage_journal=True):
        pass
    refused(state_dir, target, "has lost messages that the backup's")


@pytest.mark.usefixtures("backed_up")
def test_by_a_month_with_a_hole(state_dir: Path, target: Path) -> None:
    connection = sqlite3.connect(month(state_dir, MONTHS[2]))
    last = connection.execute("SELECT max(serial) FROM messages").fetchone()[0]
    connection.execute("DELETE FROM messages WHERE serial = ?", (last - 2,))
    connection.execute("UPDATE feeds SET serial = serial + 1")
    connection.commit()
    connection.close()
    refused(state_dir, target, "it is damaged: it has")


def test_a_missing_month(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    archive(state_dir, MONTHS[1])
    refused(state_dir, target, f"{MONTHS[2]}.db begins after")
    assert kept(target) == {}


def test_first_months_that_no_checkpoint_holds(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    archive(state_dir, MONTHS[0])
    refused(state_dir, target, "no checkpoint holds what was before")


def test_a_directory_that_is_in_use(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    refused(state_dir, state_dir, "inside the state directory")
    refused(state_dir, state_dir / "backup", "inside the state directory")
    back_up(state_dir, target)
    held = Lock(target, "run")
    with pytest.raises(StateError, match="is locked by piw-indexer run"):
        back_up(state_dir, target)
    held.release()
    with opened(target):
        pass
    refused(state_dir, target, "has an index")
    forget_index(target)
    assert not (target / queries.FILE).exists()
    back_up(state_dir, target)


def test_a_month_of_it_that_somebody_wrote(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    back_up(state_dir, target)
    take(state_dir, MONTHS[2], messages_of(CASE)[:1])
    Path(f"{month(target, MONTHS[2])}-wal").write_bytes(b"a log")
    with pytest.raises(JournalError, match="another program has written to"):
        back_up(state_dir, target)


def test_without_a_journal_a_backup_is_refused(state_dir: Path, target: Path) -> None:
    refused(state_dir, target, "there is no journal")
    assert not target.exists()


def test_of_an_empty_journal(state_dir: Path, target: Path) -> None:
    with opened(state_dir):
        pass
    assert "no messages" in back_up(state_dir, target)


def test_a_month_is_never_half_copied(
    state_dir: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the file has its name: the next backup starts again."""
    fill(state_dir, CASE)

    def killed(source: object, destination: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        CliRunner().invoke(piw_indexer, ["backup", str(target), "--state-dir", str(state_dir)])
    assert kept(target) == {}
    (target / "journal" / f"{MONTHS[0]}.new").write_bytes(b"half of it")
    (target / "journal" / f"{MONTHS[0]}.new-journal").write_bytes(b"half of it")
    back_up(state_dir, target)
    with opened(target) as state:
        assert state.journal.serial == CASE.count


def fill_spool(state_dir: Path, messages: list[Message]) -> None:
    spool = Journal(state_dir / SPOOL, clock.now)
    spool.append(Accepted(None, message) for message in messages)
    spool.close()


def spooled(state_dir: Path) -> list[Message]:
    reader = JournalReader(state_dir / SPOOL)
    try:
        reader.verify()
        return [row.message for rows in reader.batches(0) for row in rows]
    finally:
        reader.close()


def test_a_spool_is_copied_too(state_dir: Path, target: Path, tmp_path: Path) -> None:
    messages = messages_of(CASE)
    fill(state_dir, CASE)
    fill_spool(state_dir, messages[:100])
    said = back_up(state_dir, target)
    assert f"{target / SPOOL}: 1 months copied, 0 unchanged; it holds messages 1 to 100" in said
    fill_spool(state_dir, messages[100:200])
    assert "messages 1 to 200" in back_up(state_dir, target)
    assert spooled(target) == messages[:200]
    epoch = JournalReader(state_dir / SPOOL).epoch
    assert JournalReader(target / SPOOL).epoch == epoch, "its subscribers go on with it"
    assert differences(target) == ["index: there is no " + str(target / queries.FILE)]


def test_a_publishers_own_directory(state_dir: Path, target: Path) -> None:
    messages = messages_of(CASE)[:50]
    fill_spool(state_dir, messages)
    back_up(state_dir, target)
    assert spooled(target) == messages
    assert not (target / "journal").exists()


def test_a_spool_that_has_lost_its_end_replaces_nothing(state_dir: Path, target: Path) -> None:
    messages = messages_of(CASE)
    fill_spool(state_dir, messages[:20])
    back_up(state_dir, target)
    shutil.rmtree(state_dir / SPOOL)
    fill_spool(state_dir, messages[:10])
    with pytest.raises(StateError, match="another journal"):
        back_up(state_dir, target)
    assert spooled(target) == messages[:20]


@pytest.mark.parametrize(("files", "directories"), [(0o600, 0o700), (0o640, 0o750), (0o666, 0o777)])
def test_a_backup_is_no_more_open_than_the_state(
    state_dir: Path, target: Path, files: int, directories: int
) -> None:
    fill(state_dir, CASE)
    assert (
        CliRunner().invoke(piw_indexer, ["checkpoint", "--state-dir", str(state_dir)]).exit_code
        == 0
    )
    for path in (state_dir, *state_dir.rglob("*")):
        path.chmod(directories if path.is_dir() else files)
    back_up(state_dir, target)
    back_up(state_dir, target)
    kinds = {True: directories & 0o750, False: files & 0o640}
    for path in (target, *target.rglob("*")):
        mode = path.stat().st_mode & 0o777
        assert not mode & ~(0o750 if path.is_dir() else 0o640), path
        if path in (target, *target.rglob("*.db")):
            assert not mode & ~kinds[path.is_dir()], path


def test_a_backup_that_is_open_to_others_is_closed_to_them(state_dir: Path, target: Path) -> None:
    fill(state_dir, CASE)
    back_up(state_dir, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    back_up(state_dir, target)
    for path in (target, *target.rglob("*")):
        assert not path.stat().st_mode & 0o027, path
