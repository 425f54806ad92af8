"""What the daemon and its writer process say to each other over their pipe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import Problem
from ..index.waiting import Waiting


@dataclass(frozen=True)
class Options:
    """What the writer works with.

    Attributes:
        index_path: of the index.
        output_path: the root of the site.
        site_url: of the site, without a slash at its end.
        settle: seconds that a package must have been quiet.
        max_delay: seconds after which it is written even if it never is.
        intervals: seconds between two times that documents are written, by the name of a kind,
            where they are not the kind's own.
        log_level: of its log.
    """

    index_path: Path
    output_path: Path
    site_url: str
    settle: float
    max_delay: float
    intervals: Mapping[str, float]
    log_level: int = logging.WARNING


@dataclass(frozen=True)
class Wake:
    """There are new marks. The writer answers with `MarksRead`."""


@dataclass(frozen=True)
class Ping:
    """Are you there? The writer answers with `Pong`. The daemon is so many seconds behind."""

    behind_seconds: float


@dataclass(frozen=True)
class WindowMoved:
    """The 30-day window of the index is where `MoveWindow` asked for."""


@dataclass(frozen=True)
class Stop:
    """Publish what is waiting, and end."""


Order = Wake | Ping | WindowMoved | Stop
"""What the daemon says."""


@dataclass(frozen=True)
class Ready:
    """The writer has started."""


@dataclass(frozen=True)
class Pong:
    """The writer is there."""


@dataclass(frozen=True)
class MarksRead:
    """The writer has read all marks that were there when it was woken."""


@dataclass(frozen=True)
class NamesWritten:
    """What belongs to `names` is safe on the disk up to `serial`; `changed` had to be written.

    `waiting` has how many versions wait to be built, by package and ABI.
    """

    serial: int
    names: list[str]
    changed: int
    waiting: Mapping[str, Waiting]


@dataclass(frozen=True)
class MoveWindow:
    """Move the 30-day window: `start` is its first hour, in seconds since 1970."""

    start: int


@dataclass(frozen=True)
class KindWritten:
    """The documents of a periodic kind are safe on the disk, as of a version."""

    kind: str
    version: str


@dataclass(frozen=True)
class Failing:
    """Publishing fails, and is tried again; `problem` says why."""

    problem: Problem


@dataclass(frozen=True)
class Recovered:
    """Nothing fails any more."""


Report = Ready | Pong | MarksRead | NamesWritten | MoveWindow | KindWritten | Failing | Recovered
"""What the writer says."""
