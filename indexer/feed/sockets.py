"""ZeroMQ sockets of a change feed, with bounds on what they hold and on who may speak."""

from __future__ import annotations

import socket as unix
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from ..errors import PeerError, UsageError
from . import security
from .security import LOCAL_BINDING, LOCAL_CONNECTING, Binding, Connecting

HIGH_WATER = 20_000
"""Messages that a socket holds for a slow peer before it drops them; replay brings them back."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a frame of a replay; a peer that sends more is disconnected. A snapshot of a package
with 9,500 versions of two files each has 8 MB."""

MAX_REPLAY_WAITING = 4
"""Answers to a replay that wait to be read: each may be as large as a frame may be."""

MAX_PUBLISHED = 64 * 1024
"""Bytes of a message that is sent to all subscribers; a larger one is only replayed. A subscriber
takes no larger frame but as a replay."""

MAX_CHANGES_WAITING = 1000
"""Messages that a subscriber's socket holds; more wait on the way, and with the publisher."""

MAX_REQUEST = 1024
"""Bytes of what a subscriber may send: a subscription, a request, or a part of a handshake."""

MAX_REQUESTS_WAITING = 64
"""Requests of one subscriber that wait to be looked at."""

MAX_CONNECTIONS_WAITING = 64
"""Connections that wait to be accepted."""

HANDSHAKE_TIMEOUT = 3000
"""Milliseconds that a handshake may take. Who only connects shall not keep others out."""

GATE = "inproc://zeromq.zap.01"
"""Its address is fixed by https://rfc.zeromq.org/spec/27/."""


def bound(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Binding = LOCAL_BINDING,
    *,
    high_water: int | None = None,
    most: int = MAX_REQUEST,
) -> zmq.Socket[bytes]:
    """A socket bound to `address`.

    Args:
        context: of ZeroMQ.
        kind: of the socket.
        address: where others connect to.
        protection: who may come in.
        high_water: messages that it holds from a peer, if not as many as requests may wait.
        most: bytes of a frame; a peer that sends more is disconnected.

    Raises:
        UsageError: if it is no address that can be bound, or may not be with this protection.
    """
    endpoint = security.endpoint("bind", address, protection)
    file = Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
    if file is not None and _in_use(str(file)):
        # ZeroMQ would take the address away from whoever has it, without a word.
        raise UsageError(
            f"bind {address}", "another process has it", "stop that one, or give another address"
        )
    socket = _socket(context, kind, address, protection)
    socket.setsockopt(zmq.RCVHWM, MAX_REQUESTS_WAITING if high_water is None else high_water)
    socket.setsockopt(zmq.MAXMSGSIZE, most)
    socket.setsockopt(zmq.BACKLOG, MAX_CONNECTIONS_WAITING)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_TIMEOUT)
    if kind == zmq.XPUB:
        # Every subscription is told, and every end of one: who makes up many is found out.
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    try:
        with nullcontext() if file is None else security.owner_only():
            socket.bind(endpoint)
    except zmq.ZMQError as error:
        socket.close()
        raise UsageError(
            f"bind {address}",
            error.strerror or error,
            "give an address that nobody else has bound, as ipc:///run/piw-indexer/changes; "
            "the directory of an ipc socket must exist",
        ) from error
    if file is not None:
        try:
            security.let_in(file, protection)
        except OSError as error:
            socket.close()
            file.unlink(missing_ok=True)
            raise UsageError(
                f"set the group and mode of {address}",
                error.strerror or error,
                "give --ipc-group a group that the user who runs piw-indexer belongs to",
            ) from error
    return socket


def _in_use(path: str) -> bool:
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def connected(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Connecting = LOCAL_CONNECTING,
    *,
    immediate: bool = False,
    most: int = MAX_MESSAGE,
    high_water: int = HIGH_WATER,
) -> tuple[zmq.Socket[bytes], Handshakes | None]:
    """A socket connected to `address`; the peer may come later, go, and come back.

    Args:
        context: of ZeroMQ.
        kind: of the socket.
        address: of the peer.
        protection: how it proves who it is, and knows the peer.
        immediate: send nothing while the peer is not there, instead of keeping it for later.
        most: bytes of a frame; a peer that sends more is disconnected.
        high_water: messages that it holds from a peer.

    Returns:
        The socket, and how its handshakes end, if it has any.

    Raises:
        UsageError: if it is no address, or may not be connected with this protection.
    """
    endpoint = security.endpoint("connect to", address, protection)
    socket = _socket(context, kind, address, protection)
    if kind == zmq.SUB:
        socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.setsockopt(zmq.MAXMSGSIZE, most)
    socket.setsockopt(zmq.RCVHWM, high_water)
    if kind == zmq.DEALER or immediate:
        # A request that waited for a peer to come back would be answered twice.
        socket.setsockopt(zmq.IMMEDIATE, 1)
    handshakes = None if address.startswith("inproc://") else Handshakes(context, socket)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        if handshakes is not None:
            handshakes.close()
        socket.close()
        raise UsageError(
            f"connect to {address}",
            error.strerror or error,
            "give an address as ipc:///run/piw-indexer/changes or tcp://host:port",
        ) from error
    return socket, handshakes


def gate(context: zmq.Context[Any]) -> zmq.Socket[bytes]:
    """The socket on which ZeroMQ asks who may come in; one for a context."""
    socket = _new(context, zmq.REP)
    socket.bind(GATE)
    return socket


class Handshakes:
    """Watches how the handshakes of a socket end; made before it is connected.

    ZeroMQ gives up a peer that refuses it or breaks the protocol, for good and without a word:
    somebody has to open a socket anew.

    Attributes:
        refused: true if the last one ended because our key is not allowed.
        failed: true if the last one failed, for any reason.
        succeeded: true if the last one succeeded, and the connection stands.
        given_up: true if there is no connection any more, and ZeroMQ does not try to make one.
        successes: how many have succeeded.
    """

    _number = 0

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[bytes]) -> None:
        Handshakes._number += 1
        address = f"inproc://handshakes-{Handshakes._number}"
        self.refused = self.failed = self.succeeded = self.given_up = False
        self._parted = False
        self._socket = socket
        self.successes = 0
        socket.monitor(
            address,
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CONNECT_RETRIED,
        )
        self._events = _new(context, zmq.PAIR)
        # With a bound, ZeroMQ would stand still when nobody looks for a while.
        self._events.setsockopt(zmq.RCVHWM, 0)
        self._events.connect(address)

    def look(self) -> None:
        """Take note of what happened since the last look."""
        parted_before = self._parted
        while self._events.poll(0):
            event = parse_monitor_message(self._events.recv_multipart())["event"]
            if event == zmq.EVENT_MONITOR_STOPPED:
                continue
            self._parted = event == zmq.EVENT_DISCONNECTED
            parted_before &= self._parted
            if event == zmq.EVENT_CONNECT_RETRIED:
                continue
            self.succeeded = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self.successes += self.succeeded
            if event != zmq.EVENT_DISCONNECTED:  # that follows a failure, and tells nothing of it
                self.refused = event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
                self.failed = not self.succeeded
        # A new try is announced at once, but perhaps not before this look.
        self.given_up = self._parted and parted_before

    def close(self) -> None:
        """Stop; only then may the socket be closed.

        ZeroMQ waits for whoever shall get its reports, with all its sockets, and for ever: while a
        socket ends it still has some.
        """
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._events.close()


def _socket(
    context: zmq.Context[Any],
    kind: int,
    address: str,
    protection: Binding | Connecting,
) -> zmq.Socket[bytes]:
    socket = _new(context, kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    # Of tcp peers that vanish without a word only a keepalive tells.
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 60)
    if address.startswith("tcp://"):
        socket.setsockopt(zmq.IPV6, int("[" in address))
        security.protect(socket, protection)
    return socket


def _new(context: zmq.Context[Any], kind: int) -> zmq.Socket[bytes]:
    try:
        socket: zmq.Socket[bytes] = context.socket(kind)
    except zmq.ZMQError as error:
        raise PeerError("open a socket", error.strerror or error) from error
    socket.setsockopt(zmq.LINGER, 0)
    return socket
