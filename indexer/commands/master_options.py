"""The options of commands that ask a master, or read its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click
from click.core import ParameterSource

from ..base import clock
from ..base.errors import UsageError
from ..feed import ipc, security
from ..piwheels.backfill.asker import Asker
from ..piwheels.queues.oracle import connected
from ..piwheels.sources import refuse_inproc

_NEARER = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
"""Where an option may come from; what comes earlier here counts more."""


class Asking(NamedTuple):
    """As the command line has them; `options.grouped` gives them to a command."""

    db_queue: str | None
    dsn: str | None
    ipc_peer: tuple[str, ...]
    allow_insecure_tcp: bool
    pause: float

    def database(self, operation: str) -> str | None:
        """The database to read; None if the database queue is to be asked.

        A --dsn of the command line counts more than the db-queue in the file of the daemon.

        Raises:
            UsageError: if neither is given, or both at the same place.
        """
        if self.db_queue is None or self.dsn is None:
            if self.db_queue is None and self.dsn is None:
                raise UsageError(
                    operation,
                    "neither --db-queue nor --dsn is given",
                    "set db-queue = ipc:///run/piw-indexer/db in the master's configuration,"
                    " restart it, and give the same here; or give as --dsn the database of the"
                    " master",
                )
            return self.dsn
        source = click.get_current_context().get_parameter_source
        queue, dsn = (_NEARER.index(source(name)) for name in ("db_queue", "dsn"))
        if queue == dsn:
            raise UsageError(
                operation, "--db-queue and --dsn exclude each other", "give one of them"
            )
        return self.dsn if dsn < queue else None

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
