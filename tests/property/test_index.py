"""However messages are batched, and wherever it is restarted, the index is that of a rebuild."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base.errors import DecodeError
from indexer.index import downloads
from indexer.journal import quarantine
from indexer.messages import decode
from indexer.messages.entries import Accepted, Entry, Refused
from indexer.messages.types import Position
from indexer.state import state

from . import strategies as s
from .profiles import examples
from .world import rows, world

pytestmark = pytest.mark.property

nows = st.builds(
    lambda days, hours, second: s.hour(s.NOW) + timedelta(days=days, hours=hours, seconds=second),
    st.sampled_from((0, 0, 1, 29, 30, 31, -1, -30, -400, 4000)),
    st.integers(-2, 2),
    st.sampled_from((0, 1, -1)),
)
"""Moments to which the 30-day window is moved."""

Step = tuple[str, Any]

steps = st.lists(
    st.one_of(
        *[st.tuples(st.just("take"), s.histories(12))] * 3,
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("window"), nows),
        st.tuples(st.just("clock"), st.sampled_from((-40, -1, 1, 31, 400))),
    ),
    min_size=1,
    max_size=10,
)  # fmt: skip


@pytest.mark.slow
@examples(12)
@given(steps, st.sampled_from((1, 3, 50_000)), st.sampled_from((1, 7, 20_000)))
def test_any_batches_and_restarts_leave_the_rows_of_a_rebuild(
    script: list[Step], counters_kept: int, batch: int
) -> None:
    with (
        world() as here,
        mock.patch.object(downloads, "_MAX_COUNTERS", counters_kept),
        mock.patch.object(state, "BATCH", batch),
    ):
        for what, argument in script:
            if what == "take":
                here.take(argument)
            elif what == "restart":
                here.restart()
            elif what == "window":
                here.move_window(argument)
            else:
                here.now += timedelta(days=argument)  # another month's journal, or an older one
        assert here.applied_serial() == here.state.journal.serial == here.sent
        assert not here.view("PRAGMA foreign_key_check")
        with here.rebuilt() as fresh:
            assert rows(here.state.connection) == rows(fresh)


@examples(6)
@given(
    s.histories(30) | s.histories(30, "downloads"),
    st.lists(st.integers(0, 12), max_size=8),
    nows,
    st.sampled_from((1, 2, 50_000)),
)
def test_the_size_of_batches_does_not_matter(
    history: list[s.Message], sizes: list[int], now: datetime, kept: int
) -> None:
    with (
        world() as at_once,
        world() as in_parts,
        mock.patch.object(downloads, "_MAX_COUNTERS", kept),
    ):
        at_once.move_window(now)
        at_once.take(history)
        in_parts.take_all(history, sizes)
        in_parts.move_window(now)
        one, other = rows(at_once.state.connection), rows(in_parts.state.connection)
        for told in (one, other):
            told["state"] = [row for row in told["state"] if row[0] != "journal_id"]
        assert one == other


def test_what_is_journaled_is_on_the_disk() -> None:
    """Every commit of the journal is; the index may lose its end, and gets it from the journal."""
    with world() as here:
        here.take([{"msg": "NEWPKG", "at": s.rfc3339(s.NOW), "data": {"package": "foo"}}])
        for restart in (False, True):
            if restart:
                here.restart()
            writer = here.state.journal._writer
            assert writer is not None
            for connection, synchronous in ((writer, 2), (here.state.connection, 1)):
                assert connection.execute("PRAGMA synchronous").fetchone()[0] >= synchronous
                assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            here.now += timedelta(days=31)
            here.take([{"msg": "NEWPKG", "at": s.rfc3339(s.NOW), "data": {"package": "foo"}}])


sendings = st.lists(
    st.tuples(
        st.integers(0, 20),  # the first message that is sent (again)
        st.integers(1, 20),  # how many
        st.sampled_from((False, False, True)),  # a restart
        st.sampled_from((0, 0, 0, 31)),  # days that pass
    ),
    max_size=8,
)


@pytest.mark.slow
@examples(12)
@given(s.histories(20), st.sets(st.integers(0, 19), max_size=4), sendings)
def test_what_comes_again_changes_nothing(
    history: list[s.Message], bad: set[int], parts: list[tuple[int, int, bool, int]]
) -> None:
    """A feed is sent again from any point on, as often as one likes, in any pieces."""
    entries: list[Entry] = []
    for number, message in enumerate(history):
        position = Position("test", 1, number + 1)
        if number in bad:
            error = DecodeError("data", "is bad")
            entries.append(Refused(position, "here", "json", error, b"bytes"))
        else:
            entries.append(Accepted(position, decode.from_json(s.line(message), 0)))
    once = [entry for entry in entries if isinstance(entry, Accepted)]
    with world() as here:
        sent = 0
        for start, size, restart, days in parts:
            start = min(start, sent)  # never a hole: the subscriber sees to that
            here.state.take(entries[start : start + size])
            sent = max(sent, start + size)
            if restart:
                here.restart()
            here.now += timedelta(days=days)
        here.state.take(entries)
        before = rows(here.state.connection)
        assert here.state.take(entries) == []
        here.restart()
        assert here.state.take(entries) == []
        assert rows(here.state.connection) == before
        journaled = here.state.journal.reader.read(0, 1000)
        assert [row.message for row in journaled] == [entry.message for entry in once]
        assert [row.serial for row in journaled] == list(range(1, len(once) + 1))
        refusals = list(quarantine.entries(here.state.journal.reader))
        assert [one.feed_serial for one in refusals] == [
            entry.position.serial
            for entry in entries
            if isinstance(entry, Refused) and entry.position is not None
        ]
        with here.rebuilt() as fresh:
            assert rows(fresh) == before


@examples(4)
@given(s.histories(10), s.histories(10))
def test_feeds_and_epochs_are_counted_apart(
    history: list[s.Message], other: list[s.Message]
) -> None:
    with world() as here:
        for feed, epoch in (("a", 1), ("a", 2), ("b", 1)):
            for messages in (history, history + other):
                here.state.take(
                    Accepted(Position(feed, epoch, serial), decode.from_json(s.line(one), 0))
                    for serial, one in enumerate(messages, 1)
                )
        assert here.state.journal.serial == 3 * len(history + other)


@examples(12)
@given(s.histories(8), st.lists(nows, min_size=2, max_size=6))
def test_a_window_that_moves_about_holds_what_one_that_stood_there_holds(
    history: list[s.Message], moves: list[datetime]
) -> None:
    with world() as moved, world() as stood:
        stood.move_window(moves[-1])
        for number, now in enumerate(moves):
            moved.move_window(now)
            if number == len(moves) // 2:
                moved.take(history)
        stood.take(history)
        assert (
            rows(moved.state.connection)["download_counts"]
            == rows(stood.state.connection)["download_counts"]
        )


def accepted(data: dict[str, Any]) -> bool:
    try:
        decode.from_json(s.line({"msg": "DOWNLOADS", "data": data}), 0)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("then", ["LOGDOWNLOAD", "DOWNLOADS", "window"])
def test_counters_as_large_as_the_schema_allows(then: str) -> None:
    """What was accepted once is applied at every start: it must be possible to apply it."""
    at = s.rfc3339(s.NOW)
    hours = [s.rfc3339(s.hour(s.NOW) - timedelta(hours=back)) for back in range(50)]
    none: dict[str, int] = {}
    ever = max(
        2**n - 1 for n in range(64) if accepted({"package": "b", "all": 2**n - 1, "hours": none})
    )
    hourly = max(
        2**n - 1
        for n in range(64)
        if accepted({"package": "b", "all": 0, "hours": {hours[0]: 2**n - 1}})
    )
    start = {"package": "foo", "all": ever, "hours": {hours[0]: hourly}}
    download = {"filename": s.WHEELS[0], "accessed_at": at, **dict.fromkeys(s.CLIENT)}
    with world() as here:
        if then != "window":
            here.move_window(s.NOW)
        here.take(
            [
                {"msg": "NEWPKG", "at": at, "data": {"package": "foo"}},
                {"msg": "DOWNLOADS", "at": at, "data": start},
            ]
        )
        if then == "LOGDOWNLOAD":
            here.take([{"msg": then, "at": at, "data": download}] * 2)
        else:
            data = {"package": "foo", "all": ever, "hours": dict.fromkeys(hours, hourly)}
            here.take([{"msg": "DOWNLOADS", "at": at, "data": data}])
        here.restart()
        here.publish(s.NOW)
        here.publish(s.NOW + timedelta(days=40))
        with here.rebuilt() as fresh:
            assert rows(here.state.connection) == rows(fresh)
