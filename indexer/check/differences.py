"""Differences, in words: which package, which field, what it is and should be, whose fault it is.

Nothing here decides whether something is right.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from ..base import filesystem, printable, times
from ..base.notes import ExactText

_MAX_FIELDS = 3
"""Fields of one document that are named."""

_MAX_SHOWN = 60
"""Characters of a value."""

WRONG_INDEX = "the index is wrong: the journal says otherwise"
MODE = filesystem.DOCUMENT


class Part(StrEnum):
    """Where something differs."""

    JOURNAL = "journal"
    CHECKPOINT = "checkpoint"
    INDEX = "index"
    DOCUMENTS = "documents"


class Sort(StrEnum):
    """What sort of a difference it is."""

    OTHER = ""
    MONTH = "month"
    ROW = "row"
    DOCUMENT = "document"
    MODE = "mode"
    LINK = "link"
    STRAY = "stray"


class Difference(NamedTuple):
    """Something that is not as it should be.

    Attributes:
        part: where.
        what: in words; names in it are as they are. `str` makes a printable line of it.
        sort: what sort of a difference.
        table: of the row.
        package: the name that must be written again; empty for others.
        document: the name of the kind of document.
        path: of the document, below the output tree.
        fault: whose it is; empty if `what` says that.
    """

    part: Part
    what: ExactText
    sort: Sort = Sort.OTHER
    table: ExactText = ""
    package: ExactText = ""
    document: ExactText = ""
    path: ExactText = ""
    fault: str = ""

    def __str__(self) -> str:
        said = f"{self.part}: {self.what}" + (f" ({self.fault})" if self.fault else "")
        return printable.whole_line(said)

    @property
    def label(self) -> str:
        """What differences are counted by."""
        if self.sort is Sort.ROW:
            return self.table
        if self.path and not self.package:
            return f"{self.path.partition('/')[0].removesuffix('.gz')}: {self.sort}"
        return str(self.sort)

    def as_data(self) -> dict[str, str]:
        """What `check --json` shows of it."""
        return {
            "part": self.part,
            "what": self.what,
            "kind": self.label,
            "package": self.package,
            "fault": self.fault,
        }


class Finding(NamedTuple):
    """What is wrong with a file."""

    sort: Sort
    what: str
    fault: str


def values(found: object, expected: object) -> str:
    """Two values that differ, no longer than a line can hold."""
    texts = [json.dumps(one, ensure_ascii=False, default=str) for one in (found, expected)]
    start = 0
    if max(map(len, texts)) > _MAX_SHOWN:
        # Two long values that begin alike were once cut before the first difference.
        alike = len(os.path.commonprefix(texts))  # noqa: RUF071 - of texts, not of paths
        start = max(0, alike - _MAX_SHOWN // 3)
    there, here = (_cut(text, start) for text in texts)
    return f"is {there}, should be {here}"


def _cut(text: str, start: int) -> str:
    text = f"...{text[start + 3 :]}" if start > 3 else text
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
            f"{table}.{name} {values(there[name], here[name])}"
            for name in columns
            if there[name] != here[name]
        )
    return Difference(
        Part.INDEX,
        what,
        Sort.ROW,
        table=table,
        package=str(named.get("package", "")),
        fault=WRONG_INDEX,
    )


def document(path: str, expected: bytes | None) -> Finding | None:
    """How a document differs from what it should be; None if it does not.

    Args:
        expected: its bytes; None: it should not be there.
    """
    if expected is None:
        if not os.path.lexists(path):
            return None
        return Finding(Sort.DOCUMENT, f"{path} should not be there", "left behind")

    def wrong(found: bytes) -> str:
        return "" if found == expected else content(found, expected)

    return form(path, wrong)


def form(path: str, wrong: Callable[[bytes], str]) -> Finding | None:
    """What is wrong with a document: it is not a file, its content, or its mode; None: nothing.

    Args:
        wrong: says what is wrong with its content; empty if nothing is.
    """
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            what = f"{path} is a link to {os.readlink(path)}, and no file"
            return Finding(Sort.DOCUMENT, what, "made by others")
        if not stat.S_ISREG(status.st_mode):
            return Finding(Sort.DOCUMENT, f"{path} is not a file", "made by others")
        found = filesystem.read(path, filesystem.MAX_DOCUMENT)
    except FileNotFoundError:
        return Finding(Sort.DOCUMENT, f"{path} is missing", "it was removed, or never written")
    except OSError as error:
        return Finding(Sort.DOCUMENT, f"{path} cannot be read: {error.strerror}", "")
    changed = times.to_rfc3339(status.st_mtime_ns // 1000)
    what = wrong(found)
    if what:
        fault = f"not what was published; changed at {changed}"
        return Finding(Sort.DOCUMENT, f"{path} {what}", fault)
    mode = stat.S_IMODE(status.st_mode)
    if mode != MODE:
        what = f"{path} has the mode {mode:04o}, should be {MODE:04o}"
        return Finding(Sort.MODE, what, "changed by others")
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
        here = json.loads(expected)
    except ValueError:
        return "has other bytes"
    try:
        there = json.loads(found)
    except ValueError as error:
        return f"is not JSON: {error}"
    if there == here:
        return "says the same in other bytes: order of keys, or white space"
    if isinstance(here, list):
        fields = list(_rows(there, here))
    else:
        fields = list(_fields("", there, here))
    more = f", and {len(fields) - _MAX_FIELDS} fields more" if len(fields) > _MAX_FIELDS else ""
    return f"differs: {', '.join(fields[:_MAX_FIELDS])}{more}"


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
    if _is_list_of_objects(found, expected):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    if not isinstance(found, dict) or not isinstance(expected, dict):
        if found != expected:
            yield f"{path or 'it'} {values(found, expected)}"
        return
    for key in [*expected, *(key for key in found if key not in expected)]:
        name = f"{path}.{key}" if path else key
        if key not in found:
            yield f"{name} is missing"
        elif key not in expected:
            yield f"{name} should not be there"
        else:
            yield from _fields(name, found[key], expected[key])


def _is_list_of_objects(found: Any, expected: Any) -> bool:
    """Whether both are lists of as many objects, such as the attempts of a version."""
    return (
        isinstance(found, list)
        and isinstance(expected, list)
        and len(found) == len(expected)
        and all(isinstance(element, dict) for element in expected)
    )


def _rows(found: Any, expected: list[Any]) -> Iterator[str]:
    """The rows of a list that differ, by what they begin with."""
    try:
        there, here = ({row[0]: row[1:] for row in rows} for rows in (found, expected))
    except (TypeError, IndexError, KeyError):
        yield "it is not a list of packages"
        return
    yield from _fields("", there, here)
    if there == here:
        yield "its rows are in another order, or twice"
