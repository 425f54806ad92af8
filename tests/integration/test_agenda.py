"""Which packages a master is asked for, and in what order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.base.times import DAY, HOUR, SECOND, Time, to_rfc3339
from indexer.piwheels.queues import agenda
from indexer.piwheels.queues.agenda import Agenda, Ages

from .. import samples
from .index import Index

pytestmark = pytest.mark.integration

NOW = samples.NOW


class Asked:
    """An index with packages, and an agenda at a time that a test sets."""

    def __init__(self, path: Path) -> None:
        self.now: Time = NOW
        self.index = Index(path)
        self.connection: sqlite3.Connection = self.index.connection
        self.agenda = self.open()

    def open(self, chunk: int = agenda.CHUNK) -> Agenda:
        self.agenda = Agenda(self.connection, lambda: self.now, chunk)
        return self.agenda

    def release(self, package: str, age: Time) -> None:
        """A package whose only version was released so long ago."""
        released = to_rfc3339(NOW - age)
        self.index.apply(samples.new_version(package, "1.0", released=released))

    def answer(self, package: str, age: Time, differed: bool = False) -> None:
        """The master answered for a package so long ago."""
        self.now = NOW - age
        self.agenda.answered(package, [], differed)
        self.now = NOW

    def asks(self, number: int) -> list[str | None]:
        """The packages that are asked for, and answered for at once."""
        packages = []
        for _ in range(number):
            package = self.agenda.next(NOW)
            packages.append(package)
            if package is not None:
                self.agenda.answered(package, [], differed=False)
        return packages


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    found = Asked(tmp_path / "index.db")
    yield found
    found.index.connection.close()


def test_what_has_likely_changed_comes_first(asked: Asked) -> None:
    """At full size, one round over all packages takes days."""
    for letter in "abcdef":
        asked.release(letter, 3000 * DAY)
        asked.answer(letter, 9 * DAY)
    asked.release("released", 5 * DAY)
    asked.answer("released", 1 * DAY)
    asked.release("fresh", 1 * HOUR)
    asked.answer("fresh", HOUR // 2)
    asked.release("differed", 3000 * DAY)
    asked.answer("differed", 2 * DAY, differed=True)
    asked.answer("differed", 20 * HOUR)
    asked.release("downloaded", 3000 * DAY)
    asked.answer("downloaded", 4 * DAY)
    asked.index.apply(
        samples.log_download("downloaded-1.0-py3-none-any.whl", to_rfc3339(NOW - DAY))
    )
    asked.index.move_window((NOW - 30 * DAY) // SECOND)
    asked.release("checked", 5 * DAY)
    asked.answer("checked", 1 * HOUR)
    order = asked.asks(12)
    # Every fourth is the one with the oldest answer, likely or not.
    assert order[:6] == ["fresh", "differed", "released", "a", "downloaded", "b"]
    assert order[6:] == ["c", "d", "e", "f", "checked", None]


def test_a_restart_goes_on_with_the_oldest_answers(asked: Asked) -> None:
    """The round began with the first name after each start, and never reached the last ones."""
    for number, letter in enumerate("abc"):
        asked.release(letter, 3000 * DAY)
        asked.answer(letter, (9 - number) * DAY)
    assert asked.asks(1) == ["a"]
    asked.open()
    assert asked.asks(3) == ["b", "c", None]


def test_packages_without_an_answer_come_first(asked: Asked) -> None:
    asked.release("old", 3000 * DAY)
    asked.answer("old", 9 * DAY)
    asked.release("new", 3000 * DAY)
    assert asked.asks(3) == ["new", "old", None]
    # A clock that was set back leaves answers of the future: they are asked for again.
    asked.answer("old", -5 * DAY)
    asked.open()
    assert asked.asks(2) == ["old", None]


def test_packages_that_have_gone_are_forgotten(asked: Asked) -> None:
    for letter in "ab":
        asked.release(letter, 3000 * DAY)
        asked.answer(letter, 9 * DAY)
    asked.index.apply(samples.message("DELPKG", package="a"))
    assert asked.asks(2) == ["b", None]
    assert asked.agenda.ages().oldest == 0.0


def test_how_old_the_answers_are(asked: Asked) -> None:
    assert asked.agenda.ages() == Ages(None, None, 0)
    for number, letter in enumerate("abcde"):
        asked.release(letter, 3000 * DAY)
        asked.answer(letter, number * HOUR)
    assert asked.agenda.ages() == Ages(4 * 3600.0, 2 * 3600.0, 0)
    agenda.all_answered(asked.connection, NOW - HOUR)
    asked.release("f", DAY)
    asked.open().next(NOW)
    assert asked.agenda.ages() == Ages(3600.0, 3600.0, 1)


def test_many_packages_are_looked_at_in_parts(asked: Asked) -> None:
    asked.open(chunk=2)
    for letter in "abcdefg":
        asked.release(letter, 3000 * DAY)
        asked.answer(letter, 9 * DAY)
    asked.release("z", 1 * HOUR)
    asked.answer("z", 1 * HOUR)
    order = asked.asks(8)
    # The first looks saw nothing likely.
    assert order == [*"abcdzefg"]
