"""docs/cookbook.md is true: every query is answered by the sqlite3 shell, with rows."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from indexer.base import times
from indexer.demo.simulation import Farm

from .. import needs, samples
from ..support import REPOSITORY, piw

pytestmark = pytest.mark.acceptance

COOKBOOK = (REPOSITORY / "docs" / "cookbook.md").read_text()
QUERIES = re.findall(r"^(\S[^\n]*)\n\n```sql\n(.*?)^```$", COOKBOOK, re.M | re.S)
VIEWS = re.findall(r"^\| `(\w+)` \|", COOKBOOK, re.M)
OF_THE_JOURNAL = "-- journal"


HEADER = {"category": "missing-header", "detail": "pybind11/pybind11.h"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a farm with events of today, some of them failures."""
    home = tmp_path_factory.mktemp("farm")
    # Its life ends tomorrow: "today" must not be over while this runs.
    now = datetime.now(UTC) + timedelta(hours=12)
    farm = Farm(packages=300, failure_rate=0.3, downloads=3000, days=8, now=now, seed=3)
    at = times.to_rfc3339(times.from_datetime(now))
    missing = samples.log_build(10_000_003, "failed", "1.0", status=False, at=at)
    more = [
        samples.log_build(10_000_001, "no-file", "1.0", at=at),
        samples.log_build(10_000_002, "failed", "1.0", status=False, at=at),
        {**missing, "data": {**missing["data"], "failure": HEADER}},
        samples.new_version("waiting", "1.0", at),
        samples.new_version("refused", "../1.0", at),
    ]
    with (home / "farm.jsonl").open("w") as file:
        for message in (*farm.messages(), *more):
            file.write(json.dumps(message) + "\n")
    piw("ingest", "farm.jsonl", "--state-dir", "state", home=home)
    return home / "state"


def test_there_are_queries() -> None:
    assert len(QUERIES) == COOKBOOK.count("```sql")
    assert len(QUERIES) >= 25


def test_every_view_is_there_and_no_other(state: Path) -> None:
    index = sqlite3.connect(f"file:{state}/index.db?mode=ro", uri=True)
    views = [row[0] for row in index.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
    index.close()
    assert sorted(VIEWS) == sorted(views)
    asked = " ".join(query for _, query in QUERIES)
    assert [view for view in VIEWS if f"FROM {view}" not in asked] == []


@pytest.mark.parametrize(("question", "query"), QUERIES, ids=[one[0][:40] for one in QUERIES])
def test_every_query_has_an_answer(question: str, query: str, state: Path) -> None:
    file = state / "index.db"
    if query.startswith(OF_THE_JOURNAL):
        (file,) = (state / "journal").glob("*.db")
    done = subprocess.run(
        [needs.program("sqlite3"), "-readonly", "-bail", "-json", file],
        input=query,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), question
    assert len(json.loads(done.stdout)) >= 1, question
