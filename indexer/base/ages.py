"""How long something has been waiting, where only a growing number is known.

Pure: the caller passes the time.
"""

from __future__ import annotations

_MAX_SEEN = 600


class Ages:
    """Remembers when a growing number reached each of its values.

    A mark of serial 7 has been waiting since the index reached serial 7. A feed has been behind
    since its publisher reached a serial that we have not accepted.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, float]] = []

    def note(self, number: int, now: float) -> None:
        """Note that the number is `number` now; a smaller one than before starts again."""
        if self._seen and number < self._seen[-1][0]:
            self._seen.clear()
        if not self._seen or number > self._seen[-1][0]:
            self._seen.append((number, now))
        if len(self._seen) > _MAX_SEEN:
            # For something that waits for days, seconds do not matter.
            self._seen = self._seen[::2] + self._seen[-1:]

    def seconds(self, number: int, now: float) -> float:
        """How long the number has been `number` or more; 0 if it is less.

        Smaller values are forgotten, so callers must ask for growing numbers.
        """
        while self._seen and self._seen[0][0] < number:
            del self._seen[0]
        return max(0.0, now - self._seen[0][1]) if self._seen else 0.0
