"""The JSON Schemas say of messages what decoding says, and all that is published is valid."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base.errors import DecodeError
from indexer.messages import decode

from ..documentation.json_schemas import CLOSED, VALIDATORS, faults
from . import strategies as s
from .profiles import examples
from .world import world

pytestmark = pytest.mark.property


@examples(18)
@given(s.messages)
def test_valid_messages_are_valid(message: s.Message) -> None:
    assert faults("message", message) == []
    assert faults("change", {"feed": "f", "epoch": 1, "serial": 1, **message}) == []


UNSEEN = (
    "is not a time",  # 30 February, or an hour that is outside the years only in UTC
    "is not the start of an hour",  # but for its zone
    "expected a whole number",  # 7.0, which JSON Schema takes for one
    "is not JSON",  # 1e400, and integers of more than 64 bits
)
"""What a schema cannot say of a message."""


@examples(45)
@given(s.mutated)
def test_what_is_refused_is_invalid_and_the_other_way_round(value: Any) -> None:
    refusal = ""
    try:
        decode.from_json(json.dumps(value).encode(), 0)
    except DecodeError as error:
        refusal = str(error)
    if VALIDATORS["message"].is_valid(value):
        assert not refusal or any(one in refusal for one in UNSEEN), refusal
    else:
        assert refusal, faults("message", value)


@examples(4)
@given(s.histories(12), st.just(s.NOW))
def test_what_is_published_is_valid(history: list[s.Message], now: Any) -> None:
    with world() as here:
        here.take(history)
        here.publish(now)
        for directory, _, files in os.walk(here.output):
            for name in files:
                if name.endswith(".json"):
                    found = json.loads(Path(directory, name).read_bytes())
                    kind = "project" if name == "index.json" else name.removesuffix(".json")
                    assert faults(kind, found) == []
                    CLOSED[kind].validate(found)
