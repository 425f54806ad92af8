"""The only place that reads the clock; everything else is given a time or a `Clock`."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Returns the present time in microseconds since 1970-01-01 00:00 UTC."""


def now() -> int:
    """The present time in microseconds since 1970-01-01 00:00 UTC."""
    return time.time_ns() // 1000


def monotonic() -> float:
    """Seconds on a clock that never jumps; for waiting and for rates."""
    return time.monotonic()


def cpu_of_thread() -> float:
    """Seconds of CPU that this thread has used: how busy the machine is does not matter."""
    return time.thread_time()


def sleep(seconds: float) -> None:
    """Wait `seconds`."""
    time.sleep(seconds)
