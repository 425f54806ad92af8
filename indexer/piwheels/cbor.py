"""The encoding of piwheels: frames to and from a name with its data.

A message is CBOR (RFC 8949): the bare text `NAME`, or `[NAME, data]`. Tag 0 is a time, and tag 258
a set. piwheels adds tag 2001, a duration as `[days, seconds, microseconds]`, and tag 2002, no data
inside a message. All other features of CBOR are refused: with many of them, a short frame becomes
a huge value or keeps the machine busy for as long as its sender likes.

Source: piwheels 0.23, `piwheels/transport.py`, and frames from its sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from io import BytesIO
from typing import Any

import cbor2
from voluptuous import Invalid, MultipleInvalid

from ..base.errors import DecodeError
from ..messages import elements
from ..schema.messages import Validator, shown
from ..schema.piwheels import NO_DATA

TIME_TAG = 0
SET_TAG = 258
DURATION_TAG = 2001
NO_DATA_TAG = 2002

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of one frame: enough for the names of 600,000 packages. Callers may pass a lower limit."""

MAX_DEPTH = 16
"""How deep values may be nested; those of piwheels reach 8."""


def loads(
    frame: bytes, limit: int = MAX_BYTES, max_elements: int = elements.MAX_ELEMENTS
) -> tuple[str, Any]:
    """The name of a piwheels message and its data (`NO_DATA` if it has none).

    Times become aware `datetime` in UTC, durations `timedelta`, sets `set` of text or of tuples of
    text. Otherwise there are only text, bytes, numbers, booleans, null, lists, and maps whose keys
    are text or bytes.

    Args:
        limit: how many bytes it may have.
        max_elements: how many values it may contain.

    Raises DecodeError if it is anything else; no other error, whatever the bytes.
    """
    if len(frame) > limit:
        raise DecodeError("", f"is a frame of {len(frame)} bytes, more than {limit}")
    stream = BytesIO(frame)
    try:
        # cbor2 5 decodes its own tags before we can refuse them: numbers that cannot be printed,
        # regular expressions, lists that contain themselves.
        if _FIVE or len(frame) > elements.MAX_UNCOUNTED:
            elements.count_cbor(frame, max_elements, _TAGS)
        value = _decoder(stream, len(frame)).decode()
    except Exception as error:  # those of cbor2, and what its callers raise below it
        raise DecodeError("", f"is not piwheels' CBOR: {_cause(error)}") from None
    left = len(frame) - stream.tell()
    if left:
        raise DecodeError("", f"has {left} bytes after its end")
    if type(value) is str:
        return value, NO_DATA
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
        raise DecodeError("", f"a message is NAME or [NAME, data], this is {shown(value)}")
    return value[0], value[1]


def dumps(name: str, data: Any = NO_DATA) -> bytes:
    """A piwheels message, as piwheels itself would encode it.

    Raises ValueError if the data cannot be encoded; a time without its zone cannot.
    """
    try:
        return cbor2.dumps(name if data is NO_DATA else [name, data], default=_tag)
    except cbor2.CBOREncodeError as error:
        raise ValueError(f"cannot encode {name}: {_cause(error)}") from error


def checked(schemas: Mapping[str, Validator], name: str, data: Any, path: str = "") -> Any:
    """The data of a message, with its fields by name.

    Args:
        schemas: of the data of every expected message, by name.
        data: from `loads`.
        path: for the error, if the data is part of something.

    Raises DecodeError if there is no such message, or its data does not fit.
    """
    schema = schemas.get(name)
    if schema is None:
        raise DecodeError(path, f"there is no message {shown(name)} here")
    try:
        return schema(data)
    except Invalid as error:
        first = error.errors[0] if isinstance(error, MultipleInvalid) else error
        for part in (name, *first.path):
            path += _step(part, path)
        raise DecodeError(path, str(first.error_message)) from None


def _step(part: object, path: str) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    name = str(part)
    name = name if name.isidentifier() and len(name) <= 60 else shown(name)
    return f".{name}" if path else name


class _Tags(dict[int, Any]):
    """The decoders of all tags, in place of cbor2's own."""

    def __missing__(self, tag: int) -> Any:
        raise ValueError(f"piwheels has no tag {tag}")


def _time(value: Any, immutable: bool) -> datetime:
    if type(value) is not str:
        raise ValueError(f"a time is text, this is {shown(value)}")
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError(f"{shown(value)} is a time without its zone")
    return time if time.tzinfo is UTC else time.astimezone(UTC)


def _set(value: Any, immutable: bool) -> set[Any]:
    if type(value) is not list:
        raise ValueError(f"a set is a list, this is {shown(value)}")
    items = set()
    for item in value:
        parts = item if type(item) is list else [item]
        if not all(type(part) is str for part in parts):
            raise ValueError(f"a set holds text, this one {shown(item)}")
        items.add(tuple(parts) if parts is item else item)
    return items


def _duration(value: Any, immutable: bool) -> timedelta:
    if type(value) is not list or [type(part) for part in value] != [int, int, int]:
        raise ValueError("a duration is a list of three whole numbers")
    return timedelta(*value)


def _no_data(value: Any, immutable: bool) -> Any:
    if value is not None:
        raise ValueError(f"expected no data, not {shown(value)}")
    return NO_DATA


_TAGS = _Tags(
    {TIME_TAG: _time, SET_TAG: _set, DURATION_TAG: _duration, NO_DATA_TAG: _no_data},
)


def _untag(decoder: Any, tag: Any) -> Any:
    """The hook of cbor2 5 for tags that it does not know."""
    if tag.tag in (DURATION_TAG, NO_DATA_TAG):
        return _TAGS[tag.tag](tag.value, True)
    raise ValueError(f"piwheels has no tag {tag.tag}")


# piwheels 0.23 cannot use cbor2 6: where both are installed, there is cbor2 5.
_FIVE = version("cbor2").startswith("5.")


def _decoder(stream: BytesIO, size: int) -> cbor2.CBORDecoder:
    if _FIVE:
        return cbor2.CBORDecoder(stream, tag_hook=_untag)
    return cbor2.CBORDecoder(
        stream,
        semantic_decoders=_TAGS,
        max_depth=MAX_DEPTH,
        # piwheels always sends lengths, and never a key twice.
        allow_indefinite=False,
        allow_duplicate_keys=False,
        # Numbers can be chosen so that all their hashes collide.
        strict_hashable_types=True,
        read_size=max(1, size),
    )


def _tag(encoder: cbor2.CBOREncoder, value: Any) -> None:
    if isinstance(value, timedelta):
        parts = [value.days, value.seconds, value.microseconds]
        encoder.encode(cbor2.CBORTag(DURATION_TAG, parts))
    elif value is NO_DATA:
        encoder.encode(cbor2.CBORTag(NO_DATA_TAG, None))
    else:
        raise cbor2.CBOREncodeError(f"piwheels sends no {type(value).__name__}")


def _cause(error: Exception) -> str:
    text = str(error) or type(error).__name__
    if error.__cause__ is not None:  # cbor2 says where, its cause says what
        text += f": {error.__cause__}"
    return text[:200]
