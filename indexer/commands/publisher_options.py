"""The options of a publisher: where it publishes, and who may subscribe."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from ..base import options
from ..feed import security


class Publishing(NamedTuple):
    """As the command line has them; `options.grouped` gives them to a command."""

    changes_queue: tuple[str, ...]
    replay_queue: tuple[str, ...]
    curve_key: Path | None
    allowed_keys: Path | None
    allow_insecure_tcp: bool
    ipc_mode: int
    ipc_group: str | None
    feed: str | None

    @property
    def name(self) -> str:
        return self.feed or socket.gethostname()

    def checked(self, command: str) -> tuple[tuple[str, str], security.Binding]:
        """The addresses of PUB and ROUTER, and who may connect.

        Raises UsageError if something is missing, or keys cannot be read.
        """
        queues = options.feed(command, self.changes_queue, self.replay_queue)
        return queues, security.for_publisher(
            queues,
            self.curve_key,
            self.allowed_keys,
            self.allow_insecure_tcp,
            self.ipc_mode,
            self.ipc_group,
        )
