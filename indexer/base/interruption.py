"""Signals, as a wish that is asked for: to end the command, or to look at something. None is lost.

An exception that a signal handler raises is lost where none can be raised: in a destructor, or in a
callback of a library in C. The command would go on.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Any


class Interruption:
    """Within it, the first of some signals is a wish; the second one ends the command at once.

    Args:
        numbers: of the signals.
        meanwhile: signals after which the command goes on; see `asked`.

    Attributes:
        wished: the number of the signal that came; 0 if none did.
        bell: a descriptor that can be read as soon as one has come.
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
        # It may interrupt anything: what is asked for is done by whoever asks.
        if number not in self._asked:
            self._asked.add(number)
            os.write(self._ring, b"!")

    def asked(self, number: int) -> bool:
        """Whether this signal has come since it was asked last."""
        if number not in self._asked:
            return False
        os.read(self.bell, 100)
        self._asked.discard(number)
        if self.wished or self._asked:
            os.write(self._ring, b"!")  # that was theirs
        return True

    def wait(self, seconds: float, *descriptors: int) -> bool:
        """Wait until a signal comes, or one of some descriptors can be read.

        Returns:
            True if a descriptor can be read.
        """
        ready, _, _ = select.select([self.bell, *descriptors], [], [], seconds)
        return any(descriptor in ready for descriptor in descriptors)

    def obey(self) -> None:
        """End the command if that is wished.

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
