"""A queue of the master's changes that are not published yet: ordered, limited, and never waiting.

Requests for the same package wait for each other, as they mostly do in the database. So changes
have the order of their commits wherever that matters. Nothing else waits. Changes that do not fit
are dropped and leave a gap.

The log of a failed build waits with its change, because reading it takes too long for a thread of
the master. One that does not fit is left out, and counted.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...base.clock import Clock
from ...base.times import Time
from .changes import Arguments, Change
from .unsettled import Marks

MAX_WAITING = 100_000
"""Changes that are kept while they cannot be published; about 100 MB."""

MAX_LOGS = 64 * 1024 * 1024
"""Bytes of logs that are kept with them, unless one alone is larger."""

_STRIPES = 64


class Item(NamedTuple):
    """A change that the database committed: the name of our message, when, and its data.

    The log of a failed build tells what is missing in its data: the reason.
    """

    name: str
    at: Time
    data: dict[str, Any]
    log: str = ""


@dataclass
class Gap:
    """Missing changes: why, and how many."""

    why: str
    count: int


class Outbox:
    """Takes changes from the threads of a master, and gives them to the thread that publishes.

    Args:
        marks: counts changes that begin and that are settled.
        clock: the time of a change.
        limit: how many changes are kept.
    """

    def __init__(self, marks: Marks, clock: Clock, limit: int = MAX_WAITING) -> None:
        self._marks = marks
        self._clock = clock
        self._limit = limit
        self._items: deque[Item | Gap] = deque()
        self._lock = threading.Lock()
        self._logs = 0  # bytes of logs
        self.left_out = 0
        """Logs that did not fit, so far."""
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """A descriptor that is readable when something has arrived."""
        self.abis: Item | None = None
        """The present build ABIs; earlier ones are not needed."""

    def put_abis(self, data: dict[str, Any]) -> None:
        self.abis = Item("SETABIS", self._clock(), data)
        self.ring()

    # For the threads of the master

    @contextmanager
    def in_order(self, packages: Iterable[str]) -> Iterator[None]:
        """Keep other threads from changing these packages meanwhile."""
        stripes = sorted({hash(package) % _STRIPES for package in packages})
        for number in stripes:  # always in the same order, to avoid deadlocks
            self._stripes[number].acquire()
        try:
            yield
        finally:
            for number in stripes:
                self._stripes[number].release()

    def begin(self) -> Time:
        self._marks.begin()
        return self._clock()

    def committed(self, change: Change, at: Time, arguments: Arguments, result: Any) -> None:
        """Take a change that the database has committed; never raises."""
        try:
            data, log = change.data(arguments, result), change.log(arguments)
        except Exception as error:  # noqa: BLE001 - the master did nothing wrong, and continues
            self.lose(f"a {change.message} of the master cannot be read: {error!r}")
            return
        if data is None:
            self._marks.settle()
        else:
            self.put(Item(change.message, at, data, log))

    def failed(self, error: BaseException) -> None:
        """Handle an error of the database: the change failed, or its outcome is unknown."""
        # SQLAlchemy gives no statement if it was the commit that got no answer.
        if getattr(error, "connection_invalidated", False) and error.statement is None:  # type: ignore[attr-defined]
            self.lose("the connection to the database broke off in a commit")
        else:
            self._marks.settle()

    def put(self, item: Item) -> None:
        """Keep a change; one that does not fit leaves a gap."""
        with self._lock:
            if len(self._items) >= self._limit:
                self._lose(f"more than {self._limit} changes waited to be published")
            else:
                self._items.append(self._with_log(item) if item.log else item)
            if len(self._items) == 1:
                self.ring()

    def _with_log(self, item: Item) -> Item:
        size = sys.getsizeof(item.log)
        if self._logs and self._logs + size > MAX_LOGS:
            self.left_out += 1
            return item._replace(log="")
        self._logs += size
        return item

    def lose(self, why: str) -> None:
        """Leave a gap for a change that cannot be published."""
        with self._lock:
            self._lose(why)
            self.ring()

    def _lose(self, why: str) -> None:
        if self._items and isinstance(last := self._items[-1], Gap):
            last.count += 1
        else:
            self._items.append(Gap(why, 1))

    # For the thread that publishes

    def ring(self) -> None:
        os.eventfd_write(self.bell, 1)

    def heard(self) -> None:
        """Reset the bell; the caller then takes all there is."""
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            pass  # it did not ring

    def take(self, limit: int) -> list[Item]:
        """Take up to `limit` changes, in order, up to the next gap."""
        taken: list[Item] = []
        with self._lock:
            while self._items and len(taken) < limit and isinstance(item := self._items[0], Item):
                self._items.popleft()
                taken.append(item)
        return taken

    def take_gap(self) -> Gap | None:
        """Take the gap that comes next; None if there is none, or a change comes first."""
        with self._lock:
            if self._items and isinstance(first := self._items[0], Gap):
                self._items.popleft()
                return first
            return None

    def forget(self, log: str) -> None:
        """Make room for others: a log that was taken has been read."""
        with self._lock:
            self._logs -= sys.getsizeof(log)

    def settle(self, count: int) -> None:
        """Note that so many changes are in the spool."""
        self._marks.settle(count)

    def __len__(self) -> int:
        return len(self._items)
