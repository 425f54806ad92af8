"""JSON-lines files as feeds of their own.

A file is identified by the SHA-256 of its lines, and their numbers are the serials. So what was
accepted from it once is never accepted again, wherever the file is, and whether it is compressed. A
file that begins with all lines of a known one is that file, grown: it goes on where that one ended.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

import orjson

from ..base import privileges
from ..base.clock import Clock
from ..base.errors import DecodeError, UsageError
from ..base.names import FILE_FEED
from . import decode, encode
from .entries import Accepted, Entry
from .redact import refused
from .types import Position

MAX_LINE = 64 * 1024 * 1024
"""Bytes of a line: a small compressed file may hold one that fills the memory."""

MIN_TRIED = 1000
"""Lines; a file that begins with so many that are not messages is not a file of messages."""

_GZIP = b"\x1f\x8b"


class MessageFile:
    """A file of messages, one a line; it may be compressed with gzip.

    Args:
        name: its path; `-` for the standard input, which is kept in a temporary file meanwhile.
        clock: the time of receipt, for messages that do not say when they happened.
        limit: bytes that a message may have in the journal; larger ones are refused.

    Attributes:
        feed: the feed of its lines.
        size: its bytes, uncompressed.

    Raises UsageError if it cannot be read, or is not a file of messages.
    """

    def __init__(self, name: str, clock: Clock, limit: int | None = None) -> None:
        self.name = name
        self._limit = limit
        self._clock = clock
        self._open: list[IO[bytes]] = []
        try:
            if name == "-":
                raw: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
                self._open = [raw]
                shutil.copyfileobj(sys.stdin.buffer, raw)
                raw.seek(0)
            else:
                raw = privileges.typed(name).open("rb")
                self._open = [raw]
            if raw.read(len(_GZIP)) == _GZIP:
                raw.seek(0)
                self._open.insert(0, io.BufferedReader(gzip.GzipFile(fileobj=raw)))
            self._file = self._open[0]
            self._identify()
        except (OSError, EOFError, zlib.error) as error:
            self.close()
            cause = (isinstance(error, OSError) and error.strerror) or error
            raise UsageError(
                f"read {name}", cause, "name a file of messages, one a line"
            ) from error
        except UsageError:
            self.close()
            raise

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        number = 0
        while line := self._file.readline(MAX_LINE):
            number += 1
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                raise UsageError(
                    f"read {self.name}",
                    f"line {number} has more than {MAX_LINE} bytes",
                    "name a file of messages, one a line",
                )
            yield line

    def _identify(self) -> None:
        """Find out what its feeds are called, and whether it is a file of messages."""
        self.size = tried = 0
        messages = False
        digest = hashlib.sha256()
        line = b"\n"
        for line in self._lines():
            self.size += len(line)
            if not line.endswith(b"\n"):
                break  # the last one
            digest.update(line)
            if not messages and line.strip():
                messages = self._is_message(line, tried)
                tried += 1
        self.feed = self._last_feed = self._older_feed = _feed(digest)
        if not line.endswith(b"\n"):
            # The line may be cut off: the feed of the whole ones must not depend on it.
            digest.update(line)
            self._older_feed = _feed(digest)
            digest.update(b"\n")
            self._last_feed = _feed(digest)

    def _is_message(self, line: bytes, tried: int) -> bool:
        """Whether a line names a message, valid or not; `tried` lines before it did not."""
        try:
            if type(orjson.loads(line)["msg"]) is str:
                return True
        except Exception:  # noqa: BLE001 - whatever else it is
            pass
        if tried + 1 == MIN_TRIED:
            raise UsageError(
                f"read {self.name}",
                f"none of its first {MIN_TRIED:,} lines is a message",
                "name a file of messages, one a line; nothing of it was taken",
            )
        return False

    def known(self, position: Callable[[str, int], int]) -> int:
        """The line after which it goes on: what is before it was accepted, or quarantined.

        Args:
            position: tells the last serial of a feed and an epoch that was accepted.
        """
        # Before, a file without an end of its last line was one feed with that line.
        known = max(position(self._last_feed, 0), position(self._older_feed, 0))
        digest = hashlib.sha256()
        for line in self._lines():
            if not line.endswith(b"\n"):
                break
            digest.update(line)
            known = max(known, position(_feed(digest), 0))
        return known

    def entries(self, after: int) -> Iterator[tuple[Entry, int]]:
        """The entries after line `after`, each with the number of bytes read so far."""
        read = 0
        for number, line in enumerate(self._lines(), 1):
            read += len(line)
            if number <= after or not line.strip():
                continue
            feed = self.feed if line.endswith(b"\n") else self._last_feed
            position = Position(feed, 0, number)
            try:
                message = decode.from_json(line, self._clock())
                # Fields that are never stored may have made the line long.
                if self._limit is not None and len(line) > self._limit:
                    if len(encode.to_journal(message)) > self._limit:
                        raise DecodeError("", f"has more than {self._limit} bytes")
                entry: Entry = Accepted(position, message)
            except DecodeError as error:
                entry = refused(position, self.name, "json", error, line)
            yield entry, read

    def close(self) -> None:
        """Close it."""
        for file in self._open:
            file.close()


def _feed(digest: hashlib._Hash) -> str:
    return f"{FILE_FEED}{digest.hexdigest()}"
