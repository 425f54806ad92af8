"""How much space a file system has, and what ails it where SQLite does not say."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from . import filesystem

MIN_SPACE = 1024 * 1024
"""Bytes: with less free than that, the journal accepts nothing any more."""

_PROBE = ".piw-indexer.probe"
_PROBE_BYTES = 64 * 1024
"""Of what is written to see what comes: one page may still fit where a database does not."""
_READ_BYTES = 1024 * 1024

_REMEDIES = {
    errno.ENOSPC: "free some disk space (df -h, df -i)",
    errno.EDQUOT: "free some space of the user that runs piw-indexer, or raise its disk quota"
    " (quota -s)",
    errno.EROFS: "the file system is mounted read-only: look why (dmesg), and have it written again"
    " (mount -o remount,rw)",
    errno.EIO: "look at the disk (dmesg)",
}


def remedy(number: int) -> str:
    """What to do about an error of the system, `errno`; empty if it is none of a disk."""
    return _REMEDIES.get(number, "")


def free_bytes(path: Path) -> int | None:
    """Bytes that may still be written to the file system of a directory.

    Returns:
        None if it does not say; a quota is not seen.
    """
    return sizes(path)[0]


def sizes(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Likewise, and how many bytes the file system has in all."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None, None
    if not status.f_blocks:  # some that are not of this machine know no sizes
        return None, None
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def fault(directory: Path) -> int:
    """What a write into a directory fails with at present, as `errno`; 0 if it does not.

    SQLite tells a full disk from other faults, but neither a quota nor a file system that was
    mounted read-only from a broken disk.
    """
    path = f"{directory}/{_PROBE}"
    try:
        descriptor = filesystem.create(path, filesystem.OURS_ALONE)
    except OSError as error:
        return error.errno or 0
    try:
        os.write(descriptor, bytes(_PROBE_BYTES))
        os.fsync(descriptor)  # some only notice then
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(descriptor)
        try:
            os.unlink(path)
        except OSError:
            pass  # empty or small, and overwritten by the next one
    return 0


def unreadable(path: Path) -> int:
    """What reading a file to its end fails with, as `errno`; 0 if it does not.

    SQLite takes a disk that does not give back what it holds for a damaged database.
    """
    try:
        status = path.lstat()
        descriptor = _kept.get((status.st_dev, status.st_ino))
        if descriptor is None:
            descriptor = filesystem.open_regular(path, os.O_RDONLY)
            # To close it would drop the locks that SQLite holds on the file in this process.
            _kept[status.st_dev, status.st_ino] = descriptor
        place = 0
        while size := len(os.pread(descriptor, _READ_BYTES, place)):
            place += size
    except OSError as error:
        return error.errno or 0
    return 0


_kept: dict[tuple[int, int], int] = {}
