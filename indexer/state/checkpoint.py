"""Checkpoints: copies of the index at a serial, from which a replay starts.

They replace months of the journal that are archived or lost. A checkpoint gets its name when it
is complete, synced and verified, and never changes after that.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from ..base import database, directories, filesystem, lock
from ..base.errors import JournalError, StateError
from ..base.log import event
from ..index import queries
from ..journal.reader import JournalReader
from ..schema import index as schema

log = logging.getLogger(__name__)

DIRECTORY = "checkpoint"
"""Its name in the state directory."""

LOCK = "checkpoint.lock"
"""A lock file in the state directory: only one process makes a checkpoint at a time."""

KEPT = 2
"""Checkpoints that are kept, in case the newest is damaged."""

UNFINISHED = "unfinished.new"
REPLAYED = "replayed.new"
_NAME = re.compile(r"(\d{12})\.db", re.ASCII)


_sound: set[tuple[object, ...]] = set()
"""Files that were verified, which takes minutes; they never change."""


class Checkpoint(NamedTuple):
    """A copy of the index; `serial` is its last message."""

    path: Path
    serial: int


def every(state_dir: Path) -> list[Checkpoint]:
    """The checkpoints of a state directory, sound or not, the oldest first."""
    directory = state_dir / DIRECTORY
    if not directory.is_dir():
        return []
    return [
        Checkpoint(directory / name, int(match[1]))
        for name in sorted(os.listdir(directory))
        if (match := _NAME.fullmatch(name))
    ]


def fault(checkpoint: Checkpoint, journal_id: str) -> str:
    """Why a checkpoint cannot be used for a journal; empty if it can be.

    Raises NewerDatabaseError if a newer version of the program made it.
    """
    try:
        status = checkpoint.path.stat()
    except OSError as error:
        return error.strerror or str(error)
    seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, checkpoint.serial)
    key = (*seen, journal_id)
    if key not in _sound:
        found = _look(checkpoint, journal_id)
        if found:
            return found
        _sound.add(key)
    return ""


def _look(checkpoint: Checkpoint, journal_id: str) -> str:
    try:
        connection = database.open_reader(checkpoint.path)
    except StateError as error:
        return error.cause
    try:
        if connection.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
            return "it is not an index"
        database.refuse_newer(connection, checkpoint.path, schema.SCHEMA)
        if queries.applied_serial(connection) != checkpoint.serial:
            return f"it holds messages up to serial {queries.applied_serial(connection)}"
        if queries.get(connection, "journal_id", "") != journal_id:
            return "it belongs to another journal"
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        return "" if found == "ok" else f"it is damaged: {found}"
    except sqlite3.Error as error:
        return f"it is damaged: {error}"
    finally:
        connection.close()


def base(state_dir: Path, journal: JournalReader, until: int) -> Checkpoint | None:
    """The checkpoint from which a replay up to serial `until` has to start.

    Returns:
        The newest usable one; None to start from the first message, because the journal is
        complete, or because no checkpoint holds what it has lost.

    Raises JournalError if messages are gone, and no sound checkpoint holds them.
    """
    if journal.first == 1 and not journal.lost:
        return None
    faults = []
    for checkpoint in reversed(every(state_dir)):
        if journal.first - 1 <= checkpoint.serial <= until:
            found = fault(checkpoint, journal.journal_id)
            if not found:
                return checkpoint
            faults.append(f"{checkpoint.path.name} cannot be used: {found}")
    operation = f"make an index from the journal in {journal.directory}"
    if faults:
        raise JournalError(
            operation,
            f"it needs a checkpoint, because messages are gone, and {'; '.join(faults)}",
            f"restore {state_dir / DIRECTORY} or the journal's older months from a backup",
        )
    refuse_bare(state_dir, journal, until)
    return None


def refuse_bare(state_dir: Path, journal: JournalReader, until: int) -> None:
    """Refuse a journal whose first months are gone, if no checkpoint replaces them.

    Args:
        until: the serial that the checkpoint must not be newer than.

    Raises JournalError if that is so. Whether the checkpoint is sound is found out when it is used.
    """
    if journal.first == 1:
        return
    if any(journal.first - 1 <= checkpoint.serial <= until for checkpoint in every(state_dir)):
        return
    raise JournalError(
        f"use the journal in {journal.directory}",
        f"its first messages are gone: it begins with serial {journal.first}, and no checkpoint"
        " holds what was before",
        "restore the journal's older months, or the checkpoint, from a backup; without one,"
        " `piw-indexer rebuild --salvage` continues with what can be read",
    )


def restore(checkpoint: Checkpoint, path: Path) -> None:
    """Copy a checkpoint to `path`; the copy is not durable yet.

    Raises StateError if it cannot be read or written.
    """
    with database.wrap_errors(f"copy the checkpoint {checkpoint.path} to {path}"):
        filesystem.copy(checkpoint.path, path)


@contextmanager
def making(state_dir: Path) -> Iterator[Path]:
    """Hold the lock for making a checkpoint; yields a path for the unfinished copy.

    Raises StateError if another process is making one, or the directory cannot be written.
    """
    directory = state_dir / DIRECTORY
    with database.wrap_errors(f"write to {directory}"):
        if not directory.is_dir():
            directories.make(directory, filesystem.STATE_DIRECTORY)
        descriptor = filesystem.open_own(state_dir / LOCK)
        try:
            if not lock.take(descriptor, lock.LOCK_TIMEOUT):
                raise StateError(
                    f"make a checkpoint in {directory}",
                    "another process is doing that",
                    "wait until it ends",
                )
            try:
                yield directory / UNFINISHED
            finally:
                for name in (UNFINISHED, REPLAYED):
                    database.remove(directory / name)
        finally:
            os.close(descriptor)


def copy_index(state_dir: Path, unfinished: Path) -> Checkpoint:
    """Copy the index, while a daemon may write it.

    Raises StateError if there is no index, or it is damaged or empty.
    """
    operation = f"copy the index {state_dir / queries.FILE}"
    with database.wrap_errors(operation):
        database.copy(state_dir / queries.FILE, unfinished)
        with closing(database.open_reader(unfinished)) as connection:
            serial = queries.applied_serial(connection)
    if not serial:
        raise StateError(operation, "it holds no messages yet", "wait until there are some")
    return Checkpoint(unfinished, serial)


def accept(state_dir: Path, unfinished: Checkpoint, journal_id: str) -> Checkpoint:
    """Give a finished copy its name, then remove checkpoints that are no longer needed.

    Raises StateError if it is not sound, or cannot be put in its place.
    """
    directory = state_dir / DIRECTORY
    checkpoint = Checkpoint(directory / f"{unfinished.serial:012d}.db", unfinished.serial)
    found = fault(unfinished, journal_id)
    if found:
        raise StateError(
            f"make the checkpoint {checkpoint.path}",
            found,
            "look at the disk (dmesg), and run `piw-indexer check`",
        )
    with database.wrap_errors(f"put the checkpoint {checkpoint.path} in its place"):
        filesystem.rename(unfinished.path, checkpoint.path)
        older = [other for other in every(state_dir) if other.serial < checkpoint.serial]
        for other in older[: -(KEPT - 1)]:
            database.remove(other.path)
    return checkpoint


def beyond(state_dir: Path, serial: int) -> list[Checkpoint]:
    """Checkpoints with messages after `serial`, the last one of a journal that has lost its end."""
    return [checkpoint for checkpoint in every(state_dir) if checkpoint.serial > serial]


def set_aside(checkpoints: list[Checkpoint]) -> None:
    """Disable checkpoints whose last messages the journal no longer has.

    They would be wrong as soon as new messages use those serials.
    """
    for checkpoint in checkpoints:
        aside = checkpoint.path.with_suffix(".unused")
        log.warning(
            "the checkpoint %s holds messages that the journal has lost; its name is now %s",
            checkpoint.path,
            aside.name,
            extra=event("checkpoint-unused", path=aside, serial=checkpoint.serial),
        )
        with database.wrap_errors(f"rename the checkpoint {checkpoint.path}"):
            filesystem.rename(checkpoint.path, aside)
