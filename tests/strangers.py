"""Another user of the machine: a process that takes an address, and does what a test wants."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

STRANGER = 4343
"""The number of a user who has no rights here."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@contextmanager
def taken(changes: str, replay: str = "", pull: str = "") -> Iterator[Path]:
    """Addresses that a stranger has bound, who publishes a feed `x`, and takes what is pushed.

    Yields:
        A file with what was pushed to the stranger.
    """
    directory = Path((changes or pull).removeprefix("ipc://")).parent
    heard = directory / "heard"
    heard.touch()
    heard.chmod(0o666)
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            _be_a_stranger(changes, replay, pull, heard, tell)
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x", "the stranger could not bind"
        yield heard
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for address in filter(None, (changes, replay, pull)):
            Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def _be_a_stranger(changes: str, replay: str, pull: str, heard: Path, tell: int) -> None:
    os.closerange(3, tell)  # a connection that it holds, too, does not end
    os.closerange(tell + 1, 4096)
    os.umask(0)
    os.setgroups([])
    os.setgid(STRANGER)
    os.setuid(STRANGER)
    context: zmq.Context[Any] = zmq.Context()
    sockets = {}
    for kind, address in ((zmq.PUB, changes), (zmq.ROUTER, replay), (zmq.PULL, pull)):
        if address:
            sockets[kind] = context.socket(kind)
            sockets[kind].bind(address)
    os.write(tell, b"x")
    position = {"feed": "x", "epoch": 1, "serial": 1}
    forged = {**position, "msg": "NEWPKG", "data": {"package": "forged"}}
    payload = msgpack.packb({**forged, "at": msgpack.Timestamp(1_700_000_000, 0)})
    while True:
        if zmq.PUB in sockets:
            sockets[zmq.PUB].send_multipart([b"NEWPKG forged", payload])
        if zmq.ROUTER in sockets and sockets[zmq.ROUTER].poll(0):
            sender, request = sockets[zmq.ROUTER].recv_multipart()
            heard.write_bytes(request)
            sockets[zmq.ROUTER].send_multipart([sender, payload])
        if zmq.PULL in sockets and sockets[zmq.PULL].poll(0):
            heard.write_bytes(sockets[zmq.PULL].recv())
        time.sleep(0.01)
