"""Limits how often the same kind of event is logged, so that nobody can fill the log.

The first event of a kind is logged at once, and later ones at most once per `INTERVAL`. Those in
between are counted, and the next entry says how many they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

from . import clock

INTERVAL = 60.0
"""Seconds between two log entries about one kind of event."""

MAX_KINDS = 1000
"""Kinds that are distinguished, so that nobody can fill the memory by making up more."""


class OncePer:
    """Says when it is time to log another event of a kind.

    Args:
        monotonic: seconds on a clock that never jumps.
    """

    def __init__(self, monotonic: Callable[[], float] = clock.monotonic) -> None:
        self._monotonic = monotonic
        self._logged: dict[
            Hashable, tuple[float, int]
        ] = {}  # when, and how many were left out since

    def count(self, kind: Hashable, many: int = 1) -> int:
        """Count events of a kind.

        Returns:
            How many there were since the last entry about this kind, if it is time for another;
            else 0.
        """
        now = self._monotonic()
        if kind not in self._logged and len(self._logged) >= MAX_KINDS:
            self._logged = {
                each: (at, left) for each, (at, left) in self._logged.items() if now - at < INTERVAL
            }
            if len(self._logged) >= MAX_KINDS:
                kind = None
        at, left_out = self._logged.get(kind, (now - INTERVAL, 0))
        if now - at < INTERVAL:
            self._logged[kind] = at, left_out + many
            return 0
        self._logged[kind] = now, 0
        return left_out + many


def left_out(many: int) -> str:
    """What an entry about the last of `many` events ends with."""
    return f" ({many - 1:,} more were left out of the log before)" if many > 1 else ""


class LimitedLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that logs each event at once, and then at most once per `INTERVAL`.

    The first line of an entry ends with the number of events that were left out. Calls pass
    `extra=event(...)`, and as `of` what distinguishes events of one name, such as the feed.

    Args:
        monotonic: seconds on a clock that never jumps.
    """

    def __init__(
        self, log: logging.Logger, monotonic: Callable[[], float] = clock.monotonic
    ) -> None:
        super().__init__(log)
        self._once = OncePer(monotonic)

    def log(self, level: int, msg: object, *args: object, of: Hashable = None, **rest: Any) -> None:
        """Log an event, unless one of its kind was logged just before."""
        if many := self._once.count((rest["extra"]["piw_event"], of)):
            first, newline, others = str(msg).partition("\n")
            text = f"{first}{left_out(many)}{newline}{others}"
            self.logger.log(level, text, *args, stacklevel=2, **rest)
