"""Log entries from piw-logger: downloads are counted, and every entry is passed on to the master.

A separate thread reads them, so that piw-logger never waits for our disk or for a slow master.
Meanwhile they are kept only in memory, because they contain the addresses of downloaders.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import zmq

from ...base import times
from ...base.clock import Clock, monotonic
from ...base.errors import DecodeError, Problem
from ...base.log import event
from ...daemon.source import DaemonContext
from ...daemon.status_file import LiveLogQueue
from ...feed import security, sockets
from ...messages import encode
from ...messages.entries import Accepted, Entry, Identity, Row
from ...messages.types import Message
from ...schema.piwheels import OTHER_LOGS
from .. import cbor, translate
from ..redact import refused_log
from .log_forward import LogForward, Waiting

log = logging.getLogger(__name__)

SOURCE = "log-queue"
"""Where quarantined frames came from."""

MAX_FRAME = 64 * 1024
"""Bytes of an entry; a peer that sends more is disconnected. piwheels sends some hundred."""

MAX_QUEUED = 500
"""Entries of one connection that ZeroMQ holds until our thread reads them."""

MAX_WAITING = 32 * 1024 * 1024
"""Bytes of entries that wait for our journal."""

MAX_BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of the entries of one commit, plus one entry."""

LOG_DISORDER = 10 * 60 * times.SECOND
"""Microseconds that a log may go back: it has a line when a download ends, with its beginning."""

MAX_EQUALS = 10_000
"""Entries of a pass over a log that are remembered, to count their equals."""

MAX_PASSES = 16
"""Passes that are remembered: as many processes may send at a time."""

_BATCH = 256
DRAIN_QUIET = 50
"""Milliseconds without an entry until a stop expects no more of them."""

DRAIN_TIMEOUT = 2.0
"""Seconds after which a stop reads no more entries in any case."""


class _Pass:
    """One pass of piw-logger over a log, which is nearly sorted by time: counts equal entries.

    An entry that goes back far begins a new pass. So does one that equals the first of the pass
    after time has gone on: a log is usually given again from its beginning.
    """

    def __init__(self) -> None:
        self._first: int | None = None
        self._latest: times.Time = 0
        self._seen: OrderedDict[int, tuple[int, times.Time]] = OrderedDict()

    def count(self, digest: int, at: times.Time) -> int:
        """Which of its equals an entry is, from 1."""
        seen = self._seen
        again = digest == self._first and at < self._latest
        if self._first is None or again or at < self._latest - LOG_DISORDER:
            self._first, self._latest = digest, at
            seen.clear()
        self._latest = max(self._latest, at)
        count = seen.pop(digest, (0, 0))[0] + 1
        seen[digest] = count, at
        while len(seen) > MAX_EQUALS or seen[next(iter(seen))][1] < self._latest - LOG_DISORDER:
            seen.popitem(last=False)
        return count


class _Connections:
    """Tells the connections to the queue apart: each process of piw-logger begins a new pass."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, bytes]] = {}  # by descriptor: the inode, and our name
        self._last = 0

    def name(self, frame: zmq.Frame) -> bytes:
        """A name for the connection that a frame came on, unlike those of all others."""
        descriptor = int(frame.get(zmq.SRCFD))
        inode, name = self._known.get(descriptor, (0, b""))
        try:
            state = os.fstat(descriptor)
            now = state.st_ino if stat.S_ISSOCK(state.st_mode) else 0
        except OSError:
            now = 0
        # Of a connection that has ended, frames may still wait here.
        if not name or (now and now != inode):
            self._last += 1
            name = b"%d" % self._last
            self._known[descriptor] = now, name
        return name


class LogRelay:
    """A source of the daemon: a PULL in place of the master's log queue.

    Args:
        log_queue: the address to bind, where piw-logger connects to.
        log_forward: the master's own log queue; None passes nothing on.
        binding: the mode of an ipc socket.
        connecting: who may be the master.
        clock: the time of receipt.
        waiting: what the daemon held for the master before it started again.

    Raises UsageError if an address is invalid or cannot be bound.
    """

    def __init__(
        self,
        daemon: DaemonContext,
        log_queue: str,
        log_forward: str | None,
        binding: security.Binding,
        connecting: security.Connecting,
        clock: Clock,
        waiting: Sequence[list[bytes]] = (),
    ) -> None:
        self._wake = daemon.wake
        self._clock = clock
        self._queues = log_queue, log_forward
        self._lock = threading.Lock()
        self._ours = Waiting(MAX_WAITING)  # entries, each after the name of its connection
        self._connections = _Connections()
        self._passes: OrderedDict[bytes, _Pass] = OrderedDict()
        self._stopping = threading.Event()
        # A full PULL may lose entries. The thread keeps it empty, except in a flood.
        self._pull, self._listener = sockets.bound(
            daemon.context, zmq.PULL, log_queue, binding, high_water=MAX_QUEUED, max_frame=MAX_FRAME
        )
        self._forward: LogForward | None = None
        if log_forward is not None:
            try:
                self._forward = LogForward(daemon.context, log_forward, connecting, waiting)
            except BaseException:
                self._close_queue()
                raise
        self.counted: dict[str, int] = {}
        """Messages by name, so far."""
        self._downloads = 0  # that were accepted, whatever they came from
        self._said = 0
        self._thread = threading.Thread(target=self._run, name="log relay", daemon=True)
        self._thread.start()

    # The thread

    def _run(self) -> None:
        forward = self._forward
        while not self._stopping.is_set():
            self._poller().poll(100)
            self._take_in()
            if forward is not None:
                forward.pass_on()
        # piw-logger has forgotten what it sent, so everything under way has to arrive.
        until = monotonic() + DRAIN_TIMEOUT
        while self._pull.poll(DRAIN_QUIET) and monotonic() < until:
            self._take_in()
        self._close_queue()
        if forward is not None:
            forward.finish()

    def _poller(self) -> zmq.Poller:
        """What to wait for now.

        Made for every wait, because the socket to the master may have been replaced. Instead of a
        closed socket, ZeroMQ polls stdin, and the thread would never rest again.
        """
        poller = zmq.Poller()
        poller.register(self._pull, zmq.POLLIN)
        if self._forward is not None and self._forward.behind:
            poller.register(self._forward.peer.socket, zmq.POLLOUT)
        return poller

    def _close_queue(self) -> None:
        self._pull.close(linger=0)
        if self._listener is not None:
            self._listener.remove()

    def _take_in(self) -> None:
        taken = 0
        for _ in range(_BATCH):
            try:
                parts = self._pull.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            taken += 1
            connection = self._connections.name(parts[-1])
            frames = [part.bytes for part in parts]
            with self._lock:
                self._ours.put([connection, *frames])
            if self._forward is not None:
                self._forward.waiting.put(frames)
        if taken:
            self._wake()

    # The daemon's side

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        """None: the thread wakes the daemon."""
        return ()

    def receive(self, limit: int, until: float) -> list[Entry]:
        with self._lock:
            frames = self._ours.take_some(limit, MAX_BATCH_BYTES)
        if len(self._ours):
            self._wake()
        received = self._clock()
        return [
            entry
            for connection, *entry_frames in frames
            if (entry := self._entry(connection, entry_frames, received)) is not None
        ]

    def _entry(self, connection: bytes, frames: list[bytes], received: times.Time) -> Entry | None:
        frame = frames[-1]
        try:
            if len(frames) != 1:
                raise DecodeError("", f"a log entry is one frame, these are {len(frames)}")
            name, data = cbor.loads(frame)
            if name == "LOGDOWNLOAD":
                message = translate.download(data, received)
                self._count(name)
                return Accepted(None, message, self._identity(connection, message, data[1]))
            if name not in OTHER_LOGS:
                raise DecodeError("", f"{name[:40]!r} is not a log entry")
            self._count(name)
            return None
        except DecodeError as error:
            return refused_log(SOURCE, error, frame)

    def _identity(self, connection: bytes, message: Message, host: str) -> Identity:
        """What identifies an entry: what it says, and which of its equals it is."""
        digest, at = _digest(message, host), message.data.accessed_at
        over = self._passes.get(connection)
        if over is None:
            over = self._passes[connection] = _Pass()
            if len(self._passes) > MAX_PASSES:
                self._passes.popitem(last=False)
        self._passes.move_to_end(connection)
        count = over.count(digest, at)
        return Identity(digest if count == 1 else _equal(digest, count), at)

    def _count(self, name: str) -> None:
        self.counted[name] = self.counted.get(name, 0) + 1

    def accepted(self, rows: Sequence[Row]) -> None:
        """Count the downloads, to notice those that did not come from here."""
        self._downloads += sum(row.message.name == "LOGDOWNLOAD" for row in rows)

    @property
    def _not_forwarded(self) -> int:
        return self._forward.waiting.lost if self._forward is not None else 0

    @property
    def problem(self) -> Problem | None:
        """What was lost because memory is limited, or counts twice; None if nothing does."""
        lost = []
        if self._ours.lost:
            lost.append(
                f"{self._ours.lost} log entries were not counted, because our disk took none"
                " for too long: feed their log file to piw-logger again"
            )
        if self._not_forwarded:
            lost.append(
                f"{self._not_forwarded} log entries did not reach the master at"
                f" {self._queues[1]}, which was away for too long"
            )
        if lost:
            return Problem("; ".join(lost))
        if self._downloads > self.counted.get("LOGDOWNLOAD", 0):
            return Problem(
                f"downloads come by {self._queues[0]} and by a change feed: those of the same"
                " master count twice",
                "start its bridge with --no-downloads, or remove --log-queue and --log-forward",
            )
        return None

    @property
    def distrust(self) -> Problem | None:
        return self._forward.peer.distrust if self._forward is not None else None

    def tick(self) -> None:
        """Log once that entries are lost."""
        lost = self._ours.lost + self._not_forwarded
        if lost and not self._said:
            log.error("%s", self.problem, extra=event("downloads-lost", messages=lost))
        self._said = lost

    def live(self) -> dict[str, tuple[Any, ...]]:
        """Its status."""
        forward = self._forward
        return {
            "log_queue": LiveLogQueue(
                address=self._queues[0],
                forward=self._queues[1],
                counted=dict(sorted(self.counted.items())),
                forwarded=forward.forwarded if forward is not None else 0,
                waiting=len(self._ours),
                waiting_for_master=forward.behind if forward is not None else 0,
                lost=self._ours.lost,
                not_forwarded=self._not_forwarded,
            )
        }

    def due_in(self) -> float:
        """Its thread wakes the daemon."""
        return math.inf

    def drain(self) -> None:
        """Close the queue, read what has arrived, and pass on what the master accepts now."""
        self._stopping.set()
        self._thread.join()

    def close(self) -> None:
        self.drain()
        if self._forward is not None:
            self._forward.close()

    def left(self) -> list[list[bytes]]:
        return self._forward.left() if self._forward is not None else []


def message(frame: bytes, received: times.Time) -> Message:
    """The message of a quarantined download, which has no address any more.

    Raises DecodeError if it is not a download.
    """
    name, data = cbor.loads(frame)
    if name != "LOGDOWNLOAD":
        raise DecodeError("", f"{name[:40]!r} is not a download")
    return translate.download(data, received)


def _equal(digest: int, count: int) -> int:
    """The digest of an entry that is the second, third... of its equals."""
    both = b"%d %d" % (digest, count)
    whole = hashlib.blake2b(both, digest_size=8)
    return int.from_bytes(whole.digest(), "big", signed=True)


def _digest(message: Message, host: str) -> int:
    """64 bits that distinguish log entries that are not equal.

    They depend on only 16 bits of the downloader's address: enough to distinguish two in the same
    second, and too few to find the address from what is stored.
    """
    some_of_host = hashlib.blake2b(host.encode(), digest_size=2).digest()
    whole = hashlib.blake2b(encode.to_journal(message) + some_of_host, digest_size=8)
    return int.from_bytes(whole.digest(), "big", signed=True)
