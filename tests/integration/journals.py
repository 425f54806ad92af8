"""State directories with several months, some of them damaged, and the documents of each."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from indexer.base import clock, times
from indexer.check.index import check_index
from indexer.check.journal import check_checkpoints, check_journal
from indexer.check.resume import Run
from indexer.commands.write import publish_all
from indexer.documents.publish import Publisher
from indexer.messages import decode
from indexer.messages.entries import Accepted
from indexer.messages.types import Message, Position
from indexer.state.state import State

from ..support import Case, contents

MONTHS = ("2026-07", "2026-08", "2026-09")
FEED = "master"
EPOCH = 7
URL = "https://www.piwheels.org"

Tree = dict[str, bytes | str]


def messages_of(case: Case) -> list[Message]:
    return [decode.from_json(line, 0) for line in case.lines]


def start_of(month: str) -> times.Time:
    return times.parse_rfc3339(f"{month}-02T00:00:00Z")


@contextmanager
def opened(
    state_dir: Path, month: str = "", *, rebuild: bool = False, salvage_journal: bool = False
) -> Iterator[State]:
    """Open the state in a month."""
    now = start_of(month) if month else clock.now()
    state = State(state_dir, "test", lambda: now, rebuild=rebuild, salvage_journal=salvage_journal)
    try:
        yield state
    finally:
        state.close()


def take(state_dir: Path, month: str, messages: Sequence[Message], feed: str = FEED) -> None:
    """Accept messages in a month, as the next of a feed."""
    with opened(state_dir, month) as state:
        after = state.journal.position(feed, EPOCH)
        state.take(
            Accepted(Position(feed, EPOCH, number), message)
            for number, message in enumerate(messages, after + 1)
        )


def parts(messages: Sequence[Message], count: int = len(MONTHS)) -> list[Sequence[Message]]:
    size = -(-len(messages) // count)
    return [messages[number * size : (number + 1) * size] for number in range(count)]


def fill(state_dir: Path, case: Case, months: Sequence[str] = MONTHS) -> None:
    """Accept the messages of a case, spread over months."""
    for month, some in zip(months, parts(messages_of(case), len(months)), strict=True):
        take(state_dir, month, some)


def publish(state_dir: Path, output: Path, case: Case, *, rebuild: bool = False) -> Tree:
    """Publish what is pending; returns every document and link."""
    with opened(state_dir, rebuild=rebuild) as state:
        publish_all(state, Publisher(output), URL, times.parse_rfc3339(case.as_of))
    return tree(output)


def tree(output: Path) -> Tree:
    return {name: content for name, (content, _, _) in contents(output).items()}


def silent(part: str, done: int, total: int) -> None:
    pass


def differences(state_dir: Path) -> list[str]:
    """The differences that `check` finds in journal, checkpoints and index."""
    run = Run(state_dir, [], fresh=True)
    try:
        found = [*check_journal(state_dir, run, silent)]
        if not found:
            found += check_checkpoints(state_dir)
            found += check_index(state_dir, run, silent)
    finally:
        run.close()
    return list(map(str, found))


def month(state_dir: Path, name: str) -> Path:
    return state_dir / "journal" / f"{name}.db"


def archive(state_dir: Path, *names: str) -> None:
    """Move months away."""
    aside = state_dir.parent / "archive"
    aside.mkdir(exist_ok=True)
    for name in names:
        for path in (state_dir / "journal").glob(f"{name}.db*"):
            shutil.move(path, aside / path.name)


def forget_index(state_dir: Path) -> None:
    for path in state_dir.glob("index.db*"):
        path.unlink()


def serials(path: Path) -> list[int]:
    """The serials of a sound month."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return [row[0] for row in connection.execute("SELECT serial FROM messages ORDER BY 1")]
    finally:
        connection.close()


def fold(path: Path) -> None:
    """Move the write-ahead log of a database into its file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


def spoil_leaf(path: Path, number: int) -> None:
    """Overwrite the `number`-th leaf page of the table of messages with rubbish; -1 is the last."""
    fold(path)
    connection = sqlite3.connect(path)
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'messages'"
    ).fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    start = (root - 1) * size
    assert content[start] == 5, "an inner page of a table"
    cells = int.from_bytes(content[start + 3 : start + 5], "big")
    number = number % cells if number < 0 else number
    assert number < cells
    place = start + 12 + 2 * number
    cell = start + int.from_bytes(content[place : place + 2], "big")
    leaf = int.from_bytes(content[cell : cell + 4], "big")
    content[(leaf - 1) * size : leaf * size] = b"\xa5" * size
    path.write_bytes(content)
