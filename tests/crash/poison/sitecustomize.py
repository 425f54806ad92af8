"""Python imports this when it starts, if its directory is in PYTHONPATH: a message kills it.

PIW_TEST_POISON says where: `read`, when its bytes are read, `append`, when it is packed for the
journal, or `apply`, when the index gets it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import Any

import msgpack

_WHERE = os.environ.get("PIW_TEST_POISON", "")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if _WHERE == "read":
    _unpackb = msgpack.unpackb

    def _poisoned(payload: bytes, **options: Any) -> Any:
        if b"POISON" in payload:
            _kill()
        return _unpackb(payload, **options)

    msgpack.unpackb = _poisoned
elif _WHERE == "append":

    class _Packer(msgpack.Packer):  # type: ignore[misc]
        def pack(self, value: Any) -> bytes:
            if isinstance(value, tuple) and any("POISON" in str(one) for one in value):
                _kill()
            packed: bytes = super().pack(value)
            return packed

    msgpack.Packer = _Packer

elif _WHERE == "apply":
    _connect = sqlite3.connect

    def _holds(parameters: Any) -> bool:
        if isinstance(parameters, str):
            return "POISON" in parameters
        return isinstance(parameters, list | tuple) and any(map(_holds, parameters))

    class _Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if _holds(parameters):
                _kill()
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
            rows = list(rows)
            if _holds(rows):
                _kill()
            return super().executemany(sql, rows)

    def _connected(*arguments: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _connect(*arguments, **{**named, "factory": _Connection})
        return connection

    sqlite3.connect = _connected  # type: ignore[assignment]
