"""How a long operation tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Is called with how many are done, and how many there are: packages, messages or bytes."""


def silent(done: int, total: int) -> None:
    """The progress that nobody sees."""
