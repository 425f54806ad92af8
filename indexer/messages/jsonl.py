"""JSON-lines files as feeds of their own.

A file is identified by the SHA-256 of its content, and its lines are the serials. So what was
accepted from it once is never accepted again, wherever the file is.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

from ..base import privileges
from ..base.clock import Clock
from ..base.errors import DecodeError, UsageError
from ..base.names import FILE_FEED
from . import decode, encode
from .entries import Accepted, Entry
from .redact import refused
from .types import Position


class MessageFile:
    """A file of messages, one a line.

    Args:
        name: its path; `-` for the standard input, which is kept in a temporary file meanwhile.
        clock: the time of receipt, for messages that do not say when they happened.
        most: bytes that a message may have in the journal; larger ones are refused.

    Raises:
        UsageError: if it cannot be read.
    """

    def __init__(self, name: str, clock: Clock, most: int | None = None) -> None:
        self.name = name
        self._most = most
        self._clock = clock
        try:
            self._file: IO[bytes]
            if name == "-":
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
                shutil.copyfileobj(sys.stdin.buffer, self._file)
                self._file.seek(0)
            else:
                self._file = privileges.typed(name).open("rb")
            digest = hashlib.file_digest(self._file, "sha256").hexdigest()
            self.size = self._file.tell()
        except OSError as error:
            raise UsageError(
                f"read {name}", error.strerror or error, "name a file of messages, one a line"
            ) from error
        self.feed = f"{FILE_FEED}{digest}"

    def entries(self, after: int) -> Iterator[tuple[Entry, int]]:
        """The entries after line `after`, each with the number of bytes read so far."""
        self._file.seek(0)
        read = 0
        for number, line in enumerate(self._file, 1):
            read += len(line)
            if number <= after or not line.strip():
                continue
            position = Position(self.feed, 0, number)
            try:
                message = decode.from_json(line, self._clock())
                # Fields that are never stored may have made the line long.
                if self._most is not None and len(line) > self._most:
                    if len(encode.to_journal(message)) > self._most:
                        raise DecodeError("", f"has more than {self._most} bytes")
                entry: Entry = Accepted(position, message)
            except DecodeError as error:
                entry = refused(position, self.name, "json", error, line)
            yield entry, read

    def close(self) -> None:
        """Close it."""
        self._file.close()
