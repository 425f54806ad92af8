"""Prepares refused bytes for the quarantine: removes what must never be stored.

A build's log and a downloader's address are removed. Where nobody can know that bytes are free of
an address, because they cannot be read or do not name their fields, only their length, their digest
and the reason are kept. All other bytes stay as they came, and can be retried.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable
from typing import Any

import msgpack
import orjson

from ..base import printable
from ..base.errors import DecodeError
from . import decode
from .entries import Refused, Withheld
from .poison import PutAsideError
from .types import BY_NAME, Position

NEVER_STORED = ("host", "output")
"""Fields of piwheels' messages: an address is personal data, a log is large and lives elsewhere."""

_SUSPECT = re.compile(
    rb"host|output|LOG|HTTP|GET |\\u|[0-9A-Za-z]\.[0-9A-Za-z]|[0-9A-Fa-f]:[0-9A-Fa-f:]|::"
)
"""Marks of a log entry, of an address, or of the name of a machine."""

_QUOTED = re.compile(r"""(?<!\w)(?:'(?:\\.|[^'\\])*(?:'|$)|"(?:\\.|[^"\\])*(?:"|$))""")
_DOWNLOAD = frozenset(BY_NAME["LOGDOWNLOAD"]._fields)


def refused(
    position: Position | None,
    source: str,
    encoding: str,
    error: DecodeError,
    raw: bytes,
    redacted: Callable[[bytes], bytes | None] | None = None,
) -> Refused:
    """The journal's entry for bytes that are not a valid message.

    Args:
        position: their position in a feed, if it could be read.
        source: the address of a socket, or the name of a file.
        encoding: `msgpack`, `json` or `cbor`.
        redacted: the bytes without what must never be stored; None if that cannot be known. Without
            this function, the fields have names.
    """
    kept: bytes | None
    if isinstance(error, PutAsideError):
        # It must not be read, so what must not be stored cannot be removed.
        kept = None if any(name.encode() in raw for name in (*NEVER_STORED, "LOGD")) else raw
    else:
        kept = (redacted or _named(encoding))(raw)
    withheld = None
    if kept is None:
        withheld = Withheld(len(raw), hashlib.sha256(raw).digest())
        error = without_values(error)
    return Refused(position, printable.utf8(source), encoding, error, kept or b"", withheld)


def without_values(error: DecodeError) -> DecodeError:
    """The same error, which quotes nothing of what was refused."""
    return DecodeError(_QUOTED.sub("...", error.path), _QUOTED.sub("...", error.cause))


def unreadable(raw: bytes) -> bytes | None:
    """Bytes that cannot be read; None if they may hold an address."""
    return None if _SUSPECT.search(raw) else raw


def _named(encoding: str) -> Callable[[bytes], bytes | None]:
    def redacted(raw: bytes) -> bytes | None:
        try:
            value: Any = orjson.loads(raw) if encoding == "json" else decode.unpack(raw)
            found = _without(value)
            if not _is_free(value):
                return None
            if not found:
                return raw
            return orjson.dumps(value) if encoding == "json" else bytes(msgpack.packb(value))
        except Exception:  # noqa: BLE001 - it was refused because it cannot be read
            return unreadable(raw)

    return redacted


def _without(value: Any) -> bool:
    """Remove what is never stored, wherever it stands; true if there was any."""
    found = False
    if isinstance(value, dict):
        for name in NEVER_STORED:
            found |= value.pop(name, None) is not None
        for inner in value.values():
            found |= _without(inner)
    elif isinstance(value, list):
        for inner in value:
            found |= _without(inner)
    return found


def _is_free(value: Any) -> bool:
    """Whether a value without these fields cannot hold the address of a downloader."""
    name = value.get("msg") if isinstance(value, dict) else None
    if isinstance(name, str) and name != "LOGDOWNLOAD" and name in BY_NAME:
        return True
    if isinstance(name, str) and isinstance(value.get("data"), dict):
        data = value["data"]
        if name == "LOGDOWNLOAD":
            texts = [field for field in data.values() if isinstance(field, str)]
            return data.keys() <= _DOWNLOAD and not any(map(is_address, texts))
        if not name.startswith("LOG"):
            return True  # of a newer publisher, which names its fields
    return _SUSPECT.search(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)) is None


def is_address(text: str) -> bool:
    """Whether a text is the address of a machine, of IP version 4 or 6."""
    try:
        ipaddress.ip_address(text.strip("[] "))
    except ValueError:
        return False
    return True
