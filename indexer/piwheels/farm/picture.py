"""The farm at one moment: what its model gives out, frozen."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...base.times import Time
from .messages import Build, MasterHello, MasterStats, SlaveHello, SlaveStats

Doing = Literal["", "starting", "idle", "paused", "building", "sending", "cleaning"]
"""What a slave does; '' if nobody has said it yet."""

Outcome = Literal["success", "fail", "unknown"]


class SlavePicture(NamedTuple):
    """A slave that is there; times are the master's.

    Attributes:
        hello: who it is; None if that was said before anybody listened.
        first_seen: when it came; None as above.
        last_seen: when the master last heard of it.
        doing: what it does.
        since: since when; None if `doing` is ''.
        since_exact: false if it may do so for longer: the beginning was not heard.
        build: what it builds, sends or cleans up after; None if nothing, or not known.
        file: the file that it sends; '' if none.
        succeeded: builds of it that were seen to succeed.
        failed: builds of it that were seen to fail, or to be skipped.
        stats: its last figures; None if there were none.
        clock_skew: seconds that its clock is behind the master's; None if not known.
    """

    slave_id: int
    hello: SlaveHello | None
    first_seen: Time | None
    last_seen: Time
    doing: Doing
    since: Time | None
    since_exact: bool
    build: Build | None
    file: str
    succeeded: int
    failed: int
    stats: SlaveStats | None
    clock_skew: float | None


class MasterPicture(NamedTuple):
    """The master, as far as it has said; `last_seen` is its own time."""

    last_seen: Time
    hello: MasterHello | None
    stats: MasterStats | None


class Finished(NamedTuple):
    """A build that has ended.

    Attributes:
        label: of the slave; '' if not known.
        abi_tag: of the slave; '' if not known.
        outcome: a skipped build fails, too; "unknown" if the slave left, or its end was not heard.
        began: None if that was not heard.
        ended: by the master's clock.
    """

    slave_id: int
    label: str
    abi_tag: str
    package: str
    version: str
    outcome: Outcome
    began: Time | None
    ended: Time


class Picture(NamedTuple):
    """The farm at one moment.

    Attributes:
        at: the moment, by the master's clock, as far as that is known; else 0.
        master: None before it has said anything.
        slaves: those that are there, by number.
        finished: the builds that ended last, the latest first.
    """

    at: Time
    master: MasterPicture | None
    slaves: tuple[SlavePicture, ...]
    finished: tuple[Finished, ...]


EMPTY = Picture(0, None, (), ())
