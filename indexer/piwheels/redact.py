"""What is refused of a master's messages, less what must never be stored."""

from __future__ import annotations

from ..base.errors import DecodeError
from ..messages.entries import Refused
from ..messages.redact import refused as _refused
from . import cbor


def refused(source: str, error: DecodeError, raw: bytes) -> Refused:
    """The entry for the journal of a master's bytes that are not a valid message.

    Args:
        source: where they came from.
        error: what is wrong.
        raw: the bytes, as CBOR.
    """
    return _refused(None, source, "cbor", error, raw, _redacted)


def _redacted(raw: bytes) -> bytes:
    """The second field of every entry of piwheels' logs is the address of who downloads."""
    try:
        name, data = cbor.loads(raw)
        if not name.startswith("LOG") or not isinstance(data, list) or len(data) < 2:
            return raw
        return cbor.dumps(name, [data[0], "", *data[2:]])
    except (DecodeError, ValueError):
        return raw
