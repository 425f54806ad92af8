"""The note of the version of the rules that the logs of a state were read with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..base import notes

VERSION = 3
"""Of the rules. Raised with every change that can give another reason for some log."""

NOTE = "classify.json"
"""The name of the note in the state directory."""


class Note(NamedTuple):
    """How far the logs are read, for the next run.

    Attributes:
        read_with: the version of the rules that the logs have been read with; 0: none yet.
        rules: the version that an interrupted `classify --again` was reading them with.
        again_after: the number of the last build that it has read.
    """

    read_with: int = 0
    rules: int = 0
    again_after: int = 0

    @property
    def outdated(self) -> bool:
        """Whether some logs may have been read with other rules than the present ones."""
        return self.read_with not in (0, VERSION)


def find(state_dir: Path) -> Note:
    """The note; an empty one if there is none, or it cannot be read."""
    try:
        return notes.read(state_dir / NOTE, Note) or Note()
    except notes.NoteError:
        return Note()


def reading(state_dir: Path) -> Note:
    """Note that logs are read with the present rules, unless some were read before."""
    found = find(state_dir)
    if not found.read_with:
        found = found._replace(read_with=VERSION)
        notes.leave(state_dir / NOTE, found)
    return found
