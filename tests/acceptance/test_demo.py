"""`piw-indexer demo`: it ends by itself, prints the truth, and leaves no process behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from ..support import COMMAND, DEADLINE, Process, environment, eventually, piw, read_until

pytestmark = pytest.mark.acceptance

SMALL = ("--packages", "60", "--downloads", "2000", "--rate", "300")


def start(home: Path, *options: str) -> Process:
    """Start a small demo without a terminal; its files go below `home`."""
    return Process(home, "demo", *SMALL, *options, settings={"TMPDIR": str(home)})


def living(session: int) -> list[str]:
    """The command lines of the remaining processes of a session."""
    found = []
    for directory in Path("/proc").iterdir():
        try:
            # The name, in parentheses, may hold anything.
            fields = directory.joinpath("stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(directory.joinpath("cmdline").read_text().replace("\0", " "))
        except (OSError, IndexError):
            pass  # no process, or one that has just ended
    return found


def assert_none_left(session: int) -> None:
    eventually(lambda: not living(session), lambda: living(session))


def state_of(home: Path) -> Path:
    """The state directory of the demo that runs below `home`."""
    found: list[Path] = []

    def made() -> bool:
        found[:] = home.glob("piw-demo-*/state")
        return bool(found)

    eventually(made)
    return found[0]


def daemon_of(home: Path) -> int:
    """The process of the demo's daemon."""
    holder = re.search(r"pid (\d+)", (state_of(home) / "lock").read_text())
    assert holder is not None
    return int(holder[1])


def wait_for_documents(home: Path) -> None:
    project = state_of(home).with_name("www") / "project"
    eventually(lambda: project.is_dir() and any(project.iterdir()))


def test_it_ends_by_itself_and_says_where_everything_is(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "2") as demo:
        assert demo.wait() == 0, demo.output
        assert_none_left(demo.pid)
        output = demo.output
    assert output.count(" published ") >= 2, "a line of progress now and then"
    names = "journal|index|a document|downloads|daemon's log"
    places = dict(re.findall(rf"^  ({names}) +(/.*)$", output, re.M))
    assert len(places) == 5, output
    assert all(Path(place).is_file() for place in places.values()), places
    assert json.loads(Path(places["a document"]).read_bytes())["package"] == "numpy"
    assert json.loads(Path(places["downloads"]).read_bytes())[0][0]
    assert "Traceback" not in Path(places["daemon's log"]).read_text()
    sent = re.search(r"^([\d,]+) messages in ", output, re.M)
    assert sent is not None
    with sqlite3.connect(f"file:{places['journal']}?mode=ro", uri=True) as journal:
        count = journal.execute("SELECT count(*) FROM messages").fetchone()[0]
    journal.close()
    assert int(sent[1].replace(",", "")) == count
    kept = re.search(r"^  rm -r (.*)$", output, re.M)
    assert kept is not None
    assert not list(Path(kept[1]).rglob("changes")), "the sockets are gone"


def test_its_queries_and_answers_are_true(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "1") as demo:
        assert demo.wait() == 0, demo.output
        blocks = demo.output.split("\n\n")
    answers = {}
    for block in blocks:
        lines = block.strip("\n").splitlines()
        if len(lines) > 1 and lines[1].startswith("  $ sqlite3 "):
            answers[lines[0]] = lines[1].removeprefix("  $ "), lines[2:]
    assert len(answers) == 3, blocks
    for command, shown in answers.values():
        assert shown
        arguments = shlex.split(command)
        assert shutil.which(arguments[0])
        asked = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        said = [line.split() for line in asked.splitlines()] or [["nothing"]]
        cut = [line.split() for line in shown if not line.startswith("  ... and ")]
        assert cut == said[: len(cut)]
        assert len(cut) == len(said) or len(cut) == 2 + 5, "the first five rows"
    _, numpy = answers["The status of numpy 2.2.6 on every ABI"]
    assert [line.split()[0] for line in numpy[2:]] == ["cp311", "cp313", "cp39"]


def test_what_it_made_is_in_order(tmp_path: Path) -> None:
    piw(
        *("demo", *SMALL, "--seconds", "1", "--seed", "7"),
        *("--state-dir", "state", "--output-path", "www"),
        home=tmp_path,
    )
    places = ("--state-dir", "state", "--output-path", "www")
    assert piw("check", *places, home=tmp_path).stdout == "No differences.\n"
    found = json.loads(piw("status", *places[:2], "--json", home=tmp_path).stdout)
    assert found["serial"] == found["applied_serial"] > 2000
    assert found["pending"] == 0
    assert found["problems"] == []


def test_a_directory_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 25)
    piw(
        *("demo", *SMALL, "--seconds", "0.5", "--state-dir", deep / "state"),
        *("--output-path", deep / "www"),
        home=tmp_path,
    )
    assert (deep / "www" / "packages.json").is_file()


@pytest.mark.parametrize("option", ["--state-dir", "--output-path"])
def test_it_refuses_a_directory_that_is_not_empty(tmp_path: Path, option: str) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "something").touch()
    refused = piw("demo", option, "used", home=tmp_path, status=2)
    assert "there is something in it" in refused.stderr
    assert os.listdir(tmp_path / "used") == ["something"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, "--seconds", "1000") as demo:
        wait_for_documents(tmp_path)
        demo.signal(number)
        assert demo.wait() == 0, demo.output
        assert_none_left(demo.pid)
        assert "Where it is" in demo.output


def test_two_signals_end_it_at_once(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "1000") as demo:
        wait_for_documents(tmp_path)
        os.kill(daemon_of(tmp_path), signal.SIGSTOP)  # the demo waits for its end
        demo.signal(signal.SIGINT)
        eventually(lambda: "interrupted" in demo.output, lambda: demo.output)
        demo.signal(signal.SIGINT)
        assert demo.wait() == 130, demo.output
        assert_none_left(demo.pid)


def test_it_says_why_the_daemon_failed(tmp_path: Path) -> None:
    with start(tmp_path, "--seconds", "1000") as demo:
        wait_for_documents(tmp_path)
        os.kill(daemon_of(tmp_path), signal.SIGKILL)
        assert demo.wait() == 3, demo.output
        assert_none_left(demo.pid)
        assert "the daemon ended with status -9" in demo.output
        assert "daemon.log" in demo.output


def test_on_a_terminal(tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    demo = subprocess.Popen(
        [COMMAND, "demo", *SMALL, "--seconds", "1000"],
        env=environment(tmp_path, TMPDIR=str(tmp_path), TERM="xterm-256color"),
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        drawn = read_until(screen, "json/index.json")
        drawn += read_until(screen, "live")
        os.killpg(demo.pid, signal.SIGINT)  # as Ctrl-C does
        drawn += read_until(screen, None)
        assert demo.wait(DEADLINE) == 0, drawn
        assert_none_left(demo.pid)
    finally:
        os.close(screen)
        try:
            os.killpg(demo.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended, and all that it started
        demo.wait()
    for shown in ("the river", "messages/s", "the farm", "downloads, last 30 days", "slave 0"):
        assert shown in drawn
    enter, leave, cursor = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
    assert drawn.index(enter) < drawn.index("the river") < drawn.rindex(leave)
    assert cursor in drawn[drawn.index(enter) :]
    report = drawn[drawn.rindex(leave) :]
    assert report.index("interrupted") < report.index("Where it is")
    assert report.count("$ sqlite3 ") == 3
