"""Which versions of SQLite have the WAL-reset bug.

From SQLite's own description (https://sqlite.org/wal.html#walresetbug): in 3.7.0 to 3.51.2, two
connections that write or checkpoint a database in WAL mode at the same time can corrupt it. Fixed
in 3.51.3, and in the backports 3.50.7 and 3.44.6.
"""

from __future__ import annotations

FIXED = (3, 51, 3)
BACKPORTS = ((3, 44, 6), (3, 50, 7))


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether a version, (major, minor, patch), has it."""
    if not (3, 7, 0) <= version < FIXED:
        return False
    return not any(version[:2] == fixed[:2] and version >= fixed for fixed in BACKPORTS)
