"""A clock that is wrong by months, for processes that get it at their start."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path


class WrongClock:
    """The clock of processes; it begins with the next month.

    Args:
        path: of the file that tells them.
        seams: the directory of the module that makes them listen.
    """

    def __init__(self, path: Path, seams: Path) -> None:
        self._path = path
        self._seams = seams
        self._now = datetime.now(UTC)
        self.next_month()

    def settings(self) -> dict[str, str]:
        """The environment of a process that uses this clock."""
        return {"PYTHONPATH": str(self._seams), "PIW_TEST_CLOCK": str(self._path)}

    def next_month(self, *, hold: bool = False) -> str:
        """Move on to the second day of the next month; returns its name.

        Args:
            hold: until `turn` is called.
        """
        self._now = (self._now.replace(day=1) + timedelta(days=32)).replace(day=2)
        if not hold:
            self.turn()
        return f"{self._now:%Y-%m}"

    def turn(self) -> None:
        """Make the clock show the time that it was moved to."""
        wrong = int(self._now.timestamp() * 1e9) - time.time_ns()
        temporary = self._path.with_suffix(".new")
        temporary.write_text(str(wrong))
        os.rename(temporary, self._path)
