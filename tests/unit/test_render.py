"""Rendering: the document of a package and packages.json, from rows to bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from indexer.documents import counters
from indexer.documents.project import log_url, render
from indexer.index.fits import fit
from indexer.index.queries import Abis, Project

pytestmark = pytest.mark.unit

URL = "https://www.piwheels.org"
RELEASED = "2026-11-20 12:00:00"
HASH = "0123456789abcdef" * 4

Row = tuple[Any, ...]


def version(text: str, skip: str = "", yanked: int = 0) -> tuple[str, str, str, int]:
    return text, RELEASED, skip, yanked


def file(
    filename: str,
    *,
    of: str = "1.0",
    builder: str = "cp311",
    build_id: int = 1,
    duration: float | None = 1.5,
    requires_python: str | None = None,
    location: str = "/simple",
) -> Row:
    python, abi, platform = filename.removesuffix(".whl").split("-")[2:]
    return (
        *(of, builder, duration, RELEASED, build_id, filename, 1000, HASH),
        *(python, abi, platform, requires_python, location),
    )


def project(
    versions: list[tuple[str, str, str, int]],
    builds: list[tuple[int, str, str, int, float | None]] | None = None,
    files: list[Row] | None = None,
    dependencies: list[tuple[str, str, str]] | None = None,
    **changes: Any,
) -> Project:
    rows = Project(
        package="numpy",
        name="NumPy",
        skip="",
        description="Arrays",
        versions=versions,
        builds=[(*build, RELEASED, 3, None, None) for build in builds or []],
        files=files or [],
        contents=[],
        dependencies=dependencies or [],
        aliases=[],
    )
    return rows._replace(**changes)


def abis(*active: str, preinstalled: dict[str, list[str]] | None = None) -> Abis:
    fits: dict[tuple[str, str], dict[str, int]] = {}
    for python in ("cp39", "cp311", "cp313", "py3", "py2.py3"):
        for file_abi in ("cp39", "cp311", "cp313", "abi3", "none"):
            for abi in active:
                rank = fit(python, file_abi, abi)
                if rank is not None:
                    fits.setdefault((python, file_abi), {})[abi] = rank
    return Abis(
        tuple(sorted(active)),
        {abi: frozenset(names) for abi, names in (preinstalled or {}).items()},
        fits,
    )


def rendered(rows: Project, known: Abis | None = None, site_url: str = URL) -> Any:
    return json.loads(render(rows, known or abis("cp311"), site_url))


def statuses(rows: Project, known: Abis) -> dict[str, tuple[str, int | None, float | None]]:
    return {
        abi: (found["status"], found["build_id"], found["duration"])
        for abi, found in rendered(rows, known)["releases"]["1.0"]["abis"].items()
    }


def test_a_whole_document_byte_for_byte() -> None:
    name = "numpy-1.0-cp311-cp311-linux_armv7l.whl"
    rows = project(
        [version("1.0")],
        [(7, "1.0", "cp311", 1, 2.25)],
        [file(name, build_id=7, duration=2.25, requires_python=">=3.9")],
        [(name, "pip", "b"), (name, "pip", "a"), (name, "apt", "libz"), (name, "apt", "libc6")],
    )
    document = render(rows, abis("cp311", preinstalled={"cp311": ["libc6"]}), URL)
    assert document.decode() == (
        '{"package":"numpy","name":"NumPy","summary":"Arrays",'
        '"pypi_url":"https://pypi.org/project/numpy",'
        '"piwheels_url":"https://www.piwheels.org/project/numpy",'
        '"releases":{"1.0":{"released":"2026-11-20 12:00:00","prerelease":false,"yanked":false,'
        '"skip_reason":"","abis":{"cp311":{"status":"success","build_id":7,"duration":2.25,'
        '"log_url":"/logs/0000/0000/0007.txt.gz","platforms":["linux_armv7l"]}},'
        f'"files":{{"{name}":{{"file_url":"/simple/numpy/{name}","filehash":"{HASH}",'
        '"filesize":1000,"builder_abi":"cp311","file_abi_tag":"cp311","platform":"linux_armv7l",'
        '"requires_python":">=3.9","apt_dependencies":["libz"],"pip_dependencies":["a","b"],'
        '"build_duration":2.25,"build_id":7,"built_at":"2026-11-20 12:00:00","earlier":[]}},'
        '"builds":[{"build_id":7,"abi":"cp311","status":"success",'
        '"built_at":"2026-11-20 12:00:00","duration":2.25,"slave_id":3,'
        '"log_url":"/logs/0000/0000/0007.txt.gz","failure":null}]}}}'
    )


def test_package_without_versions() -> None:
    assert rendered(project([], description=""))["releases"] == {}


def test_text_is_utf8() -> None:
    document = render(project([], description='Größe \U0001f40d "'), abis(), URL)
    assert 'Größe \U0001f40d \\"'.encode() in document


def test_urls_begin_with_the_site_and_the_location() -> None:
    one, other = "a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"
    rows = project([version("1.0")], [], [file(one), file(other, location="https://x.org/y")])
    found = rendered(rows, site_url="https://mine.example")
    assert found["piwheels_url"] == "https://mine.example/project/numpy"
    files = found["releases"]["1.0"]["files"]
    assert files[one]["file_url"] == f"/simple/numpy/{one}"
    assert files[other]["file_url"] == f"https://x.org/y/numpy/{other}"


def test_order_of_releases() -> None:
    """The newest first; equal versions by text, the greater first; invalid versions last."""
    expected = [
        *("2!0.1", "2024.1", "10.0", "2.0.post1", "2.0+local", "2.0", "2.0rc1", "2.0.dev1"),
        *("v1.0", "1.0.0", "1.0", "0.9", "zzz", "2004d", "1.0-final-final", " "),
    ]
    for shuffled in (expected, expected[::-1], sorted(expected)):
        releases = rendered(project([version(text) for text in shuffled]))["releases"]
        assert list(releases) == expected


@pytest.mark.parametrize(
    ("text", "prerelease"),
    [
        ("1.0", False),
        ("1.0a1", True),
        ("1.0-beta.2", True),
        ("1.0rc1", True),
        ("1.0.dev3", True),
        ("1.0.post1", False),
        ("1.0.post1.dev2", True),
        ("1.0+rc1", False),
        ("rc1", False),
        ("1.0-final-alpha", False),
    ],
)
def test_prereleases_are_those_of_pep_440(text: str, prerelease: bool) -> None:
    assert rendered(project([version(text)]))["releases"][text]["prerelease"] is prerelease


def test_yanked_versions_say_so() -> None:
    found = rendered(project([version("1.0", yanked=1), version("2.0")]))["releases"]
    assert (found["1.0"]["yanked"], found["2.0"]["yanked"]) == (True, False)


@pytest.mark.parametrize(
    ("of_version", "of_package", "shown"),
    [("", "", ""), ("broken", "", "broken"), ("", "no", "no"), ("broken", "no", "broken")],
)
def test_skip_reason_is_the_versions_else_the_packages(
    of_version: str, of_package: str, shown: str
) -> None:
    rows = project([version("1.0", of_version)], skip=of_package)
    release = rendered(rows)["releases"]["1.0"]
    assert release["skip_reason"] == shown
    assert release["abis"]["cp311"]["status"] == ("skip" if shown else "pending")


def test_nothing_was_tried() -> None:
    known = abis("cp39", "cp311")
    assert statuses(project([version("1.0")]), known) == {
        "cp311": ("pending", None, None),
        "cp39": ("pending", None, None),
    }


def test_status_is_that_of_the_latest_attempt_on_that_abi() -> None:
    rows = project(
        [version("1.0")],
        [
            (3, "1.0", "cp311", 0, 3.5),
            (1, "1.0", "cp311", 1, 1.5),
            (4, "1.0", "cp39", 1, 4.5),
            (2, "1.0", "cp39", 0, 2.5),
        ],
    )
    assert statuses(rows, abis("cp39", "cp311", "cp313")) == {
        "cp311": ("fail", 3, 3.5),
        "cp313": ("pending", None, None),
        "cp39": ("error", 4, 4.5),  # it is said to have succeeded, and made nothing that fits
    }


def test_file_that_fits_is_a_success_whatever_happened_later() -> None:
    rows = project(
        [version("1.0")],
        [(1, "1.0", "cp39", 1, 1.5), (2, "1.0", "cp311", 0, 2.5)],
        [file("a-1.0-py3-none-any.whl", builder="cp39", build_id=1)],
    )
    assert statuses(rows, abis("cp39", "cp311")) == {
        "cp311": ("success", 1, 1.5),
        "cp39": ("success", 1, 1.5),
    }


def test_file_of_another_version_does_not_count() -> None:
    rows = project([version("1.0"), version("2.0")], [], [file("a-2.0-py3-none-any.whl", of="2.0")])
    assert statuses(rows, abis("cp311")) == {"cp311": ("pending", None, None)}


BEST = [
    # own abi_tag before abi3 before none, before everything else
    file("a-1.0-cp311-cp311-x.whl", builder="cp39", build_id=1, duration=1.0),
    file("a-1.0-cp39-abi3-x.whl", builder="cp311", build_id=3, duration=2.0),
    file("b-1.0-cp39-abi3-x.whl", builder="cp311", build_id=2, duration=3.0),
    # built on that ABI before elsewhere, before the build_id
    file("c-1.0-cp39-abi3-x.whl", builder="cp39", build_id=9, duration=4.0),
    file("d-1.0-py3-none-x.whl", builder="cp311", build_id=5, duration=5.0),
    # then the highest build_id
    file("e-1.0-py3-none-x.whl", builder="cp39", build_id=8, duration=6.0),
    file("f-1.0-py3-none-x.whl", builder="cp39", build_id=7, duration=7.0),
]


@pytest.mark.parametrize("skipped", range(len(BEST)))
def test_build_that_decided_is_that_of_the_best_fitting_file(skipped: int) -> None:
    best = BEST[skipped]
    for files in (BEST[skipped:], BEST[skipped:][::-1]):
        rows = project([version("1.0")], [], files)
        assert statuses(rows, abis("cp311"))["cp311"] == ("success", best[4], best[2])


def test_build_without_a_number() -> None:
    rows = project(
        [version("1.0")],
        [(-1, "1.0", "cp311", 1, None)],
        [file("a-1.0-py3-none-any.whl", build_id=-1, duration=None)],
    )
    found = rendered(rows)["releases"]["1.0"]
    assert found["abis"]["cp311"] == {
        "status": "success",
        "build_id": None,
        "duration": None,
        "log_url": None,
        "platforms": ["any"],
    }
    assert found["builds"] == []
    assert found["files"]["a-1.0-py3-none-any.whl"]["build_duration"] is None


def test_skipped_version_keeps_the_build_that_decided() -> None:
    rows = project([version("1.0", "broken")], [(5, "1.0", "cp311", 0, 2.5)])
    assert statuses(rows, abis("cp311")) == {"cp311": ("skip", 5, 2.5)}


def test_entries_of_active_abis_only_sorted_by_name() -> None:
    found = rendered(project([version("1.0")]), abis("cp313", "cp39", "cp311"))
    assert list(found["releases"]["1.0"]["abis"]) == ["cp311", "cp313", "cp39"]


def test_apt_dependencies_leave_out_what_the_files_own_abi_has() -> None:
    """The file's abi_tag counts, not its builder's; the list of an inactive ABI counts, too."""
    names = {
        "a-1.0-cp39-cp39-x.whl": ["libc6", "libz"],
        "b-1.0-cp311-cp311-x.whl": ["libz"],
        "c-1.0-py3-none-x.whl": ["libc6", "libssl", "libz"],
    }
    rows = project(
        [version("1.0")],
        [],
        [file(name, builder="cp311") for name in names],
        [(name, "apt", lib) for name in names for lib in ("libz", "libssl", "libc6")],
    )
    known = abis("cp311", preinstalled={"cp39": ["libssl"], "cp311": ["libssl", "libc6"]})
    files = rendered(rows, known)["releases"]["1.0"]["files"]
    assert {name: found["apt_dependencies"] for name, found in files.items()} == names


def test_dependencies_sort_by_code_point() -> None:
    name = "a-1.0-py3-none-any.whl"
    dependencies = [(name, tool, lib) for tool in ("apt", "pip") for lib in ("é", "b", "B", "a")]
    rows = project([version("1.0")], [], [file(name)], dependencies)
    found = rendered(rows)["releases"]["1.0"]["files"][name]
    assert found["apt_dependencies"] == found["pip_dependencies"] == ["B", "a", "b", "é"]


@pytest.mark.parametrize("requires", [None, "", ">=3.9"])
def test_requires_python_is_published_as_it_is(requires: str | None) -> None:
    name = "a-1.0-py3-none-any.whl"
    rows = project([version("1.0")], [], [file(name, requires_python=requires)])
    assert rendered(rows)["releases"]["1.0"]["files"][name]["requires_python"] == requires


@pytest.mark.parametrize(
    ("build_id", "url"),
    [
        (1, "/logs/0000/0000/0001.txt.gz"),
        (9_999, "/logs/0000/0000/9999.txt.gz"),
        (10_000, "/logs/0000/0001/0000.txt.gz"),
        (12_345_678, "/logs/0000/1234/5678.txt.gz"),
        (100_000_000, "/logs/0001/0000/0000.txt.gz"),
        (123_456_789_012, "/logs/1234/5678/9012.txt.gz"),
    ],
)
def test_log_url_is_the_build_id_in_base_10_000(build_id: int, url: str) -> None:
    assert log_url(build_id) == url


def test_same_rows_same_bytes() -> None:
    names = ["a-1.0-py3-none-any.whl", "b-1.0-cp311-cp311-x.whl"]
    builds: list[tuple[int, str, str, int, float | None]] = [
        (1, "1.0", "cp311", 1, 1.5),
        (2, "1.0", "cp39", 0, 2.5),
    ]
    dependencies = [(name, "apt", lib) for name in names for lib in ("x", "y", "z")]
    files = [file(name) for name in names]
    versions = [version("1.0"), version("1.0.0"), version("0.1")]
    one = project(versions, builds, files, dependencies)
    # The rows come from the index sorted by filename, all else in any order.
    other = project(versions[::-1], builds[::-1], files, dependencies[::-1])
    known = abis("cp311", "cp39")
    assert render(one, known, URL) == render(other, known, URL)


@pytest.mark.parametrize(
    ("rows", "document"),
    [
        ([], "[]"),
        ([[]], "[]"),
        ([[("a", 1, 2)]], '[["a",1,2]]'),
        ([[("a", 1, 2)], [("b", 0, 0), ("c", 3, 4)]], '[["a",1,2],["b",0,0],["c",3,4]]'),
        ([[], [("a", 0, 0)], [], [("b", 0, 0)], []], '[["a",0,0],["b",0,0]]'),
    ],
)
def test_packages_json_is_compact_and_complete(
    rows: list[list[tuple[str, int, int]]], document: str
) -> None:
    assert b"".join(counters.render(rows)).decode() == document
