"""The state of the indexer, for a monitoring system: one line and an exit status.

Both are those of the monitoring plugins of Nagios, Icinga and others, as their development
guidelines have them (https://www.monitoring-plugins.org/doc/guidelines.html): 0 OK, 1 WARNING,
2 CRITICAL, 3 UNKNOWN, and after a bar the performance data `label=value[UOM]`.
"""

from __future__ import annotations

from typing import Any

from ..base.errors import StateError
from . import alerts
from .status import unreadable

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
"""Label, key of `status.gather`, and unit; what is not known is left out."""


def line(found: dict[str, Any]) -> tuple[str, int]:
    """What a plugin says, and its exit status.

    Args:
        found: what `status.gather` says.
    """
    severity = alerts.worst(found["alerts"])
    status, word = _STATES[severity]
    said = "; ".join(one["what"] for one in found["alerts"] if one["severity"] != alerts.NOTICE)
    text = said or f"serial {found['serial']}, {found['lag']} behind"
    data = " ".join(
        f"{label}={found[key]}{unit}" for label, key, unit in _DATA if found[key] is not None
    )
    return f"{NAME} {word} - {_plain(text)} | {data}", status


def unknown(error: StateError) -> tuple[str, int]:
    """Likewise, where the state cannot be read."""
    return f"{NAME} UNKNOWN - {_plain(unreadable(error).what)}", UNKNOWN


def _plain(text: str) -> str:
    """On one line; a bar would begin the performance data."""
    return " ".join(text.replace("|", "/").split())
