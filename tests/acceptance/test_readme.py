"""README.md is true: its commands, options, snippets and queries, and nothing is left out."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from indexer.base import options as config
from indexer.cli import piw_indexer
from indexer.demo.simulation import Farm

from ..support import COMMAND, REPOSITORY, environment, piw

pytestmark = pytest.mark.acceptance

README = (REPOSITORY / "README.md").read_text()
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
_ALWAYS = "--help"


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


class Typed(NamedTuple):
    """A command line of a console block, and what the README says that it prints."""

    line: str
    output: str


BLOCKS = [Block(kind, textwrap.dedent(text)) for _, kind, text in _FENCED.findall(README)]
PROSE = _FENCED.sub("", README)
INLINE = re.findall(r"`([^`\n]+)`", PROSE)


def _typed() -> list[Typed]:
    found = []
    for block in BLOCKS:
        if block.language == "console":
            first, *rest = re.split(r"^\$ ", block.text, flags=re.M)
            assert not first, f"a console block begins with a command: {block.text}"
            for one in rest:
                line, _, output = one.partition("\n")
                found.append(Typed(line, output))
    return found


TYPED = _typed()
OURS = [one.line for one in TYPED if one.line.startswith("piw-indexer ")]
QUERIES = [one for one in TYPED if one.line.startswith("sqlite3 ") and " index.db " in one.line]


def table(header: str) -> list[list[str]]:
    """The rows of the table whose first column is `header`, cells without their bars."""
    lines = PROSE[PROSE.index(f"| {header} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def quoted(cell: str) -> list[str]:
    """What stands in backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def options(command: click.Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option)]


def spellings(command: click.Command) -> set[str]:
    return {name for one in options(command) for name in (*one.opts, *one.secondary_opts)}


COMMANDS = piw_indexer.commands
EVERY_OPTION = set().union(*map(spellings, COMMANDS.values())) | spellings(piw_indexer)


def test_every_command_is_there_and_no_other() -> None:
    assert [quoted(row[0])[0].split()[0] for row in table("command")] == [
        *("run", "ingest", "write", "publish", "bridge"),
        *("backfill", "reconcile", "import-site", "rebuild"),
        *(
            "check",
            "checkpoint",
            "backup",
            "status",
            "top",
            "farm",
            "show",
            "history",
            "explain",
            "metrics",
            "quarantine",
            "install",
            "keys",
            "demo",
        ),
    ]
    assert {quoted(row[0])[0].split()[0] for row in table("command")} == set(COMMANDS)


def test_the_arguments_of_commands() -> None:
    for row in table("command"):
        name, *arguments = quoted(row[0])[0].split()
        usage = COMMANDS[name].collect_usage_pieces(click.Context(COMMANDS[name]))
        assert ["[OPTIONS]", *arguments] == usage


def owners(cell: str) -> set[str]:
    """The commands that a row of the options is about."""
    return set(COMMANDS) - set(quoted(cell)) if cell.startswith("all") else set(quoted(cell))


def test_every_option_of_every_command_is_there_and_no_other() -> None:
    documented = [
        (name, owner)
        for names, commands, _, _ in table("option")
        for name in quoted(names)
        for owner in owners(commands)
    ]
    existing = {(name, owner) for owner in COMMANDS for name in spellings(COMMANDS[owner])}
    assert len(documented) == len(set(documented)), "each once"
    assert set(documented) == existing


def test_the_defaults_of_options() -> None:
    for names, commands, default, _ in table("option"):
        for owner in owners(commands):
            (option,) = [one for one in options(COMMANDS[owner]) if one.opts[-1] in quoted(names)]
            value = option.to_info_dict()["default"]
            if isinstance(value, tuple):
                (value,) = value
            if value is None and owner == "demo":
                continue  # the prose says what it is
            shown = next(iter(quoted(default)), None)
            unset = value is None or value is False
            assert (None if unset else str(value)) == shown, (names, owner)


def test_options_of_the_command_itself() -> None:
    assert spellings(piw_indexer) <= set(INLINE)


def test_every_option_that_is_mentioned_exists() -> None:
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PROSE))
    assert mentioned - EVERY_OPTION <= {_ALWAYS}


@pytest.mark.parametrize("line", OURS)
def test_every_command_line_is_valid(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _, name, *arguments = shlex.split(line)
    COMMANDS[name].make_context(name, arguments)


def test_command_lines_in_the_prose() -> None:
    for inline in INLINE:
        words = inline.split()
        if words[0] == "piw-indexer" and len(words) > 1 and words[1] != "COMMAND":
            assert words[1] in COMMANDS, inline
            assert {word for word in words if word.startswith("--")} <= spellings(
                COMMANDS[words[1]]
            ), inline


def test_every_console_block_can_be_parsed() -> None:
    assert TYPED
    for one in TYPED:
        assert shlex.split(one.line), one


def test_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    shown = re.findall(r"^    make (\w+)", PROSE, re.M)
    assert shown == ["run", "test"]
    inline = [words[1] for text in INLINE if (words := text.split())[0] == "make"]
    for target in {*shown, *inline}:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for arguments in re.findall(r'make run ARGS="([^"]*)"', PROSE):
        COMMANDS["demo"].make_context("demo", shlex.split(arguments))


def test_files_that_are_mentioned_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PROSE):
        assert (REPOSITORY / target).exists(), target
    assert (REPOSITORY / "systemd" / "piw-indexer.service").is_file()
    assert list(REPOSITORY.glob("tests/cases/*/messages.jsonl"))


def test_links_within_it_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", PROSE, re.M)
    anchors = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", PROSE):
        assert anchor in anchors


def test_the_configuration_file_is_valid(tmp_path: Path) -> None:
    (sample,) = [block.text for block in BLOCKS if block.language == "ini"]
    path = tmp_path / "piwheels.conf"
    path.write_text(sample)
    found = config.read_file(path)
    assert found["changes_queue"] == ["ipc:///run/piw-indexer/changes"]
    assert found["settle"] == 2.0
    for file in config.FILES:
        assert f"`{file}`" in PROSE
    for variable in re.findall(rf"{config.PREFIX}([A-Z_]+)=", PROSE):
        assert variable.lower().replace("_", "-") in config.OPTIONS


def _run(line: str, directory: Path) -> str:
    """What a command line of the README prints in a directory."""
    program, *arguments = shlex.split(line)
    done = subprocess.run(
        [COMMAND if program == "piw-indexer" else program, *arguments],
        env=environment(directory),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def _words(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_the_try_without_a_feed(tmp_path: Path) -> None:
    messages = next(block.text for block in BLOCKS if block.text.startswith('{"msg"'))
    (tmp_path / "messages.jsonl").write_text(messages)
    session = [
        one for one in TYPED if " state/index.db " in one.line or re.search("ingest|cat ", one.line)
    ]
    assert len(session) == 4
    for one in session:
        assert _words(_run(one.line, tmp_path)) == _words(one.output), one.line
    sample = next(block.text for block in BLOCKS if '"abis"' in block.text)
    document = tmp_path / "site" / "project" / "numpy" / "json" / "index.json"
    published = json.loads(document.read_bytes())["releases"]
    assert json.dumps(json.loads(sample)) == json.dumps(published), "the order of keys counts"


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a small farm in which something happens today."""
    home = tmp_path_factory.mktemp("farm")
    # Its life ends tomorrow: "today" must not be over while this runs.
    now = datetime.now(UTC).replace(hour=23, minute=59) + timedelta(days=1)
    farm = Farm(packages=300, failure_rate=0.15, downloads=5000, days=8, now=now, seed=3)
    with (home / "farm.jsonl").open("w") as file:
        for message in farm.messages():
            file.write(json.dumps(message) + "\n")
    piw("ingest", "farm.jsonl", "--state-dir", "state", home=home)
    return home / "state"


def test_there_are_the_promised_queries() -> None:
    asked = "\n".join(one.line for one in QUERIES)
    for view in ("build_failures", "builds_pending", "top_downloads", "build_status", "farm"):
        assert f"FROM {view}" in asked
    assert "JOIN" not in asked.upper()


@pytest.mark.parametrize(
    "query", QUERIES, ids=lambda query: query.line.partition("FROM ")[2].split()[0].strip('"')
)
def test_every_query_answers_what_is_shown(query: Typed, state: Path) -> None:
    answer = _words(_run(query.line, state))
    shown = _words(query.output)
    assert answer[0] == shown[0], "its columns"
    assert len(answer) > 2, "rows"
    assert len(shown) > 2


def test_other_lines_of_sqlite3(state: Path) -> None:
    (month,) = (state / "journal").glob("*.db")
    inline = [text for text in INLINE if text.startswith("sqlite3 -")]
    typed = [one.line for one in TYPED if "journal/" in one.line]
    assert inline
    assert typed
    for line in inline:
        assert _run(line, state), line
    for line in typed:
        _run(line.replace("2026-11", month.stem), state)
    copy = sqlite3.connect(state / f"copy-of-{month.name}")
    assert copy.execute("SELECT count(*) FROM messages").fetchone()[0] > 5000
    copy.close()


def test_every_view_is_there_and_no_other(state: Path) -> None:
    index = sqlite3.connect(f"file:{state}/index.db?mode=ro", uri=True)
    views = {row[0] for row in index.execute("SELECT name FROM sqlite_master WHERE type = 'view'")}
    index.close()
    assert {quoted(row[0])[0] for row in table("view")} == views


def test_the_place_of_the_measurements() -> None:
    assert README.count("<!-- bench -->") == 1
    assert README.count("<!-- /bench -->") == 1
