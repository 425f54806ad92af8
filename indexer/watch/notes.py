"""The notes that `status` shows: what a daemon says of itself, and what a check and a backup left.

schema/status.schema.json says what the fields mean. A field that only a newer daemon writes is an
`Optional` here: the one that runs may be older than whoever asks.
"""

from __future__ import annotations

from typing import Any

from ..base.notes import (
    Map,
    Nullable,
    OneOf,
    Optional,
    amount,
    boolean,
    checked,
    count,
    number,
    path_text,
    text,
    time,
)
from .alerts import KINDS

DOING = ("", "starting", "idle", "paused", "building", "sending", "cleaning")
"""What a slave may do; '' if that is not known."""

OUTCOMES = ("success", "fail", "unknown")

_MACHINE = {
    "at": time,
    "disk_size": count,
    "disk_free": count,
    "mem_size": count,
    "mem_free": count,
    "swap_size": count,
    "swap_free": count,
    "load_average": number,
    "cpu_temp": number,
}

_WHO = {
    "label": Nullable(text),
    "os_name": Nullable(text),
    "os_version": Nullable(text),
    "board": Nullable(text),
    "board_revision": Nullable(text),
    "board_serial": Nullable(text),
    "last_seen": time,
    "alerts": [text],
}

_MASTER = {
    **_WHO,
    "started": Nullable(time),
    "stats": Nullable(
        {
            **_MACHINE,
            "packages_built": count,
            "builds_last_hour": Map(count),  # by ABI
            "builds_time": number,
            "builds_size": count,
            "builds_pending": Map(count),
            "new_last_hour": count,
            "files_count": count,
            "downloads_last_hour": count,
            "downloads_last_month": count,
            "downloads_all": count,
        }
    ),
}

_SLAVE = {
    **_WHO,
    "slave_id": count,
    "abi_tag": Nullable(text),
    "platform": Nullable(text),
    "py_version": Nullable(text),
    "build_timeout": Nullable(number),
    "busy_timeout": Nullable(number),
    "first_seen": Nullable(time),
    "doing": OneOf(DOING),
    "since": Nullable(time),
    "since_exact": boolean,
    "package": Nullable(text),
    "version": Nullable(text),
    "filename": Nullable(text),
    "builds_succeeded": count,
    "builds_failed": count,
    "stats": Nullable(_MACHINE),
    "clock_skew": Nullable(number),
}

_FINISHED = {
    "slave_id": count,
    "label": text,
    "abi_tag": text,
    "package": text,
    "version": text,
    "outcome": OneOf(OUTCOMES),
    "began": Nullable(time),
    "ended": time,
}

_FARM = {
    "at": Nullable(time),
    "master": Nullable(_MASTER),
    "slaves": [_SLAVE],
    "finished": [_FINISHED],
}


def _farm(value: Any) -> Any:
    found = checked(value, _FARM, "farm")
    if found["at"] is None and any(found[name] for name in ("master", "slaves", "finished")):
        raise ValueError("nobody can have been seen at no time")
    return found


def _queue_pair(value: Any) -> Any:
    found = checked(value, [text], "queues")
    if len(found) != 2:
        raise ValueError("expected two addresses")
    return found


_FEED = {
    "feed": text,
    "epoch": Nullable(count),
    "serial": count,
    "published": count,
    "lag": count,
    "lag_seconds": amount,
    "heard": time,
    "filling": boolean,
    "changes_queue": text,
    "replay_queue": text,
}

DAEMON = {
    "pid": count,
    "at": time,
    "started": time,
    "serial": count,
    "applied_serial": count,
    "pending": count,
    "oldest_pending_serial": Nullable(count),
    "oldest_pending_seconds": Nullable(amount),
    "accepted": count,
    "rate": amount,
    "trouble": text,
    "troubles": [{"id": OneOf(tuple(KINDS)), "text": text}],
    "written": count,
    "recently_published": [text],
    "last_published": Nullable(time),
    "counters_published": Nullable(time),
    "kinds_published": Optional(Map(time)),
    "feeds": [_FEED],
    "queues": [_queue_pair],
    "output_path": path_text,
    "farm": Optional(_farm),
    "status_feed": Optional(
        {
            "status_queue": text,
            "control_queue": Nullable(text),
            "connected": boolean,
            "silent_seconds": Nullable(number),
            "frames": count,
            "refused": count,
        }
    ),
    "db_queue": Optional(
        {"address": text, "asked": count, "taken": count, "due": count, "trouble": text}
    ),
    "log_queue": Optional(
        {
            "address": text,
            "forward": Nullable(text),
            "counted": Map(count),  # by the name of the message
            "forwarded": count,
            "waiting": count,
            "waiting_for_master": count,
            "lost": count,
            "not_forwarded": count,
        }
    ),
}
"""What the daemon says of itself, every second."""

CHECK = {
    "at": time,
    "started": Optional(time),
    "finished": boolean,
    "serial": count,
    "differences": count,
    "fixed": Optional(count),
}
"""How the last check ended."""

BACKUP = {"at": time, "directory": text, "serial": count}
"""What the last backup has copied."""
