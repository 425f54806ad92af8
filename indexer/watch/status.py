"""The status of a state directory: read only, whether a daemon runs or not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .. import __version__
from ..base import database, directories, disk, lock, notes, printable, readers, sqlite_bug, times
from ..base.directories import BACKUP, BACKUP_FAILURE, CHECK, JOURNAL, LIVE, SPOOL
from ..base.errors import NewerDatabaseError, PeerError, StateError
from ..base.names import FILE_FEED
from ..base.notes import At
from ..daemon.status_file import Live, LiveStatusQueue
from ..index import pending, queries
from ..journal import quarantine
from ..journal.reader import JournalReader
from ..piwheels.farm.picture import Picture
from ..reasons import note as reasons
from ..state import checkpoint
from . import illness
from .alerts import CRITICAL, NOTICE, WARNING, Alert, alert, is_healthy, sentences
from .illness import Illness
from .notes import Backup, BackupFailure, Check, Daemon, DaemonNote

MAX_SILENCE = 10.0
"""Seconds without a word of the daemon, or of a feed, until there is an alert."""

MAX_LAG = 60.0
"""Seconds that published messages may wait until there is an alert."""

MAX_PENDING = 300.0
"""Seconds that a package may wait to be written until there is an alert."""

LOW_SPACE = 2**30
"""Bytes of a file system below which there is an alert."""

MAX_BACKUP_AGE = 8 * 24 * 3600
"""Seconds until there is an alert: one a week is often enough."""

COUNTED = ("packages", "versions", "builds", "files", "download_counts")

STATE_PARTS = ("journal", "index", "logs", "checkpoints", "spool", "other")
"""Of a state directory. The logs are what SQLite keeps beside databases until it is merged."""

_OURS = "piw-indexer "
_DAEMON = f"{_OURS}run (pid "

_Note = TypeVar("_Note")


class FeedStatus(NamedTuple):
    """A feed in its newest epoch; what follows `broken` only a running daemon knows."""

    feed: str
    epoch: int | None
    serial: int
    broken: str | None
    published: int | None
    lag: int | None
    lag_seconds: float | None
    filling: bool
    silent_seconds: float | None


class SpoolStatus(NamedTuple):
    """What a publisher, such as a bridge, keeps in a state directory."""

    held_by: str
    serial: int
    bytes: int
    quarantined: int
    quarantined_let_go: int


class Month(NamedTuple):
    """A file of the journal."""

    month: str
    bytes: int


class Status(NamedTuple):
    """Everything that `status` shows; schema/status.schema.json says what the fields mean."""

    version: str
    at: At
    well: bool
    alerts: list[Alert]
    problems: list[str]
    state_dir: str
    held_by: str
    serial: int
    applied_serial: int
    to_apply: int
    to_accept: int
    lag: int
    lag_seconds: float
    pending: int
    oldest_pending_serial: int | None
    oldest_pending_seconds: float | None
    quarantined: int
    quarantined_let_go: int
    feeds: list[FeedStatus]
    files_ingested: int
    counts: dict[str, int]
    not_a_wheel: int
    journal_bytes: int
    journal_months: list[Month]
    journal_bytes_a_month: int | None
    sqlite_version: str
    sqlite_wal_reset_bug: bool
    last_check: Check | None
    last_backup: Backup | None
    daemon: DaemonNote | None
    farm: Picture | None
    disk_free_bytes: int | None
    disk_bytes: int | None
    output_path: str | None
    output_disk_free_bytes: int | None
    output_disk_bytes: int | None
    backup_failure: BackupFailure | None = None
    state_parts: dict[str, int] | None = None  # older versions did not say
    logs_read_by: dict[str, list[str]] | None = None  # by database, where a log is held
    downloads: int | None = None  # only where rows were counted
    packages_with_downloads: int | None = None  # likewise
    spool: SpoolStatus | None = None
    ill_slaves: list[Illness] | None = None

    @property
    def only_publishes(self) -> bool:
        """Whether this is the state of a bridge or of `publish`, and no daemon's."""
        return self.spool is not None and not (self.journal_months or self.held_by)


class FarmStatus(NamedTuple):
    """What `farm` shows: the farm, the connection to its master, and what is wrong."""

    farm: Picture
    status_feed: LiveStatusQueue | None
    problems: list[str]
    ill_slaves: list[Illness]

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **notes.plain(self.farm),
            "status_feed": notes.plain(self.status_feed, LiveStatusQueue | None),
            "problems": self.problems,
            "ill_slaves": notes.plain(self.ill_slaves, list[Illness]),
        }


def gather(directory: Path, now: times.Time, *, counting: bool = True) -> Status:
    """Everything that `status` shows.

    Args:
        directory: the state directory.
        now: the present, for ages.
        counting: count the rows of the index, which reads much of a large index.

    Raises:
        StateError: if there is no state there, or it cannot be read.
    """
    directories.refuse_missing(directory, JOURNAL, SPOOL)
    held_by = lock.holder(directory)
    noted = _Noted(directory)
    daemon = noted.daemon(held_by, now)
    with closing(JournalReader(directory / JOURNAL)) as reader:
        serial = reader.last_serial()
        every_feed = _feeds(reader, daemon, now)
        quarantined, let_go = quarantine.waiting(reader), quarantine.let_go(reader)
        months = [Month(path.stem, path.stat().st_size) for path in reader.months]
    index = _Index()
    if (directory / queries.FILE).exists():
        index = _read_index(directory / queries.FILE, counting, now)
    feeds = [feed for feed in every_feed if not feed.feed.startswith(FILE_FEED)]
    to_apply = max(0, serial - index.applied_serial)
    # Publishers may claim any serial; readers of JSON cannot hold larger numbers.
    to_accept = min(sum(feed.lag or 0 for feed in feeds), notes.MAX_COUNT)
    output_path = daemon.live.output_path if daemon is not None else ""
    farm = daemon.sources.farm if daemon is not None else None
    free, size = disk.sizes(directory)
    output_free, output_size = disk.sizes(Path(output_path)) if output_path else (None, None)
    status = Status(
        version=__version__,
        at=now,
        well=False,
        alerts=[],
        problems=[],
        state_dir=printable.utf8(str(directory)),
        held_by=held_by,
        serial=serial,
        applied_serial=index.applied_serial,
        to_apply=to_apply,
        to_accept=to_accept,
        lag=min(to_apply + to_accept, notes.MAX_COUNT),
        lag_seconds=max((feed.lag_seconds or 0.0 for feed in feeds), default=0.0),
        pending=index.pending,
        oldest_pending_serial=index.oldest_pending_serial,
        oldest_pending_seconds=daemon.live.oldest_pending_seconds if daemon is not None else None,
        quarantined=quarantined,
        quarantined_let_go=let_go,
        feeds=feeds,
        files_ingested=len(every_feed) - len(feeds),
        counts=index.counts or {},
        not_a_wheel=index.not_a_wheel,
        journal_bytes=sum(month.bytes for month in months),
        journal_months=months,
        # The last complete month; the present one still grows.
        journal_bytes_a_month=months[-2].bytes if len(months) > 1 else None,
        sqlite_version=sqlite3.sqlite_version,
        sqlite_wal_reset_bug=sqlite_bug.has_wal_reset_bug(sqlite3.sqlite_version_info),
        last_check=noted.read(CHECK, Check),
        last_backup=noted.read(BACKUP, Backup),
        daemon=daemon,
        farm=farm and _with_illness(farm, index.ill_slaves),
        disk_free_bytes=free,
        disk_bytes=size,
        output_path=output_path or None,
        output_disk_free_bytes=output_free,
        output_disk_bytes=output_size,
        backup_failure=noted.read(BACKUP_FAILURE, BackupFailure),
        state_parts=_parts(directory),
        logs_read_by=_held_by(directory, daemon),
        downloads=index.downloads,
        packages_with_downloads=index.packages_with_downloads,
        spool=_spool(directory / SPOOL),
        ill_slaves=list(index.ill_slaves),
    )
    noted.look_at_rules()
    alerts = alerts_of(status, noted.alerts)
    return status._replace(alerts=alerts, well=is_healthy(alerts), problems=sentences(alerts))


def _spool(directory: Path) -> SpoolStatus | None:
    """A publisher's spool; None if there is none."""
    if not directory.is_dir():
        return None
    with closing(JournalReader(directory)) as reader:
        return SpoolStatus(
            lock.holder(directory),
            reader.last_serial(),
            sum(path.stat().st_size for path in reader.months),
            quarantine.waiting(reader),
            quarantine.let_go(reader),
        )


def _parts(directory: Path) -> dict[str, int]:
    """The bytes of everything in a state directory, by part."""
    found = dict.fromkeys(STATE_PARTS, 0)
    parts = {
        JOURNAL: "journal",
        checkpoint.DIRECTORY: "checkpoints",
        SPOOL: "spool",
    }
    for above, _, files in os.walk(directory):
        inside = Path(above).relative_to(directory).parts
        for name in files:
            part = parts.get(inside[0].removesuffix(".old"), "other") if inside else "other"
            if name.endswith(("-wal", "-shm", "-journal")):
                part = "logs"
            elif not inside and name == queries.FILE:
                part = "index"
            try:
                found[part] += os.lstat(f"{above}/{name}").st_size
            except OSError:
                pass  # it has just been removed
    return found


def _held_by(directory: Path, daemon: Daemon | None) -> dict[str, list[str]]:
    """Who reads the databases whose logs are held, as far as we may know."""
    if daemon is None:
        return {}
    return {
        held.name: [
            printable.utf8(one) for one in readers.of(directory / held.name, daemon.live.pid)
        ]
        for held in daemon.live.logs_held or ()
    }


def unreadable(error: StateError) -> Alert:
    """The alert for an error of `gather`."""
    kind = "database-newer" if isinstance(error, NewerDatabaseError) else "state-unreadable"
    return alert(kind, *error.problem)


def live_farm(directory: Path, now: times.Time) -> FarmStatus:
    """The farm as the daemon sees it at this moment.

    Args:
        directory: the state directory.
        now: the present, for ages.

    Raises:
        StateError: if there is no state there.
        PeerError: if no daemon runs on it, or none that follows a master.
    """
    directories.refuse_missing(directory, JOURNAL)
    operation = f"show the farm of {directory}"
    noted = _Noted(directory)
    daemon = noted.daemon(lock.holder(directory), now)
    for unread in noted.alerts.values():
        raise PeerError(operation, unread.what, unread.remedy)
    if daemon is None:
        raise PeerError(operation, "no daemon runs there", "start it, with --status-queue")
    if daemon.sources.farm is None:
        raise PeerError(
            operation,
            "the daemon there does not follow a master",
            "give it --status-queue, the address of piw-master's status queue",
        )
    index = directory / queries.FILE
    with closing(queries.open_reader(index)) as connection, database.wrap_errors(f"read {index}"):
        ill = illness.ill_slaves(connection, now)
    farm = _with_illness(daemon.sources.farm, ill)
    alerts = sentences([*_daemon_alerts(daemon), *_slave_alerts(ill)])
    return FarmStatus(farm, daemon.sources.status_feed, alerts, list(ill))


def _with_illness(farm: Picture, ill: Sequence[Illness]) -> Picture:
    """The same, where the alerts of a slave also say that it is ill."""
    brief: dict[int, tuple[str, ...]] = {}
    for one in ill:
        brief[one.slave_id] = (*brief.get(one.slave_id, ()), one.brief)
    slaves = (
        slave._replace(alerts=slave.alerts + brief.get(slave.slave_id, ())) for slave in farm.slaves
    )
    return farm._replace(slaves=tuple(slaves))


class _Index(NamedTuple):
    """What the index says; the defaults stand for an index that does not exist."""

    applied_serial: int = 0
    pending: int = 0
    oldest_pending_serial: int | None = None
    not_a_wheel: int = 0
    counts: dict[str, int] | None = None
    downloads: int | None = None
    packages_with_downloads: int | None = None
    ill_slaves: Sequence[Illness] = ()


def _read_index(path: Path, counting: bool, now: times.Time) -> _Index:
    with closing(queries.open_reader(path)) as connection:
        if not database.has_tables(connection):
            return _Index()  # the process that began it was killed; the next start continues
        with database.wrap_errors(f"read {path}"), database.snapshot(connection):
            index = _Index(
                queries.applied_serial(connection),
                pending.count(connection),
                pending.oldest(connection),
                queries.get(connection, "no_wheels", 0),
                ill_slaves=illness.ill_slaves(connection, now),
            )
            return _counted(connection, index) if counting else index


def _counted(connection: sqlite3.Connection, index: _Index) -> _Index:
    """The same with the rows counted; takes 0.3 s for ten million versions in memory."""
    # A row need not mean a download, and may be of a package that is not known.
    downloads, packages = connection.execute(
        "SELECT CAST(total(downloads_all) AS INTEGER),"
        " count(*) FILTER (WHERE listed AND downloads_all) FROM download_counts"
    ).fetchone()
    return index._replace(
        counts={
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in COUNTED
        },
        downloads=downloads,
        packages_with_downloads=packages,
    )


class _Noted:
    """The notes of a state directory; a note that cannot be read counts as missing.

    Attributes:
        alerts: about notes, by their name.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.alerts: dict[str, Alert] = {}

    def read(self, name: str, kind: type[_Note]) -> _Note | None:
        """A note; None if there is none."""
        try:
            return notes.read(self._directory / name, kind)
        except notes.NoteError as error:
            what = f"the note {name} in the state directory cannot be read: {error}"
            self.alerts[name] = alert("note-unreadable", what)
            return None

    def look_at_rules(self) -> None:
        """Add an alert if better rules have come since logs of failed builds were read."""
        found = self.read(reasons.NOTE, reasons.Note)
        if found is not None and found.outdated:
            what = f"logs of failed builds were read with rules {found.read_with}, and this version"
            self.alerts[reasons.NOTE] = alert("rules-newer", f"{what} has rules {reasons.VERSION}")

    def daemon(self, held_by: str, now: times.Time) -> Daemon | None:
        """What the daemon that holds the directory says of itself; None if there is none."""
        if not held_by or (held_by.startswith(_OURS) and not held_by.startswith(_DAEMON)):
            return None
        hint: Any = DaemonNote
        daemon: Daemon | None = self.read(LIVE, hint)
        # A daemon that was killed leaves its note behind.
        if daemon is None or f"(pid {daemon.live.pid})" not in held_by:
            return None
        return daemon._replace(age_seconds=round((now - daemon.live.at) / times.SECOND, 1))


def _feeds(reader: JournalReader, daemon: Daemon | None, now: times.Time) -> list[FeedStatus]:
    """Every feed in its newest epoch, with what the daemon knows of it."""
    newest: dict[str, FeedStatus] = {}
    for feed, epoch, serial, broken in reader.feeds():
        before = newest.get(feed)
        # A feed stays broken in later epochs until it is repaired.
        broken = broken or (before.broken if before else None)
        newest[feed] = FeedStatus(feed, epoch, serial, broken, None, None, None, False, None)
    for live in daemon.live.feeds if daemon else ():
        accepted = newest.get(live.feed)
        serial = accepted.serial if accepted is not None else live.serial
        newest[live.feed] = FeedStatus(
            live.feed,
            live.epoch,
            serial,
            accepted.broken if accepted is not None else None,
            live.published,
            max(0, live.published - serial),
            live.lag_seconds,
            live.filling,
            round((now - live.heard) / times.SECOND, 1),
        )
    return list(newest.values())


def alerts_of(status: Status, of_notes: dict[str, Alert]) -> list[Alert]:
    """Everything that is wrong, the worst first."""
    alerts = [*of_notes.values(), *_disk_alerts(status)]
    if LIVE not in of_notes:
        alerts += _holder_alerts(status)
    if status.daemon is not None:
        alerts += _daemon_alerts(status.daemon)
        alerts += _log_alerts(status, status.daemon.live)
    for feed in status.feeds:
        alerts += _feed_alerts(feed)
    alerts += _slave_alerts(status.ill_slaves or ())
    alerts += _index_alerts(status)
    rank = {CRITICAL: 0, WARNING: 1, NOTICE: 2}
    return sorted(alerts, key=lambda shown: rank[shown.severity])


def _holder_alerts(status: Status) -> Iterator[Alert]:
    if status.daemon is not None:
        return
    if status.only_publishes:
        if status.spool is not None and not status.spool.held_by:
            what = "neither a bridge nor a publisher runs: only a spool is in this state"
            yield alert("daemon-not-running", what, "start the bridge, or piw-indexer publish")
        return
    if status.held_by.startswith(_DAEMON):
        left = status.serial - status.applied_serial
        what = f"the daemon is starting: {left:,} messages of the journal are still to be applied"
        yield alert("daemon-starting", what)
    else:
        beside = f"; {status.held_by} holds the state" if status.held_by else ""
        yield alert("daemon-not-running", f"no daemon runs{beside}")


def _disk_alerts(status: Status) -> Iterator[Alert]:
    free = status.disk_free_bytes
    where = f"the file system of {status.state_dir}"
    if free is not None and free < disk.MIN_SPACE:
        what = f"{where} has only {free // 1024} KiB left: no messages are accepted"
        yield alert("disk-full", what, _end_readers(status))
    elif free is not None and free < max(LOW_SPACE, 2 * (status.journal_bytes_a_month or 0)):
        what = f"{where} has only {free / 2**20:,.0f} MiB left"
        yield alert("state-disk-low", what, _end_readers(status))
    free = status.output_disk_free_bytes
    where = f"the file system of {status.output_path}"
    if free is not None and free < LOW_SPACE:
        yield alert("output-disk-low", f"{where} has only {free / 2**20:,.0f} MiB left")


def _end_readers(status: Status) -> str:
    """The remedy for a full disk where a log takes the space; else empty, for the usual one."""
    held = status.daemon.live.logs_held if status.daemon is not None else None
    if not held:
        return ""
    size = sum(log.bytes for log in held) / 2**20
    return f"end the readers that log-held names, which frees {size:,.0f} MiB"


def _daemon_alerts(daemon: Daemon) -> Iterator[Alert]:
    live, age = daemon.live, daemon.age_seconds
    for trouble in live.troubles:
        yield alert(trouble.id, trouble.what or trouble.text, trouble.remedy)
    if age > MAX_SILENCE:
        yield alert("daemon-silent", f"the daemon has not reported its state for {age:.0f} s")
    elif age < -MAX_SILENCE:
        what = f"the daemon's last note is {-age:.0f} s in the future: the clock was set back"
        yield alert("clock-jump", what)
    reasons = {"feed-refused", "feed-name-taken", "peer-not-believed"}
    refused = any(trouble.id in reasons for trouble in live.troubles)
    if not refused and live.at - live.started > MAX_SILENCE * times.SECOND:
        heard = {feed.changes_queue for feed in live.feeds}
        for changes, _ in live.queues:
            if changes not in heard:
                yield alert("feed-never-heard", f"nothing has come from {changes} yet")


def _log_alerts(status: Status, live: Live) -> Iterator[Alert]:
    for held in live.logs_held or ():
        who = ", ".join((status.logs_read_by or {}).get(held.name, ())) or "somebody"
        what = (
            f"the write-ahead log of {held.name} has {held.bytes / 2**20:,.0f} MiB and grows by"
            f" {held.growth / 2**20:,.1f} MiB/s: for {held.held_seconds:,.0f} s {who} has kept it"
            " from being merged"
        )
        yield alert(
            "log-held",
            what,
            "end that reader, such as a shell or a pager that was left open (fuser -v"
            f" {status.state_dir}/{held.name} shows who has the file open); the log is cut off then"
            " by itself",
        )


def _feed_alerts(feed: FeedStatus) -> Iterator[Alert]:
    name, silent, late = feed.feed, feed.silent_seconds, feed.lag_seconds or 0.0
    if feed.broken:
        yield alert("feed-broken", f"feed {name} is broken: {feed.broken}")
    if silent is not None and silent > MAX_SILENCE:
        yield alert("feed-silent", f"feed {name} has been silent for {silent:.0f} s")
    if feed.filling and late > MAX_SILENCE:
        what = f"missing messages of feed {name} have been fetched for {late:.0f} s"
        yield alert("feed-filling", what)
    elif late > MAX_LAG:
        what = f"feed {name} is {printable.many(feed.lag or 0, 'message')} behind, for {late:.0f} s"
        yield alert("feed-behind", what)


def _slave_alerts(ill: Sequence[Illness]) -> Iterator[Alert]:
    for one in ill:
        yield alert("slave-ill", f"{one.name} {one.brief}: {one.what}")


def _are(messages: int) -> str:
    return printable.many(messages, "message") + (" is" if messages == 1 else " are")


def _backup_alerts(status: Status) -> Iterator[Alert]:
    failure, last = status.backup_failure, status.last_backup
    if failure is not None:
        when = times.to_rfc3339(failure.at)
        what = f"the backup of {when} to {failure.directory} failed: {failure.what}"
        yield alert("backup-failed", what, failure.remedy)
    # Who has never made one has another way to make it.
    if last is not None and (age := (status.at - last.at) / times.SECOND) > MAX_BACKUP_AGE:
        what = f"the last backup, to {last.directory}, is {age / 86400:.0f} days old"
        yield alert("backup-old", what)


def _index_alerts(status: Status) -> Iterator[Alert]:
    if status.to_apply and not status.held_by:
        what = f"the index lacks {printable.many(status.to_apply, 'message')} of the journal"
        yield alert("index-behind", what)
    waiting = status.oldest_pending_seconds or 0.0
    if waiting > MAX_PENDING:
        what = f"{status.pending:,} documents are waiting to be written, the oldest for"
        yield alert("writer-stuck", f"{what} {waiting:.0f} s")
    if status.quarantined:
        yield alert("quarantine", f"{_are(status.quarantined)} in the quarantine")
    if status.spool is not None and status.spool.quarantined:
        what = f"{_are(status.spool.quarantined)} in the quarantine of the spool: not published"
        yield alert("quarantine", what, "piw-indexer quarantine --spool lists them")
    check = status.last_check
    if check is not None and check.finished and check.differences:
        when = times.to_rfc3339(check.at)
        what = f"the check of {when} found {printable.many(check.differences, 'difference')}"
        yield alert("check-differences", what)
    yield from _backup_alerts(status)
    if status.sqlite_wal_reset_bug:
        what = f"SQLite {status.sqlite_version} can corrupt a database that two connections"
        yield alert("sqlite-wal-reset", f"{what} write or checkpoint at once")
