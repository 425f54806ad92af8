"""One process holds a state directory; the lock file says which."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from . import clock, directories, disk
from .errors import StateError

FILE = "lock"

WAIT = 0.5
"""Seconds: `holder` takes the lock for an instant to see whether anybody has it."""


class Lock:
    """Holds a directory until it is released, or the process ends.

    Args:
        directory: of the state; made if it is not there.
        command: what the process does, for whoever finds it locked.

    Raises:
        StateError: if another process holds it, or it cannot be made.
    """

    def __init__(self, directory: Path, command: str) -> None:
        path = directory / FILE
        try:
            directories.make(directory)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StateError(
                f"use the state directory {directory}",
                error.strerror or error,
                "check --state-dir, and that it belongs to the user that runs piw-indexer",
            ) from error
        if not take(self._descriptor, WAIT):
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StateError(
                f"use the state directory {directory}",
                f"it is locked by {holder or 'another process'}",
                "wait until that ends, or stop it (systemctl stop piw-indexer)",
            )
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"piw-indexer {command} (pid {os.getpid()})\n".encode(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise StateError(
                f"write to {path}",
                error.strerror or error,
                disk.remedy(error.errno or 0) or "check that the file system can be written",
                passing=True,
            ) from error

    def release(self) -> None:
        """Let others have it."""
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError:
            pass  # the name in it says nothing once the lock is gone
        os.close(self._descriptor)


def take(descriptor: int, seconds: float) -> bool:
    """Lock an open file or directory for this process alone; false if others keep it so long."""
    until = clock.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if clock.monotonic() >= until:
                return False
            clock.sleep(0.02)


def holder(directory: Path) -> str:
    """Who holds a state directory; empty if nobody does."""
    try:
        descriptor = os.open(directory / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return ""
