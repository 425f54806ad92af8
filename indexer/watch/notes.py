"""The notes that `status` shows: of a daemon on itself, and of the last check and backup."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from ..base.notes import At, Field, checked, plain
from ..daemon.status_file import Live, LiveDbQueue, LiveLogQueue, LiveStatusQueue
from ..piwheels.farm.picture import EMPTY, Picture
from .alerts import KINDS


def _picture(value: Any) -> Picture:
    picture: Picture = checked(value, Picture, "farm")
    if picture.at is None and picture != EMPTY:
        raise ValueError("nobody can have been seen at no time")
    return picture


class Sources(NamedTuple):
    """What the sources of a daemon say; None for those that it does not have."""

    farm: Annotated[Picture, Field(_picture, plain)] | None = None
    status_feed: LiveStatusQueue | None = None
    db_queue: LiveDbQueue | None = None
    log_queue: LiveLogQueue | None = None


class Daemon(NamedTuple):
    """What a daemon says of itself every second; `age_seconds` is how long ago it did."""

    live: Live
    sources: Sources
    age_seconds: float = 0.0


def _daemon(value: Any) -> Daemon:
    live: Live = checked(value, Live)
    for trouble in live.troubles:
        if trouble.id not in KINDS:
            raise ValueError(f"troubles: there is no alert {trouble.id!r}")
    if any(len(pair) != 2 for pair in live.queues):
        raise ValueError("queues: expected two addresses")
    return Daemon(live, checked(value, Sources))


def _daemon_data(daemon: Daemon) -> dict[str, Any]:
    sources = daemon.sources._replace(farm=None)  # `status` shows the farm beside the daemon
    return {**plain(daemon.live), **plain(sources), "age_seconds": daemon.age_seconds}


DaemonNote = Annotated[Daemon, Field(_daemon, _daemon_data)]


class Check(NamedTuple):
    """How the last check ended."""

    at: At
    finished: bool
    serial: int
    differences: int
    started: At | None = None
    fixed: int | None = None


class Backup(NamedTuple):
    """What the last backup has copied."""

    at: At
    directory: str
    serial: int


class BackupFailure(NamedTuple):
    """Why the last backup to a directory failed."""

    at: At
    directory: str
    what: str
    remedy: str
