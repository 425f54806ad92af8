"""docs/datasette.md is true: every question is answered, and nothing is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from indexer.demo.simulation import Farm

from ..support import REPOSITORY, environment, eventually, free_ports, piw

pytestmark = pytest.mark.acceptance

METADATA = REPOSITORY / "docs" / "datasette" / "metadata.yml"
PAGE = (REPOSITORY / "docs" / "datasette.md").read_text()
QUERIES = re.findall(r"^      (\w+):$", METADATA.read_text(), re.M)
MAY_BE_EMPTY = {"waiting"}
"""Nothing waits where no daemon runs and everything is written."""


class Served:
    """A Datasette that runs on an index."""

    def __init__(self, state: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.state = state
        self.process = process
        self.url = f"http://127.0.0.1:{port}/index"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def is_there(self) -> bool:
        assert self.process.poll() is None
        try:
            self.get(".json")
        except urllib.error.URLError:
            return False
        return True


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("datasette")
    # Its life ends tomorrow: the last 24 hours must not be over while this runs.
    now = datetime.now(UTC) + timedelta(hours=12)
    farm = Farm(packages=200, failure_rate=0.2, downloads=3000, days=8, now=now, seed=5)
    lines = [json.dumps(message) for message in farm.messages()]
    lines.append(json.dumps({"msg": "NEWPKG", "data": {"package": "left-out", "skip": "too big"}}))
    (home / "farm.jsonl").write_text("\n".join(lines) + "\n")
    options = ["--state-dir", "state", "--output-path", "site"]
    piw("ingest", "farm.jsonl", "--write", *options, home=home)
    (port,) = free_ports(1)
    command = [Path(sys.executable).with_name("datasette"), home / "state" / "index.db"]
    with subprocess.Popen(
        [*command, "-m", METADATA, "-h", "127.0.0.1", "-p", str(port)],
        env=environment(home),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        found = Served(home / "state", port, process)
        try:
            eventually(found.is_there)
            yield found
        finally:
            process.terminate()


@pytest.mark.parametrize("query", QUERIES)
def test_every_question_is_answered(query: str, served: Served) -> None:
    found = served.get(f"/{query}.json?package=numpy&_shape=objects")
    assert found.get("error") is None
    assert not found["truncated"]
    assert found["rows"] or query in MAY_BE_EMPTY, found


def test_it_only_reads(served: Served) -> None:
    index = served.state / "index.db"
    before = index.read_bytes()
    served.get("/build_matrix.json?package=numpy")
    process = Path(f"/proc/{served.process.pid}")
    opened = []
    for descriptor in (process / "fd").iterdir():
        try:
            if os.readlink(descriptor) != str(index):
                continue
            information = (process / "fdinfo" / descriptor.name).read_text()
        except FileNotFoundError:
            continue  # of a connection that has just ended
        opened += [int(flags, 8) for flags in re.findall(r"flags:\s+(\d+)", information)]
    assert opened
    assert all(flags & os.O_ACCMODE == os.O_RDONLY for flags in opened)
    assert index.read_bytes() == before


def test_every_question_is_on_the_page() -> None:
    table = PAGE[PAGE.index("| question |") :]
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(QUERIES)
