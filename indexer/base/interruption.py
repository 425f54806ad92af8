"""Signals as flags that a command checks; no signal is lost.

An exception from a signal handler is lost inside a destructor or a callback of a C library, and the
command would continue.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Any


class Interruption:
    """Turns the first of some signals into a flag; the second one ends the command at once.

    Args:
        meanwhile: signals after which the command continues; see `asked`.

    Attributes:
        wished: the number of the signal that came; 0 if none did.
        bell: a descriptor that becomes readable when a signal comes.
    """

    def __init__(self, *numbers: int, meanwhile: Iterable[int] = ()) -> None:
        self._handlers = dict.fromkeys(numbers, self._wish) | dict.fromkeys(meanwhile, self._ask)
        self._asked: set[int] = set()
        self._before: dict[int, Any] = {}
        self.wished = 0

    def __enter__(self) -> Interruption:
        self.bell, self._ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            for number, handler in self._handlers.items():
                # nohup ignores hang-ups on purpose.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, handler)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wish(self, number: int, frame: FrameType | None) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = number
        os.write(self._ring, b"!")

    def _ask(self, number: int, frame: FrameType | None) -> None:
        # A signal may interrupt anything, so the work is done by the caller of `asked`.
        if number not in self._asked:
            self._asked.add(number)
            os.write(self._ring, b"!")

    def asked(self, number: int) -> bool:
        """Whether this signal has come since the last call."""
        if number not in self._asked:
            return False
        os.read(self.bell, 100)
        self._asked.discard(number)
        if self.wished or self._asked:
            os.write(self._ring, b"!")  # for the others
        return True

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Wait for a signal or a readable descriptor; true if a descriptor can be read."""
        ready, _, _ = select.select([self.bell, *descriptors], [], [], seconds)
        return any(descriptor in ready for descriptor in descriptors)

    def obey(self) -> None:
        """End the command if a signal has come.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after another signal, with the exit status that shells give it.
        """
        if self.wished == signal.SIGINT:
            raise KeyboardInterrupt
        if self.wished:
            raise SystemExit(128 + self.wished)

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.bell)
        os.close(self._ring)
