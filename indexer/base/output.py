"""The standard streams of a command: an error of one ends the command with a message and a status.

After `guard`, a write to stdout that fails raises `OutputError`, or `ReaderLeftError` if whoever
reads it has gone. A write to stderr that fails is dropped: nobody is left to be told, and the exit
status still says how the command ended.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any

from .errors import OutputError

STDIN, STDOUT, STDERR = range(3)

_CAUSES = {errno.EBADF: "it is closed"}


class ReaderLeftError(Exception):
    """Whoever reads our output has closed it, as `| head` does."""


class _Output(io.FileIO):
    """A standard stream whose writes raise our own errors.

    Libraries handle the system's: rich and click end with status 1 when a pipe breaks.
    """

    def write(self, content: Any) -> int:
        try:
            while (written := super().write(content)) is None:
                select.select([], [self], [])  # another process has made the pipe non-blocking
        except BrokenPipeError as error:
            raise ReaderLeftError from error
        except OSError as error:
            cause = _CAUSES.get(error.errno or 0, error.strerror or error)
            raise OutputError("write to stdout", cause) from error
        return written


class _Diagnostics(io.FileIO):
    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except OSError:
            return len(content)


def guard() -> None:
    """Replace stdout and stderr, and occupy the descriptors of standard streams that are closed.

    Otherwise the next file that is opened would get the descriptor, and what is printed. A stream
    that a caller in this process has put in the place of its own is left alone.
    """
    for number, mode in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # In the wrong direction: reading stdin and writing to stdout still fail.
            os.set_inheritable(os.open(os.devnull, mode), True)
    if sys.stdin is None:
        sys.stdin = open(STDIN, closefd=False)  # noqa: SIM115 - it stays open
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(STDOUT, "w", closefd=False), sys.stdout, "strict")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Diagnostics(STDERR, "w", closefd=False), sys.stderr, "backslashreplace")


def _text(raw: io.FileIO, before: Any, errors: str) -> io.TextIOWrapper:
    """A text stream like the one before, which is None if it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors=before.errors if before is not None else errors,
        line_buffering=raw.isatty() or raw.fileno() == STDERR,
    )


def give_up_stdout() -> None:
    """Drop what is still in the buffers of stdout, which Python would write at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
