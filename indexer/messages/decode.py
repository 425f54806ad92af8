"""Decodes bytes into validated, frozen messages. Pure; raises nothing but `DecodeError`.

The voluptuous schemas of `indexer.schema.messages` say what is valid. They are also compiled to
plain functions with the same validators, because voluptuous takes 20 times as long for a valid
message. What these functions refuse goes to voluptuous, which words the error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack
import orjson
from voluptuous import REMOVE_EXTRA, MultipleInvalid, Required, Schema

from ..base.errors import DecodeError
from ..base.names import FILE_FEED, MAX_FEED_NAME, is_feed_name
from ..base.times import Time
from ..schema import messages as schema
from . import elements
from . import types as messages
from .types import Message, Position

_Check = Callable[[Any], Any]

# Maps and lists of records become named tuples; a map's key is the record's first field.
_RECORDS: dict[tuple[str, ...], type[Any]] = {
    ("LOGBUILD", "files"): messages.File,
    ("LOGBUILD", "failure"): messages.Failure,
    ("FAILURE", "failure"): messages.Failure,
    ("SNAPSHOT", "releases"): messages.SnapshotRelease,
    ("SNAPSHOT", "releases", "abis"): messages.SnapshotBuild,
    ("SNAPSHOT", "releases", "files"): messages.SnapshotFile,
}


class _RefusedError(Exception):
    """The compiled check refuses a value; voluptuous says why."""


def _compiled(node: Any, path: tuple[str, ...], record: type[Any] | None) -> _Check:
    """The function that checks and converts what the `node` of a schema describes."""
    if isinstance(node, dict):
        assert record is not None, path
        return _compiled_record(node, path, record)
    if isinstance(node, schema.Map):
        return _compiled_map(node, path)
    if isinstance(node, list):
        item = _compiled(node[0], path, _RECORDS.get(path))

        def check_list(value: Any) -> Any:
            if type(value) is not list:
                raise _RefusedError
            return tuple([item(each) for each in value])

        return check_list
    if isinstance(node, schema.Nullable) and node.validator is schema.text:
        # Every download has ten such fields: a special function is worth it.
        def check_nullable_text(value: Any) -> Any:
            if value is None or type(value) is str:
                return value
            raise _RefusedError

        return check_nullable_text
    if isinstance(node, schema.Nullable):
        inner = _compiled(node.validator, path, record)

        def check_nullable(value: Any) -> Any:
            return None if value is None else inner(value)

        return check_nullable
    assert callable(node), path
    check: _Check = node
    return check


def _compiled_record(node: dict[Any, Any], path: tuple[str, ...], record: type[Any]) -> _Check:
    make = record._make
    fields = []
    defaults = {}
    for key, inner in node.items():
        name = str(key)
        fields.append((name, _compiled(inner, (*path, name), _RECORDS.get((*path, name)))))
        if not isinstance(key, Required):
            defaults[name] = key.default()
    names = [name for name, _ in fields]
    assert names == list(record._fields)[-len(names) :], f"{path}: {names}"

    if not defaults:

        def check_required(value: Any) -> Any:
            if type(value) is not dict:
                raise _RefusedError
            return make([check(value[name]) for name, check in fields])

        return check_required

    def check_record(value: Any) -> Any:
        if type(value) is not dict:
            raise _RefusedError
        return make(
            [
                check(value[name]) if name in value or name not in defaults else defaults[name]
                for name, check in fields
            ]
        )

    return check_record


def _compiled_map(node: schema.Map, path: tuple[str, ...]) -> _Check:
    key, inner = node.key, node.value
    least, most = node.least, sys.maxsize if node.most is None else node.most
    record = _RECORDS.get(path)
    if record is not None:
        # The key is the first field: check the others as a record of their own.
        keyed = record

        class _Rest:
            _fields = keyed._fields[1:]
            _make = staticmethod(tuple)

        rest = _compiled_record(inner, path, _Rest)

        def check_records(value: Any) -> Any:
            if type(value) is not dict or not least <= len(value) <= most:
                raise _RefusedError
            return tuple([keyed(key(k), *rest(v)) for k, v in value.items()])

        return check_records
    check = _compiled(inner, path, None)

    def check_map(value: Any) -> Any:
        if type(value) is not dict or not least <= len(value) <= most:
            raise _RefusedError
        return tuple([(key(k), check(v)) for k, v in value.items()])

    return check_map


def _explain(error: MultipleInvalid, prefix: str) -> DecodeError:
    """The first error of voluptuous as ours: the path as one writes it, and the cause."""
    first = error.errors[0]
    path = prefix
    for part in first.path:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            name = str(part)
            name = name if name.isidentifier() else schema.shown(name)
            path += f".{name}" if path else name
    cause = str(first.error_message)
    return DecodeError(path, "is missing" if cause == "required key not provided" else cause)


class Encoding:
    """Reads messages in one encoding, msgpack or JSON.

    Args:
        time: the validator of this encoding's times.
    """

    def __init__(self, time: schema.Validator) -> None:
        data = schema.messages(time)
        assert data.keys() == messages.BY_NAME.keys()
        self._time = time
        self._envelope = Schema(schema.envelope(time), extra=REMOVE_EXTRA)
        self._schemas = {name: Schema(node, extra=REMOVE_EXTRA) for name, node in data.items()}
        self._checks = {
            name: _compiled_record(node, (name,), messages.BY_NAME[name])
            for name, node in data.items()
        }

    def message(self, envelope: Any, received: Time) -> Message:
        """The message that an unpacked envelope holds.

        Args:
            envelope: `{"msg", "at", "data"}`, and any other fields.
            received: the time of receipt, for a message that does not say when it happened.

        Raises DecodeError if it is not a valid message.
        """
        try:
            name = envelope["msg"]
            at = envelope.get("at")
            at = received if at is None else self._time(at)
            return Message(name, at, self._checks[name](envelope["data"]))
        except Exception:
            raise self._refusal(envelope) from None

    def _refusal(self, envelope: Any) -> DecodeError:
        try:
            return self._fault(envelope)
        except RecursionError:
            return DecodeError("", "is nested too deeply")

    def _fault(self, envelope: Any) -> DecodeError:
        if type(envelope) is not dict:
            return DecodeError("", f"a message is a map, this is {schema.shown(envelope)}")
        try:
            valid = self._envelope(envelope)
            name = valid["msg"]
            if name not in self._schemas:
                return DecodeError("msg", f"there is no message {schema.shown(name)}")
        except MultipleInvalid as error:
            return _explain(error, "")
        try:
            self._schemas[name](envelope["data"])
        except MultipleInvalid as error:
            return _explain(error, "data")
        return DecodeError("data", "is refused by the compiled schema alone; please report this")


_MSGPACK = Encoding(schema.time_msgpack)
_JSON = Encoding(schema.time_json)
_POSITION = Schema(schema.POSITION, extra=REMOVE_EXTRA)
_REPLAY = Schema(schema.REPLAY, extra=REMOVE_EXTRA)


class Published(NamedTuple):
    """What a publisher sent: its position, and the message, or the error if it is not valid."""

    position: Position
    message: Message | None
    error: DecodeError | None


class End(NamedTuple):
    """A replay is complete: the last serial that was sent."""

    serial: int


class Gone(NamedTuple):
    """A replay is not possible: the publisher's epoch, and the oldest serial it keeps."""

    epoch: int
    first: int


class ReplayRequest(NamedTuple):
    """A subscriber wants up to `limit` messages after `after`."""

    epoch: int
    after: int
    limit: int


def unpack(payload: bytes) -> Any:
    """The value of a msgpack payload; too many values are refused before they are made.

    Raises DecodeError if they are not valid; no other error, whatever the bytes.
    """
    try:
        if len(payload) > elements.MAX_UNCOUNTED:
            elements.count_msgpack(payload)
        return msgpack.unpackb(payload, timestamp=0)
    except elements.TooManyError as error:
        raise DecodeError("", str(error)) from None
    except Exception as error:  # it raises many: ValueError, RecursionError, OverflowError...
        cause = str(error) or type(error).__name__
        raise DecodeError("", f"is not msgpack: {cause}") from None


def _position(value: Any) -> Position:
    try:
        feed, epoch, serial = value["feed"], value["epoch"], value["serial"]
        if type(feed) is str and type(epoch) is int and type(serial) is int:
            if 0 <= epoch <= schema.MAX_INTEGER and 0 <= serial <= schema.MAX_INTEGER:
                if not feed.startswith(FILE_FEED) and is_feed_name(feed):
                    return Position(feed, epoch, serial)
    except Exception:
        pass
    if type(value) is not dict:
        raise DecodeError("", f"a message is a map, this is {schema.shown(value)}")
    try:
        valid = _POSITION(value)
    except MultipleInvalid as error:
        raise _explain(error, "") from None
    if not is_feed_name(valid["feed"]):
        cause = f"is not printable, or is longer than {MAX_FEED_NAME} characters"
        raise DecodeError("feed", f"{schema.shown(valid['feed'])} {cause}")
    raise DecodeError("feed", f"{schema.shown(valid['feed'])} is reserved for files")


def from_msgpack(payload: bytes, received: Time) -> Message:
    """The message in one msgpack payload, whatever else its envelope holds.

    Raises DecodeError if they are not valid; no other error, whatever the bytes.
    """
    return _MSGPACK.message(unpack(payload), received)


def from_json(line: bytes, received: Time) -> Message:
    """The message in one line of a JSON-lines file.

    Raises DecodeError if they are not valid; no other error, whatever the bytes.
    """
    try:
        envelope = orjson.loads(line)
    except Exception as error:
        raise DecodeError("", f"is not JSON: {error}") from None
    return _JSON.message(envelope, received)


def published(payload: bytes, received: Time) -> Published:
    """A payload of a change feed; an invalid message with a valid position keeps its place.

    Raises DecodeError if not even its position can be read.
    """
    try:
        value = unpack(payload)
    except DecodeError as error:
        return _unreadable(payload, error)
    return _published(value, received)


def _unreadable(payload: bytes, error: DecodeError) -> Published:
    """The place of a payload that cannot be unpacked.

    One timestamp of five bytes, or one text that is not UTF-8, makes all of it unreadable. Without
    its place it would be asked for again, and its feed would be broken.
    """
    position = position_of(payload)
    if position is None or position.serial < 1:
        raise error
    return Published(position, None, error)


def position_of(payload: bytes) -> Position | None:
    """The position of a payload of a change feed, without reading its data; None if it has none.

    The data are skipped, because they may be what ends this process.
    """
    found: dict[object, object] = {}
    try:
        # Neither a name nor a number has items: a list of any length is refused before it is made.
        reader = msgpack.Unpacker(max_buffer_size=0, max_array_len=0, max_map_len=0)
        reader.feed(payload)
        for _ in range(reader.read_map_header()):
            key = reader.unpack()
            if key in ("feed", "epoch", "serial"):
                found[key] = reader.unpack()
            else:
                reader.skip()
            if len(found) == 3:
                return _position(found)
    except Exception:
        pass
    return None


def _published(value: Any, received: Time) -> Published:
    position = _position(value)
    if position.serial < 1:
        raise DecodeError("serial", "0 is not a message's serial")
    try:
        return Published(position, _MSGPACK.message(value, received), None)
    except DecodeError as error:
        return Published(position, None, error)


def heartbeat(payload: bytes) -> Position:
    """The last position that a publisher has sent; raises DecodeError if it is not a heartbeat."""
    return _position(unpack(payload))


def replayed(payload: bytes, received: Time) -> Published | End | Gone:
    """One frame of a publisher's answer to a replay request.

    Raises DecodeError if it is not one.
    """
    try:
        value = unpack(payload)
    except DecodeError as error:
        return _unreadable(payload, error)
    try:
        if "msg" not in value:
            if "end" in value:
                return End(schema.integer(value["end"]))
            if "gone" in value:
                gone = value["gone"]
                return Gone(schema.integer(gone["epoch"]), schema.integer(gone["first"]))
    except Exception as error:
        raise DecodeError("", f"is not an answer to a replay: {error}") from None
    return _published(value, received)


def replay_request(payload: bytes) -> ReplayRequest:
    """A subscriber's request for a replay; raises DecodeError if it is not one."""
    value = unpack(payload)
    try:
        valid = _REPLAY(value)["replay"]
    except MultipleInvalid as error:
        raise _explain(error, "") from None
    return ReplayRequest(valid["epoch"], valid["after"], valid["limit"])
