"""Downloads, from where piw-logger pushes them: counted here, every frame passed on to the master.

A thread of its own takes the frames, so that piw-logger never waits for our disk nor for a master
that is slow or down. They are kept in memory meanwhile, never on the disk: they bear addresses.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq

from .. import encode, times
from ..clock import Clock, monotonic
from ..errors import DecodeError, UsageError
from ..feed import security, sockets
from ..journal import Accepted, Entry, Identity, Row
from ..journal_log import event
from ..messages import Message
from ..quarantine import refused
from ..schema.piwheels import OTHER_LOGS
from ..source import Tools
from . import cbor, translate

log = logging.getLogger(__name__)

SOURCE = "log-queue"
"""Where quarantined frames came from."""

MOST_WAITING = 64 * 1024 * 1024
"""Bytes of frames that wait for our journal, and as many that wait for the master."""

_FRAME = 100
"""Bytes that a frame takes besides its own."""

_BATCH = 256
DRAIN_QUIET = 50
"""Milliseconds without a frame after which a stop takes none to be under way any more."""

DRAIN_WITHIN = 2.0
"""Seconds after which it takes no more in any case."""

LINGER = 2000
"""Milliseconds that a master may take nothing when we stop; then what waits for it is given up."""

LAST_PASS = 20.0
"""Seconds that a stop may take to pass on what waits for the master."""


class Waiting:
    """Frames that wait; the oldest goes if they are too many."""

    def __init__(self) -> None:
        self._frames: deque[list[bytes]] = deque()
        self._bytes = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frames: list[bytes]) -> None:
        """Add one at the end."""
        self._frames.append(frames)
        self._bytes += _size(frames)
        while self._bytes > MOST_WAITING:
            self.take()
            self.lost += 1

    def first(self) -> list[bytes]:
        """The oldest."""
        return self._frames[0]

    def take(self) -> list[bytes]:
        """Take the oldest out."""
        frames = self._frames.popleft()
        self._bytes -= _size(frames)
        return frames


def _size(frames: list[bytes]) -> int:
    return sum(len(frame) + _FRAME for frame in frames)


class LogRelay:
    """A source of the daemon: PULL in the place of the master's log queue.

    Args:
        tools: of the daemon.
        log_queue: the address to bind, where piw-logger connects to.
        log_forward: the master's own log queue; none is passed on without it.
        binding: the mode of an ipc socket.
        clock: the time of receipt.
        waiting: frames that the one before us still held for the master.

    Raises:
        UsageError: if an address cannot be bound, or is none.
    """

    def __init__(
        self,
        tools: Tools,
        log_queue: str,
        log_forward: str | None,
        binding: security.Binding,
        clock: Clock,
        waiting: Sequence[list[bytes]] = (),
    ) -> None:
        self._wake = tools.wake
        self._clock = clock
        self._queues = log_queue, log_forward
        self._lock = threading.Lock()
        self._ours = Waiting()
        self._theirs = Waiting()
        for frames in waiting:
            self._theirs.put(frames)
        self._stopping = threading.Event()
        self._pull = sockets.bound(tools.context, zmq.PULL, log_queue, binding)
        self._push: zmq.Socket[bytes] | None = None
        if log_forward is not None:
            try:
                self._push = self._connected(tools.context, log_forward)
            except BaseException:
                self._pull.close()
                raise
        self.counted: dict[str, int] = {}
        """Messages by name, so far."""
        self.forwarded = 0
        self._said = 0
        self._thread = threading.Thread(target=self._run, name="log relay", daemon=True)
        self._thread.start()

    @staticmethod
    def _connected(context: zmq.Context[Any], address: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = context.socket(zmq.PUSH)
        socket.ipv6 = True
        # What waits for a master that is not there waits with us, where it is counted.
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.linger = LINGER
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise UsageError(
                f"pass logs on to {address}", error.strerror, "check --log-forward"
            ) from error
        return socket

    # The thread

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._pull, zmq.POLLIN)
        while not self._stopping.is_set():
            if self._push is not None and self._theirs:
                poller.register(self._push, zmq.POLLOUT)
            elif self._push is not None and self._push in poller:
                poller.unregister(self._push)
            poller.poll(100)
            self._take_in()
            self._pass_on()
        # What piw-logger has sent is no longer with it: what is under way has to arrive.
        until = monotonic() + DRAIN_WITHIN
        while self._pull.poll(DRAIN_QUIET) and monotonic() < until:
            self._take_in()
        self._pull.close(linger=0)
        self._pass_last_on()

    def _pass_last_on(self) -> None:
        """Pass on what waits, as long as the master goes on taking it."""
        until = monotonic() + LAST_PASS
        self._pass_on()
        while self._push is not None and self._theirs and monotonic() < until:
            if not self._push.poll(LINGER, zmq.POLLOUT):
                break
            self._pass_on()

    def _take_in(self) -> None:
        taken = 0
        for _ in range(_BATCH):
            try:
                frames = self._pull.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            taken += 1
            with self._lock:
                self._ours.put(frames)
            if self._push is not None:
                self._theirs.put(frames)
        if taken:
            self._wake()

    def _pass_on(self) -> None:
        while self._push is not None and self._theirs:
            try:
                self._push.send_multipart(self._theirs.first(), zmq.NOBLOCK)
            except zmq.Again:
                return
            self._theirs.take()
            self.forwarded += 1

    # The daemon's side

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        """None: its thread wakes the daemon."""
        return ()

    def receive(self, most: int, until: float) -> list[Entry]:
        """What piw-logger pushed, as messages."""
        with self._lock:
            frames = [self._ours.take() for _ in range(min(most, len(self._ours)))]
        received = self._clock()
        return [entry for one in frames if (entry := self._entry(one, received)) is not None]

    def _entry(self, frames: list[bytes], received: times.Time) -> Entry | None:
        frame = frames[-1]
        try:
            if len(frames) != 1:
                raise DecodeError("", f"a log entry is one frame, these are {len(frames)}")
            name, data = cbor.loads(frame)
            if name == "LOGDOWNLOAD":
                message = translate.download(data, received)
                identity = Identity(_digest(message, data[1]), message.data.accessed_at)
                self._count(name)
                return Accepted(None, message, identity)
            if name not in OTHER_LOGS:
                raise DecodeError("", f"{name[:40]!r} is no log entry")
            self._count(name)
            return None
        except DecodeError as error:
            return refused(None, SOURCE, "cbor", error, frame)

    def _count(self, name: str) -> None:
        self.counted[name] = self.counted.get(name, 0) + 1

    def accepted(self, rows: Sequence[Row]) -> None:
        """Nothing: the frames are gone from here."""

    @property
    def trouble(self) -> str:
        """What was lost for want of memory."""
        lost = []
        if self._ours.lost:
            lost.append(
                f"{self._ours.lost} log entries were not counted, because our disk let none"
                " in for too long: feed their log file to piw-logger again"
            )
        if self._theirs.lost:
            lost.append(
                f"{self._theirs.lost} log entries did not reach the master at"
                f" {self._queues[1]}, which was away for too long"
            )
        return "; ".join(lost)

    def tick(self) -> None:
        """Say once that entries are lost."""
        lost = self._ours.lost + self._theirs.lost
        if lost and not self._said:
            log.error("%s", self.trouble, extra=event("downloads-lost", messages=lost))
        self._said = lost

    def live(self) -> dict[str, Any]:
        """How it stands."""
        return {
            "log_queue": {
                "address": self._queues[0],
                "forward": self._queues[1],
                "counted": dict(sorted(self.counted.items())),
                "forwarded": self.forwarded,
                "waiting": len(self._ours),
                "waiting_for_master": len(self._theirs),
                "lost": self._ours.lost,
                "not_forwarded": self._theirs.lost,
            }
        }

    def drain(self) -> None:
        """Close the queue, take what has arrived, and pass on what the master takes now."""
        self._stopping.set()
        self._thread.join()

    def close(self) -> None:
        """Stop."""
        self.drain()
        if self._push is not None:
            self._push.close()

    def left(self) -> list[list[bytes]]:
        """After the end: what the master has not taken."""
        return [self._theirs.take() for _ in range(len(self._theirs))]


def message(frame: bytes, received: times.Time) -> Message:
    """A download as it was quarantined, without its address; for another try.

    Raises:
        DecodeError: if it is none.
    """
    name, data = cbor.loads(frame)
    if name != "LOGDOWNLOAD":
        raise DecodeError("", f"{name[:40]!r} is no download")
    return translate.download(data, received)


def _digest(message: Message, host: str) -> int:
    """64 bits that tell a log entry from others.

    Only 16 bits of the downloader's address go into it: enough for two in the same second, and
    too few to find out from what is stored who it was.
    """
    some_of_host = hashlib.blake2b(host.encode(), digest_size=2).digest()
    whole = hashlib.blake2b(encode.to_journal(message) + some_of_host, digest_size=8)
    return int.from_bytes(whole.digest(), "big", signed=True)
