"""The options of a publisher, which several commands have: where, and who may follow it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from ..base import options
from ..feed import security

_Function = Callable[..., Any]


class Publishing(NamedTuple):
    """Where a feed is published, and who may follow it."""

    changes_queue: str
    replay_queue: str
    curve_key: Path | None
    allowed_keys: Path | None
    insecure: bool
    ipc_mode: int
    ipc_group: str | None
    feed: str

    def protection(self) -> security.Binding:
        """Who may connect.

        Raises:
            UsageError: if that is not complete, or keys cannot be read.
        """
        return security.for_publisher(
            (self.changes_queue, self.replay_queue),
            self.curve_key,
            self.allowed_keys,
            self.insecure,
            self.ipc_mode,
            self.ipc_group,
        )


def publishing(function: _Function) -> _Function:
    """A decorator that gives a command the options of a publisher, as the argument `publishing`."""

    @wraps(function)
    def command(
        *arguments: Any,
        changes_queue: tuple[str, ...],
        replay_queue: tuple[str, ...],
        curve_key: Path | None,
        allowed_keys: Path | None,
        allow_insecure_tcp: bool,
        ipc_mode: int,
        ipc_group: str | None,
        feed: str | None,
        **others: Any,
    ) -> Any:
        given = Publishing(
            *options.feed(function.__name__, changes_queue, replay_queue),
            curve_key,
            allowed_keys,
            allow_insecure_tcp,
            ipc_mode,
            ipc_group,
            feed or socket.gethostname(),
        )
        return function(*arguments, publishing=given, **others)

    for decorate in (
        options.option("feed"),
        options.option("ipc-group"),
        options.option("ipc-mode"),
        options.flag("allow-insecure-tcp"),
        options.option("allowed-keys"),
        options.option("curve-key"),
        options.option("replay-queue"),
        options.option("changes-queue"),
    ):
        command = decorate(command)
    return command
