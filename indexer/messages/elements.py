"""Counts the values in a frame before any is made.

One byte of msgpack or CBOR can become an object of 70 bytes, and five bytes can announce a list of
any length. Counting takes no memory, and stops when there are too many.
"""

from __future__ import annotations

from collections.abc import Container

MAX_UNCOUNTED = 64 * 1024
"""Bytes: the values in a frame of this size take a few MiB at most, so they are not counted."""

MAX_ELEMENTS = 1_000_000
"""Values in one frame: a snapshot of 9,500 versions with two files each has 700,000, the list of
all packages 750,000."""

ELEMENT_BYTES = 104
"""Bytes of memory that one value takes at most, besides its text: an empty list, its place in
another list, and the tuple that a record becomes."""

TEXT_BYTES = 4
"""Bytes of memory that a byte of text takes at most: one unusual character is enough."""

_MSGPACK_FIXED = [1] * 256
_MSGPACK_ITEMS = [0] * 256
_MSGPACK_WIDTH = [0] * 256  # the length follows
for _byte in range(0x80, 0x90):
    _MSGPACK_ITEMS[_byte] = 2 * (_byte & 15)
for _byte in range(0x90, 0xA0):
    _MSGPACK_ITEMS[_byte] = _byte & 15
for _byte in range(0xA0, 0xC0):
    _MSGPACK_FIXED[_byte] = 1 + (_byte & 31)
for _byte, _size in {
    0xCA: 5,
    0xCB: 9,
    0xCC: 2,
    0xCD: 3,
    0xCE: 5,
    0xCF: 9,
    0xD0: 2,
    0xD1: 3,
    0xD2: 5,
    0xD3: 9,
    0xD4: 3,
    0xD5: 4,
    0xD6: 6,
    0xD7: 10,
    0xD8: 18,
}.items():
    _MSGPACK_FIXED[_byte] = _size
for _byte, _size in {
    0xC4: 1,
    0xC5: 2,
    0xC6: 4,
    0xC7: 1,
    0xC8: 2,
    0xC9: 4,
    0xD9: 1,
    0xDA: 2,
    0xDB: 4,
    0xDC: 2,
    0xDD: 4,
    0xDE: 2,
    0xDF: 4,
}.items():
    _MSGPACK_WIDTH[_byte] = _size


class TooManyError(ValueError):
    """A frame has more values than it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"it holds more than {limit} values")


def count_msgpack(frame: bytes, limit: int = MAX_ELEMENTS) -> int:
    """The number of values in a frame of msgpack; of an incomplete frame, up to its end.

    Source: https://github.com/msgpack/msgpack/blob/master/spec.md

    Raises TooManyError if there are more than `limit`.
    """
    fixed, items_of, width_of = _MSGPACK_FIXED, _MSGPACK_ITEMS, _MSGPACK_WIDTH
    position, size = 0, len(frame)
    found = waiting = 1
    while waiting and position < size:
        byte = frame[position]
        waiting -= 1
        width = width_of[byte]
        if width:
            length = int.from_bytes(frame[position + 1 : position + 1 + width], "big")
            position += 1 + width
            if byte < 0xDC:
                position += length + (0xC7 <= byte <= 0xC9)  # including the type of an extension
                continue
            items = length if byte < 0xDE else 2 * length
        else:
            position += fixed[byte]
            items = items_of[byte]
        if items:
            found += items
            waiting += items
            if found > limit:
                raise TooManyError(limit)
    return found


def count_cbor(frame: bytes, limit: int = MAX_ELEMENTS, tags: Container[int] | None = None) -> int:
    """The number of values in a frame of CBOR; of an incomplete frame, up to its end.

    Source: RFC 8949, section 3.

    Args:
        limit: how many there may be.
        tags: the tags that it may have; without this, all tags.

    Raises:
        TooManyError: if there are more than `limit`.
        ValueError: for an indefinite length, or another tag.
    """
    position, size = 0, len(frame)
    found = waiting = 1
    while waiting and position < size:
        byte = frame[position]
        waiting -= 1
        kind, length = byte >> 5, byte & 31
        position += 1
        if length > 23:
            if length > 27:
                raise ValueError("it holds something without a length")
            width = 1 << (length - 24)
            length = int.from_bytes(frame[position : position + width], "big")
            position += width
        if kind in (2, 3):
            position += length
        elif kind == 6 and tags is not None and length not in tags:
            raise ValueError(f"piwheels has no tag {length}")
        elif 4 <= kind <= 6:
            items = length if kind == 4 else 2 * length if kind == 5 else 1
            found += items
            waiting += items
            if found > limit:
                raise TooManyError(limit)
    return found
