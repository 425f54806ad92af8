"""A daemon that starts again in the same process, after the new configuration was checked.

What it still holds is passed on in memory that only this process can reach, never on the disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import msgpack

from ..base import privileges

INHERITED_DESCRIPTOR = "PIW_INDEXER_HANDED_OVER"
"""In the environment after the restart: the descriptor of what the daemon held before."""

BLOCKED_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
"""Signals that are blocked until the restarted daemon handles them."""

Frames = list[list[bytes]]


class ConfigurationCheck:
    """Checks whether the daemon could start with the configuration as it is now.

    A separate process runs the same command line with --validate, so the check reads the same files
    with the same code as a start.
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
        """What is wrong with the configuration; empty if nothing is, None while the check runs."""
        if self._process.poll() is None:
            return None
        _, said = self._process.communicate()
        if not self._process.returncode:
            return ""
        # click prints the command's usage before the error itself.
        return (
            said.strip().rpartition("\n\n")[2] or f"it ended with status {self._process.returncode}"
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def reexec(frames: Sequence[Sequence[bytes]], umask: int) -> None:
    """Start again; never returns.

    Args:
        frames: what `inherited_frames` will return.
        umask: the one that the process was started with.
    """
    environment = dict(os.environ)
    if frames:
        descriptor = os.memfd_create("piw-indexer frames", 0)
        with open(descriptor, "wb", closefd=False) as memory:
            memory.write(msgpack.packb(list(frames)))
        environment[INHERITED_DESCRIPTOR] = str(descriptor)
    os.umask(umask)
    os.chdir(privileges.start())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def inherited_frames() -> Frames:
    """What the process held before it started again."""
    descriptor = os.environ.pop(INHERITED_DESCRIPTOR, None)
    if descriptor is None:
        return []
    with open(int(descriptor), "rb") as memory:
        memory.seek(0)
        frames: Frames = msgpack.unpackb(memory.read())
    return frames
