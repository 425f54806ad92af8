"""The master's status feed as a source of the daemon: it keeps the farm live.

A feed that is silent, sends nonsense or starts again never stops the daemon. Frames that cannot be
read go to the quarantine, up to a limit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import zmq

from ...base import times
from ...base.clock import Clock
from ...base.errors import DecodeError, Problem, StateError
from ...base.log import event
from ...base.once_per import LimitedLog
from ...daemon.source import DaemonContext
from ...daemon.status_file import LiveStatusQueue
from ...feed.monitored import MonitoredSocket
from ...feed.security import LOCAL_CONNECTING, Connecting
from ...messages.entries import Entry, Row
from .. import cbor
from ..redact import refused
from . import messages, store
from .farm import Farm
from .picture import EMPTY, Finished

log = logging.getLogger(__name__)

SOURCE = "status-queue"
"""The source of its frames in the quarantine."""

MAX_FRAME = 64 * 1024
"""Bytes of a frame; a peer that sends more is disconnected. A master's frames have some hundred."""

MAX_QUEUED = 500
"""Frames that wait to be read; after a hello a master repeats some 200 messages at once."""

SILENCE_TIMEOUT = 30.0
"""Seconds without a connection, or of silence, until it is reported; a master sends every ten."""

HELLO_INTERVAL = 60.0
"""Seconds between two hellos: each makes the master repeat everything to all monitors."""

MIN_HELLO_INTERVAL = 10.0
"""Seconds between two hellos if the master was restarted."""

SUBSCRIPTION_TIMEOUT = 2.0
"""Seconds after which a subscription is assumed to have reached a silent master."""

DROP_TIMEOUT = 300.0
"""Seconds for which `status` reports that refused frames were not kept."""

MAX_UNKNOWN = 20
"""Names of messages of a newer piwheels that are listed."""

MAX_KEPT = 100
KEPT_INTERVAL = 60.0
"""Refused frames that are kept at once, and seconds until one more is kept."""


def forget_farm(daemon: DaemonContext) -> None:
    """Clear the farm of an earlier run: no feed is followed any more.

    Raises StateError if the index cannot be written, and waiting does not help.
    """
    try:
        store.clear(daemon.connection)
    except StateError as error:
        if not error.transient:
            raise
        log.warning("%s", error, extra=event("farm-not-forgotten"))


class StatusFeed:
    """A source of the daemon: the status feed of a piwheels master.

    Args:
        daemon: what it lends; the index's tables `slaves` and `masters` are kept here.
        status_queue: the address of the master's status queue.
        control_queue: the address of its control queue, to say hello on; None not to.
        clock: the time of day, microseconds since 1970.
        monotonic: seconds on a clock that never jumps.
        finished: called with every build that has ended; the master's database has the result
            already.
        protection: of both queues; piwheels does not support CURVE.

    Raises:
        UsageError: if an address is not one, or may not be connected with this protection.
        StateError: if the index cannot be read or written.
    """

    def __init__(
        self,
        daemon: DaemonContext,
        status_queue: str,
        control_queue: str | None,
        clock: Clock,
        monotonic: Callable[[], float],
        finished: Callable[[Finished], None] | None = None,
        protection: Connecting = LOCAL_CONNECTING,
    ) -> None:
        self.status_queue = status_queue
        self.control_queue = control_queue
        self._connection = daemon.connection
        self._monotonic = monotonic
        self._finished = finished
        self._farm = Farm()
        self._picture = EMPTY
        self._store_problem: Problem | None = None
        self._frames = 0
        self._refused = 0
        self._kept = float(MAX_KEPT)  # refused frames that may be kept now
        self._unknown: list[str] = []  # names of messages
        self._dropped = 0  # refused frames that were not kept
        self._last_drop = -math.inf
        self._log = LimitedLog(log, monotonic)
        self._last_fault = ""
        start = monotonic()
        self._last_tick = start
        self._heard: float | None = None
        self._heard_here = False  # over this connection
        self._hello_wanted = True
        self._last_hello = -math.inf
        self._stored = store.read(daemon.connection)
        master, slaves = store.pictures(self._stored, status_queue)
        self._farm.restore(master, slaves, self._now(), clock())
        connect = partial(MonitoredSocket, daemon.context, protection=protection)
        self._status = connect(zmq.SUB, status_queue, max_frame=MAX_FRAME, high_water=MAX_QUEUED)
        self._connected = False  # when we last checked
        self._connections = self._status.connections
        self._since = start  # the master came or left, or we began
        self._control: MonitoredSocket | None = None
        if control_queue is not None:
            try:
                self._control = connect(zmq.PUSH, control_queue, immediate=True)
            except BaseException:
                self._status.close()
                raise

    def _now(self) -> times.Time:
        return round(self._monotonic() * times.SECOND)

    # The protocol of a source

    @property
    def distrust(self) -> Problem | None:
        """Why the peer at one of its addresses is not trusted; None if it is."""
        control = self._control.distrust if self._control is not None else None
        return self._status.distrust or control

    @property
    def problem(self) -> Problem | None:
        if self._store_problem is not None:
            return self._store_problem
        now = self._monotonic()
        if self._connections and not self._connected:
            return Problem(
                f"the master at {self.status_queue} is gone: does piw-master run?",
            )
        silent = now - max(self._since, self._heard or 0.0)
        if silent > SILENCE_TIMEOUT:
            if self._connected:
                return Problem(
                    f"the master at {self.status_queue} has been silent for {silent:.0f} s"
                )
            return Problem(
                f"no master is at {self.status_queue}",
                "see that piw-master runs, and that this is the address of its --status-queue",
            )
        if now - self._last_drop < DROP_TIMEOUT:
            return Problem(
                f"{self._dropped} messages of {self.status_queue} could not be read, and are too"
                f" many for the quarantine; the last: {self._last_fault}"
            )
        return None

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        return (self._status.socket,)

    def receive(self, limit: int, until: float) -> list[Entry]:
        """Take in what has arrived; returns as soon as nothing waits.

        Args:
            limit: messages to take off the socket.
            until: when to return at the latest, on the monotonic clock.

        Returns:
            Frames that could not be read, for the quarantine.
        """
        entries: list[Entry] = []
        status = self._status
        if not status.open:
            status.look()  # the peer may have connected, and be trusted
        for count in range(limit if status.open else 0):
            if not count % 64 and count and self._monotonic() >= until:
                break
            try:
                frames = status.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._frames += 1
            self._heard, self._heard_here = self._monotonic(), True
            try:
                message = messages.decode(frames)
            except DecodeError as error:
                entries += self._refuse(error, frames)
            else:
                if isinstance(message, messages.Unknown):
                    self._notice(message.name)
                self._report(self._farm.hear(message, self._now()))
        return entries

    def accepted(self, rows: Sequence[Row]) -> None:
        """Do nothing: the journal does not concern the farm."""

    def tick(self) -> None:
        """Let slaves leave, say hello, write the index; call it about once a second.

        Raises StateError if the index cannot be written, and waiting does not help.
        """
        now = self._monotonic()
        self._kept = min(MAX_KEPT, self._kept + (now - self._last_tick) / KEPT_INTERVAL)
        self._last_tick = now
        self._look_at_connections(now)
        self._say_hello(now)
        self._report(self._farm.tick(self._now()))
        self._picture = self._farm.picture(self._now())
        self._store()

    def due_in(self) -> float:
        """Nothing is to be done before the next tick."""
        return math.inf

    def live(self) -> dict[str, tuple[Any, ...]]:
        silent = None if self._heard is None else round(self._monotonic() - self._heard, 1)
        return {
            "farm": self._picture,
            "status_feed": LiveStatusQueue(
                self.status_queue,
                self.control_queue,
                self._connected,
                silent,
                self._frames,
                self._refused,
                list(self._unknown),
            ),
        }

    def drain(self) -> None:
        """Do nothing: the feed repeats the state of the farm."""

    def close(self) -> None:
        self._status.close()
        if self._control is not None:
            self._control.close()

    # Its parts

    def _report(self, finished: Sequence[Finished]) -> None:
        if self._finished is not None:
            for build in finished:
                self._finished(build)

    def _notice(self, name: str) -> None:
        """Name a message that a newer piwheels sends, once."""
        if name in self._unknown or len(self._unknown) >= MAX_UNKNOWN:
            return
        self._unknown.append(name)
        log.warning(
            "the master at %s sends a message that is not known: %s; it is ignored",
            self.status_queue,
            name,
            extra=event("master-unknown", address=self.status_queue),
        )

    def _refuse(self, error: DecodeError, frames: list[bytes]) -> list[Entry]:
        self._refused += 1
        if self._kept < 1:
            now = self._monotonic()
            if now - self._last_drop >= DROP_TIMEOUT:
                self._dropped = 0
            self._log.warning(
                "%s sends more invalid frames than are kept: %s",
                self.status_queue,
                error,
                extra=event("status-feed-nonsense", address=self.status_queue),
            )
            self._dropped += 1
            self._last_drop, self._last_fault = now, str(error)
            return []
        self._kept -= 1
        return [refused(SOURCE, error, b"".join(frames)[:MAX_FRAME])]

    def _look_at_connections(self, now: float) -> None:
        was_there, before = self._connected, self._connections
        self._status.look()
        self._connected, self._connections = self._status.connected, self._status.connections
        came = self._connections > before
        if came or self._connected != was_there:
            self._since = now
        if came:
            self._farm.reached(self._now())
            # It may be another master than before.
            self._heard_here, self._hello_wanted = False, True
            self._log.info(
                "connected to the master at %s",
                self.status_queue,
                extra=event("master-there", address=self.status_queue),
            )
        elif was_there and not self._connected:
            self._log.warning(
                "lost the connection to the master at %s",
                self.status_queue,
                extra=event("master-gone", address=self.status_queue),
            )
        if self._control is not None:
            self._control.look()

    def _say_hello(self, now: float) -> None:
        """Ask the master to repeat everything, if something is missing here."""
        if self._control is None or not (self._connected and self._control.open):
            return
        if self._hello_wanted:
            # Until the subscription has reached the master, its answers would be lost.
            due = (self._heard_here or now - self._since > SUBSCRIPTION_TIMEOUT) and (
                now - self._last_hello > MIN_HELLO_INTERVAL
            )
        else:
            due = not self._farm.complete and now - self._last_hello > HELLO_INTERVAL
        if not due:
            return
        try:
            self._control.socket.send(cbor.dumps("HELLO"), zmq.NOBLOCK)
        except zmq.Again:
            return  # the control queue is not connected (yet)
        self._hello_wanted = False
        self._last_hello = now

    def _store(self) -> None:
        """Write what has changed to the index; if the disk is full, later."""
        rows = store.rows(self.status_queue, self._picture)
        if rows == self._stored:
            return
        try:
            store.write(self._connection, self._stored, rows)
        except StateError as error:
            if not error.transient:
                raise
            if self._store_problem is None:
                log.error(
                    "%s\n  what happens: the daemon tries again",
                    error,
                    extra=event("farm-not-stored"),
                )
            self._store_problem = error.problem
        else:
            self._stored, self._store_problem = rows, None
