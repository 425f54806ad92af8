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

UNTOLD_IF_NULL = frozenset({"build_id", "log_url"})
"""What a master does not always say."""

OF_THE_BUILD = frozenset({"build_id", "log_url", "status"})
"""What depends on which build is chosen. A master chooses any of several equal builds, and compares
ABIs as text: if the index has its build, the index knows the outcome better."""

_MAX_SERIALS = 200


class Comparer:
    """Compares packages with an index, by means of a small index in memory.

    Args:
        connection: reads the index.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
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
        """What the index has differently of a package, in words; empty if nothing.

        Args:
            snapshot: a SNAPSHOT.
        """
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
        for version, abi in snapshots.untold(snapshot.data):
            release = here["releases"].get(version)
            if release is not None and abi in release["abis"]:
                there["releases"][version]["abis"][abi] = release["abis"][abi]
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
    return document


def _differences(path: str, here: Any, there: Any, known: set[int]) -> Iterator[str]:
    """Args: `known`, the numbers of the builds that the index has of the package."""
    if isinstance(here, dict) and isinstance(there, dict):
        left_out = UNTOLD | OF_THE_BUILD if there.get("build_id") in known else UNTOLD
        for key in dict.fromkeys((*here, *there)):
            if key in left_out or (key in UNTOLD_IF_NULL and there.get(key) is None):
                continue
            inner = f"{path} {key}" if path else key
            if key not in there:
                yield f"{inner}: the master does not have it"
            elif key not in here:
                yield f"{inner}: the index does not have it"
            else:
                yield from _differences(inner, here[key], there[key], known)
    elif here != there:
        yield f"{path}: {here!r} in the index, {there!r} at the master"
