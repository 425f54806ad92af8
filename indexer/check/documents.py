"""The documents against the index: every kind that there is, and what belongs to no package.

What waits to be written, or changes meanwhile, is not a difference while a daemon may run.
"""

from __future__ import annotations

import bisect
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ..base import clock, database, names
from ..documents import registry, writer
from ..documents.kind import Document, Moment, Package, PackageDocument, PeriodicKind, TreeDocument
from ..documents.publish import Publisher, in_the_way, too_long
from ..index import pending, queries
from . import differences
from .differences import Difference, Part, Sort
from .resume import Run, StepProgress

_CHUNK = 256
"""Packages that are compared in one snapshot."""


class Documents:
    """Compares an output tree with an index.

    Args:
        publisher: of the output tree; nothing is written.
        site_url: of the site, without a slash at its end.
        alone: whether no other process can write the index or the documents.
    """

    def __init__(
        self, state_dir: Path, publisher: Publisher, site_url: str, *, alone: bool = False
    ) -> None:
        self._path = state_dir / queries.FILE
        self._publisher = publisher
        self._site_url = site_url
        self._alone = alone

    def every(self, run: Run, progress: StepProgress) -> Iterator[Difference]:
        """All that differs; continues after the packages that this check has compared."""
        with closing(queries.open_reader(self._path)) as connection:
            every = [
                row[0] for row in connection.execute("SELECT package FROM packages ORDER BY 1")
            ]
            done = bisect.bisect_right(every, run.documents) if run.documents else 0
            for some in writer.chunks(every[done:], _CHUNK):
                yield from self._of_packages(connection, some)
                run.documents = some[-1]
                run.save()
                done += len(some)
                progress("documents", done, len(every))
            yield from self._strays(connection)
            for kind in registry.of_trees():
                yield from self._of_tree(connection, kind)

    def remaining(self, repaired: Sequence[Difference]) -> Iterator[Difference]:
        """What still differs of what should have been repaired."""
        some = sorted({difference.package for difference in repaired if difference.package})
        kinds = {difference.document for difference in repaired}
        with closing(queries.open_reader(self._path)) as connection:
            yield from self._of_packages(connection, some)
            if any(difference.sort is Sort.STRAY for difference in repaired):
                yield from (found for found in self._strays(connection) if found.package in some)
            for kind in registry.of_trees():
                if kind.name in kinds:
                    yield from self._of_tree(connection, kind)

    def _moment(self, connection: sqlite3.Connection) -> Moment:
        return Moment(connection, self._site_url, clock.now())

    def _waits(self, kind: PackageDocument | TreeDocument, moment: Moment) -> bool:
        """Whether a daemon will write the documents of a kind again."""
        return not self._alone and isinstance(kind, PeriodicKind) and kind.due(moment)

    # Packages

    def _of_packages(
        self, connection: sqlite3.Connection, some: Sequence[str]
    ) -> Iterator[Difference]:
        """The documents and the links of packages."""
        with database.snapshot(connection):
            moment = self._moment(connection)
            kinds = [kind for kind in registry.of_packages() if not self._waits(kind, moment)]
            waiting = set() if self._alone else pending.among(connection, some)
            for name in some:
                package = None if name in waiting else moment.package(name)
                if package is not None:
                    for kind in kinds:
                        yield from self._of_package(kind, package)
                    yield from self._links(package)

    def _of_package(self, kind: PackageDocument, package: Package) -> Iterator[Difference]:
        name = package.name
        document = kind.document(package)
        found = self._compare(document)

        def changed(moment: Moment) -> bool:
            package = moment.package(name)
            if package is None or pending.among(moment.connection, [name]):
                return True
            return self._waits(kind, moment) or kind.document(package) != document

        if found is not None and not self._has_other_plans(changed):
            yield Difference(
                Part.DOCUMENTS,
                f"{name}: {found.what}",
                found.sort,
                package=name,
                document=kind.name,
                path=document.path,
                fault=found.fault,
            )

    def _links(self, package: Package) -> Iterator[Difference]:
        name = package.name
        for root in registry.linked_roots():
            for alias in package.rows.aliases:
                target = self._publisher.links_to(root, alias)
                if target == name or too_long(alias):
                    continue
                what, fault = f"is a link to {target}" if target else "is missing", ""
                if target is None:
                    path = self._publisher.path(f"{root}/{alias}")
                    what, fault = "is not a link of ours", f"{in_the_way(path)}: move that away"
                yield Difference(
                    Part.DOCUMENTS,
                    f"{name}: its alias {alias} {what}, should be a link to it",
                    Sort.LINK,
                    package=name,
                    fault=fault,
                )

    # What belongs to no package

    def _strays(self, connection: sqlite3.Connection) -> Iterator[Difference]:
        """What looks like ours in the output tree and belongs to no package."""
        for root in registry.roots():
            kinds = [kind for kind in registry.of_packages() if kind.root == root]
            linked = root in registry.linked_roots()
            with os.scandir(self._publisher.path(f"{root}/")) as entries:
                for entry in entries:
                    name = entry.name
                    if names.unsafe(name, names.MAX_NAME):
                        continue
                    if entry.is_symlink():
                        what = _stray_link(connection, name, entry.path) if linked else ""
                    else:
                        what = self._stray_documents(connection, name, kinds)
                    if what and (self._alone or not pending.among(connection, [name])):
                        yield Difference(
                            Part.DOCUMENTS,
                            what,
                            Sort.STRAY,
                            package=name,
                            fault="left behind, or made by others",
                        )

    def _stray_documents(
        self, connection: sqlite3.Connection, name: str, kinds: Sequence[PackageDocument]
    ) -> str:
        if not any(os.path.lexists(self._publisher.path(kind.path(name))) for kind in kinds):
            return ""
        if queries.is_package(connection, name):
            return ""  # compared already
        return f"{name} has a document, and is not a package"

    # Trees

    def _of_tree(self, connection: sqlite3.Connection, kind: TreeDocument) -> Iterator[Difference]:
        """The files of a kind that speaks of more than one package."""
        with database.snapshot(connection):
            moment = self._moment(connection)
            if not kind.live and self._waits(kind, moment):
                return
            version = kind.version(moment)
            documents = list(kind.documents(moment, None))
        for document in documents:
            found = self._form(kind, document) if kind.live else self._compare(document)
            if found is None:
                continue
            if not kind.live and self._has_other_plans(
                lambda moment: kind.version(moment) != version
            ):
                return
            yield Difference(
                Part.DOCUMENTS,
                found.what,
                found.sort,
                document=kind.name,
                path=document.path,
                fault=found.fault,
            )

    def _has_other_plans(self, changed: Callable[[Moment], bool]) -> bool:
        """Whether the index has changed meanwhile, so that a daemon writes something else.

        Args:
            changed: looks at the present moment of the index.
        """
        if self._alone:
            return False
        with (
            closing(queries.open_reader(self._path)) as connection,
            database.snapshot(connection),
        ):
            return changed(self._moment(connection))

    def _compare(self, document: Document) -> differences.Finding | None:
        return differences.document(self._publisher.path(document.path), document.content)

    def _form(self, kind: TreeDocument, file: Document) -> differences.Finding | None:
        path = self._publisher.path(file.path)
        if file.path.endswith(".gz") or not os.path.lexists(path):
            return None  # it is written while a daemon runs
        return differences.form(path, kind.fault)


def _stray_link(connection: sqlite3.Connection, name: str, path: str) -> str:
    target = os.readlink(path)
    if not names.is_canonical(target):
        return ""  # not one of ours
    if queries.alias_owner(connection, name) and not queries.is_package(connection, name):
        return ""  # compared already, with its package
    return f"{name} is a link to {target}, and no alias of it"


def mark_to_write(connection: sqlite3.Connection, wrong: Sequence[Difference]) -> None:
    """Mark what differs, so that the writer writes it."""
    periodic = {kind.name for kind in registry.periodic()}
    with database.transaction(connection):
        serial = queries.applied_serial(connection)
        for difference in wrong:
            # Also where only the mode is wrong: a file that is not ours alone is removed for it.
            if difference.document in periodic:
                pending.forget_written(connection, difference.document)
            else:
                pending.mark(connection, {difference.package: serial})
