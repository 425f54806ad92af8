"""Network file systems, where no database is opened to write unless the user allows it.

SQLite's write-ahead log needs memory that all its processes share. A network file system does not
give that to two machines, and locks there may not hold: databases have been damaged so
(https://www.sqlite.org/wal.html, https://www.sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import os
from pathlib import Path

from . import directories
from .errors import StateError

NAMES = {
    0x6969: "NFS",
    0xFF534D42: "SMB",
    0xFE534D42: "SMB",
    0x517B: "SMB",
    0x01021997: "9P, by which WSL and virtual machines reach their host",
    0x786F4256: "a shared folder of VirtualBox",
    0xBACBACBC: "a shared folder of VMware",
    0x65735546: "FUSE: sshfs and a local disk look the same",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x00C36400: "Ceph",
    0x0BD00BD0: "Lustre",
    0x19830326: "BeeGFS",
    0x47504653: "GPFS",
    0x73757245: "Coda",
}
"""Network file systems by their number. Sources: linux/magic.h, and src/stat.c of GNU coreutils."""

_ANSWER = 512
"""Bytes; a `struct statfs` has 120 at most."""


class _Allowed:
    """Whether the user has given --allow-network-file-system."""

    ever = False


def allow() -> None:
    """Refuse nothing from now on."""
    _Allowed.ever = True


def refuse(directory: Path) -> None:
    """Refuse a directory for databases if it is on a network file system.

    Args:
        directory: need not exist yet.

    Raises StateError if so, and the user has not allowed it.
    """
    name = "" if _Allowed.ever else name_of(directory)
    if name:
        raise StateError(
            f"keep databases in {directory}",
            f"it is on a network file system ({name}), where SQLite's write-ahead log does not"
            " work",
            "give a --state-dir on a local disk, and copy it to the network with `piw-indexer"
            " backup`; or, if no other machine ever uses this directory and you accept that the"
            " databases may be damaged, give --allow-network-file-system",
        )


def name_of(directory: Path) -> str:
    """What network file system a directory is on, or will be; empty if it is on none.

    Source: statfs(2), whose structure begins with the number. Python has only statvfs(3), which
    lacks it.
    """
    import ctypes  # only writers need it

    libc = directories.libc()
    # On 32 bits, glibc's plain one fails for large file systems; musl has only that one.
    statfs = libc.statfs64 if hasattr(libc, "statfs64") else libc.statfs
    answer = ctypes.create_string_buffer(_ANSWER)
    for path in (directory.absolute(), *directory.absolute().parents):
        if os.path.exists(path):
            if statfs(os.fsencode(path), answer):
                return ""  # whoever uses the directory says why
            return NAMES.get(ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF, "")
    return ""
