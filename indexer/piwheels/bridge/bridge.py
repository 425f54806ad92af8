"""The thread of the bridge, which spools what the master changes.

The master never waits for it, nor for the logs of failed builds, which this thread reads. While the
spool cannot be written, changes are kept in memory and the thread keeps trying. If changes have to
be dropped, the feed gets a new epoch, which tells subscribers that they missed something.
Subscribers are served by a separate process, so they use no resources of the master.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import select
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from ...base import clock, filesystem, times
from ...base.backoff import Backoff
from ...base.errors import DecodeError, JournalError, StateError
from ...base.log import NOTICE, event
from ...base.once_per import OncePer
from ...feed.publisher import Spool
from ...feed.spool_server import SpoolServer
from ...messages import encode
from ...messages.decode import Encoding
from ...messages.entries import Accepted, Entry, Refused
from ...reasons import build_log
from ...schema import piwheels as schema
from .outbox import Gap, Item, Outbox
from .unsettled import Marks

log = logging.getLogger(__name__)

SOURCE = "bridge"
"""Where refused changes come from, in the quarantine of the spool."""

OLD = ".old"
"""The suffix of a spool that was replaced."""

AT_ONCE = 500
"""Changes in one commit of the spool."""

COMMIT_INTERVAL = 0.05
"""Seconds between commits that are not full, because each takes time from the master."""

MIN_RETRY_DELAY, MAX_RETRY_DELAY = 1.0, 30.0
"""Seconds until the spool is tried again; each time twice as long."""

LAST_TRIES_TIMEOUT = 10.0
"""Seconds that the bridge keeps trying after the master has ended."""

_LOOK_DELAY = 0.5
"""Seconds between checks whether the master has ended."""

_ENCODING = Encoding(schema.time)
_TRANSIENT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class Bridge(threading.Thread):
    """Spools what is in an outbox; call `open` before `start`.

    Args:
        spool: the directory of the spool.
        server: serves the spool; closed at the end.
        outbox: of the master's changes.
        marks: notes for the next bridge.
        running: true as long as the master may still change something.
        backoff: the delays until the spool is tried again.
        last_tries: seconds that the thread keeps trying after the master has ended.
    """

    def __init__(
        self,
        spool: Path,
        server: SpoolServer,
        outbox: Outbox,
        marks: Marks,
        running: Callable[[], bool],
        backoff: Backoff | None = None,
        last_tries: float = LAST_TRIES_TIMEOUT,
    ) -> None:
        super().__init__(name="bridge")
        self._directory = spool
        self._server = server
        self._outbox = outbox
        self._marks = marks
        self._running = running
        self._spool: Spool | None = None
        # What is missing in the feed, which subscribers do not know yet.
        self._gap = Gap("the last bridge did not end in good order", 0) if marks.lost else None
        self._held: list[Entry] = []  # taken from the outbox, not yet in the spool
        self._abis: Item | None = None  # those that this epoch knows
        self._abis_digest = b""  # of those in _held
        self._failing = False
        self._backoff = backoff or Backoff(MIN_RETRY_DELAY, MAX_RETRY_DELAY)
        self._last_tries = last_tries
        self._next_try = 0.0
        self._ended_at: float | None = None
        self._refused: set[str] = set()
        self._left_out = 0  # reasons, that were reported
        self._once = OncePer()

    # The spool

    def open(self) -> None:
        """Open the spool; on an error that may pass, the thread tries again later.

        Raises:
            StateError: if the spool is locked or cannot be used.
        """
        try:
            self._open()
        except StateError as error:
            if not _transient(error):
                raise
            self._failed(error)

    def _open(self) -> None:
        if self._gap is not None:
            self._set_aside(self._gap.why)
        try:
            spool = Spool(self._directory, clock.now)
        except JournalError as error:
            if not _damaged(error):
                raise
            self._set_aside(f"the spool is damaged: {error.cause}")
            spool = Spool(self._directory, clock.now)
        self._spool = spool
        self._marks.made_good()
        if self._gap is not None:
            self._outbox.settle(self._gap.count)
            self._gap = None
        self._abis = None

    def _set_aside(self, why: str) -> None:
        """Move the spool away, so that a new one with a new epoch can begin."""
        if not self._directory.exists():
            return
        old = self._directory.with_name(self._directory.name + OLD)
        try:
            if old.exists():
                shutil.rmtree(old)
            filesystem.rename(self._directory, old)
        except OSError as error:
            raise StateError(
                f"replace the spool {self._directory}",
                error.strerror or error,
                "check that its directory belongs to the user that runs the master",
                transient=True,
            ) from error
        log.error(
            "changes of the master may be missing from the feed: %s\n"
            "  what happens: the feed has a new epoch, and its subscribers say that it is broken;"
            " the old spool is %s\n"
            "  what to do: let every subscriber backfill",
            why,
            old,
            extra=event("changes-missing", path=old),
        )

    def _close(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    # The thread

    def run(self) -> None:
        """Publish until the master has ended and everything is in the spool."""
        while not self._ended():
            try:
                self._serve()
                if clock.monotonic() >= self._next_try:
                    self._deliver()
            except Exception as error:  # noqa: BLE001 - the master must not pay for our mistakes
                self._failed(error)
        missing = self._marks.unsettled
        if missing or self._gap is not None:
            log.error(
                "%d changes of the master are not in the feed: its spool %s could not be written\n"
                "  what happens: with the next bridge the feed has a new epoch",
                missing,
                self._directory,
                extra=event("changes-unpublished", messages=missing, path=self._directory),
            )
        self._close()
        self._server.close()
        self._marks.close()

    @property
    def _waiting(self) -> bool:
        return bool(
            self._held or self._gap or len(self._outbox) or self._outbox.abis is not self._abis
        )

    def _ended(self) -> bool:
        """True if the master has ended, and the rest is published or given up."""
        if self._running():
            return False
        now = clock.monotonic()
        if self._ended_at is None:
            self._ended_at = now
        return not self._waiting or (self._failing and now - self._ended_at > self._last_tries)

    def _serve(self) -> None:
        """Keep the spool served until there is something to do, for half a second at most."""
        wait = _LOOK_DELAY
        if self._waiting or self._spool is None:
            wait = max(0.0, min(wait, self._next_try - clock.monotonic()))
        if self._spool is not None:
            self._server.look(self._spool.reader.epoch)
        select.select([self._outbox.bell], [], [], wait)
        self._outbox.heard()

    def _deliver(self) -> None:
        """Publish what comes next, in one commit."""
        opened = self._spool is None or self._gap is not None
        if opened:
            self._close()
            self._open()
        assert self._spool is not None
        if not self._held:
            self._take()
        if self._held:
            self._spool.append(self._held)
            self._server.wake()
            if self._abis_digest:
                self._marks.published_abis(self._spool.reader.epoch, self._abis_digest)
                self._abis_digest = b""
            else:
                self._outbox.settle(len(self._held))
            if len(self._held) < AT_ONCE:
                self._next_try = clock.monotonic() + COMMIT_INTERVAL
            self._held = []
        elif not opened:
            return
        self._worked()

    def _take(self) -> None:
        """Take what comes next: build ABIs, or changes, or a gap."""
        if self._outbox.abis is not self._abis:
            self._take_abis(self._outbox.abis)
            return
        taken = deque(self._outbox.take(AT_ONCE))
        while taken:
            item = taken.popleft()
            self._held.append(self._entry(item))
            if item.log:
                self._outbox.forget(item.log)  # it takes room until it has been read
        if not self._held:
            self._gap = self._outbox.take_gap()
        left_out = self._outbox.left_out - self._left_out
        self._left_out += left_out
        if left_out and (many := self._once.count("reasons-left-out", left_out)):
            log.warning(
                "%d failed builds are published without the reason: too many logs waited to be"
                " read\n  what to do: `piw-indexer classify` finds the reasons in the master's log"
                " files",
                many,
                extra=event("reasons-left-out", messages=many),
            )

    def _take_abis(self, item: Item | None) -> None:
        """Take the build ABIs, unless this epoch has them already."""
        assert self._spool is not None
        assert item is not None
        self._abis = item
        digest = hashlib.sha256(json.dumps(item.data, sort_keys=True).encode()).digest()
        if (self._spool.reader.epoch, digest) != self._marks.abis:
            self._abis_digest = digest
            self._held = [self._entry(item)]

    def _entry(self, item: Item) -> Entry:
        """A change as an entry of the spool: a message, or a refusal."""
        envelope = {"msg": item.name, "data": item.data}
        try:
            if item.log:
                item.data["failure"] = build_log.read_text(item.log)._asdict()
            message = _ENCODING.message(envelope, item.at)
            encode.to_journal(message)  # fails for text that is not Unicode
            return Accepted(None, message)
        except DecodeError as found:
            error = found
        except Exception as found:  # noqa: BLE001 - nothing that is taken may be lost
            error = DecodeError("data", f"cannot be encoded: {found}")
        if item.name not in self._refused:
            self._refused.add(item.name)
            log.warning(
                "a %s of the master is not a valid message: %s\n"
                "  what happens: it is not published; `piw-indexer quarantine --spool` lists it,"
                " and those that follow",
                item.name,
                error,
                extra=event("change-refused", message=item.name),
            )
        raw = json.dumps({**envelope, "at": times.to_rfc3339(item.at)}, default=_in_words)
        return Refused(None, SOURCE, "json", error, raw.encode())

    # Errors

    def _failed(self, error: Exception) -> None:
        """Log the first of some errors, and delay the next attempt."""
        if isinstance(error, StateError) and _damaged(error):
            self._close()  # opening it again examines and replaces it
        if not self._failing:
            self._failing = True
            log.error(
                "%s\n  what happens: the master continues, its changes are kept in memory, and"
                " the bridge tries again until they are in the feed",
                error if isinstance(error, StateError) else f"the bridge failed: {error!r}",
                exc_info=None if isinstance(error, StateError) else error,
                extra=event("spool-failing", path=self._directory),
            )
        self._next_try = clock.monotonic() + self._backoff.failed()

    def _worked(self) -> None:
        self._backoff.worked()
        if self._failing:
            self._failing = False
            log.log(
                NOTICE,
                "the spool %s can be written again",
                self._directory,
                extra=event("spool-working", path=self._directory),
            )


def _in_words(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and its causes."""
    causes = []
    while error is not None:
        causes.append(error)
        error = error.__cause__
    return causes


def _transient(error: StateError) -> bool:
    """True if it may work again by itself."""
    return error.transient or any(
        isinstance(cause, OSError) and cause.errno in _TRANSIENT for cause in _causes(error)
    )


def _damaged(error: StateError) -> bool:
    """True if a spool can never be used again."""
    if not isinstance(error, JournalError) or _transient(error):
        return False
    causes = _causes(error)
    codes = [cause.sqlite_errorcode & 0xFF for cause in causes if isinstance(cause, sqlite3.Error)]
    if codes:
        return any(code in _DAMAGE for code in codes)
    return not any(isinstance(cause, OSError) for cause in causes)  # a month is missing, say
