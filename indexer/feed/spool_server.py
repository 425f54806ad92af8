"""A process that publishes what another process spools.

It keeps strangers away from the process that writes the spool: their connections use descriptors
and memory of this process, both of which are limited. All that it holds is in the spool, so it can
end and be started again at any time.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..base import clock, process
from ..base import log as journal_log
from ..base.backoff import Backoff
from ..base.errors import IndexerError, PeerError
from ..base.log import NOTICE, event
from ..journal.reader import JournalReader, month_files
from . import security
from .publisher import Endpoint, Server

log = logging.getLogger(__name__)

MAX_DESCRIPTORS = 256
"""Of the process; each connection of a subscriber takes one."""

MAX_MEMORY = 512 * 1024 * 1024
"""Bytes of the process, including what ZeroMQ keeps for subscribers. It ends if it needs more."""

MIN_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 30.0
"""Seconds until a process that ended is started again; each time twice as long."""

SETTLED_DELAY = 60.0
"""Seconds after which a process that ends has worked, and the next is started soon."""

_LINGER = 2.0
_AT_ONCE = 500
_AT_ONCE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Options:
    """What the process serves, and to whom; like the options of a publisher."""

    spool: str
    feed: str
    changes_queue: str
    replay_queue: str
    curve_key: str | None = None
    allowed_keys: str | None = None
    insecure: bool = False
    ipc_mode: int = security.IPC_MODE
    ipc_group: str | None = None
    log_level: int | None = None
    parent: int = 0
    """The process that started it, with which it ends."""


class SpoolServer:
    """Runs the process: starts it, wakes it when there is something new, starts it again.

    Nothing here waits, except `close`. For one thread only.

    Args:
        monotonic: seconds, on a clock that never jumps.
        backoff: until a process that ended is started again.

    Attributes:
        error: why the feed is not served now; empty if it is.
    """

    def __init__(
        self,
        options: Options,
        monotonic: Callable[[], float] = clock.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self._options = options
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._epoch = 0
        self._output = b""
        self._backoff = backoff or Backoff(MIN_RESTART_DELAY, MAX_RESTART_DELAY)
        self._next_start = self._started = 0.0
        self.error = ""

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    def look(self, epoch: int) -> None:
        """Keep the process running for a spool of this epoch; call it about once a second."""
        now = self._monotonic()
        if self._process is not None and epoch != self._epoch:
            self.close()  # it has open files of a spool that was replaced
            self._next_start = now
        if self._process is not None:
            self._listen(now)
        elif now >= self._next_start:
            self._epoch = epoch
            try:
                self._start(now)
            except OSError as error:
                self._failed(f"its process cannot be started: {error.strerror or error}", now)

    def _start(self, now: float) -> None:
        self._process = process.start(__name__, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._started, self._output = now, b""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._write(json.dumps(asdict(replace(self._options, parent=os.getpid()))).encode() + b"\n")

    def wake(self) -> None:
        """Wake the process: there is something new in the spool."""
        if self._process is not None:
            self._write(b".")

    def _write(self, what: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), what)
        except OSError:
            pass  # the pipe is full, so it will be read; or the process has ended

    def _listen(self, now: float) -> None:
        """Read what the process reports, and notice its end."""
        child = self._process
        assert child is not None
        assert child.stdout is not None
        try:
            self._output = (self._output + os.read(child.stdout.fileno(), 4096))[-4096:]
        except OSError:
            pass  # nothing new
        if child.poll() is None:
            if self._output.startswith(b"serving\n") and self.error:
                self.error = ""
                log.log(
                    NOTICE,
                    "the feed is served again at %s",
                    self._options.changes_queue,
                    extra=event("feed-served", address=self._options.changes_queue),
                )
            return
        self._drop()
        said = self._output.removeprefix(b"serving\n").decode(errors="replace").strip()
        if now - self._started >= SETTLED_DELAY:
            self._backoff.worked()
        self._failed(said or f"its process ended with status {child.returncode}", now)

    def _failed(self, why: str, now: float) -> None:
        if why != self.error:
            log.error(
                "the feed is not served: %s\n  what happens: the master continues, its changes are"
                " spooled, and the bridge tries again",
                why,
                extra=event("feed-not-served", address=self._options.changes_queue),
            )
        self.error = why
        self._next_start = now + self._backoff.failed()

    def _drop(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None

    def close(self) -> None:
        """End the process after it has sent the rest."""
        child = self._process
        if child is None:
            return
        assert child.stdin is not None
        child.stdin.close()
        if not process.wait(child):
            child.kill()
            process.wait(child)
        self._drop()


# The process


def main() -> None:
    """Serve what the first line of stdin describes, until stdin is closed."""
    process.ignore_signals()
    descriptor = sys.stdin.fileno()
    with open(descriptor, "rb", buffering=0, closefd=False) as pipe:
        line = pipe.readline()
    if not line:
        return
    options = Options(**json.loads(line))
    journal_log.set_up(options.log_level)
    _be_bounded()
    try:
        _serve(options, descriptor)
    except IndexerError as error:
        _report(str(error))
        sys.exit(1)
    except MemoryError:
        _report(f"it needs more than {MAX_MEMORY >> 20} MiB of memory")
        sys.exit(1)


def _report(what: str) -> None:
    try:
        os.write(sys.stdout.fileno(), what.encode() + b"\n")
    except OSError:
        pass  # the process that started us has ended


def _be_bounded() -> None:
    """Limit descriptors and memory; when memory runs out, the kernel ends us before the master."""
    for kind, limit in (
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_DATA, MAX_MEMORY),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
        os.nice(5)
    except OSError:
        pass  # then both are equal


def _serve(options: Options, descriptor: int) -> None:
    queues = options.changes_queue, options.replay_queue
    protection = security.for_publisher(
        queues,
        None if options.curve_key is None else Path(options.curve_key),
        None if options.allowed_keys is None else Path(options.allowed_keys),
        options.insecure,
        options.ipc_mode,
        options.ipc_group,
    )
    spool = JournalReader(Path(options.spool))
    if not spool.months:
        raise PeerError(f"serve the spool {options.spool}", "it does not exist")
    endpoint = Endpoint(*queues, clock.now, protection)
    server = Server(spool, options.feed, endpoint, clock.now)
    _report("serving")
    os.set_blocking(descriptor, False)
    try:
        new = ended = False
        while not ended:
            server.serve(1.0, descriptor)
            woken, ended = _woken(descriptor)
            # The pipe alone is not enough: a child of the master may have inherited its other end.
            ended = ended or os.getppid() != options.parent
            new = new or woken
            if new or ended:
                new = not _send_new(server, spool)
    finally:
        endpoint.close(_LINGER)
        spool.close()


def _woken(descriptor: int) -> tuple[bool, bool]:
    """Whether there is something new, and whether the master has closed the pipe."""
    try:
        received = os.read(descriptor, 65536)
    except BlockingIOError:
        return False, False
    return True, not received


def _send_new(server: Server, spool: JournalReader) -> bool:
    """Send what was spooled; false if there may be more."""
    while True:
        rows = spool.read(server.serial, _AT_ONCE, _AT_ONCE_BYTES)
        if not rows:
            try:
                months = month_files(spool.directory)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                return False  # strangers have all descriptors, until their handshakes time out
            if months == spool.months:
                return True
            spool.scan()  # a month has begun
            continue
        server.send(rows)
