"""The process that reads logs for the daemon: one that it cannot survive is left out."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from indexer.daemon.source import DaemonContext
from indexer.piwheels.queues import reader_of_logs
from indexer.piwheels.queues.reader_of_logs import ReaderOfLogs

from ..acceptance.test_classify import HEADER, write_log
from ..support import eventually

pytestmark = pytest.mark.integration


def builds(*numbers: int) -> sqlite3.Connection:
    """An index with failed builds whose reasons are not known."""
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE builds (build_id INTEGER PRIMARY KEY, status, failure_category,"
        " failure_detail)"
    )
    connection.executemany(
        "INSERT INTO builds VALUES (?, 0, NULL, NULL)", [(number,) for number in numbers]
    )
    return connection


def lent(connection: sqlite3.Connection) -> DaemonContext:
    return DaemonContext(None, None, connection, lambda: None)  # type: ignore[arg-type]


def test_a_log_that_ends_the_process_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for build_id in (1, 2, 3):
        write_log(tmp_path, build_id, HEADER)
    now = 0.0
    reader = ReaderOfLogs(lent(builds(1, 2, 3)), tmp_path, lambda: now)
    found: list[Any] = []

    def received() -> bool:
        found.extend(reader.receive(100, 0))
        return reader.problem is not None or len(found) == 2

    try:
        monkeypatch.setattr(reader_of_logs, "MODULE", "indexer.nothing")
        reader.tick()
        eventually(received)
        assert "with the log of build 1" in str(reader.problem)
        monkeypatch.undo()
        reader.tick()
        assert reader.due_in() > 1  # it is not started again at once
        now = 100.0
        reader.tick()
        eventually(lambda: received() and len(found) == 2)
        assert [one.message.data.build_id for one in found] == [2, 3]
        assert reader.problem is None
    finally:
        reader.close()


def test_a_directory_that_is_gone_is_reported_until_it_is_back(tmp_path: Path) -> None:
    """Whether it is missing, or another directory, such as what a file system is mounted on."""
    logs, away = tmp_path / "logs", tmp_path / "away"
    now = 0.0
    reader = ReaderOfLogs(lent(builds(1)), logs, lambda: now)

    def answered() -> bool:
        found.extend(reader.receive(100, 0))
        return reader.due_in() > 1

    def after_a_minute() -> str:
        nonlocal now
        now += reader_of_logs.RECENT_INTERVAL
        reader.tick()
        eventually(answered)
        return str(reader.problem or "")

    found: list[Any] = []
    try:
        assert f"cannot be read in {logs}: No such file or directory" in after_a_minute()
        (logs / "lost+found").mkdir(parents=True)
        assert f"cannot be read in {logs}: it has no logs" in after_a_minute()
        write_log(away, 2, HEADER)
        shutil.rmtree(logs)
        away.rename(logs)
        assert after_a_minute() == ""
        assert not found
        write_log(logs, 1, HEADER)
        assert after_a_minute() == ""
        assert [one.message.data.build_id for one in found] == [1]
    finally:
        reader.close()


def test_numbers_that_no_build_has_take_no_time(tmp_path: Path) -> None:
    write_log(tmp_path, 1, HEADER)
    reader = ReaderOfLogs(lent(builds(1, 10**12)), tmp_path, lambda: 0.0)
    found: list[Any] = []

    def answered() -> bool:
        found.extend(reader.receive(100, 0))
        return reader.due_in() > 1

    try:
        for _ in range(4):
            reader.tick()
            eventually(answered)
        assert [one.message.data.build_id for one in found] == [1]
    finally:
        reader.close()


def test_a_new_master_has_no_logs_and_nothing_is_wrong(tmp_path: Path) -> None:
    reader = ReaderOfLogs(lent(builds()), tmp_path, lambda: 0.0)
    try:
        reader.tick()
        eventually(lambda: reader.receive(100, 0) == [] and reader.due_in() > 1)
        assert reader.problem is None
    finally:
        reader.close()


def test_no_build_has_the_number_0(tmp_path: Path) -> None:
    """A log in its place gave a message every minute that nobody may send."""
    write_log(tmp_path, 0, HEADER)
    reader = ReaderOfLogs(lent(builds()), tmp_path, lambda: 0.0)
    found: list[Any] = []

    def answered() -> bool:
        found.extend(reader.receive(100, 0))
        return reader.due_in() > 1

    try:
        reader.tick()
        eventually(answered)
        assert not found
    finally:
        reader.close()


def test_a_file_system_that_hangs_is_reported(tmp_path: Path) -> None:
    now = 0.0
    reader = ReaderOfLogs(lent(builds(1)), tmp_path, lambda: now)
    try:
        reader.tick()
        assert reader.problem is None
        now = reader_of_logs.SILENCE_DELAY + 1
        reader.tick()
        assert "the log of build 1 has not been read for 300 s" in str(reader.problem)
    finally:
        reader.close()
