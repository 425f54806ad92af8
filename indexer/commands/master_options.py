"""The options of commands that ask a master: where it is, who may be it, how fast it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

from ..base import clock, options
from ..feed import ipc, security
from ..piwheels.backfill.asker import Asker
from ..piwheels.queues.oracle import connected

_Function = Callable[..., Any]


class Asking(NamedTuple):
    """Which master is asked, who may be it, and how many seconds apart the requests are."""

    db_queue: str | None
    ipc_peer: tuple[str, ...]
    insecure: bool
    pause: float

    def protection(self) -> security.Connecting:
        """Who may be the master.

        Raises:
            UsageError: if there is no such user, or anybody could answer at the address.
        """
        assert self.db_queue is not None
        protection = security.Connecting(insecure=self.insecure, peers=ipc.user_ids(self.ipc_peer))
        security.endpoint("connect to", self.db_queue, protection)
        return protection

    @contextmanager
    def asker(self, protection: security.Connecting) -> Iterator[Asker]:
        """Asks the master.

        Raises:
            UsageError: if its address is not one.
        """
        assert self.db_queue is not None
        with connected(self.db_queue, clock.monotonic, protection) as oracle:
            yield Asker(oracle, self.pause, clock.now, clock.sleep)


def asking(function: _Function) -> _Function:
    """A decorator that gives a command the options to ask a master, as the argument `asking`."""

    @wraps(function)
    def command(
        *arguments: Any,
        db_queue: str | None,
        ipc_peer: tuple[str, ...],
        allow_insecure_tcp: bool,
        pause: float,
        **others: Any,
    ) -> Any:
        given = Asking(db_queue, ipc_peer, allow_insecure_tcp, pause)
        return function(*arguments, asking=given, **others)

    for decorate in (
        options.option("pause"),
        options.flag("allow-insecure-tcp"),
        options.option("ipc-peer"),
        options.option("db-queue"),
    ):
        command = decorate(command)
    return command
