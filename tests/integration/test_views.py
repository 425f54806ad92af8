"""The views for administrators, which must agree with the documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from indexer.base import times
from indexer.messages import decode
from indexer.piwheels.farm import store
from indexer.piwheels.farm.picture import (
    UNKNOWN_MASTER,
    MasterPicture,
    MasterStats,
    Picture,
    SlavePicture,
    SlaveStats,
    unknown_slave,
)
from indexer.piwheels.farm.store import rows
from indexer.schema import index as schema

from .. import samples
from ..samples import log_build, log_download, message, new_package, new_version, set_abis
from ..support import Case, by_case
from .index import Index

pytestmark = pytest.mark.integration


@by_case
def test_build_status_is_what_the_documents_say(case: Case, tmp_path: Path) -> None:
    with Index(tmp_path / "index.db") as index:
        index.apply(*(decode.from_json(line, 0) for line in case.lines))
        published = []
        for path in (case.expected / "project").glob("*/json/index.json"):
            document = json.loads(path.read_bytes())
            for version, release in document["releases"].items():
                for abi, found in release["abis"].items():
                    row = (document["package"], version, abi, found["status"], found["build_id"])
                    published.append(row)
        answered = index.rows(
            "SELECT package, version, abi_tag, status, build_id FROM build_status"
        )
        assert sorted(answered, key=repr) == sorted(published, key=repr)
        waiting = index.rows("SELECT * FROM builds_pending")
        assert sorted(waiting) == sorted(row[:3] for row in published if row[3] == "pending")


@by_case
def test_top_downloads_is_what_packages_json_says(case: Case, tmp_path: Path) -> None:
    with Index(tmp_path / "index.db") as index:
        index.apply(*(decode.from_json(line, 0) for line in case.lines))
        index.move_window(times.window_start(times.parse_rfc3339(case.as_of)))
        top = index.rows("SELECT * FROM top_downloads")
        published = json.loads((case.expected / "packages.json").read_bytes())
        assert top == sorted(map(tuple, published), key=lambda row: (-row[1], -row[2], row[0]))


def test_build_status_has_every_status(index: Index) -> None:
    index.apply(
        set_abis("cp39", "cp311", cp37m="too old"),
        log_build(1, "numpy", "1.0", "numpy-1.0-cp311-cp311-x.whl"),
        log_build(2, "numpy", "1.0", status=False, abi_tag="cp39"),
        log_build(3, "numpy", "2.0", abi_tag="cp39"),
        new_version("numpy", "3.0", skip="broken"),
        new_package("scipy", skip="no"),
        log_build(4, "scipy", "1.0", "scipy-1.0-py3-none-any.whl"),
    )
    assert index.rows("SELECT * FROM build_status ORDER BY 1, 2, 3") == [
        ("numpy", "1.0", "cp311", "success", 1),
        ("numpy", "1.0", "cp39", "fail", 2),
        ("numpy", "2.0", "cp311", "pending", None),
        ("numpy", "2.0", "cp39", "error", 3),
        ("numpy", "3.0", "cp311", "skip", None),
        ("numpy", "3.0", "cp39", "skip", None),
        ("scipy", "1.0", "cp311", "skip", 4),
        ("scipy", "1.0", "cp39", "skip", 4),
    ]
    assert index.rows("SELECT * FROM builds_pending") == [("numpy", "2.0", "cp311")]


def test_builds_failures_and_farm(index: Index) -> None:
    index.apply(
        log_build(2, "numpy", "1.0", "numpy-1.0-cp311-cp311-x.whl", "numpy-1.0-py3-none-any.whl"),
        log_build(1, "numpy", "1.0", status=False, slave_id=2, at="2026-11-19T00:00:00Z"),
        log_build(
            12_345_678, "scipy", "1.0", status=False, slave_id=2, duration=7.25, abi_tag="cp39"
        ),
    )
    at = "2026-11-20 12:00:00"
    assert index.rows("SELECT * FROM recent_builds") == [
        (
            *(12_345_678, "scipy", "1.0", "cp39", "fail", 2, at, 7.25, 0),
            "/logs/0000/1234/5678.txt.gz",
        ),
        (2, "numpy", "1.0", "cp311", "success", 1, at, 1.5, 2, "/logs/0000/0000/0002.txt.gz"),
        (
            *(1, "numpy", "1.0", "cp311", "fail", 2, "2026-11-19 00:00:00", 1.5, 0),
            "/logs/0000/0000/0001.txt.gz",
        ),
    ]
    assert index.rows("SELECT build_id, package, log_url FROM build_failures") == [
        (12_345_678, "scipy", "/logs/0000/1234/5678.txt.gz"),
        (1, "numpy", "/logs/0000/0000/0001.txt.gz"),
    ]
    today = "SELECT build_id FROM build_failures WHERE date(built_at) = '2026-11-20'"
    assert index.rows(today) == [(12_345_678,)]
    farm = "SELECT slave_id, abi_tags, builds, failures, busy_seconds FROM farm ORDER BY 1"
    [one, two] = index.rows(farm)
    assert one == (1, "cp311", 1, 0, 2.0)
    assert (two[0], sorted(two[1].split(",")), *two[2:]) == (2, ["cp311", "cp39"], 2, 2, 9.0)


def slave(number: int, first_seen: str | None, **changes: Any) -> SlavePicture:
    """A slave that connected at a time."""
    since = None if first_seen is None else times.parse_rfc3339(first_seen)
    found = unknown_slave(number, samples.NOW)._replace(
        label=f"pi{number}",
        abi_tag="cp311",
        board="",
        board_revision="",
        busy_timeout=1.0,
        first_seen=since,
        doing="building",
        since=samples.NOW,
        since_exact=True,
        package="scipy",
        version="2.0",
        builds_succeeded=1,
        stats=SlaveStats(0, 0, 1, 2, 3, 4, 5, 0.5, 60.0),
        clock_skew=-1.5,
    )
    return found._replace(**changes)


UNKNOWN = unknown_slave(2, samples.NOW)


def show(index: Index, *slaves: SlavePicture) -> None:
    """Write a farm to the index."""
    picture = Picture(samples.NOW, UNKNOWN_MASTER._replace(last_seen=samples.NOW), slaves, ())
    store.write(index.connection, store.read(index.connection), rows("ipc:///q", picture))


def test_farm_of_slaves_that_are_there(index: Index) -> None:
    """If a former slave had the same number, the builds of both are kept apart."""
    index.apply(
        log_build(1, "numpy", "1.0", slave_id=1, at="2026-11-19T00:00:00Z"),
        log_build(2, "numpy", "1.1", slave_id=1, at="2026-11-20T10:00:00Z", status=False),
        log_build(3, "numpy", "1.2", slave_id=1, at="2026-11-20T11:00:00Z", duration=8.0),
        log_build(4, "numpy", "1.3", slave_id=2, at="2026-11-20T11:00:00Z"),
        log_build(5, "numpy", "1.3", slave_id=9, at="2026-11-20T11:00:00Z", abi_tag="cp39"),
    )
    show(
        index,
        slave(1, "2026-11-20T09:00:00Z"),
        UNKNOWN,
        slave(7, "2026-11-20T09:00:00Z", doing="idle", package=None, version=None),
    )
    columns = "slave_id, label, doing, package, since, abi_tags, builds, failures, busy_seconds"
    at = "2026-11-20 12:00:00"
    assert index.rows(f"SELECT {columns} FROM farm") == [
        (1, "pi1", "building", "scipy", at, "cp311", 2, 1, 10.0),
        (2, None, "", None, None, None, 0, 0, None),
        (7, "pi7", "idle", None, at, "cp311", 0, 0, None),
        (1, None, None, None, None, "cp311", 1, 0, 2.0),
        (2, None, None, None, None, "cp311", 1, 0, 2.0),
        (9, None, None, None, None, "cp39", 1, 0, 2.0),
    ]
    assert index.rows("SELECT last_built_at, load_average, clock_skew FROM farm LIMIT 1") == [
        ("2026-11-20 11:00:00", 0.5, -1.5)
    ]
    show(index, slave(7, "2026-11-20T09:00:00Z"))
    assert index.rows("SELECT slave_id, builds FROM farm WHERE doing IS NULL") == [
        *((1, 3), (2, 1), (9, 1))
    ]


def test_what_is_kept_of_the_farm_comes_back(index: Index) -> None:
    one = slave(1, "2026-11-20T09:00:00Z", filename="x.whl")
    counts = {"cp311": 1, "cp39": 2}
    stats = MasterStats(0, 1, counts, 1.5, 2, {}, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0.5, 0.0)
    known = MasterPicture("vm", "Debian", "12", "", "", "", 0, 0, stats, ())
    for master in (known, UNKNOWN_MASTER):
        picture = Picture(0, master, (one, UNKNOWN), ())
        before = store.read(index.connection)
        store.write(index.connection, before, rows("ipc:///q", picture))
        found = store.read(index.connection)
        assert found == rows("ipc:///q", picture)
        assert store.pictures(found, "ipc:///q") == (master, (one, UNKNOWN))
        assert store.pictures(found, "ipc:///other") == (None, ())
    store.clear(index.connection)
    assert store.read(index.connection) == store.NO_ROWS


def test_only_what_changed_is_written(index: Index) -> None:
    show(index, slave(1, None), slave(2, None), slave(3, None))
    before = index.connection.total_changes
    show(index, slave(1, None), slave(2, None, doing="idle"))
    assert index.connection.total_changes == before + 2, "one replaced, one gone"
    show(index, slave(1, None), slave(2, None, doing="idle"))
    assert index.connection.total_changes == before + 2


def test_an_index_of_before_gets_the_live_farm(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    with Index(path) as index:
        index.apply(log_build(1, "numpy", "1.0"))
        first, second = list(schema.SCHEMA.migrations)[:2]
        for table in ("slaves", "masters", "ended_builds", "master_answers"):
            index.connection.execute(f"DROP TABLE {table}")
        index.connection.execute("DROP VIEW farm")
        index.connection.execute("CREATE VIEW farm AS SELECT built_by AS slave_id FROM builds")
        index.connection.execute("DELETE FROM _sqlite_migrations WHERE name >= ?", (second,))
        assert index.rows("SELECT name FROM _sqlite_migrations") == [(first,)]
    with Index(path) as index:
        assert index.rows("SELECT slave_id, builds, label FROM farm") == [(1, 1, None)]
        show(index, slave(1, None))
        assert index.rows("SELECT count(*) FROM farm") == [(2,)]


@pytest.mark.parametrize("build_id", [1, 9_999, 10_000, 99_999_999, 100_000_000, 10**12 - 1])
def test_log_url_is_the_documents(build_id: int, index: Index) -> None:
    index.apply(set_abis("cp311"), log_build(build_id, "numpy", "1.0", status=False))
    [(url,)] = index.rows("SELECT log_url FROM recent_builds")
    document = json.loads(index.document("numpy") or b"")
    assert document["releases"]["1.0"]["abis"]["cp311"]["log_url"] == url


def test_top_downloads_are_sorted_by_recent_downloads(index: Index) -> None:
    index.apply(
        *(new_package(package) for package in ("a", "b", "c", "gone")),
        *[log_download("b-1-py3-none-any.whl")] * 2,
        *[log_download("gone-1-py3-none-any.whl")] * 9,
        *[log_download("c-1-py3-none-any.whl", "2001-01-01T00:00:00Z")] * 5,
        message("DELPKG", package="gone"),
    )
    index.move_window(times.window_start(samples.NOW))
    assert index.rows("SELECT * FROM top_downloads LIMIT 20") == [
        ("b", 2, 2),
        ("c", 0, 5),
        ("a", 0, 0),
    ]


def test_tables_are_strict_and_explained(index: Index) -> None:
    tables = dict(
        index.rows(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%sqlite%'"
        )
    )
    assert tables.keys() >= {
        *("packages", "package_names", "versions", "builds", "files", "dependencies"),
        *("build_abis", "preinstalled_apt_packages", "rewrites_pending", "slaves", "masters"),
    }
    for name, sql in tables.items():
        assert re.search(r"\) STRICT(, WITHOUT ROWID)?$", sql), name
        assert "-- " in sql, name
    keys: dict[str, Any] = {
        name: {row[2] for row in index.rows(f"PRAGMA foreign_key_list({name})")} for name in tables
    }
    assert keys["package_names"] == keys["versions"] == {"packages"}
    assert keys["builds"] == {"versions"}
    assert keys["files"] == {"builds"}
    assert keys["dependencies"] == {"files"}
    assert index.rows("PRAGMA foreign_keys") == [(1,)]


def test_views_are_explained(index: Index) -> None:
    views = dict(index.rows("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
    assert views.keys() >= {
        *("build_status", "builds_pending", "recent_builds", "build_failures"),
        *("top_downloads", "farm"),
    }
    for name, sql in views.items():
        assert "-- " in sql, name
    assert index.rows("PRAGMA application_id") == [(schema.APPLICATION_ID,)]
