"""piwheels' own encoding, in one place: frames to and from a name with its data.

A message is CBOR (RFC 8949): the bare text `NAME`, or `[NAME, data]`. Tag 0 is a time, tag 258 a
set; of piwheels' own are tag 2001, a duration as `[days, seconds, microseconds]`, and tag 2002, no
data inside a message.

Source: piwheels 0.23, `piwheels/transport.py`, and frames off its sockets.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import cbor2

from ..errors import DecodeError
from ..schema.messages import shown
from ..schema.piwheels import NO_DATA

DURATION_TAG = 2001
NO_DATA_TAG = 2002

MOST_BYTES = 64 * 1024 * 1024
"""Of one frame; the largest that piwheels sends hold a build's whole log."""


def loads(frame: bytes) -> tuple[str, Any]:
    """The name of a piwheels message and its data (`NO_DATA` if it has none).

    Times come as aware `datetime` in UTC, durations as `timedelta`, sets as `set`.

    Raises:
        DecodeError: whatever the bytes, this and nothing else.
    """
    if len(frame) > MOST_BYTES:
        raise DecodeError("", f"is a frame of {len(frame)} bytes, more than {MOST_BYTES}")
    try:
        value = cbor2.loads(frame, tag_hook=_untag, max_depth=32)
    except Exception as error:  # it has many; some are of the types that it makes
        raise DecodeError("", f"is not CBOR: {_first_line(error)}") from None
    if type(value) is str:
        return value, NO_DATA
    if type(value) is not list or len(value) != 2 or type(value[0]) is not str:
        raise DecodeError("", f"a message is NAME or [NAME, data], this is {shown(value)}")
    return value[0], value[1]


def dumps(name: str, data: Any = NO_DATA) -> bytes:
    """A piwheels message, as piwheels itself would encode it.

    Raises:
        ValueError: if the data has a type that piwheels does not send.
    """
    try:
        return cbor2.dumps(name if data is NO_DATA else [name, data], default=_tag)
    except cbor2.CBOREncodeError as error:
        raise ValueError(f"cannot encode {name}: {error}") from error


def _untag(tag: cbor2.CBORTag, immutable: bool) -> Any:
    if tag.tag == DURATION_TAG:
        days, seconds, microseconds = tag.value
        return timedelta(days=days, seconds=seconds, microseconds=microseconds)
    if tag.tag == NO_DATA_TAG:
        return NO_DATA
    return tag


def _tag(encoder: cbor2.CBOREncoder, value: Any) -> None:
    if isinstance(value, timedelta):
        parts = [value.days, value.seconds, value.microseconds]
        encoder.encode(cbor2.CBORTag(DURATION_TAG, parts))
    elif value is NO_DATA:
        encoder.encode(cbor2.CBORTag(NO_DATA_TAG, None))
    else:
        raise cbor2.CBOREncodeError(f"piwheels sends no {type(value).__name__}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
