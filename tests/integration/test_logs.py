"""Write-ahead logs that a reader holds: reported meanwhile, and cut off once it has gone."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from indexer.base import database, readers
from indexer.daemon.logs import HELD_DELAY, LogWatch
from indexer.index import queries

pytestmark = pytest.mark.integration

MAX_LOG = 512 * 1024

READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM state").fetchone()
print("reads", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = queries.open_index(tmp_path / "index.db")
    yield connection
    connection.close()


@contextmanager
def another_reads(path: Path) -> Iterator[int]:
    """A shell that was left open, as it were; gives its process."""
    with subprocess.Popen(
        [sys.executable, "-c", READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reads\n"
        yield process.pid
        process.kill()


def grow(connection: sqlite3.Connection, count: int, size: int = 100_000) -> None:
    for number in range(count):
        queries.put(connection, f"key {number}", "x" * size)


def log_size(path: Path) -> int:
    return os.stat(f"{path}-wal").st_size


def test_a_held_log_is_reported_and_cut_off_once_its_reader_has_gone(
    tmp_path: Path, index: sqlite3.Connection
) -> None:
    path = tmp_path / "index.db"
    watch = LogWatch(tmp_path, MAX_LOG)
    with another_reads(path) as pid:
        grow(index, 10)
        assert watch.look(index, path, 0.0) is None, "every query holds it for a moment"
        before = log_size(path)
        grow(index, 20)
        held = watch.look(index, path, HELD_DELAY)
        assert held is not None
        assert (held.name, held.held_seconds) == ("index.db", HELD_DELAY)
        assert held.bytes == log_size(path) > MAX_LOG
        assert held.growth == round((held.bytes - before) / HELD_DELAY, 1) > 0
        [who] = readers.of(path)
        assert who.startswith(f"{sys.executable} -c")
        assert who.endswith(f"(pid {pid})")
        assert readers.of(path, without=os.getpid()) == [], "a child of the daemon"
        assert readers.of(path, without=pid) == []
    assert watch.look(index, path, 100.0) is None
    assert log_size(path) == 0
    assert readers.of(path) == []


def test_a_log_of_the_usual_size_is_left_alone(tmp_path: Path, index: sqlite3.Connection) -> None:
    path = tmp_path / "index.db"
    grow(index, 1)
    size = log_size(path)
    assert 0 < size < MAX_LOG
    assert LogWatch(tmp_path, MAX_LOG).look(index, path, 0.0) is None
    assert log_size(path) == size


def test_a_log_that_became_large_gets_its_usual_size_by_writing(
    tmp_path: Path, index: sqlite3.Connection
) -> None:
    """Also where nobody watches it: in the spool of a publisher, and under a command."""
    path = tmp_path / "index.db"
    with another_reads(path):
        grow(index, 30, 1_000_000)
        assert log_size(path) > database.LOG_PAGES * 4096 * 1.5
    grow(index, 3, 10)
    assert log_size(path) <= database.LOG_PAGES * 4096


def test_who_reads_nothing_is_not_named(tmp_path: Path) -> None:
    assert readers.of(tmp_path / "index.db") == []
