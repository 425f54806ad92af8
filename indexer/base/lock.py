"""One process holds a state directory; the lock file says which."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from . import clock, directories, disk, filesystem, places
from .errors import StateError

FILE = places.LOCK

LOCK_TIMEOUT = 0.5
"""Seconds to wait for the lock, because `holder` takes it for an instant."""


class Lock:
    """Holds a directory until it is released, or the process ends.

    Args:
        directory: of the state; made if it is not there.
        command: what the process does, for the error of the next one.
        what: the directory is, for errors.
        remedy: if the directory cannot be used.

    Raises:
        StateError: if another process holds the directory, it is used for something else, or it
            cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        command: str,
        what: str = "the state directory",
        remedy: str = "check --state-dir, and that it belongs to the user that runs piw-indexer",
    ) -> None:
        path = directory / FILE
        places.refuse_others(directory, what)
        try:
            directories.make(directory, filesystem.STATE_DIRECTORY)
            known = os.path.lexists(path)
            self._descriptor = filesystem.open_own(path)
        except OSError as error:
            raise _unusable(f"use {what} {directory}", remedy, error) from error
        if not take(self._descriptor, LOCK_TIMEOUT):
            holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StateError(
                f"use {what} {directory}",
                f"it is locked by {holder or 'another process'}",
                "wait until that ends, or stop it (systemctl stop piw-indexer)",
            )
        try:
            os.ftruncate(self._descriptor, 0)
            ours = places.SIGNATURE + f"{command} (pid {os.getpid()})\n".encode()
            os.pwrite(self._descriptor, ours, 0)
        except OSError as error:
            os.close(self._descriptor)
            raise StateError(
                f"write to {path}",
                error.strerror or error,
                disk.remedy(error.errno or 0) or "check that the file system can be written",
                transient=True,
            ) from error
        try:
            filesystem.close_to_others(directory, itself=known)
        except OSError as error:
            os.close(self._descriptor)
            raise _unusable(f"use {what} {directory}", remedy, error) from error

    def release(self) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
        except OSError:
            pass  # without the lock, the name in the file means nothing
        os.close(self._descriptor)


def _unusable(operation: str, remedy: str, error: OSError) -> StateError:
    cause = error.strerror or str(error)
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.EPERM) and error.filename:
        cause = f"{error.filename}: {cause}"
        remedy = (
            "move what is there away, and see who put it there (ls -l); to have a part of the state"
            " on another disk, use mount --bind in place of a symbolic link"
        )
    return StateError(operation, cause, remedy)


def take(descriptor: int, seconds: float) -> bool:
    """Lock an open file or directory for this process; false if others hold it for too long."""
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
        descriptor = filesystem.open_regular(directory / FILE, os.O_RDONLY)
    except PermissionError:
        return _as_others_see(directory / FILE)
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


def _as_others_see(path: Path) -> str:
    """Who has locked a file that we may not open, according to the kernel.

    Source: proc_locks(5). Devices are not compared, because btrfs has several numbers for one.
    """
    try:
        inode = os.stat(path).st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    for fields in map(str.split, lines):
        if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return f"a process of its owner (pid {fields[4]})"
    return ""
