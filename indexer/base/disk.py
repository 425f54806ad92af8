"""How much space a file system has, and what is wrong with it when SQLite does not say."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from . import filesystem

MIN_SPACE = 1024 * 1024
"""Bytes; with less free space, the journal accepts nothing."""

_PROBE = ".piw-indexer.probe"
_PROBE_BYTES = 64 * 1024
"""Bytes of a test write: a single page may still fit when a database does not."""
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
    """What to do about an `errno`; empty if it is not an error of a disk."""
    return _REMEDIES.get(number, "")


def free_bytes(path: Path) -> int | None:
    """Free bytes in the file system of a directory; None if it does not say.

    Quotas are not considered.
    """
    return sizes(path)[0]


def sizes(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Free bytes in a file system, and its size; None if it does not say."""
    try:
        status = os.statvfs(path)
    except OSError:
        return None, None
    if not status.f_blocks:  # some network file systems do not know
        return None, None
    return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize


def fault(directory: Path) -> int:
    """The `errno` with which writing into a directory fails now; 0 if it works.

    SQLite reports a full disk, but reports a quota or a read-only file system like a broken disk.
    """
    path = f"{directory}/{_PROBE}"
    try:
        descriptor = filesystem.create(path, filesystem.OURS_ALONE)
    except OSError as error:
        return error.errno or 0
    try:
        os.write(descriptor, bytes(_PROBE_BYTES))
        os.fsync(descriptor)  # some file systems notice only then
    except OSError as error:
        return error.errno or 0
    finally:
        os.close(descriptor)
        try:
            os.unlink(path)
        except OSError:
            pass  # the file is small, and the next test write replaces it
    return 0


def unreadable(path: Path) -> int:
    """The `errno` with which reading a file to its end fails; 0 if it works.

    SQLite reports a disk that cannot be read as a damaged database.
    """
    try:
        status = path.lstat()
        descriptor = _kept.get((status.st_dev, status.st_ino))
        if descriptor is None:
            descriptor = filesystem.open_regular(path, os.O_RDONLY)
            # Never closed: that would drop the locks that SQLite holds on the file.
            _kept[status.st_dev, status.st_ino] = descriptor
        place = 0
        while size := len(os.pread(descriptor, _READ_BYTES, place)):
            place += size
    except OSError as error:
        return error.errno or 0
    return 0


_kept: dict[tuple[int, int], int] = {}
