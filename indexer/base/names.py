"""Names of packages, files and ABIs: which are safe, and which package a file belongs to.

Every name that becomes part of a path has passed `unsafe` or `is_canonical`.
"""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[-_.]+")
_CANONICAL = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_CPYTHON_ABI = re.compile(r"cp([1-9])(0|[1-9][0-9]{0,2})(t?d?|d?m?u?)", re.ASCII)

MAX_NAME = 200
MAX_FILENAME = 255
MAX_COMPONENT_BYTES = 255
"""NAME_MAX of Linux file systems, in bytes."""


def canonical(name: str) -> str:
    """The canonical form of a package name.

    Source: PEP 503, https://peps.python.org/pep-0503/#normalized-names
    """
    return _SEPARATORS.sub("-", name).lower()


def is_canonical(name: str) -> bool:
    """True if `name` is a canonical package name that begins and ends with a letter or digit."""
    return _CANONICAL.fullmatch(name) is not None


def unsafe(name: str, longest: int) -> str:
    """Why `name` must not become part of a path; empty if it may."""
    if not name:
        return "is empty"
    if len(name) > longest:
        return f"is longer than {longest} characters"
    if "/" in name:
        return 'has a "/"'
    if "\0" in name:
        return "has a NUL"
    if name[0] == ".":
        return "begins with a dot"
    return ""


def wheel_package(filename: str) -> str | None:
    """The canonical name of a wheel's package; None if the filename is not a wheel's.

    Source: the wheel filename convention,
    https://packaging.python.org/en/latest/specifications/binary-distribution-format/
    """
    if not filename.endswith(".whl"):
        return None
    name, dash, rest = filename.partition("-")
    # distribution-version(-build)?-python-abi-platform.whl
    if not dash or not 3 <= rest.count("-") <= 4:
        return None
    package = canonical(name)
    return package if is_canonical(package) and len(package) <= MAX_NAME else None


def abi_version(abi_tag: str) -> tuple[int, int, str] | None:
    """(major, minor, flags) of a CPython ABI tag (`cp37m`: 3, 7, "m"); None for another tag.

    Source: PEP 425, https://peps.python.org/pep-0425/#abi-tag
    """
    match = _CPYTHON_ABI.fullmatch(abi_tag)
    if match is None:
        return None
    return int(match[1]), int(match[2]), match[3]


# Feeds

FILE_FEED = "file:"
"""The prefix of feeds that are files; no feed from a socket may have it."""

MAX_FEED_NAME = 100
"""Characters of the name of a feed."""


def is_feed_name(name: str) -> bool:
    """Whether a feed may have this name: it is shown in logs and on screens."""
    return len(name) <= MAX_FEED_NAME and name.isprintable()
