"""The daemon: takes messages from sockets into journal and index, and runs the writer.

One thread receives a batch, commits it and wakes the writer. An unexpected error ends the process,
and systemd starts it again. With a full disk, it only waits.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from .. import __version__
from ..base import clock, disk, times
from ..base.backoff import Backoff
from ..base.errors import Problem, StateError
from ..base.log import NOTICE, event
from ..base.once_per import OncePer
from ..base.systemd import Notifier
from ..feed.names import FeedNames, Origin
from ..feed.security import Connecting
from ..feed.subscriber import Subscriber
from ..messages.entries import Entry, Refused, Row
from ..state import dismissal, handover
from ..state.state import State
from .figures import Figures
from .logs import LogWatch
from .reload import BLOCKED_SIGNALS, ConfigurationCheck
from .source import DaemonContext, OpenSources, Source
from .status_file import Live, LiveFile, LiveLog, LiveProblem
from .writer import QUIET_DELAY, WriterHandle
from .writer_messages import Options as WriterOptions

log = logging.getLogger(__name__)

MAX_MESSAGES = 10_000
"""Messages of one commit."""

MAX_BATCH = 0.05
"""Seconds of receiving before a commit."""

DRAIN_TIMEOUT = 5.0
"""Seconds that a stop may take to journal what has arrived."""

MAX_RETRY_DELAY = 30.0


@dataclass(frozen=True)
class Options:
    """What the daemon works with.

    Attributes:
        state_dir: where journal and index are.
        feeds: (changes-queue, replay-queue) of every publisher.
        protections: of the queues of each publisher.
        writer: how documents are written.
        open_sources: opens what else the daemon takes messages from.
    """

    state_dir: Path
    feeds: Sequence[tuple[str, str]]
    protections: Sequence[Connecting]
    writer: WriterOptions
    open_sources: OpenSources = lambda context: ()


class _StoppedError(Exception):
    """A stop while the index catches up with the journal; what was applied stays."""


class Daemon:
    """Runs until a signal stops it; raises IndexerError if it cannot start or continue."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._notifier = Notifier()
        self._stop = False
        self.reexec = False
        """Whether it has stopped in order to start again with a new configuration."""
        self._reload = False  # whether it was asked for
        self._check: ConfigurationCheck | None = None
        self._reload_problem: Problem | None = None  # why the configuration is the old one
        self._started = clock.now()
        self._accepted = 0
        self._refused = 0
        self._once = OncePer()
        self._problem: Problem | None = None  # why intake waits
        self._index_problem: Problem | None = None  # why the writer's reports wait
        self._live_file = LiveFile(options.state_dir)
        self._logs = [LogWatch(options.state_dir), LogWatch(options.state_dir)]
        self._logs_held: list[LiveLog] = []
        self._last_tick = clock.monotonic()
        self._subscribers: list[Subscriber] = []
        self._sources: list[Source] = []
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)

    def run(self) -> None:
        try:
            self._run()
        finally:
            if self.reexec:
                # Until the restarted daemon handles signals, a stop must not get lost.
                signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
            signal.set_wakeup_fd(-1)
            if self._check is not None:
                self._check.close()
            self._waker.close()
            self._woken.close()

    def _run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        # A closed terminal sends SIGHUP, too; then the daemon has to end.
        hang_up = self._on_signal if os.isatty(0) else self._on_hang_up
        signal.signal(signal.SIGHUP, hang_up)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        log.info(
            "started: version %s, state directory %s",
            __version__,
            self._options.state_dir,
            extra=event("started", version=__version__, path=self._options.state_dir),
        )
        self._notifier.notify(STATUS="catching up with the journal")
        try:
            self._state = State(self._options.state_dir, "run", clock.now, self._on_catch_up)
        except _StoppedError:
            return
        self._note = self._state.note
        self._figures = Figures(self._state, clock.monotonic())
        try:
            self._writer = WriterHandle(self._options.writer, self._state.connection)
            try:
                self._follow()
            finally:
                self._writer.stop()
            log.info(
                "stopped: serial %d, %d messages accepted, %d refused, %d documents written",
                self._state.journal.serial,
                self._accepted,
                self._refused,
                self._writer.written,
                extra=event(
                    "stopped",
                    serial=self._state.journal.serial,
                    accepted=self._accepted,
                    refused=self._refused,
                    written=self._writer.written,
                ),
            )
        finally:
            self._state.close()
            self._live_file.remove()

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop = True
        self.reexec = False

    def _on_hang_up(self, number: int, frame: object) -> None:
        self._reload = True

    def _on_catch_up(self, done: int, total: int) -> None:
        if self._stop:
            raise _StoppedError
        self._notifier.notify(
            STATUS=f"catching up with the journal: {done} of {total}",
            EXTEND_TIMEOUT_USEC=60 * times.SECOND,
            WATCHDOG=1,
        )

    def _follow(self) -> None:
        context: zmq.Context[Any] = zmq.Context()
        journal = self._state.journal
        try:
            names = FeedNames(
                journal.address,
                [
                    Origin(changes, protection.server_key.decode())
                    for (changes, _), protection in zip(
                        self._options.feeds, self._options.protections, strict=True
                    )
                ],
            )
            self._subscribers = [
                Subscriber(
                    context,
                    changes,
                    replay,
                    journal.position,
                    journal.feed_epoch,
                    clock.now,
                    clock.monotonic,
                    protection,
                    self._note,
                    names,
                )
                for (changes, replay), protection in zip(
                    self._options.feeds, self._options.protections, strict=True
                )
            ]
            lent = DaemonContext(context, journal, self._state.connection, self._wake)
            for source in self._options.open_sources(lent):
                self._sources.append(source)
            gc.collect()
            gc.freeze()
            self._tick()
            log.info(
                "ready: serial %d", journal.serial, extra=event("ready", serial=journal.serial)
            )
            self._notifier.notify(READY=1)
            while not self._stop:
                self._step()
            if self.reexec:
                # Until it says READY again; systemd measures by this clock.
                since = round(clock.monotonic() * times.SECOND)
                self._notifier.notify(RELOADING=1, MONOTONIC_USEC=since, STATUS="reloading")
            else:
                self._notifier.notify(STOPPING=1, STATUS="publishing what is pending")
            self._drain()
        finally:
            for source in self._sources:
                source.close()
            context.destroy(linger=0)

    def _drain(self) -> None:
        """Journal what has arrived: nothing may be left only in memory."""
        for source in self._sources:
            source.drain()
        until = clock.monotonic() + DRAIN_TIMEOUT
        while self._step() and clock.monotonic() < until:
            pass

    def _consider_reload(self) -> None:
        """Check a new configuration if that was asked for; if it is valid, stop to start again."""
        if self._reload and self._check is None:
            self._reload = False
            self._check = ConfigurationCheck()
        verdict = self._check.verdict() if self._check is not None else None
        if verdict is None:
            return
        self._check = None
        self._reload_problem = None
        if verdict:
            what = f"the reload was refused, and the old configuration stays in force: {verdict}"
            self._reload_problem = Problem(what)
            log.error("%s", what, extra=event("reload-refused"))
        else:
            log.info("reloading", extra=event("reloading"))
            self.reexec = self._stop = True

    def _wake(self) -> None:
        try:
            self._waker.send(b"x")
        except OSError:
            pass  # full, so it wakes the daemon already; or closed, because the daemon has ended

    def _step(self) -> bool:
        """Wait for anything, commit a batch, do what is due; true if there was any message."""
        more = any(subscriber.more for subscriber in self._subscribers)
        due_in = min([1.0, *(source.due_in() for source in self._sources)])
        self._wait(0.0 if self._stop or more else due_in)
        until = clock.monotonic() + MAX_BATCH
        entries: list[Entry] = []
        limit = min(MAX_MESSAGES, self._state.batch)
        self._note.begin(self._state.journal.serial)
        for subscriber in self._subscribers:
            entries += subscriber.receive(1 if self._note.careful else limit, until)
            if entries and self._note.careful:
                break
        for source in self._sources:
            entries += source.receive(limit, until)
        if self._subscribers:
            self._subscribers.append(self._subscribers.pop(0))  # each is the first in turn
        if entries:
            try:
                self._commit(entries)
            except StateError:
                self._note.end()  # the disk is to blame, not a message
                raise
        self._note.end()
        self._handle_writer()
        if clock.monotonic() - self._last_tick >= 1.0:
            for subscriber in self._subscribers:
                subscriber.tick()
            for source in self._sources:
                source.tick()
            self._tick()
            self._fulfil_requests()
        if not self._stop:
            self._consider_reload()
        return bool(entries)

    def _fulfil_requests(self) -> None:
        """Do what commands have left for us in the state directory; later on a full disk."""
        directory, journal = self._options.state_dir, self._state.journal
        try:
            dismissal.fulfil(directory, journal)
            entries = handover.offered(directory, journal.reader)
            if entries is not None:
                self._commit(entries)
                handover.taken(directory)
        except StateError as error:
            if not error.transient:
                raise
            if self._once.count("request-waits"):
                log.warning("%s\n  it is tried again", error, extra=event("request-waits"))

    def _wait(self, seconds: float) -> None:
        poller = zmq.Poller()
        for subscriber in self._subscribers:
            poller.register(subscriber.changes, zmq.POLLIN)
            if subscriber.replay is not None:
                poller.register(subscriber.replay, zmq.POLLIN)
        for source in self._sources:
            for waiting in source.sockets():
                poller.register(waiting, zmq.POLLIN)
        poller.register(self._writer.fileno(), zmq.POLLIN)
        poller.register(self._woken.fileno(), zmq.POLLIN)
        poller.poll(math.ceil(seconds * 1000))
        try:
            self._woken.recv(100)
        except BlockingIOError:
            pass

    def _commit(self, entries: Sequence[Entry]) -> None:
        """Journal and apply a batch; with a full disk, wait until there is space again.

        Meanwhile nothing is taken off the sockets. What they drop is replayed later.
        """
        backoff = Backoff(1.0, MAX_RETRY_DELAY)
        while (rows := self._take(entries, backoff.delay)) is None:
            if not self._pause(backoff.failed()):
                raise StateError("stop in good order", self._problem and self._problem.what)
        if rows or self._problem:
            # After an error, what was applied may have been journaled by an earlier attempt.
            self._writer.wake()
        if self._problem:
            log.log(
                NOTICE,
                "intake continues",
                extra=event("intake-goes-on", serial=self._state.journal.serial),
            )
            self._problem = None
        self._accepted += len(rows)
        self._log_refused([entry for entry in entries if isinstance(entry, Refused)])
        if rows:
            for source in self._sources:
                source.accepted(rows)

    def _log_refused(self, refusals: Sequence[Refused]) -> None:
        """Log that messages were quarantined, and how many since that was logged last."""
        self._refused += len(refusals)
        if not refusals or not (many := self._once.count("message-quarantined", len(refusals))):
            return
        last = refusals[-1]
        log.warning(
            "refused %d messages, the last of %s: %s; `piw-indexer quarantine` lists them",
            many,
            last.source,
            last.error,
            extra=event(
                "message-quarantined",
                messages=many,
                source=last.source,
                feed=last.position and last.position.feed,
                feed_serial=last.position and last.position.serial,
            ),
        )

    def _handle_writer(self) -> None:
        """Handle the writer's reports; with a full disk, try again later."""
        try:
            self._writer.handle()
        except StateError as error:
            if not error.transient:
                raise
            self._state.limit_wal()
            if not self._index_problem:
                log.error(
                    "%s\n  what happens: the daemon tries again",
                    error,
                    extra=event("index-unwritable"),
                )
            self._index_problem = error.problem
        else:
            self._index_problem = None

    def _take(self, entries: Sequence[Entry], wait: float) -> list[Row] | None:
        """Journal and apply; None if the disk refuses that for now."""
        try:
            return self._state.take(entries)
        except StateError as error:
            if not error.transient:
                raise
            log.error(
                "%s\n  what happens: intake waits, and the daemon tries again in %.0f s",
                error,
                wait,
                extra=event("intake-waits"),
            )
            self._problem = error.problem
            return None

    def _pause(self, seconds: float) -> bool:
        """Wait, and keep reporting to systemd and `status`; false if the daemon has to stop.

        The wait ends early when there is more free space.
        """
        until = clock.monotonic() + seconds
        before = disk.free_bytes(self._options.state_dir)
        while clock.monotonic() < until and not self._stop:
            clock.sleep(0.2)
            self._writer.listen()
            if clock.monotonic() - self._last_tick >= 1.0:
                self._tick()
            free = disk.free_bytes(self._options.state_dir)
            if before is not None and free is not None and free >= before + disk.MIN_SPACE:
                break
        return not self._stop

    def _tick(self) -> None:
        """Gather the state; tell systemd, and leave it for `status`."""
        self._last_tick = clock.monotonic()
        self._figures.look(self._accepted, self._last_tick)
        self._logs_held = list(self._look_at_logs(self._last_tick))
        live = self._live()
        self._writer.ping(
            max(0.0, live.oldest_pending_seconds or 0.0, *(one.lag_seconds for one in live.feeds))
        )
        behind = sum(feed.lag for feed in live.feeds)
        # A writer that does not write makes no progress, however much is taken in.
        alive = {"WATCHDOG": 1} if self._writer.unresponsive_for < QUIET_DELAY else {}
        self._notifier.notify(
            **alive,
            STATUS=live.trouble.partition("\n")[0]
            or f"serial {live.serial}, {behind} messages behind",
        )
        sources = {name: part for source in self._sources for name, part in source.live().items()}
        try:
            self._live_file.write(live, sources)
        except OSError as error:
            if not self._problem:
                self._live_file.log_unwritable(error)

    def _look_at_logs(self, now: float) -> Iterator[LiveLog]:
        of_index, of_journal = self._logs
        databases = [(of_index, self._state.connection, self._state.index_path)]
        if (month := self._state.journal.open_month) is not None:
            databases.append((of_journal, *month))
        for watch, connection, path in databases:
            held = watch.look(connection, path, now)
            if held is not None:
                yield held

    @property
    def _quiet(self) -> Problem | None:
        silence = self._writer.unresponsive_for
        if silence < QUIET_DELAY:
            return None
        return Problem(
            f"the writer process has not answered for {silence:.0f} s",
            "look at the file system of --output-path",
        )

    def _live(self) -> Live:
        """The status of the daemon, for `status`."""
        writer, figures, subscribers = self._writer, self._figures, self._subscribers
        own = [
            ("intake-waiting", self._problem),
            ("index-failing", self._index_problem or figures.problem),
            ("writer-failing", writer.failure or self._quiet),
            ("reload-refused", self._reload_problem),
        ]
        others = [
            *(("peer-not-believed", subscriber.distrust) for subscriber in subscribers),
            *(("peer-not-believed", source.distrust) for source in self._sources),
            *(("feed-name-taken", subscriber.conflict) for subscriber in subscribers),
            *(("feed-refused", subscriber.problem) for subscriber in subscribers),
            *(("source-failing", source.problem) for source in self._sources),
        ]
        return Live(
            pid=os.getpid(),
            at=clock.now(),
            started=self._started,
            serial=self._state.journal.serial,
            applied_serial=figures.applied_serial,
            pending=figures.pending,
            oldest_pending_serial=figures.oldest_pending_serial,
            oldest_pending_seconds=figures.oldest_pending_seconds,
            accepted=figures.accepted,
            rate=round(figures.rate, 1),
            trouble=next((str(problem) for _, problem in own if problem), "")
            or "\n".join(str(problem) for _, problem in others if problem),
            troubles=[
                LiveProblem(kind, str(problem), problem.what, problem.remedy)
                for kind, problem in (*own, *others)
                if problem
            ],
            written=writer.written,
            recently_published=list(writer.recent),
            last_published=writer.last_published[1] if writer.last_published else None,
            counters_published=writer.published.get("counters"),
            feeds=figures.feeds(subscribers),
            queues=list(self._options.feeds),
            output_path=str(self._options.writer.output_path),
            kinds_published=dict(writer.published),
            logs_held=self._logs_held,
        )
