"""How two documents differ, in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from indexer.check import differences

ATTEMPT = {"build_id": 6, "abi": "cp311", "built_at": "2026-11-20 12:00:00", "failure": None}
WHY = {"category": "killed", "detail": ""}


@pytest.mark.parametrize(
    ("found", "expected", "says"),
    [
        (
            {"builds": [ATTEMPT]},
            {"builds": [{**ATTEMPT, "failure": WHY}]},
            'builds.0.failure is null, should be {"category": "killed", "detail": ""}',
        ),
        (
            {"builds": [{**ATTEMPT, "failure": WHY}, ATTEMPT]},
            {"builds": [{**ATTEMPT, "failure": WHY}]},
            'builds is ...", "detail": ""}}, {"build_id": 6, "abi": "cp311", "bu...,'
            ' should be ...", "detail": ""}}]',
        ),
        ({"summary": 90 * "a"}, {"summary": 90 * "a" + "b"}, f'{17 * "a"}", should be ...'),
        ({"summary": ""}, {"summary": 90 * "a"}, f'summary is "", should be "{56 * "a"}...'),
        ({"apt": ["a"]}, {"apt": ["a", "b"]}, 'apt is ["a"], should be ["a", "b"]'),
        ({"builds": 3}, {"builds": [{}]}, "builds is 3, should be [{}]"),
    ],
)
def test_what_differs_is_shown(found: Any, expected: Any, says: str) -> None:
    """Both values of a long list were once cut before the first difference."""
    here, there = (json.dumps(one).encode() for one in (found, expected))
    assert says in differences.content(here, there)
