"""Decoding raises `DecodeError` and nothing else, and both of its schemas say the same."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base.errors import DecodeError
from indexer.messages import decode, encode
from indexer.messages.types import Position

from . import strategies as s
from .decoding import DECODERS, RECEIVED, check_decoders, check_error, check_schemas
from .profiles import examples

pytestmark = pytest.mark.property

FIRST, LAST = 0, 2**63 - 1


@examples(120)
@given(s.any_bytes)
def test_whatever_the_bytes_only_decode_errors(payload: bytes) -> None:
    check_decoders(payload)


@pytest.mark.parametrize("number", range(len(s.NONSENSE)))
def test_nonsense_is_refused_by_every_decoder(number: int) -> None:
    check_decoders(s.NONSENSE[number])
    for decoder in DECODERS.values():
        with pytest.raises(DecodeError):
            decoder(s.NONSENSE[number])


@pytest.mark.parametrize("depth", s.DEPTHS)
def test_deep_nesting_is_refused_by_every_decoder(depth: int) -> None:
    for payload in s.nested(depth):
        check_decoders(payload)


@contextmanager
def usual_stack() -> Iterator[None]:
    """The stack that a program has; hypothesis allows itself more."""
    limit = sys.getrecursionlimit()
    depth = 0
    frame = inspect.currentframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(depth + 950)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@given(st.data())
def test_deep_nesting_anywhere_in_a_message(data: st.DataObject) -> None:
    message = data.draw(s.messages.map(s.wire_value))
    depth = data.draw(st.sampled_from(s.DEPTHS[:-2]))
    *path, key = data.draw(st.sampled_from(s.places(message)))
    parent = message
    for step in path:
        parent = parent[step]
    parent[key] = mark = "put the deep thing here"
    for opening in (b"\x91", b"\x81\xa1x"):
        payload = msgpack.packb(message).replace(msgpack.packb(mark), opening * depth + b"\xc0")
        with usual_stack(), pytest.raises(DecodeError) as caught:
            decode.from_msgpack(payload, RECEIVED)
        check_error(caught.value)


@given(s.messages)
def test_valid_messages_are_the_same_in_both_encodings(message: s.Message) -> None:
    from_json = decode.from_json(s.line(message), RECEIVED)
    assert from_json == decode.from_msgpack(s.wire(message), RECEIVED)
    assert from_json.name == message["msg"]
    hash(from_json)  # frozen all through


@given(s.messages, st.integers(1, LAST), st.integers(FIRST, LAST))
def test_published_messages_keep_their_position(
    message: s.Message, serial: int, epoch: int
) -> None:
    found = decode.published(s.wire(message, feed="f", epoch=epoch, serial=serial), RECEIVED)
    assert found.position == Position("f", epoch, serial)
    assert found.error is None
    assert found.message == decode.from_json(s.line(message), RECEIVED)


@given(s.mutated_wire, s.feeds, st.integers(1, LAST))
def test_invalid_messages_keep_their_position_too(value: Any, feed: str, serial: int) -> None:
    if not isinstance(value, dict):
        return
    payload = msgpack.packb({**value, "feed": feed, "epoch": 3, "serial": serial})
    try:
        found = decode.published(payload, RECEIVED)
    except DecodeError:
        with pytest.raises(ValueError):  # keys that are not text, times that are none
            msgpack.unpackb(payload, timestamp=0)
        return
    assert found.position == Position(feed, 3, serial)
    assert (found.message is None) is (found.error is not None)


@given(s.messages)
def test_extra_fields_are_ignored_and_never_kept(message: s.Message) -> None:
    expected = decode.from_json(s.line(message), RECEIVED)
    extra = {"output": "a log", "host": "2001:db8::1", "later": [{"version": 1}]}
    grown = {**message, **extra, "data": {**message["data"], **extra}}
    assert decode.from_json(s.line(grown), RECEIVED) == expected
    assert decode.from_msgpack(s.wire(grown), RECEIVED) == expected
    assert b"a log" not in encode.to_journal(expected)
    assert b"2001:db8::1" not in encode.to_journal(expected)


@given(s.messages)
def test_a_message_without_a_time_has_that_of_its_receipt(message: s.Message) -> None:
    dated = decode.from_json(s.line(message), RECEIVED)
    for at in ({}, {"at": None}):
        undated = {name: value for name, value in message.items() if name != "at"} | at
        assert decode.from_json(s.line(undated), RECEIVED) == dated._replace(at=RECEIVED)
        assert decode.from_msgpack(s.wire(undated), RECEIVED) == dated._replace(at=RECEIVED)


# Names become paths


def safe(name: str, longest: int) -> bool:
    return 0 < len(name) <= longest and name[0] != "." and not {"/", "\0"}.intersection(name)


def is_canonical(name: str) -> bool:
    return name == re.sub("[-_.]+", "-", name).lower() and all(
        part and set(part) <= set("abcdefghijklmnopqrstuvwxyz0123456789")
        for part in name.split("-")
    )


RELEASE = {"released": "2026-11-22T14:00:00Z", "skip": "", "yanked": False, "abis": {}, "files": {}}
SNAPSHOT: s.Message = {
    "package": "a",
    "name": "a",
    "description": "",
    "aliases": [],
    "releases": {},
}
FILE = {
    "filesize": 1, "filehash": "a" * 64, "package_tag": "", "package_version_tag": "",
    "py_version_tag": "", "abi_tag": "", "platform_tag": "", "requires_python": None,
    "dependencies": {},
}  # fmt: skip
SNAPSHOT_FILE = {
    "filesize": 1, "filehash": "a" * 64, "location": "x", "platform_tag": "", "abi_tag": "",
    "builder_abi": "cp311", "requires_python": None, "apt_dependencies": [],
    "pip_dependencies": [],
}  # fmt: skip


def accepts(name: str, data: s.Message) -> bool:
    try:
        decode.from_json(s.line({"msg": name, "data": data}), RECEIVED)
    except DecodeError:
        return False
    return True


def build(**changed: Any) -> s.Message:
    fields = {"build_id": 1, "slave_id": 1, "abi_tag": "cp311", "status": True, "duration": 1.0}
    return {**fields, "package": "a", "version": "1", "files": [], **changed}


def check_names(name: str) -> None:
    short, long = safe(name, 200), safe(name, 255)
    package = short and is_canonical(name)
    assert accepts("NEWPKG", {"package": name}) is package
    assert accepts("DELPKG", {"package": name}) is package
    assert accepts("LOGBUILD", build(package=name)) is package
    assert accepts("SNAPSHOT", {**SNAPSHOT, "package": name}) is package
    assert accepts("DOWNLOADS", {"package": name, "all": 1, "hours": {}}) is package
    assert accepts("NEWPKGNAME", {"package": "a", "name": name, "seen": None}) is short
    assert accepts("SNAPSHOT", {**SNAPSHOT, "name": name}) is short
    assert accepts("SNAPSHOT", {**SNAPSHOT, "aliases": ["a", name]}) is short
    assert accepts("NEWVER", {"package": "a", "version": name, "released": None}) is short
    assert accepts("DELVER", {"package": "a", "version": name}) is short
    assert accepts("LOGBUILD", build(version=name)) is short
    assert accepts("SNAPSHOT", {**SNAPSHOT, "releases": {name: RELEASE}}) is short
    assert accepts("LOGBUILD", build(files=[{**FILE, "filename": name}])) is long
    release = {**RELEASE, "files": {name: SNAPSHOT_FILE}}
    assert accepts("SNAPSHOT", {**SNAPSHOT, "releases": {"1": release}}) is long
    client = dict.fromkeys(s.CLIENT)
    at = "2026-11-22T14:00:00Z"
    assert accepts("LOGDOWNLOAD", {"filename": name, "accessed_at": at, **client}) is long


@pytest.mark.parametrize("name", [*s.HOSTILE_NAMES, *s.PACKAGES, *s.SPELLINGS, *s.WHEELS])
def test_names_that_become_paths(name: str) -> None:
    check_names(name)


@given(s.hostile_names)
def test_any_names_that_become_paths(name: str) -> None:
    check_names(name)


@pytest.mark.parametrize("abi", [*s.ABIS, "cp27mu", "cp314td", "cp3100"])
def test_every_cpython_abi_is_accepted(abi: str) -> None:
    assert accepts("LOGBUILD", build(abi_tag=abi))
    assert accepts("SETABIS", {"build_abis": {abi: ""}, "preinstalled_apt_packages": {abi: []}})


@pytest.mark.parametrize(
    "abi", ["", "none", "abi3", "py3", "cp", "cp3", "cp03", "cp311 ", "CP311", "cp٣١١", "cp311x"]
)
def test_no_build_abis(abi: str) -> None:
    assert not accepts("LOGBUILD", build(abi_tag=abi))
    assert not accepts("SETABIS", {"build_abis": {abi: ""}, "preinstalled_apt_packages": {}})
    assert not accepts("SETABIS", {"build_abis": {}, "preinstalled_apt_packages": {abi: []}})


# Types

NULLABLE = {*s.CLIENT, "requires_python", "seen"}
OTHERS: tuple[Any, ...] = (None, True, False, 1, 0, 1.5, 1.0, "x", "1", [], {}, [1], {"x": 1})


def may_be(message: s.Message, path: list[Any], value: Any) -> bool:
    """Whether a field of data may have a value of another type."""
    key = path[-1]
    if value is None:
        if key == "released":
            return bool(message["msg"] == "NEWVER")
        return key in NULLABLE or (key == "build_id" and message["msg"] == "SNAPSHOT")
    return key == "duration" and type(value) in (int, float)


@examples(60)
@given(s.messages, st.data())
def test_a_value_of_another_type_is_refused(message: s.Message, data: st.DataObject) -> None:
    message = deepcopy(message)
    *path, key = data.draw(st.sampled_from([("data",), *s.places(message["data"])]))
    parent: Any = message if key == "data" else message["data"]
    for step in path:
        parent = parent[step]
    known = type(parent[key])
    value = data.draw(st.sampled_from([one for one in OTHERS if type(one) is not known]))
    parent[key] = value
    text_may_be = known is type(None) and key in NULLABLE - {"seen"} and type(value) is str
    expected = may_be(message, [*path, key], value) or text_may_be
    assert accepts(message["msg"], message["data"]) is expected


# The compiled schema against voluptuous


@examples(60)
@given(s.messages)
def test_the_compiled_schema_gives_the_values_of_voluptuous(message: s.Message) -> None:
    assert check_schemas(decode._JSON, message["msg"], message["data"])
    data = msgpack.unpackb(msgpack.packb(s.wire_value(message["data"])), timestamp=0)
    assert check_schemas(decode._MSGPACK, message["msg"], data)


@examples(90)
@given(s.mutated, st.sampled_from(tuple(s.DATA)))
def test_the_compiled_schema_refuses_what_voluptuous_refuses(value: Any, other: str) -> None:
    if not isinstance(value, dict) or "data" not in value:
        return
    name = value.get("msg")
    name = name if isinstance(name, str) and name in s.DATA else other
    data = json.loads(json.dumps(value["data"]))
    check_schemas(decode._JSON, name, data)


@examples(90)
@given(s.mutated_wire, st.sampled_from(tuple(s.DATA)))
def test_likewise_on_the_wire(value: Any, other: str) -> None:
    if not isinstance(value, dict) or "data" not in value:
        return
    name = value.get("msg")
    name = name if isinstance(name, str) and name in s.DATA else other
    check_schemas(decode._MSGPACK, name, value["data"])


@examples(60)
@given(s.mutated)
def test_a_refusal_is_never_of_the_compiled_schema_alone(value: Any) -> None:
    error = None
    try:
        decode.from_json(s.line(value), RECEIVED)
    except DecodeError as refused:
        error = refused
    assert error is None or "please report" not in error.cause


# Replay


@given(st.integers(FIRST, LAST), st.integers(FIRST, LAST), st.integers(1, LAST))
def test_what_the_replay_says_comes_back(epoch: int, serial: int, limit: int) -> None:
    request = encode.replay_request(epoch, serial, limit)
    assert decode.replay_request(request) == (epoch, serial, limit)
    assert decode.replayed(encode.replay_end(serial), 0) == decode.End(serial)
    assert decode.replayed(encode.replay_gone(epoch, serial), 0) == decode.Gone(epoch, serial)
    position = Position("ñ", epoch, serial)
    assert encode.heartbeat(position)[0] == b"HEARTBEAT"
    assert decode.heartbeat(encode.heartbeat(position)[1]) == position
