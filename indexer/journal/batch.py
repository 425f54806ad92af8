"""A batch of entries on its way into the journal: what is new of it, as rows.

Nothing is written here, and nothing is known of what is written, but the positions that were
accepted: whatever fails later, the same batch can be prepared again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..base.clock import Clock
from ..messages import encode
from ..messages import types as messages
from ..messages.entries import Accepted, Claimed, Entry, Lost, Refused, Row

INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

Feed = tuple[str, int]
"""A publisher's name, and which life of its spool."""


class Batch(NamedTuple):
    """What is new of some entries.

    Attributes:
        rows: the messages, with their serials.
        inserts: rows of the table `messages`.
        identities: rows of the table `identities`.
        refusals: source, feed_id, feed_serial, received, format, path, reason, raw.
        new_feeds: the numbers of feeds that were not known.
        positions: how far every feed of the batch is accepted with it.
        broken: why messages of a feed are lost, and its number.
        claims: rows of the table `addresses`.
    """

    rows: list[Row]
    inserts: list[tuple[object, ...]]
    identities: list[tuple[int]]
    refusals: list[tuple[object, ...]]
    new_feeds: dict[Feed, int]
    positions: dict[Feed, int]
    broken: list[tuple[str, int]]
    claims: list[tuple[str, str, str]]


def prepare(
    entries: Sequence[Entry],
    seen: set[int],
    feed_ids: Mapping[Feed, int],
    accepted: Mapping[Feed, int],
    serial: int,
    clock: Clock,
) -> Batch:
    """What is new of `entries`; what was accepted before is passed over.

    Args:
        entries: those of one feed in the order of their serials.
        seen: digests of entries that came before; those of this batch are added.
        feed_ids: the numbers of the feeds that are known.
        accepted: how far every feed is accepted.
        serial: the last that was given.
        clock: for the time of receipt of what is refused.
    """
    batch = Batch([], [], [], [], {}, {}, [], [])
    rows, inserts, identities, refusals, new_feeds, positions, broken, claims = batch
    pack, checksum, package_of = encode.to_journal, encode.checksum, messages.package_of
    for entry in entries:
        position = entry.position
        feed_id = feed_serial = None
        if position is not None:
            feed, epoch, feed_serial = position
            key = feed, epoch
            known = positions.get(key)
            if known is None:
                known = accepted.get(key, 0)
            if type(entry) is Lost:
                feed_serial = max(feed_serial, known)
            elif feed_serial <= known:
                continue
            positions[key] = feed_serial
            feed_id = feed_ids.get(key) or new_feeds.get(key)
            if feed_id is None:
                last = max(feed_ids.values(), default=0)  # numbers of those that went are free
                feed_id = new_feeds[key] = last + len(new_feeds) + 1
        if type(entry) is Accepted:
            if entry.identity is not None:
                digest = entry.identity.digest
                if digest in seen:
                    continue
                seen.add(digest)
                identities.append((digest,))
            serial += 1
            message = entry.message
            rows.append(Row(serial, message))
            name, at, data = message
            packed = pack(message)
            inserts.append(
                (
                    serial,
                    at,
                    name,
                    package_of(data),
                    feed_id,
                    feed_serial,
                    packed,
                    checksum(serial, at, name, packed),
                )
            )
        elif type(entry) is Lost:
            assert feed_id is not None
            broken.append((entry.why, feed_id))
        elif type(entry) is Claimed:
            claims.append((entry.feed, entry.address, entry.server_key))
        else:
            assert type(entry) is Refused
            refusals.append(
                (
                    entry.source,
                    feed_id,
                    feed_serial,
                    clock(),
                    entry.format,
                    entry.error.path,
                    entry.error.cause,
                    entry.raw,
                )
            )
    return batch
