"""The journal: months, positions, the quarantine, and what it refuses to open."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.base import disk, times
from indexer.base.errors import DecodeError, JournalError, NewerDatabaseError
from indexer.journal import quarantine
from indexer.journal.journal import Journal
from indexer.journal.quarantine import MAX_KEPT_BODY, MAX_KEPT_BYTES
from indexer.journal.reader import JournalReader
from indexer.messages.entries import Accepted, Entry, Identity, Lost, Refused, Row
from indexer.messages.types import Message, Position

from .. import samples
from ..samples import decoded

pytestmark = pytest.mark.integration

NOVEMBER, DECEMBER, JANUARY = (
    times.parse_rfc3339(text)
    for text in ("2026-11-30T23:59:59.999999Z", "2026-12-01T00:00:00Z", "2027-01-15T00:00:00Z")
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = NOVEMBER

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal"


Opener = Callable[[], Journal]


@pytest.fixture
def opened(directory: Path, clock: Clock) -> Iterator[Opener]:
    """Opens the journal, and closes what a test leaves open."""
    journals: list[Journal] = []

    def open_journal() -> Journal:
        for journal in journals:
            journal.close()
        journals.append(Journal(directory, clock))
        return journals[-1]

    yield open_journal
    for journal in journals:
        journal.close()


def package(number: int) -> Message:
    return decoded(samples.new_package(f"package-{number}"))


def accepted(*serials: int, feed: str = "master", epoch: int = 1) -> list[Entry]:
    return [Accepted(Position(feed, epoch, serial), package(serial)) for serial in serials]


def refused(serial: int | None, raw: bytes = b"{}", source: str = "tcp://x") -> Refused:
    position = None if serial is None else Position("master", 1, serial)
    return Refused(position, source, "msgpack", DecodeError("data.package", "is missing"), raw)


def names(rows: list[Row]) -> list[str]:
    return [row.message.data.package for row in rows]


def test_messages_in_order(opened: Opener) -> None:
    journal = opened()
    assert (journal.serial, journal.reader.read(0, 10), journal.reader.months) == (0, [], [])
    rows = journal.append(accepted(1, 2, 3))
    assert [row.serial for row in rows] == [1, 2, 3]
    assert journal.reader.read(0, 10) == rows
    assert journal.reader.read(1, 1) == rows[1:2]
    assert journal.reader.read(3, 10) == []
    assert opened().reader.read(0, 10) == rows


@pytest.mark.parametrize("envelope", samples.EVERY, ids=lambda envelope: envelope["msg"])
def test_every_message_is_read_as_it_was_appended(
    envelope: samples.Envelope, opened: Opener
) -> None:
    journal = opened()
    message = decoded(envelope)
    journal.append([Accepted(None, message)])
    assert [row.message for row in opened().reader.read(0, 10)] == [message]


def test_every_position_is_accepted_once(opened: Opener) -> None:
    journal = opened()
    assert len(journal.append(accepted(1, 2))) == 2
    assert journal.append(accepted(1, 2)) == []
    assert names(journal.append(accepted(2, 3, 3))) == ["package-3"]
    assert names(journal.append(accepted(3, feed="other"))) == ["package-3"]
    assert names(journal.append(accepted(3, epoch=2))) == ["package-3"]
    assert journal.position("master", 1) == 3
    assert journal.position("master", 3) == 0
    assert journal.position("nobody", 1) == 0
    again = opened()
    assert again.append(accepted(1, 2, 3)) == []
    assert (again.serial, again.position("master", 1), again.position("other", 1)) == (5, 3, 3)
    assert again.feed_epoch("master") == 2
    assert again.feed_epoch("nobody") is None


def test_messages_without_a_position_are_all_accepted(opened: Opener) -> None:
    journal = opened()
    journal.append([Accepted(None, package(1)), Accepted(None, package(1))])
    assert journal.serial == 2
    assert journal.reader.feeds() == []


def test_nothing_is_nothing(opened: Opener, directory: Path) -> None:
    journal = opened()
    assert journal.append([]) == []
    journal.append(accepted(1))
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert journal.append(accepted(1)) == []
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_durable_before_anything_acts_on_it(opened: Opener, directory: Path) -> None:
    journal = opened()
    journal.append(accepted(1))
    assert journal._writer is not None
    assert journal._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    other = JournalReader(directory)
    assert names(other.read(0, 10)) == ["package-1"]
    other.close()


# Months


def test_new_month_carries_over_where_everything_stands(
    opened: Opener, clock: Clock, directory: Path
) -> None:
    journal = opened()
    journal.append([*accepted(1, 2), refused(3), Lost(Position("broken", 7, 9), "gone")])
    journal_id, epoch = journal.reader.journal_id, journal.reader.epoch
    clock.now = DECEMBER
    journal.append([*accepted(3, 4), refused(5)])
    assert [path.name for path in journal.reader.months] == ["2026-11.db", "2026-12.db"]
    assert sorted(path.name for path in directory.glob("*.db")) == ["2026-11.db", "2026-12.db"]
    assert names(journal.reader.read(0, 10)) == ["package-1", "package-2", "package-4"]
    assert names(journal.reader.read(2, 10)) == ["package-4"]
    assert names(journal.reader.read(1, 1)) == ["package-2"]
    assert [len(rows) for rows in journal.reader.batches(0, 2)] == [2, 1]
    for one in (journal, opened()):
        assert one.append(accepted(1, 2, 3, 4, 5)) == []
        assert (one.serial, one.reader.journal_id, one.reader.epoch) == (3, journal_id, epoch)
        feeds = [(feed.feed, feed.serial, feed.broken) for feed in one.reader.feeds()]
        assert feeds == [("master", 5, None), ("broken", 9, "gone")]
        assert [found.quarantine_id for found in quarantine.entries(one.reader)] == [1, 2]
        assert quarantine.waiting(one.reader) == 2


def test_month_without_messages(opened: Opener, clock: Clock) -> None:
    journal = opened()
    journal.append(accepted(1))
    clock.now = JANUARY
    journal.append(accepted(2))
    assert [path.name for path in journal.reader.months] == ["2026-11.db", "2027-01.db"]
    assert names(opened().reader.read(0, 10)) == ["package-1", "package-2"]


def test_clock_that_jumps_back_makes_no_older_month(opened: Opener, clock: Clock) -> None:
    clock.now = DECEMBER
    journal = opened()
    journal.append(accepted(1))
    clock.now = NOVEMBER
    journal.append(accepted(2))
    journal = opened()
    journal.append(accepted(3))
    assert [path.name for path in journal.reader.months] == ["2026-12.db"]
    assert names(journal.reader.read(0, 10)) == ["package-1", "package-2", "package-3"]
    clock.now = JANUARY
    journal.append(accepted(4))
    assert names(opened().reader.read(0, 10)) == [f"package-{number}" for number in (1, 2, 3, 4)]


def test_month_that_was_left_unfinished_is_made_anew(
    opened: Opener, clock: Clock, directory: Path
) -> None:
    opened().append(accepted(1))
    (directory / "2026-12.new").write_bytes(b"half a month")
    clock.now = DECEMBER
    journal = opened()
    journal.append(accepted(1, 2))
    assert names(opened().reader.read(0, 10)) == ["package-1", "package-2"]


def test_month_that_was_made_and_not_used(opened: Opener, clock: Clock) -> None:
    opened().append(accepted(1))
    clock.now = DECEMBER
    opened().begin()
    journal = opened()
    assert journal.serial == 1
    assert names(journal.append(accepted(1, 2))) == ["package-2"]
    assert journal.reader.last_serial() == 2


def three_months(opened: Opener, clock: Clock) -> None:
    for serial, now in enumerate((NOVEMBER, DECEMBER, JANUARY), 1):
        clock.now = now
        opened().append(accepted(serial))
    opened().close()


def test_missing_month_is_noticed(opened: Opener, clock: Clock, directory: Path) -> None:
    three_months(opened, clock)
    (directory / "2026-12.db").unlink()
    with pytest.raises(JournalError, match=r"2026-11\.db ends with serial 1") as error:
        opened()
    assert "backup" in error.value.remedy


def test_month_that_lost_its_end_is_noticed(opened: Opener, clock: Clock, directory: Path) -> None:
    three_months(opened, clock)
    with sqlite3.connect(directory / "2026-12.db") as connection:
        connection.execute("DELETE FROM messages")
    connection.close()
    with pytest.raises(JournalError, match=r"2026-12\.db ends with serial 1"):
        opened()


def test_month_that_lost_its_middle_is_noticed(opened: Opener, directory: Path) -> None:
    opened().append(accepted(1, 2, 3, 4))
    opened().close()
    with sqlite3.connect(directory / "2026-11.db") as connection:
        connection.execute("DELETE FROM messages WHERE serial = 2")
    connection.close()
    journal = opened()
    with pytest.raises(JournalError, match="missing"):
        list(journal.reader.batches(0, 10))


def test_first_months_may_be_archived(opened: Opener, clock: Clock, directory: Path) -> None:
    three_months(opened, clock)
    (directory / "2026-11.db").unlink()
    journal = opened()
    assert (journal.reader.first, journal.serial) == (2, 3)
    assert journal.append(accepted(1, 2, 3)) == []
    assert names(journal.reader.read(1, 10)) == ["package-2", "package-3"]


def test_month_of_another_journal_is_noticed(
    opened: Opener, clock: Clock, directory: Path, tmp_path: Path
) -> None:
    opened().append(accepted(1))
    opened().close()
    clock.now = DECEMBER
    other = Journal(tmp_path / "other", clock)
    other.append(accepted(1))
    other.close()
    shutil.copy(tmp_path / "other" / "2026-12.db", directory)
    with pytest.raises(JournalError, match=r"2026-12\.db belong to different journals") as error:
        opened()
    assert error.value.remedy == "move the one that does not belong here away"


def test_other_files_in_the_directory_are_none_of_ours(opened: Opener, directory: Path) -> None:
    opened().append(accepted(1))
    (directory / "2026-11.db.bak").write_bytes(b"x")
    (directory / "notes.txt").write_bytes(b"x")
    assert len(opened().reader.months) == 1


@pytest.mark.parametrize("damage", ["garbage", "empty", "torn"])
def test_damaged_month_is_refused(damage: str, opened: Opener, directory: Path) -> None:
    opened().append(accepted(*range(1, 200)))
    opened().close()
    path = directory / "2026-11.db"
    whole = path.read_bytes()
    path.write_bytes(
        {"garbage": b"x" * 9000, "empty": b"", "torn": whole[: len(whole) // 2]}[damage]
    )
    with pytest.raises(JournalError) as error:
        list(opened().reader.batches(0))
    assert "2026-11.db" in str(error.value)
    assert "backup" in error.value.remedy


def test_message_that_cannot_be_read_is_refused(opened: Opener, directory: Path) -> None:
    opened().append(accepted(1, 2))
    opened().close()
    for damage in (b"\xc1", b"", b"\x90"):
        with sqlite3.connect(directory / "2026-11.db") as connection:
            connection.execute("UPDATE messages SET data = ? WHERE serial = 2", (damage,))
        connection.close()
        journal = opened()
        with pytest.raises(JournalError, match=r"read the journal's 2026-11\.db: .* damaged"):
            journal.reader.read(0, 10)
        journal.close()


def test_newer_month_is_refused(opened: Opener, directory: Path) -> None:
    opened().append(accepted(1))
    opened().close()
    with sqlite3.connect(directory / "2026-11.db") as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " SELECT migration_set, '999-later', applied_at FROM _sqlite_migrations LIMIT 1"
        )
    connection.close()
    with pytest.raises(NewerDatabaseError, match="999-later"):
        opened()


# Feeds


def test_lost_messages_mark_their_feed(opened: Opener) -> None:
    journal = opened()
    assert journal.append([Lost(Position("master", 1, 5), "kept no more"), *accepted(4, 5, 6)])
    assert names(journal.reader.read(0, 10)) == ["package-6"]
    for one in (journal, opened()):
        [feed] = one.reader.feeds()
        assert feed == ("master", 1, 6, "kept no more")
    # One that lies behind what was accepted takes nothing back.
    again = opened()
    again.append([Lost(Position("master", 1, 2), "another")])
    assert again.position("master", 1) == 6
    assert again.reader.feeds()[0].broken is not None
    again.repaired("master")
    assert opened().reader.feeds() == [("master", 1, 6, None)]


def test_epochs_in_which_nothing_came_are_forgotten(opened: Opener) -> None:
    """A publisher may invent a new epoch with every heartbeat."""
    journal = opened()
    journal.append(accepted(1, 2))
    journal.append([Lost(Position("master", epoch, 0), "a new spool") for epoch in range(2, 500)])
    for epoch in range(500, 600):
        journal.append([Lost(Position("master", epoch, 0), "a new spool")])
    journal.append([Lost(Position("other", 7, 0), "a new spool")])
    for one in (journal, opened()):
        assert [feed[:3] for feed in one.reader.feeds()] == [
            ("master", 1, 2), ("master", 599, 0), ("other", 7, 0)
        ]  # fmt: skip
        assert one.feed_epoch("master") == 599
        assert one.position("master", 1) == 2
    again = opened()
    assert again.append(accepted(1, 2)) == []
    assert names(again.append(accepted(1, epoch=600))) == ["package-1"]
    assert [feed[:3] for feed in again.reader.feeds()] == [
        ("master", 1, 2), ("other", 7, 0), ("master", 600, 1)
    ]  # fmt: skip


# Quarantine


def test_refused_messages_keep_their_place(opened: Opener, clock: Clock) -> None:
    journal = opened()
    rows = journal.append([*accepted(1), refused(2, b"\xc1"), *accepted(3)])
    assert names(rows) == ["package-1", "package-3"]
    assert [row.serial for row in rows] == [1, 2]
    assert journal.append([refused(2, b"\xc1")]) == []
    for one in (journal, opened()):
        [found] = quarantine.entries(one.reader)
        assert found == (
            *(1, "tcp://x", "master", 2, clock.now, 1, "msgpack", "data.package"),
            *("is missing", b"\xc1", None, 1, None),
        )
        assert quarantine.waiting(one.reader) == 1


def test_same_bytes_without_a_place_are_counted(opened: Opener) -> None:
    journal = opened()
    journal.append([refused(None, b"a"), refused(None, b"a"), refused(None, b"b")])
    journal.append([refused(None, b"a"), refused(None, b"a", source="tcp://y")])
    for one in (journal, opened()):
        found = [(entry.source, entry.raw, entry.times) for entry in quarantine.entries(one.reader)]
        assert found == [("tcp://x", b"a", 3), ("tcp://x", b"b", 1), ("tcp://y", b"a", 1)]
        assert [entry.quarantine_id for entry in quarantine.entries(one.reader)] == [1, 2, 3]


def test_large_ones_are_kept_in_part(opened: Opener) -> None:
    journal = opened()
    raw = bytes(range(256)) * 1000
    journal.append([refused(1, raw), refused(None, raw), refused(None, raw), refused(2, b"small")])
    whole = hashlib.sha256(raw).hexdigest()
    for one in (journal, opened()):
        assert [
            (each.raw, each.size, each.sha256, each.times)
            for each in quarantine.entries(one.reader)
        ] == [
            (raw[:MAX_KEPT_BODY], len(raw), whole, 1),
            (raw[:MAX_KEPT_BODY], len(raw), whole, 2),
            (b"small", 5, None, 1),
        ]
        without = list(quarantine.entries(one.reader, raw=False))
        assert [(each.raw, each.size) for each in without] == [
            (b"", len(raw)), (b"", len(raw)), (b"", 5)
        ]  # fmt: skip
    assert journal.append([refused(1, raw)]) == []


def test_a_source_keeps_so_many_bytes_and_the_oldest_go(opened: Opener, directory: Path) -> None:
    """Frames of 1 MB once filled the disk, and no list could be read."""
    journal = opened()
    journal.append([refused(None, b"another's", source="tcp://y")])
    each = MAX_KEPT_BYTES // MAX_KEPT_BODY
    for number in range(2 * each):
        journal.append([refused(None, number.to_bytes(4, "big") + b"\0" * MAX_KEPT_BODY)])
    for one in (journal, opened()):
        kept = [
            found
            for found in quarantine.entries(one.reader, raw=False)
            if found.source == "tcp://x"
        ]
        assert [found.quarantine_id for found in kept] == list(range(each + 2, 2 * each + 2))
        assert (quarantine.let_go(one.reader), quarantine.waiting(one.reader)) == (each, each + 1)
    [month] = directory.glob("*.db")
    journal.close()
    assert month.stat().st_size < 1.5 * MAX_KEPT_BYTES
    again = opened()
    again.append([refused(None, b"small")])
    assert quarantine.let_go(again.reader) == each + 1, (
        "what was kept before is counted after a start"
    )


def test_a_source_keeps_so_many_messages(directory: Path, clock: Clock) -> None:
    journal = Journal(directory, clock, max_refused=3)
    journal.append([refused(serial) for serial in (1, 2, 3)])
    assert quarantine.let_go(journal.reader) == 0
    journal.append([refused(serial) for serial in (4, 5)])
    assert [found.feed_serial for found in quarantine.entries(journal.reader)] == [3, 4, 5]
    assert (quarantine.let_go(journal.reader), quarantine.waiting(journal.reader)) == (2, 3)
    clock.now = DECEMBER
    journal.append([refused(serial) for serial in (6, 7, 8, 9)])
    assert [found.feed_serial for found in quarantine.entries(journal.reader)] == [3, 4, 5, 7, 8, 9]
    assert quarantine.let_go(journal.reader) == 3, "a month that is over stays as it is"
    assert journal.position("master", 1) == 9
    journal.close()


def test_a_retry_gives_a_refused_message_the_next_serial_once(opened: Opener, clock: Clock) -> None:
    journal = opened()
    journal.append([*accepted(1), refused(2), refused(3)])
    clock.now = DECEMBER
    row = journal.retry(1, package(2))
    assert row == Row(2, package(2))
    assert journal.retry(1, package(2)) is None
    assert journal.append(accepted(4))[0].serial == 3
    for one in (journal, opened()):
        assert [found.retried for found in quarantine.entries(one.reader)] == [2, None]
        assert quarantine.waiting(one.reader) == 1
        assert names(one.reader.read(0, 10)) == ["package-1", "package-2", "package-4"]
        assert one.retry(1, package(2)) is None


def test_what_is_refused_for_want_of_room_waits_until_there_is_more(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If intake has stopped, a little free space must not start it for one batch."""
    free = disk.MIN_SPACE
    monkeypatch.setattr(disk, "free_bytes", lambda directory: free)
    journal = opened()
    assert len(journal.append(accepted(1))) == 1
    free = disk.MIN_SPACE - 1
    with pytest.raises(JournalError, match="KiB left") as refusal:
        journal.append(accepted(2))
    assert refusal.value.transient
    free = disk.MIN_SPACE * 5 // 4 - 1
    with pytest.raises(JournalError, match="KiB left"):
        journal.append(accepted(2))
    free = disk.MIN_SPACE * 5 // 4
    assert len(journal.append(accepted(2))) == 1


def test_batch_that_cannot_be_committed_leaves_nothing(opened: Opener, directory: Path) -> None:
    journal = opened()
    journal.append(accepted(1))
    blocker = sqlite3.connect(directory / "2026-11.db", isolation_level=None)
    assert journal._writer is not None
    journal._writer.execute("PRAGMA busy_timeout = 0")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError):
        journal.append([*accepted(2, 3), refused(4), *accepted(1, feed="new")])
    assert (journal.serial, journal.position("master", 1)) == (1, 1)
    blocker.execute("ROLLBACK")
    blocker.close()
    rows = journal.append([*accepted(2, 3), refused(4), *accepted(1, feed="new")])
    assert [row.serial for row in rows] == [2, 3, 4]
    assert quarantine.waiting(journal.reader) == 1


def test_reader_sees_what_another_process_appends(
    opened: Opener, clock: Clock, directory: Path
) -> None:
    journal = opened()
    journal.append(accepted(1))
    reader = JournalReader(directory)
    journal.append(accepted(2))
    assert names(reader.read(0, 10)) == ["package-1", "package-2"]
    clock.now = DECEMBER
    journal.append(accepted(3))
    reader.scan()
    assert reader.last_serial() == 3
    assert names(reader.read(1, 10)) == ["package-2", "package-3"]
    reader.close()


def test_reader_of_nothing(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "none")
    assert (reader.months, reader.first, reader.last_serial(), reader.feeds()) == ([], 1, 0, [])
    assert (list(quarantine.entries(reader)), quarantine.waiting(reader), reader.journal_id) == (
        [],
        0,
        "",
    )
    reader.verify()
    reader.close()


def test_tables_are_strict_and_explained(opened: Opener, directory: Path) -> None:
    opened().append(accepted(1))
    connection = sqlite3.connect(directory / "2026-11.db")
    tables = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlite%'"
    ).fetchall()
    connection.close()
    assert {name for name, _ in tables} >= {"messages", "feeds", "quarantine", "meta"}
    for name, sql in tables:
        assert "STRICT" in sql, name
        assert "--" in sql, name


# Messages without a place in a feed


def identified(number: int, at: str = samples.AT) -> Accepted:
    message = samples.decoded(samples.log_download(f"numpy-{number}-py3-none-any.whl"))
    return Accepted(None, message, Identity(number, times.parse_rfc3339(at)))


def test_what_is_identified_is_accepted_once(directory: Path) -> None:
    journal = Journal(directory, lambda: samples.NOW)
    assert len(journal.append([identified(1), identified(2), identified(1)])) == 2
    later = "2030-01-01T00:00:00+00:00"  # by a clock that is wrong
    assert len(journal.append([identified(2), identified(-3), identified(4, later)])) == 2
    journal.close()
    journal = Journal(directory, lambda: samples.NOW)
    assert journal.append([identified(1), identified(-3), identified(4, later)]) == []
    journal.close()


def test_what_is_identified_is_looked_up_in_the_months_since(directory: Path) -> None:
    """An entry of October, read in October, and read again in December."""
    months = [f"2026-{month}-15T12:00:00+00:00" for month in (10, 11, 12)]
    for number, month in enumerate(months):
        journal = Journal(directory, lambda month=month: times.parse_rfc3339(month))  # type: ignore[misc]
        again = [identified(before, months[before]) for before in range(number)]
        assert journal.append(again) == []
        assert len(journal.append([identified(number, month)])) == 1
        journal.close()
    assert len(list(directory.glob("*.db"))) == 3


def test_what_could_not_be_committed_is_not_taken_for_known(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(directory, lambda: samples.NOW)
    journal.append([identified(1)])
    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "keep", lambda *arguments: 1 / 0)
        bad = Refused(None, "test", "json", DecodeError("", "no"), b"{")
        with pytest.raises(ZeroDivisionError):
            journal.append([identified(2), bad])
    assert len(journal.append([identified(2)])) == 1
    journal.close()
