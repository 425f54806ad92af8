"""Passes log entries on to the master's own log queue, which sends no receipts.

What ZeroMQ or the kernel holds is silently lost when a connection ends; a full PULL does not even
read what has arrived. So little is handed over at a time, and a stop waits until the master has
read it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq

from ...base.clock import monotonic, sleep
from ...base.log import event
from ...feed import peer_connection
from ...feed.monitored import MonitoredSocket
from ...feed.security import Connecting

log = logging.getLogger(__name__)

MAX_WAITING = 64 * 1024 * 1024
"""Bytes of frames that wait for the master."""

_FRAME = 100
"""Bytes of memory that a frame takes besides its content."""

STALL_TIMEOUT = 2.0
"""Seconds without progress until a stop gives up what still waits for the master."""

FINISH_TIMEOUT = 20.0
"""Seconds that a stop may spend on passing entries on."""

_LOOK_INTERVAL = 0.02


class Waiting:
    """Frames that wait; the oldest are lost when all together exceed `limit` bytes."""

    def __init__(self, limit: int = MAX_WAITING) -> None:
        self._limit = limit
        self._frames: deque[list[bytes]] = deque()
        self._bytes = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frames: list[bytes]) -> None:
        self._frames.append(frames)
        self._bytes += _size(frames)
        while self._bytes > self._limit:
            self.take()
            self.lost += 1

    def first(self) -> list[bytes]:
        return self._frames[0]

    def take(self) -> list[bytes]:
        frames = self._frames.popleft()
        self._bytes -= _size(frames)
        return frames

    def take_some(self, limit: int, max_bytes: int) -> list[list[bytes]]:
        """Take out up to `limit` of the oldest, and no more after `max_bytes`."""
        taken: list[list[bytes]] = []
        until = self._bytes - max_bytes
        while self._frames and len(taken) < limit and (not taken or self._bytes > until):
            taken.append(self.take())
        return taken


def _size(frames: list[bytes]) -> int:
    return sum(len(frame) + _FRAME for frame in frames)


class LogForward:
    """A PUSH to the master, like piw-logger's; for one thread, except for the numbers.

    Args:
        address: the master's own log queue.
        protection: who may be the master: entries contain the addresses of downloaders.
        waiting: what the daemon held for the master before it started again.

    Attributes:
        peer: the socket to the master; POLLOUT means that `pass_on` can continue.
        waiting: what has to be passed on.
        forwarded: how many entries the connection has accepted.

    Raises UsageError if the address is not a ZeroMQ address.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        protection: Connecting,
        waiting: Sequence[list[bytes]],
    ) -> None:
        self.waiting = Waiting()
        for frames in waiting:
            self.waiting.put(frames)
        self.forwarded = 0
        self._sent: list[bytes] | None = None
        # While the master is away, entries wait here, where they are counted, and not in ZeroMQ.
        # With a queue of one, space for the next entry means that this one is being written.
        self.peer = MonitoredSocket(
            context, zmq.PUSH, address, protection, immediate=True, high_water=1
        )

    @property
    def behind(self) -> int:
        """How many entries the connection has not accepted."""
        return len(self.waiting) + (self._sent is not None)

    def pass_on(self) -> None:
        self.peer.look()
        while self.behind and self.peer.open:
            if self._sent is not None:
                if not self.peer.socket.poll(0, zmq.POLLOUT):
                    return
                self._sent = None
                self.forwarded += 1
            else:
                try:
                    self.peer.socket.send_multipart(self.waiting.first(), zmq.NOBLOCK)
                except zmq.Again:
                    return
                self._sent = self.waiting.take()

    def finish(self) -> None:
        """Pass on the rest as long as the master accepts it, and wait until it has read that."""
        until = monotonic() + FINISH_TIMEOUT
        self.pass_on()
        while self.behind and monotonic() < until:
            if not self.peer.socket.poll(int(STALL_TIMEOUT * 1000), zmq.POLLOUT):
                break
            self.pass_on()
        if not self._was_read(until):
            log.warning(
                "the master at %s has not read all that was passed on to it: its own counters may"
                " lack some of the last log entries",
                self.peer.address,
                extra=event("logs-not-read"),
            )
        self.peer.socket.linger = 0 if self.behind else int(STALL_TIMEOUT * 1000)

    def _was_read(self, until: float) -> bool:
        """Wait until the master has read everything; false if it does not."""
        unread, empty, stalled = self._unread(), 0, monotonic() + STALL_TIMEOUT
        # Twice, because ZeroMQ may still hold a little that it writes when there is space.
        while empty < 2:
            if monotonic() > min(until, stalled):
                return False
            sleep(_LOOK_INTERVAL)
            before, unread = unread, self._unread()
            if unread != before:
                stalled = monotonic() + STALL_TIMEOUT
            empty = 0 if unread else empty + 1
        return True

    def _unread(self) -> int:
        self.peer.look()
        descriptor = self.peer.descriptor
        return 0 if descriptor is None else peer_connection.unread(descriptor)

    def left(self) -> list[list[bytes]]:
        """After the end: what the master has not accepted."""
        sent = [] if self._sent is None else [self._sent]
        return [*sent, *(self.waiting.take() for _ in range(len(self.waiting)))]

    def close(self) -> None:
        self.peer.close()
