"""packages.json: the download counters of all packages, for the 30-day window as the index has it.

Source: DESIGN section 5 and https://www.piwheels.org/json.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from ..index import downloads, queries
from .kind import Document, Moment, TreeDocument, with_copy

_ROWS = 20_000


class Counters(TreeDocument):
    """The kind; `packages.json.gz` is beside it."""

    name = "counters"
    path = "packages.json"
    interval = 60.0
    when = "every --counters-interval seconds"

    def version(self, moment: Moment) -> str:
        """The last message that changed a counter, and the first hour of the window."""
        serial = queries.get(moment.connection, "counters_serial", 0)
        return f"{serial} {downloads.window_start(moment.connection)}"

    def documents(self, moment: Moment, since: str | None) -> Iterator[Document]:
        """The one file, and its compressed copy."""
        rows = queries.counts(moment.connection)
        content = b"".join(render(iter(lambda: rows.fetchmany(_ROWS), [])))
        return with_copy(self.path, content)

    def indexed(self, moment: Moment, package: str) -> list[int]:
        """Downloads of the last 30 days, and ever."""
        return list(queries.downloads(moment.connection, package))

    def published(self, content: bytes, package: str) -> list[int] | None:
        """Likewise, as they are published."""
        try:
            rows = orjson.loads(content)
            recent, ever = next((row[1:] for row in rows if row[0] == package), (None, None))
        except (ValueError, TypeError, LookupError):
            return None  # it is not as we write it
        return [recent, ever] if isinstance(recent, int) and isinstance(ever, int) else None


def render(rows: Iterable[list[tuple[str, int, int]]]) -> Iterator[bytes]:
    """The document, piece by piece.

    Args:
        rows: (package, downloads of the last 30 days, downloads ever), sorted by package, in
            as many lists as suits the caller.
    """
    yield b"["
    first = True
    for some in rows:
        if some:
            yield orjson.dumps(some)[1:-1] if first else b"," + orjson.dumps(some)[1:-1]
            first = False
    yield b"]"
