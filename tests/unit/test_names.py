"""Names: canonical and safe ones, filenames of wheels, and ABI tags."""

from __future__ import annotations

import pytest

from indexer.base import names

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("numpy", "numpy"),
        ("NumPy", "numpy"),
        ("RPi.GPIO", "rpi-gpio"),
        ("zope.interface", "zope-interface"),
        ("a__b--c..d-_.e", "a-b-c-d-e"),
        ("3to2", "3to2"),
    ],
)
def test_canonical_names(name: str, canonical: str) -> None:
    assert names.canonical(name) == canonical
    assert names.is_canonical(canonical)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "NumPy",
        "a_b",
        "a.b",
        "a--b",
        "-a",
        "a-",
        "-",
        ".",
        "..",
        "a/b",
        "a b",
        "a\n",
        "\na",
        "é",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "a\0",
    ],
)
def test_names_that_are_not_canonical(name: str) -> None:
    assert not names.is_canonical(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("a/b", '"/"'),
        ("/", '"/"'),
        ("a\0b", "NUL"),
        (".hidden", "dot"),
        (".", "dot"),
        ("..", "dot"),
        ("x" * 11, "longer than 10"),
    ],
)
def test_unsafe_names_are_refused_with_a_reason(name: str, why: str) -> None:
    assert why in names.unsafe(name, 10)


@pytest.mark.parametrize("name", ["a", "a.b", "a..", "-", "~", "x" * 10, "é\n \\"])
def test_safe_names_are_accepted(name: str) -> None:
    assert names.unsafe(name, 10) == ""


@pytest.mark.parametrize(
    ("filename", "package"),
    [
        ("numpy-2.0-cp311-cp311-linux_armv7l.whl", "numpy"),
        ("NumPy-2.0-1-cp311-cp311-linux_armv7l.whl", "numpy"),
        ("RPi.GPIO-0.7.1-py3-none-any.whl", "rpi-gpio"),
        ("zope_interface-6-py3-none-any.whl", "zope-interface"),
        ("x-1-2-3-4.whl", "x"),
    ],
)
def test_package_of_a_wheel(filename: str, package: str) -> None:
    assert names.wheel_package(filename) == package


@pytest.mark.parametrize(
    "filename",
    [
        "numpy-2.0.tar.gz",
        "numpy.whl",
        "numpy-2.0-cp311-cp311-linux_armv7l.whl.metadata",
        "-2.0-cp311-cp311-linux_armv7l.whl",
        "_-2.0-cp311-cp311-linux_armv7l.whl",
        "é-2.0-cp311-cp311-linux_armv7l.whl",
        "x" * 201 + "-1-py3-none-any.whl",
        "index.html",
        "",
    ],
)
def test_no_wheel_is_of_no_package(filename: str) -> None:
    assert names.wheel_package(filename) is None


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("cp39", (3, 9, "")),
        ("cp311", (3, 11, "")),
        ("cp37m", (3, 7, "m")),
        ("cp313t", (3, 13, "t")),
        ("cp27mu", (2, 7, "mu")),
        ("cp310", (3, 10, "")),
        ("cp3100", (3, 100, "")),
    ],
)
def test_an_abi_tag_has_a_version(tag: str, version: tuple[int, int, str]) -> None:
    assert names.abi_version(tag) == version


@pytest.mark.parametrize(
    "tag", ["", "cp", "cp3", "none", "abi3", "py3", "cp3x", "cp311x", "pp39", " cp39", "cp39\n"]
)
def test_no_cpython_abi(tag: str) -> None:
    assert names.abi_version(tag) is None


def test_abis_compare_by_number() -> None:
    assert sorted(["cp311", "cp39", "cp313"], key=lambda abi: names.abi_version(abi) or ()) == [
        "cp39",
        "cp311",
        "cp313",
    ]
