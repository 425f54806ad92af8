"""What may happen again and again is told of once a minute, and nothing of it is left uncounted."""

from __future__ import annotations

import logging

import pytest

from indexer.base import once_per
from indexer.base.log import event
from indexer.base.once_per import INTERVAL, LimitedLog, OncePer, left_out

pytestmark = pytest.mark.unit


class Told:
    """A `OncePer` whose time the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.once = OncePer(lambda: self.now)


def test_the_first_is_told_of_at_once_and_the_others_are_counted() -> None:
    told = Told()
    assert told.once.count("x") == 1
    assert [told.once.count("x") for _ in range(3)] == [0, 0, 0]
    told.now += INTERVAL
    assert told.once.count("x") == 4
    assert told.once.count("x") == 0
    told.now += INTERVAL
    assert told.once.count("x", 10) == 11
    told.now += INTERVAL
    assert told.once.count("x") == 1, "all were told of"


def test_kinds_do_not_wait_for_each_other() -> None:
    told = Told()
    assert (told.once.count("x"), told.once.count("y")) == (1, 1)
    assert (told.once.count("x"), told.once.count("y")) == (0, 0)


def test_kinds_that_somebody_makes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """They fill neither the memory nor the log, and those that are over make room."""
    monkeypatch.setattr(once_per, "MAX_KINDS", 10)
    told = Told()
    assert sum(told.once.count(number) for number in range(1000)) == 11
    told.now += INTERVAL
    assert told.once.count("another") == 1


def test_words_about_what_was_left_out() -> None:
    assert left_out(1) == ""
    assert left_out(3001) == " (3,000 more were left out of the log before)"


def test_a_log_is_limited_for_each_kind_of_event(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = LimitedLog(logging.getLogger("indexer.test"), lambda: now)
    for feed in ("a", "b", "a"):
        log.error("feed %s is broken\n  what to do: mend it", feed, extra=event("broken"), of=feed)
    log.warning("another", extra=event("other"))
    now += INTERVAL
    log.error("feed %s is broken\n  what to do: mend it", "a", extra=event("broken"), of="a")
    assert [record.getMessage() for record in caplog.records] == [
        "feed a is broken\n  what to do: mend it",
        "feed b is broken\n  what to do: mend it",
        "another",
        "feed a is broken (1 more were left out of the log before)\n  what to do: mend it",
    ]
    assert {record.funcName for record in caplog.records} == {
        "test_a_log_is_limited_for_each_kind_of_event"
    }, "an entry says who logged it"
