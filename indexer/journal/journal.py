"""The journal: accepted messages in order, durable before anything acts on them.

One SQLite file a UTC month, `synchronous=FULL`. Every (feed, epoch, serial) is accepted once;
what is refused is kept in the quarantine. The journal does not know what a message means. A
publisher's spool is a journal too.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path

from ..base import database, directories, disk, filesystem, times
from ..base.clock import Clock
from ..base.errors import (
    DecodeError,
    ForeignFileError,
    JournalError,
    NewerDatabaseError,
    StateError,
)
from ..messages import encode
from ..messages import types as messages
from ..messages.entries import Accepted, Claimed, Entry, Lost, Refused, Row
from ..messages.types import Message, Position
from ..schema import journal as schema
from . import quarantine
from .reader import SALVAGE_HINT, JournalReader, lost_of, wrap_errors

LOW_SPACE = 64 * 1024 * 1024
"""Bytes; with less free space, write-ahead logs and transactions are kept small."""

Key = tuple[str, int]
"""A feed and its epoch: which life of the publisher's spool."""

_INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def roll_back(directory: Path) -> None:
    """Undo what a crash left half done in the files of a journal, which readers cannot.

    Raises JournalError if that is not possible.
    """
    for left in directory.glob("*.db-journal"):
        path = left.with_suffix(".db")
        if path.exists():
            with wrap_errors(path, writing=True):
                database.roll_back(path)


class _Batch:
    """The new ones among some entries, as rows to be written.

    Attributes:
        rows: the messages, with their serials.
        inserts: rows of the table `messages`.
        identities: rows of the table `identities`.
        refusals: each with the number of its feed.
        feed_ids: the numbers of feeds that were not known.
        positions: how far every feed of the batch is accepted with it.
        broken: why messages of a feed are lost, and its number.
        claims: rows of the table `addresses`.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.inserts: list[tuple[object, ...]] = []
        self.identities: list[tuple[int]] = []
        self.refusals: list[tuple[int | None, Refused]] = []
        self.feed_ids: dict[Key, int] = {}
        self.positions: dict[Key, int] = {}
        self.broken: list[tuple[str, int]] = []
        self.claims: list[tuple[str, str, str]] = []

    def __bool__(self) -> bool:
        return bool(self.inserts or self.refusals or self.positions or self.claims)


class Journal:
    """Writes a journal; the caller holds the lock of its state.

    Args:
        directory: of the monthly files; made if it is not there.
        clock: says in which month a message belongs.
        max_refused: refused messages that are kept for each source in a month.

    Attributes:
        reader: reads the same journal, and sees every message that was appended.
        serial: of the newest message; 0 if there is none.
        low_on_space: whether disk space is short; see `LOW_SPACE`.

    Raises JournalError if a month is missing, damaged, or cannot be written.
    """

    def __init__(
        self, directory: Path, clock: Clock, max_refused: int = quarantine.MAX_KEPT_MESSAGES
    ) -> None:
        self._writer: sqlite3.Connection | None = None
        self._path = Path()  # of the month that is written
        self._clock = clock
        self._max_refused = max_refused
        self._feed_ids: dict[Key, int] = {}
        self._positions: dict[Key, int] = {}
        self._epochs: dict[str, int] = {}
        self._addresses: dict[str, tuple[str, str]] = {}
        self._kept = quarantine.Kept(0, {})
        self._was_full = False
        self.low_on_space = False
        self.serial = 0
        try:
            directories.make(directory, filesystem.STATE_DIRECTORY)
        except OSError as error:
            raise JournalError(
                f"make the journal directory {directory}",
                error.strerror,
                "check --state-dir and who owns it",
            ) from error
        roll_back(directory)
        self.reader = JournalReader(directory)
        self.reader.verify()
        if self.reader.months:
            self._close_older_months()
            self._open_month(self.reader.newest.path)

    def _open_month(self, path: Path) -> None:
        """Append to this month from now on."""
        try:
            writer = database.open_writer(path, schema.SCHEMA, synchronous="FULL")
        except (NewerDatabaseError, ForeignFileError):
            raise
        except StateError as error:
            raise JournalError(
                error.operation, error.cause, error.remedy, transient=error.transient
            ) from error
        with wrap_errors(path):
            feeds = writer.execute("SELECT feed_id, feed, epoch, serial FROM feeds").fetchall()
            addresses = writer.execute("SELECT feed, address, server_key FROM addresses").fetchall()
            meta = dict(writer.execute("SELECT key, value FROM meta").fetchall())
            serial = writer.execute("SELECT max(serial) FROM messages").fetchone()[0]
            kept = quarantine.load(writer, meta["after_quarantine"])
        if self.low_on_space:
            database.limit_wal(writer, True)
        before, self._writer, self._path = self._writer, writer, path
        self.reader.read_through(path, writer)
        if before is not None:
            before.close()
        for feed_id, feed, epoch, accepted in sorted(feeds):
            self._feed_ids[feed, epoch] = feed_id
            self._positions[feed, epoch] = accepted
            self._epochs[feed] = epoch
        self._addresses.update((feed, (address, key)) for feed, address, key in addresses)
        self.serial = max(meta["after"], serial or 0, *(end for _, end in lost_of(meta)))
        self._kept = kept

    def begin(self) -> None:
        """Make the first month: a spool needs its epoch before its first message."""
        self._this_month()

    def _this_month(self) -> sqlite3.Connection:
        """The connection that writes; makes the file of a new month."""
        path = self.reader.directory / f"{times.month(self._clock())}.db"
        # A clock that jumped back must not make an older month.
        if self._writer is not None and path <= self._path:
            return self._writer
        self._make_month(path)
        assert self._writer is not None
        return self._writer

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        writer = self._this_month()
        with wrap_errors(self._path, writing=True), database.transaction(writer):
            yield writer

    def _make_month(self, path: Path) -> None:
        """Make the file of a month, with what it carries over, and write to it from now on.

        The file gets its name when it is complete: without its feeds, a month would accept every
        message twice. After any error, the call can be repeated.
        """
        unfinished = path.with_suffix(".new")
        if not path.exists():
            meta = [
                ("journal_id", self.reader.journal_id or uuid.uuid4().hex),
                ("epoch", self.reader.epoch or self._clock()),
                ("after", self.serial),
                ("after_quarantine", self._kept.last_id),
            ]
            with wrap_errors(path, writing=True):
                feeds: list[tuple[object, ...]] = []
                if self._writer is not None:
                    feeds = self._writer.execute("SELECT * FROM feeds").fetchall()
                addresses = [(feed, *where) for feed, where in self._addresses.items()]
                database.remove(unfinished)
                with closing(
                    database.open_writer(unfinished, schema.SCHEMA, synchronous="FULL")
                ) as connection:
                    with database.transaction(connection):
                        connection.executemany("INSERT INTO feeds VALUES (?, ?, ?, ?, ?)", feeds)
                        connection.executemany("INSERT INTO addresses VALUES (?, ?, ?)", addresses)
                        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
                    # In another mode the file would be changed once more under its own name. No
                    # reader could undo what a kill at that moment leaves.
                    database.truncate_wal(connection)
                filesystem.rename(unfinished, path)
        with wrap_errors(path, writing=True):
            directories.sync(self.reader.directory)  # an earlier call may have failed here
        self._open_month(path)
        self.reader.scan()

    def _close_older_months(self) -> None:
        """Merge the write-ahead logs that a crash left beside older months.

        Otherwise an administrator who archives a month would leave its log behind.
        """
        self.reader.close()  # only the last connection to a month removes the log
        for path in self.reader.months[:-1]:
            log = Path(f"{path}-wal")
            if log.exists() and log.stat().st_size:
                database.open_writer(path, schema.SCHEMA, synchronous="FULL").close()

    def check_free_space(self) -> int | None:
        """Notice whether disk space is short; returns the free bytes, if they are known."""
        free = disk.free_bytes(self.reader.directory)
        if free is not None and (free < LOW_SPACE) != self.low_on_space:
            self.limit_wal(free < LOW_SPACE)
        return free

    def limit_wal(self, low_on_space: bool) -> None:
        """Keep the write-ahead log small from now on, or no longer."""
        self.low_on_space = low_on_space
        if self._writer is not None:
            database.limit_wal(self._writer, low_on_space)

    @property
    def open_month(self) -> tuple[sqlite3.Connection, Path] | None:
        """The month that is appended to, and its path; None while there is none."""
        return (self._writer, self._path) if self._writer is not None else None

    def position(self, feed: str, epoch: int) -> int:
        """The last serial of that feed and epoch that was accepted or quarantined; 0: none."""
        return self._positions.get((feed, epoch), 0)

    def feed_epoch(self, feed: str) -> int | None:
        """The newest epoch of a feed that is known; None for a new feed."""
        return self._epochs.get(feed)

    def address(self, feed: str) -> tuple[str, str] | None:
        """The address and the server key that a feed belongs to; None for a new feed."""
        return self._addresses.get(feed)

    def append(self, entries: Iterable[Entry]) -> list[Row]:
        """Make a batch durable in one commit; entries that were accepted before are ignored.

        Args:
            entries: those of one feed in the order of their serials.

        Returns:
            The new messages, with their serials.

        Raises JournalError if nothing was committed; the call can be repeated.
        """
        self._refuse_full()
        self._this_month()
        batch = self._prepare(list(entries))
        if not batch:
            return []
        kept = self._kept
        feed_ids = {**self._feed_ids, **batch.feed_ids} if batch.feed_ids else self._feed_ids
        with self._transaction() as writer:
            writer.executemany(
                "INSERT INTO feeds (feed_id, feed, epoch, serial) VALUES (?, ?, ?, 0)",
                [(feed_id, *key) for key, feed_id in batch.feed_ids.items()],
            )
            writer.executemany(_INSERT, batch.inserts)
            writer.executemany("INSERT INTO identities VALUES (?)", batch.identities)
            if batch.refusals:
                kept = quarantine.keep(
                    writer, batch.refusals, self._clock(), kept, self._max_refused
                )
            writer.executemany("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", batch.claims)
            # The first loss says most. A repair clears it.
            writer.executemany(
                "UPDATE feeds SET broken = coalesce(broken, ?) WHERE feed_id = ?", batch.broken
            )
            writer.executemany(
                "UPDATE feeds SET serial = ? WHERE feed_id = ?",
                [(last, feed_ids[key]) for key, last in batch.positions.items()],
            )
            gone = _forget_epochs(writer, batch.feed_ids)
        self._feed_ids.update(batch.feed_ids)
        self._epochs.update(batch.feed_ids.keys())
        self._positions.update(batch.positions)
        for key in gone:
            self._feed_ids.pop(key, None)
            self._positions.pop(key, None)
        self._addresses.update((feed, (address, key)) for feed, address, key in batch.claims)
        self.serial += len(batch.rows)
        self._kept = kept
        return batch.rows

    def _prepare(self, entries: Sequence[Entry]) -> _Batch:
        """The new ones among `entries`; changes nothing, so it can be repeated."""
        batch = _Batch()
        rows, inserts, positions = batch.rows, batch.inserts, batch.positions
        seen = self._seen(entries)
        serial = self.serial
        pack, checksum, package_of = encode.to_journal, encode.checksum, messages.package_of
        for entry in entries:
            position = entry.position
            feed_id = feed_serial = None
            if position is not None:
                feed, epoch, feed_serial = position
                key = feed, epoch
                known = positions.get(key)
                if known is None:
                    known = self._positions.get(key, 0)
                if type(entry) is Lost:
                    feed_serial = max(feed_serial, known)
                elif feed_serial <= known:
                    continue
                positions[key] = feed_serial
                feed_id = self._feed_ids.get(key) or batch.feed_ids.get(key)
                if feed_id is None:
                    # The numbers of forgotten feeds are used again.
                    last = max(self._feed_ids.values(), default=0)
                    feed_id = batch.feed_ids[key] = last + len(batch.feed_ids) + 1
            if type(entry) is Accepted:
                if entry.identity is not None:
                    digest = entry.identity.digest
                    if digest in seen:
                        continue
                    seen.add(digest)
                    batch.identities.append((digest,))
                serial += 1
                message = entry.message
                rows.append(Row(serial, message))
                name, at, data = message
                packed = pack(message)
                digits = checksum(serial, at, name, packed)
                inserts.append(
                    (serial, at, name, package_of(data), feed_id, feed_serial, packed, digits)
                )
            elif type(entry) is Lost:
                assert feed_id is not None
                batch.broken.append((entry.why, feed_id))
            elif type(entry) is Claimed:
                batch.claims.append((entry.feed, entry.address, entry.server_key))
            else:
                assert type(entry) is Refused
                batch.refusals.append((feed_id, entry))
        return batch

    def _seen(self, entries: Sequence[Entry]) -> set[int]:
        """The digests of the entries that came before.

        Each is looked up in the months since it happened, and a day before that, because clocks
        differ.
        """
        since: dict[int, times.Time] = {}
        for entry in entries:
            if type(entry) is Accepted and entry.identity is not None:
                since[entry.identity.digest] = entry.identity.happened
        seen: set[int] = set()
        if not since:
            return seen
        for path in self.reader.months:
            wanted = [
                digest
                for digest, happened in since.items()
                if times.month(max(times.EARLIEST, happened - times.DAY)) <= path.stem
            ]
            if path == self._path:
                wanted = list(since)
            if wanted:
                with wrap_errors(path):
                    connection = self.reader.open(path)
                    if not database.has_table(connection, "identities"):
                        continue  # an old month
                    rows = connection.execute(
                        "SELECT digest FROM json_each(?) JOIN identities ON digest = value",
                        (json.dumps(wanted),),
                    )
                    seen.update(row[0] for row in rows)
        return seen

    def _refuse_full(self) -> None:
        """Refuse to append before the disk is full: freeing space needs some space, too."""
        free = self.check_free_space()
        # Starting again needs a little more, or every batch would stop it again.
        needed = disk.MIN_SPACE + disk.MIN_SPACE // 4 if self._was_full else disk.MIN_SPACE
        self._was_full = free is not None and free < needed
        if self._was_full:
            assert free is not None
            self.limit_wal(True)
            raise JournalError(
                f"append to the journal in {self.reader.directory}",
                f"its file system has only {free // 1024} KiB left",
                "free some disk space (df -h); nothing that was journaled is lost",
                transient=True,
            )

    def retry(self, quarantine_id: int, message: Message) -> Row | None:
        """Accept a quarantined message; None if that was done before."""
        self._this_month()
        if quarantine.was_retried(self.reader, quarantine_id):
            return None
        batch = self._prepare([Accepted(None, message)])
        [row] = batch.rows
        with self._transaction() as writer:
            writer.executemany(_INSERT, batch.inserts)
            quarantine.retried(writer, [(quarantine_id, row.serial)])
        self.serial = row.serial
        return row

    def give_up(self, row: Row, source: str, error: DecodeError) -> None:
        """Move a message that cannot be applied to the quarantine; its serial is lost.

        Raises JournalError if the message is in a month that is over.
        """
        self._this_month()
        month = self.reader.newest
        if row.serial <= month.after:
            raise JournalError(
                f"put message {row.serial} aside",
                "it is in a month that is over",
                f"restore the index from a checkpoint{SALVAGE_HINT}",
            )
        lost = sorted([*month.lost, (row.serial, row.serial)])
        payload = encode.payload(Position("", 0, row.serial), row.message)
        refusal = Refused(None, source, "msgpack", error, payload)
        with self._transaction() as writer:
            kept = quarantine.keep_whole(writer, refusal, self._clock(), self._kept)
            writer.execute("DELETE FROM messages WHERE serial = ?", (row.serial,))
            writer.execute("INSERT OR REPLACE INTO meta VALUES ('lost', ?)", (json.dumps(lost),))
        self._kept = kept
        self.reader.scan()

    def dismiss(self, quarantine_ids: Iterable[int]) -> None:
        """Put messages of the quarantine aside: they are kept, but need no attention any more."""
        with self._transaction() as writer:
            quarantine.retried(writer, [(each, quarantine.SET_ASIDE) for each in quarantine_ids])

    def repaired(self, feed: str) -> None:
        """Note that a feed has back what it had lost."""
        with self._transaction() as writer:
            writer.execute("UPDATE feeds SET broken = NULL WHERE feed = ?", (feed,))

    def close(self) -> None:
        """Close the journal; all that was appended is durable."""
        self.reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _forget_epochs(writer: sqlite3.Connection, new: dict[Key, int]) -> list[Key]:
    """Forget earlier epochs in which nothing came: a publisher can make up any number.

    Args:
        writer: in a transaction.
        new: the numbers of epochs that are new.

    Returns:
        What was forgotten.
    """
    newest = {feed: number for (feed, _), number in sorted(new.items(), key=itemgetter(1))}
    gone: list[Key] = []
    for feed, number in newest.items():
        gone += writer.execute(
            "DELETE FROM feeds WHERE feed = ? AND serial = 0 AND feed_id < ? AND feed_id NOT IN"
            " (SELECT feed_id FROM quarantine WHERE feed_id IS NOT NULL) RETURNING feed, epoch",
            (feed, number),
        ).fetchall()
    return gone
