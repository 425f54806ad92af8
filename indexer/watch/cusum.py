"""A sequential test: does something happen more often than expected, from some moment on?

A risk-adjusted CUSUM (Steiner, Cook, Farewell and Treasure, 2000, Biostatistics 1:441): each trial
has an expected probability of its own, and the test looks for odds that are several times these. It
may be asked after every trial. Pure: no clock and no randomness.
"""

from __future__ import annotations

import math

RECOVERED = math.log(1000)
"""The evidence that ends an alarm: so much likelier is what is expected than what raised it."""


class Cusum:
    """Raises an alarm when events have had the odds of what is expected, times `odds`, for a while.

    Args:
        odds: the ratio to look for, above 1.
        limit: the level of an alarm. From one alarm to the next, if all is well, there are at
            least e**limit trials on average.

    Attributes:
        level: the evidence; 0 if nothing speaks for more events than expected.
        alarmed: whether the level has reached the limit, and events are not as expected again.
        trials: since the level was 0 last.
        events: of these trials.
        expected: the events that were expected of them.
    """

    def __init__(self, odds: float, limit: float) -> None:
        self._odds, self._limit = odds, limit
        self.level = 0.0
        self.alarmed = False
        self.trials, self.events, self.expected = 0, 0, 0.0
        self._share = 0.0  # of events, when the alarm was raised
        self._recovery = 0.0  # the evidence against the alarm

    def add(self, event: bool, expected: float) -> None:
        """Take in a trial with the probability `expected` of an event, if all is well."""
        if not self.level:
            self.trials, self.events, self.expected = 0, 0, 0.0
        self.trials += 1
        self.events += event
        self.expected += expected
        if self.alarmed:
            self._recover(event, expected)
            return
        gain = (math.log(self._odds) if event else 0.0) - math.log1p((self._odds - 1) * expected)
        self.level = max(0.0, self.level + gain)
        if self.level >= self._limit:
            self.alarmed = True
            self._share = min(self.events / self.trials, 0.95)
            self._recovery = 0.0

    def _recover(self, event: bool, expected: float) -> None:
        if expected >= self._share:
            return  # nothing can be learned from it
        gain = expected / self._share if event else (1 - expected) / (1 - self._share)
        self._recovery = max(0.0, self._recovery + math.log(gain))
        if self._recovery >= RECOVERED:
            self.alarmed = False
            self.level = 0.0
