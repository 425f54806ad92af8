"""README.md is correct (commands, options and queries), and stays short."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from indexer.cli import piw_indexer
from indexer.demo.simulation import Farm

from .. import markdown, needs
from ..support import REPOSITORY, environment, piw

pytestmark = pytest.mark.acceptance

README = (REPOSITORY / "README.md").read_text()
PROSE = markdown.prose(README)
INLINE = markdown.inline(README)
QUERIES = [typed for typed in markdown.typed(README) if typed.line.startswith("sqlite3 ")]
COMMANDS = piw_indexer.commands


def spellings(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 250


def test_options_of_the_command_itself() -> None:
    assert spellings(piw_indexer) - {"--help", "-h"} <= set(INLINE)


def test_every_option_that_is_mentioned_exists() -> None:
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PROSE))
    existing = set().union(*map(spellings, (piw_indexer, *COMMANDS.values())))
    assert mentioned
    assert mentioned - existing <= {"--help"}


def test_what_an_administrator_does_is_a_dozen_commands() -> None:
    table = PROSE.partition("\n## What an administrator does\n")[2].partition("\n## ")[0]
    shown = {line.split()[1] for line in markdown.inline(table) if line.startswith("piw-indexer ")}
    assert len(shown & COMMANDS.keys()) >= 12


def test_make_targets_of_the_readme_exist() -> None:
    assert re.findall(r"^    make (\w+)", PROSE, re.M) == ["run", "test"]
    shown = re.findall(r'make run ARGS="([^"]*)"', PROSE)
    assert shown
    for arguments in shown:
        COMMANDS["demo"].make_context("demo", shlex.split(arguments))


def sqlite3(line: str, directory: Path) -> str:
    """The output of a command line with sqlite3 in a directory."""
    program, *arguments = shlex.split(line)
    assert program == "sqlite3"
    return subprocess.run(
        [needs.program("sqlite3"), *arguments],
        env=environment(directory),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a small farm with events of today."""
    home = tmp_path_factory.mktemp("farm")
    # Its life ends tomorrow: "today" must not be over while this runs.
    now = datetime.now(UTC).replace(hour=23, minute=59) + timedelta(days=1)
    farm = Farm(packages=300, failure_rate=0.15, downloads=5000, days=8, now=now, seed=3)
    with (home / "farm.jsonl").open("w") as file:
        for message in farm.messages():
            file.write(json.dumps(message) + "\n")
    piw("ingest", "farm.jsonl", "--state-dir", "state", home=home)
    return home / "state"


def test_the_query_answers_what_is_shown(state: Path) -> None:
    (query,) = QUERIES
    answer = markdown.words(sqlite3(query.line, state))
    shown = markdown.words(query.output)
    assert answer[0] == shown[0], "its columns"
    assert len(answer) > 2, "rows"
    assert len(shown) > 2


def test_queries_in_the_prose(state: Path) -> None:
    lines = [text for text in INLINE if text.startswith("sqlite3 -")]
    assert lines
    for line in lines:
        assert sqlite3(line, state), line
