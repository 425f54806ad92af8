"""Python imports this when it starts, if its directory is in PYTHONPATH: a message kills it.

PIW_TEST_POISON says where: `read`, when its bytes are read, or `append`, when it is packed for the
journal.
"""

from __future__ import annotations

import os
import signal
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
