"""Which files fit which build ABI, by their tags (PEP 425) and by what they require."""

from __future__ import annotations

import pytest

from indexer.index.fits import ABI3, MAX_REQUIREMENT, NONE, OWN, admits, fit

pytestmark = pytest.mark.unit

NO = None


@pytest.mark.parametrize(
    ("py_version_tag", "abi_tag", "build_abi", "fits"),
    [
        # its own tag
        ("cp311", "cp311", "cp311", OWN),
        ("cp311", "cp311", "cp313", NO),
        ("cp37", "cp37m", "cp37m", OWN),
        ("cp37", "cp37", "cp37m", NO),
        ("cp313", "cp313t", "cp313t", OWN),
        ("cp313", "cp313", "cp313t", NO),
        ("cp313", "cp313t", "cp313", NO),
        ("cp39.cp311", "cp39.cp311", "cp39", OWN),
        ("cp311", "cp311.abi3", "cp311", OWN),
        # abi3: the same or older; as numbers, not as text
        ("cp311", "abi3", "cp311", ABI3),
        ("cp39", "abi3", "cp311", ABI3),
        ("cp311", "abi3", "cp39", NO),
        ("cp313", "abi3", "cp311", NO),
        ("cp36", "abi3", "cp37m", ABI3),
        ("cp36", "abi3", "cp313t", NO),
        ("cp313", "abi3", "cp313t", NO),
        ("py3", "abi3", "cp311", NO),
        ("cp3", "abi3", "cp311", NO),
        ("cp39.cp313", "abi3", "cp311", ABI3),
        ("cp311", "cp311.abi3", "cp313", ABI3),
        ("cp27", "abi3", "cp311", NO),
        # none
        ("py3", "none", "cp39", NONE),
        ("py3", "none", "cp37m", NONE),
        ("py3", "none", "cp313t", NONE),
        ("py2.py3", "none", "cp311", NONE),
        ("py2", "none", "cp311", NO),
        ("py39", "none", "cp311", NONE),
        ("py311", "none", "cp311", NONE),
        ("py311", "none", "cp39", NO),
        ("py310", "none", "cp39", NO),
        ("cp311", "none", "cp311", NONE),
        ("cp311", "none", "cp313", NO),
        ("cp39", "none", "cp311", NO),
        ("cp313", "none", "cp313t", NONE),
        ("py2.cp311", "none", "cp311", NONE),
        ("cp3", "none", "cp311", NO),
        # what is better counts
        ("cp311", "none.abi3", "cp311", ABI3),
        # nothing of it
        ("pp39", "pypy39_pp73", "cp39", NO),
        ("", "", "cp39", NO),
        ("py3", "", "cp39", NO),
        ("", "none", "cp39", NO),
        ("py3x", "none", "cp39", NO),
        (".", ".", "cp39", NO),
    ],
)
def test_tags_that_fit_an_abi(
    py_version_tag: str, abi_tag: str, build_abi: str, fits: int | None
) -> None:
    assert fit(py_version_tag, abi_tag, build_abi) == fits


def test_a_requirement_that_is_too_long_admits_every_python() -> None:
    longest = "<3.9".ljust(MAX_REQUIREMENT)
    assert not admits(longest, "cp311")
    assert admits(longest + " ", "cp311")
    assert admits(">=" + "9" * 5000, "cp311")


def test_order_of_fits() -> None:
    assert OWN < ABI3 < NONE
