"""Refuse directories that are used for something else: a slip in an option replaces no file.

A directory for databases is empty when it is first used, or has our databases in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from . import filesystem
from .errors import StateError, UsageError

LOCK = "lock"
"""The file whose lock says that a process holds a directory."""

SIGNATURE = b"piw-indexer "
"""How it begins, unless it is empty."""

_MONTH = "[0-9][0-9][0-9][0-9]-[0-9][0-9].db"
_DATABASES = ("index.db", f"journal/{_MONTH}", "checkpoint/*.db", f"spool/{_MONTH}", _MONTH)
"""Of a state, of a backup, and of a spool, which is a journal itself."""

_FIRST = re.compile(
    r"lock|journal|spool(\.old)?|checkpoint(\.lock)?|index\.db.*|\d{4}-\d\d\..*|handling|bridge"
    r"|(daemon|check|backup|backup-failure|dismiss)\.json|check\.resume|daemon\.log"
    r"|lost\+found|\..*"
)
"""What may be there before the first database, because we or the system made it."""


def refuse_others(directory: Path, what: str = "the state directory") -> None:
    """Refuse a directory for databases that is used for something else.

    Otherwise a file with one of our names would be replaced, and others could no longer read the
    rest.

    Args:
        directory: need not exist yet.
        what: the directory is, for errors.

    Raises StateError if so.
    """
    try:
        found = _foreign(directory)
    except OSError:
        return  # whoever uses the directory says why
    if found:
        raise StateError(
            f"use {what} {directory}",
            f"{found} is in it, and is not ours",
            "give an empty directory, or one that does not exist yet; or move that file away, if"
            " the directory is ours",
        )


def _foreign(directory: Path) -> str:
    """The name of something in a directory that is not ours; empty if it may all be."""
    if (directory / LOCK).is_file():
        held = filesystem.beginning(directory / LOCK, len(SIGNATURE))
        if held.strip(b"\0") and held != SIGNATURE:
            return LOCK
    if any(True for pattern in _DATABASES for _ in directory.glob(pattern)):
        return ""
    with os.scandir(directory) as entries:
        for entry in entries:
            # Sockets may be there, and links are refused later.
            holds = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
            if holds and not _FIRST.fullmatch(entry.name):
                return entry.name
    return ""


def refuse_overlap(state_dir: Path, output_path: Path) -> None:
    """Refuse a state below the output tree, where the web server shows it, and the reverse.

    Raises UsageError if so.
    """
    state, output = (Path(os.path.realpath(path)) for path in (state_dir, output_path))
    if state.is_relative_to(output) or output.is_relative_to(state):
        raise UsageError(
            f"publish to {output_path} from {state_dir}",
            "one of the two directories is in the other: the web server would show the state",
            "give a --state-dir and an --output-path that are not inside each other",
        )
