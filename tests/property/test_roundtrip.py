"""Messages survive the wire, the journal and the spool unchanged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base import times
from indexer.messages import decode, encode
from indexer.messages.types import Message, Position

from . import strategies as s

pytestmark = pytest.mark.property

DEFAULTS: dict[str, dict[str, Any]] = {
    "NEWPKG": {"skip": "", "description": ""},
    "NEWVER": {"skip": ""},
    "LOGBUILD": {"failure": None},
}


def decoded(message: s.Message) -> Message:
    return decode.from_json(s.line(message), 0)


@given(s.messages, s.feeds, st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_the_wire_gives_back_what_it_was_given(
    message: s.Message, feed: str, epoch: int, serial: int
) -> None:
    position = Position(feed, epoch, serial)
    topic, payload = encode.published(position, decoded(message))
    package = message["data"].get("package")
    assert topic.decode() == (f"{message['msg']} {package}" if package else message["msg"])
    found = decode.published(payload, 0)
    assert found == (position, decoded(message), None)
    assert decode.replayed(payload, 0) == found
    assert found.message is not None
    assert encode.published(position, found.message) == [topic, payload]


@given(s.messages)
def test_the_wire_carries_the_names_of_the_design(message: s.Message) -> None:
    sent = msgpack.unpackb(encode.published(Position("f", 1, 2), decoded(message))[1], timestamp=0)
    expected = s.wire_value(message)
    expected["data"] = {**DEFAULTS.get(message["msg"], {}), **expected["data"]}
    if message["msg"] == "LOGBUILD":
        expected["data"]["files"] = [
            {"location": "/simple", **file} for file in expected["data"]["files"]
        ]
    for release in expected["data"].get("releases", {}).values():
        release["abis"] = {
            abi: {"slave_id": None, "built_at": None, "duration": None, **build}
            for abi, build in release["abis"].items()
        }
    assert sent == {"feed": "f", "epoch": 1, "serial": 2, **expected}
    assert [*sent] == ["feed", "epoch", "serial", "at", "msg", "data"]


@given(s.messages)
def test_the_journal_gives_back_what_it_was_given(message: s.Message) -> None:
    given_to_it = decoded(message)
    stored = encode.to_journal(given_to_it)
    back = encode.from_journal(given_to_it.name, given_to_it.at, stored)
    assert back == given_to_it
    assert encode.to_journal(back) == stored
    assert type(back.data) is type(given_to_it.data)
    hash(back)  # frozen all through, as it was


@given(st.integers(times.EARLIEST, times.LATEST))
def test_every_microsecond_survives(value: int) -> None:
    stamp = encode.timestamp(value)
    message = {"msg": "NEWVER", "at": stamp, "data": {"package": "a", "version": "1"}}
    message["data"]["released"] = stamp
    found = decode.from_msgpack(msgpack.packb(message), 0)
    assert (found.at, found.data.released) == (value, value)
    assert times.parse_rfc3339(times.to_rfc3339(value)) == value
    assert times.from_datetime(times.to_datetime(value)) == value
    moment = times.to_datetime(value)
    assert times.to_sql(value) == moment.isoformat(" ", "seconds")[:19]
    assert times.to_sql_precise(value) == moment.isoformat(" ", "microseconds")[:26]
    assert times.month(value) == moment.isoformat()[:7]


@given(
    st.datetimes(
        datetime(1, 1, 3),  # noqa: DTZ001 - hypothesis wants it so
        datetime(9999, 12, 29),  # noqa: DTZ001
    ),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.sampled_from("Tt "),
)
def test_a_time_is_the_same_in_every_zone(naive: datetime, minutes: int, separator: str) -> None:
    there = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    expected = times.from_datetime(there)
    assert times.parse_rfc3339(there.isoformat(separator)) == expected
    at_home = there.astimezone(UTC).isoformat(separator).removesuffix("+00:00")
    assert times.parse_rfc3339(at_home + "Z") == times.parse_rfc3339(at_home + "z") == expected


@given(st.integers(times.EARLIEST + 40 * times.DAY, times.LATEST - 40 * times.DAY))
def test_the_window_holds_the_hours_that_began_less_than_30_days_ago(now: int) -> None:
    start = times.window_start(now)
    moment, first = times.to_datetime(now), times.to_datetime(start * times.SECOND)
    assert moment - first < timedelta(days=30) <= moment - first + timedelta(hours=1)
    assert start % 3600 == 0
