"""Files of messages: known by their lines, whatever became of the file since."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.base import clock
from indexer.base.errors import UsageError
from indexer.journal import quarantine
from indexer.messages import jsonl
from indexer.messages.jsonl import MIN_TRIED, MessageFile
from indexer.state.state import State

from .. import samples

pytestmark = pytest.mark.integration

LINES = [samples.line(samples.log_download(f"numpy-1.{n}-py3-none-any.whl")) for n in range(20)]

Ingest = Callable[[bytes], int]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state", "test", clock.now)
    yield state
    state.close()


@pytest.fixture
def ingest(state: State, tmp_path: Path) -> Ingest:
    """Ingests a file with this content; returns how many messages were new."""

    def ingest(content: bytes) -> int:
        path = tmp_path / "day.jsonl"
        path.write_bytes(content)
        file = MessageFile(str(path), clock.now)
        rows = state.take([entry for entry, _ in file.entries(file.known(state.journal.position))])
        file.close()
        return len(rows)

    return ingest


def refusals(state: State) -> list[int | None]:
    return [one.feed_serial for one in quarantine.entries(state.journal.reader)]


def test_a_file_that_grew_goes_on_where_it_ended(ingest: Ingest) -> None:
    """It was another file by its hash, and its first half counted again."""
    new = [ingest(b"".join(LINES[:lines])) for lines in (5, 5, 12, 20, 20, 12, 5)]
    assert new == [5, 0, 7, 8, 0, 0, 0]
    assert ingest(b"".join([*LINES, *LINES])) == 20


def test_every_growth_is_counted_once(ingest: Ingest, state: State) -> None:
    for lines in range(len(LINES) + 1):
        assert ingest(b"".join(LINES[:lines])) == (lines > 0)
    assert state.journal.serial == len(LINES)


@pytest.mark.parametrize("between", [b"", b"\n", b" \n\n"])
def test_blank_lines_at_the_end_are_lines(between: bytes, ingest: Ingest) -> None:
    assert ingest(b"".join(LINES[:5]) + between) == 5
    assert ingest(b"".join(LINES[:5]) + between + b"".join(LINES[5:])) == 15


def test_an_interrupted_run_goes_on_although_the_file_grew(
    ingest: Ingest, state: State, tmp_path: Path
) -> None:
    (tmp_path / "first").write_bytes(b"".join(LINES[:12]))
    file = MessageFile(str(tmp_path / "first"), clock.now)
    assert len(state.take([entry for entry, _ in file.entries(0)][:7])) == 7
    file.close()
    assert ingest(b"".join(LINES)) == 13


def test_a_last_line_that_was_cut_off_is_accepted_when_it_is_whole(
    ingest: Ingest, state: State
) -> None:
    whole = b"".join(LINES)
    for end in (len(LINES[0]) * 4 + 10, len(LINES[0]) * 4 + 11):
        cut = whole[:end]
        ingest(cut)
        kept = refusals(state)
        assert ingest(cut) == 0
        assert refusals(state) == kept, "giving it again changes nothing"
    ingest(whole)
    assert state.journal.serial == len(LINES)


def test_a_last_line_without_its_end_is_accepted_once(ingest: Ingest, state: State) -> None:
    assert ingest(b"".join(LINES[:5]).rstrip()) == 5
    assert ingest(b"".join(LINES[:5]).rstrip()) == 0
    assert ingest(b"".join(LINES[:5])) == 0
    assert ingest(b"".join(LINES)) == 15
    assert refusals(state) == []


def test_a_file_that_another_version_took_is_known(ingest: Ingest, state: State) -> None:
    """There, a last line without an end belonged to the feed of the others."""
    content = b"".join(LINES[:5]).rstrip()
    digest = jsonl.hashlib.sha256(content)  # type: ignore[attr-defined]
    with state.journal._transaction() as writer:
        writer.execute("INSERT INTO feeds VALUES (1, ?, 0, 5, NULL)", (jsonl._feed(digest),))
    state.journal._positions[jsonl._feed(digest), 0] = 5
    assert ingest(content) == 0


def test_a_file_that_was_rotated_and_compressed_is_the_same(ingest: Ingest) -> None:
    assert ingest(b"".join(LINES[:5])) == 5
    assert ingest(gzip.compress(b"".join(LINES[:5]))) == 0
    assert ingest(gzip.compress(b"".join(LINES[:9])) + gzip.compress(b"".join(LINES[9:]))) == 15


def test_the_standard_input_may_be_compressed(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = io.TextIOWrapper(io.BytesIO(gzip.compress(b"".join(LINES))))
    monkeypatch.setattr("sys.stdin", given)
    file = MessageFile("-", clock.now)
    assert len(state.take([entry for entry, _ in file.entries(0)])) == len(LINES)
    assert file.size == len(b"".join(LINES))
    file.close()


def test_a_damaged_compressed_file_is_refused(ingest: Ingest, state: State) -> None:
    whole = gzip.compress(b"".join(LINES))
    for content in (whole[:-5], whole[:40], whole[:30] + b"????" + whole[34:], whole + b"?"):
        with pytest.raises(UsageError, match="cannot read"):
            ingest(content)
    assert state.journal.serial == 0


def test_a_line_that_would_fill_the_memory_is_refused(
    ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE", 100_000)
    with pytest.raises(UsageError, match="line 2 has more than"):
        ingest(gzip.compress(LINES[0] + bytes(200_000)))


@pytest.mark.parametrize(
    "line", [b'198.51.100.1 - - "GET /simple/"\n', b"{}\n", b"[1]\n", b'{"msg":7,"data":{}}\n']
)
def test_what_is_not_a_file_of_messages_is_refused(
    line: bytes, ingest: Ingest, state: State
) -> None:
    with pytest.raises(UsageError, match="none of its first 1,000 lines is a message"):
        ingest(b"\n" + line * MIN_TRIED + LINES[0])
    assert refusals(state) == []
    assert ingest(line * (MIN_TRIED - 1) + LINES[0]) == 1
    assert len(refusals(state)) == MIN_TRIED - 1
    assert ingest(line * 3) == 0
    assert len(refusals(state)) == MIN_TRIED + 2


def test_messages_that_are_refused_are_messages(ingest: Ingest, state: State) -> None:
    """A fault of the publisher: they are kept, and can be retried after an update."""
    assert ingest(b'{"msg":"NEWER","data":{}}\n' * (MIN_TRIED + 1)) == 0
    assert len(refusals(state)) == MIN_TRIED + 1
