"""How long to wait before something that failed is tried again: twice as long each time."""

from __future__ import annotations


class Backoff:
    """The delays between tries.

    Args:
        first: seconds after the first failure.
        longest: seconds that a delay never exceeds.

    Attributes:
        delay: seconds that the next failure will have to wait.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = min(first, longest)
        self._longest = longest
        self.delay = self._first

    def failed(self) -> float:
        """A try failed; returns the seconds until the next one."""
        delay = self.delay
        self.delay = min(self._longest, 2 * delay)
        return delay

    def worked(self) -> None:
        """A try succeeded: the next failure begins with the first delay again."""
        self.delay = self._first
