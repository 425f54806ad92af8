"""status.json: what waits, what was built, and what the builders do."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from indexer.base import database, times
from indexer.documents import writer
from indexer.documents.kind import Moment
from indexer.documents.publish import Publisher
from indexer.documents.status import MAX_LABEL, MAX_RECENT, Status
from indexer.index import waiting
from indexer.messages import decode
from indexer.piwheels.farm import store
from indexer.piwheels.farm.picture import EMPTY, unknown_slave

from ..documentation.json_schemas import CLOSED
from ..samples import AT, Envelope, log_build, message, new_version, set_abis
from ..support import Case, by_few_cases
from .index import URL, Index

pytestmark = pytest.mark.integration

NOW = times.parse_rfc3339(AT)


def published(index: Index, now: int = NOW) -> Any:
    with database.snapshot(index.connection):
        [document] = Status().documents(Moment(index.connection, URL, now, 1.5), None)
    found = json.loads(document.content or b"")
    CLOSED["site-status"].validate(found)
    return found


def write(index: Index, output: Path) -> None:
    writer.publish_pending(index.connection, index.path, Publisher(output), URL, NOW)


def pending(index: Index) -> dict[str, int]:
    return {abi: one["pending"] for abi, one in published(index)["abis"].items()}


def ago(seconds: int) -> str:
    return times.to_rfc3339(NOW - seconds * times.SECOND)


@by_few_cases
def test_what_waits_is_what_the_documents_say(case: Case, tmp_path: Path) -> None:
    """However the messages are cut; and nothing of a package that is gone."""
    with Index(tmp_path / "index.db") as index:
        messages = [decode.from_json(line, 0) for line in case.lines]
        for some in (messages[: len(messages) // 2], messages[len(messages) // 2 :]):
            index.apply(*some)
            write(index, tmp_path / "www")
            expected = Counter[str]()
            for (package,) in index.rows("SELECT package FROM packages"):
                document = json.loads(index.document(package) or b"")
                for release in document["releases"].values():
                    for abi, build in release["abis"].items():
                        expected[abi] += build["status"] == "pending"
            assert pending(index) == expected
            assert expected == dict(
                index.rows(
                    "SELECT abi_tag, (SELECT count(*) FROM builds_pending p"
                    " WHERE p.abi_tag = a.abi_tag) FROM build_abis a WHERE skip = ''"
                )
            )
            assert dict(index.rows("SELECT abi_tag, versions FROM waiting WHERE versions")) == dict(
                index.rows("SELECT abi_tag, sum(versions) FROM packages_waiting GROUP BY 1")
            )


def test_what_waits_follows_what_is_deleted_and_skipped(index: Index, tmp_path: Path) -> None:
    def after(*envelopes: Envelope) -> dict[str, int]:
        index.apply(*envelopes)
        write(index, tmp_path)
        return pending(index)

    assert after(set_abis("cp39", "cp311"), new_version("a", "1"), new_version("a", "2")) == {
        "cp39": 2,
        "cp311": 2,
    }
    assert after(log_build(1, "a", "1", status=False), new_version("b", "1"))["cp311"] == 2
    assert after(message("SKIPPKG", package="b", reason="no")) == {"cp39": 2, "cp311": 1}
    assert after(set_abis("cp311")) == {"cp311": 1}
    assert after(message("DELPKG", package="a")) == {"cp311": 0}
    assert index.table("packages_waiting") == []
    assert waiting.totals(index.connection) == {"cp39": 0, "cp311": 0}


def test_builds_of_the_last_hour_and_day(index: Index) -> None:
    index.apply(
        set_abis("cp39", "cp311"),
        log_build(1, "a", "1", at=ago(86_401)),
        log_build(2, "a", "2", at=ago(86_399)),
        log_build(3, "a", "3", at=ago(3601), status=False),
        log_build(4, "a", "4", at=ago(3599)),
        log_build(5, "a", "5", at=ago(-60)),  # of a clock that is ahead
    )
    found = published(index)
    assert found["abis"]["cp311"] == {
        "pending": 0,
        "built_last_hour": 1,
        "built_last_day": 3,
        "done_in_seconds": 0,
    }
    assert found["abis"]["cp39"]["built_last_day"] == 0
    assert (found["serial"], found["behind_seconds"]) == (6, 1.5)
    assert times.from_sql(found["at"]) == NOW // times.SECOND * times.SECOND
    plan = index.rows(
        "EXPLAIN QUERY PLAN SELECT abi_tag, count(*) FROM builds"
        " WHERE built_at > ? AND built_at <= ? GROUP BY 1",
        *("2026", "2027"),
    )
    assert "COVERING INDEX builds_built_at (built_at>? AND built_at<?)" in plan[0][3]


def test_the_last_builds_come_first(index: Index) -> None:
    index.apply(
        set_abis("cp311"),
        *(log_build(number, "a", str(number)) for number in range(1, MAX_RECENT + 2)),
        log_build(99, "b", "1", status=False, failure={"category": "timeout", "detail": ""}),
    )
    found = published(index)["recent_builds"]
    assert [one["build_id"] for one in found] == [99, *range(MAX_RECENT + 1, 2, -1)]
    assert found[0]["failure"] == {"category": "timeout", "detail": ""}
    project = json.loads(index.document("b") or b"")
    assert found[0] == {"package": "b", "version": "1", **project["releases"]["1"]["builds"][0]}


def test_builders_and_when_they_are_done(index: Index, tmp_path: Path) -> None:
    """Nothing of a machine is told but its label, and that is bounded and printable."""
    index.apply(
        set_abis("cp39", "cp311", "cp313"),
        *(new_version("a", str(number)) for number in range(4)),
        log_build(1, "b", "1", duration=100.0),
        log_build(2, "b", "2", duration=300.0, at=ago(8 * 86_400), abi_tag="cp39"),
        log_build(3, "b", "3", duration=50.0, abi_tag="cp313"),
        log_build(4, "b", "4", duration=1e19),  # such a build once ended the writer
        log_build(5, "b", "5", duration=1.7e308),
    )
    write(index, tmp_path)
    first = unknown_slave(1, NOW)._replace(
        label="pi\x1b[2J\n" + "x" * 300,
        abi_tag="cp311",
        doing="building",
        since=NOW,
        package="numpy",
        version="1.0",
        board_serial="10000000deadbeef",
        os_name="secret",
    )
    second = first._replace(slave_id=2, label="a", abi_tag="cp39", doing="idle", package=None)
    slaves = (
        first,
        second._replace(version=None),
        unknown_slave(3, NOW),
        first._replace(slave_id=4, label="p", abi_tag="cp313", doing="paused"),
    )
    rows = store.rows("ipc:///x", EMPTY._replace(slaves=slaves))
    store.write(index.connection, store.NO_ROWS, rows)
    found = published(index)
    assert [one["doing"] for one in found["builders"]] == ["unknown", "idle", "paused", "building"]
    since = times.to_sql(NOW)
    assert found["builders"][1] == {
        "label": "a",
        "abi": "cp39",
        "doing": "idle",
        "package": None,
        "version": None,
        "since": since,
    }
    label = found["builders"][3]["label"]
    assert label.startswith("pi\\x1b[2J\\nxx")
    assert len(label) == MAX_LABEL
    assert "deadbeef" not in json.dumps(found)
    assert "secret" not in json.dumps(found)
    # On cp311 six versions wait for one builder, and one of them may take as long as the longest.
    # Nothing can be said of cp39, which built long ago, nor of cp313, whose builder pauses.
    assert {abi: one["done_in_seconds"] for abi, one in found["abis"].items()} == {
        "cp39": None,
        "cp311": 700,
        "cp313": None,
    }


def test_no_other_command_makes_one(index: Index, tmp_path: Path) -> None:
    index.apply(new_version("a", "1"))
    write(index, tmp_path)
    assert not (tmp_path / "status.json").exists()
