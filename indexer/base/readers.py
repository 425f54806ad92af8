"""Which processes keep a read transaction of an SQLite database open, by the kernel's locks.

Everybody may read /proc/locks, but it is hidden from the daemon by its unit, and names of other
users' processes may be hidden, too. What is not known is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

from . import printable

_FIRST, _LAST = 123, 127
"""The bytes of the -shm file that a reader of the log locks. Source: walLockShared in SQLite's
wal.c, WAL_READ_LOCK(0) to (4), from byte 120 + 3 on."""

MAX_NAME = 60
"""Characters of a process' command line."""


def of(path: Path, without: int = 0) -> list[str]:
    """Who reads a database, such as "sqlite3 -readonly index.db (pid 7)".

    Args:
        without: a process that is left out, together with its children and ourselves.
    """
    try:
        inode = os.stat(f"{path}-shm").st_ino
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []
    pids = set()
    for line in lines:
        words = line.split()
        # A line that begins with an arrow waits for the lock of the line before.
        if len(words) != 8 or words[1] != "POSIX" or words[3] != "READ":
            continue
        pid, file, first, last = words[4:]
        if int(file.rpartition(":")[2]) != inode or int(first) > _LAST:
            continue
        if last == "EOF" or int(last) >= _FIRST:
            pids.add(int(pid))
    pids -= {os.getpid(), without}
    return [f"{_name(pid)} (pid {pid})" for pid in sorted(pids) if _parent(pid) != without]


def _parent(pid: int) -> int:
    try:
        # The name before it is in brackets, and may contain spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1


def _name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        words = []
    line = b" ".join(words).decode(errors="replace")
    return printable.line(line, MAX_NAME) or "a process"
