"""The master's status feed: frames into frozen, typed messages; pure.

Source: piwheels 0.23, `piwheels/master/big_brother.py`, `slave_driver.py` and `states.py`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ...base.errors import DecodeError
from ...base.times import Time
from ...schema import piwheels as schema
from ...schema.messages import Validator
from .. import cbor
from .picture import MasterStats, SlaveStats

MAX_BYTES = 64 * 1024
"""Bytes of a frame; a master's frames have some hundred."""


class MasterHello(NamedTuple):
    """Who the master is; it answers every hello of a monitor with this."""

    started: Time
    label: str
    os_name: str
    os_version: str
    board_revision: str
    board_serial: str


class SlaveHello(NamedTuple):
    """Who a slave is; time-outs are in seconds."""

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


class Build(NamedTuple):
    """What a slave is told to build."""

    package: str
    version: str


class Slave(NamedTuple):
    """What a slave said, or what the master told it.

    Attributes:
        slave_id: the number that the master gave it; a restarted master counts from 1 again.
        at: when the master last saw it, by the master's clock; with HELLO: when it saw it first.
        name: HELLO, STATS, ACK, SLEEP, BUILD, SEND, DONE or DIE.
        data: for each of these: `SlaveHello`, `SlaveStats`, None, whether it is to pause, `Build`,
            a filename, None, None.
    """

    slave_id: int
    at: Time
    name: str
    data: SlaveHello | SlaveStats | Build | str | bool | None


class Unknown(NamedTuple):
    """A message of a newer piwheels, which means nothing to us."""

    name: str


Message = MasterHello | MasterStats | Slave | Unknown

_NAME = re.compile(r"[A-Z]{2,20}")
"""What looks like the name of a message."""

_MESSAGES: dict[str, Validator] = {
    "HELLO": schema.MASTER_HELLO,
    "STATS": schema.MASTER_STATS,
    "SLAVE": schema.SLAVE,
}


def decode(frames: list[bytes]) -> Message:
    """The message that came as `frames`.

    Raises DecodeError if they are not a message; no other error is raised, whatever the bytes.
    """
    if len(frames) != 1:
        raise DecodeError("", f"a message has one frame, this has {len(frames)}")
    name, data = cbor.loads(frames[0], MAX_BYTES)
    if name not in _MESSAGES and _NAME.fullmatch(name):
        return Unknown(name)
    valid = cbor.checked(_MESSAGES, name, data)
    if name == "HELLO":
        return MasterHello(**valid)
    if name == "STATS":
        for key in ("builds_last_hour", "builds_pending"):
            valid[key] = dict(sorted(valid[key].items()))
        return MasterStats(**valid)
    if valid["name"] not in schema.SLAVE_MESSAGES and _NAME.fullmatch(valid["name"]):
        return Unknown(f"SLAVE {valid['name']}")
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
