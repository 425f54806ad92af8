"""What differs, in words: which package, which field, what it is and should be, whose fault it is.

Nothing here decides whether something is right; it only finds words.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..base import filesystem, printable, times

_FIELDS = 3
"""Fields of one document that are named."""

_MAX_SHOWN = 60
"""Characters of a value."""

WRONG_INDEX = "the index is wrong: the journal says otherwise"
MODE = filesystem.DOCUMENT


class Difference(NamedTuple):
    """Something that is not as it should be.

    Attributes:
        part: where: journal, checkpoint, index or documents.
        what: in words; names in it are as they are, `str` makes a printable line of it.
        kind: what differences are counted by: a table, "document", "link", "stray", "mode"...
        package: the name that must be written again; empty for others.
        fault: whose it is; empty if that is said already.
    """

    part: str
    what: str
    kind: str = ""
    package: str = ""
    fault: str = ""

    def __str__(self) -> str:
        said = f"{self.part}: {self.what}" + (f" ({self.fault})" if self.fault else "")
        return printable.whole_line(said)


def value(found: object) -> str:
    """A value, no longer than a line can hold."""
    text = json.dumps(found, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


_SUBJECTS = {
    "packages": "{package}",
    "package_names": "{package}: the name {name}",
    "versions": "{package} {version}",
    "builds": "{package} {version}: build {build_id} on {abi_tag}",
    "files": "{of}file {filename}",
    "dependencies": "{of}file {filename}: the dependency {tool} {dependency}",
    "build_abis": "the build ABI {abi_tag}",
    "preinstalled_apt_packages": "the build ABI {abi_tag}: the preinstalled {apt_package}",
    "abi_fits": "files of {py_version_tag}-{file_abi_tag} on {abi_tag}",
    "download_counts": "{package}: the download counters",
    "download_hours": "{package}: the downloads of the hour {hour}",
}


def row(
    table: str,
    columns: tuple[str, ...],
    found: tuple[Any, ...] | None,
    expected: tuple[Any, ...] | None,
    of: str,
) -> Difference:
    """A row of the index that is not as the journal has it.

    Args:
        found: as it is in the index; None if it is not there.
        expected: as it should be; None if it should not be there.
        of: the package and version of a file, with a colon.
    """
    there = dict(zip(columns, found or (), strict=False))
    here = dict(zip(columns, expected or (), strict=False))
    named = here or there
    if table == "download_hours":
        named = {**named, "hour": times.to_rfc3339(named["hour"] * times.SECOND)}
    subject = _SUBJECTS[table].format(**named, of=of)
    if found is None:
        what = f"{subject} is missing in {table}"
    elif expected is None:
        what = f"{subject} is in {table}, and should not be"
    else:
        what = f"{subject}: " + ", ".join(
            f"{table}.{name} is {value(there[name])}, should be {value(here[name])}"
            for name in columns
            if there[name] != here[name]
        )
    return Difference("index", what, table, str(named.get("package", "")), WRONG_INDEX)


def document(path: str, expected: bytes) -> tuple[str, str, str] | None:
    """How a document differs from what it should be: kind, words and whose fault; None: not."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            return "document", f"{path} is a link to {target}, and no file", "made by others"
        if not stat.S_ISREG(status.st_mode):
            return "document", f"{path} is not a file", "made by others"
        found = filesystem.read(path, filesystem.MAX_DOCUMENT)
    except FileNotFoundError:
        return "document", f"{path} is missing", "it was removed, or never written"
    except OSError as error:
        return "document", f"{path} cannot be read: {error.strerror}", ""
    changed = times.to_rfc3339(status.st_mtime_ns // 1000)
    if found != expected:
        what = content(found, expected)
        return "document", f"{path} {what}", f"not what was published; changed at {changed}"
    mode = stat.S_IMODE(status.st_mode)
    if mode != MODE:
        return "mode", f"{path} has the mode {mode:04o}, should be {MODE:04o}", "changed by others"
    return None


def content(found: bytes, expected: bytes) -> str:
    """How the bytes of a document differ from others, which they do, in words."""
    if not found:
        return "is empty"
    if expected.startswith(found):
        return f"is cut off after {len(found)} of {len(expected)} bytes"
    if found[:2] == b"\x1f\x8b" or expected[:2] == b"\x1f\x8b":
        return _compressed(found, expected)
    try:
        return _decoded(found, expected)
    except RecursionError:
        return "is nested too deeply"


def _decoded(found: bytes, expected: bytes) -> str:
    try:
        there = json.loads(found)
    except ValueError as error:
        return f"is not JSON: {error}"
    here = json.loads(expected)
    if there == here:
        return "says the same in other bytes: order of keys, or white space"
    if isinstance(here, list):
        fields = list(_counters(there, here))
    else:
        fields = list(_fields("", there, here))
    more = f", and {len(fields) - _FIELDS} fields more" if len(fields) > _FIELDS else ""
    return f"differs: {', '.join(fields[:_FIELDS])}{more}"


def _compressed(found: bytes, expected: bytes) -> str:
    try:
        right = gzip.decompress(expected)
        # A few kilobytes of others' may be gigabytes when they are unpacked.
        same = gzip.GzipFile(fileobj=io.BytesIO(found)).read(len(right) + 1) == right
    except (OSError, EOFError, zlib.error) as error:
        return f"is not gzip: {error}"
    return "is compressed in another way" if same else "holds another document, compressed"


def _fields(path: str, found: Any, expected: Any) -> Iterator[str]:
    """Every field that differs, by its path."""
    if not isinstance(found, dict) or not isinstance(expected, dict):
        if found != expected:
            name = path or "it"
            yield f"{name} is {value(found)}, should be {value(expected)}"
        return
    for key in [*expected, *(key for key in found if key not in expected)]:
        name = f"{path}.{key}" if path else key
        if key not in found:
            yield f"{name} is missing"
        elif key not in expected:
            yield f"{name} should not be there"
        else:
            yield from _fields(name, found[key], expected[key])


def _counters(found: Any, expected: list[Any]) -> Iterator[str]:
    """The rows of packages.json that differ, by package."""
    try:
        there = {one[0]: one[1:] for one in found}
    except (TypeError, IndexError, KeyError):
        yield "it is not a list of packages"
        return
    here = {one[0]: one[1:] for one in expected}
    yield from _fields("", there, here)
    if there == here:
        yield "its rows are in another order, or twice"
