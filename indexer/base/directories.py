"""Directories that are there after a power cut, and what a state directory holds.

An entry is durable when the directory that it stands in is synced.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .errors import StateError

JOURNAL = "journal"
SPOOL = "spool"
"""A publisher's own journal: what it has sent, for those who missed something."""

LIVE = "daemon.json"
"""What the daemon says of itself, every second."""

CHECK = "check.json"
"""How the last check ended."""

BACKUP = "backup.json"
"""What the last backup copied."""

_LIBC = ctypes.CDLL(None, use_errno=True)

WHOLE = frozenset({"ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
"""File systems of which one call makes everything durable that was done before it."""


def sync(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Make durable whatever was written or renamed on the file system of an open directory.

    For many files at once it costs a fraction of syncing each. Source: syncfs(2), Linux 5.8 and
    later tell of errors here.

    Raises:
        OSError: if that fails.
    """
    if _LIBC.syncfs(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def syncs_whole(path: Path) -> bool:
    """True if `path` lies on a file system for which `sync_file_system` is as good as fsync.

    Source: proc_pid_mountinfo(5).
    """
    try:
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    kinds = {
        after.split()[0]
        for before, _, after in (line.partition(" - ") for line in lines.splitlines())
        if before.split()[2] == number
    }
    return bool(kinds) and kinds <= WHOLE


def make(path: Path, mode: int = 0o755) -> None:
    """Make a directory with a mode, and what is missing above it; durable on return.

    Raises:
        OSError: if it cannot be made.
    """
    path = path.absolute()
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        directory.mkdir(mode=mode if directory == path else 0o755, exist_ok=True)
        try:
            # Even if it is there: one that was killed may have made it just before.
            sync(directory.parent)
        except PermissionError:
            pass  # what others made for us above it is theirs to keep


def refuse_missing(directory: Path, *names: str) -> None:
    """Refuse a state directory that has none of these: a slip of the pen in --state-dir.

    Raises:
        StateError: if that is so.
    """
    try:
        there = any((directory / name).exists() for name in names)
    except OSError as error:
        raise StateError(
            f"look into the state directory {directory}",
            error.strerror or error,
            "do it as root, or as the user that it belongs to",
        ) from error
    if not there:
        raise StateError(
            f"use the state directory {directory}",
            f"there is no {names[0]} in it",
            "check --state-dir; the daemon or `piw-indexer ingest` makes it",
        )
