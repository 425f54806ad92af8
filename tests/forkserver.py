"""Commands in processes that are forked from one that has loaded Python and the package.

To start Python and to import takes most of the time of a short command, and the tests run some
thousands. A forked command is the entry point of the installed one, in a process of its own that
ends as any other; only what was loaded before is not loaded again, nor taken apart at the end. The
writer of a forked daemon is forked as well.

The server is this file, run as a program: see `main`. It must import nothing of the tests.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

_MAX_REQUEST = 1024 * 1024
"""Bytes of a command line with its environment."""

_REPORT = struct.Struct("i")
"""The number of the process, and then how it ended."""


class _Server:
    """A server of this process, and this process's end of what leads to it.

    Args:
        settings: more environment variables, which the system reads when a program starts.
    """

    def __init__(self, settings: dict[str, str]) -> None:
        self.requests, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.requests.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        # Python looks at its standard streams when it starts: they are files, as a command's are.
        with its, tempfile.TemporaryFile() as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(its.fileno())],
                env={"PATH": os.defpath, "LANG": "C.UTF-8", **settings},
                stdin=stream,
                stdout=stream,
                stderr=stream,
                pass_fds=[its.fileno()],
                start_new_session=True,  # Ctrl-C is for the tests
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self.requests.close()
        self._process.wait()


@cache
def _server(preload: str | None) -> _Server:
    return _Server({} if preload is None else {"LD_PRELOAD": preload})


class Forked:
    """A command that runs; what `subprocess.Popen` has of it.

    Args:
        arguments: of the command line, without the program.
        environment: of the process, all of it; what is in LD_PRELOAD has a `fault_begin`.
        cwd: where it starts.
        streams: descriptors of its standard input, output and error.
        session: whether it leads a session of its own.

    Attributes:
        pid: its number, which nobody else has before `returncode` is known.
        returncode: how it ended, as `subprocess` has it: negative is a signal. None while it runs.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: dict[str, str],
        cwd: Path,
        streams: tuple[int, int, int],
        session: bool = False,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        request = {
            "arguments": list(arguments),
            "environment": environment,
            "cwd": str(cwd),
            "session": session,
        }
        reading, writing = os.pipe()
        self._reports = open(reading, "rb", buffering=0)  # noqa: SIM115 - it is closed at the end
        try:
            requests = _server(environment.get("LD_PRELOAD")).requests
            socket.send_fds(requests, [json.dumps(request).encode()], [*streams, writing])
        finally:
            os.close(writing)
        self.pid = self._report()

    def _report(self) -> int:
        number: int = _REPORT.unpack(self._reports.read(_REPORT.size))[0]
        return number

    def poll(self) -> int | None:
        """How it ended; None if it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs still after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._reports], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0.0)
            self.returncode = self._report()
            self._reports.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


# The server


def main(descriptor: int) -> NoReturn:
    """Fork a command for each request, and report how it ends; ends with who asks."""
    from indexer import cli  # not loaded by who asks

    for name in cli.piw_indexer.commands:
        cli.piw_indexer.commands[name]  # loads it
    # Commands load these only when they need them, which takes longer than most commands run.
    import rich.progress  # noqa: F401
    import sqlite_utils  # noqa: F401

    gc.freeze()
    requests = socket.socket(fileno=descriptor)
    request = _serve(requests)
    if request is None:
        sys.exit(0)
    sys.argv = [str(Path(sys.executable).with_name("piw-indexer")), *request["arguments"]]
    sys.orig_argv = [sys.executable, *sys.argv]
    if request["arguments"][:1] == ["run"]:
        _have_a_writer()
    _end_after(cli.main)


def _end_after(run: Callable[[], object]) -> NoReturn:
    """Run, and end the process as `multiprocessing` does.

    Python's own end would take apart all that was loaded, which takes twice as long as a short
    command: the memory is shared with the server until somebody writes there.
    """
    status: str | int | None = 0
    try:
        run()
    except SystemExit as end:
        status = end.code
    if "LD_PRELOAD" in os.environ or not isinstance(status, int):
        sys.exit(status)  # what is preloaded notices an end of this kind only
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(requests: socket.socket) -> dict[str, Any] | None:
    """What is asked, in the process of a command; None at the end of the server."""
    running: dict[int, tuple[int, int]] = {}  # process and report, by descriptor of the process
    ended: dict[int, int] = {}  # process, by report
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in running:
                pid, report = running.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                assert result is not None
                exited = result.si_code == os.CLD_EXITED
                _tell(report, result.si_status if exited else -result.si_status)
                # Its number stays taken until who asked knows.
                ended[report] = pid
                poll.register(report, 0)
            elif ready in ended:
                poll.unregister(ready)
                os.close(ready)
                os.waitpid(ended.pop(ready), 0)
            else:
                request, streams, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 4)
                if not request:
                    return None
                *standard, report = streams
                pid = os.fork()
                if not pid:
                    for process, (_, other) in running.items():
                        os.close(process)
                        os.close(other)
                    for other in ended:
                        os.close(other)
                    requests.close()
                    return _become(json.loads(request), standard, report)
                for stream in standard:
                    os.close(stream)
                process = os.pidfd_open(pid)
                running[process] = pid, report
                poll.register(process, select.POLLIN)


def _tell(report: int, number: int) -> None:
    try:
        os.write(report, _REPORT.pack(number))
    except BrokenPipeError:
        pass  # nobody wants to know


def _become(request: dict[str, Any], standard: list[int], report: int) -> dict[str, Any]:
    """Make this process what a newly started one is, and report its number."""
    if request["session"]:
        os.setsid()
    _tell(report, os.getpid())  # whoever knows it may signal the whole session
    os.close(report)
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    os.environ.clear()
    os.environ.update(request["environment"])
    if "LD_PRELOAD" in os.environ:
        ctypes.CDLL(os.environ["LD_PRELOAD"]).fault_begin()
    os.chdir(request["cwd"])
    return request


# The writer of a daemon


class _Writer:
    """A writer that runs; what `subprocess.Popen` has of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = os.pidfd_open(pid)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        select.select([self._ended], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("the writer", timeout or 0.0)
        return status

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _have_a_writer() -> None:
    """Fork the process that the daemon starts as its writer, before it has files that are open.

    SQLite forbids to fork while it has. The process is idle until the daemon starts it.
    """
    from indexer.base import process
    from indexer.daemon import writer, writer_loop

    orders, its = socket.socketpair()
    daemon = os.getpid()
    pid = os.fork()
    if not pid:
        orders.close()
        signal.pthread_sigmask(signal.SIG_BLOCK, process.IGNORED_SIGNALS)
        umask, streams, _, _ = socket.recv_fds(its, 100, 1)
        if not umask:
            os._exit(0)  # the daemon has started none
        its.close()
        os.umask(int(umask))
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        sys.argv = ["-c", str(streams[0]), str(daemon)]
        _end_after(writer_loop.main)
    its.close()

    def start_process(pipe: Connection) -> _Writer:
        umask = os.umask(0o777)
        os.umask(umask)
        with orders:
            socket.send_fds(orders, [b"%d" % umask], [pipe.fileno()])
        return _Writer(pid)

    mock.patch.object(writer, "start_process", start_process).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
