"""Frames that were captured from the sockets of a real piwheels, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from indexer.schema.piwheels import NO_DATA

from .support import REPOSITORY

DIRECTORY = REPOSITORY / "tests" / "captures"


class Capture(NamedTuple):
    """One message: the last of its frames, the others are its address.

    Attributes:
        socket: the protocol.
        direction: "recv", "send", "request", "reply", or "" where there is only one.
        name: of the message.
        data: what it bears, as `cbor.loads` gives it.
        frame: its bytes.
        at: when it was captured, if that is known.
    """

    socket: str
    direction: str
    name: str
    data: Any
    frame: bytes
    at: datetime | None


def files() -> list[Path]:
    """The files of captures."""
    return sorted(DIRECTORY.rglob("*.jsonl"))


def captures(path: Path) -> list[Capture]:
    """The messages of a file, without handshakes and lines that gave no message."""
    return list(_captures(path))


def _captures(path: Path) -> Iterator[Capture]:
    for line in path.read_bytes().splitlines():
        found = json.loads(line)
        decoded = found["decoded"]
        if not found["frames"] or decoded is None:
            continue
        name, data = (decoded, NO_DATA) if isinstance(decoded, str) else decoded
        yield Capture(
            found["socket"],
            found.get("dir", ""),
            name,
            meant(data),
            bytes.fromhex(found["frames"][-1]),
            datetime.fromisoformat(found["t"]) if "t" in found else None,
        )


def meant(value: Any) -> Any:
    """The value that a value of `decoded` stands for."""
    if isinstance(value, list):
        return [meant(one) for one in value]
    if not isinstance(value, dict):
        return value
    match list(value):
        case ["$datetime"]:
            return datetime.fromisoformat(value["$datetime"])
        case ["$timedelta"]:
            return timedelta(seconds=value["$timedelta"])
        case ["$nodata"]:
            return NO_DATA
        case ["$set"]:
            return {tuple(one) if isinstance(one, list) else one for one in value["$set"]}
    return {key: meant(one) for key, one in value.items()}


STATUS = captures(DIRECTORY / "farm" / "status.jsonl")
"""The status feed of a farm's whole life, in order."""
