"""What a master's answer changed of a package, in plain words.

A SNAPSHOT holds all of a package, so it does not say itself what is new. The messages before it are
applied to an index in memory, which is compared before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..index import apply, queries
from ..messages.entries import Row
from ..messages.types import Message

_BATCH = 1000

_Facts = dict[str, dict[Any, tuple[Any, ...]]]
"""Rows of the index by their kind and key."""


class Past:
    """A package as its messages make it, one after the other.

    Args:
        package: canonical name.
        complete: whether the first message that is taken is the first of the package.
    """

    def __init__(self, package: str, *, complete: bool) -> None:
        self._package = package
        self._complete = complete
        self._memory = queries.open_in_memory()
        self._applier = apply.Applier(self._memory)
        self._waiting: list[Row] = []

    def take(self, serial: int, message: Message) -> list[str] | None:
        """Take the next message of the package.

        Returns:
            What a SNAPSHOT changed; None if that is not known, and for other messages.
        """
        if message.name != "SNAPSHOT":
            self._waiting.append(Row(serial, message))
            if len(self._waiting) == _BATCH:
                self._apply()
            return None
        self._apply()
        before = self._facts()
        self._waiting.append(Row(serial, message))
        self._apply()
        if not self._complete:
            self._complete = True
            return None
        return list(_changes(before, self._facts()))

    def _apply(self) -> None:
        self._applier.apply(self._waiting)
        self._waiting.clear()

    def _facts(self) -> _Facts:
        found: _Facts = {}
        for kind, sql in _SELECT.items():
            rows = self._memory.execute(sql, (self._package,))
            found[kind] = {row[0]: tuple(row[1:]) for row in rows}
        return found

    def close(self) -> None:
        self._memory.close()


_SELECT = {
    "summary": "SELECT '', description FROM packages WHERE package = ?",
    "spelling": "SELECT name FROM package_names WHERE package = ? AND name <> package"
    " ORDER BY name",
    "version": "SELECT version, released, skip, yanked FROM versions WHERE package = ?"
    " ORDER BY released, version",
    "build": "SELECT build_id, version, abi_tag, status FROM builds WHERE package = ?"
    " AND build_id > 0 ORDER BY build_id",
    "file": "SELECT f.filename, f.filehash, f.filesize, f.location, f.requires_python,"
    " (SELECT group_concat(tool || ' ' || dependency) FROM (SELECT * FROM dependencies d"
    " WHERE d.filename = f.filename ORDER BY tool, dependency))"
    " FROM builds b JOIN files f ON f.build_id = b.build_id WHERE b.package = ?"
    " ORDER BY f.filename",
}


def _changes(before: _Facts, after: _Facts) -> Iterator[str]:
    for kind, there in after.items():
        here = before[kind]
        for key in sorted(here.keys() - there.keys()):
            yield f"{kind} {key} is gone"
        for key, now in there.items():
            was = here.get(key)
            if now != was:
                yield from _WORDS[kind](key, was, now)


def _summary(key: str, was: Any, now: Any) -> Iterator[str]:
    if now[0] or was is not None:
        yield f"its summary is {now[0]!r}"


def _spelling(key: str, was: Any, now: Any) -> Iterator[str]:
    yield f"its name is spelled {key}"


def _version(key: str, was: Any, now: Any) -> Iterator[str]:
    released, skip, yanked = now
    if was is None or was[0] != released:
        yield f"version {key} {'appears' if was is None else 'was'}, released {released}"
    if skip != (was[1] if was else ""):
        yield f"version {key} is " + (f"skipped: {skip}" if skip else "no longer skipped")
    if yanked != (was[2] if was else 0):
        yield f"version {key} is {'yanked' if yanked else 'no longer yanked'}"


def _build(key: int, was: Any, now: Any) -> Iterator[str]:
    version, abi_tag, status = now
    yield f"build {key} of {version} on {abi_tag}: {'success' if status else 'failed'}"


def _file(key: str, was: Any, now: Any) -> Iterator[str]:
    if was is None:
        yield f"file {key} appears"
        return
    if now[:2] != was[:2]:
        yield f"file {key} has another content: {now[1]:,} bytes, sha256 {now[0]}"
    if now[2] != was[2]:
        yield f"file {key} is served from {now[2]}"
    if now[3] != was[3]:
        yield f"file {key} needs Python {now[3] or 'of any version'}"
    if now[4] != was[4]:
        yield f"file {key} has other dependencies"


_WORDS: dict[str, Callable[[Any, Any, Any], Iterator[str]]] = {
    "summary": _summary,
    "spelling": _spelling,
    "version": _version,
    "build": _build,
    "file": _file,
}
