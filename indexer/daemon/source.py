"""What the daemon takes messages from besides change feeds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import zmq

from ..journal.journal import Journal
from ..messages.entries import Entry, Row


class DaemonContext(NamedTuple):
    """What the daemon lends to a source.

    Attributes:
        context: of ZeroMQ; its sockets end with it.
        journal: to look things up, never to append.
        connection: the one that writes the index; between batches, in a transaction of one's own.
        wake: may be called by a thread of the source: `receive` has something.
    """

    context: zmq.Context[Any]
    journal: Journal
    connection: sqlite3.Connection
    wake: Callable[[], None]


class Source(Protocol):
    """Something the daemon takes messages from, on its one thread; nothing in it blocks."""

    @property
    def trouble(self) -> str:
        """What is not well with it; empty if nothing is."""

    @property
    def distrust(self) -> str:
        """Why what is at an address of its is not believed; empty if it is."""

    def sockets(self) -> Sequence[zmq.Socket[Any]]:
        """Which to wait for input on, at this moment."""

    def receive(self, limit: int, until: float) -> list[Entry]:
        """What arrived, in order; returns at once when nothing waits any more.

        Args:
            limit: messages to take off the sockets.
            until: when to return at the latest, on the monotonic clock.
        """

    def accepted(self, rows: Sequence[Row]) -> None:
        """What was just journaled and applied, whatever source it came from."""

    def tick(self) -> None:
        """Look after time-outs; called about once a second."""

    def live(self) -> dict[str, Any]:
        """The state of the source, for `status`: keys of daemon.json."""

    def drain(self) -> None:
        """Take nothing more in: what has arrived is given by `receive` before the end."""

    def close(self) -> None:
        """Close its sockets, and end its threads."""


OpenSources = Callable[[DaemonContext], Iterable[Source]]
"""Opens sources, one after the other, when the daemon has its state.

Raises:
    IndexerError: if one cannot be opened.
"""
