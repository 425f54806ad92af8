"""ZeroMQ sockets of a change feed, with bounds on what they hold."""

from __future__ import annotations

import socket as unix
from typing import Any

import zmq

from ..errors import PeerError, UsageError

HIGH_WATER = 20_000
"""Messages that a socket holds for a slow peer before it drops them; replay brings them back."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a frame; a peer that sends more is disconnected."""


def bound(context: zmq.Context[Any], kind: int, address: str) -> zmq.Socket[bytes]:
    """A socket bound to `address`.

    Raises:
        UsageError: if it is no address that can be bound.
    """
    if address.startswith("ipc://") and _in_use(address.removeprefix("ipc://")):
        # ZeroMQ would take the address away from whoever has it, without a word.
        raise UsageError(
            f"bind {address}", "another process has it", "stop that one, or give another address"
        )
    socket = _socket(context, kind)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        raise UsageError(
            f"bind {address}",
            error.strerror or error,
            "give an address that nobody else has bound, as ipc:///run/piw-indexer/changes; "
            "the directory of an ipc socket must exist",
        ) from error
    return socket


def _in_use(path: str) -> bool:
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def connected(context: zmq.Context[Any], kind: int, address: str) -> zmq.Socket[bytes]:
    """A socket connected to `address`; the peer may come later, go, and come back.

    Raises:
        UsageError: if it is no address.
    """
    socket = _socket(context, kind)
    if kind == zmq.SUB:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    if kind == zmq.DEALER:
        # A request that waited for a peer to come back would be answered twice.
        socket.setsockopt(zmq.IMMEDIATE, 1)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close()
        raise UsageError(
            f"connect to {address}",
            error.strerror or error,
            "give an address as ipc:///run/piw-indexer/changes or tcp://host:port",
        ) from error
    return socket


def _socket(context: zmq.Context[Any], kind: int) -> zmq.Socket[bytes]:
    try:
        socket: zmq.Socket[bytes] = context.socket(kind)
    except zmq.ZMQError as error:
        raise PeerError("open a socket", error.strerror or error) from error
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    # Of tcp peers that vanish without a word only a keepalive tells.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
    return socket
