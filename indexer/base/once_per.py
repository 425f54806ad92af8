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
                each: (at, left) for each, (at, left) in self._told.items() if now - at < INTERVAL
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


class LimitedLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that speaks of each event at once, and then at most once per `INTERVAL`.

    How many were left out follows the first line of the text. Calls give `extra=event(...)`, and
    with `of` what tells apart two events of the same name, such as the feed.

    Args:
        log: that it writes to.
        monotonic: seconds on a clock that never jumps.
    """

    def __init__(
        self, log: logging.Logger, monotonic: Callable[[], float] = clock.monotonic
    ) -> None:
        super().__init__(log)
        self._once = OncePer(monotonic)

    def log(self, level: int, msg: object, *args: object, of: Hashable = None, **rest: Any) -> None:
        """Log an event, unless it is too soon for another one of its kind."""
        if many := self._once.count((rest["extra"]["piw_event"], of)):
            first, newline, others = str(msg).partition("\n")
            text = f"{first}{left_out(many)}{newline}{others}"
            self.logger.log(level, text, *args, stacklevel=2, **rest)
