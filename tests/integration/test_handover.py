"""Messages that a command hands to the daemon: once, and never over newer ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from indexer.base import clock
from indexer.base.directories import JOURNAL
from indexer.base.errors import StateError
from indexer.journal.reader import JournalReader
from indexer.messages import decode, encode
from indexer.messages.entries import Accepted
from indexer.messages.types import Message
from indexer.piwheels.backfill.from_database import Beside
from indexer.state import handover
from indexer.state.request import leave
from indexer.state.state import State

from .. import samples

pytestmark = pytest.mark.integration


def message(envelope: samples.Envelope) -> Message:
    return decode.from_json(samples.line(envelope), samples.NOW)


def names(messages: list[Message]) -> list[tuple[str, str]]:
    return [(one.name, one.data.package) for one in messages]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path, "run", clock.now)
    yield state
    state.close()


def take(state: State, *envelopes: samples.Envelope) -> None:
    state.take([Accepted(None, message(one)) for one in envelopes])


@contextmanager
def daemon(state: State) -> Iterator[list[Message]]:
    """What a daemon takes meanwhile."""
    found: list[Message] = []
    ended = threading.Event()

    def run() -> None:
        reader = JournalReader(state.directory / JOURNAL)
        while not ended.wait(0.01):
            entries = handover.offered(state.directory, reader)
            if entries is not None:
                found.extend(one.message for one in entries if isinstance(one, Accepted))
                handover.taken(state.directory)
        reader.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def test_what_is_newer_is_left_alone(state: State) -> None:
    take(state, samples.new_package("numpy"), samples.new_package("scipy"))
    reader = JournalReader(state.directory / JOURNAL)
    news = handover.News(reader, reader.last_serial())
    take(state, samples.message("YANKVER", package="numpy", version="1.0"))
    handed = [message(samples.new_package(name, description="x")) for name in ("numpy", "scipy")]
    handed.append(message(samples.downloads("numpy", 1, {})))
    with daemon(state) as found:
        given = handover.hand(state.directory, news, handed)
    assert names(given) == names(found) == [("NEWPKG", "scipy"), ("DOWNLOADS", "numpy")]
    # Downloads that were counted meanwhile are not told by counters.
    take(state, samples.log_download("numpy-1.0-py3-none-any.whl", samples.AT))
    assert handover.hand(state.directory, news, handed[2:]) == []
    reader.close()


def test_many_are_handed_in_parts(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the daemon would not read was given to it, and nobody said so."""
    monkeypatch.setattr(handover, "MAX_BYTES", 1000)
    reader = state.journal.reader
    news = handover.News(reader, reader.last_serial())
    handed = [
        message(envelope)
        for envelope in (
            *(samples.new_package(f"package-{n}", description="x" * 50) for n in range(20)),
            *(samples.message("SKIPPKG", package=f"package-{n}", reason="") for n in range(20)),
        )
    ]
    sizes = []

    def note(path: Path, content: bytes) -> None:
        sizes.append(len(content))
        leave(path, content)

    monkeypatch.setattr("indexer.state.handover.leave", note)
    with daemon(state) as found:
        given = handover.hand(state.directory, news, handed)
    assert len(sizes) > 2
    assert max(sizes) <= 1000
    assert names(found) == names(given)
    assert sorted(names(found)) == sorted(names(handed))
    large = message(samples.new_package("numpy", description="x" * 1000))
    with pytest.raises(StateError, match="hand numpy to the daemon: it is larger than"):
        handover.hand(state.directory, news, [large])


def test_what_comes_between_two_parts_is_newer_too(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left out, as it has to be, and counted as taken."""
    monkeypatch.setattr(handover, "MAX_BYTES", 220)
    take(state, samples.set_abis("cp311"))
    beside = Beside(state.directory)

    def leave_and_hear(path: Path, content: bytes) -> None:
        leave(path, content)
        state.take(handover.offered(state.directory, state.journal.reader) or [])
        take(state, samples.message("SKIPPKG", package="b", reason="new"))
        handover.taken(state.directory)

    monkeypatch.setattr(handover, "leave", leave_and_hear)
    handed = [message(samples.new_package(name, description="x" * 50)) for name in "ab"]
    taken = beside.take(Accepted(None, one) for one in handed)
    assert [row.message for row in taken] == handed[:1]
    assert beside.left == {"b"}
    beside.close()


def test_a_name_can_go_to_another_package(state: State) -> None:
    """It belongs to the package that had it first, unless that one is deleted before."""
    take(state, samples.new_name("b", "Shared"), samples.new_package("a"))
    news = handover.News(state.journal.reader, state.journal.serial)
    gone = [samples.message("DELPKG", package=package) for package in ("a", "b")]
    made = [samples.new_name("a", "Shared"), samples.new_package("b")]
    with daemon(state) as found:
        handover.hand(state.directory, news, map(message, gone + made))
    state.take([Accepted(None, one) for one in found])
    owner = "SELECT package FROM package_names WHERE name = 'Shared'"
    assert state.connection.execute(owner).fetchall() == [("a",)]


def test_what_came_after_the_command_looked_is_newer_too(state: State) -> None:
    take(state, samples.new_package("numpy"))
    reader = state.journal.reader
    news = handover.News(reader, reader.last_serial())
    path = state.directory / handover.FILE
    handed = [message(samples.new_package(name, description="x")) for name in ("numpy", "scipy")]
    with daemon(state):
        handover.hand(state.directory, news, handed)
    # The daemon is killed after it has taken them, and finds the file again.
    content = msgpack.packb(
        [news.serial, [(one.name, one.at, encode.to_journal(one)) for one in handed]]
    )
    path.write_bytes(content)
    entries = handover.offered(state.directory, reader)
    assert entries is not None
    assert len(entries) == 2
    state.take(entries)
    assert handover.offered(state.directory, reader) == []
    handover.taken(state.directory)
    assert handover.offered(state.directory, reader) is None


@pytest.mark.parametrize(
    "content", [b"", b"\x92\x01", b"\x92\x01\x91\x93\xa1X\x00\xc4\x00", b"x" * 9]
)
def test_a_file_that_cannot_be_read_is_removed(content: bytes, state: State) -> None:
    (state.directory / handover.FILE).write_bytes(content)
    assert handover.offered(state.directory, state.journal.reader) == []


def test_what_the_daemon_has_not_journaled_is_an_error(state: State) -> None:
    """It ignores a file that it cannot read; the command once said that all was taken."""
    take(state, samples.new_package("numpy"))
    beside = Beside(state.directory)
    with daemon(state), pytest.raises(StateError, match="it has not journaled all of them"):
        beside.take([Accepted(None, message(samples.new_package("scipy")))])
    beside.close()
