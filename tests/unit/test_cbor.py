"""piwheels' encoding: captured frames mean what they should, and hostile ones are refused."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cbor2
import pytest

from indexer.base.errors import DecodeError
from indexer.piwheels import cbor
from indexer.schema import piwheels as schema
from indexer.schema.messages import Validator
from indexer.schema.piwheels import NO_DATA

from .. import captured
from ..captured import Capture

pytestmark = pytest.mark.unit

FILES = captured.files()
NAIVE = datetime.fromisoformat("2026-11-22T14:15:13")
CAPTURES = [one for path in FILES for one in captured.captures(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_captures_decode_to_what_they_say(path: Path) -> None:
    found = captured.captures(path)
    assert len(found) > 30
    for one in found:
        name, data = cbor.loads(one.frame)
        assert (name, data) == (one.name, one.data)
        assert (data is NO_DATA) == (one.data is NO_DATA)


def _is_ordered(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_ordered, value.values()))
    if isinstance(value, list):
        return all(map(_is_ordered, value))
    return not isinstance(value, set)


def test_captures_are_encoded_to_the_same_bytes() -> None:
    """Except sets, which have no order."""
    same = [one for one in CAPTURES if _is_ordered(one.data)]
    assert len(same) > 1000
    for one in same:
        assert cbor.dumps(one.name, one.data) == one.frame


STATUS: dict[str, Validator] = {
    "HELLO": schema.MASTER_HELLO,
    "STATS": schema.MASTER_STATS,
    "SLAVE": schema.SLAVE,
}
SLAVES: dict[str, Validator] = {
    **schema.SLAVE_MESSAGES,
    "IDLE": schema.SLAVE_STATS,
    "BUSY": schema.SLAVE_STATS,
}
ANSWERS: dict[str, Validator] = {
    "PROJDATA": schema.PROJECT,
    "GETPKGNAMES": schema.NAMES,
    "ALLPKGS": schema.NAMES,
    "GETABIS": schema.NAMES,
    "GETSEARCH": schema.COUNTERS,
}
NO_SCHEMA = {"BUILT", "SENT", "BYE"}
"""What only the master gets to see."""


def test_captures_of_the_status_feed_fit_their_schemas() -> None:
    seen = set()
    for one in captured.STATUS:
        valid = cbor.checked(STATUS, one.name, one.data)
        seen.add(one.name)
        if one.name == "SLAVE":
            seen.add(valid["name"])
            assert valid["slave_id"] == one.data[0]
            cbor.checked(schema.SLAVE_MESSAGES, valid["name"], valid["data"])
    assert seen == {*STATUS, *schema.SLAVE_MESSAGES} - {"CONT"}, "the master keeps CONT to itself"


def test_a_valid_status_message_has_its_fields_by_name() -> None:
    hello = next(one for one in captured.STATUS if one.name == "SLAVE" and one.data[2] == "HELLO")
    valid = cbor.checked(STATUS, hello.name, hello.data)
    assert valid["slave_id"] == 1
    assert valid["at"] == 1_795_356_920_006_342
    assert cbor.checked(SLAVES, "HELLO", valid["data"]) == {
        "build_timeout": 10800.0,
        "busy_timeout": 1.0,
        "native_py_version": "39",
        "native_abi": "cp39",
        "native_platform": "linux_armv7l",
        "label": "ghost",
        "os_name": "Raspbian GNU/Linux",
        "os_version": "11 (bullseye)",
        "board_revision": "a020d3",
        "board_serial": "00000000abcdef01",
    }


def test_captures_of_slaves_fit_their_schemas() -> None:
    found = captured.captures(captured.DIRECTORY / "farm" / "wire-slave_driver.jsonl")
    names = {one.name for one in found}
    assert names - NO_SCHEMA == SLAVES.keys() - {"STATS"}
    for one in found:
        if one.name not in NO_SCHEMA:
            cbor.checked(SLAVES, one.name, one.data)


def test_captures_of_downloads_fit_their_schema() -> None:
    found = [one for one in CAPTURES if one.name == "LOGDOWNLOAD" and one.socket == "lumberjack"]
    assert len(found) > 50
    for one in found:
        valid = cbor.checked({"LOGDOWNLOAD": schema.DOWNLOAD}, one.name, one.data)
        assert valid["filename"] == one.data[0]
    others = {one.name for one in CAPTURES if one.socket == "lumberjack"} - {"LOGDOWNLOAD"}
    assert others == set(schema.OTHER_LOGS)


def _answers() -> list[tuple[Capture, Capture]]:
    """Requests to the master's database, each with its answer."""
    found = captured.captures(captured.DIRECTORY / "oracle.jsonl")
    return list(zip(found[::2], found[1::2], strict=True))


def test_captures_of_answers_fit_their_schemas() -> None:
    asked = set()
    for request, reply in _answers():
        assert (request.direction, reply.direction) == ("request", "reply")
        if request.name in ANSWERS and reply.name == "OK":
            asked.add(request.name)
            cbor.checked({"OK": ANSWERS[request.name]}, reply.name, reply.data)
    assert asked == ANSWERS.keys()


# What is refused

LIST_OF_TWO = b"\x82\x61A"
"""The beginning of a message "A"; its data follows."""

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "premature end"),
    "no message": (b"\x01", "a message is NAME or"),
    "no name": (b"\x82\x01\x02", "a message is NAME or"),
    "bytes as name": (b"\x82\x41A\x02", "a message is NAME or"),
    "too many parts": (b"\x83\x61A\x01\x02", "a message is NAME or"),
    "cut short": (LIST_OF_TWO, "premature end"),
    "bytes after its end": (b"\x61A\x00", "1 bytes after its end"),
    "a second message": (b"\x61A\x61A", "2 bytes after its end"),
    "no UTF-8": (LIST_OF_TWO + b"\x61\xff", "utf-8"),
    "a lone surrogate": (LIST_OF_TWO + b"\x63\xed\xa0\x80", "utf-8"),
    "deep lists": (LIST_OF_TWO + b"\x81" * 100_000, "nesting depth"),
    "deep maps": (LIST_OF_TWO + b"\xa1\x61a" * 100_000, "nesting depth"),
    "deep tags": (LIST_OF_TWO + b"\xd9\x07\xd1" * 100_000, "nesting depth"),
    "a list of 2^64": (LIST_OF_TWO + b"\x9b" + b"\xff" * 8, "premature end"),
    "a list of 2^40": (LIST_OF_TWO + b"\x9b\0\0\1" + b"\0" * 5, "premature end"),
    "a map of 2^64": (LIST_OF_TWO + b"\xbb" + b"\xff" * 8, "premature end"),
    "a text of 2^64 bytes": (LIST_OF_TWO + b"\x7b" + b"\xff" * 8 + b"a", "premature end"),
    "a text of 2^62 bytes": (LIST_OF_TWO + b"\x7b\x40" + b"\0" * 7 + b"a", "premature end"),
    "bytes of 2^62": (LIST_OF_TWO + b"\x5b\x40" + b"\0" * 7 + b"a", "premature end"),
    "a list without a length": (LIST_OF_TWO + b"\x9f\x01\xff", "indefinite"),
    "a map without a length": (LIST_OF_TWO + b"\xbf\x61a\x01\xff", "indefinite"),
    "a text without a length": (LIST_OF_TWO + b"\x7f\x61a\xff", "indefinite"),
    "an end without a beginning": (b"\x82\x61A\xff", "break"),
    "a key twice": (LIST_OF_TWO + b"\xa2\x61a\x01\x61a\x02", "Duplicate"),
    "a number as key": (LIST_OF_TWO + b"\xa1\x01\x02", "map key"),
    "a list as key": (LIST_OF_TWO + b"\xa1\x81\x01\x02", "map key"),
    "a time that is a number": (LIST_OF_TWO + b"\xc0\x01", "a time is text"),
    "a time that is none": (LIST_OF_TWO + b"\xc0\x65today", "isoformat"),
    "a time without its zone": (LIST_OF_TWO + b"\xc0\x6a2026-11-22", "without its zone"),
    "a time before all calendars": (
        LIST_OF_TWO + b"\xc0\x78\x190001-01-01T00:00:00+23:59",
        "out of range",
    ),
    "a set that is a map": (LIST_OF_TWO + b"\xd9\x01\x02\xa0", "a set is a list"),
    "a set that is text": (LIST_OF_TWO + b"\xd9\x01\x02\x63abc", "a set is a list"),
    "a set of numbers": (LIST_OF_TWO + b"\xd9\x01\x02\x82\x01\x02", "a set holds text"),
    "a set of lists of lists": (LIST_OF_TWO + b"\xd9\x01\x02\x81\x81\x80", "a set holds text"),
    "a set in a set": (LIST_OF_TWO + b"\xd9\x01\x02\x81\xd9\x01\x02\x80", "a set holds text"),
    "a duration of two parts": (LIST_OF_TWO + b"\xd9\x07\xd1\x82\0\0", "a duration is"),
    "a duration of text": (LIST_OF_TWO + b"\xd9\x07\xd1\x63123", "a duration is"),
    "a duration of floats": (LIST_OF_TWO + b"\xd9\x07\xd1\x83\xf9\x7e\0\0\0", "a duration is"),
    "a duration for ever": (
        LIST_OF_TWO + b"\xd9\x07\xd1\x83\x1b" + b"\xff" * 8 + b"\0\0",
        "error decoding",
    ),
    "no data with data": (LIST_OF_TWO + b"\xd9\x07\xd2\x01", "no data has no data"),
}
for number, what in {
    1: b"\x1b" + b"\xff" * 8,  # seconds since 1970
    2: b"\x59\xff\xff" + b"\xff" * 65535,  # a number of half a million bits
    3: b"\x59\xff\xff" + b"\xff" * 65535,
    4: b"\x82\x1a\x7f\xff\xff\xff\x01",  # a decimal of two billion digits,
    5: b"\x82\x1a\x3f\xff\xff\xff\x01",  # 2 to the power of a billion
    25: b"\0",  # text that was said before
    28: b"\x81\xd8\x1d\0",  # a list that is in itself
    29: b"\0",
    30: b"\x82\x01\0",  # a fraction with 0 below
    35: b"\x6c(a+)+(a+)+$aaa",  # a regular expression
    36: b"\x61a",  # an e-mail
    37: b"\x41a",
    52: b"\x41a",
    54: b"\x41a",
    100: b"\x1a\x7f\xff\xff\xff",  # days since 1970
    256: b"\x82\x63abc\xd8\x19\0",
    260: b"\x41a",
    261: b"\xa0",
    1004: b"\x61a",
    43000: b"\x82\0\0",
    55799: b"\0",
    2000: b"\0",  # nobody's
    2**64 - 1: b"\0",
}.items():
    head = cbor2.dumps(cbor2.CBORTag(number, 0))[:-1]
    REFUSED[f"tag {number}"] = (LIST_OF_TWO + head + what, f"piwheels has no tag {number}")


@pytest.mark.parametrize("what", REFUSED)
def test_hostile_frames_are_refused(what: str) -> None:
    frame, cause = REFUSED[what]
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError) as caught:
            cbor.loads(frame)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(frame) + 1_000_000
    finally:
        tracemalloc.stop()
    assert cause in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_lists_that_share_their_parts_are_refused() -> None:
    """Forty bytes a level; whoever walked through 30 of them would see a billion lists."""
    depth = 12
    levels: Any = "x"
    for _ in range(depth):
        levels = [levels, levels]
    frame = cbor2.dumps(["A", levels], value_sharing=True)
    assert len(cbor2.dumps(["A", levels])) > 2**depth > len(frame)
    with pytest.raises(DecodeError, match="piwheels has no tag 28"):
        cbor.loads(frame)


def test_keys_whose_hashes_collide_are_refused() -> None:
    """As a map or set they would take time that grows with their square."""
    same = [number * (2**61 - 1) for number in range(1, 8)]
    assert len({hash(one) for one in same}) == 1
    hostile: list[object] = [dict.fromkeys(same), set(same)]
    for data in hostile:
        with pytest.raises(DecodeError):
            cbor.loads(cbor2.dumps(["A", data]))


def test_frames_that_are_too_long_are_not_looked_at() -> None:
    assert cbor.loads(b"\x64NAME", 5) == ("NAME", NO_DATA)
    with pytest.raises(DecodeError, match="5 bytes, more than 4"):
        cbor.loads(b"\x64NAME", 4)
    with pytest.raises(DecodeError, match="more than 16777216"):
        cbor.loads(b"\0" * (cbor.MAX_BYTES + 1))


def test_odd_but_harmless_values() -> None:
    data: list[object] = [
        None,
        True,
        -(2**64),
        2**64 - 1,
        1.5,
        b"\xff",
        "",
        [],
        {},
        {b"": "\0"},
        set(),
    ]
    assert cbor.loads(cbor2.dumps(["A", data])) == ("A", data)


def test_times_come_in_utc() -> None:
    there = datetime.fromisoformat("2026-11-22T15:15:13.023173+01:00")
    _, found = cbor.loads(cbor2.dumps(["A", there]))
    assert found == there
    assert found.tzinfo is UTC


def test_durations_below_zero() -> None:
    for one in (timedelta(microseconds=-1), timedelta.min, timedelta.max, timedelta(0)):
        assert cbor.loads(cbor.dumps("A", one)) == ("A", one)


@pytest.mark.parametrize("value", [object(), {"a": [len]}, NAIVE])
def test_what_cannot_be_encoded(value: object) -> None:
    with pytest.raises(ValueError, match="cannot encode A: "):
        cbor.dumps("A", value)


# Schemas

GOOD = {one.data[2]: one.data[3] for one in captured.STATUS if one.name == "SLAVE"}
MASTER = {one.name: one.data for one in captured.STATUS if one.name != "SLAVE"}


def _changed(data: Any, position: int, value: object) -> Any:
    return [*data[:position], value, *data[position + 1 :]]


@pytest.mark.parametrize(
    ("schemas", "name", "data", "message"),
    [
        (STATUS, "GOODBYE", NO_DATA, "there is no message 'GOODBYE' here"),
        (STATUS, "HELLO", NO_DATA, "HELLO: expected a list of 6, got no data"),
        (STATUS, "HELLO", MASTER["HELLO"][:5], "HELLO: expected a list of 6, got one of 5"),
        (
            STATUS,
            "HELLO",
            _changed(MASTER["HELLO"], 0, "2026"),
            "HELLO.started: expected a time, got '2026'",
        ),
        (
            STATUS,
            "HELLO",
            _changed(MASTER["HELLO"], 0, NAIVE),
            "HELLO.started: is a time without its zone",
        ),
        (STATUS, "HELLO", _changed(MASTER["HELLO"], 1, None), "HELLO.label: expected text"),
        (
            STATUS,
            "HELLO",
            _changed(MASTER["HELLO"], 1, "x" * 256),
            "HELLO.label: is longer than 255 characters",
        ),
        (
            STATUS,
            "HELLO",
            _changed(MASTER["HELLO"], 1, "\x1b[2Jpi"),
            "HELLO.label: '\\x1b[2Jpi' has characters that are not printable",
        ),
        (STATUS, "HELLO", _changed(MASTER["HELLO"], 1, "pi\x9b1m"), "HELLO.label: 'pi"),
        (
            STATUS,
            "STATS",
            _changed(MASTER["STATS"], 2, {"cp311": -1}),
            "STATS.builds_last_hour.cp311: -1 is not between",
        ),
        (
            STATUS,
            "STATS",
            _changed(MASTER["STATS"], 5, {"a b": "1"}),
            "STATS.builds_pending.'a b': expected a whole number",
        ),
        (
            STATUS,
            "STATS",
            _changed(MASTER["STATS"], 3, timedelta(-1)),
            "STATS.builds_time: is a duration below 0",
        ),
        (
            STATUS,
            "STATS",
            _changed(MASTER["STATS"], 17, float("nan")),
            "STATS.load_average: nan is not a finite number",
        ),
        (
            STATUS,
            "STATS",
            _changed(MASTER["STATS"], 18, float("-inf")),
            "STATS.cpu_temp: -inf is not a finite number",
        ),
        (
            STATUS,
            "STATS",
            _changed(MASTER["STATS"], 18, True),
            "STATS.cpu_temp: expected a number, got True",
        ),
        (STATUS, "SLAVE", [1, None, "DONE", NO_DATA], "SLAVE.at: expected a time"),
        (SLAVES, "STATS", _changed(GOOD["STATS"], 1, 2**63), "STATS.disk_size: 92"),
        (SLAVES, "STATS", _changed(GOOD["STATS"], 1, -1), "STATS.disk_size: -1"),
        (SLAVES, "SLEEP", 0, "SLEEP: expected true or false, got 0"),
        (SLAVES, "BUILD", ["numpy"], "BUILD: expected a list of 2, got one of 1"),
        (SLAVES, "BUILD", ["numpy", 1], "BUILD.version: expected text, got 1"),
        (SLAVES, "SEND", b"a.whl", "SEND: expected text, got b'a.whl'"),
        (SLAVES, "DIE", False, "DIE: expected no data, got False"),
        (ANSWERS, "ALLPKGS", ["a", 1], "ALLPKGS[1]: expected text"),
        (ANSWERS, "ALLPKGS", "numpy", "ALLPKGS: expected a list"),
        (ANSWERS, "GETSEARCH", {"numpy": [1]}, "GETSEARCH.numpy: expected a list of 2"),
        (ANSWERS, "GETSEARCH", {b"numpy": [1, 2]}, "GETSEARCH"),
        (ANSWERS, "PROJDATA", {}, "PROJDATA.name: is missing"),
        (
            ANSWERS,
            "PROJDATA",
            {"name": "", "description": "", "releases": {"x" * 99: {}}},
            f"PROJDATA.releases.{'x' * 60!r}"[:70],
        ),
    ],
)
def test_what_does_not_fit_says_where_and_why(
    schemas: dict[str, Validator], name: str, data: object, message: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        cbor.checked(schemas, name, data)
    assert str(caught.value).startswith(message)
    with pytest.raises(DecodeError) as caught:
        cbor.checked(schemas, name, data, "SLAVE.data")
    assert caught.value.path.startswith("SLAVE.data")


def test_the_answer_for_a_package_that_is_none() -> None:
    data = next(reply.data for request, reply in _answers() if request.data == "no-such-package")
    assert cbor.checked(ANSWERS, "PROJDATA", data)["name"] is None


def test_sets_come_sorted() -> None:
    assert cbor.checked(ANSWERS, "ALLPKGS", {"b", "a", "c"}) == ["a", "b", "c"]
