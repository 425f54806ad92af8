"""Small notes in the state directory: what a command did last, for `status` to show."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from . import filesystem
from .log import event

log = logging.getLogger(__name__)

CHECK = "check.json"
BACKUP = "backup.json"

MAX_NOTE = 16 * 1024 * 1024
"""Bytes of a note that is read; how a daemon with many slaves stands takes a hundredth of it."""


def read(path: Path) -> dict[str, Any] | None:
    """What another process noted; None if there is nothing that can be read."""
    try:
        found = json.loads(filesystem.read(path, MAX_NOTE))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def leave(path: Path, content: dict[str, Any]) -> None:
    """Leave a note. It is only good to know: that it cannot be written is no error."""
    try:
        filesystem.write(path, json.dumps(content).encode())
    except OSError as error:
        log.info(
            "cannot write %s: %s", path, error.strerror, extra=event("note-unwritable", path=path)
        )
