"""Which examples hypothesis tries: always the same in CI, others every time elsewhere."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from ..tally import amount

# Real SQLite files are slow on a busy disk; that is no fault of what is tested.
_COMMON = settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, max_examples=30
)
settings.register_profile("local", _COMMON)
settings.register_profile("ci", _COMMON, derandomize=True, database=None)


def examples(count: int) -> settings:
    """A decorator: so many examples on every change, and thirty times as many in a soak."""
    return settings(max_examples=amount(count, 30 * count))


def load() -> None:
    """Choose the profile; whoever writes properties calls it."""
    settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")
