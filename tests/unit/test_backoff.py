"""After each failure the delay before the next try grows, up to a bound."""

from __future__ import annotations

import pytest

from indexer.base.backoff import Backoff

pytestmark = pytest.mark.unit


def test_each_failure_doubles_the_delay_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.failed() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_success_begins_with_the_first_delay_again() -> None:
    backoff = Backoff(0.5, 30.0)
    assert (backoff.failed(), backoff.failed(), backoff.delay) == (0.5, 1.0, 2.0)
    backoff.worked()
    assert (backoff.delay, backoff.failed()) == (0.5, 0.5)


def test_no_delay_is_longer_than_the_longest() -> None:
    assert Backoff(1.0, 0.05).failed() == 0.05
