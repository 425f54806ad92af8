"""How the daemon stands, in a file of the state directory: written once a second, for `status`."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..base import database, filesystem, times
from ..base.ages import Waiting
from ..base.directories import LIVE
from ..base.errors import StateError
from ..base.log import event
from ..feed.subscriber import FeedState, Subscriber
from ..index import pending, queries
from ..state.state import State

log = logging.getLogger(__name__)

_BLOCK = 4096


class LiveFile:
    """The file.

    Args:
        directory: the state directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LIVE

    def write(self, live: dict[str, Any]) -> None:
        """Replace it, or, with a full disk, write over it. Raises OSError if neither can be."""
        # Padded: with a full disk the old file's blocks are all there is to write to.
        content = json.dumps(live).encode()
        content += b" " * (-len(content) % _BLOCK)
        try:
            filesystem.write(self._path, content)
        except OSError:
            filesystem.overwrite(self._path, content)

    def remove(self) -> None:
        """Nobody runs any more."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning(
                "cannot remove %s: %s",
                self._path,
                error.strerror,
                extra=event("live-not-removed", path=self._path),
            )

    def tell_unwritable(self, error: OSError) -> None:
        """Say that it cannot be written."""
        log.warning(
            "cannot write %s: %s",
            self._path,
            error.strerror,
            extra=event("live-unwritable", path=self._path),
        )


class Progress:
    """How fast it goes, how far index and feeds are, and for how long they have been behind.

    Args:
        state: of the daemon.
        now: on a clock that never jumps, in seconds; so everywhere here.

    Attributes:
        trouble: why it is not known how far the index is; empty if it is.
    """

    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self._looked = now
        self._accepted = 0
        self._rate = 0.0
        self._applied = self._pending = 0
        self._oldest: int | None = None  # serial of the marks
        self._applied_since = Waiting()
        self._published_since: dict[str, Waiting] = {}  # by feed
        self.trouble = ""

    def look(self, accepted: int, now: float) -> None:
        """Take note of how far it is, with so many messages accepted; what cannot be read stays."""
        elapsed = max(now - self._looked, 0.001)
        self._rate = (accepted - self._accepted) / elapsed
        self._looked, self._accepted = now, accepted
        connection = self._state.connection
        try:
            with database.wrap_errors(f"read the index {self._state.index_path}"):
                self._applied = queries.applied_serial(connection)
                self._pending = pending.count(connection)
                self._oldest = pending.oldest(connection)
        except StateError as error:
            if not error.passing:
                raise
            self.trouble = str(error)
        else:
            self.trouble = ""
        self._applied_since.note(self._applied, now)

    def fields(self) -> dict[str, Any]:
        """What `status` shows of it."""
        waiting = None
        if self._oldest is not None:
            waiting = round(self._applied_since.seconds(self._oldest, self._looked), 1)
        return {
            "serial": self._state.journal.serial,
            "applied_serial": self._applied,
            "pending": self._pending,
            "oldest_pending_serial": self._oldest,
            "oldest_pending_seconds": waiting,
            "accepted": self._accepted,
            "rate": round(self._rate, 1),
        }

    def feeds(self, subscribers: Sequence[Subscriber]) -> list[dict[str, Any]]:
        """What `status` shows of the feeds."""
        return [
            {
                "feed": state.feed,
                "epoch": state.known_epoch,
                "serial": state.serial,
                "published": state.published,
                "lag": max(0, state.published - state.serial),
                "lag_seconds": self._lag_seconds(state),
                "heard": times.to_rfc3339(state.heard),
                "filling": subscriber.filling,
                "changes_queue": subscriber.changes_queue,
                "replay_queue": subscriber.replay_queue,
            }
            for subscriber in subscribers
            for state in subscriber.feeds.values()
        ]

    def _lag_seconds(self, feed: FeedState) -> float:
        """For how long the oldest message that we have not accepted has been published."""
        since = self._published_since.setdefault(feed.feed, Waiting())
        since.note(feed.published, self._looked)
        return round(since.seconds(feed.serial + 1, self._looked), 1)
