"""Prepares refused bytes for the quarantine: removes what must never be stored.

A build's log and a downloader's address are removed if the bytes can be read that far. All other
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
    """The journal's entry for bytes that are not a valid message.

    Args:
        position: their position in a feed, if it could be read.
        source: the address of a socket, or the name of a file.
        encoding: `msgpack`, `json` or `cbor`.
        error: what is wrong.
        raw: the bytes.
        redacted: removes what must never be stored; None if the fields have names.
    """
    if isinstance(error, PutAsideError):
        # It must not be read, so what must not be stored cannot be removed.
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
