"""What a journal takes: messages, refused bytes, and word of what is lost."""

from __future__ import annotations

from typing import NamedTuple

from ..base.errors import DecodeError
from ..base.times import Time
from .types import Message, Position


class Identity(NamedTuple):
    """What identifies a message without a place in a feed, and when it happened."""

    digest: int
    happened: Time


class Accepted(NamedTuple):
    """A message to append, and where it stands in its feed; None where it has no place there.

    Attributes:
        identity: what else tells it from others; one that came before is passed over.
    """

    position: Position | None
    message: Message
    identity: Identity | None = None


class Row(NamedTuple):
    """A message of the journal with its serial."""

    serial: int
    message: Message


class Refused(NamedTuple):
    """Bytes to quarantine: where they came from, how they are encoded, what is wrong."""

    position: Position | None
    source: str
    format: str
    error: DecodeError
    raw: bytes


class Lost(NamedTuple):
    """The messages of a feed up to `position` that were not accepted are lost; `why` says how."""

    position: Position
    why: str


class Claimed(NamedTuple):
    """A feed is heard, for the first time, or from now on, at an address.

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
