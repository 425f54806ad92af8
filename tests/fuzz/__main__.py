"""A coverage-guided fuzzer for the code that decodes bytes from outside.

`python -m tests.fuzz TARGET [CORPUS...] [options of libFuzzer]`; a fault ends it with another
status than 0 and leaves the bytes beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import atheris
import msgpack
import orjson

with atheris.instrument_imports(include=["indexer"]):
    from indexer.base.errors import DecodeError
    from indexer.messages import decode
    from indexer.piwheels import cbor

from ..property.decoding import DECODERS, check_error, check_schemas
from . import TARGETS


def _agreed(encoding: decode.Encoding, envelope: Any) -> None:
    """The compiled schema and voluptuous agree about a message's data."""
    if isinstance(envelope, dict) and "data" in envelope:
        name = envelope.get("msg")
        if isinstance(name, str) and name in encoding._checks:
            check_schemas(encoding, name, envelope["data"])


def _json(payload: bytes) -> None:
    try:
        envelope = orjson.loads(payload)
    except ValueError:
        return
    _agreed(decode._JSON, envelope)


def _msgpack(payload: bytes) -> None:
    try:
        envelope = msgpack.unpackb(payload, timestamp=0)
    except Exception:  # noqa: BLE001 - it has many
        return
    _agreed(decode._MSGPACK, envelope)


_AGREEMENT = {"from_json": _json, "from_msgpack": _msgpack, "published": _msgpack}


def _target(name: str) -> Callable[[bytes], None]:
    decoder = cbor.loads if name == "cbor" else DECODERS[name]
    agreement = _AGREEMENT.get(name)

    def check(payload: bytes) -> None:
        try:
            found = decoder(payload)
        except DecodeError as error:
            check_error(error)
        else:
            if isinstance(found, decode.Published) and found.error is not None:
                check_error(found.error)
        if agreement is not None:
            agreement(payload)

    return check


def main() -> None:
    name = sys.argv.pop(1)
    assert name in TARGETS, TARGETS
    atheris.Setup(sys.argv, _target(name))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
