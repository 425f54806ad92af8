"""Removes from a master's refused messages what must never be stored."""

from __future__ import annotations

from ..base.errors import DecodeError
from ..messages.entries import Refused
from ..messages.redact import refused as _refused
from . import cbor


def refused(source: str, error: DecodeError, raw: bytes) -> Refused:
    """The journal's entry for bytes of a master that are not a valid message.

    Args:
        source: where they came from.
        error: what is wrong.
        raw: the bytes, as CBOR.
    """
    return _refused(None, source, "cbor", error, raw, _redacted)


def _redacted(raw: bytes) -> bytes:
    """Without the address of the downloader, the second field of piwheels' log entries."""
    try:
        name, data = cbor.loads(raw)
        if not name.startswith("LOG") or not isinstance(data, list) or len(data) < 2:
            return raw
        return cbor.dumps(name, [data[0], "", *data[2:]])
    except (DecodeError, ValueError):
        return raw
