"""When what waits should be built."""

from __future__ import annotations

import pytest

from indexer.documents.estimate import done_in

from ..bench.estimate import Life, factors


@pytest.mark.parametrize(
    ("waiting", "builders", "durations", "expected"),
    [
        (0, 0, (), 0),  # nothing waits
        (1, 0, (10.0,), None),  # for nobody
        (1, 1, (), None),  # and nobody has built lately
        (1, 1, (10.0,), 20),
        (10, 2, (10.0, 30.0), 10 * 20 // 2 + 30),
        (1, 1, (1.0, 1.0, 97.0, 1.0), 25 + 1),  # one of them takes as long as the median
        (3, 1, (1.0, 1.0, 97.0, 1.0), 75 + 97),  # one of four of them takes long
        (10**6, 1, (10.0,), 10**7 + 10),
    ],
)
def test_estimates(
    waiting: int, builders: int, durations: tuple[float, ...], expected: int | None
) -> None:
    assert done_in(waiting, builders, durations) == expected


def test_what_the_documentation_says_of_its_error() -> None:
    """In one of the lives that it speaks of: half of the estimates are wrong by a factor of 2."""
    count, half, _ = factors(Life(1, 20.0).live())
    assert count > 300
    assert half < 2
