"""The state of the indexer, for a monitoring system: one line and an exit status.

They follow the guidelines for plugins of Nagios, Icinga and others
(https://www.monitoring-plugins.org/doc/guidelines.html): exit status 0 OK, 1 WARNING, 2 CRITICAL,
3 UNKNOWN; after a bar, the performance data `label=value[UOM]`.
"""

from __future__ import annotations

from ..base.errors import StateError
from . import alerts
from .status import Status, unreadable

NAME = "PIW-INDEXER"
OK, WARNING, CRITICAL, UNKNOWN = range(4)

_STATES = {"": (OK, "OK"), "warning": (WARNING, "WARNING"), "critical": (CRITICAL, "CRITICAL")}

_DATA = (
    ("serial", "serial", "c"),
    ("lag", "lag", ""),
    ("lag_seconds", "lag_seconds", "s"),
    ("pending", "pending", ""),
    ("oldest_pending", "oldest_pending_seconds", "s"),
    ("quarantined", "quarantined", ""),
    ("journal", "journal_bytes", "B"),
    ("disk_free", "disk_free_bytes", "B"),
    ("output_disk_free", "output_disk_free_bytes", "B"),
)
"""Label, field of `Status`, and unit; what is not known is left out."""


def line(status: Status) -> tuple[str, int]:
    """The line that a plugin prints for this status, and its exit status."""
    code, word = _STATES[alerts.worst(status.alerts)]
    wrong = "; ".join(alert.what for alert in status.alerts if alert.severity != alerts.NOTICE)
    text = wrong or f"serial {status.serial}, {status.lag} behind"
    data = " ".join(
        f"{label}={value}{unit}"
        for label, field, unit in _DATA
        if (value := getattr(status, field)) is not None
    )
    return f"{NAME} {word} - {_plain(text)} | {data}", code


def unknown(error: StateError) -> tuple[str, int]:
    """Likewise, where the state cannot be read."""
    return f"{NAME} UNKNOWN - {_plain(unreadable(error).what)}", UNKNOWN


def _plain(text: str) -> str:
    """The text on one line, without bars: a bar would begin the performance data."""
    return " ".join(text.replace("|", "/").split())
