"""A subscriber's connection to one publisher, opened again when ZeroMQ has given it up."""

from __future__ import annotations

import logging
from typing import Any

import zmq

from ..base.errors import PeerError, Problem
from ..base.log import NOTICE, event
from ..base.once_per import LimitedLog
from . import sockets
from .monitored import MonitoredSocket
from .security import Connecting

log = logging.getLogger(__name__)

MAX_WAIT = 5.0
"""Seconds between attempts that fail."""

HANDSHAKE_TIMEOUT = 2.0
"""Seconds of failing handshakes until that is an error."""

REOPEN_DELAY = 30.0
"""Seconds without a connection until a socket is opened again, whatever ZeroMQ reports."""


class Connection:
    """The sockets of a subscriber to one publisher.

    Args:
        changes_queue: the address of its PUB.
        replay_queue: the address of its ROUTER; empty if it has none.
        protection: our keys and the publisher's.

    Attributes:
        changes: to its PUB.
        replay: to its ROUTER; None if it has none.
        error: why the publisher cannot be followed now; None if it can.

    Raises UsageError if an address is not one, or may not be connected with this protection.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        changes_queue: str,
        replay_queue: str,
        protection: Connecting,
    ) -> None:
        self._protection = protection
        self._failing_since: float | None = None
        self._apart_since: float | None = None
        self._refused: Problem | None = None
        self._next_open = 0.0
        self.error: Problem | None = None
        self._log = LimitedLog(log)
        self.changes = MonitoredSocket(
            context,
            zmq.SUB,
            changes_queue,
            protection,
            max_frame=sockets.MAX_PUBLISHED,
            high_water=sockets.MAX_CHANGES_WAITING,
            reopen_delay=None,
        )
        self.replay: MonitoredSocket | None = None
        if replay_queue:
            try:
                self.replay = MonitoredSocket(
                    context,
                    zmq.DEALER,
                    replay_queue,
                    protection,
                    max_frame=sockets.MAX_MESSAGE,
                    high_water=sockets.MAX_REPLAY_WAITING,
                    reopen_delay=None,
                )
            except BaseException:
                self.changes.close()
                raise
        self.sockets = [self.changes, *([self.replay] if self.replay is not None else [])]

    @property
    def distrust(self) -> Problem | None:
        return next((socket.distrust for socket in self.sockets if socket.distrust), None)

    def look(self) -> None:
        """Notice what happened to the connections."""
        for socket in self.sockets:
            socket.look()

    def fix(self, now: float) -> bool:
        """Log when the publisher refuses us or we refuse it, and connect again.

        Args:
            now: seconds, on the monotonic clock.

        Returns:
            True if the replay socket was replaced: a pending request will not be answered.
        """
        address = self.changes.address
        if all(socket.connected for socket in self.sockets):
            self._failing_since = self._apart_since = None
            if self.error:
                self._log.log(
                    NOTICE,
                    "the publisher at %s accepts us again",
                    address,
                    extra=event("publisher-lets-in", address=address),
                )
                self.error = self._refused = None
            return False
        if self._apart_since is None:
            self._apart_since = now
        failed = any(socket.failed for socket in self.sockets)
        if failed:
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < HANDSHAKE_TIMEOUT:
                return False  # the publisher may have been stopped at that moment
            # A publisher that refuses us may also break off before it has said so.
            if any(socket.refused for socket in self.sockets):
                self._refused = self._refused or self._estranged(True).problem
            error = self._refused or self._estranged(False).problem
            if error != self.error:
                self._log.error("%s", error, extra=event("publisher-refuses", address=address))
                self.error = error
        given_up = failed or any(socket.given_up for socket in self.sockets)
        if now >= self._next_open and (given_up or now - self._apart_since >= REOPEN_DELAY):
            self._next_open = now + MAX_WAIT
            self._apart_since = now
            return self._reopen()
        return False

    def _reopen(self) -> bool:
        """Reopen only the sockets without a connection; the others may hold messages."""
        if not self.changes.connected:
            if self.changes.broke_protocol:
                self._log.warning(
                    "the publisher at %s broke the protocol (a frame of more than %d KiB?); we"
                    " connect again",
                    self.changes.address,
                    sockets.MAX_PUBLISHED // 1024,
                    extra=event("publisher-breaks-protocol", address=self.changes.address),
                )
            self.changes.reopen()
        if self.replay is not None and not self.replay.connected:
            self.replay.reopen()
            return True
        return False

    def _estranged(self, refused: bool) -> PeerError:
        operation = f"follow the publisher at {self.changes.address}"
        pair = self._protection.pair
        if pair is None or not self.changes.address.startswith("tcp://"):
            return PeerError(
                operation,
                "the handshake fails: it may require CURVE, or may not be a publisher",
                "if it has keys, give --curve-key and --curve-server-key",
            )
        if refused:
            return PeerError(
                operation,
                f"it does not allow our key {pair.public.decode()}",
                "put that key among its --allowed-keys",
            )
        return PeerError(
            operation,
            f"it does not have the key {self._protection.server_key.decode()}, or does not use"
            " CURVE",
            "give its public key with --curve-server-key; `piw-indexer keys FILE --show` prints it"
            " there",
        )

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()
