"""A backup of a state directory, taken while a daemon or a publisher may write it.

The backup is a state directory without an index: journal and checkpoint of one moment, and the
spool of a publisher. Every file is complete when it gets its name. Unchanged months are not copied
again. Nothing in the backup is ever replaced by less.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ..base import database, directories, filesystem
from ..base.errors import (
    ForeignFileError,
    JournalError,
    NewerDatabaseError,
    StateError,
    UnfinishedError,
)
from ..base.lock import Lock
from ..base.log import event
from ..base.progress import Progress
from ..index import queries
from ..journal import damage
from ..journal.reader import JournalReader, month_files, refuse_unreadable
from . import checkpoint

log = logging.getLogger(__name__)


class Copied(NamedTuple):
    """The result for a journal: months copied and unchanged, and the messages that it now holds."""

    copied: int
    unchanged: int
    first: int
    last: int


class Done(NamedTuple):
    """The result of a backup: for the journal, the newest checkpoint, and the spool."""

    journal: Copied | None
    checkpoint: checkpoint.Checkpoint | None
    spool: Copied | None


def backup(
    state_dir: Path, journal: str, spool: str, target: Path, progress: Progress, turn: int = 0
) -> Done:
    """Copy the journal, the newest checkpoint and the spool of a state directory.

    Args:
        state_dir: the state directory; only read.
        journal: the name of the journal's directory in it.
        spool: the name of a publisher's spool in it; one of the two must exist.
        target: the directory of the backup; created if it does not exist.
        progress: called with the bytes copied so far.
        turn: a number that grows: of the copies that have not changed, one in turn is read to its
            end, because disks forget.

    Raises:
        StateError: if the source is damaged, the target cannot be written, or holds something
            that this backup must not replace.
    """
    operation = f"back up {state_dir} to {target}"
    has_journal, has_spool = ((state_dir / name).is_dir() for name in (journal, spool))
    if not has_journal and not has_spool:
        raise StateError(
            operation,
            "there is no journal in it",
            "check --state-dir; the daemon or `piw-indexer ingest` makes it",
        )
    source, directory = (Path(os.path.realpath(path)) for path in (state_dir, target))
    if directory == source or source in directory.parents:
        raise StateError(
            operation,
            "the backup directory lies inside the state directory",
            "choose a directory elsewhere",
        )
    if (target / queries.FILE).exists():
        raise StateError(
            operation,
            f"{target} has an index: it is a state directory in use, not a backup",
            "choose another directory",
        )
    # The backup must not be more open than the state.
    mode = filesystem.STATE_DIRECTORY & state_dir.stat().st_mode
    remedy = f"make it for the user that the state belongs to: install -d -o USER -m 750 {target}"
    try:
        directories.make(target, mode)
    except OSError as error:
        raise StateError(operation, error.strerror or error, remedy) from error
    held = Lock(target, "backup", "the backup directory", remedy)
    try:
        kept = journaled = spooled = None
        if has_journal:
            # The checkpoint first: a checkpoint made meanwhile may be ahead of the copied months.
            kept = _checkpoint(state_dir, target, journal)
            journaled = _journal(state_dir / journal, target / journal, operation, progress, turn)
            _refuse_unusable(target, journal, kept, operation)
        if has_spool:
            spooled = _journal(state_dir / spool, target / spool, operation, progress, turn)
        return Done(journaled, kept, spooled)
    finally:
        held.release()


def _checkpoint(state_dir: Path, target: Path, journal: str) -> checkpoint.Checkpoint | None:
    """Copy the newest checkpoint, unless the backup has it."""
    found = checkpoint.every(state_dir)
    if not found:
        return None
    newest = found[-1]
    reader = JournalReader(state_dir / journal)
    journal_id = reader.journal_id
    reader.close()
    with checkpoint.making(target) as unfinished:
        place = target / checkpoint.DIRECTORY / newest.path.name
        there = checkpoint.Checkpoint(place, newest.serial)
        if place.exists() and not checkpoint.fault(there, journal_id):
            return there
        with database.wrap_errors(f"copy the checkpoint {newest.path} to {place}"):
            filesystem.copy(newest.path, unfinished)
            database.sync_file(unfinished)
        return checkpoint.accept(
            target, checkpoint.Checkpoint(unfinished, newest.serial), journal_id
        )


def _journal(source: Path, target: Path, operation: str, progress: Progress, turn: int) -> Copied:
    """Copy a journal, and verify the result."""
    with closing(JournalReader(source)) as reader:
        reader.verify()
        copied, unchanged = _months(reader, target, operation, progress, turn)
    try:
        with closing(JournalReader(target)) as there:
            there.verify()
            return Copied(copied, unchanged, there.first, there.last_serial())
    except JournalError as error:
        if error.transient:
            raise
        raise StateError(
            operation,
            f"the backup is not complete: {error.cause}; the journal is sound",
            "put back there what is missing, or choose another directory",
        ) from error


def _months(
    reader: JournalReader, target: Path, operation: str, progress: Progress, turn: int
) -> tuple[int, int]:
    """Copy the months that the backup lacks, the oldest first; returns copied and unchanged."""
    with database.wrap_errors(f"write to {target}"):
        if not target.is_dir():
            directories.make(target, filesystem.STATE_DIRECTORY)
    there = month_files(target)
    copies = {
        path.name: _copy_of(path, thorough=number == turn % len(there))
        for number, path in enumerate(there)
    }
    months = {path.name for path in reader.months}
    for name, one in copies.items():
        if one.fault and name not in months:
            raise StateError(
                operation,
                f"its copy {target / name} is damaged ({one.fault}), and the journal no longer has"
                " that month to copy it again; the journal itself is sound",
                "put a sound copy of that file there, or choose another directory",
            )
        if not one.fault and one.journal_id != reader.journal_id:
            raise StateError(
                operation, "it is the backup of another journal", "choose another directory"
            )
        if one.serial > reader.last_serial():
            raise StateError(
                operation,
                f"the backup goes up to serial {one.serial}, the journal only to"
                f" {reader.last_serial()}: the journal has lost its end",
                "restore the journal from the backup, or choose another directory",
            )
    copied = unchanged = done = 0
    total = sum(path.stat().st_size for path in reader.months)
    for path in reader.months:
        place = target / path.name
        with database.wrap_errors(operation, JournalError):
            before = copies.get(path.name)
            if before is not None and not before.fault and before.identity == _identity(path):
                unchanged += 1
            else:
                _copy(path, place, before, operation)
                copied += 1
        done += path.stat().st_size
        progress(done, total)
    return copied, unchanged


class _There(NamedTuple):
    """A month that a backup has.

    Attributes:
        fault: why it cannot be read; empty if it can be.
        identity: see `_identity`.
    """

    fault: str
    identity: list[Any]

    @property
    def serial(self) -> int:
        """Of its last message; 0 if it has none, or is damaged."""
        return int(self.identity[0][0][0] or 0) if self.identity else 0

    @property
    def journal_id(self) -> str:
        return str(dict(self.identity[1])["journal_id"])


def _copy_of(place: Path, *, thorough: bool) -> _There:
    """What a backup has of a month; whether its messages are sound only if that is asked.

    Raises StateError if the disk does not return it, or a newer version made it.
    """
    try:
        with database.wrap_errors(f"read the copy {place}"):
            identity = _identity(place)
            if "journal_id" not in dict(identity[1]):
                return _There("it does not say its journal_id", [])
        if thorough and (fault := next(damage.faults(place), "")):
            return _There(fault, [])
    except (NewerDatabaseError, ForeignFileError, UnfinishedError):
        raise
    except StateError as error:
        if error.transient:
            raise
        refuse_unreadable(place, f"read the copy {place}")
        return _There(error.cause, [])
    return _There("", identity)


def _identity(path: Path) -> list[Any]:
    """What differs whenever a month does: its last message, its feeds, its quarantine."""
    with closing(database.open_reader(path)) as connection, database.snapshot(connection):
        return [
            connection.execute(select).fetchall()
            for select in (
                "SELECT max(serial) FROM messages",
                "SELECT key, value FROM meta ORDER BY key",
                "SELECT * FROM feeds ORDER BY feed_id",
                "SELECT max(quarantine_id), count(*), total(times) FROM quarantine",
                "SELECT count(*) FROM retries",
            )
        ]


def _copy(path: Path, place: Path, before: _There | None, operation: str) -> None:
    """Copy one month; the copy replaces an older one when it is complete and verified.

    A damaged copy is kept beside it: it may have messages that the journal has lost.
    """
    wal = Path(f"{place}-wal")
    if wal.exists() and wal.stat().st_size:
        raise JournalError(
            operation,
            f"another program has written to {place}: {wal.name} is beside it",
            "choose another directory",
        )
    unfinished = place.with_suffix(".new")
    try:
        database.copy(path, unfinished)
        found = next(damage.faults(unfinished), "")
        if found:
            if not next(damage.faults(path), ""):
                raise StateError(
                    operation,
                    f"a copy of {path.name} that was just made there is damaged: {found}; the"
                    " journal is sound",
                    "look at the disk of the backup (dmesg); the backup keeps what it has",
                )
            raise JournalError(
                f"back up the journal's {path.name}",
                f"it is damaged: {found}",
                "run `piw-indexer check`; the backup keeps what it has",
            )
        if before is not None and before.fault:
            aside = damage.put_aside(place)
            log.warning(
                "the copy %s is damaged (%s): it was made again from the journal, and the damaged"
                " one is %s",
                place,
                before.fault,
                aside,
                extra=event("copy-damaged", path=place),
            )
        elif before is not None:
            _refuse_less(before.identity, _identity(unfinished), path, place)
        for suffix in ("-wal", "-shm"):  # the empty log of a reader
            Path(f"{place}{suffix}").unlink(missing_ok=True)
        filesystem.rename(unfinished, place)
    finally:
        database.remove(unfinished)


def _refuse_less(before: list[Any], now: list[Any], path: Path, place: Path) -> None:
    """Refuse to replace a month of the backup by a month that has lost messages since."""
    (had,), (has,) = before[0], now[0]
    lost = dict(now[1]).get("lost", "[]") != dict(before[1]).get("lost", "[]")
    if lost or (had[0] or 0) > (has[0] or 0):
        raise JournalError(
            f"back up the journal's {path.name}",
            f"it has lost messages that the backup's {place} still has",
            "stop the daemon, copy that over it and run `piw-indexer rebuild`; or choose"
            " another directory for the backup",
        )


def _refuse_unusable(
    target: Path, journal: str, kept: checkpoint.Checkpoint | None, operation: str
) -> None:
    """Refuse a backup from which no state directory could be restored."""
    reader = JournalReader(target / journal)
    try:
        checkpoint.base(target, reader, reader.last_serial())
        if kept is not None and kept.serial > reader.last_serial():
            raise StateError(
                operation,
                f"the checkpoint holds messages up to serial {kept.serial}, but the journal ends"
                f" with {reader.last_serial()}",
                "run `piw-indexer check`",
            )
    except sqlite3.Error as error:
        raise StateError(operation, error, "run `piw-indexer check`") from error
    finally:
        reader.close()
