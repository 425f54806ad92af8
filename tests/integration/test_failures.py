"""failures.json: what blocks the newest versions of packages, as their documents say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from indexer.base import database, times
from indexer.documents.failures import Failures
from indexer.documents.kind import Moment
from indexer.messages import decode

from ..documentation.json_schemas import CLOSED
from ..reasons import reasons
from ..samples import AT, Envelope, log_build, log_download, message, new_version, set_abis
from ..support import Case, by_case
from .index import URL, Index

pytestmark = pytest.mark.integration


def published(index: Index) -> Any:
    with database.snapshot(index.connection):
        plain, copy = Failures().documents(Moment(index.connection, URL, 0), None)
    assert (plain.path, copy.path) == ("failures.json", "failures.json.gz")
    found = json.loads(plain.content or b"")
    CLOSED["failures"].validate(found)
    return found["reasons"]


@by_case
def test_it_says_what_the_documents_say(case: Case, tmp_path: Path) -> None:
    with Index(tmp_path / "index.db") as index:
        index.apply(*(decode.from_json(line, 0) for line in case.lines))
        index.move_window(times.window_start(times.parse_rfc3339(case.as_of)))
        found = published(index)
        documents = {
            package: index.document(package) or b""
            for (package,) in index.rows("SELECT package FROM packages")
        }
        assert found == reasons(documents, {row[0]: row[1] for row in index.counts()})
        assert bool(found) is (case.name == "additions")


def failed(build_id: int, package: str, version: str, detail: str, abi: str = "cp311") -> Envelope:
    envelope = log_build(build_id, package, version, status=False, abi_tag=abi)
    reason = {"category": "missing-header", "detail": detail}
    return {**envelope, "data": {**envelope["data"], "failure": reason}}


def test_what_would_help_most_comes_first(index: Index) -> None:
    index.apply(
        set_abis("cp39", "cp311"),
        failed(1, "often", "1.0", "a.h"),
        failed(2, "rare", "1.0", "b.h"),
        failed(3, "rare", "1.0", "b.h", "cp39"),
        failed(4, "never", "1.0", "b.h"),
        log_download("often-1.0-py3-none-any.whl"),
        log_download("often-1.0-py3-none-any.whl"),
        log_download("rare-1.0-py3-none-any.whl"),
    )
    index.move_window(times.window_start(times.parse_rfc3339(AT)))
    a, b = published(index)
    assert a == {
        "category": "missing-header",
        "detail": "a.h",
        "packages": 1,
        "downloads_recent": 2,
        "abis": {"cp311": 1},
        "examples": ["often"],
    }
    assert (b["detail"], b["packages"], b["downloads_recent"]) == ("b.h", 2, 1)
    assert b["abis"] == {"cp311": 2, "cp39": 1}
    assert b["examples"] == ["rare", "never"]


def test_only_the_newest_version_and_the_latest_attempt_count(index: Index) -> None:
    index.apply(
        set_abis("cp311"),
        failed(1, "old", "1.0", "a.h"),
        new_version("old", "1.1"),
        failed(2, "again", "1.0", "a.h"),
        log_build(3, "again", "1.0", "again-1.0-cp311-cp311-linux_armv7l.whl"),
        failed(4, "twice", "1.0", "a.h"),
        failed(5, "twice", "1.0", "b.h"),
        failed(6, "left-out", "1.0", "a.h"),
        message("SKIPVER", package="left-out", version="1.0", reason="no"),
    )
    assert [(one["detail"], one["examples"]) for one in published(index)] == [("b.h", ["twice"])]


def test_it_is_written_again_when_anything_has_changed(index: Index) -> None:
    kind = Failures()

    def version() -> str:
        return kind.version(Moment(index.connection, URL, 0))

    before = version()
    assert version() == before
    index.apply(failed(1, "numpy", "1.0", "a.h"))
    applied = version()
    assert applied != before
    index.move_window(times.parse_rfc3339("2026-12-20T12:00:00Z") // times.SECOND)
    assert version() != applied
