"""What an admin reads from a machine's figures: which board it is, and what is alarming."""

from __future__ import annotations

from ...base.times import SECOND, Time
from .picture import MasterStats, SlavePicture, SlaveStats

MIN_DISK = MIN_MEMORY = 0.1
"""Share that should be free."""

MIN_SWAP = 0.5
MAX_LOAD = 8.0
"""A slave builds one package at a time, with as many jobs as a Raspberry Pi has cores: four."""

MAX_TEMPERATURE = 80.0
"""Celsius; a Raspberry Pi slows itself down from here on."""

MAX_SKEW = 60.0
"""Seconds that a slave's clock may be wrong."""


_MODELS = {
    0x00: "A", 0x01: "B", 0x02: "A+", 0x03: "B+", 0x04: "2B", 0x06: "CM1", 0x08: "3B",
    0x09: "Zero", 0x0A: "CM3", 0x0C: "Zero W", 0x0D: "3B+", 0x0E: "3A+", 0x10: "CM3+", 0x11: "4B",
    0x12: "Zero 2 W", 0x13: "400", 0x14: "CM4", 0x15: "CM4S", 0x17: "5", 0x18: "CM5",
    0x19: "500", 0x1A: "CM5 Lite",
}  # fmt: skip


def board(revision: str) -> str:
    """The machine that a revision code stands for, `Pi 4B 1.5, 2 GiB`; the code if it is unknown.

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


def alerts(slave: SlavePicture, now: Time) -> tuple[str, ...]:
    """What an admin should look at, each in a few words; `now` is by the master's clock."""
    texts = [*machine_alerts(slave.stats)]
    skew = slave.clock_skew
    if skew is not None and abs(skew) > MAX_SKEW:
        texts.append(f"its clock is {abs(skew):,.0f} s {'slow' if skew > 0 else 'fast'}")
    silent = (now - slave.last_seen) / SECOND
    if slave.busy_timeout is not None and silent > slave.busy_timeout / 2:
        texts.append(f"silent for {silent:,.0f} s")
    return tuple(texts)


def machine_alerts(stats: MasterStats | SlaveStats | None) -> tuple[str, ...]:
    """Likewise, for what a machine's figures alone show."""
    if stats is None:
        return ()
    texts = []
    for name, free, size, minimum in (
        ("disk", stats.disk_free, stats.disk_size, MIN_DISK),
        ("memory", stats.mem_free, stats.mem_size, MIN_MEMORY),
        ("swap", stats.swap_free, stats.swap_size, MIN_SWAP),
    ):
        if free < size * minimum:
            texts.append(f"{name} {100 - 100 * free // size} % full")
    if stats.load_average > MAX_LOAD:
        texts.append(f"load {stats.load_average:,.1f}")
    if stats.cpu_temp >= MAX_TEMPERATURE:
        texts.append(f"{stats.cpu_temp:,.0f} °C")
    return tuple(texts)
