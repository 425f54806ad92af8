"""The master's status feed: frames into frozen, typed messages; pure.

Source: piwheels 0.23, `piwheels/master/big_brother.py`, `slave_driver.py` and `states.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...base.errors import DecodeError
from ...base.times import Time
from ...schema import piwheels as schema
from ...schema.messages import Validator
from .. import cbor

MAX_BYTES = 64 * 1024
"""Of a frame; those of a master have some hundred."""


class MasterHello(NamedTuple):
    """Who the master is; said again whenever a monitor says hello."""

    started: Time
    label: str
    os_name: str
    os_version: str
    board_revision: str
    board_serial: str


class MasterStats(NamedTuple):
    """How the master does: bytes, seconds, Celsius; maps are sorted pairs (ABI, number).

    After a hello the last ones are said again, the oldest first.
    """

    at: Time
    packages_built: int
    builds_last_hour: tuple[tuple[str, int], ...]
    builds_time: float
    builds_size: int
    builds_pending: tuple[tuple[str, int], ...]
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


class SlaveHello(NamedTuple):
    """Who a slave is; time-outs in seconds."""

    build_timeout: float
    busy_timeout: float
    native_py_version: str
    native_abi: str
    native_platform: str
    label: str
    os_name: str
    os_version: str
    board_revision: str
    board_serial: str


class SlaveStats(NamedTuple):
    """How a slave does: bytes, Celsius; `at` is by its own clock."""

    at: Time
    disk_size: int
    disk_free: int
    mem_size: int
    mem_free: int
    swap_size: int
    swap_free: int
    load_average: float
    cpu_temp: float


class Build(NamedTuple):
    """What a slave is told to build."""

    package: str
    version: str


class Slave(NamedTuple):
    """Something that a slave said or was told.

    Attributes:
        slave_id: the master's number of it; it counts anew whenever it starts.
        at: when the master last saw it, by the master's clock; of a HELLO: when first.
        name: HELLO, STATS, ACK, SLEEP, BUILD, SEND, DONE or DIE.
        data: `SlaveHello`, `SlaveStats`, None, whether it is to pause, `Build`, a filename, None,
            None.
    """

    slave_id: int
    at: Time
    name: str
    data: SlaveHello | SlaveStats | Build | str | bool | None


Message = MasterHello | MasterStats | Slave

_MESSAGES: dict[str, Validator] = {
    "HELLO": schema.MASTER_HELLO,
    "STATS": schema.MASTER_STATS,
    "SLAVE": schema.SLAVE,
}


def decode(frames: list[bytes]) -> Message:
    """The message that came as `frames`.

    Raises:
        DecodeError: whatever they are, this and nothing else.
    """
    if len(frames) != 1:
        raise DecodeError("", f"a message has one frame, this has {len(frames)}")
    name, data = cbor.loads(frames[0], MAX_BYTES)
    valid = cbor.checked(_MESSAGES, name, data)
    if name == "HELLO":
        return MasterHello(**valid)
    if name == "STATS":
        for key in ("builds_last_hour", "builds_pending"):
            valid[key] = tuple(sorted(valid[key].items()))
        return MasterStats(**valid)
    return Slave(valid["slave_id"], valid["at"], valid["name"], _said(valid["name"], valid["data"]))


def _said(name: str, data: Any) -> Any:
    valid = cbor.checked(schema.SLAVE_MESSAGES, name, data, "SLAVE.data")
    if name == "HELLO":
        return SlaveHello(**valid)
    if name == "STATS":
        return SlaveStats(**valid)
    if name == "BUILD":
        return Build(**valid)
    return None if name == "ACK" else valid
