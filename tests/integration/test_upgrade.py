"""A state directory from before: what is new in it comes from the journal, and readers read it."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

from indexer.base.errors import NewerDatabaseError
from indexer.cli import piw_indexer
from indexer.index import queries
from indexer.journal.journal import Journal
from indexer.journal.reader import JournalReader
from indexer.messages.entries import Accepted
from indexer.messages.types import Position
from indexer.schema import journal as journal_schema
from indexer.state import checkpoint
from indexer.state.state import State

from .. import samples
from ..samples import decoded
from ..support import Case, by_case, case_named
from .index import as_before
from .journals import MONTHS, archive, differences, fill, opened, publish, start_of, take

pytestmark = pytest.mark.integration

ADDITIONS = case_named("additions")
"""It has reasons, earlier contents, Requires-Python and tags in capitals."""


def progress_of_opening(state_dir: Path) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    state = State(state_dir, "test", lambda: samples.NOW, lambda *done: seen.append(done))
    assert not queries.is_outdated(state.connection)
    state.close()
    return seen


@by_case
def test_an_index_from_before_is_made_anew(case: Case, tmp_path: Path) -> None:
    state_dir, output = tmp_path / "state", tmp_path / "output"
    fill(state_dir, case)
    expected = publish(state_dir, output, case)
    as_before(state_dir / queries.FILE)
    serial = JournalReader(state_dir / "journal").last_serial()
    assert progress_of_opening(state_dir)[-1] == (serial, serial)
    assert progress_of_opening(state_dir) == []
    assert publish(state_dir, output, case) == expected
    assert publish(state_dir, tmp_path / "again", case, rebuild=True) == expected
    assert differences(state_dir) == []


def test_an_empty_index_from_before_is_up_to_date(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    as_before(tmp_path / queries.FILE)
    assert progress_of_opening(tmp_path) == []


def statuses(tree: dict[str, Any]) -> dict[str, Any]:
    """How every version stands on every ABI."""
    return {
        name: {version: one["abis"] for version, one in json.loads(text)["releases"].items()}
        for name, text in tree.items()
        if name.endswith("/index.json")
    }


def with_a_checkpoint_from_before(state_dir: Path) -> dict[str, Any]:
    """Months, an index and a checkpoint of an earlier version; returns the documents."""
    expected = publish_all_months(state_dir)
    with opened(state_dir) as state:
        assert state.connection.execute("SELECT count(*) FROM pythons_refused").fetchone()[0]
    [one] = checkpoint.every(state_dir)
    for path in (one.path, state_dir / queries.FILE):
        as_before(path)
    archive(state_dir, *MONTHS[:2])
    return expected


def publish_all_months(state_dir: Path) -> dict[str, Any]:
    fill(state_dir, ADDITIONS)
    done = CliRunner().invoke(piw_indexer, ["checkpoint", "--state-dir", str(state_dir)])
    assert done.exception is None, done.output
    take(state_dir, MONTHS[-1], [decoded(samples.new_package("late"))], feed="other")
    return publish(state_dir, state_dir / "output", ADDITIONS)


def test_where_months_are_gone_a_checkpoint_from_before_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    expected = with_a_checkpoint_from_before(tmp_path)
    assert progress_of_opening(tmp_path)
    assert progress_of_opening(tmp_path) == []
    assert statuses(publish(tmp_path, tmp_path / "again", ADDITIONS)) == statuses(expected)
    assert differences(tmp_path) == []


def test_where_nothing_else_holds_the_messages_the_index_itself_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    expected = with_a_checkpoint_from_before(tmp_path)
    [one] = checkpoint.every(tmp_path)
    one.path.write_bytes(b"garbage")
    assert progress_of_opening(tmp_path) == []
    assert statuses(publish(tmp_path, tmp_path / "again", ADDITIONS)) == statuses(expected)


READERS = ("status", "show", "explain", "history", "check", "metrics", "top")


@pytest.mark.parametrize("command", READERS)
def test_readers_read_an_index_from_before(command: str, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    fill(state_dir, ADDITIONS)
    publish(state_dir, tmp_path / "output", ADDITIONS)
    as_before(state_dir / queries.FILE)
    before = (state_dir / queries.FILE).read_bytes()
    package = json.loads((ADDITIONS.expected / "packages.json").read_bytes())[0][0]
    arguments = {
        "show": [package],
        "history": [package],
        "explain": [package, "--output-path", str(tmp_path / "output")],
        "check": ["--output-path", str(tmp_path / "output")],
    }.get(command, [])
    done = CliRunner().invoke(piw_indexer, [command, "--state-dir", str(state_dir), *arguments])
    if command == "check":
        assert "an earlier version made it" in done.output
    assert done.exit_code == 0, (done.output, done.exception)
    assert (state_dir / queries.FILE).read_bytes() == before


# The journal


def from_before() -> AbstractContextManager[object]:
    """A program from before messages told reasons of failures, and new places of files."""
    migrations = dict([*journal_schema.SCHEMA.migrations.items()][:5])
    older = journal_schema.SCHEMA._replace(migrations=migrations)
    return mock.patch.object(journal_schema, "SCHEMA", older)


def journaled(directory: Path, month: str, *envelopes: samples.Envelope) -> None:
    journal = Journal(directory, lambda: start_of(month))
    after = journal.position("master", 1)
    journal.append(
        Accepted(Position("master", 1, number), decoded(envelope))
        for number, envelope in enumerate(envelopes, after + 1)
    )
    journal.close()


def read(directory: Path) -> list[str]:
    reader = JournalReader(directory)
    try:
        return [row.message.name for row in reader.read(0, 9)]
    finally:
        reader.close()


FAILURE = samples.message("FAILURE", build_id=1, failure={"category": "unknown", "detail": ""})


@pytest.mark.parametrize("month", MONTHS[:2])
def test_a_program_from_before_refuses_a_journal_that_says_more(month: str, tmp_path: Path) -> None:
    with from_before():
        journaled(tmp_path, MONTHS[0], samples.new_package("numpy"))
    assert read(tmp_path) == ["NEWPKG"]
    journaled(tmp_path, month, FAILURE)
    assert read(tmp_path) == ["NEWPKG", "FAILURE"]
    with from_before():
        for use in (read, lambda directory: journaled(directory, month, FAILURE)):
            with pytest.raises(NewerDatabaseError, match=r"a newer piw-indexer.*006-failures"):
                use(tmp_path)
