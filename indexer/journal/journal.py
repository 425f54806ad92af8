"""The journal: accepted messages in order, durable before anything acts on them.

One SQLite file a UTC month, `synchronous=FULL`. Every (feed, epoch, serial) is accepted once;
what is refused is kept beside it with its bytes and the reason. It does not know what a message
means. A publisher's spool is a journal too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
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
from ..messages.entries import Accepted, Entry, Row
from ..messages.types import Message, Position
from ..schema import journal as schema
from . import batch
from .reader import SALVAGE_HINT, JournalReader, lost_of, wrap_errors

SHORT = 64 * 1024 * 1024
"""Bytes: with less room than that, disk space is short."""

MAX_KEPT_BODY = 64 * 1024
"""Bytes of a refused message that are kept; of a larger one the beginning, length and SHA-256."""

MAX_KEPT_BYTES = 16 * 1024 * 1024
"""Bytes of refused messages that are kept for each source in a month; the oldest are let go."""

MAX_KEPT_MESSAGES = 10_000
"""Refused messages that are kept for each source in a month; the oldest are let go."""


def roll_back(directory: Path) -> None:
    """Undo what a crash left half done in the files of a journal: readers cannot.

    Raises:
        JournalError: if that is not possible.
    """
    for left in directory.glob("*.db-journal"):
        path = left.with_suffix(".db")
        if path.exists():
            with wrap_errors(path, writing=True):
                database.roll_back(path)


class Journal(JournalReader):
    """Writes a journal; whoever makes one holds the lock of its state.

    Args:
        directory: of the monthly files; made if it is not there.
        clock: tells the month of a message's receipt.

    Raises:
        JournalError: if a month is missing, damaged, or cannot be written.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._writer: sqlite3.Connection | None = None
        self._writer_path = Path()
        self._clock = clock
        self._feed_ids: dict[tuple[str, int], int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._epochs: dict[str, int] = {}
        self._addresses: dict[str, tuple[str, str]] = {}
        self._quarantine_id = 0
        self._kept: dict[str, tuple[int, int]] = {}  # messages and bytes of a source, this month
        self._was_full = False
        self.short = False
        """Whether disk space is short: write-ahead logs and transactions are kept small then."""
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
        super().__init__(directory)
        self.verify()
        if self._months:
            self._close_older_months()
            self._open_month(self._months[-1].path)

    def _open(self, path: Path) -> sqlite3.Connection:
        if self._writer is not None and path == self._writer_path:
            return self._writer
        return super()._open(path)

    def _open_month(self, path: Path) -> None:
        """Append to this month from now on."""
        try:
            writer = database.open_writer(path, schema.SCHEMA, synchronous="FULL")
        except (NewerDatabaseError, ForeignFileError):
            raise
        except StateError as error:
            raise JournalError(
                error.operation, error.cause, error.remedy, passing=error.passing
            ) from error
        with wrap_errors(path):
            feeds = writer.execute("SELECT feed_id, feed, epoch, serial FROM feeds").fetchall()
            addresses = writer.execute("SELECT feed, address, server_key FROM addresses").fetchall()
            meta = dict(writer.execute("SELECT key, value FROM meta").fetchall())
            serial = writer.execute("SELECT max(serial) FROM messages").fetchone()[0]
            refused = writer.execute("SELECT max(quarantine_id) FROM quarantine").fetchone()[0]
            kept = writer.execute(
                "SELECT source, count(*), sum(length(raw)) FROM quarantine GROUP BY source"
            ).fetchall()
        if self.short:
            database.limit_wal(writer, True)
        before, self._writer, self._writer_path = self._writer, writer, path
        if before is not None:
            before.close()
        for feed_id, feed, epoch, accepted in sorted(feeds):
            self._feed_ids[feed, epoch] = feed_id
            self._positions[feed, epoch] = accepted
            self._epochs[feed] = epoch
        self._addresses.update((feed, (address, key)) for feed, address, key in addresses)
        self.serial = max(meta["after"], serial or 0, *(end for _, end in lost_of(meta)))
        self._quarantine_id = meta["after_quarantine"] if refused is None else refused
        self._kept = {source: (messages, size) for source, messages, size in kept}

    def begin(self) -> None:
        """Make the first month now: a spool needs its epoch before its first message."""
        self._this_month()

    def _this_month(self) -> sqlite3.Connection:
        """The connection to append with; makes the month's file when the month is new."""
        path = self.directory / f"{times.month(self._clock())}.db"
        # A clock that jumped back must not make an older month.
        if self._writer is not None and path <= self._writer_path:
            return self._writer
        self._make_month(path)
        assert self._writer is not None
        return self._writer

    def _make_month(self, path: Path) -> None:
        """Make a month's file, with what it carries over, and append to it from now on.

        It gets its name when it is whole: a month without its feeds would let every message in
        twice. Whatever fails on the way, it can be called again.
        """
        unfinished = path.with_suffix(".new")
        if not path.exists():
            meta = [
                ("journal_id", self.journal_id or uuid.uuid4().hex),
                ("epoch", self.epoch or self._clock()),
                ("after", self.serial),
                ("after_quarantine", self._quarantine_id),
            ]
            with wrap_errors(path, writing=True):
                feeds: list[tuple[object, ...]] = []
                if self._writer is not None:
                    feeds = self._writer.execute("SELECT * FROM feeds").fetchall()
                addresses = [(feed, *where) for feed, where in self._addresses.items()]
                database.remove(unfinished)
                connection = database.open_writer(unfinished, schema.SCHEMA, synchronous="FULL")
                try:
                    with database.transaction(connection):
                        connection.executemany("INSERT INTO feeds VALUES (?, ?, ?, ?, ?)", feeds)
                        connection.executemany("INSERT INTO addresses VALUES (?, ?, ?)", addresses)
                        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
                    # In another mode it would be changed once more under its own name, and a kill
                    # at that moment would leave what no reader can undo.
                    database.fold(connection)
                finally:
                    connection.close()
                filesystem.rename(unfinished, path)
        with wrap_errors(path, writing=True):
            directories.sync(self.directory)  # what failed there before, too
        self._open_month(path)
        self.scan()

    def _close_older_months(self) -> None:
        """Fold in the write-ahead logs that a crash left beside older months.

        Whoever archives a month takes its file, and would leave the log behind.
        """
        super().close()  # only the last connection to a month takes the log away
        for path in self.months[:-1]:
            log = Path(f"{path}-wal")
            if log.exists() and log.stat().st_size:
                database.open_writer(path, schema.SCHEMA, synchronous="FULL").close()

    def check_free_space(self) -> int | None:
        """See whether disk space is short, and act on it; the room there is, if that is known."""
        room = disk.room(self.directory)
        if room is not None and (room < SHORT) != self.short:
            self.limit_wal(room < SHORT)
        return room

    def limit_wal(self, short: bool) -> None:
        """Keep the write-ahead log small from now on, or no longer."""
        self.short = short
        if self._writer is not None:
            database.limit_wal(self._writer, short)

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
        """Make a batch durable, in one commit; what was accepted before is passed over.

        Args:
            entries: messages and refusals, those of one feed in the order of their serials.

        Returns:
            The messages that are new, with their serials.

        Raises:
            JournalError: if it could not be committed; then nothing was, and it can be tried
                again.
        """
        self._refuse_full()
        writer = self._this_month()
        entries = list(entries)
        seen = self._seen(entries)
        made = batch.prepare(
            entries,
            seen,
            self._feed_ids,
            self._positions,
            self.serial,
            self._clock,
        )
        if not (made.inserts or made.refusals or made.positions or made.claims):
            return made.rows
        quarantine_id, kept = self._quarantine_id, self._kept
        with wrap_errors(self._writer_path, writing=True), database.transaction(writer):
            for (feed, epoch), feed_id in made.new_feeds.items():
                writer.execute(
                    "INSERT INTO feeds (feed_id, feed, epoch, serial) VALUES (?, ?, ?, 0)",
                    (feed_id, feed, epoch),
                )
            writer.executemany(batch.INSERT, made.inserts)
            if made.identities:
                writer.executemany("INSERT INTO identities VALUES (?)", made.identities)
            if made.refusals:
                quarantine_id, kept = self._quarantine(writer, made.refusals)
            writer.executemany("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", made.claims)
            # The first loss says most; a repair makes room for the next.
            writer.executemany(
                "UPDATE feeds SET broken = coalesce(broken, ?) WHERE feed_id = ?", made.broken
            )
            feed_ids = {**self._feed_ids, **made.new_feeds} if made.new_feeds else self._feed_ids
            writer.executemany(
                "UPDATE feeds SET serial = ? WHERE feed_id = ?",
                [(last, feed_ids[key]) for key, last in made.positions.items()],
            )
            gone = self._forget_epochs(writer, made.new_feeds)
        for key, feed_id in made.new_feeds.items():
            self._feed_ids[key] = feed_id
            self._epochs[key[0]] = key[1]
        self._positions.update(made.positions)
        for key in gone:
            self._feed_ids.pop(key, None)
            self._positions.pop(key, None)
        self._addresses.update((feed, (address, key)) for feed, address, key in made.claims)
        self.serial += len(made.rows)
        self._quarantine_id, self._kept = quarantine_id, kept
        return made.rows

    def _forget_epochs(
        self, writer: sqlite3.Connection, new: Mapping[tuple[str, int], int]
    ) -> list[tuple[str, int]]:
        """Forget earlier epochs in which nothing came: a publisher can make up any number.

        Args:
            writer: in a transaction.
            new: the numbers of epochs that are new, by feed and epoch.

        Returns:
            The feeds and epochs that were forgotten.
        """
        newest = {feed: number for (feed, _), number in sorted(new.items(), key=itemgetter(1))}
        gone: list[tuple[str, int]] = []
        for feed, number in newest.items():
            gone += writer.execute(
                "DELETE FROM feeds WHERE feed = ? AND serial = 0 AND feed_id < ? AND feed_id NOT IN"
                " (SELECT feed_id FROM quarantine WHERE feed_id IS NOT NULL) RETURNING feed, epoch",
                (feed, number),
            ).fetchall()
        return gone

    def _seen(self, entries: list[Entry]) -> set[int]:
        """The digests of those entries that came before.

        They are looked up in the months since they happened; a day more for clocks that differ.
        """
        since: dict[int, times.Time] = {}
        for entry in entries:
            if type(entry) is Accepted and entry.identity is not None:
                since[entry.identity.digest] = entry.identity.happened
        seen: set[int] = set()
        if not since:
            return seen
        for path in self.months:
            wanted = [
                digest
                for digest, happened in since.items()
                if times.month(max(times.EARLIEST, happened - times.DAY)) <= path.stem
            ]
            if path == self._writer_path:
                wanted = list(since)
            if wanted:
                with wrap_errors(path):
                    connection = self._open(path)
                    if not database.has_table(connection, "identities"):
                        continue  # a month of before there were any
                    found = connection.execute(
                        "SELECT digest FROM json_each(?) JOIN identities ON digest = value",
                        (json.dumps(wanted),),
                    )
                    seen.update(row[0] for row in found)
        return seen

    def _refuse_full(self) -> None:
        """Refuse to go on until nothing works any more: whoever makes room needs some, too."""
        room = self.check_free_space()
        # A little more to begin again, or every batch would stop it once more.
        least = disk.LEAST + disk.LEAST // 4 if self._was_full else disk.LEAST
        self._was_full = room is not None and room < least
        if self._was_full:
            assert room is not None
            self.limit_wal(True)
            raise JournalError(
                f"append to the journal in {self.directory}",
                f"its file system has only {room // 1024} KiB left",
                "free some disk space (df -h); nothing that was journaled is lost",
                passing=True,
            )

    def _quarantine(
        self, writer: sqlite3.Connection, refusals: Sequence[tuple[object, ...]]
    ) -> tuple[int, dict[str, tuple[int, int]]]:
        """Keep refused bytes; the same without a position, again and again, is counted.

        Returns:
            The last quarantine_id, and how much is kept of every source.
        """
        quarantine_id, kept = self._quarantine_id, dict(self._kept)
        for source, feed_id, *rest, raw in refusals:
            assert isinstance(source, str)
            assert isinstance(raw, bytes)
            digest = None
            if feed_id is None:
                digest = hashlib.sha256(source.encode() + b"\0" + raw).digest()
                again = writer.execute(
                    "UPDATE quarantine SET times = times + 1 WHERE digest = ?", (digest,)
                )
                if again.rowcount:
                    continue
            quarantine_id += 1
            beginning = raw[:MAX_KEPT_BODY]
            writer.execute(
                "INSERT INTO quarantine (quarantine_id, source, feed_id, feed_serial, received,"
                " format, path, reason, raw, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (quarantine_id, source, feed_id, *rest, beginning, digest),
            )
            if len(beginning) < len(raw):
                writer.execute(
                    "INSERT INTO quarantine_cut VALUES (?, ?, ?)",
                    (quarantine_id, len(raw), hashlib.sha256(raw).digest()),
                )
            messages, size = kept.get(source, (0, 0))
            kept[source] = messages + 1, size + len(beginning)
        for source, (messages, size) in kept.items():
            if messages > MAX_KEPT_MESSAGES or size > MAX_KEPT_BYTES:
                kept[source] = self._let_go(writer, source, messages, size)
        return quarantine_id, kept

    def _let_go(
        self, writer: sqlite3.Connection, source: str, messages: int, size: int
    ) -> tuple[int, int]:
        """Let the oldest of a source go; what is left of it, messages and bytes."""
        gone: list[tuple[int]] = []
        freed = 0
        for quarantine_id, length in writer.execute(
            "SELECT quarantine_id, length(raw) FROM quarantine WHERE source = ?"
            " ORDER BY quarantine_id",
            (source,),
        ):
            if messages - len(gone) <= MAX_KEPT_MESSAGES and size - freed <= MAX_KEPT_BYTES:
                break
            gone.append((quarantine_id,))
            freed += length
        writer.executemany("DELETE FROM quarantine WHERE quarantine_id = ?", gone)
        writer.executemany("DELETE FROM quarantine_cut WHERE quarantine_id = ?", gone)
        writer.execute(
            "INSERT INTO quarantine_let_go VALUES (?, ?, ?) ON CONFLICT (source) DO UPDATE SET"
            " messages = messages + excluded.messages, bytes = bytes + excluded.bytes",
            (source, len(gone), freed),
        )
        return messages - len(gone), size - freed

    def retry(self, quarantine_id: int, message: Message) -> Row | None:
        """Accept a message that was quarantined; None if that was done before.

        Raises:
            JournalError: if it could not be committed.
        """
        writer = self._this_month()
        for path in self.months:
            with wrap_errors(path):
                done = self._open(path).execute(
                    "SELECT 1 FROM retries WHERE quarantine_id = ?", (quarantine_id,)
                )
                if done.fetchone() is not None:
                    return None
        made = batch.prepare([Accepted(None, message)], set(), {}, {}, self.serial, self._clock)
        [row] = made.rows
        with wrap_errors(self._writer_path, writing=True), database.transaction(writer):
            writer.executemany(batch.INSERT, made.inserts)
            writer.execute("INSERT INTO retries VALUES (?, ?)", (quarantine_id, row.serial))
        self.serial = row.serial
        return row

    def give_up(self, row: Row, source: str, error: DecodeError) -> None:
        """Put a message into the quarantine that cannot be applied; its serial is lost.

        Raises:
            JournalError: if it could not be committed, or is in a month that is over.
        """
        writer = self._this_month()
        [month] = [one for one in self._months if one.path == self._writer_path]
        if row.serial <= month.after:
            raise JournalError(
                f"put message {row.serial} aside",
                "it is in a month that is over",
                f"restore the index from a checkpoint{SALVAGE_HINT}",
            )
        lost = [*month.lost, (row.serial, row.serial)]
        quarantine_id, serial, message = self._quarantine_id + 1, *row
        payload = encode.payload(Position("", 0, serial), message)
        with wrap_errors(self._writer_path, writing=True), database.transaction(writer):
            writer.execute(
                "INSERT INTO quarantine"
                " (quarantine_id, source, received, format, path, reason, raw)"
                " VALUES (?, ?, ?, 'msgpack', ?, ?, ?)",
                (quarantine_id, source, self._clock(), error.path, error.cause, payload),
            )
            writer.execute("DELETE FROM messages WHERE serial = ?", (serial,))
            writer.execute(
                "INSERT OR REPLACE INTO meta VALUES ('lost', ?)", (json.dumps(sorted(lost)),)
            )
        self._quarantine_id = quarantine_id
        self.scan()

    def dismiss(self, quarantine_ids: Iterable[int]) -> None:
        """Put messages of the quarantine aside: they are kept, and wait for nothing any more.

        They stand among the retries, with the serial 0, which no message has.

        Raises:
            JournalError: if it could not be committed.
        """
        writer = self._this_month()
        with wrap_errors(self._writer_path, writing=True), database.transaction(writer):
            writer.executemany(
                "INSERT INTO retries VALUES (?, 0)", [(one,) for one in quarantine_ids]
            )

    def repaired(self, feed: str) -> None:
        """Note that what a feed had lost is known again.

        Raises:
            JournalError: if it could not be committed.
        """
        writer = self._this_month()
        with wrap_errors(self._writer_path, writing=True), database.transaction(writer):
            writer.execute("UPDATE feeds SET broken = NULL WHERE feed = ?", (feed,))

    def close(self) -> None:
        """Close the journal; what was appended is durable already."""
        super().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
