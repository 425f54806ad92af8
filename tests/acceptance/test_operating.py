"""docs/operating.md is true: it explains every problem, and its drills work as described."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from datetime import UTC, datetime

import pytest

from indexer.watch.alerts import KINDS

from ..support import (
    COMMAND,
    DEADLINE,
    REPOSITORY,
    Feed,
    Process,
    Site,
    case_named,
    environment,
)

pytestmark = pytest.mark.acceptance

GUIDE = (REPOSITORY / "docs" / "operating.md").read_text()
CASE = case_named("basic")
LOOKS = ("status", "quarantine", "check")
"""Commands that change nothing: they are asked again until the daemon has come so far."""


def drills() -> dict[str, list[tuple[str, list[str]]]]:
    """Every drill: its command lines, each with the lines that it must print."""
    found = {}
    for section in GUIDE.partition("## Drills")[2].split("\n### ")[1:]:
        title = section.partition("\n")[0]
        block = "".join(re.findall(r"```console\n(.*?)```", section, re.S))
        steps = []
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, *shown = step.splitlines()
            steps.append((line, shown))
        found[title] = steps
    return found


DRILLS = drills()


def test_every_problem_has_its_section() -> None:
    sections = re.findall(r"^#### `([a-z-]+)` \((\w+)\)$", GUIDE, re.M)
    assert sorted(sections) == sorted((kind.id, kind.severity) for kind in KINDS.values())


def test_there_are_enough_drills() -> None:
    assert len(DRILLS) >= 5
    assert all(shown for steps in DRILLS.values() for _, shown in steps[-1:])


class Machine:
    """A stand-in for a machine with systemd: one service, and its directories."""

    def __init__(self, site: Site, feed: Feed) -> None:
        self._site = site
        self._feed = feed
        self._daemon: Process | None = None
        self._settings = {
            "PIW_INDEXER_STATE_DIR": str(site.state_dir),
            "PIW_INDEXER_OUTPUT_PATH": str(site.output_path),
            "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        self._daemon = self._site.daemon(self._feed, "--counters-interval", 1)

    def settled(self) -> None:
        """Wait until everything is published."""
        assert self._daemon is not None
        self._site.wait_for_all(CASE.count, self._daemon)

    def systemctl(self, verb: str) -> None:
        if verb == "start":
            self.start()
            return
        assert self._daemon is not None
        if verb == "stop":
            self._daemon.terminate()
        elif verb == "kill":
            self._daemon.signal(signal.SIGKILL)
            self._daemon.wait()
            self.start()  # as Restart= does
        else:
            pytest.fail(f"systemctl {verb}")

    def do(self, line: str, shown: list[str]) -> None:
        """Run a command line of a drill; it must print what the page shows."""
        if line.startswith("systemctl "):
            self.systemctl(line.split()[1])
            return
        said = self.run(line)
        if "--fix" not in line and any(f"piw-indexer {command}" in line for command in LOOKS):
            until = time.monotonic() + DEADLINE
            while not has(said, shown) and time.monotonic() < until:
                time.sleep(0.5)
                said = self.run(line)
        assert has(said, shown), (line, said)

    def run(self, line: str) -> str:
        """Run a line in a shell; returns what it prints."""
        for there, here in (
            ("/var/lib/piw-indexer", self._site.state_dir),
            ("/srv/piw-indexer", self._site.output_path),
            ("/srv/backup", self._site.home / "backup"),
            ("2026-11", datetime.now(UTC).strftime("%Y-%m")),
        ):
            line = line.replace(there, str(here))
        done = subprocess.run(
            ["bash", "-c", line],
            env=environment(self._site.home, **self._settings),
            cwd=self._site.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "command not found" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def end(self) -> None:
        if self._daemon is not None:
            self._daemon.kill()


def has(output: str, shown: list[str]) -> bool:
    """Whether everything that the page shows was printed; `...` stands for anything."""
    return all(
        any(
            re.search(".*".join(map(re.escape, line.split("..."))), " ".join(said.split()))
            for said in (output, *output.splitlines())
        )
        for line in shown
    )


@pytest.mark.slow
@pytest.mark.parametrize("title", DRILLS, ids=lambda title: title.replace(" ", "-"))
def test_each_drill_works_as_described(title: str, site: Site, ipc: Feed) -> None:
    machine = Machine(site, ipc)
    with site.publisher(ipc, CASE.messages):
        machine.start()
        try:
            machine.settled()
            for line, shown in DRILLS[title]:
                machine.do(line, shown)
        finally:
            machine.end()
