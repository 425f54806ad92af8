"""Who is connected to a socket that is bound, as the kernel knows it.

ZeroMQ neither tells what it holds for one peer nor lets go of one. The kernel does: what it still
holds for a peer tells whether that reads, and a connection that is shut down is one that ZeroMQ
lets go, with all that it kept for it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from typing import NamedTuple

import zmq

_INT = struct.Struct("i")


class Connection(NamedTuple):
    """A connection: its descriptor, and the number that tells it from one that had it before."""

    descriptor: int
    number: int

    @property
    def stands(self) -> bool:
        """Whether it is still the same."""
        return _number(self.descriptor) == self.number

    @property
    def unread(self) -> int:
        """What the kernel holds for the peer: of tcp bytes, of ipc memory; see ioctl_tty(2).

        0 for one that is gone.
        """
        if not self.stands:
            return 0
        try:
            held = fcntl.ioctl(self.descriptor, termios.TIOCOUTQ, bytes(_INT.size))
        except OSError:  # it has just been closed
            return 0
        return int(_INT.unpack(held)[0])

    def end(self) -> None:
        """Shut it down, if it still stands; ZeroMQ sees that as its peer's leaving."""
        if not self.stands:
            return
        try:
            with socket.socket(fileno=os.dup(self.descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has just ended


def _number(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


def sender(frame: zmq.Frame) -> Connection | None:
    """Where a frame came from; None within this process, or if it has left."""
    try:
        descriptor = int(frame.get(zmq.SRCFD))
    except (zmq.ZMQError, ValueError):
        return None
    number = _number(descriptor) if descriptor >= 0 else 0
    return Connection(descriptor, number) if number else None
