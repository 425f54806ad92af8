"""When what waits should be built: measured by `python -m tests.bench.estimate`; pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def done_in(waiting: int, builders: int, durations: Sequence[float]) -> int | None:
    """Seconds until all that waits on an ABI should be built; None if nothing can be said.

    The builders share the work; and of so many builds the longest one, which may come last, is
    as long as the longest of that many recent ones.

    Args:
        waiting: how many versions wait, those that are being built included.
        builders: how many slaves there are for the ABI.
        durations: of recent builds on it, in seconds.
    """
    if not waiting:
        return 0
    if not builders or not durations:
        return None
    longest = sorted(durations)[len(durations) * waiting // (waiting + 1)]
    return round(waiting * statistics.fmean(durations) / builders + longest)
