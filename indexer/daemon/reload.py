"""A daemon that begins anew, in the same process, with a configuration that was checked.

What it still holds goes with it in memory that only it can reach, never over the disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import msgpack

from ..base import privileges

HANDED_OVER = "PIW_INDEXER_HANDED_OVER"
"""In the environment of the new one: the descriptor of what the old one held."""

BLOCKED_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
"""Signals that wait from the end of the old one until the new one listens."""

Frames = list[list[bytes]]


class Check:
    """Whether the configuration, as files and environment are now, would do for a start.

    A process of its own finds out, with the same command line: it reads what a start would, with
    the code that a start would use.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:], "--validate"],
            cwd=privileges.start(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def verdict(self) -> str | None:
        """What is wrong with it; empty if nothing is, None if that is not known yet."""
        if self._process.poll() is None:
            return None
        _, said = self._process.communicate()
        if not self._process.returncode:
            return ""
        # Before the fault itself, click repeats how the command is used.
        return (
            said.strip().rpartition("\n\n")[2] or f"it ended with status {self._process.returncode}"
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def reexec(frames: Sequence[Sequence[bytes]], umask: int) -> None:
    """Begin anew: never returns.

    Args:
        frames: for `inherited_frames`.
        umask: that the process was started with.
    """
    environment = dict(os.environ)
    if frames:
        descriptor = os.memfd_create("piw-indexer frames", 0)
        with open(descriptor, "wb", closefd=False) as memory:
            memory.write(msgpack.packb(list(frames)))
        environment[HANDED_OVER] = str(descriptor)
    os.umask(umask)
    os.chdir(privileges.start())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def inherited_frames() -> Frames:
    """What the process held before it began anew."""
    # multiprocessing's tracker was a child of the old one, and has ended with it.
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    descriptor = os.environ.pop(HANDED_OVER, None)
    if descriptor is None:
        return []
    with open(int(descriptor), "rb") as memory:
        memory.seek(0)
        frames: Frames = msgpack.unpackb(memory.read())
    return frames
