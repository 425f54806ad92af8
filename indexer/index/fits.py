"""Which wheels fit which build ABI: by their tags, and by the Python that they require.

Source: PEP 425, https://peps.python.org/pep-0425/, PEP 440's version specifiers, and
docs/documents.md.
"""

from __future__ import annotations

import re
from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from ..base import names

OWN, ABI3, NONE = 0, 1, 2
"""How well a file fits an ABI: its own tag before abi3 before none."""

MAX_PATCH = 99
"""The last patch level of a Python that may satisfy a requirement."""

MAX_REQUIREMENT = 2000
"""Characters of a Requires-Python that is looked at: each thousand takes 5 ms for every ABI, and a
message may have millions. Real ones have some hundred at most."""

_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_PYTHON_TAG = re.compile(r"(cp|py)([1-9])([0-9]{0,3})", re.ASCII)


def admits(requires_python: str | None, build_abi: str) -> bool:
    """Whether a patch level of the Python of `build_abi`, 0 to 99, satisfies a Requires-Python.

    Null, '' and what is not a valid specifier admit every Python, as with pip; so does what is
    longer than `MAX_REQUIREMENT`.
    """
    if not requires_python or len(requires_python) > MAX_REQUIREMENT:
        return True
    return _admits(requires_python, build_abi)


@lru_cache(maxsize=16_384)
def _admits(requires_python: str, build_abi: str) -> bool:
    version = names.abi_version(build_abi)
    if version is None:
        return True
    try:
        specifiers = SpecifierSet(requires_python)
    except InvalidSpecifier:
        return True
    # The answer changes only beside a number that the requirement names.
    numbers = {int(number) for number in _NUMBER.findall(requires_python)}
    patches = {0, MAX_PATCH, *(number + step for number in numbers for step in (-1, 0, 1))}
    major, minor, _ = version
    return any(
        specifiers.contains(f"{major}.{minor}.{patch}", prereleases=True)
        for patch in sorted(patches)
        if 0 <= patch <= MAX_PATCH
    )


def fit(py_version_tag: str, abi_tag: str, build_abi: str) -> int | None:
    """How a file with these tags fits `build_abi`: OWN, ABI3, NONE, or None if it does not.

    Tags may be compressed sets, as `py2.py3`, and are read in lower case.
    """
    py_version_tag = py_version_tag.lower()
    abi_tags = abi_tag.lower().split(".")
    if build_abi in abi_tags:
        return OWN
    version = names.abi_version(build_abi)
    if version is None:
        return None
    major, minor, flags = version
    pythons = []
    for tag in py_version_tag.split("."):
        match = _PYTHON_TAG.fullmatch(tag)
        if match is not None and int(match[2]) == major:
            pythons.append((match[1], int(match[3]) if match[3] else None))
    # A free-threaded interpreter has no stable ABI to offer (PEP 703).
    if "abi3" in abi_tags and "t" not in flags:
        for kind, at_least in pythons:
            if kind == "cp" and at_least is not None and at_least <= minor:
                return ABI3
    if "none" in abi_tags:
        for kind, at_least in pythons:
            if kind == "py" and (at_least is None or at_least <= minor):
                return NONE
            if kind == "cp" and at_least == minor:
                return NONE
    return None
