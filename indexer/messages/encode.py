"""Encodes messages for the wire (named fields, docs/messages.md) and for the journal.

The journal stores the fields of a message by position, in the order of `messages.types`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from ..base.times import SECOND, Time, to_rfc3339
from . import types as messages
from .types import Message, Position

HEARTBEAT = b"HEARTBEAT"
"""The topic of heartbeats."""

_TIMES = {"NEWPKGNAME": "seen", "NEWVER": "released"}
_pack: Callable[[object], bytes] = msgpack.Packer(autoreset=True).pack


def timestamp(value: Time) -> msgpack.Timestamp:
    """A time as msgpack's timestamp extension."""
    seconds, microseconds = divmod(value, SECOND)
    return msgpack.Timestamp(seconds, microseconds * 1000)


def _file(file: messages.File) -> dict[str, Any]:
    named: dict[str, Any] = dict(zip(messages.File._fields, file, strict=True))
    named["dependencies"] = dict(file.dependencies)
    return named


def _failure(failure: messages.Failure | None) -> dict[str, str] | None:
    return None if failure is None else failure._asdict()


def _snapshot_build(build: messages.SnapshotBuild) -> dict[str, Any]:
    named = dict(zip(build._fields[1:], build[1:], strict=True))
    if build.built_at is not None:
        named["built_at"] = timestamp(build.built_at)
    return named


def _release(release: messages.SnapshotRelease) -> dict[str, Any]:
    return {
        "released": timestamp(release.released),
        "skip": release.skip,
        "yanked": release.yanked,
        "abis": {build.abi_tag: _snapshot_build(build) for build in release.abis},
        "files": {
            file.filename: dict(zip(file._fields[1:], file[1:], strict=True))
            for file in release.files
        },
    }


def fields(message: Message) -> dict[str, Any]:
    """A message's data with the field names of the wire; times as msgpack timestamps."""
    name, _, data = message
    named: dict[str, Any] = dict(zip(data._fields, data, strict=True))
    if name == "LOGDOWNLOAD":  # by far the most frequent message
        named["accessed_at"] = timestamp(data.accessed_at)
    elif name == "LOGBUILD":
        named["files"] = [_file(file) for file in data.files]
        named["failure"] = _failure(data.failure)
    elif name == "FAILURE":
        named["failure"] = _failure(data.failure)
    elif name == "MOVEFILES":
        named["files"] = dict(data.files)
    elif name in _TIMES:
        field = _TIMES[name]
        if named[field] is not None:
            named[field] = timestamp(named[field])
    elif name == "SETABIS":
        named = {field: dict(value) for field, value in named.items()}
    elif name == "SNAPSHOT":
        named["releases"] = {release.version: _release(release) for release in data.releases}
    elif name == "DOWNLOADS":
        named["hours"] = {to_rfc3339(hour * SECOND): count for hour, count in data.hours}
    return named


def payload(position: Position, message: Message) -> bytes:
    """The second frame of a message on a change feed."""
    feed, epoch, serial = position
    return _pack(
        {
            "feed": feed,
            "epoch": epoch,
            "serial": serial,
            "at": timestamp(message.at),
            "msg": message.name,
            "data": fields(message),
        }
    )


def topic(message: Message) -> bytes:
    """The first frame of a message on a change feed: its name, and its package."""
    package = messages.package_of(message.data)
    return (message.name if package is None else f"{message.name} {package}").encode()


def published(position: Position, message: Message) -> list[bytes]:
    """The two frames of a message on a change feed: topic and payload."""
    return [topic(message), payload(position, message)]


def heartbeat(position: Position) -> list[bytes]:
    """The two frames of a heartbeat: the last serial that was published."""
    return [HEARTBEAT, _pack(position._asdict())]


def replay_request(epoch: int, after: int, limit: int) -> bytes:
    """A request for up to `limit` messages after serial `after`."""
    return _pack({"replay": {"epoch": epoch, "after": after, "limit": limit}})


def replay_end(serial: int) -> bytes:
    """The end of a replay: the last serial that was sent."""
    return _pack({"end": serial})


def replay_gone(epoch: int, first: int) -> bytes:
    """A replay that is not possible: the present epoch, the oldest serial kept."""
    return _pack({"gone": {"epoch": epoch, "first": first}})


def to_journal(message: Message) -> bytes:
    """A message's data as the journal stores it: its fields in order."""
    return _pack(message.data)


_NAMES = {name: zlib.crc32(name.encode()) for name in messages.BY_NAME}
_PRIME = 4_294_967_291  # the greatest of 32 bits
_FACTOR = 1_000_003


def checksum(serial: int, at: Time, name: str, data: bytes) -> int:
    """The checksum of a message in the journal, which a flipped bit changes.

    It is the CRC-32 of its data, combined with its name, serial and time.
    """
    # An invalid name has a flipped bit, so any result differs from what was written.
    begin = (serial * _FACTOR + at) % _PRIME ^ _NAMES.get(name, 0)
    return zlib.crc32(data, begin)


def first_changed(rows: Iterable[tuple[int, Time, str, bytes, int | None]]) -> int | None:
    """The serial of the first of (serial, at, name, data, checksum) in which a bit has flipped.

    Rows without a checksum are accepted. Only CRC-32 is called for each row, because every message
    of a rebuild passes here.
    """
    names, crc32 = _NAMES, zlib.crc32
    for serial, at, name, data, expected in rows:
        if expected is not None:
            if crc32(data, (serial * _FACTOR + at) % _PRIME ^ names.get(name, 0)) != expected:
                return serial
    return None


_unpack = msgpack.unpackb
_new: Any = tuple.__new__
_KINDS: dict[str, tuple[Any, int]] = {
    name: (kind, len(kind._fields)) for name, kind in messages.BY_NAME.items()
}


def from_journal(name: str, at: Time, data: bytes) -> Message:
    """The message that `to_journal` stored.

    Raises:
        Exception: any error of msgpack or of a tuple, if the journal is damaged.
    """
    values = _unpack(data, use_list=False)
    if name == "LOGBUILD":
        files = tuple([messages.File._make(file) for file in values[7]])
        values = (*values[:7], files, *map(_journal_failure, values[8:]))
    elif name == "FAILURE":
        values = (values[0], messages.Failure(*values[1]))
    elif name == "SNAPSHOT":
        values = (*values[:4], tuple([_journal_release(release) for release in values[4]]))
    kind, size = _KINDS[name]
    # Calling the class takes longer, and every message of a rebuild passes here. Missing fields
    # were added later.
    made = _new(kind, values) if len(values) == size else kind(*values)
    message: Message = _new(Message, (name, at, made))
    return message


def _journal_failure(values: Any) -> messages.Failure | None:
    return None if values is None else messages.Failure(*values)


def _journal_release(values: Any) -> messages.SnapshotRelease:
    version, released, skip, yanked, abis, files = values
    return messages.SnapshotRelease(
        version,
        released,
        skip,
        yanked,
        tuple([messages.SnapshotBuild(*abi) for abi in abis]),
        tuple([messages.SnapshotFile(*file) for file in files]),
    )
