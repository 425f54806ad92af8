"""The list of all packages of a master against that of the index."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from indexer.piwheels.queues.snapshots import unlike

PACKAGES = st.lists(st.sampled_from(["a", "a-b", "b", "b1", "numpy", "z"]))


@given(PACKAGES, PACKAGES)
def test_what_only_one_of_two_lists_has(there: list[str], here: list[str]) -> None:
    known = sorted({*here})
    lacking, gone = unlike(sorted(there), ((package,) for package in known))
    assert sorted({*lacking}) == sorted({*there} - {*here})
    assert gone == sorted({*here} - {*there})
