"""How fast the daemon works, how far index and feeds are, and how long they have been behind."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import database
from ..base.ages import Ages
from ..base.errors import Problem, StateError
from ..feed.subscriber import FeedState, Subscriber
from ..index import pending, queries
from ..state.state import State
from .status_file import LiveFeed


class Figures:
    """What `look` saw last; every `now` is in seconds, on a clock that never jumps.

    Attributes:
        accepted: messages accepted so far.
        rate: messages accepted a second.
        applied_serial: how far the index is.
        pending: documents that wait to be written.
        oldest_pending_serial: the serial of the oldest of them.
        problem: why the index could not be read; None if it could.
    """

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self._looked = now
        self.accepted = 0
        self.rate = 0.0
        self.applied_serial = self.pending = 0
        self.oldest_pending_serial: int | None = None
        self._applied_since = Ages()
        self._published_since: dict[str, Ages] = {}  # by feed
        self.problem: Problem | None = None

    def look(self, accepted: int, now: float) -> None:
        """Measure, with so many messages accepted; what cannot be read stays as it was."""
        elapsed = max(now - self._looked, 0.001)
        self.rate = (accepted - self.accepted) / elapsed
        self._looked, self.accepted = now, accepted
        connection = self._state.connection
        try:
            with database.wrap_errors(f"read the index {self._state.index_path}"):
                self.applied_serial = queries.applied_serial(connection)
                self.pending = pending.count(connection)
                self.oldest_pending_serial = pending.oldest(connection)
        except StateError as error:
            if not error.transient:
                raise
            self.problem = error.problem
        else:
            self.problem = None
        self._applied_since.note(self.applied_serial, now)

    @property
    def oldest_pending_seconds(self) -> float | None:
        """For how long the oldest document has been waiting."""
        if self.oldest_pending_serial is None:
            return None
        return round(self._applied_since.seconds(self.oldest_pending_serial, self._looked), 1)

    def feeds(self, subscribers: Sequence[Subscriber]) -> list[LiveFeed]:
        return [
            LiveFeed(
                state.feed,
                state.known_epoch,
                state.serial,
                state.published,
                max(0, state.published - state.serial),
                self._lag_seconds(state),
                state.heard,
                subscriber.filling,
                subscriber.changes_queue,
                subscriber.replay_queue,
            )
            for subscriber in subscribers
            for state in subscriber.feeds.values()
        ]

    def _lag_seconds(self, feed: FeedState) -> float:
        """For how long the oldest message that we have not accepted has been published."""
        since = self._published_since.setdefault(feed.feed, Ages())
        since.note(feed.published, self._looked)
        return round(since.seconds(feed.serial + 1, self._looked), 1)
