"""Which wheels fit which build ABI, by their tags.

Source: PEP 425, https://peps.python.org/pep-0425/ (docs/documents.md).
"""

from __future__ import annotations

import re

from ..base import names

OWN, ABI3, NONE = 0, 1, 2
"""How well a file fits an ABI; its own tag is best, then abi3, then none."""

_PYTHON_TAG = re.compile(r"(cp|py)([1-9])([0-9]{0,3})", re.ASCII)


def fit(py_version_tag: str, abi_tag: str, build_abi: str) -> int | None:
    """How a file with these tags fits `build_abi`: OWN, ABI3, NONE, or None if it does not.

    Tags may be compressed sets, as `py2.py3`.
    """
    abi_tags = abi_tag.split(".")
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
    # A free-threaded interpreter has no stable ABI (PEP 703).
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
