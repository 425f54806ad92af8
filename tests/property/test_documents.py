"""Published bit by bit, the output tree is that of a rebuild published from scratch."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base import database, directories
from indexer.documents import counters, project, writer
from indexer.documents.kind import with_copy
from indexer.documents.publish import Publisher
from indexer.documents.writer import Writer, Written
from indexer.index import pending, queries

from . import strategies as s
from .model import SITE, Model
from .profiles import examples
from .test_index import Step, nows
from .test_model import expected_tree, unzipped
from .world import World, microseconds, tree, world

pytestmark = pytest.mark.property

batches = s.batches(*s.KINDS, most=6)


CUTS = ("", "", "", "take", "publish", "publish", "everything", "restart")
"""What is done after a message."""


def check_published(here: World, messages: list[s.Message], now: datetime) -> None:
    """Publish the rest; all is as from scratch, and as the model says."""
    here.publish(now)
    assert here.pending() == []
    found = tree(here.output)
    assert found == here.scratch_tree(now)
    model = Model()
    for message in messages:
        model.apply(message)
    assert unzipped(found) == expected_tree(model, now)
    # Nothing is left to do, and nothing is done.
    assert here.publish(now) == 0
    assert here.publish(now, everything=True) == 0


@pytest.mark.parametrize("kind", s.KINDS)
@examples(4)
@given(
    st.data(),
    st.lists(st.sampled_from(CUTS), min_size=1, max_size=30),
    st.lists(nows, min_size=1, max_size=4),
    st.sampled_from((1, 2, 64)),
    st.sampled_from((1, 64)),
)
def test_a_tree_written_bit_by_bit_is_one_written_at_once(
    kind: str,
    data: st.DataObject,
    cuts: list[str],
    moments: list[datetime],
    chunk: int,
    together: int,
) -> None:
    history = data.draw(s.histories(12, kind))
    waiting: list[s.Message] = []
    with (
        world() as here,
        mock.patch.object(writer.chunks, "__defaults__", (chunk,)),
        mock.patch.object(writer, "_TOGETHER_FROM", together),
    ):
        for message, cut, now in zip(history, cycle(cuts), cycle(moments), strict=False):
            waiting.append(message)
            if cut:
                here.take(waiting)
                waiting.clear()
            if cut == "restart":
                here.restart()
            elif cut in ("publish", "everything"):
                here.publish(now, everything=cut == "everything")
        here.take(waiting)
        check_published(here, history, moments[-1])


few_nows = st.sampled_from([s.NOW + timedelta(days=days) for days in (0, 1, 30)])
overlapping_steps = st.lists(
    st.one_of(
        *[st.tuples(st.just("take"), batches)] * 3,
        *[st.tuples(st.just("write"), st.integers(1, 4))] * 3,
        *[st.tuples(st.just("clear"), st.none())] * 2,
        st.tuples(st.just("counters"), few_nows),
        st.tuples(st.just("counters"), few_nows),
        st.tuples(st.just("window"), few_nows),
        st.tuples(st.just("count done"), st.none()),
        st.tuples(st.just("count done"), st.none()),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=3,
    max_size=16,
)  # fmt: skip


class Overlap:
    """The daemon's writer at its slowest: what it reports is heard of later, or never."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.publisher = Publisher(here.output)
        self.reader = database.open_reader(here.state.index_path)
        self.writer = Writer(self.reader, self.publisher, SITE)
        self.written: list[Written] = []
        self.counted: list[str] = []

    def close(self) -> None:
        self.writer.close()
        self.reader.close()

    def write(self, most: int) -> None:
        found = pending.marked(self.reader, (0, ""), most)
        self.written.append(self.writer.write([name for name, _ in found]))

    def clear(self) -> None:
        with database.transaction(self.here.state.connection):
            for written in self.written:
                pending.clear(
                    self.here.state.connection, [(name, written.serial) for name in written.names]
                )
        self.written.clear()

    def count(self, now: datetime) -> None:
        self.here.move_window(now)
        version, _ = writer.write_periodic(
            counters.Counters(), self.here.state.connection, self.publisher, SITE, 0
        )
        self.counted.append(version)

    def count_done(self) -> None:
        for version in self.counted:
            with database.transaction(self.here.state.connection):
                pending.note_written(self.here.state.connection, "counters", version)
        self.counted.clear()


@examples(12)
@given(overlapping_steps, few_nows)
def test_what_is_touched_while_it_is_written_is_written_again(
    script: list[Step], now: datetime
) -> None:
    sent = [s.START]
    with world() as here:
        slow = Overlap(here)
        try:
            here.take(sent)
            for what, argument in script:
                if what == "take":
                    here.take(argument)
                    sent += argument
                elif what == "restart":
                    slow.close()
                    here.restart()
                    slow = Overlap(here)  # what the old one wrote was never heard of
                elif what == "write":
                    slow.write(argument)
                elif what == "clear":
                    slow.clear()
                elif what == "counters":
                    slow.count(argument)
                elif what == "count done":
                    slow.count_done()
                else:
                    here.move_window(argument)
            slow.clear()
            slow.count_done()
        finally:
            slow.close()
        check_published(here, sent, now)


# Interrupted at any call to the system


class Killed(BaseException):
    """The process ends here."""


SEAMS = ("open", "rename", "fsync", "symlink", "unlink", "mkdir", "rmdir")


class Seams:
    """Ends the process at the n-th call that `publish` makes to change or sync something.

    Args:
        at: which call; none if there are fewer.
        after: the call has been made by then.
    """

    def __init__(self, at: int, after: bool) -> None:
        self.left = at
        self.after = after
        self.dead = False

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left:
                return function(*arguments, **named)
            self.dead = True
            if self.after:
                function(*arguments, **named)
            raise Killed

        return call

    def patched(self) -> ExitStack:
        with ExitStack() as stack:
            for name in SEAMS:
                stack.enter_context(mock.patch.object(os, name, self.wrap(getattr(os, name))))
            whole = self.wrap(directories.sync_file_system)
            stack.enter_context(mock.patch.object(directories, "sync_file_system", whole))
            return stack.pop_all()


class InOneThread:
    """In the place of the writer's threads: a seam is the same call every time."""

    def __init__(self, *arguments: object, **named: object) -> None:
        pass

    def submit(self, job: Callable[..., bool], *arguments: Any) -> Future[bool]:
        done: Future[bool] = Future()
        done.set_result(job(*arguments))
        return done

    def shutdown(self) -> None:
        pass


@examples(7)
@given(
    st.lists(batches, min_size=1, max_size=3),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from((1, 64)),
    nows,
)
def test_killed_at_any_call_to_the_system_it_is_made_good(
    history: list[list[s.Message]], at: int, after: bool, together: int, now: datetime
) -> None:
    sent = [s.START]
    with world() as here:
        here.take(sent)
        for number, messages in enumerate(history, 1):
            here.take(messages)
            sent += messages
            if number < len(history):
                here.publish(s.NOW)
        seams = Seams(at, after)
        with (
            mock.patch.object(writer, "ThreadPoolExecutor", InOneThread),
            mock.patch.object(writer, "_TOGETHER_FROM", together),
        ):
            publisher = Publisher(here.output)
            connection = here.state.connection
            try:
                with seams.patched():
                    writer.publish_pending(
                        connection, here.state.index_path, publisher, SITE, microseconds(s.NOW)
                    )
            except Killed:
                pass
        here.restart()
        check_published(here, sent, now)


def test_a_killed_writer_leaves_no_old_packages_json_gz(tmp_path: Path) -> None:
    """Killed between the two files it would be stale for as long as no counter changes."""
    publisher = Publisher(tmp_path)
    for document in with_copy("packages.json", b'[["foo",0,0]]'):
        publisher.publish(document)
    for at in range(1, 30):
        content = orjson.dumps([["foo", at, at]])
        documents = list(with_copy("packages.json", content))
        seams = Seams(at, after=True)
        try:
            with seams.patched():
                for document in documents:
                    publisher.publish(document)
        except Killed:
            pass
        for document in documents:
            Publisher(tmp_path).publish(document)
        assert gzip.decompress((tmp_path / "packages.json.gz").read_bytes()) == content
        if not seams.dead:
            break
    else:
        pytest.fail("there are more seams than were tried")


# Pure


@pytest.mark.slow
@examples(15)
@given(
    st.lists(s.messages_of("LOGBUILD", "LOGBUILD", "SNAPSHOT", "NEWVER"), min_size=3, max_size=15),
    st.randoms(use_true_random=False),
)
def test_a_document_does_not_depend_on_the_order_of_rows(
    history: list[s.Message], random: Any
) -> None:
    def shuffled(items: Sequence[Any]) -> list[Any]:
        mixed: list[Any] = random.sample(list(items), len(items))
        return mixed

    with world() as here:
        here.take(history)
        abis = queries.load_abis(here.state.connection)
        other_abis = abis._replace(
            fits={
                tags: dict(shuffled(list(fits.items())))
                for tags, fits in shuffled(list(abis.fits.items()))
            }
        )
        for (package,) in here.view("SELECT package FROM packages"):
            rows = queries.load_project(here.state.connection, package)
            assert rows is not None
            other = rows._replace(
                versions=shuffled(rows.versions),
                builds=shuffled(rows.builds),
                dependencies=shuffled(rows.dependencies),
                files=shuffled(rows.files),
                aliases=shuffled(rows.aliases),
            )
            assert project.render(other, other_abis, SITE) == project.render(rows, abis, SITE)


@given(
    st.lists(st.tuples(s.packages, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))),
    st.lists(st.integers(0, 3)),
)
def test_counters_do_not_depend_on_how_they_are_read(
    counts: list[tuple[str, int, int]], sizes: list[int]
) -> None:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(counts[start : start + size])
        start += size
    pieces.append(counts[start:])
    assert json.loads(b"".join(counters.render(pieces))) == [list(row) for row in counts]
    assert b"".join(counters.render(pieces)) == b"".join(counters.render([counts]))


def test_two_names_of_one_link_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    """A package and its alias that are written in one chunk both see to the alias's link."""
    release: dict[str, Any] = {"name": "Foo", "description": "", "aliases": [], "releases": {}}
    snapshot = {"msg": "SNAPSHOT", "at": s.rfc3339(s.NOW), "data": {"package": "foo", **release}}
    with world() as here:
        here.take([snapshot, snapshot])
        reader: sqlite3.Connection = database.open_reader(here.state.index_path)
        worker = Writer(reader, Publisher(here.output), SITE)
        symlink = os.symlink

        def slow(*arguments: Any, **named: Any) -> None:
            time.sleep(0.002)
            symlink(*arguments, **named)

        try:
            for _ in range(30):
                with mock.patch.object(os, "symlink", slow):
                    assert worker.write(["Foo", "foo"]).failure is None
                (here.output / "project" / "Foo").unlink()
        finally:
            worker.close()
            reader.close()
