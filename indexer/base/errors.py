"""The errors that a user can meet; errors of libraries are wrapped where they enter.

IndexerError            its text says operation, object, cause and remedy
  UsageError            exit status 2
  StateError            exit status 3
    NewerDatabaseError
    UnfinishedError
    ForeignFileError
    JournalError
  PublishError          exit status 3
  PeerError             exit status 4
DecodeError             a message is not valid: it is quarantined; the command goes on
"""

from __future__ import annotations

from typing import NamedTuple

from . import printable

MAX_PART = 5000
"""Characters of an operation, a cause or a remedy; a path may have 4,000."""


class Problem(NamedTuple):
    """What keeps something from working, and what to do about it; empty if nothing can be done."""

    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.what}\n  what to do: {self.remedy}" if self.remedy else self.what


class IndexerError(Exception):
    """Something failed in a way that was foreseen.

    Each part becomes one printable line: it may quote arguments, names and errors of libraries,
    which must not look like a remedy of ours.

    Args:
        operation: what was being done, to what ("open the index /x/index.db").
        cause: why it failed.
        remedy: what to do now; empty if there is nothing to do.
    """

    exit_status = 3

    def __init__(self, operation: str, cause: object, remedy: str = "") -> None:
        self.operation = printable.sentence(operation, MAX_PART)
        self.cause = printable.sentence(str(cause), MAX_PART)
        self.remedy = printable.sentence(remedy, MAX_PART)
        super().__init__(str(self.problem))

    @property
    def problem(self) -> Problem:
        """The error, where it is shown as the present state of something."""
        return Problem(f"cannot {self.operation}: {self.cause}", self.remedy)


class UsageError(IndexerError):
    """The command line, the environment or the configuration file is wrong (exit status 2)."""

    exit_status = 2


class StateError(IndexerError):
    """The state directory is locked, damaged, or from a newer version (exit status 3).

    Args:
        transient: true if it may work again by itself, as when the disk is full.
    """

    def __init__(
        self, operation: str, cause: object, remedy: str = "", *, transient: bool = False
    ) -> None:
        super().__init__(operation, cause, remedy)
        self.transient = transient


class NewerDatabaseError(StateError):
    """A database was written by a newer version of the program."""


class UnfinishedError(StateError):
    """A process was killed while it wrote a database, which has to be opened for writing once."""


class ForeignFileError(StateError):
    """A link, or another user's file, is where a database of ours belongs."""


class JournalError(StateError):
    """The journal cannot be read or written."""


class PublishError(IndexerError):
    """A document could not be published: the disk is full, there is no permission, or similar.

    Args:
        general: true if other documents will fail, too.
    """

    def __init__(
        self, operation: str, cause: object, remedy: str = "", *, general: bool = False
    ) -> None:
        super().__init__(operation, cause, remedy)
        self.general = general


class PeerError(IndexerError):
    """A peer on the network did not answer (exit status 4)."""

    exit_status = 4


class OutputError(IndexerError):
    """stdout did not take what a command printed: the disk is full, it is closed (status 4)."""

    exit_status = 4


class DecodeError(Exception):
    """A frame or a line is not a valid message.

    Decoding raises nothing else, whatever the bytes. The text is short and printable, because it
    quotes what a stranger sent.

    Args:
        path: where in the message the fault lies ("data.files[0].filename"); empty for the whole.
        cause: what is wrong there.
    """

    def __init__(self, path: str, cause: str) -> None:
        self.path = printable.line(path)
        self.cause = printable.line(cause)
        super().__init__(f"{self.path}: {self.cause}" if path else self.cause)
