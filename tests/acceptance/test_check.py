"""`check` finds what does not agree, and `check --fix` mends it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from .. import samples
from ..support import Feed, Site, case_named, contents

pytestmark = pytest.mark.acceptance

CASE = case_named("lifecycle")
Content = dict[str, bytes | str]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with the documents of a case, as the present has them."""
    site = Site(tmp_path_factory.mktemp("pristine"))
    site.ingest(CASE.messages)
    return site


@pytest.fixture
def checked(pristine: Site, site: Site) -> Site:
    """A copy of it to spoil."""
    site.copy(pristine)
    return site


def published(site: Site) -> Content:
    return {name: content for name, (content, _, _) in contents(site.output_path).items()}


def rows(site: Site) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(site.state_dir / "index.db")
    try:
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
            for table in ("packages", "package_names", "versions", "builds", "files",
                          "dependencies", "build_abis", "download_counts", "download_hours")
        }  # fmt: skip
    finally:
        connection.close()


def first_alias(site: Site) -> Path:
    return next(path for path in (site.output_path / "project").iterdir() if path.is_symlink())


def document(site: Site, package: str = "skipper") -> Path:
    return site.output_path / "project" / package / "json" / "index.json"


def edit_document(site: Site) -> str:
    document(site).write_bytes(b"{}")
    return str(document(site))


def delete_document(site: Site) -> str:
    document(site).unlink()
    return str(document(site))


def delete_project(site: Site) -> str:
    shutil.rmtree(document(site).parent.parent)
    return str(document(site))


def stray_document(site: Site) -> str:
    document(site, "stranger").parent.mkdir(parents=True)
    document(site, "stranger").write_bytes(b"{}")
    return "stranger"


def alias_to_elsewhere(site: Site) -> str:
    alias = first_alias(site)
    alias.unlink()
    alias.symlink_to("nobody")
    return alias.name


def alias_gone(site: Site) -> str:
    alias = first_alias(site)
    alias.unlink()
    return alias.name


def stray_alias(site: Site) -> str:
    (site.output_path / "project" / "Stranger").symlink_to("skipper")
    return "Stranger"


def edit_packages(site: Site) -> str:
    (site.output_path / "packages.json").write_bytes(b"[]")
    return "packages.json"


def edit_compressed_packages(site: Site) -> str:
    (site.output_path / "packages.json.gz").write_bytes(b"old")
    return "packages.json"


def delete_packages(site: Site) -> str:
    (site.output_path / "packages.json").unlink()
    return "packages.json"


def delete_compressed_packages(site: Site) -> str:
    (site.output_path / "packages.json.gz").unlink()
    return "packages.json"


def in_index(statement: str, says: str) -> Callable[[Site], str]:
    def spoil(site: Site) -> str:
        connection = sqlite3.connect(site.state_dir / "index.db")
        with connection:
            assert connection.execute(statement).rowcount > 0
        connection.close()
        return says

    return spoil


def delete_index(site: Site) -> str:
    (site.state_dir / "index.db").unlink()
    return "index.db"


def garble_index(site: Site) -> str:
    (site.state_dir / "index.db").write_bytes(b"garbage " * 4096)
    return "index"


def tear_index(site: Site) -> str:
    path = site.state_dir / "index.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: 3 * 4096] + b"\xff" * 20_000 + whole[3 * 4096 + 20_000 :])
    return "damaged"


SPOILS: dict[str, Callable[[Site], str]] = {
    "edited document": edit_document,
    "deleted document": delete_document,
    "deleted project": delete_project,
    "stray document": stray_document,
    "alias to elsewhere": alias_to_elsewhere,
    "deleted alias": alias_gone,
    "stray alias": stray_alias,
    "edited packages.json": edit_packages,
    "edited packages.json.gz": edit_compressed_packages,
    "deleted packages.json": delete_packages,
    "deleted packages.json.gz": delete_compressed_packages,
    "changed description": in_index(
        "UPDATE packages SET description = 'x' WHERE package = 'skipper'", "packages"
    ),
    "changed build": in_index("UPDATE builds SET status = 1 - status", "builds"),
    "deleted version": in_index(
        "DELETE FROM versions WHERE package = 'skipper' AND version = '1.0'", "versions"
    ),
    "deleted file": in_index("DELETE FROM files WHERE filename LIKE '%a%'", "files"),
    "row without a parent": in_index(
        "INSERT INTO dependencies VALUES ('nowhere.whl', 'apt', 'x')", "dependencies"
    ),
    "changed counter": in_index(
        "UPDATE download_counts SET downloads_all = downloads_all + 1", "download_counts"
    ),
    "deleted index": delete_index,
    "garbled index": garble_index,
    "torn index": tear_index,
}


def test_no_differences(checked: Site) -> None:
    before = contents(checked.output_path)
    assert checked.piw("check").stdout == "No differences.\n"
    assert checked.piw("check", "--fix").stdout.endswith("No differences.\n")
    assert contents(checked.output_path) == before


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS.keys())
def test_differences(spoil: Callable[[Site], str], checked: Site, pristine: Site) -> None:
    says = spoil(checked)
    spoiled = published(checked)
    result = checked.piw("check", status=1)
    assert says in result.stdout
    assert published(checked) == spoiled, "check alone changes nothing"

    fixed = checked.piw("check", "--fix")
    assert fixed.status == 0
    assert checked.piw("check").stdout == "No differences.\n"
    assert published(checked) == published(pristine)
    assert rows(checked) == rows(pristine)


def test_several_differences_at_once(checked: Site, pristine: Site) -> None:
    says = [
        spoil(checked)
        for name, spoil in SPOILS.items()
        if name in ("deleted project", "stray document", "stray alias", "edited packages.json")
    ]
    result = checked.piw("check", status=1)
    for part in says:
        assert part in result.stdout
    checked.piw("check", "--fix")
    assert published(checked) == published(pristine)


def test_documents_of_an_index_that_differs(checked: Site, pristine: Site) -> None:
    """They are looked at when it is mended, and mended, too."""
    SPOILS["changed build"](checked)
    for name in ("edited document", "stray alias", "deleted packages.json"):
        SPOILS[name](checked)
    assert "builds" in checked.piw("check", status=1).stdout
    checked.piw("check", "--fix")
    assert published(checked) == published(pristine)
    assert rows(checked) == rows(pristine)


def test_what_is_pending_is_no_difference(checked: Site) -> None:
    checked.take(
        samples.message("SETDESC", package="skipper", description="new"),
        samples.message("DELPKG", package="version-zoo"),
        samples.new_name("skipper", "SKIPPER"),
        write=False,
    )
    assert checked.piw("check").stdout == "No differences.\n"
    checked.piw("write")
    assert checked.piw("check").stdout == "No differences.\n"
    assert os.readlink(checked.output_path / "project" / "SKIPPER") == "skipper"


def test_files_of_others_are_none_of_our_business(checked: Site) -> None:
    project = checked.output_path / "project"
    theirs = [
        checked.output_path / "index.html",
        project / "index.html",
        project / "skipper" / "index.html",
        project / "skipper" / "json" / "other.json",
        project / "other" / "index.html",
        project / "Other.Name" / "file",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"theirs")
    (project / "their-link").symlink_to("../index.html")
    assert checked.piw("check").stdout == "No differences.\n"

    # They stay where a package is deleted, and where all is written anew.
    checked.take(samples.message("DELPKG", package="skipper"))
    checked.piw("write", "--all")
    checked.piw("rebuild")
    checked.piw("check", "--fix")
    for path in theirs:
        assert path.read_bytes() == b"theirs"
    assert os.readlink(project / "their-link") == "../index.html"
    assert not document(checked).exists()
    assert checked.piw("check").stdout == "No differences.\n"


def test_check_beside_a_running_daemon(ipc: Feed, checked: Site) -> None:
    with checked.daemon(ipc) as daemon:
        checked.wait(lambda found: f"pid {daemon.pid}" in found["held_by"], daemon)
        assert checked.piw("check").stdout == "No differences.\n"
        edit_document(checked)
        assert "skipper" in checked.piw("check", status=1).stdout
        daemon.terminate()
