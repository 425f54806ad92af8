"""Compares a package of a master with the same package of the index.

The master's package is applied to an empty index and rendered. Where the two documents differ, and
a master knows better, there is a difference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import orjson

from ..base import database
from ..documents import project
from ..index import apply, queries
from ..index import snapshot as snapshots
from ..messages.entries import Row
from ..messages.types import Message, SetAbis

UNTOLD = frozenset({"duration", "build_duration"})
"""What a master never says."""

UNTOLD_OF_RELEASES = ("builds",)
UNTOLD_OF_FILES = ("build_id", "built_at", "earlier")
"""Likewise, of releases and files; of builds, it tells the one that decided about each ABI."""

UNTOLD_IF_NULL = frozenset({"build_id", "log_url"})
"""What a master does not always say."""

OF_THE_BUILD = frozenset({"build_id", "log_url", "status"})
"""What depends on which build is chosen. A master chooses any of several equal builds, and compares
ABIs as text: if the index has its build, the index knows the outcome better."""

MAX_SCRATCH = 8 * 1024 * 1024
"""Bytes of the index in memory that are kept for the next comparison: a master may describe each
package with 16 MiB."""

_MAPS = frozenset({"releases", "abis", "files"})
"""Fields whose keys are names that others chose; one may be called like a field of ours."""

_MAX_SERIALS = 200


class Comparer:
    """Compares packages with an index, by means of a small index in memory.

    Args:
        max_scratch: bytes of the index in memory that are kept for the next comparison.
    """

    def __init__(self, connection: sqlite3.Connection, max_scratch: int = MAX_SCRATCH) -> None:
        self._connection = connection
        self._max_scratch = max_scratch
        self._memory: sqlite3.Connection | None = None
        self._abis: SetAbis | None = None
        self._serial = 0

    def _scratch(self) -> sqlite3.Connection:
        """The index in memory: the same ABIs and few packages; replaced now and then."""
        abis = set_abis(self._connection)
        if self._memory is None or self._abis != abis or self._serial > _MAX_SERIALS:
            self.close()
            self._memory = queries.open_in_memory()
            self._abis = abis
            self._serial = 1
            apply.Applier(self._memory).apply([Row(1, Message("SETABIS", 0, abis))])
        return self._memory

    def differences(self, snapshot: Message) -> list[str]:
        """What the index has differently of a package, in words; empty if nothing."""
        package = snapshot.data.package
        here = _document(self._connection, package)
        if here is None:
            return ["the index does not have it"]
        memory = self._scratch()
        self._serial += 1
        apply.Applier(memory).apply([Row(self._serial, snapshot)])
        known = {
            row[0]
            for row in self._connection.execute(
                "SELECT build_id FROM builds WHERE package = ?", (package,)
            )
        }
        there = _document(memory, package)
        # A master compares ABIs as text, so a "success" without a fitting file means nothing.
        for version, abi in snapshots.unmentioned(snapshot.data):
            release = here["releases"].get(version)
            if release is not None and abi in release["abis"]:
                there["releases"][version]["abis"][abi] = release["abis"][abi]
        if _size(memory) > self._max_scratch:
            self.close()
        return list(_differences("", here, there, known))

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def set_abis(connection: sqlite3.Connection) -> SetAbis:
    """The build ABIs of an index, as the message that sets them."""
    preinstalled: dict[str, list[str]] = {}
    for abi, package in connection.execute(
        "SELECT abi_tag, apt_package FROM preinstalled_apt_packages ORDER BY 1, 2"
    ):
        preinstalled.setdefault(abi, []).append(package)
    return SetAbis(
        tuple(connection.execute("SELECT abi_tag, skip FROM build_abis ORDER BY 1").fetchall()),
        tuple((abi, tuple(packages)) for abi, packages in preinstalled.items()),
    )


def _document(connection: sqlite3.Connection, package: str) -> Any:
    """A package's document, and the other spellings of its name."""
    with database.snapshot(connection):
        rows = queries.load_project(connection, package)
        if rows is None:
            return None
        document = orjson.loads(project.render(rows, queries.load_abis(connection), ""))
    document["spellings"] = sorted(rows.aliases)
    for release in document["releases"].values():
        for name in UNTOLD_OF_RELEASES:
            release.pop(name, None)
        for file in release["files"].values():
            for name in UNTOLD_OF_FILES:
                file.pop(name, None)
    return document


def _size(memory: sqlite3.Connection) -> int:
    pages, bytes_ = (
        memory.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    return int(pages * bytes_)


def _unreported(there: dict[str, Any], known: set[int]) -> frozenset[str]:
    """The fields that need not agree."""
    null = {key for key in UNTOLD_IF_NULL if there.get(key) is None}
    return UNTOLD | null | (OF_THE_BUILD if there.get("build_id") in known else frozenset())


def _differences(
    path: str, here: Any, there: Any, known: set[int], *, names: bool = False
) -> Iterator[str]:
    """What two parts of documents say differently.

    Args:
        here: of the index.
        there: of the master.
        known: the numbers of the builds that the index has of the package.
        names: whether their keys are names, and not our fields.
    """
    if isinstance(here, dict) and isinstance(there, dict):
        unreported = frozenset() if names else _unreported(there, known)
        for key in dict.fromkeys((*here, *there)):
            if key in unreported:
                continue
            inner = f"{path} {key}" if path else key
            if key not in there:
                yield f"{inner}: the master does not have it"
            elif key not in here:
                yield f"{inner}: the index does not have it"
            else:
                inside = not names and key in _MAPS
                yield from _differences(inner, here[key], there[key], known, names=inside)
    elif here != there:
        yield f"{path}: {here!r} in the index, {there!r} at the master"
