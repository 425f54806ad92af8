"""Removes from a master's refused messages what must never be stored."""

from __future__ import annotations

from datetime import datetime

from ..base.errors import DecodeError
from ..messages.entries import Refused
from ..messages.redact import is_address, without_values
from ..messages.redact import refused as _refused
from ..schema.piwheels import DOWNLOAD
from . import cbor


def refused(source: str, error: DecodeError, raw: bytes) -> Refused:
    """The journal's entry for bytes of a master that are not a valid message.

    Args:
        raw: the bytes, as CBOR.
    """
    return _refused(None, source, "cbor", error, raw, _redacted)


def refused_log(source: str, error: DecodeError, raw: bytes) -> Refused:
    """Likewise for the log queue, where every frame bears the address of a downloader.

    Of a download whose fields are all in their places, the address is removed, so that it can be
    retried. Of all else, only length, digest and reason are kept.
    """
    return _refused(None, source, "cbor", without_values(error), raw, _log_redacted)


def _redacted(raw: bytes) -> bytes | None:
    try:
        name, _ = cbor.loads(raw)
    except DecodeError:
        return raw  # of a queue that bears no addresses
    return None if name.startswith("LOG") else raw


def _log_redacted(raw: bytes) -> bytes | None:
    try:
        name, data = cbor.loads(raw)
        if name != "LOGDOWNLOAD" or type(data) is not list or len(data) != len(DOWNLOAD.fields):
            return None
        filename, host, at, *client = data
        others = [filename, *client]
        if not isinstance(host, str) or not isinstance(at, datetime):
            return None
        if any(type(one) is not str and one is not None and type(one) is not int for one in others):
            return None
        if any(isinstance(one, str) and (is_address(one) or host in one) for one in others):
            return None
        return cbor.dumps(name, [filename, "", at, *client])
    except (DecodeError, ValueError):
        return None
