"""Finds the logs of builds where a master keeps them, and reads why the builds failed.

A log is read whatever it contains. One that is damaged, cut off or too long is read as far as
possible, and one that the master may still be writing is left for later.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

from ..base import clock, filesystem, process
from ..base.times import SECOND
from ..documents.project import log_url
from ..messages.types import Failure, LogFailure, Message
from ..reasons.build_log import CHUNK_BYTES, BuildLog

MAX_LOG = 256 * 1024 * 1024
"""Bytes, unpacked, of one log; what comes after them is not read."""

WRITING_TIMEOUT = 60 * SECOND
"""A log that is cut off and younger than this may still be written."""

EMPTY = "it has no logs, in directories such as 0000"
"""What is wrong with another directory, one where none is mounted, or before the first log."""

_PART = re.compile("[0-9]{4}")

NO_LOG = 0
"""The number of no build: only whether the directory can be read is wanted."""

_FAILED = "SELECT build_id, failure_category, failure_detail FROM builds WHERE status = 0"


def path_of(directory: Path, build_id: int) -> Path:
    """The log of a build in the directory `logs` of a master."""
    return directory / log_url(build_id).removeprefix("/logs/")


def read(path: Path) -> Failure | None:
    """Why a build failed; None if there is no log that can be opened, or it is not complete yet."""
    try:
        descriptor = filesystem.open_regular(path, os.O_RDONLY)
    except OSError:
        return None
    log = BuildLog()
    with open(descriptor, "rb") as file:
        written_at = os.fstat(descriptor).st_mtime_ns // 1000
        if not _unpack(file, log) and clock.now() - written_at < WRITING_TIMEOUT:
            return None
    return log.failure()


def _unpack(file: BinaryIO, log: BuildLog) -> bool:
    """Read a file into a log; false if it is cut off or damaged."""
    # Unlike module gzip, this also gives what comes before the place where it is cut off.
    unpacker = zlib.decompressobj(wbits=31)
    left = MAX_LOG
    try:
        while left > 0 and not unpacker.eof:
            packed = unpacker.unconsumed_tail or file.read(CHUNK_BYTES)
            if not packed:
                return False
            piece = unpacker.decompress(packed, CHUNK_BYTES)
            log.feed(piece)
            left -= len(piece)
    except (OSError, zlib.error):
        return False
    return True


def main() -> None:
    """Read the logs whose numbers come on stdin, a line each, and print what is found likewise.

    It is the number, the failure or null, and, if there is none, what is wrong with the directory.
    """
    process.ignore_signals()
    os.nice(19)
    directory = Path(sys.argv[1])
    for number in map(int, sys.stdin):
        found = None if number == NO_LOG else read(path_of(directory, number))
        fault = fault_of(directory) if found is None else ""
        sys.stdout.write(json.dumps([number, found, fault]) + "\n")
        sys.stdout.flush()


def fault_of(directory: Path) -> str:
    """Why no log in a directory can be read; empty if they can."""
    try:
        with os.scandir(directory) as entries:
            return "" if any(_PART.fullmatch(entry.name) for entry in entries) else EMPTY
    except OSError as error:
        return error.strerror or str(error)


def failed(
    connection: sqlite3.Connection, after: int, until: int, *, again: bool = False
) -> list[tuple[int, Failure | None]]:
    """The failed builds with numbers above `after`, up to `until`, and their reasons.

    Args:
        after: a number.
        until: a number.
        again: also those whose reason is known.
    """
    unknown = "" if again else " AND failure_category IS NULL"
    rows = connection.execute(
        f"{_FAILED} AND build_id > ? AND build_id <= ?{unknown} ORDER BY build_id", (after, until)
    )
    return [
        (number, Failure(category, detail) if category else None)
        for number, category, detail in rows
    ]


def newest(connection: sqlite3.Connection, upper: int = 2**63 - 1) -> int:
    """The number of the newest build up to a number; 0 if there is none."""
    rows = connection.execute("SELECT max(build_id) FROM builds WHERE build_id <= ?", (upper,))
    return int(rows.fetchone()[0] or 0)


def message(build_id: int, failure: Failure) -> Message:
    """The FAILURE of a build."""
    return Message("FAILURE", clock.now(), LogFailure(build_id, failure))
