"""What an administrator asks about one package: the answers are what was published."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .. import samples
from ..support import COMMAND, Site, environment, read_until

pytestmark = pytest.mark.acceptance

LATER = "2026-11-21T12:00:00+00:00"
SIX = "six-1-py3-none-any.whl"
HISTORY = [
    samples.set_abis("cp39", "cp311", "cp313", preinstalled={"cp311": ["libc6"]}),
    samples.new_package("zope-interface", description="Interfaces for Python"),
    samples.new_name("zope-interface", "zope.interface"),
    samples.new_version("zope-interface", "5.0", "2026-01-02T03:04:05Z"),
    samples.new_version("zope-interface", "10.0", "2026-02-02T03:04:05Z"),
    samples.new_version("zope-interface", "11.0rc1", "2026-03-02T03:04:05Z"),
    samples.log_build(
        70001,
        "zope-interface",
        "10.0",
        abi_tag="cp39",
        status=False,
        slave_id=4,
        failure={"category": "missing-header", "detail": "Python.h"},
    ),
    samples.log_build(70002, "zope-interface", "10.0", abi_tag="cp311", status=False),
    samples.log_build(
        70003,
        "zope-interface",
        "10.0",
        {
            **samples.file("zope_interface-10.0-cp311-cp311-linux_armv7l.whl"),
            "requires_python": ">=3.9",
            "filesize": 5_483_371,
            "dependencies": {"apt": ["libc6", "libopenblas0"], "pip": ["idna"]},
        },
        duration=1042.5,
        slave_id=7,
        at=LATER,
    ),
    samples.message("YANKVER", package="zope-interface", version="5.0"),
    samples.message("SKIPVER", package="zope-interface", version="11.0rc1", reason="too large"),
    samples.log_download("zope_interface-10.0-cp311-cp311-linux_armv7l.whl", LATER),
    samples.new_package("numpy"),
    samples.new_package("old-thing"),
    samples.message("DELPKG", LATER, package="old-thing"),
    samples.new_version("zope-interface", "../etc"),
    samples.message("FAILURE", build_id=70002, failure={"category": "killed", "detail": ""}),
    samples.message("FAILURE", build_id=70099, failure={"category": "unknown", "detail": ""}),
    samples.message(
        "MOVEFILES",
        package="zope-interface",
        files={"zope_interface-10.0-cp311-cp311-linux_armv7l.whl": "/archive"},
    ),
    samples.log_build(
        70004, "six", "1", {**samples.file(SIX), "filehash": "1" * 64, "filesize": 1111}
    ),
    samples.log_build(70005, "six", "1", samples.file(SIX), at=LATER),
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with two packages and a deleted one; no test changes it."""
    site = Site(tmp_path_factory.mktemp("asked"))
    site.take(*HISTORY)
    return site


def published(site: Site, package: str) -> Any:
    return json.loads((site.output_path / "project" / package / "json/index.json").read_bytes())


def on_a_terminal(site: Site, *arguments: object, columns: int = 80) -> str:
    """Everything that a command shows on a terminal."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments), *map(str, site.state)],
        env=environment(site.home, TERM="xterm", COLUMNS=str(columns)),
        stdin=secondary,
        stdout=secondary,
        stderr=subprocess.DEVNULL,
    )
    os.close(secondary)
    seen = read_until(primary, None)
    os.close(primary)
    assert process.wait() == 0
    return seen


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_matrix_of_a_package(asked: Site) -> None:
    shown = lines(asked.piw("show", "zope-interface").stdout)
    assert shown[0] == ["zope.interface", *"Interfaces for Python".split()]
    assert shown[1] == "1 download in the last 30 days, 1 ever".split()
    assert shown[2:4] == [
        ["https://pypi.org/project/zope-interface"],
        ["https://www.piwheels.org/project/zope-interface"],
    ]
    assert shown[5:] == [
        ["version", "released", "cp39", "cp311", "cp313", "files"],
        "11.0rc1 2026-03-02 skip skip skip prerelease, skipped: too large".split(),
        "10.0 2026-02-02 fail success pending 1".split(),
        "5.0 2026-01-02 pending pending pending yanked".split(),
        [],
        "Why 10.0 fails; piw-indexer show zope-interface 10.0 says more:".split(),
        "abi why it failed log".split(),
        "cp39 missing-header: Python.h /logs/0000/0007/0001.txt.gz".split(),
    ]


def test_a_terminal_has_signs_and_a_legend(asked: Site) -> None:
    shown = on_a_terminal(asked, "show", "zope-interface")
    assert "\x1b[" in shown
    for sign, status in zip("✓✗!…–", "success fail error pending skip".split(), strict=True):
        assert sign in shown
        assert f"{status}   " in shown.replace("\x1b[0m", "")


def test_a_terminal_shows_the_newest_versions(site: Site) -> None:
    site.take(
        samples.set_abis("cp311"),
        *(samples.new_version("numpy", f"1.{number}") for number in range(25)),
    )
    shown = on_a_terminal(site, "show", "numpy")
    assert "and 5 older versions: --all shows them" in shown
    assert "1.5 " in shown
    assert "1.4 " not in shown
    assert "1.4 " in on_a_terminal(site, "show", "numpy", "--all")
    assert "1.4 " in site.piw("show", "numpy").stdout


@pytest.mark.parametrize("spelling", ["zope.interface", "Zope_Interface", "zope-interface"])
def test_any_spelling_will_do_and_programs_get_the_document(spelling: str, asked: Site) -> None:
    shown = json.loads(asked.piw("show", spelling, "--json").stdout)
    document = published(asked, "zope-interface")
    assert {key: shown[key] for key in document} == document
    assert list(shown["releases"]) == list(document["releases"])
    assert (shown["downloads_recent"], shown["downloads_all"]) == (1, 1)


def test_a_version_in_detail(asked: Site) -> None:
    shown = asked.piw("show", "zope-interface", "10.0").stdout
    rows = lines(shown)
    log = "/logs/0000/0007/0003.txt.gz"
    assert [*"cp311 success 70003 1042 s 7 2026-11-21 12:00".split(), log] in rows
    assert ["cp313", "pending"] in rows
    other = rows.index(["Other", "attempts:"])
    assert rows[other + 1] == "abi status build took slave when log".split()
    assert rows[other + 2][:-1] == "cp311 fail 70002 2 s 1 2026-11-20 12:00".split()
    file = published(asked, "zope-interface")["releases"]["10.0"]["files"]
    for value in (*file, "5,483,371 bytes", samples.HASH, ">=3.9", " libopenblas0\n", " idna\n"):
        assert value in shown
    equal = json.loads(asked.piw("show", "zope-interface", "10", "--json").stdout)
    assert list(equal["releases"]) == ["10.0"]
    assert [one["build_id"] for one in equal["releases"]["10.0"]["builds"]] == [70003, 70002, 70001]
    reasons = rows[rows.index("build abi why it failed".split()) :][1:3]
    expected = [["70002", "cp311", "killed"], ["70001", "cp39", "missing-header:", "Python.h"]]
    assert reasons == expected


def test_why_no_file_fits_and_why_nobody_knows(site: Site) -> None:
    new = {**samples.file("numpy-1.0-py3-none-any.whl"), "requires_python": ">=3.11"}
    site.take(
        samples.set_abis("cp39", "cp311"),
        samples.log_build(1, "numpy", "1.0", new, abi_tag="cp39"),
        samples.log_build(2, "six", "1.0", abi_tag="cp39", status=False),
    )
    said = "it was built, but no file fits: see their tags and Requires-Python"
    assert f"cp39 {said} /logs/0000/0000/0001.txt.gz".split() in lines(
        site.piw("show", "numpy").stdout
    )
    assert f"1 cp39 {said}".split() in lines(site.piw("show", "numpy", "1.0").stdout)
    assert "2 cp39 not known".split() in lines(site.piw("show", "six", "1.0").stdout)


def test_the_earlier_contents_of_a_file(asked: Site) -> None:
    shown = asked.piw("show", "six", "1").stdout
    assert "built   by build 70005, 2026-11-21 12:00:00\n" in shown
    assert (
        "earlier by build 70004, 2026-11-20 12:00:00, 1,111 bytes\n          " + "1" * 64 in shown
    )
    assert "1 version, 2 builds, 1 file, 1 earlier content" in asked.piw("explain", "six").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["numpi"], ["numpi", "did you mean numpy?"]),
        (["zopeinterface"], ["did you mean zope-interface?"]),
        (["nothing-like-it"], ["no package", "what to do"]),
        (["zope-interface", "10.1"], ["no such version", "did you mean 10.0"]),
        (["zope-interface", "xyz"], ["the newest is 11.0rc1"]),
        (["../../etc/passwd"], ["no package"]),
        ([""], ["no package"]),
    ],
)
def test_what_there_is_not(arguments: list[str], says: list[str], asked: Site) -> None:
    result = asked.piw("show", *arguments, status=2)
    assert result.stdout == ""
    for part in says:
        assert part in result.stderr


def test_a_state_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    assert "does not exist" in Site(tmp_path).piw("show", "numpy", status=3).stderr


def test_the_history_of_a_package(asked: Site) -> None:
    told = asked.piw("history", "Zope.Interface").stdout.splitlines()
    when = "2026-11-20 12:00:00"
    assert [line.partition("  (serial")[0] for line in told if "quarantine" not in line] == [
        f"{when}  {words}"
        for words in (
            "every package: the build ABIs are cp39, cp311, cp313",
            "the package appears",
            "its name is spelled zope.interface",
            "version 5.0 appears, released 2026-01-02 03:04:05",
            "version 10.0 appears, released 2026-02-02 03:04:05",
            "version 11.0rc1 appears, released 2026-03-02 03:04:05",
            "build 70001 of 10.0 on cp39 by slave 4: failed (missing-header: Python.h), 1.5 s,"
            " 0 files",
            "build 70002 of 10.0 on cp311 by slave 1: failed, 1.5 s, 0 files",
            "version 5.0 is yanked",
            "version 11.0rc1 is skipped: too large",
            "why build 70002 failed: killed",
            "files are served from elsewhere: zope_interface-10.0-cp311-cp311-linux_armv7l.whl"
            " to /archive",
        )
    ] + ["2026-11-21 12:00:00  build 70003 of 10.0 on cp311 by slave 7: success, 1042.5 s, 1 file"]
    assert re.search(r"\(serial 2, file [0-9a-f]{12} line 2\)$", told[1])
    (refused,) = [line for line in told if "quarantine" in line]
    assert "refused, number 1 in the quarantine: data.version" in refused


def test_a_part_of_the_history_for_programs(asked: Site) -> None:
    told = [
        json.loads(line)
        for line in asked.piw(
            "history", "zope-interface", "--json", "--with-downloads", "--since", LATER
        ).stdout.splitlines()
    ]
    assert [one["what"] for one in told[:2]] == ["DOWNLOADED", "LOGBUILD"]
    assert told[0]["data"] == {"downloads": 1}
    assert told[0]["at"] == "2026-11-21T00:00:00+00:00"
    assert told[1]["data"]["files"][0]["filesize"] == 5_483_371
    assert told[1]["serial"] == 9
    last = asked.piw("history", "zope-interface", "--limit", "2", "--json").stdout.splitlines()
    assert [json.loads(line)["what"] for line in last] == ["LOGBUILD", "REFUSED"]


def test_the_history_tells_what_a_masters_answer_changed(site: Site) -> None:
    """Beside a master, each line once said only that all was replaced."""
    wheel = "numpy-1.0-cp311-cp311-linux_armv7l.whl"
    file = samples.snapshot_file()
    first = {"1.0": samples.snapshot_release({wheel: file}, {"cp311": ("success", 7)})}
    second = {
        "1.0": {
            **samples.snapshot_release(
                {wheel: {**file, "filehash": "b" * 64, "location": "/archive"}},
                {"cp311": ("success", 9)},
            ),
            "yanked": True,
        },
        "1.1": {
            **samples.snapshot_release(abis={"cp311": ("fail", 8)}),
            "skip": "too large",
        },
    }
    later = "2026-11-21T12:00:00Z"
    site.take(
        samples.snapshot("numpy", releases=first, name="NumPy"),
        samples.snapshot("numpy", later, releases=first, name="NumPy"),
        samples.snapshot("numpy", later, releases=second, name="NumPy"),
        samples.snapshot("numpy", later, releases={}, name="NumPy", description="Arrays"),
    )
    told = [json.loads(line) for line in site.piw("history", "numpy", "--json").stdout.splitlines()]
    released = "released 2026-11-20 12:00:00"
    assert [one["data"]["changes"] for one in told] == [
        [
            "its name is spelled NumPy",
            f"version 1.0 appears, {released}",
            "build 7 of 1.0 on cp311: success",
            f"file {wheel} appears",
        ],
        [],
        [
            "version 1.0 is yanked",
            f"version 1.1 appears, {released}",
            "version 1.1 is skipped: too large",
            "build 8 of 1.1 on cp311: failed",
            "build 9 of 1.0 on cp311: success",
            f"file {wheel} has another content: 1,000 bytes, sha256 {'b' * 64}",
            f"file {wheel} is served from /archive",
        ],
        [
            "its summary is 'Arrays'",
            "version 1.0 is gone",
            "version 1.1 is gone",
            "build 7 is gone",
            "build 8 is gone",
            "build 9 is gone",
            f"file {wheel} is gone",
        ],
    ]
    lines = site.piw("history", "numpy").stdout.splitlines()
    assert "the master's answer: nothing that the index did not know" in lines[1]
    assert "the master's answer: version 1.0 is yanked; version 1.1 appears, " in lines[2]


def test_the_history_of_a_file(asked: Site) -> None:
    """As somebody asks whose pinned hash does not fit any more."""
    assert asked.piw("history", SIX).stdout.splitlines() == [
        f"2026-11-20 12:00:00  1,111 bytes, sha256 {'1' * 64}, by build 70004",
        f"2026-11-21 12:00:00  1,000 bytes, sha256 {samples.HASH}, by build 70005,"
        " the present content",
    ]
    assert json.loads(asked.piw("history", SIX, "--json", "--since", LATER).stdout) == {
        "filename": SIX,
        "filehash": samples.HASH,
        "filesize": 1000,
        "build_id": 70005,
        "built_at": "2026-11-21 12:00:00",
        "current": True,
    }
    assert "by build 70005" in asked.piw("history", SIX, "--limit", "1").stdout
    assert "name its package" in asked.piw("history", SIX, "--with-downloads", status=2).stderr


def test_the_history_of_what_is_gone_and_of_what_never_was(asked: Site) -> None:
    assert "the package is deleted" in asked.piw("history", "old-thing").stdout
    assert "did you mean numpy?" in asked.piw("history", "numpi", status=2).stderr
    result = asked.piw("history", "numpy", "--since", "2030-01-01T00:00:00Z")
    assert "Nothing happened to numpy since 2030-01-01" in result.stderr


def wrap_errors(site: Site, package: str) -> Any:
    return json.loads(site.piw("explain", package, "--json").stdout)


def test_explain_a_package_that_is_well(asked: Site) -> None:
    text = asked.piw("explain", "zope.interface").stdout
    for part in (
        "3 versions, 3 builds, 1 file, 0 earlier contents",
        "build 70002 of 10.0 on cp311: killed",
        "its log is /logs/0000/0007/0002.txt.gz",
        "build 70003 has succeeded there since",
        "zope.interface, its link is right",
        "2026-11-20 12:00:00  files are served from elsewhere",
        "(serial 18, file ",
        "in the quarantine: data.version",
        "1 in the last 30 days, 1 ever",
    ):
        assert part in text
    assert text.endswith("\nzope-interface is published as the index has it.\n")


def test_explain_what_is_no_package(asked: Site) -> None:
    gone = wrap_errors(asked, "old-thing")
    assert gone["deleted"]["msg"] == "DELPKG"
    assert "was deleted 2026-11-21 12:00:00 (serial 15, file " in gone["verdict"]
    never = wrap_errors(asked, "numpi")
    assert never["verdict"] == "numpi was never seen here."
    assert never["remedy"] == "did you mean numpy?"
    assert wrap_errors(asked, "../../etc")["document"] is None


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (
            lambda text: text.replace("Arrays", "Rays"),
            'summary is "Rays", should be "Arrays"',
        ),
        (
            lambda text: text.replace("cp311", "cp312"),
            "1.0.abis.cp311 is missing",
        ),
        (
            lambda text: text.replace('"yanked":false', '"yanked":true'),
            "1.0.yanked is true, should",
        ),
        (lambda text: text[1:], "it is not JSON"),
        (lambda text: None, "it is not there"),
    ],
)
def test_explain_a_document_that_is_wrong(
    spoil: Callable[[str], str | None], verdict: str, site: Site
) -> None:
    site.take(
        samples.set_abis("cp311"),
        samples.new_package("numpy", description="Arrays"),
        samples.new_version("numpy", "1.0"),
    )
    path = site.output_path / "project" / "numpy" / "json" / "index.json"
    spoiled = spoil(path.read_text())
    path.unlink() if spoiled is None else path.write_text(spoiled)
    found = wrap_errors(site, "numpy")
    assert verdict in found["verdict"]
    assert "check --fix" in found["remedy"]


def test_explain_an_alias_and_counters(site: Site) -> None:
    site.take(samples.new_package("numpy"), samples.new_name("numpy", "NumPy"))
    (site.output_path / "project" / "NumPy").unlink()
    assert "its alias NumPy: it is not there" in wrap_errors(site, "NumPy")["verdict"]
    site.piw("check", "--fix", status=None)
    assert wrap_errors(site, "numpy")["verdict"] == "numpy is published as the index has it."
    (site.output_path / "packages.json").write_text('[["numpy",1,2]]')
    assert "packages.json has other counters" in wrap_errors(site, "numpy")["verdict"]


@pytest.mark.parametrize("what", ["directory", "file", "link"])
def test_what_is_in_the_place_of_an_alias_stays_and_is_named(site: Site, what: str) -> None:
    blocked = site.output_path / "project" / "Foo.Bar"
    blocked.parent.mkdir(parents=True)
    if what == "file":
        blocked.write_text("old")
    elif what == "link":
        blocked.symlink_to("/nowhere")
    else:
        blocked.mkdir()
    lines = [samples.new_package("foo-bar"), samples.new_name("foo-bar", "Foo.Bar")]
    said = site.ingest("-", input=b"".join(map(samples.line, lines))).stderr
    cause = f"a {what} that is not ours is in its place"
    assert f"cannot link {blocked} to foo-bar: {cause}" in said
    assert "what to do: move that away" in said
    found = wrap_errors(site, "foo-bar")
    assert found["links"] == {"Foo.Bar": cause}
    assert found["verdict"] == f"foo-bar is published, but for its alias Foo.Bar: {cause}."
    assert found["remedy"].startswith(f"move {blocked} away")
    difference = (
        f"foo-bar: its alias Foo.Bar is not a link of ours, should be a link to it ({cause}"
    )
    assert difference in site.piw("check", status=1).stdout
    left = site.piw("check", "--fix", status=1).stdout
    assert "not repaired: documents: foo-bar: its alias Foo.Bar is not a link of ours" in left
    assert what != "link" or blocked.readlink() == Path("/nowhere")
    assert what == "link" or not blocked.is_symlink()
    blocked.rename(site.home / "elsewhere")
    site.piw("check", "--fix")
    assert blocked.readlink() == Path("foo-bar")
    assert wrap_errors(site, "foo-bar")["verdict"] == "foo-bar is published as the index has it."


def test_an_alias_that_is_too_long_for_a_file_is_not_a_difference(site: Site) -> None:
    """A name may have 200 characters, and a file's 255 bytes."""
    alias = "é" * 150
    site.take(samples.new_package("numpy"), samples.new_name("numpy", alias))
    site.piw("check")
    found = wrap_errors(site, "numpy")
    assert found["links"] == {alias: "no file can have so long a name"}
    assert found["verdict"] == "numpy is published as the index has it."


@pytest.mark.parametrize("found", ["5", "[5]", "[[]]", '[["numpy"]]', '[["numpy", "a", "b"]]'])
def test_explain_counters_of_others(found: str, site: Site) -> None:
    site.take(samples.new_package("numpy"))
    site.piw("write")
    (site.output_path / "packages.json").write_text(found)
    assert wrap_errors(site, "numpy")["counters"] is None
    assert "packages.json has other counters" in site.piw("explain", "numpy", status=None).stdout


def test_explain_what_is_pending(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    site.take(samples.new_version("numpy", "1.0"), samples.new_package("idna"), write=False)
    found = wrap_errors(site, "numpy")
    assert (found["pending"]["serial"], found["pending"]["since"]) == (2, "2026-11-20 12:00:00")
    assert "no daemon runs" in found["pending"]["waits"]
    assert "will be written again" in found["verdict"]
    assert "piw-indexer write" in found["remedy"]
    assert found["document"]["difference"] == "it differs: releases.1.0 is missing"
    site.piw("write")
    assert wrap_errors(site, "numpy")["pending"] is None
    site.take(samples.message("DELPKG", package="idna"), write=False)
    assert "is gone, and what is published of it will go" in wrap_errors(site, "idna")["verdict"]
