"""Directories that are there after a power cut.

An entry is durable when the directory that it stands in is synced.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make(path: Path) -> None:
    """Make a directory, and what is missing above it; durable on return.

    Raises:
        OSError: if it cannot be made.
    """
    path = path.absolute()
    missing = [path]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        directory.mkdir(mode=0o755, exist_ok=True)
        try:
            # Even if it is there: one that was killed may have made it just before.
            sync(directory.parent)
        except PermissionError:
            pass  # what others made for us above it is theirs to keep
