"""The sockets of a piwheels master that monitors use: its status feed and its control queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from indexer.piwheels import cbor

from ..support import DEADLINE, eventually


class StatusQueue:
    """A master's sockets, bound as piwheels binds them; an XPUB, so that it sees who subscribes.

    Args:
        status: the address of its status queue.
        control: that of its control queue; empty for none.
    """

    def __init__(self, status: str, control: str = "") -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._addresses = [status]
        self._status = self._context.socket(zmq.XPUB)
        self._status.setsockopt(zmq.XPUB_VERBOSE, 1)  # tells of each, as if it were the first
        self._status.bind(status)
        self._control: zmq.Socket[bytes] | None = None
        if control:
            self.bind_control(control)

    def bind_control(self, control: str) -> None:
        self._control = self._context.socket(zmq.PULL)
        self._control.bind(control)
        self._addresses.append(control)

    def wait_for_subscriber(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until somebody begins to listen; what is said before is lost.

        Args:
            meanwhile: done again and again, by a test that is the subscriber, too.
        """

        def subscribed() -> bool:
            meanwhile()
            # And not somebody who has left.
            return bool(self._status.poll(0)) and self._status.recv() == b"\1"

        eventually(subscribed)

    def say(self, *frames: bytes) -> None:
        for frame in frames:
            self._status.send(frame)

    def say_parts(self, *frames: bytes) -> None:
        """One message of several frames, as no master sends it."""
        self._status.send_multipart(frames)

    def asked(self) -> list[str]:
        """What came over the control queue."""
        assert self._control is not None
        found = []
        while self._control.poll(0):
            name, _ = cbor.loads(self._control.recv())
            found.append(name)
        return found

    def close(self, linger: int = 0) -> None:
        self._context.destroy(linger)
        # ZeroMQ leaves the file. Whoever looks at it, and then reaches the next master, makes
        # another connection: what that master said to the first one would be lost.
        for address in self._addresses:
            if address.startswith("ipc://"):
                Path(address.removeprefix("ipc://")).unlink()

    def __enter__(self) -> StatusQueue:
        return self

    def __exit__(self, *exception: object) -> None:
        # What was said is on its way still.
        self.close(linger=round(DEADLINE * 1000))
