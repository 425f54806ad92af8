"""A master's answers made into messages, with what the status feed told of the builds."""

from __future__ import annotations

from typing import Any

import pytest

from indexer.base.times import SECOND
from indexer.piwheels import translate

from ..samples import NOW as AT


def told(outcome: str, timed: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
    """The attempt on cp311 in the message's data, after the status feed told of its end."""
    fields = {"version": "1.0", "abi_tag": "cp311", "slave_id": 3, "began": AT - 90 * SECOND}
    build = translate.EndedBuild(**{**fields, "ended": AT, "outcome": outcome, **more})
    abis: dict[str, dict[str, Any]] = {
        "cp39": {"status": "pending", "build_id": None},
        "cp311": {"status": "fail", "build_id": 7},
    }
    translate.add_details({"1.0": {"abis": abis}}, build, timed)
    assert abis["cp39"] == {"status": "pending", "build_id": None}
    return abis["cp311"]


def test_a_build_has_what_the_status_feed_told_of_it() -> None:
    """All builds beside a master had neither slave nor time nor duration."""
    known = {"slave_id": 3, "built_at": AT, "duration": 90.0}
    assert told("fail") == {"status": "fail", "build_id": 7, **known}
    assert "duration" not in told("fail", began=None)
    assert "duration" not in told("unknown")
    assert told("unknown")["built_at"] == AT


@pytest.mark.parametrize(
    ("outcome", "more"),
    [
        ("success", {}),  # it is another build, that failed
        ("fail", {"abi_tag": ""}),
        ("fail", {"abi_tag": "cp39"}),  # the master does not know it yet
        ("fail", {"version": "2.0"}),
        ("fail", {"timed": (7,)}),  # somebody knows better
    ],
)
def test_what_is_told_of_another_build_is_left_out(outcome: str, more: dict[str, Any]) -> None:
    assert told(outcome, **more) == {"status": "fail", "build_id": 7}
