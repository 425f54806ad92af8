"""Directories that survive a power failure, and the names in a state directory.

A directory entry is durable once the directory that contains it is synced.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from .errors import StateError

JOURNAL = "journal"
SPOOL = "spool"
"""A publisher's own journal: what it has sent, so that it can be replayed."""

LIVE = "daemon.json"
"""The status of the daemon, written every second."""

CHECK = "check.json"
"""How the last check ended."""

BACKUP = "backup.json"
"""What the last backup copied."""

BACKUP_FAILURE = "backup-failure.json"
"""Why the last backup failed; removed by one to the same directory that does not."""

WHOLE = frozenset({"ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
"""File systems on which one syncfs makes all earlier changes durable."""


def sync(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Make all changes on the file system of an open directory durable.

    For many files, that costs a fraction of syncing each. Source: syncfs(2); Linux 5.8 and later
    report errors here.

    Raises OSError if that fails.
    """
    import ctypes  # only writers need it

    if libc().syncfs(descriptor):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def libc() -> Any:
    """The C library, for calls that Python lacks."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def syncs_whole(path: Path) -> bool:
    """True if `path` is on a file system where `sync_file_system` is as safe as fsync.

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
    """Make a directory with a mode, and missing ones above it; durable on return.

    Raises OSError if it cannot be made.
    """
    path = path.absolute()
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        directory.mkdir(mode=mode if directory == path else 0o755, exist_ok=True)
        try:
            # Even if it exists: a process that was killed may have just made it.
            sync(directory.parent)
        except PermissionError:
            pass  # directories above it that belong to others are their business


def refuse_missing(directory: Path, *names: str) -> None:
    """Refuse a state directory that contains none of these: --state-dir is probably mistyped.

    Raises StateError if so.
    """
    try:
        there = any((directory / name).exists() for name in names)
    except OSError as error:
        raise StateError(
            f"look into the state directory {directory}",
            error.strerror or error,
            "run the command as root, or as the user that owns the directory",
        ) from error
    if not there:
        raise StateError(
            f"use the state directory {directory}",
            f"there is no {names[0]} in it",
            "check --state-dir; the daemon or `piw-indexer ingest` makes it",
        )
