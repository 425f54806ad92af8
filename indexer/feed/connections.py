"""The connections to a bound socket, as the kernel knows them.

ZeroMQ cannot say how much it holds for one peer, and cannot disconnect one. The kernel can: what
it holds for a peer shows whether that peer reads; and when a connection is shut down, ZeroMQ drops
all that it kept for it.
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
    """A connection: its descriptor, and the inode, because descriptors are used again."""

    descriptor: int
    number: int

    @property
    def stands(self) -> bool:
        return _number(self.descriptor) == self.number

    @property
    def unread(self) -> int:
        """What the kernel holds for the peer: bytes with tcp, memory with ipc; 0 once it is gone.

        Source: ioctl_tty(2).
        """
        if not self.stands:
            return 0
        try:
            held = fcntl.ioctl(self.descriptor, termios.TIOCOUTQ, bytes(_INT.size))
        except OSError:  # it has just been closed
            return 0
        return int(_INT.unpack(held)[0])

    def end(self) -> None:
        """Shut it down, if it still stands; to ZeroMQ the peer has left."""
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
    """Where a frame came from; None within this process, or if the peer has left."""
    try:
        descriptor = int(frame.get(zmq.SRCFD))
    except (zmq.ZMQError, ValueError):
        return None
    number = _number(descriptor) if descriptor >= 0 else 0
    return Connection(descriptor, number) if number else None
