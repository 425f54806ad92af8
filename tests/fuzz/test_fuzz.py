"""Coverage-guided fuzzing of all decoders, for a bounded time: in a soak only."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.messages import decode, encode
from indexer.messages.types import Message, Position
from indexer.piwheels import cbor
from indexer.schema import messages as schema

from .. import tally
from ..support import CASES, REFUSED, REPOSITORY
from . import TARGETS

pytestmark = pytest.mark.soak

SECONDS = tally.amount(10, 90)
"""Of each target."""

SEEDS = 400


def lines() -> list[bytes]:
    """Valid messages of every kind, and refused ones."""
    found = [line for case in CASES for line in case.lines]
    return [*random.Random(1).sample(found, SEEDS), *REFUSED.lines]


def messages() -> list[Message]:
    return [decode.from_json(line, 0) for line in lines()[:SEEDS]]


def on_the_wire() -> list[bytes]:
    return [
        encode.payload(Position("master", 7, number), message)
        for number, message in enumerate(messages(), 1)
    ]


def answers() -> list[bytes]:
    return [encode.replay_end(7), encode.replay_gone(7, 1), *on_the_wire()]


def as_piwheels() -> list[bytes]:
    found = [cbor.dumps(name, json.loads(line)) for name, line in zip(NAMES, lines(), strict=False)]
    return [*found, cbor.dumps("HELLO"), *map(bytes.fromhex, TAGGED)]


NAMES = sorted(schema.messages(schema.time_json))
TAGGED = (
    "8263424c44c074323032362d31312d32325431343a30303a30305a",  # ["BLD", a time]
    "8263535453d907d183001903e819ffff",  # ["STS", a duration]
    "8263534c41d907d2f6",  # ["SLA", no data]
    "8263534554d9010282616161 62".replace(" ", ""),  # ["SET", a set]
)
SOURCES: dict[str, Callable[[], list[bytes]]] = {
    "from_json": lines,
    "from_msgpack": on_the_wire,
    "published": on_the_wire,
    "heartbeat": lambda: [encode.heartbeat(Position("master", 7, 9))[1]],
    "replayed": answers,
    "replay_request": lambda: [encode.replay_request(7, 0, 1000)],
    "cbor": as_piwheels,
}


def words() -> str:
    """Words that a fuzzer would not guess: names of messages and fields."""
    found = set(NAMES)
    for line in lines()[:SEEDS]:
        found |= set(json.loads(line)) | set(json.loads(line)["data"])
    return "".join(f'"{word}"\n' for word in sorted(found))


@pytest.mark.parametrize("target", TARGETS)
def test_only_decode_errors(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is no atheris for this machine")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, content in enumerate(SOURCES[target]()):
        (corpus / str(number)).write_bytes(content)
    (tmp_path / "words").write_text(words())
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", target, str(corpus)),
            *(f"-max_total_time={SECONDS}", "-print_final_stats=1", "-max_len=8192"),
            *(f"-dict={tmp_path}/words", f"-artifact_prefix={tmp_path}/", "-verbosity=0"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS + 300,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-5000:]
    [executed] = re.findall(r"number_of_executed_units: (\d+)", output)
    tally.add("inputs", target, int(executed))
