"""The farm at one moment: what its model gives out, what the index keeps, and what `status` shows.

The names of the fields are those of the tables in the index and of schema/status.schema.json.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...base.notes import At
from ...base.times import Time

Doing = Literal["", "starting", "idle", "paused", "building", "sending", "cleaning"]
"""What a slave does; '' if the feed has not said it yet."""

Outcome = Literal["success", "fail", "unknown"]


class MasterStats(NamedTuple):
    """The figures of a master: bytes, seconds, Celsius; maps are by ABI.

    After a hello the master repeats its last figures, the oldest first.
    """

    at: At
    packages_built: int
    builds_last_hour: dict[str, int]
    builds_time: float
    builds_size: int
    builds_pending: dict[str, int]
    new_last_hour: int
    files_count: int
    downloads_last_hour: int
    downloads_last_month: int
    downloads_all: int
    disk_size: int
    disk_free: int
    mem_size: int
    mem_free: int
    swap_size: int
    swap_free: int
    load_average: float
    cpu_temp: float


class SlaveStats(NamedTuple):
    """The figures of a slave: bytes, Celsius; `at` is by its own clock."""

    at: At
    disk_size: int
    disk_free: int
    mem_size: int
    mem_free: int
    swap_size: int
    swap_free: int
    load_average: float
    cpu_temp: float


class SlavePicture(NamedTuple):
    """A slave that is connected to the master; times are the master's.

    Attributes:
        label: with the fields down to `first_seen`: what its hello said; None if nobody listened
            then.
        board: the machine that `board_revision` stands for.
        build_timeout: seconds; `busy_timeout` likewise.
        last_seen: when the master last heard of it.
        since: when it began to do that; None if `doing` is ''.
        since_exact: false if it may have begun earlier: the beginning was not heard.
        package: with `version`: what it builds, sends or cleans up after; None if not known.
        filename: the file that it sends.
        builds_succeeded: builds of it that were seen to succeed.
        builds_failed: builds of it that were seen to fail, or to be skipped.
        stats: its last figures; None if there were none.
        clock_skew: seconds that its clock is behind the master's; None if not known.
        alerts: what an admin should look at.
    """

    slave_id: int
    label: str | None
    abi_tag: str | None
    platform: str | None
    py_version: str | None
    os_name: str | None
    os_version: str | None
    board: str | None
    board_revision: str | None
    board_serial: str | None
    build_timeout: float | None
    busy_timeout: float | None
    first_seen: At | None
    last_seen: At
    doing: Doing
    since: At | None
    since_exact: bool
    package: str | None
    version: str | None
    filename: str | None
    builds_succeeded: int
    builds_failed: int
    stats: SlaveStats | None
    clock_skew: float | None
    alerts: tuple[str, ...]


class MasterPicture(NamedTuple):
    """The master; what its hello says is None until it has said hello. Times are its own."""

    label: str | None
    os_name: str | None
    os_version: str | None
    board: str | None
    board_revision: str | None
    board_serial: str | None
    started: At | None
    last_seen: At
    stats: MasterStats | None
    alerts: tuple[str, ...]


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
    began: At | None
    ended: At


class Picture(NamedTuple):
    """The farm at one moment.

    Attributes:
        at: the moment, by the master's clock; None before the master has said anything.
        master: None likewise.
        slaves: those that are connected, by number.
        finished: the builds that ended last, the latest first.
    """

    at: At | None
    master: MasterPicture | None
    slaves: tuple[SlavePicture, ...]
    finished: tuple[Finished, ...]


EMPTY = Picture(None, None, (), ())

UNKNOWN_MASTER = MasterPicture(None, None, None, None, None, None, None, 0, None, ())


def unknown_slave(slave_id: int, last_seen: Time) -> SlavePicture:
    """A slave of which nothing else is known."""
    return SlavePicture(
        *(slave_id, None, None, None, None, None, None, None, None, None, None, None, None),
        *(last_seen, "", None, False, None, None, None, 0, 0, None, None, ()),
    )
