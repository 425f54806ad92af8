"""How much a run tries, and what it has tried: kills, faults, power cuts, inputs, comparisons.

`make test` tries a little of everything; `make soak` sets PIW_INDEXER_SOAK to 1, and a fraction or
a multiple of it shortens or lengthens a soak.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

SCALE = float(os.environ.get("PIW_INDEXER_SOAK") or 0)

_tried: Counter[tuple[str, str]] = Counter()


def amount(brief: int, soak: int) -> int:
    """How often to try something: `brief` in a test run, `soak` in a whole soak."""
    return max(1, round(soak * SCALE)) if SCALE else brief


def add(kind: str, what: str, number: int = 1) -> None:
    """Count something that was tried: `add("kills", "daemon")`."""
    _tried[kind, what] += number


@contextmanager
def comparison(what: str) -> Iterator[None]:
    """Count a comparison, and whether it found a difference."""
    add("comparisons", what)
    try:
        yield
    except AssertionError:
        add("differences", what)
        raise


def summary() -> list[str]:
    """What was tried, a line for each kind."""
    if not _tried:
        return []
    kinds = [*dict.fromkeys(kind for kind, _ in sorted(_tried)), "differences"]
    kinds = [*sorted(set(kinds) - {"comparisons", "differences"}), "comparisons", "differences"]
    lines = []
    for kind in kinds:
        found = {what: number for (other, what), number in _tried.items() if other == kind}
        parts = ", ".join(f"{what} {number:,}" for what, number in sorted(found.items()))
        lines.append(f"{kind:12} {sum(found.values()):>12,}" + (f"  ({parts})" if parts else ""))
    return lines
