"""docs/: every page is in its index, every link leads somewhere, and what the tour names exists."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from indexer.cli import piw_indexer

from .. import manual, markdown
from ..support import REPOSITORY
from ..unit.test_architecture import MODULES, PACKAGES

pytestmark = pytest.mark.acceptance

DOCS = REPOSITORY / "docs"
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted(DOCS.glob("*.md"))]
TOUR = (DOCS / "design.md").read_text()
CONTRIBUTING = (REPOSITORY / "CONTRIBUTING.md").read_text()


def prose(page: Path) -> str:
    return markdown.prose(page.read_text())


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w -]", "", one).strip().lower().replace(" ", "-") for one in headings}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(REPOSITORY), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_in_the_index() -> None:
    assert manual.not_in_index() == []
    assert "docs/README.md" in links(REPOSITORY / "README.md")


def named(text: str) -> list[tuple[str, str]]:
    """(module, attribute) for everything in backquotes that begins with a module's name."""
    found = []
    for quoted in re.findall(r"`([a-z_]+(?:\.\w+)*)`", text):
        parts = quoted.split(".")
        for end in range(len(parts), 0, -1):
            if ".".join(parts[:end]) in MODULES:
                found.append((".".join(parts[:end]), ".".join(parts[end:])))
                break
    return found


def test_modules_and_functions_of_the_tour_exist() -> None:
    assert len({one for one in named(TOUR) if one[1]}) > 25
    for module, inside in named(TOUR + CONTRIBUTING):
        found = importlib.import_module(f"indexer.{module}")
        for name in filter(None, inside.split(".")):
            assert hasattr(found, name), f"{module}.{inside}"
            found = getattr(found, name)


def test_what_looks_like_code_in_the_tour_is_ours() -> None:
    pages = TOUR + CONTRIBUTING
    known = {f"{module}.{inside}".rstrip(".") for module, inside in named(pages)}
    for quoted in re.findall(r"`([a-z_]+(?:\.\w+)+)`", pages):
        assert quoted in known or quoted.endswith((".json", ".md")), quoted


@pytest.mark.parametrize("page", [TOUR, CONTRIBUTING], ids=["design", "contributing"])
def test_files_and_names_in_them_exist(page: str) -> None:
    paths = re.findall(r"`((?:tests|schema|indexer|docs)/[\w./-]*)`", page)
    assert len(paths) >= 5
    for path in paths:
        assert (REPOSITORY / path).exists(), path
    names = re.findall(r"`(tests/\S+\.py)`\s\(`([A-Z]+)`\)", page)
    assert names
    for file, name in names:
        assert re.search(rf"^{name}\b", (REPOSITORY / file).read_text(), re.M), name


def test_contributing_fits_a_screen() -> None:
    assert len(CONTRIBUTING.splitlines()) <= 70


def test_contributing_has_the_order_of_packages() -> None:
    (listed,) = re.findall(r"\n\n((?:    [a-z., ]+\n)+)\n", CONTRIBUTING)
    assert re.split(r"[,\s]+", listed.strip()) == PACKAGES


def test_targets_of_make_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`make (\w+)", prose(page)):
            assert re.search(rf"^{target}:", makefile, re.M), (page.name, target)


_OURS = re.compile(r"(?:sudo -u \w+ |runuser -u \w+ -- |/\S*/)*piw-indexer (.+)")


def typed() -> list[str]:
    """The arguments of `piw-indexer` in fenced blocks and in backquotes."""
    found = []
    for page in PAGES:
        if page.name == "commands.md":  # made from the commands themselves
            continue
        for line in page.read_text().splitlines():
            console = [line[2:]] if line.startswith("$ ") else []
            for part in [*console, *re.findall(r"`([^`]+)`", line)]:
                match = _OURS.match(part)
                if match:
                    found.append(match[1])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_valid(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed in markdown.typed(page.read_text()):
        program, *arguments = shlex.split(typed.line)
        if program == "piw-indexer":
            name, *options = arguments
            piw_indexer.commands[name].make_context(name, options)


def test_commands_and_options_that_are_typed_exist() -> None:
    seen = set()
    for line in typed():
        words = line.partition(" -- ")[0].split()
        while words and words[0] in ("-v", "-q", "--verbose", "--quiet"):
            del words[0]
        if not words or not re.fullmatch(r"[a-z-]+", words[0]) or words[0].startswith("--"):
            continue
        assert words[0] in piw_indexer.commands, line
        command = piw_indexer.commands[words[0]]
        spellings = {name for one in command.params for name in one.opts} | {"--help"}
        for word in words[1:]:
            option = word.rstrip(".,;:)").partition("=")[0]
            if re.fullmatch(r"--[a-z-]+|-c", option):
                assert option in spellings, line
                seen.add((words[0], option))
    assert len(seen) > 15
