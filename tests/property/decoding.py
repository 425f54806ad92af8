"""What decoding must hold to, whatever makes the bytes: hypothesis, or a fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voluptuous import MultipleInvalid

from indexer.base.errors import DecodeError
from indexer.messages import decode

RECEIVED = 1_700_000_000_000_000
DECODERS: dict[str, Callable[[bytes], object]] = {
    "from_json": lambda payload: decode.from_json(payload, RECEIVED),
    "from_msgpack": lambda payload: decode.from_msgpack(payload, RECEIVED),
    "published": lambda payload: decode.published(payload, RECEIVED),
    "heartbeat": decode.heartbeat,
    "replayed": lambda payload: decode.replayed(payload, RECEIVED),
    "replay_request": decode.replay_request,
}


def check_error(error: DecodeError) -> None:
    # It is stored as text beside the bytes, and shown on a terminal.
    assert isinstance(error.path, str)
    assert isinstance(error.cause, str)
    assert error.cause
    str(error).encode()
    assert str(error).isprintable(), ascii(str(error))


def check_decoders(payload: bytes) -> None:
    for decoder in DECODERS.values():
        try:
            found = decoder(payload)
        except DecodeError as error:
            check_error(error)
        else:
            if isinstance(found, decode.Published) and found.error is not None:
                check_error(found.error)


_MAPS = {"build_abis", "preinstalled_apt_packages", "dependencies", "hours"}
_KEYED = {"releases", "abis"}


def named(value: Any, key: str = "", parent: str = "") -> Any:
    """Typed data with the names and shapes of the schema."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        kind = type(value).__name__
        return {
            field: named(one, field, kind) for field, one in zip(value._fields, value, strict=True)
        }
    if not isinstance(value, tuple):
        return value
    if key in _MAPS or (key == "files" and parent == "MoveFiles"):
        return {k: named(v) for k, v in value}
    if key in _KEYED or (key == "files" and parent == "SnapshotRelease"):
        keyed = {}
        for record in value:
            fields = named(record)
            keyed[record[0]] = {field: fields[field] for field in record._fields[1:]}
        return keyed
    return [named(one) for one in value]


def exactly(value: Any) -> Any:
    """A picture in which 1, 1.0 and true are different, and the order of fields is not."""
    if isinstance(value, dict):
        return sorted((repr(key), exactly(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    return repr(value)


def check_schemas(encoding: decode.Encoding, name: str, data: Any) -> bool:
    """Both schemas refuse `data`, or both accept it with the same values; whether they accept."""
    try:
        compiled = encoding._checks[name](data)
    except Exception:  # noqa: BLE001 - whatever it is, `decode` asks voluptuous then
        try:
            encoding._schemas[name](data)
        except MultipleInvalid:
            return False
        raise AssertionError(f"voluptuous accepts {data!r}") from None
    assert exactly(named(compiled)) == exactly(encoding._schemas[name](data))
    return True
