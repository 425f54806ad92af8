"""The writer: pending names into documents, in this process or in several.

It reads a moment of the index, renders, publishes, and says up to which serial; whoever owns the
index clears the marks.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from ..base import database, names, process
from ..base.errors import PublishError, StateError
from ..index import downloads, pending, queries
from . import render
from .publish import Document, Publisher

CHUNK = 64
"""Names that are written from one moment of the index."""

MANY = 512
"""Names of a chunk when nearly all are written."""

_TOGETHER_FROM = 32
"""Documents from which on one sync for all of them costs less than one for each."""

_THREADS = 4
_PARALLEL_FROM = 1000
_ROWS = 20_000


class Written(NamedTuple):
    """What became of a chunk of names.

    Attributes:
        serial: up to which the documents were rendered.
        names: whose documents are safe on the disk.
        changed: how many of them had to be written.
        failure: why the others are not; None if all are.
    """

    serial: int
    names: list[str]
    changed: int
    failure: PublishError | None


class Writer:
    """Writes documents from an index.

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
        self._abis_serial = -1
        self._abis = queries.Abis((), {}, {})

    def write(self, chunk: Sequence[str]) -> Written:
        """Publish what the names stand for now: documents, links, or nothing any more."""
        jobs: list[tuple[str, Future[bool]]] = []
        documents: list[Document] = []
        together = self._publisher.takes_many and len(chunk) >= _TOGETHER_FROM
        try:
            with database.wrap_errors("read the index"), database.snapshot(self._connection):
                serial = queries.applied_serial(self._connection)
                abis = self._current_abis(serial)
                for name in chunk:
                    document = self._document(name, abis)
                    if document is None:
                        jobs.append((name, self._threads.submit(self._job(name))))
                    elif together:
                        documents.append(document)
                    else:
                        job = self._threads.submit(self._publisher.project, *document)
                        jobs.append((name, job))
        except StateError:
            wait([job for _, job in jobs])  # or they would meet with the next try
            raise
        done = []
        changed = 0
        failure = None
        for name, future in jobs:
            try:
                changed += future.result()
                done.append(name)
            except PublishError as error:
                failure = error
        if documents:
            for document, outcome in zip(
                documents, self._publisher.projects(documents), strict=True
            ):
                if isinstance(outcome, PublishError):
                    failure = outcome
                else:
                    changed += outcome
                    done.append(document.package)
        try:
            self._publisher.sync()
        except PublishError as error:
            return Written(serial, [], changed, error)
        return Written(serial, done, changed, failure)

    def _current_abis(self, serial: int) -> queries.Abis:
        # Every batch may bring a new pair of tags; within one moment they are the same.
        if serial != self._abis_serial:
            self._abis = queries.load_abis(self._connection)
            self._abis_serial = serial
        return self._abis

    def _document(self, name: str, abis: queries.Abis) -> Document | None:
        """The document of a package; None if there is no package of that name."""
        rows = queries.load_project(self._connection, name)
        if rows is None:
            return None
        return Document(name, render.project(rows, abis, self._site_url), rows.aliases)

    def _job(self, name: str) -> Callable[[], bool]:
        """What has to be done about a name that is not a package's own."""
        publisher = self._publisher
        owner = queries.alias_owner(self._connection, name)
        if owner is None:
            return lambda: publisher.remove(name)
        package = owner
        if names.is_canonical(name):
            # It may have been a package: its document goes before the link comes.
            return lambda: publisher.give_way(name) | publisher.link(name, package)
        return lambda: publisher.link(name, package)

    def close(self) -> None:
        """End its threads."""
        self._threads.shutdown()


def write_counters(connection: sqlite3.Connection, publisher: Publisher) -> tuple[int, int, bool]:
    """Publish packages.json from a moment of the index, for the window as it stands there.

    Returns:
        The counters_serial and window_start it was written for; whether it changed.

    Raises:
        PublishError: if it is not safe on the disk.
    """
    with database.wrap_errors("read the counters"), database.snapshot(connection):
        serial = int(queries.get(connection, "counters_serial", 0))
        start = downloads.window_start(connection)
        rows = queries.counts(connection)
        document = b"".join(render.packages(iter(lambda: rows.fetchmany(_ROWS), [])))
    return serial, start, publisher.packages(document)


def counters_due(connection: sqlite3.Connection) -> bool:
    """True if the counters changed since packages.json was written."""
    state = dict(connection.execute("SELECT key, value FROM state").fetchall())
    changed = state.get("counters_serial", 0) != state.get("counters_written", -1)
    return changed or state.get("window_start") != state.get("window_written")


def counters_done(connection: sqlite3.Connection, serial: int, start: int) -> None:
    """Note for what packages.json was written; in a transaction of the index's writer."""
    queries.put(connection, "counters_written", serial)
    queries.put(connection, "window_written", start)


def chunks(every: Iterable[str], size: int = CHUNK) -> Iterator[list[str]]:
    """Names in lists of up to `size`."""
    source = iter(every)
    while some := list(islice(source, size)):
        yield some


class _Worker:
    """What a process of the pool works with."""

    writer: Writer


def _start_worker(index_path: Path, output_path: Path, site_url: str, parent: int) -> None:
    process.die_with_parent(parent)
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
        every: what to write, by name.
        done: is told of every chunk.

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
            initargs=(index_path, publisher.output_path, site_url, os.getpid()),
        ) as pool:
            for written in pool.map(_work, chunks(every, MANY), chunksize=1):
                finish(written)
    if failures:
        raise failures[0]


def publish_pending(
    connection: sqlite3.Connection,
    index_path: Path,
    publisher: Publisher,
    site_url: str,
    window_start: int,
    *,
    everything: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Publish all that is pending (or everything), and the counters.

    Args:
        connection: that writes the index.
        index_path: where it is.
        publisher: of the output tree.
        site_url: of the site.
        window_start: the first hour of the 30-day window, seconds since 1970.
        everything: every package, not only the marked ones.
        progress: is told how many of how many names are done.

    Returns:
        How many documents had to be written.

    Raises:
        PublishError: if one could not be; its mark stays.
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
        finished += len(written.names)
        changed += written.changed
        progress(finished, len(every))

    write_all(index_path, publisher, site_url, every, done)
    with database.wrap_errors("move the window of the counters"):
        with database.transaction(connection):
            downloads.move_window(connection, window_start)
        if everything or counters_due(connection):
            serial, start, written = write_counters(connection, publisher)
            changed += written
            with database.transaction(connection):
                counters_done(connection, serial, start)
    return changed
