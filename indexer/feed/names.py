"""Whose name a feed bears: that of the address, and the key, that it was first heard from.

Who may speak at one address cannot speak for the publisher at another one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple


class Source(NamedTuple):
    """Where a feed is heard.

    Attributes:
        address: the changes-queue.
        server_key: the public key of its publisher; empty without CURVE.
    """

    address: str
    server_key: str


class FeedNames:
    """The names of feeds, and where each of them belongs; shared by all subscribers.

    Args:
        known: tells where a feed belongs, as far as it is journaled.
        followed: the sources that are configured: one that is not may lose its names to others.
    """

    def __init__(
        self, known: Callable[[str], tuple[str, str] | None], followed: Collection[Source]
    ) -> None:
        self._known = known
        self._followed = frozenset(followed)
        self._claimed: dict[str, Source] = {}  # perhaps not yet in the journal

    def owner(self, feed: str) -> Source | None:
        """Where a feed belongs; None if nobody has spoken for it."""
        known = self._claimed.get(feed) or self._known(feed)
        return None if known is None else Source(*known)

    def elsewhere(self, feed: str, source: Source) -> Source | None:
        """The other source that a feed belongs to; None if `source` may speak for it."""
        owner = self.owner(feed)
        return owner if owner != source and owner in self._followed else None

    def claim(self, feed: str, source: Source) -> Source | None:
        """Have a feed belong to a source that may speak for it; where it belonged before."""
        before = self.owner(feed)
        self._claimed[feed] = source
        return before
