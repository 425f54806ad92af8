"""Which address and key a feed belongs to: those that it was first heard from.

So a publisher at one address cannot speak for the publisher at another one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple


class Origin(NamedTuple):
    """A publisher that is followed.

    Attributes:
        address: the changes-queue.
        server_key: the public key of its publisher; empty without CURVE.
    """

    address: str
    server_key: str


class FeedNames:
    """Where each feed belongs; shared by all subscribers.

    Args:
        known: the owner of a feed according to the journal.
        followed: the configured ones; any other may lose its feeds to them.
    """

    def __init__(
        self, known: Callable[[str], tuple[str, str] | None], followed: Collection[Origin]
    ) -> None:
        self._known = known
        self._followed = frozenset(followed)
        self._claimed: dict[str, Origin] = {}  # perhaps not yet in the journal

    def owner(self, feed: str) -> Origin | None:
        """Where a feed belongs; None if it was never heard."""
        known = self._claimed.get(feed) or self._known(feed)
        return None if known is None else Origin(*known)

    def elsewhere(self, feed: str, origin: Origin) -> Origin | None:
        """The other origin that a feed belongs to; None if `origin` may publish it."""
        owner = self.owner(feed)
        return owner if owner != origin and owner in self._followed else None

    def claim(self, feed: str, origin: Origin) -> Origin | None:
        """Make a feed belong to an origin that may publish it; returns the owner before."""
        before = self.owner(feed)
        self._claimed[feed] = origin
        return before
