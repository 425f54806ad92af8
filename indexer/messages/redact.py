"""What is refused, as the quarantine keeps it: the bytes, less what must never be stored.

A build's log and a downloader's address are taken out of whatever can be read that far; all other
bytes stay as they came, and can be retried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import orjson

from ..base import printable
from ..base.errors import DecodeError
from . import decode
from .entries import Refused
from .poison import PutAsideError
from .types import Position

NEVER_STORED = ("host", "output")
"""Fields of piwheels' messages: an address is personal data, a log is large and lives elsewhere."""


def refused(
    position: Position | None,
    source: str,
    encoding: str,
    error: DecodeError,
    raw: bytes,
    redacted: Callable[[bytes], bytes] | None = None,
) -> Refused:
    """The entry for the journal of bytes that are not a valid message.

    Args:
        position: where they stand in a feed, if that could be read.
        source: a socket's address or a file's name.
        encoding: `msgpack`, `json` or `cbor`.
        error: what is wrong.
        raw: the bytes.
        redacted: takes what must never be stored out of them; None where the fields have names.
    """
    if isinstance(error, PutAsideError):
        # It must not be read, and so what must not be stored cannot be taken out.
        kept = b"" if any(name.encode() in raw for name in NEVER_STORED) else raw
    else:
        kept = _redacted(encoding, raw) if redacted is None else redacted(raw)
    return Refused(position, printable.utf8(source), encoding, error, kept)


def _redacted(encoding: str, raw: bytes) -> bytes:
    if not any(name.encode() in raw for name in NEVER_STORED):
        return raw
    try:
        value: Any = orjson.loads(raw) if encoding == "json" else decode.unpack(raw)
        found = [name for name in NEVER_STORED if name in value["data"]]
        if not found:
            return raw
        for name in found:
            del value["data"][name]
        return orjson.dumps(value) if encoding == "json" else bytes(msgpack.packb(value))
    except Exception:  # noqa: BLE001 - it was refused because it cannot be read
        return raw
