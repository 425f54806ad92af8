"""A peer's connection to a socket, as the kernel knows it.

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


class PeerConnection(NamedTuple):
    """A connection: its descriptor, and the inode, because descriptors are used again."""

    descriptor: int
    inode: int

    @property
    def is_open(self) -> bool:
        return _inode(self.descriptor) == self.inode

    @property
    def unread(self) -> int:
        """What the kernel holds for the peer; 0 once it is gone."""
        return unread(self.descriptor) if self.is_open else 0

    def end(self) -> None:
        """Shut it down, if it is still open; to ZeroMQ the peer has left."""
        if not self.is_open:
            return
        try:
            with socket.socket(fileno=os.dup(self.descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has just ended


def unread(descriptor: int) -> int:
    """What the kernel holds for the peer of a connection: bytes with tcp, memory with ipc.

    Source: ioctl_tty(2).
    """
    try:
        held = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(_INT.size))
    except OSError:  # it has just been closed
        return 0
    return int(_INT.unpack(held)[0])


def _inode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return 0


def sender(frame: zmq.Frame) -> PeerConnection | None:
    """Where a frame came from; None within this process, or if the peer has left."""
    try:
        descriptor = int(frame.get(zmq.SRCFD))
    except (zmq.ZMQError, ValueError):
        return None
    inode = _inode(descriptor) if descriptor >= 0 else 0
    return PeerConnection(descriptor, inode) if inode else None
