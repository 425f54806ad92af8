"""What a journal accepts: messages, refused bytes, and notices of lost messages."""

from __future__ import annotations

from typing import NamedTuple

from ..base.errors import DecodeError
from ..base.times import Time
from .types import Message, Position


class Identity(NamedTuple):
    """What identifies a message without a position in a feed, and when it happened."""

    digest: int
    happened: Time


class Accepted(NamedTuple):
    """A message to append, and its position in its feed; None without a feed.

    Attributes:
        identity: identifies a message without a position; a known one is skipped.
    """

    position: Position | None
    message: Message
    identity: Identity | None = None


class Row(NamedTuple):
    """A message of the journal with its serial."""

    serial: int
    message: Message


class Withheld(NamedTuple):
    """Length and SHA-256 of bytes that are not kept, as they may hold a downloader's address."""

    size: int
    sha256: bytes


class Refused(NamedTuple):
    """Bytes for the quarantine: their source, their encoding, and what is wrong."""

    position: Position | None
    source: str
    format: str
    error: DecodeError
    raw: bytes
    withheld: Withheld | None = None


class Lost(NamedTuple):
    """Messages of a feed up to `position` were not accepted and are lost; `why` says why."""

    position: Position
    why: str


class Claimed(NamedTuple):
    """A feed was heard for the first time, or for the first time at another address.

    Attributes:
        feed: its name.
        address: of its changes-queue.
        server_key: the public key of its publisher; empty without CURVE.
    """

    feed: str
    address: str
    server_key: str
    position: None = None


Entry = Accepted | Refused | Lost | Claimed
