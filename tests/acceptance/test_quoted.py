"""Text from outside steers no terminal, begins no line and forges no entry; JSON stays exact."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sqlite3
import struct
import termios
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from .. import samples
from ..forkserver import Forked
from ..support import Feed, Process, Result, Site, environment, eventually, piw, read_until

pytestmark = pytest.mark.acceptance

STEERS = ("\x1b]0;TITLE\x07", "\x1b[2J", "\x1b[5m", "\x9b2J", "\u202e", "\u200b")
"""Sets the title, clears the screen, blinks, clears it again, turns writing around, is not seen."""

FORGED = "FORGED: all is well"
HOSTILE = f"nice {''.join(STEERS)}\n{FORGED}"
WIDTH = 4000
"""Columns: nothing is wrapped, so each line that begins was begun."""

LOOKS: dict[str, list[object]] = {
    "show": ["show", "esc"],
    "show VERSION": ["show", "esc", "1.1"],
    "history": ["history", "esc"],
    "explain": ["explain", "esc"],
    "quarantine": ["quarantine"],
    "quarantine ID": ["quarantine", 1],
    "status": ["status"],
    "status --monitor": ["status", "--monitor"],
    "top": ["top"],
    "check": ["check"],
}
ERRORS = {
    "unknown package": ["show", HOSTILE],
    "unknown version": ["show", "esc", HOSTILE],
    "version that is meant": ["show", "meant", "2.0"],
    "no history": ["history", HOSTILE],
    "never seen": ["explain", HOSTILE],
    "no such file": ["ingest", HOSTILE],
    "no such state": ["status", "--state-dir", HOSTILE],
    "no number": ["quarantine", HOSTILE],
    "no time": ["history", "esc", "--since", HOSTILE],
    "no such option": ["status", f"--{HOSTILE}"],
    "no such command": [HOSTILE],
    "too many arguments": ["status", HOSTILE],
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site into which strangers have written wherever they could."""
    site = Site(tmp_path_factory.mktemp("attacked"))
    wheel = samples.file("esc-1.1-py3-none-any.whl", requires_python=HOSTILE)
    build = samples.log_build(1, "esc", "1.1", wheel)
    lines = [
        samples.set_abis("cp311"),
        samples.new_package("esc", description=HOSTILE),
        samples.new_name("esc", f"Esc{STEERS[0]}"),
        samples.new_version("esc", "1.1", skip=HOSTILE),
        build,
        samples.new_package("meant"),
        samples.new_version("meant", f"2.0{STEERS[1]}\n{FORGED}"),
        samples.new_package(HOSTILE),
        samples.message("NEWVER", package="esc", version=7, released=HOSTILE),
    ]
    file = site.home / f"lines{STEERS[0]}\n{FORGED}.jsonl"
    file.write_bytes(b"".join(map(samples.line, lines)) + f"no JSON {HOSTILE}".encode())
    site.ingest(file)
    # A journal of former times: a feed could have any name.
    [month] = (site.state_dir / "journal").glob("*.db")
    with sqlite3.connect(month) as journal:
        journal.execute(
            "INSERT INTO feeds (feed, epoch, serial, broken) VALUES (?, 1, 1, ?)",
            (HOSTILE, HOSTILE),
        )
    journal.close()
    document = site.output_path / "project" / "esc" / "json" / "index.json"
    document.write_text(json.dumps({**json.loads(document.read_text()), HOSTILE: HOSTILE}))
    return site


def assert_harmless(said: str) -> None:
    """No part of it controls a terminal, and no line of it was forged."""
    for one in STEERS:
        assert one not in said, ascii(said)
    for line in re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", said).splitlines():
        assert not line.strip().startswith(FORGED), ascii(said)


def on_pipe(site: Site, *arguments: object) -> Result:
    return piw(*placed(site, arguments), home=site.home, status=None)


def on_terminal(site: Site, *arguments: object) -> str:
    """Everything that appears on a terminal; `top` is ended by its key."""
    screen, side = os.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 60, WIDTH, 0, 0))
    process = Forked(
        list(map(str, placed(site, arguments))),
        environment=environment(site.home, TERM="xterm-256color"),
        cwd=site.home,
        streams=(side, side, side),
        session=True,
    )
    os.close(side)
    try:
        said = ""
        if arguments[0] == "top":
            said = read_until(screen, "q ends")
            os.write(screen, b"q")
        said += read_until(screen, None)
        process.wait()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(screen)
    return said


def placed(site: Site, arguments: tuple[object, ...]) -> list[object]:
    if arguments[0] == HOSTILE or "--state-dir" in arguments:
        return list(arguments)
    more = site.output if arguments[0] in ("explain", "check", "ingest") else []
    return [*arguments, *site.state, *more]


@pytest.mark.parametrize("look", LOOKS)
def test_on_a_pipe(look: str, attacked: Site) -> None:
    done = on_pipe(attacked, *LOOKS[look])
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert said.replace("\n", "").isprintable(), ascii(said)
    assert_harmless(said)
    assert "\\x1b" in said, "it is shown, but as text"


@pytest.mark.parametrize("look", LOOKS)
def test_on_a_terminal(look: str, attacked: Site) -> None:
    said = on_terminal(attacked, *LOOKS[look])
    assert "Traceback" not in said
    assert_harmless(said)
    assert "\\x1b" in said, "it is shown, but as text"


@pytest.mark.parametrize("error", ERRORS)
def test_errors_that_repeat_what_was_given(error: str, attacked: Site) -> None:
    done = on_pipe(attacked, *ERRORS[error])
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.status in (0, 2, 3), said
    assert said.replace("\n", "").isprintable(), ascii(said)
    assert_harmless(said)
    assert "forged" in said.lower(), "it is repeated"
    assert_harmless(on_terminal(attacked, *ERRORS[error]))


def test_remedies_are_as_they_were_written(attacked: Site) -> None:
    said = on_pipe(attacked, "explain", "esc").stdout
    assert re.search(r"^  what to do: [^\\]+$", said, re.M), said


def test_json_is_exact_and_does_not_steer(attacked: Site) -> None:
    def read(*arguments: object) -> list[Any]:
        said = on_pipe(attacked, *arguments, "--json").stdout
        assert said.replace("\n", "").isprintable(), ascii(said)
        assert_harmless(said)
        try:
            return [json.loads(said)]
        except ValueError:
            return [json.loads(line) for line in said.splitlines()]

    [shown] = read("show", "esc")
    assert shown["summary"] == HOSTILE
    assert shown["releases"]["1.1"]["skip_reason"] == HOSTILE
    told = read("history", "esc")
    assert any(one["data"].get("description") == HOSTILE for one in told)
    [status] = read("status")
    assert {(one["feed"], one["broken"]) for one in status["feeds"]} == {(HOSTILE, HOSTILE)}
    refused = read("quarantine")
    assert [json.loads(bytes.fromhex(one["raw"]))["data"]["package"] for one in refused[:2]] == [
        HOSTILE,
        "esc",
    ]
    [wrap_errors] = read("explain", "esc")
    assert HOSTILE in wrap_errors["document"]["difference"]
    [checked] = read("check")
    assert any(HOSTILE in one["what"] for one in checked["found"])


def test_versions_that_differ_late_are_both_shown(site: Site) -> None:
    long = "1." + "1" * 100
    names = [f"{long}\x1b", f"{long}\\x1b"]
    site.take(
        samples.set_abis("cp311"),
        samples.new_package("two"),
        *(samples.new_version("two", name) for name in names),
        samples.new_version("two", "0.1"),
    )
    shown = site.piw("show", "two").stdout
    assert len(re.findall(r"^1\.1+", shown, re.M)) == 2, shown
    for name in names:
        assert "no files" in site.piw("show", "two", name).stdout


def test_the_daemon_s_log_cannot_be_forged(tmp_path: Path, ipc: Feed) -> None:
    """In the name of a directory, a feed, a field or a key, or as a whole message."""
    site = Site(tmp_path / f"x{''.join(STEERS)}\npiw-indexer: {FORGED}")
    site.home.mkdir()
    context: zmq.Context[Any] = zmq.Context()
    publisher = context.socket(zmq.XPUB)
    publisher.bind(ipc.changes)
    replay = context.socket(zmq.ROUTER)
    replay.bind(ipc.replay)
    forged = f"x{''.join(STEERS)}\npiw-indexer: {FORGED}"

    def say(serial: int, **changes: object) -> None:
        message: dict[str, object] = {
            "feed": "master", "epoch": 1, "serial": serial, "msg": "NEWPKG",
            "at": msgpack.Timestamp(1, 0), "data": {"package": "x"}, **changes,
        }  # fmt: skip
        publisher.send_multipart([b"x", msgpack.packb(message)])

    settings = {"PYTHONUNBUFFERED": "1"}
    arguments = ["-v", "run", *site.state, *site.output, *ipc.options]
    with Process(site.home, *arguments, settings=settings) as daemon:
        assert publisher.recv()  # it subscribes
        say(1)
        say(1, feed=forged)
        say(2, data={"package": forged})
        say(3, msg=forged)
        say(4, msg="SETABIS", data={"build_abis": {forged * 1000: ""}})
        publisher.send_multipart([b"x", forged.encode()])
        publisher.send_multipart([b"HEARTBEAT", msgpack.packb({"feed": forged})])
        eventually(lambda: quarantined(site) == 6, lambda: daemon.output)
        daemon.terminate()
        said = daemon.output
    assert said.replace("\n", "").isprintable(), ascii(said)
    assert len(said) < 100_000
    for line in said.splitlines():
        assert line.startswith(("piw-indexer: ", "  ")), line
        assert not line.startswith(f"piw-indexer: {FORGED}")
    assert f"\n  piw-indexer: {FORGED}" in said, "the name of the directory is told"
    assert said.count("`piw-indexer quarantine` lists them") == 1, "once a minute"
    context.destroy(linger=0)


def quarantined(site: Site) -> int:
    try:
        found: int = site.gather()["quarantined"]
    except Exception:  # noqa: BLE001 - there is no state yet
        return -1
    return found


def test_names_of_files_and_strays(site: Site, tmp_path: Path) -> None:
    """Whoever may write to the output tree can choose names of files."""
    site.take(samples.set_abis("cp311"), samples.new_package("x"))
    stray = site.output_path / "project" / f"a{STEERS[1]}\n{FORGED}"
    stray.mkdir()
    (stray / "json").mkdir()
    (stray / "json" / "index.json").write_text("{}")
    done = on_pipe(site, "check")
    said = done.stdout + done.stderr
    assert_harmless(said)
    assert said.replace("\n", "").isprintable()


BYTES = os.fsdecode(b"\xff")
"""In the name of a file or directory; it is not text."""

DOCUMENT = json.dumps({"package": "numpy", "summary": "", "releases": {}})


def test_a_site_with_names_that_are_no_text(tmp_path: Path, site: Site) -> None:
    """One such file once ended every import."""
    project = tmp_path / "there" / "project"
    for name, content in (("numpy", DOCUMENT), (BYTES, "nonsense")):
        (project / name / "json").mkdir(parents=True)
        (project / name / "json" / "index.json").write_text(content)
    (project / f"Num{BYTES}").symlink_to("numpy")
    site.piw("import-site", project.parent)
    assert site.piw("show", "numpy").stdout
    assert r"\udcff/json/index.json" in site.piw("quarantine").stdout
    json.loads(site.piw("status", "--json").stdout)


def test_directories_whose_names_are_no_text(tmp_path: Path) -> None:
    site = Site(tmp_path / BYTES)
    site.home.mkdir()
    site.take(samples.new_package("numpy"))
    file = site.home / f"{BYTES}.jsonl"
    file.write_text("nonsense\n")
    site.piw("ingest", file, status=None)
    for command, *arguments in (("status",), ("explain", "numpy"), ("check",)):
        for options in ([], ["--json"]):
            done = site.piw(command, *arguments, *options)
            assert not options or isinstance(json.loads(done.stdout), dict)
    site.piw("checkpoint")
    site.piw("backup", site.home / "backup")
