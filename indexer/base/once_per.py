"""One word about what may happen again and again: whoever causes it does not fill the log.

Each kind is told of at once when it first happens, and then at most once per `INTERVAL`; what was
left out in between is counted, and told of with the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from . import clock

INTERVAL = 60.0
"""Seconds between two words about one kind of event."""

MAX_KINDS = 1000
"""Kinds that are told apart; who makes up more does not fill the memory."""


class OncePer:
    """Tells when it is time to speak of a kind of event.

    Args:
        monotonic: seconds on a clock that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._told: dict[Hashable, tuple[float, int]] = {}  # when, and how many were left out since

    def count(self, kind: Hashable, many: int = 1) -> int:
        """Take note of events of a kind.

        Returns:
            How many there were since the last word about this kind, if it is time for the next
            one; else 0.
        """
        now = self._monotonic()
        if kind not in self._told and len(self._told) >= MAX_KINDS:
            self._told = {
                one: (at, left) for one, (at, left) in self._told.items() if now - at < INTERVAL
            }
            if len(self._told) >= MAX_KINDS:
                kind = None
        at, left_out = self._told.get(kind, (now - INTERVAL, 0))
        if now - at < INTERVAL:
            self._told[kind] = at, left_out + many
            return 0
        self._told[kind] = now, 0
        return left_out + many


def left_out(many: int) -> str:
    """What follows a word about the last of `many` events."""
    return f" ({many - 1:,} more were left out of the log before)" if many > 1 else ""


class LimitedLog:
    """A logger that speaks of each event at once, and then at most once per `INTERVAL`.

    Args:
        log: that it writes to.
        monotonic: seconds on a clock that never jumps.
    """

    def __init__(
        self, log: logging.Logger, monotonic: Callable[[], float] = clock.monotonic
    ) -> None:
        self._logger = log
        self._once = OncePer(monotonic)

    def log(
        self,
        level: int,
        text: str,
        *values: object,
        extra: dict[str, Any],
        of: Hashable = None,
        stacklevel: int = 2,
    ) -> None:
        """Log an event, unless it is too soon for another of its kind.

        How many were left out follows the first line of `text`.

        Args:
            level: of `logging`.
            text: with a place for each of `values`.
            values: as `logging` takes them.
            extra: what `event` gave.
            of: what tells apart two events of the same name: the feed, say.
            stacklevel: how far above this call the event is.
        """
        if many := self._once.count((extra["piw_event"], of)):
            first, newline, rest = text.partition("\n")
            text = f"{first}{left_out(many)}{newline}{rest}"
            self._logger.log(level, text, *values, extra=extra, stacklevel=stacklevel)

    def info(self, text: str, *values: object, extra: dict[str, Any], of: Hashable = None) -> None:
        """Likewise, at the level INFO."""
        self.log(logging.INFO, text, *values, extra=extra, of=of, stacklevel=3)

    def warning(
        self, text: str, *values: object, extra: dict[str, Any], of: Hashable = None
    ) -> None:
        """Likewise, at the level WARNING."""
        self.log(logging.WARNING, text, *values, extra=extra, of=of, stacklevel=3)

    def error(self, text: str, *values: object, extra: dict[str, Any], of: Hashable = None) -> None:
        """Likewise, at the level ERROR."""
        self.log(logging.ERROR, text, *values, extra=extra, of=of, stacklevel=3)
