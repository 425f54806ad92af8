"""The examples in docs/first-steps.md, configuration.md and state.md work."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
from pathlib import Path

import pytest

from indexer.base import options

from .. import markdown, needs
from ..support import COMMAND, REPOSITORY, Site, case_named, environment

pytestmark = pytest.mark.acceptance

DOCS = REPOSITORY / "docs"
FIRST_STEPS = (DOCS / "first-steps.md").read_text()
CONFIGURATION = (DOCS / "configuration.md").read_text()
STATE = (DOCS / "state.md").read_text()


def run(line: str, directory: Path) -> str:
    """The output of a command line in a directory."""
    program, *arguments = shlex.split(line)
    done = subprocess.run(
        [COMMAND if program == "piw-indexer" else needs.program(program), *arguments],
        env=environment(directory),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_the_first_steps(tmp_path: Path) -> None:
    messages, sample = markdown.blocks(FIRST_STEPS, "json")
    (tmp_path / "messages.jsonl").write_text(messages)
    session = markdown.typed(FIRST_STEPS)
    assert len(session) == 4
    for typed in session:
        assert markdown.words(run(typed.line, tmp_path)) == markdown.words(typed.output), typed.line
    document = tmp_path / "site" / "project" / "numpy" / "json" / "index.json"
    published = json.loads(document.read_bytes())["releases"]
    assert json.dumps(json.loads(sample)) == json.dumps(published), "the order of keys counts"


def test_the_configuration_file_is_valid(tmp_path: Path) -> None:
    (sample,) = markdown.blocks(CONFIGURATION, "ini")
    path = tmp_path / "piwheels.conf"
    path.write_text(sample)
    found = options.read_file(path)
    assert found["changes_queue"] == ["ipc:///run/piw-indexer/changes"]
    assert found["settle"] == 2.0


def test_the_places_of_the_configuration() -> None:
    files = re.findall(r"^\| `([/~].*?)` \|", CONFIGURATION, re.M)
    assert files == [str(file) for file in options.FILES], "in the order in which they count"
    variables = re.findall(rf"{options.PREFIX}([A-Z_]+)=", CONFIGURATION)
    assert variables
    for variable in variables:
        assert variable.lower().replace("_", "-") in options.OPTIONS


def test_the_copy_of_a_month(site: Site) -> None:
    case = case_named("basic")
    site.ingest(case.messages, as_of=case.as_of)
    (month,) = (site.state_dir / "journal").glob("*.db")
    (line,) = [typed.line for typed in markdown.typed(STATE) if "journal/" in typed.line]
    run(line.replace("2026-11", month.stem), site.state_dir)
    copy = sqlite3.connect(site.state_dir / f"copy-of-{month.name}")
    assert copy.execute("SELECT count(*) FROM messages").fetchone()[0] == case.count
    copy.close()
