"""The process that reads logs for the daemon: one that it cannot survive is left out."""

from __future__ import annotations

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


def test_a_log_that_ends_the_process_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(
        "CREATE TABLE builds (build_id INTEGER PRIMARY KEY, status, failure_category,"
        " failure_detail)"
    )
    connection.executemany("INSERT INTO builds VALUES (?, 0, NULL, NULL)", [(1,), (2,), (3,)])
    for build_id in (1, 2, 3):
        write_log(tmp_path, build_id, HEADER)
    now = 0.0
    lent: Any = DaemonContext(None, None, connection, lambda: None)  # type: ignore[arg-type]
    reader = ReaderOfLogs(lent, tmp_path, lambda: now)
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
