"""Child processes that do not outlive us."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, which has this process id, ends.

    Otherwise the writer of a killed daemon would keep renaming documents beside the next writer.

    Source: prctl(2), Linux.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent has ended before this call
        os.kill(os.getpid(), signal.SIGKILL)
