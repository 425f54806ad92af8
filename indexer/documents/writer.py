"""The writer: marked names into documents, and periodic kinds when they are due.

It reads a moment of the index, renders, publishes, and reports up to which serial the documents
were rendered. Whoever writes the index clears the marks.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from ..base import database, names, process, times
from ..base import log as journal_log
from ..base.errors import PublishError, StateError
from ..base.progress import Progress, silent
from ..index import downloads, pending, queries
from ..index import waiting as waiting_builds
from . import registry
from .kind import Document, Moment, Package, PeriodicKind, PeriodicPackageDocument, TreeDocument
from .project import waiting
from .publish import Link, Output, Publisher

CHUNK = 64
"""Names that are written from one moment of the index."""

POOL_CHUNK = 512
"""Names of a chunk when all processors write."""

_TOGETHER_FROM = 32
"""Names from which on one sync for all of them costs less than one for each."""

_THREADS = 4
_PARALLEL_FROM = 1000


class Written(NamedTuple):
    """What became of a chunk of names.

    Attributes:
        serial: up to which the documents were rendered.
        names: whose documents are safe on the disk.
        changed: of how many of them anything had to be written.
        failure: why the others are not; None if all are.
        waiting: how many versions of those packages wait to be built, by ABI; without those of
            which none does.
    """

    serial: int
    names: list[str]
    changed: int
    failure: PublishError | None
    waiting: dict[str, dict[str, int]]


class Writer:
    """Writes what belongs to names: documents, links, or nothing any more.

    Args:
        connection: that reads the index; used by one thread at a time.
        publisher: of the output tree.
        site_url: of the site, without a slash at its end.
    """

    def __init__(self, connection: sqlite3.Connection, publisher: Publisher, site_url: str) -> None:
        self._connection = connection
        self._publisher = publisher
        self._site_url = site_url
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="publish")
        self._every = registry.of_packages()
        self._marked = registry.marked()
        self._linked_roots = registry.linked_roots()
        self._serial = -1
        self._moment = Moment(connection, site_url, 0)

    def write(self, chunk: Sequence[str]) -> Written:
        """Publish what belongs to the names now.

        Raises:
            StateError: if the index cannot be read.
        """
        with self._publisher.package_lock:
            return self._write(chunk)

    def _write(self, chunk: Sequence[str]) -> Written:
        jobs: list[tuple[str, Future[bool]]] = []
        outputs: list[Output] = []
        waits: dict[str, dict[str, int]] = {}
        together = self._publisher.takes_many and len(chunk) >= _TOGETHER_FROM
        try:
            with database.wrap_errors("read the index"), database.snapshot(self._connection):
                serial = queries.applied_serial(self._connection)
                if serial != self._serial:
                    # Every batch may bring a new pair of tags, which the build ABIs depend on.
                    self._moment = Moment(self._connection, self._site_url, 0)
                    self._serial = serial
                for name in chunk:
                    package = self._moment.package(name)
                    output = self._output(name, package)
                    if package and (counts := waiting(package.rows, self._moment.abis)):
                        waits[name] = counts
                    if together:
                        outputs.append(output)
                    else:
                        job = self._threads.submit(self._publisher.publish_name, output)
                        jobs.append((name, job))
        except StateError:
            wait([job for _, job in jobs])  # or they would meet with the next try
            raise
        outcomes: list[tuple[str, bool | PublishError]] = [
            (name, _outcome(job)) for name, job in jobs
        ]
        if outputs:
            outcomes += zip(chunk, self._publisher.publish_names(outputs), strict=True)
        done = []
        changed = 0
        failure = None
        for name, outcome in outcomes:
            if isinstance(outcome, PublishError):
                failure = outcome
            else:
                changed += outcome
                done.append(name)
        try:
            self._publisher.sync()
        except PublishError as error:
            return Written(serial, [], changed, error, {})
        return Written(serial, done, changed, failure, waits)

    def _output(self, name: str, package: Package | None) -> Output:
        """All that belongs to a name in the output tree."""
        if package is not None:
            return Output(
                name,
                [kind.document(package) for kind in self._marked],
                [
                    Link(root, alias, name)
                    for root in self._linked_roots
                    for alias in package.rows.aliases
                ],
            )
        owner = queries.alias_owner(self._connection, name)
        # It may have been a package: its documents go before a link comes. Only packages have a
        # directory of ours, never other spellings.
        former = self._every if names.is_canonical(name) else []
        return Output(
            name,
            [Document(kind.path(name), None) for kind in former],
            [Link(root, name, owner) for root in self._linked_roots],
        )

    def close(self) -> None:
        self._threads.shutdown()


def _outcome(job: Future[bool]) -> bool | PublishError:
    try:
        return job.result()
    except PublishError as error:
        return error


def write_periodic(
    kind: PeriodicKind,
    connection: sqlite3.Connection,
    publisher: Publisher,
    site_url: str,
    now: times.Time,
    *,
    everything: bool = False,
    behind_seconds: float | None = None,
) -> tuple[str, int]:
    """Publish the documents of a kind, as the index has them.

    Args:
        kind: that may be due.
        connection: that reads the index.
        publisher: of the output tree.
        site_url: of the site, without a slash at its end.
        now: for live documents.
        everything: those that cannot have changed since they were written, too.
        behind_seconds: how far the daemon is behind, for live documents; None if none runs.

    Returns:
        The version that is safe on the disk now; and how many documents had to be written.

    Raises:
        PublishError: if one could not be published.
        StateError: if the index cannot be read.
    """
    documents: list[Document] = []
    packages: list[str] = []
    with database.wrap_errors("read the index"), database.snapshot(connection):
        moment = Moment(connection, site_url, now, behind_seconds)
        since = None if everything else pending.written(connection, kind.name)
        version = kind.version(moment)
        if isinstance(kind, TreeDocument):
            documents = list(kind.documents(moment, since))
        elif isinstance(kind, PeriodicPackageDocument):
            packages = list(kind.packages(moment, since))
    # A compressed copy is not a document of its own.
    changed = {
        document.path.removesuffix(".gz") for document in documents if publisher.publish(document)
    }
    count = len(changed)
    if isinstance(kind, PeriodicPackageDocument):
        count += _write_packages(kind, packages, connection, publisher, site_url)
    publisher.sync()
    return version, count


def _write_packages(
    kind: PeriodicPackageDocument,
    packages: Sequence[str],
    connection: sqlite3.Connection,
    publisher: Publisher,
    site_url: str,
) -> int:
    """Publish the documents of packages; how many had to be written."""
    changed = 0
    failure = None
    for some in chunks(packages):
        # A package that is deleted meanwhile is removed after this, or is not written here.
        with publisher.package_lock:
            with database.wrap_errors("read the index"), database.snapshot(connection):
                moment = Moment(connection, site_url, 0)
                documents = [
                    kind.document(Package(moment, name))
                    for name in some
                    if queries.is_package(connection, name)
                ]
            for document in documents:
                try:
                    changed += publisher.publish(document)
                except PublishError as error:
                    failure = error  # a file in the way of one holds up no other
    if failure is not None:
        raise failure
    return changed


def chunks(every: Iterable[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Names in lists of up to `size`."""
    source = iter(every)
    while some := list(islice(source, size)):
        yield some


class _Worker:
    """What a process of the pool works with."""

    writer: Writer


def _start_worker(
    index_path: Path, output_path: Path, site_url: str, parent: int, level: int
) -> None:
    process.die_with_parent(parent)
    journal_log.set_up(level)
    _Worker.writer = Writer(database.open_reader(index_path), Publisher(output_path), site_url)


def _work(chunk: list[str]) -> Written:
    return _Worker.writer.write(chunk)


def write_all(
    index_path: Path,
    publisher: Publisher,
    site_url: str,
    every: Sequence[str],
    done: Callable[[Written], None],
) -> None:
    """Write many names, on all processors.

    Args:
        index_path: of the index; nobody may write it meanwhile but `done`.
        publisher: of the output tree.
        site_url: of the site.
        every: the names.
        done: is called with what became of each chunk.

    Raises:
        PublishError: the first failure, after all others were tried.
    """
    failures = []

    def finish(written: Written) -> None:
        if written.failure is not None:
            failures.append(written.failure)
        done(written)

    processors = len(os.sched_getaffinity(0))
    if len(every) < _PARALLEL_FROM or processors == 1:
        connection = database.open_reader(index_path)
        writer = Writer(connection, publisher, site_url)
        try:
            for some in chunks(every):
                finish(writer.write(some))
        finally:
            writer.close()
            connection.close()
    else:
        with ProcessPoolExecutor(
            processors,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(
                index_path,
                publisher.output_path,
                site_url,
                os.getpid(),
                logging.getLogger().level,
            ),
        ) as pool:
            for written in pool.map(_work, chunks(every, POOL_CHUNK), chunksize=1):
                finish(written)
    if failures:
        raise failures[0]


def publish_pending(
    connection: sqlite3.Connection,
    index_path: Path,
    publisher: Publisher,
    site_url: str,
    now: times.Time,
    *,
    everything: bool = False,
    progress: Progress = silent,
) -> int:
    """Publish all that is marked or due, or everything.

    Args:
        connection: that writes the index.
        index_path: where it is.
        publisher: of the output tree.
        site_url: of the site, without a slash at its end.
        now: the end of the 30-day window.
        everything: every document, not only those that are marked or due.
        progress: is called with how many of how many names are done.

    Returns:
        How many documents had to be written.

    Raises:
        PublishError: if one could not be published; its mark stays.
    """
    every = list(pending.names(connection))
    if everything:
        packages = connection.execute("SELECT package FROM packages").fetchall()
        every = sorted({*every, *(row[0] for row in packages)})
    finished = changed = 0

    def done(written: Written) -> None:
        nonlocal finished, changed
        with database.wrap_errors("clear marks in the index"), database.transaction(connection):
            pending.clear(connection, [(name, written.serial) for name in written.names])
            waiting_builds.note(connection, written.names, written.waiting)
        finished += len(written.names)
        changed += written.changed
        progress(finished, len(every))

    write_all(index_path, publisher, site_url, every, done)
    with database.wrap_errors("write the index"):
        with database.transaction(connection):
            downloads.move_window(connection, times.window_start(now))
        for kind in registry.periodic():
            live = isinstance(kind, TreeDocument) and kind.live
            moment = Moment(connection, site_url, now)
            missing = pending.written(connection, kind.name) is None
            if everything or missing or (not live and kind.due(moment)):
                version, written = write_periodic(
                    kind, connection, publisher, site_url, now, everything=everything
                )
                changed += written
                with database.transaction(connection):
                    pending.note_written(connection, kind.name, version)
    return changed
