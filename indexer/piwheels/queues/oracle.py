"""A client of a running master's database queue: one request at a time, without waiting.

If the master does not answer in time, the next request uses a new socket, so that a late answer is
never taken for another one.

Source: piwheels 0.23, `piwheels/master/the_oracle.py` and `seraph.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import zmq

from ...base import printable
from ...base.errors import DecodeError, PeerError
from ...feed.monitored import MonitoredSocket
from ...feed.security import LOCAL_CONNECTING, Connecting
from ...messages import elements
from ...schema.messages import shown
from ...schema.piwheels import NO_DATA
from .. import cbor

ANSWER_TIMEOUT = 60.0
"""Seconds; some requests make the master's database work."""

SUMS_TIMEOUT = 1800.0
"""Seconds for the sums over all downloads."""

MAX_ANSWER = cbor.MAX_BYTES
"""Bytes of an answer: enough for the names of a million packages. A master that sends more is
disconnected."""

MAX_SUMS = 64 * 1024 * 1024
"""Bytes of an answer to a command: the counters of a million packages."""

MAX_SUMS_ELEMENTS = 4_000_000
"""Values in such an answer."""


class CannotTellError(PeerError):
    """The master answered with an error."""


@contextmanager
def connected(
    address: str, monotonic: Callable[[], float], protection: Connecting = LOCAL_CONNECTING
) -> Iterator[Oracle]:
    """A client with its own ZeroMQ context, for commands.

    Raises UsageError if the address is not a ZeroMQ address.
    """
    context: zmq.Context[Any] = zmq.Context()
    try:
        yield Oracle(
            context,
            address,
            monotonic,
            protection,
            max_bytes=MAX_SUMS,
            max_elements=MAX_SUMS_ELEMENTS,
        )
    finally:
        context.destroy(linger=0)


class Answer(NamedTuple):
    """An answer of a master.

    Attributes:
        name: of the request.
        data: None in case of an error.
        error: the master's text; empty if there was none.
        frame: the bytes.
    """

    name: str
    data: Any
    error: str
    frame: bytes


class Oracle:
    """A client of a master's database queue.

    Args:
        address: the master's `db-queue`.
        monotonic: seconds, for timeouts.
        protection: who may be the master, whose answers are published.
        answer_within: seconds that an answer may take.
        max_bytes: of an answer.
        max_elements: values in an answer.

    Attributes:
        peer: the socket to the master.

    Raises UsageError if the address is not a ZeroMQ address.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        monotonic: Callable[[], float],
        protection: Connecting = LOCAL_CONNECTING,
        answer_within: float = ANSWER_TIMEOUT,
        max_bytes: int = MAX_ANSWER,
        max_elements: int = elements.MAX_ELEMENTS,
    ) -> None:
        self._monotonic = monotonic
        self._answer_within = answer_within
        self._max_bytes, self._max_elements = max_bytes, max_elements
        self._asked = ""
        self._deadline = self._within = 0.0
        # `immediate`: a request is not queued while the master is away.
        self.peer = MonitoredSocket(
            context, zmq.REQ, address, protection, immediate=True, max_frame=max_bytes
        )
        self._endings = 0  # of connections, when it was asked
        self.received = 0
        """Bytes of all answers so far."""

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    def ask(self, name: str, data: Any = NO_DATA, within: float | None = None) -> bool:
        """Send a request, to be answered within so many seconds; false if the master is away."""
        assert not self._asked, "one request at a time"
        self.peer.look()
        if not self.peer.open:
            return False
        self._endings = self.peer.endings
        try:
            self.peer.socket.send(cbor.dumps(name, data), zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._asked = name
        self._within = self._answer_within if within is None else within
        self._deadline = self._monotonic() + self._within
        return True

    def answer(self) -> Answer | None:
        """The answer; None if it has not come yet.

        Raises:
            PeerError: if it did not come in time.
            DecodeError: if it is not an answer. In both cases the request is over.
        """
        if not self._asked:
            return None
        try:
            frames = self.peer.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            if self._went_away():
                cause = "it went away"
            elif self._monotonic() < self._deadline:
                return None
            else:
                cause = f"it did not answer within {self._within:g} s"
            asked = self._asked
            self._forget()
            raise PeerError(
                f"ask the master at {self.peer.address} for {asked}",
                cause,
                "see that piw-master runs, and that --db-queue is its db-queue",
            ) from None
        name, self._asked = self._asked, ""
        frame = frames[-1]
        self.received += len(frame)
        outcome, data = cbor.loads(frame, self._max_bytes, self._max_elements)
        if outcome == "OK":
            return Answer(name, None if data is NO_DATA else data, "", frame)
        if outcome == "ERROR":
            said = data.partition("\n")[0] if type(data) is str else shown(data)
            return Answer(name, None, printable.line(said) or "an error", frame)
        raise DecodeError("", f"an answer is OK or ERROR, this is {outcome[:20]!r}")

    def _forget(self) -> None:
        self._asked = ""
        self.peer.reopen()

    def _went_away(self) -> bool:
        """True if the connection of the request has ended, so that no answer will come."""
        self.peer.look()
        return self.peer.endings != self._endings

    def request(
        self,
        name: str,
        data: Any = NO_DATA,
        connect_within: float = 10.0,
        within: float | None = None,
    ) -> Any:
        """Send a request and wait for the answer; for commands.

        Raises:
            CannotTellError: if the master answers with an error.
            PeerError: if it is away, or does not answer in time.
        """
        operation = f"ask the master at {self.peer.address} for {name}"
        until = self._monotonic() + connect_within
        while not self.ask(name, data, within):
            if self.peer.distrust:
                raise PeerError(operation, *self.peer.distrust)
            if self._monotonic() >= until:
                raise PeerError(
                    operation,
                    f"no master was there within {connect_within:g} s",
                    "see that piw-master runs, and that --db-queue is its db-queue",
                )
            self.peer.socket.poll(50, zmq.POLLOUT)
        while True:
            self.peer.socket.poll(200)
            try:
                answer = self.answer()
            except DecodeError as error:
                raise PeerError(operation, str(error), "is it a piwheels master?") from error
            if answer is not None:
                break
        if answer.error:
            raise CannotTellError(operation, answer.error, "see the master's own log")
        return answer.data

    def close(self) -> None:
        self.peer.close()
