"""What a kind of document is: where it lies, what marks it, and how rows become its bytes.

A new kind is a module beside this one and an entry in `registry.KINDS`. The writer, `check`,
`explain`, `rebuild`, the removal of a package and the metrics know kinds by this interface only.
"""

from __future__ import annotations

import gzip
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import orjson

from ..base import times
from ..index import pending, queries

_GZIP_LEVEL = 6


class Document(NamedTuple):
    """A file of the output tree.

    Attributes:
        path: below the output tree.
        content: its bytes; None: it must not be there.
    """

    path: str
    content: bytes | None


def with_copy(path: str, content: bytes) -> Iterator[Document]:
    """A document, and a compressed copy beside it; the same bytes give the same copy."""
    yield Document(path, content)
    yield Document(f"{path}.gz", gzip.compress(content, _GZIP_LEVEL, mtime=0))


class Moment:
    """The index at one moment: use it inside a `database.snapshot`. What it reads, it reads once.

    Args:
        connection: reads the index.
        site_url: of the site, without a slash at its end.
        now: only *live* documents may use it.
        behind_seconds: how far the daemon is behind, likewise; None if no daemon runs.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        site_url: str,
        now: times.Time,
        behind_seconds: float | None = None,
    ) -> None:
        self.connection = connection
        self.site_url = site_url
        self.now = now
        self.behind_seconds = behind_seconds

    @cached_property
    def serial(self) -> int:
        """Of the last message that is in the index."""
        return queries.applied_serial(self.connection)

    @cached_property
    def abis(self) -> queries.Abis:
        """The build ABIs."""
        return queries.load_abis(self.connection)

    def package(self, name: str) -> Package | None:
        """A package with its rows; None if there is no package of that name."""
        rows = queries.load_project(self.connection, name)
        return None if rows is None else Package(self, name, rows)


class Package:
    """A package at a moment of the index.

    Args:
        moment: of the index.
        name: of the package, which exists.
        rows: if they have been read.
    """

    def __init__(self, moment: Moment, name: str, rows: queries.Project | None = None) -> None:
        self.moment = moment
        self.name = name
        if rows is not None:
            self.rows = rows

    @cached_property
    def rows(self) -> queries.Project:
        """What most documents are made of: read once for all of them, if any needs it."""
        rows = queries.load_project(self.moment.connection, self.name)
        assert rows is not None
        return rows


class Kind(ABC):
    """A kind of document; `name` is its name in the index, in metrics and in `explain --json`."""

    name: ClassVar[str]


class PackageDocument(Kind):
    """A document of each package, `<root>/<package>/<file>`. A mark of the package marks it.

    Attributes:
        root: the directory in the output tree that has a directory for each package.
        file: the path of the document in that directory.
        linked: whether the other spellings of a package's name are links in `root`.
    """

    root: ClassVar[str]
    file: ClassVar[str]
    linked: ClassVar[bool] = False

    def path(self, package: str) -> str:
        """Where the document of a package is."""
        return f"{self.root}/{package}/{self.file}"

    @abstractmethod
    def render(self, package: Package) -> bytes | None:
        """The document; None if this package has none."""

    def document(self, package: Package) -> Document:
        """Likewise, with its path."""
        return Document(self.path(package.name), self.render(package))


class PeriodicKind(Kind):
    """A kind that no mark of a package marks. It is written again when its version changes.

    Attributes:
        interval: seconds between two times that it is written, at least.
    """

    interval: ClassVar[float]

    @abstractmethod
    def version(self, moment: Moment) -> str:
        """What its documents are made of. While this is the same, so are they."""

    def due(self, moment: Moment) -> bool:
        """Whether its version has changed since it was written."""
        return pending.written(moment.connection, self.name) != self.version(moment)


class TreeDocument(PeriodicKind):
    """One or more files of the output tree that speak of more than one package.

    Attributes:
        path: of the first of them.
        when: it is written, in words.
        live: whether they say how things are when they are written, so that nobody can make the
            same bytes again. Their version is the time; `check` looks at their form only. A
            daemon writes them again and again, other commands only if they are missing.
    """

    path: ClassVar[str]
    when: ClassVar[str]
    live: ClassVar[bool] = False

    @abstractmethod
    def documents(self, moment: Moment, since: str | None) -> Iterator[Document]:
        """Its files.

        Args:
            moment: of the index.
            since: the version that was written last: files that are the same as then may be left
                out. None: all of them.
        """

    def fault(self, content: bytes) -> str:
        """What is wrong with the form of a live document; empty if nothing is."""
        try:
            orjson.loads(content)
        except orjson.JSONDecodeError as error:
            return f"is not JSON: {error}"
        return ""

    def indexed(self, moment: Moment, package: str) -> Any:
        """What it should say of a package, for `explain`; None if it speaks of no package."""
        return None

    def published(self, content: bytes, package: str) -> Any:
        """What its first file says of a package; None: nothing, or nothing that can be read."""
        return None


class PeriodicPackageDocument(PackageDocument, PeriodicKind):
    """A document of each package that is written from time to time; it goes with its package."""

    @abstractmethod
    def packages(self, moment: Moment, since: str | None) -> Iterable[str]:
        """The packages whose documents may have changed since a version; None: all packages."""
