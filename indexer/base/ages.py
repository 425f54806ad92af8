"""For how long something has been waiting, where only numbers that grow are known.

Pure: whoever asks brings the time.
"""

from __future__ import annotations

_MAX_SEEN = 600


class Waiting:
    """Remembers when a number that only grows has grown.

    A mark of serial 7 has been waiting since the index reached 7; a feed is behind since the
    publisher was at a serial that we have not accepted.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, float]] = []

    def note(self, number: int, now: float) -> None:
        """It is at `number`; it may begin anew with a smaller one."""
        if self._seen and number < self._seen[-1][0]:
            self._seen.clear()
        if not self._seen or number > self._seen[-1][0]:
            self._seen.append((number, now))
        if len(self._seen) > _MAX_SEEN:
            # What waits for days need not be known by the second.
            self._seen = self._seen[::2] + self._seen[-1:]

    def seconds(self, number: int, now: float) -> float:
        """For how long it has been at `number` or above; 0 if it is not.

        Whatever was below `number` is forgotten: ask for numbers that only grow.
        """
        while self._seen and self._seen[0][0] < number:
            del self._seen[0]
        return max(0.0, now - self._seen[0][1]) if self._seen else 0.0
