"""Whatever a damaged note contains, no command ends in a traceback."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.base.directories import BACKUP, CHECK, LIVE
from indexer.base.lock import Lock
from indexer.base.notes import MAX_COUNT, checked, plain
from indexer.cli import main
from indexer.watch.notes import Backup, Check, DaemonNote

from .. import samples
from ..master import captured
from ..master.status_queue import StatusQueue
from ..support import REPOSITORY, Site, case_named, ipc_feed
from .profiles import examples
from .strategies import places

pytestmark = pytest.mark.property

STATUS = jsonschema.Draft202012Validator(
    json.loads((REPOSITORY / "schema" / "status.schema.json").read_text())
)
REAL: dict[str, Any] = {}
"""What a daemon with every source, a check and a backup have written; `held` fills it."""

COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("status", "--monitor"),
    ("top",),
    ("farm",),
    ("farm", "--json"),
    ("metrics",),
)

DEEP = "deep"
"""Stands for what Python's own JSON cannot write: a list in a list in a list..."""

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        [-1, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, 5e-324, "", "1", "\0", "\ud800"]
    )
    | st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-26T11:00:00"])
    | st.just(DEEP)
)
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """The name of a note, and its content with parts replaced or removed."""
    name = draw(st.sampled_from([LIVE, LIVE, LIVE, CHECK, BACKUP]))
    note = {"note": deepcopy(REAL[name])}
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from(places(note)))
        parent: Any = note
        for step in path:
            parent = parent[step]
        change = draw(st.sampled_from(["replace", "remove", "double"]))
        if change == "double" and isinstance(parent, list):
            parent.append(deepcopy(parent[key]))
        elif change == "remove" and path:
            del parent[key]
        else:
            parent[key] = draw(_ANYTHING)
    text = json.dumps(note["note"])
    return name, text.replace(json.dumps(DEEP), "[" * 900 + "]" * 900)


@pytest.fixture(scope="module")
def held() -> Iterator[Site]:
    """A state that this process holds like a daemon, after one has run there."""
    with tempfile.TemporaryDirectory(prefix="piw-") as directory:
        site = Site(Path(directory))
        site.take(samples.new_package("numpy"))
        site.piw("backup", Path(directory) / "backup")
        site.piw("check")
        REAL.update({one: read(site, one) for one in (CHECK, BACKUP)})
        REAL[LIVE] = said_by_a_daemon(site, Path(directory))
        lock = Lock(site.state_dir, "run")
        REAL[LIVE]["pid"] = os.getpid()
        yield site
        lock.release()


def read(site: Site, name: str) -> Any:
    return json.loads((site.state_dir / name).read_text())


def said_by_a_daemon(site: Site, sockets: Path) -> Any:
    """The note of a daemon that follows a publisher and all queues of a master."""
    feed, status = ipc_feed(sockets), f"ipc://{sockets}/status"
    queues: list[object] = ["--status-queue", status]
    for name in ("db-queue", "log-queue", "log-forward"):  # no master is there
        queues += [f"--{name}", f"ipc://{sockets}/{name}"]
    with (
        StatusQueue(status) as queue,
        site.publisher(feed, case_named("basic").messages) as publisher,
        site.daemon(feed, *queues) as daemon,
    ):
        queue.wait_for_subscriber()
        queue.say(*[one.frame for one in captured.STATUS])
        site.wait(
            lambda found: (
                found["farm"] is not None
                and len(found["farm"]["finished"]) == 16
                and found["daemon"]["recently_published"] != []
                and found["daemon"]["troubles"] != []
                and found["daemon"]["feeds"] != []
            ),
            daemon,
            publisher,
        )
        note = read(site, LIVE)
        daemon.terminate()
    return note


def said(*arguments: object) -> tuple[int, str]:
    """The exit status and output of a command in this process; a traceback is an exception."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with redirect_stdout(output), redirect_stderr(io.StringIO()), pytest.raises(SystemExit) as end:
        main([str(one) for one in arguments])
    output.flush()
    assert isinstance(output.buffer, io.BytesIO)
    assert isinstance(end.value.code, int)
    return end.value.code, output.buffer.getvalue().decode()


def put(site: Site, name: str, content: str) -> None:
    """Write all three notes, one of them with this content."""
    for one in (LIVE, CHECK, BACKUP):
        text = content if one == name else json.dumps(REAL[one])
        (site.state_dir / one).write_text(text, encoding="utf-8")


def test_what_was_written_is_read_whole(held: Site) -> None:
    for name, kind in ((CHECK, Check), (BACKUP, Backup)):
        assert plain(checked(REAL[name], kind)) == REAL[name]
    daemon = checked(REAL[LIVE], DaemonNote)
    assert {**plain(daemon.live), **plain(daemon.sources)} == REAL[LIVE]
    put(held, LIVE, json.dumps(REAL[LIVE]))
    code, status = said("status", "--json", *held.state)
    found = json.loads(status)
    assert code == 0
    assert "note-unreadable" not in {one["id"] for one in found["alerts"]}
    assert len(found["farm"]["slaves"]) == len(REAL[LIVE]["farm"]["slaves"])


def test_sums_of_what_publishers_say_are_numbers_of_json(held: Site) -> None:
    """Three lying publishers once ended `status --json` with a traceback."""
    note = deepcopy(REAL[LIVE])
    [feed] = note["feeds"]
    note["feeds"] = [{**feed, "feed": f"f{n}", "serial": 0, "published": MAX_COUNT} for n in "123"]
    put(held, LIVE, json.dumps(note))
    code, status = said("status", "--json", *held.state)
    assert code == 0
    assert json.loads(status)["lag"] == MAX_COUNT


@pytest.mark.slow
@examples(12)
@given(note=damaged())
@example(note=(LIVE, "NaN"))
@example(note=(LIVE, "[" * 100_000))
@example(note=(LIVE, '{"pid": ' + "9" * 10_000 + "}"))
def test_no_note_ends_a_command(held: Site, note: tuple[str, str]) -> None:
    put(held, *note)
    for command, *options in COMMANDS:
        code, text = said(command, *options, *held.state)
        assert code in ((0, 1, 2) if "--monitor" in options else (0, 4)), text
        if command == "status" and "--json" in options:
            STATUS.validate(json.loads(text))
