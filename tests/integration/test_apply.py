"""Every message changes the index as the design says, and touches what it changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from indexer.index import pending

from .. import samples
from ..samples import (
    downloads,
    file,
    log_build,
    log_download,
    message,
    new_name,
    new_package,
    new_version,
    set_abis,
    snapshot,
    snapshot_file,
    snapshot_release,
)
from .index import Index

pytestmark = pytest.mark.integration

SQL = "2026-11-20 12:00:00"
LATER = "2026-11-21T08:00:00+00:00"
WHEEL = "numpy-1.0-cp311-cp311-linux_armv7l.whl"
OTHER = "numpy-1.0-py3-none-any.whl"

TABLES = (
    *("packages", "package_names", "versions", "builds", "files", "dependencies", "build_abis"),
    *("preinstalled_apt_packages", "download_counts", "download_hours"),
    *("file_contents", "pythons_refused"),
)


def everything(index: Index) -> dict[str, list[tuple[Any, ...]]]:
    return {table: index.table(table) for table in TABLES}


def files(index: Index) -> list[tuple[Any, ...]]:
    return index.rows("SELECT filename, build_id FROM files ORDER BY 1")


def dependencies(index: Index) -> list[tuple[Any, ...]]:
    return index.table("dependencies")


# Packages


def test_newpkg_adds_a_package_once(index: Index) -> None:
    assert index.apply(new_package("numpy", skip="no", description="Arrays")) == {"numpy": 1}
    assert index.table("packages") == [("numpy", "no", "Arrays")]
    # Nothing if it exists.
    assert index.apply(new_package("numpy", skip="other", description="other")) == {}
    assert index.table("packages") == [("numpy", "no", "Arrays")]
    assert index.counts() == [("numpy", 0, 0)]


def test_setdesc_and_skippkg(index: Index) -> None:
    index.apply(new_package("numpy"))
    assert index.apply(message("SETDESC", package="numpy", description="Arrays")) == {"numpy": 2}
    assert index.apply(message("SKIPPKG", package="numpy", reason="no")) == {"numpy": 3}
    assert index.table("packages") == [("numpy", "no", "Arrays")]
    index.apply(message("SKIPPKG", package="numpy", reason=""))
    assert index.table("packages") == [("numpy", "", "Arrays")]


def test_newpkgname_adds_and_creates(index: Index) -> None:
    assert index.apply(new_name("rpi-gpio", "RPi.GPIO", "2026-11-01T10:00:00.5+01:00")) == {
        "rpi-gpio": 1
    }
    assert index.table("packages") == [("rpi-gpio", "", "")]
    assert index.table("package_names") == [("RPi.GPIO", "rpi-gpio", "2026-11-01 09:00:00.500000")]
    index.apply(new_name("rpi-gpio", "rpi.gpio", None))
    assert index.table("package_names")[1][2] == "1970-01-01 00:00:00.000000"


def test_name_seen_last_is_the_display_name(index: Index) -> None:
    def shown() -> Any:
        document = index.document("numpy")
        assert document is not None
        return json.loads(document)["name"]

    index.apply(new_package("numpy"))
    assert shown() == "numpy"
    index.apply(new_name("numpy", "NumPy", "2026-01-02T00:00:00Z"))
    index.apply(new_name("numpy", "NUMPY", "2026-01-01T00:00:00Z"))
    assert shown() == "NumPy"
    # Its time may go back, too.
    assert index.apply(new_name("numpy", "NumPy", "2025-01-01T00:00:00Z")) == {"numpy": 4}
    assert shown() == "NUMPY"
    index.apply(new_name("numpy", "NumPy", None))
    assert shown() == "NUMPY"
    # Of names seen together, the greatest.
    index.apply(new_name("numpy", "NumPY", "2026-01-01T00:00:00Z"))
    assert shown() == "NumPY"
    index.apply(new_name("numpy", "Numpy", "2026-01-01T00:00:00.000001Z"))
    assert shown() == "Numpy"


def test_name_belongs_to_the_package_that_had_it_first(index: Index) -> None:
    index.apply(new_name("one", "Name", "2026-01-01T00:00:00Z"))
    touched = index.apply(new_name("two", "Name", "2026-01-02T00:00:00Z"))
    assert index.table("package_names") == [("Name", "one", "2026-01-02 00:00:00.000000")]
    assert touched == {"one": 2, "two": 2}
    assert index.table("packages") == [("one", "", ""), ("two", "", "")]
    # Until that is deleted.
    index.apply(message("DELPKG", package="one"))
    index.apply(new_name("two", "Name", None))
    assert index.table("package_names") == [("Name", "two", "1970-01-01 00:00:00.000000")]


def test_delpkg_takes_all_below_it(index: Index) -> None:
    index.apply(
        set_abis("cp311"),
        new_name("numpy", "NumPy"),
        new_version("numpy", "1.0"),
        log_build(1, "numpy", "1.0", file(WHEEL, dependencies={"apt": ["libc6"]})),
        log_build(2, "numpy", "2.0", status=False),
        new_package("scipy"),
    )
    assert index.apply(message("DELPKG", package="numpy")) == {"numpy": 7, "NumPy": 7}
    found = everything(index)
    assert found["packages"] == [("scipy", "", "")]
    for table in ("package_names", "versions", "builds", "files", "dependencies"):
        assert found[table] == [], table
    assert index.counts() == [("scipy", 0, 0)]
    assert index.apply(message("DELPKG", package="numpy")) == {}


def test_a_deleted_package_that_appears_again_has_only_its_downloads(index: Index) -> None:
    """Only its downloads come back."""
    index.apply(
        new_package("numpy", skip="no", description="old"),
        new_name("numpy", "NumPy"),
        log_build(1, "numpy", "1.0", WHEEL),
        log_download(WHEEL),
        message("DELPKG", package="numpy"),
        log_download(WHEEL),
        new_package("numpy"),
    )
    assert index.table("packages") == [("numpy", "", "")]
    assert index.table("package_names") == index.table("versions") == index.table("files") == []
    assert index.counts() == [("numpy", 0, 2)]


# Versions


def test_newver_adds_a_version_and_its_package_once(index: Index) -> None:
    released = "2026-11-19T13:00:00.999999+01:00"
    assert index.apply(new_version("numpy", "1.0", released, skip="no")) == {"numpy": 1}
    assert index.table("packages") == [("numpy", "", "")]
    assert index.table("versions") == [("numpy", "1.0", "2026-11-19 12:00:00", "no", 0)]
    # Nothing if it exists.
    assert index.apply(new_version("numpy", "1.0", LATER)) == {}
    assert index.table("versions") == [("numpy", "1.0", "2026-11-19 12:00:00", "no", 0)]
    # Versions that compare equal are different.
    index.apply(new_version("numpy", "1.0.0"))
    assert len(index.table("versions")) == 2


def test_time_of_the_message_stands_for_what_it_does_not_say(index: Index) -> None:
    index.apply(
        samples.message("NEWVER", LATER, package="numpy", version="1.0", released=None),
        log_build(1, "numpy", "2.0", at=LATER),
    )
    assert [row[2] for row in index.table("versions")] == ["2026-11-21 08:00:00"] * 2


def test_skipver_yankver_unyankver(index: Index) -> None:
    index.apply(new_version("numpy", "1.0"))
    of = {"package": "numpy", "version": "1.0"}
    assert index.apply(message("SKIPVER", **of, reason="broken")) == {"numpy": 2}
    assert index.apply(message("YANKVER", **of)) == {"numpy": 3}
    assert index.table("versions") == [("numpy", "1.0", SQL, "broken", 1)]
    assert index.apply(message("SKIPVER", **of, reason="")) == {"numpy": 4}
    assert index.apply(message("UNYANKVER", **of)) == {"numpy": 5}
    assert index.table("versions") == [("numpy", "1.0", SQL, "", 0)]


def test_delver_takes_its_builds_and_files(index: Index) -> None:
    index.apply(
        log_build(1, "numpy", "1.0", file(WHEEL, dependencies={"apt": ["libc6"]})),
        log_build(2, "numpy", "2.0", "numpy-2.0-py3-none-any.whl"),
    )
    assert index.apply(message("DELVER", package="numpy", version="1.0")) == {"numpy": 3}
    assert [row[1] for row in index.table("versions")] == ["2.0"]
    assert [row[0] for row in index.table("builds")] == [2]
    assert files(index) == [("numpy-2.0-py3-none-any.whl", 2)]
    assert dependencies(index) == []
    assert index.apply(message("DELVER", package="numpy", version="1.0")) == {}
    assert index.table("packages") == [("numpy", "", "")]


@pytest.mark.parametrize(
    "envelope",
    [
        message("SETDESC", package="nobody", description="x"),
        message("SKIPPKG", package="nobody", reason="x"),
        message("DELPKG", package="nobody"),
        message("SKIPVER", package="nobody", version="1", reason="x"),
        message("YANKVER", package="nobody", version="1"),
        message("UNYANKVER", package="nobody", version="1"),
        message("DELVER", package="nobody", version="1"),
        message("DELBUILD", package="nobody", version="1"),
        message("SKIPVER", package="numpy", version="1", reason="x"),
        message("YANKVER", package="numpy", version="1"),
        message("UNYANKVER", package="numpy", version="1"),
        message("DELVER", package="numpy", version="1"),
        message("DELBUILD", package="numpy", version="1"),
        downloads("nobody", 7, {}),
    ],
    ids=lambda envelope: f"{envelope['msg']} {envelope['data']['package']}",
)
def test_commands_about_what_is_unknown_do_nothing(
    envelope: samples.Envelope, index: Index
) -> None:
    index.apply(new_version("numpy", "2.0"))
    before = everything(index)
    assert index.apply(envelope) == {}
    assert everything(index) == before
    # Nor later, when it appears.
    index.apply(new_version("nobody", "1"), new_version("numpy", "1"))
    assert index.rows("SELECT package, skip, description FROM packages") == [
        ("nobody", "", ""),
        ("numpy", "", ""),
    ]
    assert index.rows("SELECT DISTINCT skip, yanked FROM versions") == [("", 0)]
    assert index.counts() == [("nobody", 0, 0), ("numpy", 0, 0)]


# Builds


def test_logbuild_creates_what_is_missing_above_it(index: Index) -> None:
    build = log_build(
        7,
        "numpy",
        "1.0",
        file(WHEEL, requires_python=">=3.9", dependencies={"apt": ["b", "a"], "": ["libx.so"]}),
        slave_id=3,
        duration=2.5,
    )
    assert index.apply(build) == {"numpy": 1}
    assert index.table("packages") == [("numpy", "", "")]
    assert index.table("versions") == [("numpy", "1.0", SQL, "", 0)]
    assert index.table("builds") == [(7, "numpy", "1.0", "cp311", 1, 3, SQL, 2.5, None, None)]
    assert index.table("files") == [
        (
            *(WHEEL, 7, 1000, samples.HASH, "numpy", "1.0", "cp311", "cp311", "linux_armv7l"),
            *(">=3.9", "/simple"),
        )
    ]
    assert dependencies(index) == [(WHEEL, "", "libx.so"), (WHEEL, "apt", "a"), (WHEEL, "apt", "b")]


def test_logbuild_of_what_exists_changes_nothing_above_it(index: Index) -> None:
    index.apply(
        new_package("numpy", skip="no", description="Arrays"),
        new_version("numpy", "1.0", LATER, skip="broken"),
        log_build(1, "numpy", "1.0"),
    )
    assert index.table("packages") == [("numpy", "no", "Arrays")]
    assert index.table("versions") == [("numpy", "1.0", "2026-11-21 08:00:00", "broken", 0)]


def test_build_id_that_exists_is_replaced(index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0", file(WHEEL, dependencies={"pip": ["x"]}), OTHER))
    touched = index.apply(
        log_build(1, "scipy", "2.0", "scipy-2.0-py3-none-any.whl", abi_tag="cp39", slave_id=2)
    )
    assert touched == {"numpy": 2, "scipy": 2}
    assert index.table("builds") == [(1, "scipy", "2.0", "cp39", 1, 2, SQL, 1.5, None, None)]
    assert files(index) == [("scipy-2.0-py3-none-any.whl", 1)]
    assert dependencies(index) == []
    # Of the same version, with some of the same files.
    index.apply(log_build(5, "numpy", "1.0", WHEEL, OTHER))
    index.apply(log_build(5, "numpy", "1.0", OTHER))
    assert files(index) == [(OTHER, 5), ("scipy-2.0-py3-none-any.whl", 1)]
    # And by one that failed.
    index.apply(log_build(5, "numpy", "1.0", OTHER, status=False))
    assert files(index) == [("scipy-2.0-py3-none-any.whl", 1)]


@pytest.mark.parametrize("together", [True, False])
def test_build_that_is_replaced_by_the_next_message(index: Index, together: bool) -> None:
    """Files of consecutive builds are added together, but not those of a deleted build."""
    first = log_build(1, "numpy", "1.0", file(WHEEL, dependencies={"pip": ["x"]}))
    second = log_build(1, "numpy", "1.0", OTHER)
    if together:
        index.apply(first, second)
    else:
        index.apply(first)
        index.apply(second)
    assert files(index) == [(OTHER, 1)]
    assert dependencies(index) == []


def test_file_that_exists_moves_with_new_dependencies(index: Index) -> None:
    index.apply(
        log_build(1, "numpy", "1.0", file(WHEEL, dependencies={"apt": ["old"]}), OTHER),
    )
    touched = index.apply(
        log_build(2, "scipy", "9", file(WHEEL, filesize=7, dependencies={"pip": ["new"]}))
    )
    assert touched == {"numpy": 2, "scipy": 2}
    assert files(index) == [(WHEEL, 2), (OTHER, 1)]
    assert dependencies(index) == [(WHEEL, "pip", "new")]
    assert index.rows("SELECT filesize FROM files WHERE filename = ?", WHEEL) == [(7,)]
    # It belongs to the package and version of its build, whatever its name says.
    scipy = json.loads(index.document("scipy") or b"")
    assert list(scipy["releases"]["9"]["files"]) == [WHEEL]
    assert WHEEL.encode() not in (index.document("numpy") or b"")
    # With the build that it went to it goes.
    index.apply(message("DELVER", package="scipy", version="9"))
    assert files(index) == [(OTHER, 1)]


def test_files_of_a_failed_build_are_dropped(index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0", WHEEL))
    index.apply(log_build(2, "numpy", "1.0", WHEEL, OTHER, status=False))
    assert files(index) == [(WHEEL, 1)]
    assert [row[4] for row in index.table("builds")] == [1, 0]


def test_success_without_files_is_accepted(index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0"))
    assert index.rows("SELECT build_id, status FROM builds") == [(1, 1)]


def test_of_two_files_of_one_name_the_last_counts(index: Index) -> None:
    index.apply(
        log_build(
            1,
            "numpy",
            "1.0",
            file(WHEEL, filesize=1, dependencies={"apt": ["first"]}),
            OTHER,
            file(WHEEL, filesize=2, dependencies={"pip": ["last"]}),
        )
    )
    assert index.rows("SELECT filename, filesize FROM files ORDER BY 1") == [
        (WHEEL, 2),
        (OTHER, 1000),
    ]
    assert dependencies(index) == [(WHEEL, "pip", "last")]


def test_dependency_that_is_named_twice(index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0", file(WHEEL, dependencies={"apt": ["a", "a", ""]})))
    assert dependencies(index) == [(WHEEL, "apt", ""), (WHEEL, "apt", "a")]


def test_delbuild_deletes_all_builds_of_a_version(index: Index) -> None:
    index.apply(
        log_build(1, "numpy", "1.0", WHEEL),
        log_build(2, "numpy", "1.0", status=False, abi_tag="cp39"),
        log_build(3, "numpy", "2.0", OTHER),
    )
    assert index.apply(message("DELBUILD", package="numpy", version="1.0")) == {"numpy": 4}
    assert [row[0] for row in index.table("builds")] == [3]
    assert files(index) == [(OTHER, 3)]
    assert [row[1] for row in index.table("versions")] == ["1.0", "2.0"]
    assert index.apply(message("DELBUILD", package="numpy", version="1.0")) == {}


# ABIs


def test_setabis_replaces_both_tables_and_touches_everything(index: Index) -> None:
    index.apply(new_package("numpy"), new_package("scipy"))
    first = set_abis("cp39", "cp311", preinstalled={"cp39": ["libc6", "zlib1g"]}, cp37m="too old")
    assert index.apply(first) == {"numpy": 3, "scipy": 3}
    assert index.table("build_abis") == [("cp311", ""), ("cp37m", "too old"), ("cp39", "")]
    assert index.table("preinstalled_apt_packages") == [("cp39", "libc6"), ("cp39", "zlib1g")]
    touched = index.apply(set_abis("cp313", preinstalled={"cp37m": ["libc6", "libc6"]}))
    assert touched == {"numpy": 4, "scipy": 4}
    assert index.table("build_abis") == [("cp313", "")]
    assert index.table("preinstalled_apt_packages") == [("cp37m", "libc6")]
    index.apply(set_abis())
    assert index.table("build_abis") == index.table("preinstalled_apt_packages") == []


def test_files_are_matched_anew_with_new_abis(index: Index) -> None:
    def status() -> list[tuple[Any, ...]]:
        return index.rows("SELECT abi_tag, status FROM build_status ORDER BY 1")

    index.apply(
        log_build(1, "numpy", "1.0", "numpy-1.0-cp39-abi3-x.whl", abi_tag="cp39"),
        set_abis("cp37m", "cp311"),
    )
    assert status() == [("cp311", "success"), ("cp37m", "pending")]
    index.apply(set_abis("cp313"), log_build(2, "scipy", "1.0", "scipy-1.0-py3-none-x.whl"))
    assert status() == [("cp313", "success"), ("cp313", "success")]


# Snapshots


def numpy_snapshot(**changes: object) -> samples.Envelope:
    """A snapshot with a file, a failure, an error, and what is pending."""
    data: dict[str, object] = {
        "name": "NumPy",
        "description": "Arrays",
        "aliases": ["numPy", "NUMPY"],
        "releases": {
            "1.0": snapshot_release(
                {
                    WHEEL: snapshot_file(
                        apt_dependencies=["libz"],
                        pip_dependencies=["six"],
                        requires_python=">=3.9",
                        location="https://x.org",
                    ),
                    "numpy-1.0-py3-none-any.whl": snapshot_file(
                        platform_tag="any", abi_tag="none", builder_abi="cp39"
                    ),
                },
                {
                    "cp311": ("success", 7),
                    "cp39": ("success", 5),
                    "cp313": ("fail", 8),
                    "cp314": ("error", 9),
                    "cp315": ("pending", None),
                },
            ),
            "2.0": {**snapshot_release(), "skip": "broken", "yanked": True},
        },
    }
    return snapshot("numpy", LATER, **data | changes)


def test_a_snapshot_replaces_a_package(index: Index) -> None:
    assert "numpy" in index.apply(numpy_snapshot())
    assert index.table("packages") == [("numpy", "", "Arrays")]
    assert {row[0] for row in index.table("package_names")} >= {"NumPy", "numPy", "NUMPY"}
    assert index.table("versions") == [
        ("numpy", "1.0", SQL, "", 0),
        ("numpy", "2.0", SQL, "broken", 1),
    ]
    assert index.rows("SELECT build_id, version, abi_tag, status, duration FROM builds") == [
        (5, "1.0", "cp39", 1, None),
        (7, "1.0", "cp311", 1, None),
        (8, "1.0", "cp313", 0, None),
        (9, "1.0", "cp314", 1, None),
    ]
    assert files(index) == [(WHEEL, 7), ("numpy-1.0-py3-none-any.whl", 5)]
    assert dependencies(index) == [(WHEEL, "apt", "libz"), (WHEEL, "pip", "six")]
    document = json.loads(index.document("numpy") or b"")
    assert (document["name"], document["summary"]) == ("NumPy", "Arrays")
    shown = document["releases"]["1.0"]["files"][WHEEL]
    assert shown["requires_python"] == ">=3.9"
    assert shown["file_url"] == f"https://x.org/numpy/{WHEEL}"
    assert shown["build_duration"] is None


def test_snapshot_has_the_statuses_that_the_master_told(index: Index) -> None:
    index.apply(set_abis("cp311", "cp39", "cp313", "cp314", "cp315"))
    told = {"1.0": snapshot_release({WHEEL: snapshot_file()}, {
        "cp311": ("success", 7),
        "cp39": ("pending", None),
        "cp313": ("fail", 8),
        "cp314": ("error", 9),
        "cp315": ("fail", 3),
    })}  # fmt: skip
    index.apply(numpy_snapshot(releases=told))
    found = index.rows("SELECT abi_tag, status, build_id FROM build_status ORDER BY 1")
    assert found == [
        ("cp311", "success", 7),
        ("cp313", "fail", 8),
        ("cp314", "error", 9),
        ("cp315", "fail", 3),
        ("cp39", "pending", None),
    ]


def test_snapshot_replaces_what_it_tells_and_leaves_the_rest(index: Index, tmp_path: Path) -> None:
    index.apply(
        new_package("numpy", skip="no", description="old"),
        new_name("numpy", "Old.Name"),
        log_build(1, "numpy", "0.9", "numpy-0.9-py3-none-any.whl"),
        log_build(2, "numpy", "1.0", file(WHEEL, dependencies={"apt": ["old"]})),
        log_download(WHEEL),
    )
    touched = index.apply(numpy_snapshot())
    assert {"numpy", "Old.Name"} <= touched.keys()
    fresh = Index(tmp_path / "fresh.db")
    with fresh:
        fresh.apply(numpy_snapshot())
        for table in ("packages", "package_names", "versions", "files", "dependencies"):
            assert index.table(table) == fresh.table(table), table
        attempt = (2, "numpy", "1.0", "cp311", 1, 1, SQL, 1.5, None, None)
        assert index.table("builds") == [attempt, *fresh.table("builds")]
    assert index.counts() == [("numpy", 0, 1)]
    # Once more changes nothing.
    before = everything(index)
    index.apply(numpy_snapshot())
    assert everything(index) == before


def told(*abis: tuple[str, str, int | None], **files: dict[str, Any]) -> dict[str, Any]:
    """The releases of a snapshot: version 1.0 with these builds and these files."""
    release = snapshot_release(
        {f"numpy-1.0-{tags.replace('_', '-', 2)}.whl": found for tags, found in files.items()},
        {abi: (status, build_id) for abi, status, build_id in abis},
    )
    return {"1.0": release}


FAILURE = {"category": "missing-header", "detail": "pybind11/pybind11.h"}


def test_snapshot_keeps_what_is_known_of_its_builds(index: Index) -> None:
    index.apply(
        log_build(7, "numpy", "1.0", file(WHEEL), duration=2.5, slave_id=3),
        log_build(8, "numpy", "1.0", abi_tag="cp39", status=False, failure=FAILURE),
        log_build(9, "numpy", "1.0", abi_tag="cp313", status=False),
        log_build(10, "numpy", "2.0", "numpy-2.0-py3-none-any.whl"),
    )
    before = index.table("builds")
    releases = told(
        ("cp311", "success", 7), ("cp39", "fail", 8), cp311_cp311_linux_armv7l=snapshot_file()
    )
    index.apply(numpy_snapshot(releases=releases))
    assert index.table("builds") == before[:3], "9 is not told, and its version is there"
    assert index.rows("SELECT filename, build_id FROM files") == [(WHEEL, 7)]
    # What it tells itself comes to it.
    [release] = releases.values()
    release["abis"]["cp39"] |= {"slave_id": 4, "built_at": LATER, "duration": 0.5}
    index.apply(numpy_snapshot(releases=releases))
    assert index.rows("SELECT * FROM builds WHERE build_id = 8") == [
        (8, "numpy", "1.0", "cp39", 0, 4, "2026-11-21 08:00:00", 0.5, *FAILURE.values())
    ]


def test_snapshot_leaves_a_file_with_the_build_that_made_it(index: Index) -> None:
    """A master tells one build an ABI; the index may know that there were two."""
    first, second = "numpy-1.0-cp311-cp311-a.whl", "numpy-1.0-cp311-cp311-b.whl"
    index.apply(log_build(7, "numpy", "1.0", first), log_build(8, "numpy", "1.0", second))
    both = {"cp311_cp311_a": snapshot_file(), "cp311_cp311_b": snapshot_file()}
    index.apply(numpy_snapshot(releases=told(("cp311", "success", 8), **both)))
    assert files(index) == [(first, 7), (second, 8)]
    # Nor does it matter that its ABI is not built for any more.
    index.apply(numpy_snapshot(releases=told(**both)))
    assert files(index) == [(first, 7), (second, 8)]
    # Another content was made by another build: the one that is told, or nobody knows which.
    both["cp311_cp311_a"] = snapshot_file(filehash="e" * 64)
    index.apply(numpy_snapshot(releases=told(("cp311", "success", 9), **both)))
    assert files(index) == [(first, 9), (second, 8)]
    both["cp311_cp311_a"] = snapshot_file(filehash="f" * 64)
    index.apply(numpy_snapshot(releases=told(**both)))
    assert files(index) == [(first, -1), (second, 8)]
    document = json.loads(index.document("numpy") or b"")["releases"]["1.0"]
    assert [content["build_id"] for content in document["files"][first]["earlier"]] == [9, 7]
    assert [build["build_id"] for build in document["builds"]] == [9, 8, 7]


# Reasons, places and earlier contents


def test_a_failure_may_be_found_out_later(index: Index) -> None:
    index.apply(
        log_build(1, "numpy", "1.0", status=False, failure=FAILURE),
        log_build(2, "numpy", "1.0", status=False),
        log_build(3, "numpy", "1.0", WHEEL, failure=FAILURE),
    )
    reasons = "SELECT failure_category, failure_detail FROM builds ORDER BY build_id"
    known = tuple(FAILURE.values())
    assert index.rows(reasons) == [known, (None, None), (None, None)]
    unknown = {"category": "unknown", "detail": ""}
    assert index.apply(message("FAILURE", build_id=2, failure=unknown)) == {"numpy": 4}
    assert index.rows(reasons) == [known, ("unknown", ""), (None, None)]
    later = [message("FAILURE", build_id=build_id, failure=FAILURE) for build_id in (3, 4)]
    assert index.apply(*later) == {}, "one did not fail, the other is not known"
    [(count,)] = index.rows("SELECT sum(builds) FROM failure_reasons")
    assert count == 2


SCIPY = "scipy-1-py3-none-any.whl"


def test_files_move_to_where_they_are_served_from(index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0", WHEEL, OTHER), log_build(2, "scipy", "1", SCIPY))
    moved = message("MOVEFILES", package="numpy", files={WHEEL: "/old", SCIPY: "/x", "no": "/y"})
    assert index.apply(moved) == {"numpy": 3}
    assert index.rows("SELECT filename, location FROM files ORDER BY 1") == sorted(
        [(WHEEL, "/old"), (OTHER, "/simple"), (SCIPY, "/simple")]
    )
    assert index.apply(moved) == {}


@pytest.mark.parametrize(
    "gone",
    [
        message("DELBUILD", package="numpy", version="1.0"),
        message("DELVER", package="numpy", version="1.0"),
        message("DELPKG", package="numpy"),
        log_build(2, "scipy", "1.0"),
        numpy_snapshot(releases={}),
    ],
    ids=lambda envelope: str(envelope["msg"]),
)
def test_earlier_contents_outlive_what_they_belonged_to(
    gone: samples.Envelope, index: Index
) -> None:
    def content(digit: str) -> dict[str, Any]:
        return file(WHEEL, filehash=digit * 64, filesize=int(digit))

    index.apply(
        log_build(1, "numpy", "1.0", content("1")),
        log_build(2, "numpy", "1.0", content("2"), at=LATER),
        gone,
        log_build(3, "other", "1.0", content("1")),
        log_build(4, "other", "1.0", content("4")),
    )
    found = json.loads(index.document("other") or b"")["releases"]["1.0"]["files"][WHEEL]
    assert [(one["filesize"], one["build_id"], one["built_at"]) for one in found["earlier"]] == [
        (2, 2, "2026-11-21 08:00:00"),
        (1, 1, SQL),
    ]
    assert index.rows("SELECT filesize, current FROM file_history") == [(4, 1), (2, 0), (1, 0)]


def test_a_requirement_of_python_decides_what_fits(index: Index) -> None:
    index.apply(
        set_abis("cp39", "cp311"),
        log_build(1, "numpy", "1.0", file(OTHER, requires_python=">=3.10")),
        log_build(2, "numpy", "2.0", file("numpy-2.0-py3-none-any.whl", requires_python="no")),
    )
    statuses = "SELECT version, abi_tag, status FROM build_status ORDER BY 1, 2"
    expected = [
        ("1.0", "cp311", "success"),
        ("1.0", "cp39", "pending"),
        ("2.0", "cp311", "success"),
        ("2.0", "cp39", "success"),
    ]
    assert index.rows(statuses) == expected
    document = json.loads(index.document("numpy") or b"")
    assert expected == [
        (version, abi, found["status"])
        for version, release in sorted(document["releases"].items())
        for abi, found in release["abis"].items()
    ]
    # Other ABIs are matched anew.
    index.apply(set_abis("cp38"))
    assert index.rows(statuses) == [("1.0", "cp38", "pending"), ("2.0", "cp38", "success")]


def test_snapshot_respects_who_had_a_name_first(index: Index) -> None:
    index.apply(new_name("other", "NUMPY", "2026-01-01T00:00:00Z"))
    index.apply(numpy_snapshot())
    owners = dict(index.rows("SELECT name, package FROM package_names"))
    assert owners["NUMPY"] == "other"
    assert owners["NumPy"] == owners["numPy"] == "numpy"


def test_snapshot_takes_over_files_and_builds(index: Index) -> None:
    index.apply(log_build(7, "other", "1", "other-1-py3-none-any.whl"))
    index.apply(log_build(1, "scipy", "1", WHEEL))
    touched = index.apply(numpy_snapshot())
    assert touched.keys() >= {"numpy", "other", "scipy"}
    assert files(index) == [(WHEEL, 7), ("numpy-1.0-py3-none-any.whl", 5)]


def test_snapshot_of_a_file_whose_build_is_not_told(index: Index) -> None:
    """Disabled ABIs are not listed, but what was built for them is."""
    releases = {"1.0": snapshot_release({WHEEL: snapshot_file(builder_abi="cp37m")})}
    index.apply(set_abis("cp311"), numpy_snapshot(releases=releases))
    [(build_id, abi_tag)] = index.rows("SELECT build_id, abi_tag FROM builds")
    assert build_id < 0
    assert abi_tag == "cp37m"
    release = json.loads(index.document("numpy") or b"")["releases"]["1.0"]
    assert release["abis"]["cp311"] == {
        "status": "success",
        "build_id": None,
        "duration": None,
        "log_url": None,
        "platforms": ["linux_armv7l"],
    }
    assert release["files"][WHEEL]["builder_abi"] == "cp37m"
    # It is not among the builds that an admin looks at.
    assert index.rows("SELECT * FROM recent_builds") == []
    # The same for others: each gets a number of its own.
    name = "scipy-1.0-py3-none-any.whl"
    releases = {"1.0": snapshot_release({name: snapshot_file(builder_abi="cp39")})}
    index.apply(snapshot("scipy", releases=releases))
    assert len(index.rows("SELECT build_id FROM builds WHERE build_id < 0")) == 2


def test_snapshot_of_a_skipped_version_names_the_build_of_its_files(index: Index) -> None:
    releases = {"1.0": snapshot_release({WHEEL: snapshot_file()}, {"cp311": ("skip", 7)})}
    index.apply(set_abis("cp311"), numpy_snapshot(releases=releases))
    assert files(index) == [(WHEEL, 7)]


def test_snapshot_of_a_skipped_version_does_not_tell_how_attempts_ended(index: Index) -> None:
    """They were taken for failures, though some had succeeded."""
    releases = {"1.0": snapshot_release({}, {"cp311": ("skip", 7), "cp39": ("skip", 8)})}
    known = log_build(8, "numpy", "1.0", abi_tag="cp39", status=False)
    index.apply(set_abis("cp39", "cp311"), known, numpy_snapshot(releases=releases))
    assert index.rows("SELECT build_id, status FROM builds") == [(8, 0)]


def test_snapshot_of_a_file_whose_builder_is_disabled(index: Index) -> None:
    """An ABI that the file fits and that has no file of its own names the build."""
    name = "numpy-1.0-py3-none-any.whl"
    releases = {
        "1.0": snapshot_release(
            {
                name: snapshot_file(abi_tag="none", builder_abi="cp37m"),
                WHEEL: snapshot_file(),
            },
            {"cp311": ("success", 7), "cp39": ("fail", 8), "cp313": ("success", 9)},
        )
    }
    index.apply(set_abis("cp39", "cp311", "cp313"), numpy_snapshot(releases=releases))
    assert files(index) == [(WHEEL, 7), (name, 9)]


def test_snapshot_of_a_wheel_with_a_build_number(index: Index) -> None:
    """PEP 427: the number stands between the version and the tags."""
    name = "numpy-1.0-2-cp311-cp311-linux_armv7l.whl"
    index.apply(numpy_snapshot(releases={"1.0": snapshot_release({name: snapshot_file()})}))
    assert index.rows("SELECT package_tag, package_version_tag, py_version_tag FROM files") == [
        ("numpy", "1.0", "cp311")
    ]


def test_snapshot_of_an_empty_package(index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0", WHEEL), snapshot("numpy"))
    assert index.table("versions") == index.table("builds") == index.table("files") == []
    assert index.document("numpy") is not None


# How messages are batched does not matter


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_batches_give_the_same_rows(size: int, tmp_path: Path) -> None:
    with Index(tmp_path / "one.db") as one, Index(tmp_path / "batches.db") as batches:
        one.apply(*samples.EVERY)
        for start in range(0, len(samples.EVERY), size):
            batches.apply(*samples.EVERY[start : start + size])
        assert everything(one) == everything(batches)
        assert one.table("rewrites_pending") == batches.table("rewrites_pending")
        assert one.table("state") == batches.table("state")


def test_what_was_applied_is_not_applied_again(index: Index) -> None:
    """The journal may give a message twice; later messages are applied nevertheless."""
    index.apply(new_package("numpy"), log_download(WHEEL))
    index.serial = 0
    index.apply(new_package("numpy"), log_download(WHEEL), new_package("scipy"))
    assert index.counts() == [("numpy", 0, 1), ("scipy", 0, 0)]


def test_marks_keep_the_last_serial(index: Index) -> None:
    index.apply(new_package("numpy"), new_package("scipy"), new_version("numpy", "1.0"))
    assert index.table("rewrites_pending") == [("numpy", 3), ("scipy", 2)]
    pending.clear(index.connection, [("numpy", 2), ("scipy", 2)])
    assert index.table("rewrites_pending") == [("numpy", 3)]
    assert list(pending.names(index.connection)) == ["numpy"]
    assert pending.count(index.connection) == 1
    index.apply(message("DELPKG", package="scipy"), new_name("numpy", "NumPy"))
    assert index.table("rewrites_pending") == [("numpy", 5), ("scipy", 4)]
    marked = pending.marked(index.connection, (0, ""), 10)
    assert marked == [("scipy", 4), ("numpy", 5)]
    assert pending.marked(index.connection, (4, "scipy"), 10) == [("numpy", 5)]
    assert pending.marked(index.connection, (0, ""), 1) == [("scipy", 4)]


def test_batch_that_fails_leaves_nothing(index: Index) -> None:
    index.apply(new_package("numpy"))
    before = everything(index)
    index.connection.execute(
        "CREATE TEMP TRIGGER stop BEFORE INSERT ON versions BEGIN SELECT raise(ABORT, 'no'); END"
    )
    with pytest.raises(Exception, match="no"):
        index.apply(new_package("scipy"), log_download(WHEEL), new_version("numpy", "1.0"))
    assert everything(index) == before
    index.connection.execute("DROP TRIGGER stop")
    index.serial = 1
    index.apply(new_package("scipy"), log_download(WHEEL), new_version("numpy", "1.0"))
    assert index.counts() == [("numpy", 0, 1), ("scipy", 0, 0)]


def test_at_of_downloads_is_when_they_happened(index: Index) -> None:
    index.apply(new_package("numpy"), log_download(WHEEL, "2026-11-20T13:59:59.999999Z"))
    assert index.rows("SELECT datetime(hour, 'unixepoch') FROM download_hours") == [
        ("2026-11-20 13:00:00",)
    ]


def test_success_of_a_snapshot_that_no_file_fits_is_another_abis(index: Index) -> None:
    """A master compares ABIs as text, and calls cp39 a success because of a file for cp311."""
    index.apply(
        set_abis("cp39", "cp311"),
        snapshot(
            "numpy",
            releases={
                "1.0": snapshot_release(
                    {WHEEL: snapshot_file()}, {"cp311": ("success", 7), "cp39": ("success", 8)}
                )
            },
        ),
    )
    assert [(row[0], row[3]) for row in index.table("builds")] == [(7, "cp311")]


def test_a_number_that_a_snapshot_tells_twice_ends_as_its_own_abi_says(index: Index) -> None:
    """It is called well on an ABI that no file fits: that says nothing of the other ABI."""
    abis: dict[str, tuple[str, int | None]] = {"cp310": ("success", 7), "cp37m": ("fail", 7)}
    index.apply(snapshot("numpy", releases={"1.0": snapshot_release({}, abis)}))
    assert index.rows("SELECT build_id, abi_tag, status FROM builds") == [(7, "cp37m", 0)]


def test_a_file_that_a_snapshot_names_twice_has_the_last_content_only(index: Index) -> None:
    name = "numpy-1.0-cp311-cp311-linux_armv7l.whl"

    def told(*hashes: str) -> Any:
        files = [{name: snapshot_file(filehash=one * 64)} for one in hashes]
        releases = {f"1.{n}": snapshot_release(some) for n, some in enumerate(files)}
        return snapshot("numpy", releases=releases)

    history = "SELECT substr(filehash, 1, 1), current FROM file_history"
    index.apply(told("a", "b"))
    assert index.rows(history) == [("b", 1)]
    index.apply(told("b", "a"))
    assert index.rows(history) == [("a", 1), ("b", 0)]
    index.apply(told("c"))
    assert index.rows(history) == [("c", 1), ("a", 0), ("b", 0)]
