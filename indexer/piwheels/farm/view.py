"""The farm as programs read it: plain data for JSON, and what an admin should look at."""

from __future__ import annotations

from typing import Any

from ...base import times
from ...base.times import SECOND, Time
from .messages import MasterStats, SlaveStats
from .picture import Finished, MasterPicture, Picture, SlavePicture

MIN_DISK = MIN_MEMORY = 0.1
"""Of the whole, that should be free."""

MIN_SWAP = 0.5
MAX_LOAD = 8.0
"""A slave builds one package at a time, with as many jobs as a Raspberry Pi has cores: four."""

HOTTEST = 80.0
"""Celsius from which on a Raspberry Pi slows down."""

MAX_SKEW = 60.0
"""Seconds that a slave's clock may be wrong."""


_MODELS = {
    0x00: "A", 0x01: "B", 0x02: "A+", 0x03: "B+", 0x04: "2B", 0x06: "CM1", 0x08: "3B",
    0x09: "Zero", 0x0A: "CM3", 0x0C: "Zero W", 0x0D: "3B+", 0x0E: "3A+", 0x10: "CM3+", 0x11: "4B",
    0x12: "Zero 2 W", 0x13: "400", 0x14: "CM4", 0x15: "CM4S", 0x17: "5", 0x18: "CM5",
    0x19: "500", 0x1A: "CM5 Lite",
}  # fmt: skip


def board(revision: str) -> str:
    """What machine a revision code stands for, `Pi 4B 1.5, 2 GiB`; the code if that is not known.

    Source: new-style revision codes,
    https://www.raspberrypi.com/documentation/computers/raspberry-pi.html#new-style-revision-codes
    """
    try:
        code = int(revision, 16)
    except ValueError:
        return revision
    model = _MODELS.get(code >> 4 & 0xFF)
    if not 0 <= code < 2**32 or not code >> 23 & 1 or model is None:
        return revision
    memory = 256 << (code >> 20 & 7)
    size = f"{memory} MiB" if memory < 1024 else f"{memory // 1024} GiB"
    return f"Pi {model} 1.{code & 0xF}, {size}"


def as_data(picture: Picture) -> dict[str, Any]:
    """The farm for JSON: times as RFC 3339, durations as float seconds, sizes in bytes.

    Returns:
        at: the moment, by the master's clock; null before it has said anything.
        master: null, or label, ..., last_seen, stats, alerts.
        slaves: slave_id, label, ..., doing, since, ..., alerts.
        finished: the last builds: slave_id, label, ..., package, version, outcome, began, ended.
    """
    return {
        "at": times.to_rfc3339(picture.at) if picture.master is not None else None,
        "master": _master(picture.master) if picture.master is not None else None,
        "slaves": [_slave(one, picture.at) for one in picture.slaves],
        "finished": [_finished(one) for one in picture.finished],
    }


def _master(master: MasterPicture) -> dict[str, Any]:
    hello, stats = master.hello, master.stats
    return {
        "label": hello.label if hello else None,
        "os_name": hello.os_name if hello else None,
        "os_version": hello.os_version if hello else None,
        "board": board(hello.board_revision) if hello else None,
        "board_revision": hello.board_revision if hello else None,
        "board_serial": hello.board_serial if hello else None,
        "started": times.to_rfc3339(hello.started) if hello else None,
        "last_seen": times.to_rfc3339(master.last_seen),
        "stats": _stats(stats),
        "alerts": _measured(stats),
    }


def _stats(stats: MasterStats | SlaveStats | None) -> dict[str, Any] | None:
    if stats is None:
        return None
    found = stats._asdict()
    found["at"] = times.to_rfc3339(stats.at)
    for name in ("builds_last_hour", "builds_pending"):
        if name in found:
            found[name] = dict(found[name])
    return found


def _slave(one: SlavePicture, now: Time) -> dict[str, Any]:
    hello = one.hello
    return {
        "slave_id": one.slave_id,
        "label": hello.label if hello else None,
        "abi_tag": hello.native_abi if hello else None,
        "platform": hello.native_platform if hello else None,
        "py_version": hello.native_py_version if hello else None,
        "os_name": hello.os_name if hello else None,
        "os_version": hello.os_version if hello else None,
        "board": board(hello.board_revision) if hello else None,
        "board_revision": hello.board_revision if hello else None,
        "board_serial": hello.board_serial if hello else None,
        "build_timeout": hello.build_timeout if hello else None,
        "busy_timeout": hello.busy_timeout if hello else None,
        "first_seen": _time(one.first_seen),
        "last_seen": times.to_rfc3339(one.last_seen),
        "doing": one.doing,
        "since": _time(one.since),
        "since_exact": one.since_exact,
        "package": one.build.package if one.build else None,
        "version": one.build.version if one.build else None,
        "filename": one.file or None,
        "builds_succeeded": one.succeeded,
        "builds_failed": one.failed,
        "stats": _stats(one.stats),
        "clock_skew": one.clock_skew,
        "alerts": alerts(one, now),
    }


def _finished(one: Finished) -> dict[str, Any]:
    return {
        **one._asdict(),
        "began": _time(one.began),
        "ended": times.to_rfc3339(one.ended),
    }


def alerts(one: SlavePicture, now: Time) -> list[str]:
    """What an admin should look at, each in a few words.

    Args:
        one: a slave.
        now: by the master's clock.
    """
    found = _measured(one.stats)
    if one.clock_skew is not None and abs(one.clock_skew) > MAX_SKEW:
        found.append(f"its clock is {abs(one.clock_skew):,.0f} s {_direction(one.clock_skew)}")
    silent = (now - one.last_seen) / SECOND
    if one.hello is not None and silent > one.hello.busy_timeout / 2:
        found.append(f"silent for {silent:,.0f} s")
    return found


def _direction(skew: float) -> str:
    return "slow" if skew > 0 else "fast"


def _measured(stats: MasterStats | SlaveStats | None) -> list[str]:
    if stats is None:
        return []
    found = []
    for name, free, size, least in (
        ("disk", stats.disk_free, stats.disk_size, MIN_DISK),
        ("memory", stats.mem_free, stats.mem_size, MIN_MEMORY),
        ("swap", stats.swap_free, stats.swap_size, MIN_SWAP),
    ):
        if free < size * least:
            found.append(f"{name} {100 - 100 * free // size} % full")
    if stats.load_average > MAX_LOAD:
        found.append(f"load {stats.load_average:,.1f}")
    if stats.cpu_temp >= HOTTEST:
        found.append(f"{stats.cpu_temp:,.0f} °C")
    return found


def _time(value: Time | None) -> str | None:
    return None if value is None else times.to_rfc3339(value)
