"""Child processes that do not outlive us."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import Any

from .errors import StateError

IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""systemd and Ctrl-C send them to the whole group; the parent says when a child must end."""

END_TIMEOUT = 5.0
"""Seconds that a process may take to end once it has been killed, or told to end."""

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, which has this process id, ends.

    Otherwise the writer of a killed daemon would keep renaming documents beside the next writer.

    Source: prctl(2), Linux.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent has ended before this call
        os.kill(os.getpid(), signal.SIGKILL)


def start(module: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Run `main()` of a module of ours in a process of its own, which calls `ignore_signals`.

    Raises StateError if it cannot be started.
    """
    # Signals are blocked until the process can ignore them.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        # -P: modules must not come from the directory in which we were started.
        command = [sys.executable, "-P", "-c", f"from {module} import main; main()"]
        return subprocess.Popen([*command, *map(str, arguments)], **options)
    except OSError as error:
        raise StateError(
            f"start a process of our own with {sys.executable}",
            error.strerror or error,
            "see that this user may run that file, and may enter the directories above it",
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def wait(child: subprocess.Popen[bytes]) -> bool:
    """Wait until a process has ended, but not for a file system that does not answer.

    Returns:
        Whether it has.
    """
    try:
        child.wait(END_TIMEOUT)
    except subprocess.TimeoutExpired:
        return False
    return True


def ignore_signals() -> None:
    """Ignore the signals that also reach the parent, which says when this process must end."""
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
