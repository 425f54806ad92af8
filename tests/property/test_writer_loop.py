"""The daemon's writer finally writes everything that was touched, even with tiny bounds."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Connection
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base import times
from indexer.daemon import marks, writer_loop
from indexer.daemon import writer as writer_handle
from indexer.daemon.writer import WriterHandle
from indexer.daemon.writer_messages import Options
from indexer.documents import writer

from ..support import DEADLINE
from . import strategies as s
from .model import SITE
from .profiles import examples
from .test_documents import check_published
from .world import world

pytestmark = pytest.mark.property


class Thread:
    """In the place of the writer's process: what it writes with can be made small."""

    returncode = None

    def __init__(self, pipe: Connection) -> None:
        own = Connection(os.dup(pipe.fileno()))  # as a process has it
        self.thread = threading.Thread(target=self.run, args=(own,), daemon=True)
        self.thread.start()

    def run(self, pipe: Connection) -> None:
        with pipe:
            loop = writer_loop.WriterLoop(pipe, pipe.recv())
            try:
                loop.run()
            except (EOFError, OSError):
                pass  # the test has failed before
            finally:
                loop._connection.close()
                loop._periodic_connection.close()
                loop._publisher.close()

    def poll(self) -> int | None:
        return None if self.thread.is_alive() else 0

    def wait(self, timeout: float) -> None:
        self.thread.join(timeout)

    def kill(self) -> None:
        pass


@pytest.mark.slow
@examples(4)
@given(
    st.lists(s.batches(*s.KINDS, most=10), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from((0.0, 0.001, 60.0)),
    st.lists(st.integers(0, 3), min_size=6, max_size=6),
)
def test_a_writer_with_little_room(
    batches: list[list[s.Message]], room: int, chunk: int, settle: float, turns: list[int]
) -> None:
    with (
        world() as here,
        mock.patch.object(marks, "MAX_WAITING", room),
        mock.patch.object(writer_handle, "start_process", Thread),
        mock.patch.object(writer, "CHUNK", chunk),
        # A stop publishes what it can within this time, and this is about all that waits.
        mock.patch.object(writer_loop, "FLUSH_TIMEOUT", DEADLINE),
    ):
        options = Options(here.state.index_path, here.output, SITE, settle, 60.0, {"counters": 0.0})
        handle = WriterHandle(options, here.state.connection)
        try:
            for messages, turn in zip(batches, turns, strict=False):
                here.take(messages)
                handle.wake()
                for _ in range(turn):
                    handle.handle()
        finally:
            handle.stop()
        assert handle.failure is None
        assert here.pending() == []
        assert sorted(here.view("SELECT abi_tag, versions FROM waiting WHERE versions")) == sorted(
            here.view("SELECT abi_tag, count(*) FROM builds_pending GROUP BY 1")
        )
        window = here.view("SELECT value FROM state WHERE key = 'window_start'")[0][0]
        now = times.to_datetime((window + 30 * 86_400) * times.SECOND)
        sent = [message for messages in batches for message in messages]
        check_published(here, sent, now)
