"""Python imports this when it starts, if its directory is in PYTHONPATH: kills it at a seam.

PIW_TEST_SEAM says where: `fsync:3:after` is after the third fsync that a process makes;
PIW_TEST_SEAM_GROUP, if set, that the whole process group goes with it, as in a power cut;
PIW_TEST_SEAM_SIGNAL another signal than SIGKILL, by its number.
PIW_TEST_CLOCK names a file with the nanoseconds by which the clock is wrong, read whenever
somebody asks for the time: months pass when a test says so.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

CALLS = ("fsync", "rename", "symlink", "unlink", "mkdir", "rmdir", "ftruncate")
DATABASES = ("journal", "index")

_seam, _number, _when = os.environ.get("PIW_TEST_SEAM", "none:0:before").split(":")
_left = int(_number)


def _kill() -> None:
    number = int(os.environ.get("PIW_TEST_SEAM_SIGNAL", signal.SIGKILL))
    if os.environ.get("PIW_TEST_SEAM_GROUP"):
        os.killpg(os.getpgrp(), number)
    os.kill(os.getpid(), number)


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*arguments: Any, **named: Any) -> Any:
        global _left
        _left -= 1
        if not _left and _when == "before":
            _kill()
        result = call(*arguments, **named)
        if not _left and _when == "after":
            _kill()
        return result

    return guarded


class _Connection(sqlite3.Connection):
    """Every `COMMIT` is a seam."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        execute = super().execute
        if sql == "COMMIT":
            execute = _guarded(execute)
        cursor: sqlite3.Cursor = execute(sql, *parameters)
        return cursor


if _seam in CALLS:
    setattr(os, _seam, _guarded(getattr(os, _seam)))
elif _seam in DATABASES:
    _connect = sqlite3.connect

    def _connected(path: Any, *arguments: Any, **named: Any) -> sqlite3.Connection:
        if ("index.db" in str(path)) is (_seam == "index"):
            named["factory"] = _Connection
        connection: sqlite3.Connection = _connect(path, *arguments, **named)
        return connection

    sqlite3.connect = _connected  # type: ignore[assignment]
elif _seam == "send":
    import zmq

    zmq.Socket.send_multipart = _guarded(zmq.Socket.send_multipart)  # type: ignore[method-assign]

_clock = os.environ.get("PIW_TEST_CLOCK", "")
if _clock:
    _time_ns = time.time_ns

    def _wrong_time_ns() -> int:
        with open(_clock, "rb") as file:
            return _time_ns() + int(file.read())

    time.time_ns = _wrong_time_ns
