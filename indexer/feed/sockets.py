"""ZeroMQ sockets with limits on what they hold, and on who may connect."""

from __future__ import annotations

import os
from typing import Any

import zmq

from ..base.errors import PeerError, UsageError
from . import ipc, security
from .security import LOCAL_BINDING, Binding, Connecting

HIGH_WATER = 20_000
"""Messages that a socket holds for a slow peer before it drops them; replay brings them back."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a frame of a replay; a peer that sends more is disconnected. A snapshot of a package
with 9,500 versions of two files each has 8 MB."""

MAX_REPLAY_WAITING = 4
"""Answers to a replay that wait to be read: each may be as large as a frame may be."""

MAX_PUBLISHED = 64 * 1024
"""Bytes of a message that is sent to all subscribers; a larger one is only replayed. Subscribers
accept larger frames only in replays."""

MAX_CHANGES_WAITING = 1000
"""Messages that a subscriber's socket holds; more of them wait in the kernel and the publisher."""

MAX_REQUEST = 1024
"""Bytes of a frame from a subscriber: a subscription, a request, or part of a handshake."""

MAX_REQUESTS_WAITING = 64
"""Requests of one subscriber that wait to be read."""

MAX_CONNECTIONS_WAITING = 64
"""Connections that wait to be accepted."""

HANDSHAKE_TIMEOUT = 3000
"""Milliseconds that a handshake may take: a client that only connects must not block others."""

ZAP_ADDRESS = "inproc://zeromq.zap.01"
"""Its address is fixed by https://rfc.zeromq.org/spec/27/."""


def bound(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Binding = LOCAL_BINDING,
    *,
    high_water: int = MAX_REQUESTS_WAITING,
    max_frame: int = MAX_REQUEST,
) -> tuple[zmq.Socket[bytes], ipc.Listener | None]:
    """A socket bound to `address`.

    Args:
        address: where others connect to.
        protection: who may connect.
        high_water: messages of one peer that it holds.
        max_frame: bytes of a frame; a peer that sends more is disconnected.

    Returns:
        The socket, and the file of an ipc address, to be removed when the socket is closed.

    Raises UsageError if the address cannot be bound, or not with this protection.
    """
    endpoint = security.endpoint("bind", address, protection)
    socket = new(context, kind, endpoint, protection, security.ipv6(endpoint, protection)[0])
    socket.setsockopt(zmq.RCVHWM, high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, max_frame)
    socket.setsockopt(zmq.BACKLOG, MAX_CONNECTIONS_WAITING)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT)
    if kind == zmq.XPUB:
        # Report every subscription and every end: a client that makes up many is detected.
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    listener = None
    try:
        if ipc.file_of(address) is not None:
            # ZeroMQ would silently remove any file at the address, even a socket in use. So it
            # gets a socket that already listens.
            listener = ipc.Listener(address, protection.ipc_mode, protection.ipc_group)
            socket.setsockopt(zmq.USE_FD, listener.descriptor)
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        if listener is not None:
            os.close(listener.descriptor)
            listener.remove()
        raise UsageError(
            f"bind {address}",
            error.strerror or error,
            "give an address that nobody else has bound, such as ipc:///run/piw-indexer/changes; "
            "the directory of an ipc socket must exist",
        ) from error
    except UsageError:
        socket.close()
        raise
    return socket, listener


def zap_socket(context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    """The socket on which ZeroMQ asks who may connect; one for each context."""
    socket = bare(context, zmq.REP)
    socket.bind(ZAP_ADDRESS)
    return socket


def new(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Binding | Connecting,
    ipv6: bool,
) -> zmq.Socket[bytes]:
    """A socket for an address, neither bound nor connected; see `security.ipv6`."""
    socket = bare(context, kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    # Only a keepalive notices tcp peers that vanish silently.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
    if address.startswith("tcp://"):
        socket.setsockopt(zmq.IPV6, int(ipv6))
        security.protect(socket, protection)
    return socket


def bare(context: zmq.Context[Any], kind: int) -> zmq.Socket[bytes]:
    """A socket without any settings, but closed at once when it is closed.

    Raises PeerError if there are too many sockets.
    """
    try:
        socket: zmq.Socket[bytes] = context.socket(kind)
    except zmq.ZMQError as error:
        raise PeerError("open a socket", error.strerror or error) from error
    socket.setsockopt(zmq.LINGER, 0)
    return socket
