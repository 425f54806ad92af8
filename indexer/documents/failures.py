"""failures.json: why builds fail, and what would help most.

Source: docs/documents.md
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

import orjson

from ..index import downloads, queries
from .kind import Document, Moment, TreeDocument, with_copy
from .project import version_order

MAX_REASONS = 10_000
MAX_EXAMPLES = 5

_FAILED_PACKAGES = "SELECT package FROM builds WHERE failure_category IS NOT NULL"

_VERSIONS = f"""
    SELECT package, version FROM versions WHERE package IN ({_FAILED_PACKAGES}) ORDER BY package
"""

_REASONS = """
    SELECT s.abi_tag, b.failure_category, b.failure_detail
    FROM build_status s JOIN builds b ON b.build_id = s.build_id
    WHERE s.package = ? AND s.version = ? AND s.status = 'fail' AND b.failure_category IS NOT NULL
"""


class Failures(TreeDocument):
    """The kind; `failures.json.gz` is beside it."""

    name = "failures"
    path = "failures.json"
    interval = 3600.0
    when = "every hour"

    def version(self, moment: Moment) -> str:
        """The last message, and the first hour of the window of downloads."""
        serial = queries.applied_serial(moment.connection)
        return f"{serial} {downloads.window_start(moment.connection)}"

    def documents(self, moment: Moment, since: str | None) -> Iterator[Document]:
        """The one file, and its compressed copy."""
        blocked = sorted(_blocked(moment.connection).items(), key=itemgetter(0))
        reasons = [_reason(moment, *reason, packages) for reason, packages in blocked]
        reasons.sort(key=itemgetter("downloads_recent", "packages"), reverse=True)
        return with_copy(self.path, orjson.dumps({"reasons": reasons[:MAX_REASONS]}))


_Blocked = dict[tuple[str, str], dict[str, set[str]]]
"""Of each category and detail: the packages that it blocks, and on which ABIs."""


def _blocked(connection: sqlite3.Connection) -> _Blocked:
    """What keeps the newest version of each package from being built."""
    found: _Blocked = {}
    for package, rows in groupby(connection.execute(_VERSIONS), itemgetter(0)):
        newest = max((version for _, version in rows), key=version_order)
        for abi_tag, category, detail in connection.execute(_REASONS, (package, newest)):
            found.setdefault((category, detail), {}).setdefault(package, set()).add(abi_tag)
    return found


def _reason(
    moment: Moment, category: str, detail: str, blocked: dict[str, set[str]]
) -> dict[str, object]:
    recent = {name: queries.downloads(moment.connection, name)[0] for name in blocked}
    abis = Counter(abi_tag for abi_tags in blocked.values() for abi_tag in abi_tags)
    return {
        "category": category,
        "detail": detail,
        "packages": len(blocked),
        "downloads_recent": sum(recent.values()),
        "abis": dict(sorted(abis.items())),
        "examples": sorted(recent, key=lambda name: (-recent[name], name))[:MAX_EXAMPLES],
    }
