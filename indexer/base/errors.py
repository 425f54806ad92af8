"""The errors a user can meet.

Every error of ours derives from `IndexerError`; its text says the operation, the object, the
cause and the remedy, and its `exit_status` is what the command ends with. Errors of libraries
are wrapped where they enter.
"""

from __future__ import annotations

from . import printable

MAX_PART = 5000
"""Characters of an operation, a cause or a remedy; a path may have four thousand."""


class IndexerError(Exception):
    """Something failed in a way that was foreseen.

    Each part is one line of printable characters: they repeat arguments, names and what libraries
    say, and none of those may look like a remedy of ours.

    Args:
        operation: what was being done, to what ("open the index /x/index.db").
        cause: why it failed.
        remedy: what to do now; empty when there is nothing to do.
    """

    exit_status = 3

    def __init__(self, operation: str, cause: object, remedy: str = "") -> None:
        self.operation = printable.sentence(operation, MAX_PART)
        self.cause = printable.sentence(str(cause), MAX_PART)
        self.remedy = printable.sentence(remedy, MAX_PART)
        text = f"cannot {self.operation}: {self.cause}"
        super().__init__(f"{text}\n  what to do: {self.remedy}" if remedy else text)


class UsageError(IndexerError):
    """The command line, the environment or the configuration file is wrong (exit status 2)."""

    exit_status = 2


class StateError(IndexerError):
    """The state directory is locked, damaged, or from a newer version (exit status 3).

    Args:
        passing: true if it may work again by itself: the disk is full, or did not answer.
    """

    def __init__(
        self, operation: str, cause: object, remedy: str = "", *, passing: bool = False
    ) -> None:
        super().__init__(operation, cause, remedy)
        self.passing = passing


class NewerDatabaseError(StateError):
    """A database was written by a newer version of the program than this one."""


class UnfinishedError(StateError):
    """A database was left by a process that was killed, and has to be opened to write once."""


class ForeignFileError(StateError):
    """A link, or another user's file, is where a database of ours belongs."""


class JournalError(StateError):
    """The journal cannot be read or written; nothing may act on messages it does not hold."""


class PublishError(IndexerError):
    """A document could not be put in its place (full disk, no permission...).

    Args:
        general: true if other documents will fail too: the disk is full, not one name in the way.
    """

    def __init__(
        self, operation: str, cause: object, remedy: str = "", *, general: bool = False
    ) -> None:
        super().__init__(operation, cause, remedy)
        self.general = general


class PeerError(IndexerError):
    """A peer on the network did not answer (exit status 4)."""

    exit_status = 4


class DecodeError(Exception):
    """A frame or a line is not a valid message.

    The only exception that decoding raises, whatever the bytes. Its text is short and printable:
    it repeats what a stranger sent.

    Args:
        path: where in the message the fault lies ("data.files[0].filename"); empty for the whole.
        cause: what is wrong there.
    """

    def __init__(self, path: str, cause: str) -> None:
        self.path = printable.line(path)
        self.cause = printable.line(cause)
        super().__init__(f"{self.path}: {self.cause}" if path else self.cause)
