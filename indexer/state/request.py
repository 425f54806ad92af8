"""Files in which commands leave something for the running daemon, which alone writes its state.

They are in the state directory, where only the state's owner can make them. The daemon looks for
them about once a second, and removes them when it has acted on them.
"""

from __future__ import annotations

from pathlib import Path

from ..base import database, filesystem
from ..base.errors import StateError


def leave(path: Path, content: bytes) -> None:
    """Leave a file for the daemon, in the place of one that is there.

    Raises StateError if it cannot be written.
    """
    with database.wrap_errors(f"write {path}"):
        filesystem.write(path, content)


def remove(path: Path) -> None:
    """Remove a file on which the daemon has acted.

    Raises StateError if that fails; it is transient, because acting twice changes nothing.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(f"remove {path}", error.strerror or error, transient=True) from error
