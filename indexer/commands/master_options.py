"""The options of commands that ask a master: its address, its user, and how fast to ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ..base import clock
from ..feed import ipc, security
from ..piwheels.backfill.asker import Asker
from ..piwheels.queues.oracle import connected
from ..piwheels.sources import refuse_inproc


class Asking(NamedTuple):
    """As the command line has them; `options.grouped` gives them to a command."""

    db_queue: str | None
    ipc_peer: tuple[str, ...]
    allow_insecure_tcp: bool
    pause: float

    def protection(self) -> security.Connecting:
        """Who may be the master.

        Raises:
            UsageError: if there is no such user, or anybody or nobody could answer at the address.
        """
        assert self.db_queue is not None
        refuse_inproc("--db-queue", self.db_queue)
        peers = ipc.user_ids(self.ipc_peer)
        protection = security.Connecting(insecure=self.allow_insecure_tcp, peers=peers)
        security.endpoint("connect to", self.db_queue, protection)
        return protection

    @contextmanager
    def asker(self, protection: security.Connecting) -> Iterator[Asker]:
        assert self.db_queue is not None
        with connected(self.db_queue, clock.monotonic, protection) as oracle:
            yield Asker(oracle, self.pause, clock.now, clock.sleep)
