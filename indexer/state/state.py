"""The state directory, opened to write: its lock, and a journal and an index that agree.

Messages are journaled first and then applied. When the state is opened, the index catches up.
"""

from __future__ import annotations

import gc
import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from ..base import database, filesystem, network
from ..base.clock import Clock
from ..base.directories import JOURNAL
from ..base.errors import JournalError, NewerDatabaseError, StateError
from ..base.lock import Lock
from ..base.log import event
from ..base.progress import Progress, silent
from ..index import apply, files, pending, queries
from ..journal import journal
from ..journal.reader import JournalReader
from ..messages import poison
from ..messages.entries import Entry, Row
from ..messages.types import Message
from ..schema.index import SCHEMA
from . import checkpoint, salvage

log = logging.getLogger(__name__)


SOURCE = "journal"
"""The source, in the quarantine, of messages of the journal that could not be applied."""

OURS = (JOURNAL, queries.FILE, checkpoint.DIRECTORY)
"""The parts of a state directory; if one of them exists, so does the state."""

NEW_INDEX = "index.db.new"
BATCH = 10_000
LOW_SPACE_BATCH = 500
"""Messages in one transaction if disk space is low."""

ALWAYS_CHECKED = 512 * 1024 * 1024
"""Bytes; a larger index is verified only after a crash, because that takes long."""


class State:
    """A state directory that only this process writes.

    Args:
        directory: the state directory; created if it does not exist.
        command: the name of the command, for the lock file.
        clock: gives the time of receipt.
        progress: called during a long catch-up.
        rebuild: rebuild the index in any case.
        salvage_journal: first give up what cannot be read of a damaged journal.

    Attributes:
        salvaged: what was given up.

    Raises StateError if it is locked, damaged, from a newer version, or on a network file system.
    """

    def __init__(
        self,
        directory: Path,
        command: str,
        clock: Clock,
        progress: Progress = silent,
        *,
        rebuild: bool = False,
        salvage_journal: bool = False,
    ) -> None:
        self.directory = directory
        self.index_path = directory / queries.FILE
        self._rebuild = rebuild
        self._behind = False
        self._wal_limited = False
        network.refuse(directory)  # the lock may not even work there
        self._lock = Lock(directory, command)
        try:
            self.salvaged: salvage.Salvaged | None = None
            if salvage_journal:
                self.salvaged = salvage.salvage(directory, JOURNAL, progress)
            self.journal = journal.Journal(directory / JOURNAL, clock)
            self.note = poison.Note(directory, self.journal.serial)
            try:
                checkpoint.refuse_bare(directory, self.journal.reader, self.journal.serial)
                self.connection = self._open_index(progress)
                self._applier = apply.Applier(self.connection)
                self._catch_up(progress)
            except BaseException:
                self.note.close()
                self.journal.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def _open_index(self, progress: Progress) -> sqlite3.Connection:
        path = self.index_path
        if self._rebuild:
            self._refuse_newer()
        why = "it was asked for" if self._rebuild else self._index_fault()
        if why:
            if not self._rebuild:
                log.warning(
                    "rebuilding the index %s from the journal: %s",
                    path,
                    why,
                    extra=event("index-made-anew", path=path),
                )
            rebuild_index(self.directory, self.journal.reader, progress)
            checkpoint.set_aside(checkpoint.beyond(self.directory, self.journal.serial))
        return queries.open_index(path)

    def _refuse_newer(self) -> None:
        """Refuse to replace an index that a newer version has written."""
        try:
            connection = database.open_reader(self.index_path)
        except StateError:
            return  # missing or damaged: nothing is lost
        try:
            database.refuse_newer(connection, self.index_path, SCHEMA)
        except sqlite3.DatabaseError:
            return
        finally:
            connection.close()

    def _index_fault(self) -> str:
        """Why the index has to be rebuilt; empty if it can be used."""
        path = self.index_path
        for later in checkpoint.beyond(self.directory, self.journal.serial):
            raise self._lost_end(f"use the checkpoint {later.path}", later.serial)
        if not path.exists():
            return "there is none" if self.journal.serial else ""
        # A database that was closed cleanly has no log.
        suspect = Path(f"{path}-wal").exists() or path.stat().st_size < ALWAYS_CHECKED
        try:
            connection = queries.open_index(path)
        except NewerDatabaseError:
            raise
        except StateError as error:
            if error.transient:
                raise  # a full disk is not a reason to discard an index
            return error.cause
        try:
            made_from = queries.get(connection, "journal_id", self.journal.reader.journal_id)
            applied = queries.applied_serial(connection)
            outdated = queries.is_outdated(connection)
            if suspect:
                found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    return f"it is damaged: {found}"
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            return f"it is damaged: {error}"
        finally:
            connection.close()
        if made_from != self.journal.reader.journal_id and self.journal.serial:
            return "it was made from another journal"
        if applied > self.journal.serial:
            raise self._lost_end(f"use the index {path}", applied)
        if applied + 1 < self.journal.reader.first:
            return f"it ends with serial {applied}, before the journal begins"
        if outdated:
            if self._can_replay():
                return "an earlier version made it, which kept less of what the messages say"
            # Nothing else holds what the journal has lost.
            with (
                closing(queries.open_index(path)) as connection,
                database.wrap_errors(f"write to the index {path}", beside=self.directory),
            ):
                bring_up_to_date(connection)
        return ""

    def _can_replay(self) -> bool:
        """Whether a replay of the journal gives all that was ever in it."""
        reader = self.journal.reader
        try:
            start = checkpoint.base(self.directory, reader, self.journal.serial)
        except JournalError:
            return False
        return start is not None or not reader.lost

    def _lost_end(self, operation: str, serial: int) -> StateError:
        return StateError(
            operation,
            f"it holds messages up to serial {serial}, but the journal ends with "
            f"{self.journal.serial}: the journal has lost its end",
            "restore the journal from a backup, or accept the loss with `piw-indexer rebuild`",
        )

    def _catch_up(self, progress: Progress) -> None:
        with database.wrap_errors(f"read the index {self.index_path}"):
            applied = queries.applied_serial(self.connection)
        total = self.journal.serial - applied
        if not total:
            return
        log.info(
            "applying %d messages of the journal to the index",
            total,
            extra=event("catching-up", serial=applied, messages=total),
        )
        done = 0
        self.journal.check_free_space()
        self._apply_wal_limit()
        for rows in self.journal.reader.batches(applied, self.batch):
            if self.note.apply_each:
                self._apply_each(rows)
            else:
                self.note.applying()
                self.apply(rows)
            self.note.end()
            done += len(rows)
            progress(done, total)

    def _apply_each(self, rows: list[Row]) -> None:
        """Apply messages one by one; a message that ended earlier processes is put aside."""
        for row in rows:
            if self.note.refuses_to_apply(row.serial):
                self.journal.give_up(row, SOURCE, poison.PutAsideError())
                log.error(
                    "message %d of the journal was put aside: it ended the processes that"
                    " applied it",
                    row.serial,
                    extra=event("message-given-up", serial=row.serial),
                )
                with database.wrap_errors(f"write to the index {self.index_path}"):
                    queries.put(self.connection, "applied_serial", row.serial)
            else:
                self.apply([row])
            self.note.end()

    def apply(self, rows: list[Row]) -> None:
        """Apply messages of the journal to the index.

        Raises StateError if the index cannot be written; the journal keeps the messages.
        """
        with database.wrap_errors(f"write to the index {self.index_path}", beside=self.directory):
            if rows and rows[0].serial == 1:
                queries.put(self.connection, "journal_id", self.journal.reader.journal_id)
            self._applier.apply(rows)

    def take(self, entries: Iterable[Entry]) -> list[Row]:
        """Journal a batch, then apply it.

        Returns:
            The messages that were new.

        Raises:
            JournalError: if the batch could not be journaled; nothing was changed, try again.
            StateError: if the index could not be written; the journal has the messages, and the
            next call applies them.
        """
        try:
            rows = self.journal.append(entries)
            self._apply_wal_limit()
            if self._behind:
                self._catch_up(silent)
                self._behind = False
            elif rows:
                self._behind = True  # until they are applied
                self.apply(rows)
                self._behind = False
        except StateError as error:
            if error.transient:
                self.limit_wal()
            raise
        return rows

    @property
    def batch(self) -> int:
        """The most messages that should be accepted at once."""
        return LOW_SPACE_BATCH if self.journal.low_on_space else BATCH

    def _apply_wal_limit(self) -> None:
        """Set the index to save space if the journal does."""
        if self._wal_limited != self.journal.low_on_space:
            self._wal_limited = self.journal.low_on_space
            database.limit_wal(self.connection, self._wal_limited)

    def limit_wal(self) -> None:
        """Keep the write-ahead logs as small as possible until there is space again."""
        self.journal.limit_wal(True)
        self._wal_limited = True
        database.limit_wal(self.connection, True)

    def retry(self, quarantine_id: int, message: Message) -> bool:
        """Accept a message that was quarantined; false if it was accepted before.

        Raises StateError if it could not be written.
        """
        row = self.journal.retry(quarantine_id, message)
        if row is None:
            return False
        self.apply([row])
        return True

    def close(self) -> None:
        """Close everything and release the lock."""
        with database.wrap_errors(f"close the index {self.index_path}"):
            self.connection.close()
        self.note.close()
        self.journal.close()
        self._lock.release()


def replay(
    source: JournalReader,
    path: Path,
    until: int,
    progress: Progress = silent,
    *,
    keep: bool = False,
) -> sqlite3.Connection:
    """Make an index at `path` from the messages of a journal up to serial `until`.

    It starts from a checkpoint beside the journal's directory if older messages are gone.

    Args:
        keep: resume from an index at `path`, and leave a resumable one if killed. Not crash-safe:
            valid until the next boot.

    Returns:
        An open connection to it; the index is not durable yet. All its packages are marked.

    Raises:
        JournalError: if the journal is not complete, and no checkpoint has what is missing.
        StateError: if it cannot be written.
    """
    source.verify()
    start = checkpoint.base(source.directory.parent, source, until)
    resumed = keep and path.exists()
    if not resumed:
        database.remove(path)
        if start is not None:
            checkpoint.restore(start, path)
    # The collector would scan millions of small tuples in vain: none is in a cycle.
    gc.set_threshold(200_000, 50, 100)
    connection = queries.open_index(path, synchronous="OFF")
    try:
        with database.wrap_errors(f"write the index {path}"):
            if not keep:
                # Nobody reads it yet, and a crash means a rebuild: it needs no write-ahead log.
                connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute(f"PRAGMA cache_size = -{256 * 1024}")
            applier = apply.Applier(connection)
            done = start.serial if start is not None else 0
            if resumed:
                done = queries.applied_serial(connection)
                if done > until:
                    raise StateError(f"resume from {path}", f"it holds messages up to {done}")
                if queries.is_outdated(connection):
                    raise StateError(f"resume from {path}", "an earlier version made it")
            elif start is not None:
                _begin_from(connection, start)
            elif until:
                queries.put(connection, "journal_id", source.journal_id)
            for rows in source.batches(done, BATCH):
                if rows[-1].serial > until:
                    rows = [row for row in rows if row.serial <= until]
                if not rows:
                    break
                applier.apply(rows)
                done = rows[-1].serial
                progress(done, until)
            if done < until:  # the last ones are lost
                queries.put(connection, "applied_serial", until)
    except BaseException:
        connection.close()
        raise
    return connection


def _begin_from(connection: sqlite3.Connection, start: checkpoint.Checkpoint) -> None:
    """Mark everything to be written, because the documents may have changed since then.

    What the master said is not in the journal, and what the checkpoint has of it is outdated.
    """
    with database.transaction(connection):
        for table in ("slaves", "masters", "ended_builds", "master_answers"):
            connection.execute(f"DELETE FROM {table}")
        pending.mark_all(connection, start.serial)
        pending.forget_written(connection)
    if queries.is_outdated(connection):
        bring_up_to_date(connection)


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Work out from an index of an earlier version what does not need the messages again."""
    with database.transaction(connection):
        abis = connection.execute("SELECT abi_tag FROM build_abis ORDER BY 1").fetchall()
        files.BuiltFiles(connection, {}).set_abis(abi for (abi,) in abis)
        pending.mark_all(connection, queries.applied_serial(connection))
        connection.execute("DELETE FROM state WHERE key = 'outdated'")


def rebuild_index(directory: Path, source: JournalReader, progress: Progress = silent) -> None:
    """Rebuild the index from the journal, and replace the old index when it is complete.

    Raises:
        JournalError: if the journal is not complete.
        StateError: if it cannot be written.
    """
    path = directory / queries.FILE
    unfinished = directory / NEW_INDEX
    connection = replay(source, unfinished, source.last_serial(), progress)
    with database.wrap_errors(f"put the new index {path} in its place", beside=directory):
        with closing(connection):
            connection.execute("PRAGMA synchronous = FULL")
            # Switch to WAL mode now: a later switch that is interrupted leaves a rollback journal,
            # which readers cannot roll back.
            connection.execute("PRAGMA journal_mode = WAL")
            database.truncate_wal(connection)
        database.sync_file(unfinished)
        database.remove(path)
        filesystem.rename(unfinished, path)
