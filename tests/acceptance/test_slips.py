"""A slip in an option that names a path: nobody's file is replaced, and --validate sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support import REPOSITORY, RUN, Feed, Result, Site, case_named, contents, piw

pytestmark = pytest.mark.acceptance

CASE = case_named("basic")
WATCH = ["--validate", *RUN.split()[1:]]


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A directory of somebody, with files whose names are also ours."""
    full = tmp_path / "full"
    (full / "spool" / "mail").mkdir(parents=True)
    for name in ("lock", "handling", "bridge", "check.json", "notes.txt"):
        (full / name).write_text("theirs")
        (full / name).chmod(0o666)
    return full


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site that has something to publish, with directories apart from the others here."""
    site = Site(tmp_path)
    site.piw("ingest", CASE.messages)
    return site


def assert_refused(result: Result, *parts: object) -> None:
    for part in (*parts, "what to do: "):
        assert str(part) in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["run", *WATCH],
        RUN.split(),
        ["ingest", CASE.messages],
        ["publish"],
        ["bridge", "--", "--dsn=x"],
    ],
)
def test_a_full_directory_is_not_a_state(
    command: list[object], site: Site, full: Path, ipc: Feed
) -> None:
    before = contents(full)
    site.state_dir = full
    name, *rest = map(str, command)
    queues = ipc.options if name in ("publish", "bridge") else []
    where = full / "spool" if command == ["publish"] else full
    piwheels = {"PYTHONPATH": str(REPOSITORY / "tests" / "standin")}
    result = site.piw(name, *queues, *rest, settings=piwheels, status=3)
    assert_refused(result, f"directory {where}: ")
    assert contents(full) == before


def test_a_full_directory_is_not_a_backup(site: Site, full: Path) -> None:
    before = contents(full)
    assert_refused(site.piw("backup", full, status=3), f"the backup directory {full}", "lock")
    assert contents(full) == before
    for _ in range(2):
        site.piw("backup", site.home / "backup")


@pytest.mark.parametrize("name", ["packages.json", "project/numpy/json/index.json"])
def test_documents_of_another_program_stay(site: Site, name: str) -> None:
    theirs = site.output_path / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    for command in (["write"], ["rebuild"], ["check", "--fix"], RUN.split(), ["run", *WATCH]):
        result = site.piw(*command, status=3)
        assert_refused(result, theirs, f"mkdir {site.output_path / '.piw-indexer'}")
        assert theirs.read_text() == "theirs"
    (site.output_path / ".piw-indexer").mkdir()
    site.piw("run", *WATCH)
    site.piw("write")
    assert theirs.read_text() != "theirs"


@pytest.mark.parametrize("output", ["state", "state/www", "."])
def test_the_state_is_not_published(site: Site, output: str) -> None:
    site.output_path = site.home / output
    for command in (["write"], ["run", *WATCH], ["ingest", "--write", CASE.messages]):
        assert_refused(site.piw(*map(str, command), status=2), "in the other")
    link = site.home / "link"
    link.symlink_to(site.output_path)
    site.output_path = link
    assert_refused(site.piw("write", status=2), "in the other")


def test_a_demo_does_not_publish_its_state(site: Site) -> None:
    there = site.home / "demo"
    places = ["--state-dir", there, "--output-path", there / "www"]
    assert_refused(site.piw("demo", *places, status=2), "in the other")


def test_a_textfile_replaces_only_textfiles(site: Site) -> None:
    file = site.home / "file"
    for theirs in (b"theirs", b"# HELP node_load1 1m load average.\n"):
        file.write_bytes(theirs)
        assert_refused(site.piw("metrics", "--textfile", file, status=2), file)
        assert file.read_bytes() == theirs
    file.write_bytes(b"")
    for _ in range(2):
        site.piw("metrics", "--textfile", file)
        assert b"piw_indexer_up" in file.read_bytes()


def test_keys_replace_nothing(site: Site) -> None:
    for suffix in (".key", ".pub"):
        file = site.home / f"it{suffix}"
        file.write_text("theirs")
        assert_refused(piw("keys", site.home / "it", home=site.home, status=2), file)
        assert file.read_text() == "theirs"
        file.unlink()
