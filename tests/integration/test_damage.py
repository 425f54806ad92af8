"""A damaged journal is refused, reported and salvaged; every lost message is named."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from indexer.base.errors import DecodeError, JournalError, StateError
from indexer.index import queries
from indexer.journal import quarantine
from indexer.journal.reader import JournalReader, Span
from indexer.messages.entries import Accepted, Refused
from indexer.messages.types import Message, Position
from indexer.state import checkpoint
from indexer.state.salvage import Salvaged, spans

from ..support import Case, case_named
from .journals import (
    EPOCH,
    FEED,
    MONTHS,
    Tree,
    archive,
    differences,
    fill,
    fold,
    forget_index,
    messages_of,
    month,
    opened,
    publish,
    serials,
    spoil_leaf,
    take,
    tree,
)
from .test_checkpoint import damage as spoil_table
from .test_checkpoint import filled_with_checkpoints, make

pytestmark = pytest.mark.integration

CASE = case_named("lifecycle")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three months, and their documents."""
    directory = tmp_path_factory.mktemp("filled")
    fill(directory / "state", CASE)
    publish(directory / "state", directory / "output", CASE)
    return directory


@pytest.fixture
def state_dir(filled: Path, tmp_path: Path) -> Path:
    shutil.copytree(filled / "state", tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def expected(filled: Path) -> Tree:
    return tree(filled / "output")


def held(state_dir: Path) -> list[int]:
    """The serials of every message that is in the journal."""
    found: list[int] = []
    for name in sorted((state_dir / "journal").glob("*.db")):
        found += serials(name)
    return found


def documents_of(directory: Path, messages: Sequence[Message], case: Case = CASE) -> Tree:
    """The documents of these messages."""
    take(directory / "state", MONTHS[0], messages)
    return publish(directory / "state", directory / "output", case)


def numbers(found: Sequence[Span]) -> list[int]:
    return [serial for first, last in found for serial in range(first, last + 1)]


def salvage(state_dir: Path) -> Salvaged:
    with opened(state_dir, rebuild=True, salvage_journal=True) as state:
        assert state.salvaged is not None
        return state.salvaged


def lost(salvaged: Salvaged) -> list[int]:
    return [serial for one in salvaged.losses for serial in numbers(one.lost)]


def truncate(path: Path) -> None:
    fold(path)
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    fold(path)
    path.write_bytes(b"")


def scribble(path: Path) -> None:
    fold(path)
    path.write_bytes(b"This is not a database.\n" * 1000)


def replace_by_foreign(path: Path) -> None:
    fold(path)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a)")
    connection.close()


def spoil_header(path: Path) -> None:
    fold(path)
    content = path.read_bytes()
    path.write_bytes(b"\0" * 100 + content[100:])


def spoil_one(path: Path) -> None:
    spoil_leaf(path, 3)


def spoil_several(path: Path) -> None:
    for number in (0, -2, -1):
        spoil_leaf(path, number)


def spoil_message(path: Path) -> None:
    """A message with unreadable bytes, which SQLite does not notice."""
    first, last = serials(path)[0], serials(path)[-1]
    change(path, "UPDATE messages SET data = x'c1' WHERE serial = ?", (first + last) // 2)


def flip_bit(path: Path) -> None:
    """One bit of a message's text, which is still valid text."""
    fold(path)
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT data FROM messages WHERE length(data) < 200 ORDER BY serial")
    (data,) = rows.fetchall()[20]
    connection.close()
    content = bytearray(path.read_bytes())
    letter = next(place for place, byte in enumerate(data) if chr(byte) in "abcefg")
    content[content.index(data) + letter] ^= 1
    path.write_bytes(content)


def drop_message(path: Path) -> None:
    first, last = serials(path)[0], serials(path)[-1]
    change(path, "DELETE FROM messages WHERE serial = ?", (first + last) // 2)


def change(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute(statement, values).rowcount
    connection.commit()
    connection.close()


def spoil_both(path: Path) -> None:
    """An unreadable message among those that are read one by one."""
    spoil_message(path)
    spoil_leaf(path, 1)


def drop_tail(path: Path) -> None:
    """As if an older copy of the month had been restored."""
    change(path, "DELETE FROM messages WHERE serial > ?", serials(path)[-6])


Damage = Callable[[Path], None]

KILLING: list[Damage] = [truncate, empty, scribble, replace_by_foreign, spoil_header, os.unlink]
HURTING: list[Damage] = [
    spoil_one,
    spoil_several,
    spoil_message,
    spoil_both,
    flip_bit,
    drop_message,
    drop_tail,
]

PAIRS = [
    *((MONTHS[1], damage) for damage in [*KILLING, *HURTING]),
    *((name, damage) for name in (MONTHS[0], MONTHS[2]) for damage in (scribble, spoil_several)),
    *((MONTHS[0], damage) for damage in (os.unlink, truncate)),
    *((MONTHS[2], damage) for damage in (spoil_message, truncate, flip_bit)),
]
any_damage = pytest.mark.parametrize(
    ("name", "damage"), PAIRS, ids=[f"{name}-{damage.__name__}" for name, damage in PAIRS]
)


def hurt(state_dir: Path, name: str, damage: Damage) -> None:
    damage(month(state_dir, name))
    for suffix in ("-wal", "-shm"):
        Path(f"{month(state_dir, name)}{suffix}").unlink(missing_ok=True)


@any_damage
def test_it_is_refused_and_found(state_dir: Path, name: str, damage: Damage) -> None:
    hurt(state_dir, name, damage)
    found = "".join(differences(state_dir))
    assert "journal: " in found or "index: it holds" in found
    if damage is drop_message:
        assert f"{name}.db is damaged: it has" in found
    if damage is flip_bit:
        assert f"{name}.db is damaged: the checksum of message" in found
    if damage in (os.unlink, drop_tail):
        with pytest.raises(StateError, match="begins"), opened(state_dir):
            pass  # though the index needs no message of it
    forget_index(state_dir)
    with pytest.raises(StateError) as raised, opened(state_dir):
        pass
    assert "backup" in raised.value.remedy
    assert "rebuild --salvage" in raised.value.remedy


@any_damage
def test_with_its_index_nothing_is_missing(
    state_dir: Path, expected: Tree, name: str, damage: Damage
) -> None:
    hurt(state_dir, name, damage)
    salvaged = salvage(state_dir)
    gone = lost(salvaged)
    assert sorted([*held(state_dir), *gone]) == list(range(1, CASE.count + 1))
    # A newest month without its feeds is sent again; the index must not have it already.
    if name == MONTHS[-1] and damage in KILLING:
        assert salvaged.feeds_lost or damage is truncate
        return
    assert salvaged.checkpoint is not None
    assert publish(state_dir, state_dir.parent / "output", CASE) == expected
    assert differences(state_dir) == []
    with opened(state_dir) as state:
        assert [feed.broken for feed in state.journal.reader.feeds()] == [None]


@any_damage
def test_without_it_the_rest_is_published(
    state_dir: Path, tmp_path: Path, name: str, damage: Damage
) -> None:
    hurt(state_dir, name, damage)
    forget_index(state_dir)
    salvaged = salvage(state_dir)
    gone = lost(salvaged)
    kept = held(state_dir)
    assert not set(gone) & set(kept)
    if damage in HURTING:
        assert gone
    if name != MONTHS[-1]:
        assert sorted([*kept, *gone]) == list(range(1, CASE.count + 1))
    if damage in (spoil_message, drop_message, flip_bit):
        assert len(gone) == 1
    messages = messages_of(CASE)
    with opened(state_dir) as state:
        assert [feed.broken is not None for feed in state.journal.reader.feeds()] == [bool(gone)]
    expected = documents_of(tmp_path / "rest", [messages[serial - 1] for serial in kept])
    assert publish(state_dir, tmp_path / "output", CASE) == expected
    assert differences(state_dir) == []


@pytest.mark.parametrize(
    "change_to",
    ["at = at + 1", "at = at - (1 << 40)", "msg = 'UNYANKVER'", "msg = 'LOGDOWNLOAE'"],
)
def test_a_change_beside_the_data_shows(state_dir: Path, change_to: str) -> None:
    first = serials(month(state_dir, MONTHS[1]))[0]
    change(month(state_dir, MONTHS[1]), f"UPDATE messages SET {change_to} WHERE serial = ?", first)
    [found] = differences(state_dir)
    assert f"the checksum of message {first} is wrong" in found
    forget_index(state_dir)
    with (
        pytest.raises(JournalError, match=f"the checksum of message {first} is wrong"),
        opened(state_dir),
    ):
        pass


def forget_checksums(path: Path) -> None:
    """A month from a version without checksums."""
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE messages DROP COLUMN checksum")
    connection.execute("DELETE FROM _sqlite_migrations WHERE name = '003-checksums'")
    connection.commit()
    connection.close()


def test_months_of_before_there_were_checksums(
    state_dir: Path, expected: Tree, tmp_path: Path
) -> None:
    for name in MONTHS:
        forget_checksums(month(state_dir, name))
    assert differences(state_dir) == []
    forget_index(state_dir)
    assert publish(state_dir, tmp_path / "output", CASE) == expected
    first = serials(month(state_dir, MONTHS[2]))[-1] + 1
    take(state_dir, MONTHS[2], messages_of(CASE)[:10], "another feed")
    # The newest month has them from now on, for what is new.
    change(month(state_dir, MONTHS[2]), "UPDATE messages SET at = 0 WHERE serial = ?", first + 3)
    [found] = differences(state_dir)
    assert f"the checksum of message {first + 3} is wrong" in found
    hurt(state_dir, MONTHS[0], spoil_message)
    assert len(lost(salvage(state_dir))) == 2
    assert differences(state_dir) == []


def test_how_it_goes_on(state_dir: Path, tmp_path: Path) -> None:
    hurt(state_dir, MONTHS[1], spoil_one)
    forget_index(state_dir)
    gone = lost(salvage(state_dir))
    with opened(state_dir, "2026-10") as state:
        (feed,) = state.journal.reader.feeds()
        assert feed.broken is not None
        assert spans([(gone[0], gone[-1])]) in feed.broken
        assert state.journal.position(FEED, EPOCH) == CASE.count
        assert state.journal.serial == CASE.count
    more = messages_of(case_named("farm"))
    take(state_dir, "2026-10", more)
    assert held(state_dir)[-1] == CASE.count + len(more)
    make(state_dir)
    expected = publish(state_dir, tmp_path / "one", CASE)
    archive(state_dir, *MONTHS)
    assert publish(state_dir, tmp_path / "two", CASE, rebuild=True) == expected
    assert differences(state_dir) == []


def test_the_end_of_the_newest_month(state_dir: Path, tmp_path: Path) -> None:
    """Its serials stay taken; the next message gets another."""
    fold(month(state_dir, MONTHS[2]))
    path = month(state_dir, MONTHS[2])
    last = leaves(path) - 1
    spoil_leaf(path, last - 1)
    spoil_leaf(path, last)
    salvaged = salvage(state_dir)
    assert not salvaged.feeds_lost
    with opened(state_dir) as state:
        assert state.journal.serial == CASE.count
    take(state_dir, MONTHS[2], messages_of(CASE)[:1])
    assert held(state_dir)[-1] == CASE.count + 1
    assert differences(state_dir) == []


def leaves(path: Path) -> int:
    number = 0
    backup = path.read_bytes()
    while True:
        try:
            spoil_leaf(path, number)
        except (AssertionError, sqlite3.DatabaseError):
            path.write_bytes(backup)
            return number
        path.write_bytes(backup)
        number += 1


def test_feeds_of_a_newest_month_that_is_gone_are_those_before(
    state_dir: Path, tmp_path: Path, expected: Tree
) -> None:
    """Their publishers send them again, and they count once."""
    before = serials(month(state_dir, MONTHS[1]))[-1]
    hurt(state_dir, MONTHS[2], scribble)
    assert salvage(state_dir).feeds_lost
    with opened(state_dir) as state:
        assert state.journal.position(FEED, EPOCH) == before
        assert queries.applied_serial(state.connection) == state.journal.serial == CASE.count
    take(state_dir, MONTHS[2], messages_of(CASE)[before:])
    assert publish(state_dir, tmp_path / "output", CASE) == expected
    assert differences(state_dir) == []


def test_without_its_last_month(state_dir: Path, tmp_path: Path) -> None:
    """The journal is intact but shorter than the index; the loss has to be accepted."""
    archive(state_dir, MONTHS[2])
    with pytest.raises(StateError, match="lost its end"), opened(state_dir):
        pass
    assert salvage(state_dir).losses == ()
    kept = held(state_dir)
    expected = documents_of(tmp_path / "rest", messages_of(CASE)[: len(kept)])
    assert publish(state_dir, tmp_path / "output", CASE) == expected


def test_a_checkpoint_has_what_is_lost(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    (covered,) = filled_with_checkpoints(state_dir, CASE)
    expected = publish(state_dir, tmp_path / "before", CASE)
    hurt(state_dir, MONTHS[0], spoil_several)
    hurt(state_dir, MONTHS[1], scribble)
    forget_index(state_dir)
    salvaged = salvage(state_dir)
    assert lost(salvaged)
    assert salvaged.covered == covered
    assert publish(state_dir, tmp_path / "output", CASE) == expected
    with opened(state_dir) as state:
        assert [feed.broken for feed in state.journal.reader.feeds()] == [None]


def test_archived_months_are_not_lost(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    filled_with_checkpoints(state_dir, CASE)
    archive(state_dir, *MONTHS[:2])
    hurt(state_dir, MONTHS[2], spoil_one)
    gone = lost(salvage(state_dir))
    assert gone
    assert min(gone) >= min(held(state_dir))
    assert not month(state_dir, MONTHS[1]).exists()
    assert differences(state_dir) == []


@pytest.mark.parametrize("count", [1, 2])
def test_months_are_missing_in_the_middle(tmp_path: Path, count: int) -> None:
    months = ("2025-11", "2025-12", "2026-01", "2026-03")
    state_dir = tmp_path / "state"
    fill(state_dir, CASE, months)
    expected = [one for name in months[1 : 1 + count] for one in serials(month(state_dir, name))]
    archive(state_dir, *months[1 : 1 + count])
    forget_index(state_dir)
    assert lost(salvage(state_dir)) == expected
    assert month(state_dir, "2025-12").exists()
    assert differences(state_dir) == []


def test_a_whole_journal_is_left_alone(state_dir: Path) -> None:
    for name in MONTHS:
        fold(month(state_dir, name))
    before = {name: month(state_dir, name).read_bytes() for name in MONTHS[:2]}
    assert salvage(state_dir) == Salvaged((), 0, None, False)
    assert {name: month(state_dir, name).read_bytes() for name in before} == before
    hurt(state_dir, MONTHS[1], spoil_one)
    assert salvage(state_dir).losses
    assert salvage(state_dir).losses == (), "it is whole now"


def test_the_damaged_file_stays(state_dir: Path) -> None:
    hurt(state_dir, MONTHS[1], spoil_one)
    damaged = month(state_dir, MONTHS[1]).read_bytes()
    (one,) = salvage(state_dir).losses
    assert one.month == f"{MONTHS[1]}.db"
    assert one.kept_as is not None
    assert (state_dir / "journal" / one.kept_as).read_bytes() == damaged


@pytest.mark.parametrize("killed", [False, True])
def test_the_old_log_is_not_read_into_the_new_file(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """The last messages are only in the write-ahead log, as after a crash."""
    path = month(state_dir, MONTHS[2])
    fold(path)
    with opened(state_dir, MONTHS[2]) as state:
        more = messages_of(case_named("farm"))
        state.take(Accepted(None, one) for one in more)
        shutil.copytree(state_dir, tmp_path / "crashed")
    crashed = month(tmp_path / "crashed", MONTHS[2])
    assert Path(f"{crashed}-wal").stat().st_size
    content = bytearray(crashed.read_bytes())
    spoil_leaf(path, 1)
    for start in range(0, len(content), 4096):
        if path.read_bytes()[start : start + 4096] == b"\xa5" * 4096:
            content[start : start + 4096] = b"\xa5" * 4096
    crashed.write_bytes(content)
    if killed:

        def kill(source: Path, destination: Path) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            forget_index(tmp_path / "crashed")
            patch.setattr(os, "rename", kill)
            with pytest.raises(KeyboardInterrupt):
                salvage(tmp_path / "crashed")
    gone = lost(salvage(tmp_path / "crashed"))
    assert gone
    assert max(gone) < CASE.count
    assert held(tmp_path / "crashed")[-1] == CASE.count + len(more)
    assert differences(tmp_path / "crashed") == []


@pytest.mark.parametrize("moment", [0, 1])
def test_a_salvage_that_was_killed_can_be_run_again(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    for name in MONTHS[:2]:
        hurt(state_dir, name, spoil_several)
    forget_index(state_dir)
    shutil.copytree(state_dir, tmp_path / "undisturbed")
    expected = lost(salvage(tmp_path / "undisturbed"))
    rename = os.rename
    calls = []

    def killed(source: Path, destination: Path) -> None:
        calls.append(destination)
        if len(calls) > moment:
            raise KeyboardInterrupt
        rename(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            salvage(state_dir)
    salvage(state_dir)
    reader = JournalReader(state_dir / "journal")
    assert numbers(reader.lost) == expected
    reader.close()
    assert held(state_dir) == held(tmp_path / "undisturbed")
    assert differences(state_dir) == []


def test_what_is_in_the_quarantine_stays_there(state_dir: Path) -> None:
    refused = Refused(
        Position(FEED, EPOCH, CASE.count + 1), "s", "json", DecodeError("", "bad"), b"{"
    )
    with opened(state_dir, MONTHS[2]) as state:
        state.take([refused])
        state.take(Accepted(None, one) for one in messages_of(CASE)[:1])
    take(state_dir, "2026-10", messages_of(CASE)[:1])
    hurt(state_dir, MONTHS[2], spoil_message)
    salvage(state_dir)
    with opened(state_dir, "2026-10") as state:
        (one,) = quarantine.entries(state.journal.reader)
        assert (one.feed, one.raw) == (FEED, b"{")
        state.take([Refused(None, "s", "json", DecodeError("", "bad"), b"[")])
        assert [one.quarantine_id for one in quarantine.entries(state.journal.reader)] == [1, 2]


def test_a_month_of_another_journal(state_dir: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other", CASE)
    fold(month(tmp_path / "other", MONTHS[1]))
    for suffix in ("-wal", "-shm"):
        Path(f"{month(state_dir, MONTHS[1])}{suffix}").unlink(missing_ok=True)
    shutil.copy(month(tmp_path / "other", MONTHS[1]), month(state_dir, MONTHS[1]))
    with pytest.raises(JournalError, match="belong to different journals"), opened(state_dir):
        pass
    assert "different journals" in "".join(differences(state_dir))
    with pytest.raises(JournalError, match="belong to different journals"):
        salvage(state_dir)


def test_an_index_that_is_damaged_is_not_kept(state_dir: Path) -> None:
    hurt(state_dir, MONTHS[1], spoil_one)
    fold(state_dir / queries.FILE)
    spoil_table(state_dir / queries.FILE)
    assert salvage(state_dir).checkpoint is None
    assert checkpoint.every(state_dir) == []
    assert differences(state_dir) == []


def test_spans_of_serials_in_words() -> None:
    assert spans([(1, 5), (7, 7), (9, 12)]) == "1 to 5, 7, 9 to 12"
