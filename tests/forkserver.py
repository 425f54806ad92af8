"""Commands in processes that are forked from one that has loaded Python and the package.

To start Python and to import takes most of the time of a short command, and the tests run some
thousands. A forked command is the entry point of the installed one, in a process of its own that
ends as any other; only what was loaded before is not loaded again.

The server is this file, run as a program: see `main`. It must import nothing of the tests.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

_MAX_REQUEST = 1024 * 1024
"""Bytes of a command line with its environment."""

_NUMBER = struct.Struct("i")
"""A report: the number of the process, and then how it ended."""


class TimeIsUpError(Exception):
    """The command did not end in time; it was killed."""


class _Server:
    """The server of this process, and this process's end of what leads to it."""

    def __init__(self) -> None:
        self.requests, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.requests.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        # Python looks at its standard streams when it starts: they are files, as a command's are.
        with its, tempfile.TemporaryFile() as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(its.fileno())],
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
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
def _server() -> _Server:
    return _Server()


def run(
    arguments: Sequence[str],
    *,
    environment: dict[str, str],
    cwd: Path,
    streams: tuple[int, int, int],
    timeout: float,
) -> int:
    """Run a command to its end.

    Args:
        arguments: of the command line, without the program.
        environment: of the process, all of it.
        streams: descriptors of its standard input, output and error.
        timeout: seconds.

    Returns:
        How it ended, as `subprocess` has it: negative is a signal.

    Raises:
        TimeIsUpError: it did not end in time.
    """
    request = json.dumps(
        {"arguments": list(arguments), "environment": environment, "cwd": str(cwd)}
    )
    reading, writing = os.pipe()
    try:
        try:
            socket.send_fds(_server().requests, [request.encode()], [*streams, writing])
        finally:
            os.close(writing)
        pid = _NUMBER.unpack(os.read(reading, _NUMBER.size))[0]
        if not select.select([reading], [], [], timeout)[0]:
            os.kill(pid, signal.SIGKILL)
            raise TimeIsUpError
        return os.waitstatus_to_exitcode(_NUMBER.unpack(os.read(reading, _NUMBER.size))[0])
    finally:
        os.close(reading)


# The server


def main(descriptor: int) -> NoReturn:
    """Fork a command for each request, and report how it ends; ends with who asks."""
    from indexer import cli  # not loaded by who asks

    for name in cli.piw_indexer.commands:
        cli.piw_indexer.commands[name]  # loads it
    gc.freeze()
    requests = socket.socket(fileno=descriptor)
    arguments = _serve(requests)
    if arguments is None:
        sys.exit(0)
    sys.argv = ["piw-indexer", *arguments]
    cli.main()
    raise AssertionError("the command line does not return")


def _serve(requests: socket.socket) -> list[str] | None:
    """The arguments, in the process of a command; None at the end of the server."""
    reports: dict[int, tuple[int, int]] = {}  # by descriptor of the process
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != requests.fileno():
                poll.unregister(ready)
                pid, report = reports.pop(ready)
                os.write(report, _NUMBER.pack(os.waitpid(pid, 0)[1]))
                os.close(ready)
                os.close(report)
                continue
            request, streams, _, _ = socket.recv_fds(requests, _MAX_REQUEST, 4)
            if not request:
                return None
            *standard, report = streams
            pid = os.fork()
            if not pid:
                for others in reports.values():
                    os.close(others[1])
                for process in reports:
                    os.close(process)
                os.close(report)
                requests.close()
                return _become(json.loads(request), standard)
            os.write(report, _NUMBER.pack(pid))
            for stream in standard:
                os.close(stream)
            process = os.pidfd_open(pid)
            reports[process] = pid, report
            poll.register(process, select.POLLIN)


def _become(request: dict[str, object], standard: list[int]) -> list[str]:
    """Make this process what a newly started one is."""
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    environment, arguments = request["environment"], request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["cwd"]))
    return arguments


if __name__ == "__main__":
    main(int(sys.argv[1]))
