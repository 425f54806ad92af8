"""The sockets to one publisher, opened anew when ZeroMQ has given them up for good.

That it does, without a word, when the other side breaks the protocol: by a frame that is too
large, a wrong key, or words that are not ZeroMQ's.
"""

from __future__ import annotations

import logging
from typing import Any

import zmq

from ..base.errors import PeerError
from ..base.log import NOTICE, event
from ..base.once_per import LimitedLog
from . import sockets
from .line import Line
from .security import Connecting
from .sockets import Handshakes

log = logging.getLogger(__name__)

MAX_WAIT = 5.0
"""Seconds between tries that lead nowhere."""

PATIENCE = 2.0
"""Seconds of failing handshakes until something is thought to be wrong."""

REOPEN_DELAY = 30.0
"""Seconds without a connection until a socket is opened anew, whatever ZeroMQ says."""


class Peer:
    """A publisher as its subscriber is connected to it.

    Args:
        context: of ZeroMQ.
        changes_queue: the address of its PUB.
        replay_queue: the address of its ROUTER; empty if it has none.
        protection: how we prove who we are, and know it.

    Attributes:
        trouble: why it cannot be followed at present; empty if it can be.

    Raises:
        UsageError: if an address is not one, or may not be connected with this protection.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        changes_queue: str,
        replay_queue: str,
        protection: Connecting,
    ) -> None:
        self._changes_queue = changes_queue
        self._protection = protection
        self._failing_since: float | None = None
        self._apart_since: float | None = None
        self._refused = ""
        self._next_open = 0.0
        self.trouble = ""
        self._log = LimitedLog(log)
        self._changes = Line(
            context,
            zmq.SUB,
            changes_queue,
            protection,
            most=sockets.MAX_PUBLISHED,
            high_water=sockets.MAX_CHANGES_WAITING,
        )
        self._replay: Line | None = None
        if replay_queue:
            try:
                self._replay = Line(
                    context,
                    zmq.DEALER,
                    replay_queue,
                    protection,
                    most=sockets.MAX_MESSAGE,
                    high_water=sockets.MAX_REPLAY_WAITING,
                )
            except BaseException:
                self._changes.close()
                raise

    @property
    def changes(self) -> zmq.Socket[bytes]:
        """The socket to its PUB; another one after it was opened anew."""
        return self._changes.socket

    @property
    def replay(self) -> zmq.Socket[bytes] | None:
        """The socket to its ROUTER; None if it has none."""
        return self._replay.socket if self._replay is not None else None

    @property
    def changes_open(self) -> bool:
        """True if what comes on `changes` counts."""
        return self._changes.open

    @property
    def replay_open(self) -> bool:
        """True if what comes on `replay` counts."""
        return self._replay is not None and self._replay.open

    @property
    def distrust(self) -> str:
        """Why what is at one of its addresses is not believed; empty if it is."""
        return next((line.distrust for line in self._lines if line.distrust), "")

    @property
    def _lines(self) -> list[Line]:
        return [self._changes, *([self._replay] if self._replay is not None else [])]

    @property
    def _handshakes(self) -> list[Handshakes]:
        return [line.handshakes for line in self._lines if line.handshakes is not None]

    def open_replay_again(self) -> None:
        """Expect no more answers; those that still come go with the socket."""
        if self._replay is not None:
            self._replay.open_again()

    @property
    def replay_broken_off(self) -> bool:
        """True if the publisher broke the protocol on the replay socket: nothing more comes."""
        handshakes = self._replay.handshakes if self._replay is not None else None
        return handshakes is not None and handshakes.given_up and not handshakes.failed

    def look(self) -> None:
        """Take note of what happened to the connections since the last look."""
        for line in self._lines:
            line.look()

    def mend(self, now: float) -> bool:
        """Say it when the publisher and we do not know each other, and try again.

        Args:
            now: seconds, on the monotonic clock.

        Returns:
            True if the replay socket was opened anew: what was asked for will not be answered.
        """
        if all(line.connected for line in self._lines):
            self._failing_since = self._apart_since = None
            if self.trouble:
                self._log.log(
                    NOTICE,
                    "the publisher at %s lets us in again",
                    self._changes_queue,
                    extra=event("publisher-lets-in", address=self._changes_queue),
                )
                self.trouble = self._refused = ""
            return False
        if self._apart_since is None:
            self._apart_since = now
        failed = [one for one in self._handshakes if one.failed]
        if failed:
            if self._failing_since is None:
                self._failing_since = now
            if now - self._failing_since < PATIENCE:
                return False  # it may have been stopped at that moment
            # One that refuses us may also break off before it has said so.
            if any(one.refused for one in failed):
                self._refused = self._refused or str(self._estranged(True))
            trouble = self._refused or str(self._estranged(False))
            if trouble != self.trouble:
                self._log.error(
                    "%s",
                    trouble,
                    extra=event("publisher-refuses", address=self._changes_queue),
                )
                self.trouble = trouble
        given_up = failed or any(one.given_up for one in self._handshakes)
        if now >= self._next_open and (given_up or now - self._apart_since >= REOPEN_DELAY):
            self._next_open = now + MAX_WAIT
            self._apart_since = now
            return self._open_again()
        return False

    def _open_again(self) -> bool:
        """Open those sockets anew that have no connection; the others may hold messages."""
        handshakes = self._changes.handshakes
        if handshakes is not None and not handshakes.succeeded:
            broken = handshakes.given_up and not handshakes.failed
            if broken:
                self._log.warning(
                    "the publisher at %s broke the protocol (a frame of more than %d KiB?); it is"
                    " connected anew",
                    self._changes_queue,
                    sockets.MAX_PUBLISHED // 1024,
                    extra=event("publisher-breaks-protocol", address=self._changes_queue),
                )
            self._changes.open_again()
        handshakes = self._replay.handshakes if self._replay is not None else None
        if handshakes is not None and not handshakes.succeeded:
            self.open_replay_again()
            return True
        return False

    def _estranged(self, refused: bool) -> PeerError:
        operation = f"follow the publisher at {self._changes_queue}"
        pair = self._protection.pair
        if pair is None or not self._changes_queue.startswith("tcp://"):
            return PeerError(
                operation,
                "it breaks off, as one does that demands CURVE, or is not a publisher",
                "give --curve-key and --curve-server-key, if it has keys",
            )
        if refused:
            return PeerError(
                operation,
                f"it does not allow our key {pair.public.decode()}",
                "put that key among its --allowed-keys",
            )
        return PeerError(
            operation,
            f"it has not the key {self._protection.server_key.decode()}, or does not use CURVE",
            "give its public key with --curve-server-key; `piw-indexer keys --show` there tells it",
        )

    def close(self) -> None:
        """Close the sockets."""
        for line in self._lines:
            line.close()
