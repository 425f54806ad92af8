"""The master's status feed as a source of the daemon: it keeps the farm live.

A feed that is silent, speaks nonsense or begins anew never stops the daemon. What cannot be read
goes to the quarantine, as long as there is not too much of it.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from .. import times
from ..clock import Clock
from ..errors import DecodeError, StateError
from ..feed import sockets
from ..feed.security import LOCAL_CONNECTING, Connecting
from ..feed.sockets import Handshakes
from ..journal import Entry, Row
from ..quarantine import refused
from . import cbor, farm_store, farm_view, status_messages
from .farm import Farm
from .farm_picture import EMPTY, Finished

log = logging.getLogger(__name__)

SOURCE = "status-queue"
"""Of its frames in the quarantine."""

LARGEST = 256 * 1024
"""Bytes of a frame; a peer that sends more is disconnected. What is quarantined is no larger."""

PATIENCE = 30.0
"""Seconds without a connection, or of silence, until that is told; a master speaks every ten."""

HELLO_AGAIN = 60.0
"""Seconds between two hellos: each makes the master say everything again, to everyone."""

QUICKEST_HELLO = 10.0
"""Seconds between them if the master is a new one each time."""

SETTLED = 2.0
"""Seconds after which a subscription is taken to have reached a master that says nothing."""

REMEMBERED = 300.0
"""Seconds for which it is told that refused frames were not kept."""

MOST_KEPT = 100
KEPT_EVERY = 60.0
"""Refused frames that are kept at once, and seconds for each one more."""


def _ignore(package: str, version: str) -> None:
    pass


class StatusFeed:
    """Follows the status feed of a piwheels master.

    Args:
        context: of ZeroMQ.
        status_queue: the address of the master's status queue.
        control_queue: the address of its control queue, to say hello on; None not to.
        connection: the index's one writer; its tables `slaves` and `masters` are kept here.
        clock: the time of day, microseconds since 1970.
        monotonic: seconds on a clock that never jumps.
        finished: is called with the package and version of every build that has ended, as the
            master names them; the database of the master knows it already.
        protection: of both queues; piwheels knows no CURVE.

    Raises:
        UsageError: if an address is none, or may not be connected with this protection.
        StateError: if the index cannot be read or written.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        status_queue: str,
        control_queue: str | None,
        connection: sqlite3.Connection,
        clock: Clock,
        monotonic: Callable[[], float],
        finished: Callable[[str, str], None] = _ignore,
        protection: Connecting = LOCAL_CONNECTING,
    ) -> None:
        self.status_queue = status_queue
        self.control_queue = control_queue
        self._connection = connection
        self._monotonic = monotonic
        self._finished = finished
        self._farm = Farm()
        self._picture = EMPTY
        self._store_trouble = ""
        self._frames = 0
        self._refused = 0
        self._kept = float(MOST_KEPT)  # refused frames that may be kept now
        self._dropped = 0  # that were not
        self._last_drop = -math.inf
        self._last_fault = ""
        start = monotonic()
        self._last_tick = start
        self._connections = 0  # as far as they were noticed
        self._connected = False
        self._since = start  # it is connected, or apart
        self._heard: float | None = None
        self._heard_here = False  # over this connection
        self._hello_wanted = True
        self._last_hello = -math.inf
        self._stored = farm_store.read(connection)
        master, slaves = farm_store.pictures(self._stored, status_queue)
        self._farm.restore(master, slaves, self._now(), clock())
        self._status, handshakes = sockets.connected(
            context, zmq.SUB, status_queue, protection, watched=True, most=LARGEST
        )
        assert handshakes is not None
        self._handshakes: Handshakes = handshakes
        self._control: zmq.Socket[bytes] | None = None
        if control_queue is not None:
            self._control, _ = sockets.connected(
                context, zmq.PUSH, control_queue, protection, immediate=True
            )

    def _now(self) -> times.Time:
        return round(self._monotonic() * times.SECOND)

    # What the daemon wants of a source

    @property
    def trouble(self) -> str:
        """What is not well with it, in one sentence; empty if nothing."""
        if self._store_trouble:
            return self._store_trouble
        now = self._monotonic()
        silent = now - max(self._since, self._heard or 0.0)
        if silent > PATIENCE:
            if self._connected:
                return f"the master at {self.status_queue} has been silent for {silent:.0f} s"
            return (
                f"no master is at {self.status_queue}: does piw-master run, and is that the"
                " address of its --status-queue?"
            )
        if now - self._last_drop < REMEMBERED:
            return (
                f"{self._dropped} messages of {self.status_queue} could not be read, and are too"
                f" many for the quarantine; the last: {self._last_fault}"
            )
        return ""

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        """What to poll for input."""
        return (self._status,)

    def receive(self, most: int, until: float) -> list[Entry]:
        """Take in what arrived; returns at once when nothing waits any more.

        Args:
            most: messages to take off the socket.
            until: when to return at the latest, on the monotonic clock.

        Returns:
            What could not be read, for the quarantine.
        """
        entries: list[Entry] = []
        for count in range(most):
            if not count % 64 and count and self._monotonic() >= until:
                break
            try:
                frames = self._status.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._frames += 1
            self._heard, self._heard_here = self._monotonic(), True
            try:
                message = status_messages.decode(frames)
            except DecodeError as error:
                entries += self._refuse(error, frames)
            else:
                self._tell(self._farm.hear(message, self._now()))
        return entries

    def accepted(self, rows: Sequence[Row]) -> None:
        """What was just journaled does not concern the farm."""

    def tick(self) -> None:
        """Let slaves leave, say hello, write the index; call it about once a second.

        Raises:
            StateError: if the index cannot be written, and that will not pass by itself.
        """
        now = self._monotonic()
        self._kept = min(MOST_KEPT, self._kept + (now - self._last_tick) / KEPT_EVERY)
        self._last_tick = now
        self._look_at_connection(now)
        self._say_hello(now)
        self._tell(self._farm.tick(self._now()))
        self._picture = self._farm.picture(self._now())
        self._store()

    def live(self) -> dict[str, Any]:
        """The farm and its feed, for `daemon.json`."""
        silent = None if self._heard is None else round(self._monotonic() - self._heard, 1)
        return {
            "farm": farm_view.as_data(self._picture),
            "status_feed": {
                "status_queue": self.status_queue,
                "control_queue": self.control_queue,
                "connected": self._connected,
                "silent_seconds": silent,
                "frames": self._frames,
                "refused": self._refused,
            },
        }

    def close(self) -> None:
        """Close its sockets."""
        self._status.close()
        self._handshakes.close()
        if self._control is not None:
            self._control.close()

    # How it does that

    def _tell(self, finished: Sequence[Finished]) -> None:
        for one in finished:
            self._finished(one.package, one.version)

    def _refuse(self, error: DecodeError, frames: list[bytes]) -> list[Entry]:
        self._refused += 1
        if self._kept < 1:
            now = self._monotonic()
            if now - self._last_drop >= REMEMBERED:
                log.warning("%s speaks more nonsense than is kept: %s", self.status_queue, error)
                self._dropped = 0
            self._dropped += 1
            self._last_drop, self._last_fault = now, str(error)
            return []
        self._kept -= 1
        return [refused(None, SOURCE, "cbor", error, b"".join(frames)[:LARGEST])]

    def _look_at_connection(self, now: float) -> None:
        handshakes = self._handshakes
        handshakes.look()
        if handshakes.successes != self._connections:
            # The master there may be another one than before.
            self._connections = handshakes.successes
            self._heard_here, self._hello_wanted = False, True
        elif handshakes.succeeded == self._connected:
            return
        self._connected, self._since = handshakes.succeeded, now
        log.info(
            "the master at %s %s", self.status_queue, "is there" if self._connected else "left"
        )

    def _say_hello(self, now: float) -> None:
        """Ask the master to say everything again, if something is missing here."""
        if self._control is None or not self._connected:
            return
        if self._hello_wanted:
            # Before the subscription has reached the master, its answers would be lost.
            due = (self._heard_here or now - self._since > SETTLED) and (
                now - self._last_hello > QUICKEST_HELLO
            )
        else:
            due = not self._farm.complete and now - self._last_hello > HELLO_AGAIN
        if not due:
            return
        try:
            self._control.send(cbor.dumps("HELLO"), zmq.NOBLOCK)
        except zmq.Again:
            return  # the control queue is not there (yet)
        self._hello_wanted = False
        self._last_hello = now

    def _store(self) -> None:
        """Write what changed; with a full disk, later."""
        rows = farm_store.rows(self.status_queue, self._picture)
        if rows == self._stored:
            return
        try:
            farm_store.write(self._connection, self._stored, rows)
        except StateError as error:
            if not error.passing:
                raise
            if not self._store_trouble:
                log.error("%s\n  it is tried again", error)
            self._store_trouble = str(error)
        else:
            self._stored, self._store_trouble = rows, ""
