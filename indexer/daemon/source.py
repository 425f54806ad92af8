"""What the daemon takes messages from besides change feeds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import zmq

from ..base.errors import Problem
from ..journal.journal import Journal
from ..messages.entries import Entry, Row


class DaemonContext(NamedTuple):
    """What the daemon lends to its sources.

    Attributes:
        context: of ZeroMQ; the daemon destroys it, with all sockets, at the end.
        journal: to look things up, never to append.
        connection: writes the index; to be used between batches, in transactions of one's own.
        wake: makes the daemon call `receive`; any thread may call it.
    """

    context: zmq.Context[Any]
    journal: Journal
    connection: sqlite3.Connection
    wake: Callable[[], None]


class Source(Protocol):
    """Something that the daemon takes messages from, on its only thread; no method blocks."""

    @property
    def problem(self) -> Problem | None:
        """What is wrong with the source; None if nothing is."""

    @property
    def distrust(self) -> Problem | None:
        """Why a peer of the source is not trusted; None if all are."""

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        """The sockets to poll for input now."""

    def receive(self, limit: int, until: float) -> list[Entry]:
        """What arrived, in order; returns when nothing is left to read.

        Args:
            limit: messages to take off the sockets.
            until: when to return at the latest, on the monotonic clock.
        """

    def accepted(self, rows: Sequence[Row]) -> None:
        """Notice messages that were just journaled and applied, whatever source they came from."""

    def tick(self) -> None:
        """Check timeouts; called about once a second."""

    def due_in(self) -> float:
        """Seconds until `receive` should be called even if nothing has arrived."""

    def live(self) -> dict[str, tuple[Any, ...]]:
        """The status of the source: NamedTuples of `status_file`, by the name of their field."""

    def drain(self) -> None:
        """Stop taking messages in; `receive` still returns those that have arrived."""

    def close(self) -> None:
        """Close all sockets and end all threads."""


OpenSources = Callable[[DaemonContext], Iterable[Source]]
"""Opens the sources one after the other, once the daemon has opened its state.

Raises:
    IndexerError: if one cannot be opened.
"""
