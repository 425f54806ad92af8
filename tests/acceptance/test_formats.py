"""docs/messages.md and docs/documents.md: their bytes, samples and programs work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.base import options
from indexer.messages import decode, encode
from indexer.messages.types import Message, Position

from .. import samples
from ..documentation import manual
from ..documentation.json_schemas import faults
from ..support import Feed, Site, case_named, environment, eventually

pytestmark = pytest.mark.acceptance

MESSAGES = (manual.DOCS / "messages.md").read_text()
DOCUMENTS = (manual.DOCS / "documents.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


PUBLISHER, SUBSCRIBER = blocks(MESSAGES, "python")


@contextmanager
def program(text: str, directory: Path, *arguments: object) -> Iterator[Path]:
    """Run a program of the docs until the block ends; the file that it prints to."""
    printed = directory / f"{len(list(directory.glob('*.out')))}.out"
    with (
        printed.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", text, *map(str, arguments)],
            env=environment(directory),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as running,
    ):
        try:
            yield printed
            assert running.poll() is None, printed.read_text()
        finally:
            running.kill()


def test_samples_of_messages_are_valid() -> None:
    (sample,) = blocks(MESSAGES, "json")
    assert faults("message", json.loads(sample)) == []
    assert decode.from_json(sample.encode(), 0).name == "SKIPVER"


def test_the_bytes_are_ours() -> None:
    message = samples.decoded(
        samples.message(
            "NEWVER", "2026-11-22T14:00:00Z", package="numpy", version="2.2.6", released=None
        )
    )
    assert isinstance(message, Message)
    position = Position("master", 3, 5)
    beat = encode.heartbeat(position)
    ours = {
        "`NEWVER`, topic": encode.topic(message),
        "`NEWVER`, payload": encode.payload(position, message),
        "heartbeat, topic": beat[0],
        "heartbeat, payload": beat[1],
        "request": encode.replay_request(3, 4, 100),
        "end": encode.replay_end(5),
        "gone": encode.replay_gone(3, 2),
    }
    shown = dict(re.findall(r"^\| (.+) \| `([0-9a-f]+)` \|$", MESSAGES, re.M))
    assert shown == {what: payload.hex() for what, payload in ours.items()}


def test_the_publisher_is_followed_by_the_daemon(feed: Feed, site: Site) -> None:
    arguments = [site.home / "spool", feed.changes, feed.replay]
    # What it publishes at once, nobody hears: it is asked for.
    with program(PUBLISHER, site.home, *arguments), site.daemon(feed) as daemon:
        site.wait_for_all(2, daemon)
        daemon.terminate()
    # It goes on with its spool.
    with program(PUBLISHER, site.home, *arguments), site.daemon(feed) as daemon:
        site.wait_for_all(4, daemon)
        daemon.terminate()
    status = site.status()
    assert status["quarantined"] == 0
    (one,) = status["feeds"]
    assert (one["feed"], one["serial"]) == ("example", 4)
    document = site.output_path / "project" / "numpy" / "json" / "index.json"
    found = json.loads(document.read_bytes())
    assert found["summary"] == "Array computing"
    assert found["releases"]["2.2.6"]["released"] == "2025-05-17 21:26:43"


def test_the_subscriber_follows_the_publishers(feed: Feed, site: Site) -> None:
    case = case_named("equal-versions")
    with site.publisher(feed, case.messages) as publisher:
        # It comes late: what was sent is asked for.
        eventually(lambda: "messages sent" in publisher.output, lambda: publisher.output)
        with program(SUBSCRIBER, site.home, feed.changes, feed.replay) as printed:
            eventually(
                lambda: printed.read_text().count("\n") >= case.count,
                lambda: (printed.read_text(), publisher.output),
            )
        publisher.terminate()
    lines = printed.read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(1, case.count + 1))
    assert [line.split()[2] for line in lines] == [json.loads(one)["msg"] for one in case.lines]


def test_the_publisher_and_the_subscriber_of_the_docs(feed: Feed, site: Site) -> None:
    arguments = [site.home / "spool", feed.changes, feed.replay]
    with (
        program(PUBLISHER, site.home, *arguments),
        program(SUBSCRIBER, site.home, feed.changes, feed.replay) as printed,
    ):
        eventually(lambda: printed.read_text().count("\n") == 2, printed.read_text)
    assert "NEWVER" in printed.read_text()


@pytest.mark.parametrize(
    ("number", "case", "line"),
    [
        (0, "basic", r"numpy \S+ cp311 success"),
        (1, "basic", r"numpy \d+ \d+"),
        (2, "additions", r"\d+ \d+ [a-z-]+ .*"),
    ],
)
def test_the_readers_of_the_documents(number: int, case: str, line: str, site: Site) -> None:
    site.ingest(case_named(case).messages, as_of=case_named(case).as_of)
    reader = blocks(DOCUMENTS, "python")[number]
    printed = subprocess.run(
        [sys.executable, "-c", reader, site.output_path],
        env=environment(site.home),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(rf"^{line}$", printed, re.M), printed


def test_what_the_documents_say_of_options_and_additions() -> None:
    for name in re.findall(r"`--([a-z-]+)`", MESSAGES + DOCUMENTS):
        assert name in {**options.OPTIONS, **options.FLAGS}, name
    waits = {"settle": "(1)", "max-delay": "(10)", "counters-interval": "(60)"}
    for name, shown in waits.items():
        assert float(shown.strip("()")) == options.OPTIONS[name]["default"]
        assert re.search(rf"`--{name}`[^(]*{re.escape(shown)}", DOCUMENTS)
