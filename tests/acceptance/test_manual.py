"""docs/commands.md and the man pages: correct, well-formed, and installed."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from indexer.base import errors, options
from indexer.cli import piw_indexer

from .. import manual, needs
from ..support import REPOSITORY

pytestmark = pytest.mark.acceptance

MAN = REPOSITORY / "docs" / "man"
PAGES = sorted(MAN.iterdir())
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def mandoc(*arguments: object) -> str:
    done = subprocess.run(
        [needs.program("mandoc"), *map(str, arguments)],
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def rendered(name: str) -> str:
    """A page as a reader sees it, without bold type and line breaks."""
    text = mandoc("-Tutf8", "-Owidth=999", MAN / name)
    return re.sub(".\b", "", text)


def test_they_are_what_the_commands_say() -> None:
    assert manual.outdated() == [], "run `make docs`"


def test_what_is_outdated_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manual, "DOCS", tmp_path)
    (tmp_path / "man").mkdir()
    (tmp_path / "man" / "piw-indexer-gone.1").write_text("")
    (tmp_path / "commands.md").write_text("")
    pages = set(manual.made())
    assert set(manual.outdated()) == pages | {"man/piw-indexer-gone.1"}
    monkeypatch.setattr("sys.argv", ["manual", "--check"])
    with pytest.raises(SystemExit, match="make docs"):
        manual.main()
    monkeypatch.setattr("sys.argv", ["manual"])
    manual.main()
    assert manual.outdated() == []
    assert len(list((tmp_path / "man").iterdir())) == len(PAGES)


def test_every_command_has_a_page() -> None:
    assert {page.name for page in PAGES} == {
        "piw-indexer.1",
        "piw-indexer.conf.5",
        *(f"piw-indexer-{name}.1" for name in piw_indexer.commands),
    }


@by_page
def test_a_page_is_well_formed(page: Path) -> None:
    # The day of a build would make another page of it every time.
    faults = [
        line
        for line in mandoc("-Tlint", "-Wwarning", page).splitlines()
        if "missing date" not in line
    ]
    assert faults == []
    sections = re.findall(r"^\.SH (.*)$", page.read_text(), re.M)
    assert sections[0] == "NAME"
    assert sections[-1] == "SEE ALSO"


@pytest.mark.parametrize("name", piw_indexer.commands)
def test_a_page_has_every_option(name: str) -> None:
    page = rendered(f"piw-indexer-{name}.1")
    section = (manual.DOCS / "commands.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    for option in piw_indexer.commands[name].params:
        if not isinstance(option, click.Option):
            continue
        assert option.help
        assert option.help.replace("`", "") in page
        assert option.help.replace("|", "\\|") in section
        for spelling in option.opts:
            assert re.search(rf"^ +(-\w, )?{spelling}\b", page, re.M), spelling
            assert f"`{spelling}" in section
        if option.envvar:
            assert f"In the environment {option.envvar}" in page
            assert f"`{option.envvar}`" in section


def test_the_page_of_the_configuration_has_every_key() -> None:
    page = rendered("piw-indexer.conf.5")
    for key in (*options.OPTIONS, *options.FLAGS):
        assert re.search(rf"^ +{key} = ", page, re.M), key


def test_the_example_of_the_configuration_is_valid(tmp_path: Path) -> None:
    page = rendered("piw-indexer.conf.5")
    example = page.split("\nEXAMPLE\n")[1].split("\nSEE ALSO\n")[0]
    file = tmp_path / "piwheels.conf"
    file.write_text("\n".join(line.strip() for line in example.splitlines()))
    assert options.read_file(file)["settle"] == 2.0


def test_the_status_of_the_exit() -> None:
    of_errors = {
        error.exit_status for error in vars(errors).values() if hasattr(error, "exit_status")
    }
    differences = 1
    assert [number for number, _ in manual.EXIT_STATUS] == sorted({0, differences, *of_errors})


def test_pages_are_installed() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["data-files"]
    for section in ("1", "5"):
        (pattern,) = data[f"share/man/man{section}"]
        assert set(REPOSITORY.glob(pattern)) == {
            page for page in PAGES if page.suffix == f".{section}"
        }
