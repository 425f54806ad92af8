"""Who may connect: on tcp the holders of allowed CURVE keys, on ipc one group.

Without CURVE, no tcp socket reaches beyond this machine, unless the user explicitly allows it.
"""

from __future__ import annotations

import grp
import ipaddress
import logging
import socket as network
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import zmq
from zmq.utils import z85

from ..base import clock
from ..base.errors import UsageError
from ..base.log import event
from ..base.once_per import LimitedLog
from . import keys as curve
from .keys import KeyPair

log = logging.getLogger(__name__)

DOMAIN = b"piw-indexer"
"""Of ZAP. If it has a name, ZeroMQ admits nobody without the authenticator's consent."""

IPC_MODE = 0o660


@dataclass(frozen=True)
class Binding:
    """What protects the sockets that a publisher binds.

    Attributes:
        pair: its keys; None without CURVE.
        allowed: the public keys that may connect, with comments; read at every connection.
        insecure: true if tcp beyond this machine is meant to be without CURVE.
        ipc_mode: of the file of an ipc socket; users who may write to it may connect.
        ipc_group: the number of that file's group; None for that of the process.
    """

    pair: KeyPair | None = None
    allowed: Mapping[bytes, str] = field(default_factory=dict)
    insecure: bool = False
    ipc_mode: int = IPC_MODE
    ipc_group: int | None = None


@dataclass(frozen=True)
class Connecting:
    """What protects the sockets that a subscriber connects.

    Attributes:
        pair: its keys; None without CURVE.
        server_key: the public key of the publisher; empty without CURVE.
        insecure: true if tcp beyond this machine is meant to be without CURVE.
        peers: the numbers of users whose ipc sockets are trusted, besides ours and root's.
    """

    pair: KeyPair | None = None
    server_key: bytes = b""
    insecure: bool = False
    peers: frozenset[int] = frozenset()


LOCAL_BINDING, LOCAL_CONNECTING = Binding(), Connecting()
"""Without CURVE, and so on this machine only."""


def for_publisher(
    queues: Sequence[str],
    curve_key: Path | None,
    allowed_keys: Path | None,
    insecure: bool,
    ipc_mode: int,
    ipc_group: str | None,
) -> Binding:
    """The protection of a publisher's `queues`, from its options.

    Raises UsageError if an option is missing, a key cannot be read, or a queue needs CURVE.
    """
    _refuse_half(
        ("--curve-key", curve_key, "the publisher's own private key"),
        ("--allowed-keys", allowed_keys, "who may subscribe"),
    )
    binding = Binding(
        curve.read_private(curve_key) if curve_key is not None else None,
        curve.KeyList(allowed_keys) if allowed_keys is not None else {},
        insecure,
        ipc_mode,
        _group(ipc_group) if ipc_group is not None else None,
    )
    for queue in queues:
        endpoint("bind", queue, binding)
    return binding


def for_subscribers(
    feeds: Sequence[tuple[str, str]],
    curve_key: Path | None,
    server_keys: Sequence[str],
    insecure: bool,
    peers: frozenset[int] = frozenset(),
) -> list[Connecting]:
    """The protection of the queues of each of `feeds`, from the options of a subscriber.

    Raises UsageError if an option is missing, a key cannot be read, or a queue needs CURVE.
    """
    _refuse_half(
        ("--curve-key", curve_key, "the private key of this subscriber"),
        ("--curve-server-key", server_keys, "the public key of the publisher"),
    )
    if len(server_keys) > 1 and len(server_keys) != len(feeds):
        raise UsageError(
            "use CURVE",
            f"there are {len(feeds)} publishers, but {len(server_keys)} --curve-server-key",
            "give one for all of them, or one for each",
        )
    pair = curve.read_private(curve_key) if curve_key is not None else None
    keys = [curve.read_public(key) for key in server_keys] or [b""]
    if len(keys) == 1:
        keys *= len(feeds)
    protections = [Connecting(pair, key, insecure, peers) for key in keys]
    for queues, connecting in zip(feeds, protections, strict=True):
        for queue in queues:
            endpoint("connect to", queue, connecting)
    return protections


def _refuse_half(*options: tuple[str, object, str]) -> None:
    """Refuse one of two options without the other: each is its name, its value, what it says."""
    for (given, value, _), (missing, other, why) in (options, options[::-1]):
        if value and not other:
            raise UsageError(
                "use CURVE", f"{given} is given, but not {missing}", f"say with {missing} {why}"
            )


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise UsageError(
            f"give ipc sockets to the group {name}",
            "there is no such group",
            "name one with --ipc-group that `getent group` shows",
        ) from error


# Addresses


def endpoint(operation: str, address: str, security: Binding | Connecting) -> str:
    """The address to give to ZeroMQ.

    A name for this machine is replaced by its number: ZeroMQ resolves names again at every
    connection, and the answer may change.

    Raises:
        UsageError: if it reaches beyond this machine without CURVE, or is an ipc address without a
            file whose mode could protect it.
    """
    kind, _, rest = address.partition("://")
    if kind == "ipc" and isinstance(security, Binding) and (rest == "*" or rest.startswith("@")):
        raise UsageError(
            f"{operation} {address}",
            "it has no file of its own, so no mode can say who may connect",
            "give a path, such as ipc:///run/piw-indexer/changes",
        )
    if kind != "tcp" or security.pair is not None or security.insecure:
        return address
    source, semicolon, target = rest.rpartition(";")  # ZeroMQ's way to say where to connect from
    host, _, port = target.rpartition(":")
    number = loopback(host)
    if number is None:
        server = isinstance(security, Binding)
        raise UsageError(
            f"{operation} {address}",
            "it is tcp beyond this machine without CURVE: anybody on the network could"
            + (" read what is published" if server else " forge the publisher's messages"),
            f"give --curve-key and {'--allowed-keys' if server else '--curve-server-key'} (see"
            " `piw-indexer keys`), use ipc or 127.0.0.1, or give --allow-insecure-tcp if the"
            " network is trusted",
        )
    return f"tcp://{source}{semicolon}{number}:{port}"


@cache  # a socket must be able to reopen while the name server is away
def _numbers(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The numbers of a host, those of IPv4 first; the names of interfaces and * are not found."""
    try:
        return [ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))]
    except ValueError:
        pass  # it is a name
    try:
        answers = network.getaddrinfo(host, None, 0, network.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    numbers = [ipaddress.ip_address(answer[4][0]) for answer in answers]
    return sorted(numbers, key=lambda number: number.version)


def loopback(host: str) -> str | None:
    """The number of a host that is this machine, as ZeroMQ writes it; None for another host."""
    numbers = _numbers(host)
    # A machine's own name may be 127.0.1.1, and besides have an IPv6 address that all can reach.
    numbers = [number for number in numbers if number.version == numbers[0].version]
    if not numbers or not all(map(_is_loopback, numbers)):
        return None
    return f"[{numbers[0]}]" if numbers[0].version == 6 else str(numbers[0])


def _is_loopback(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return (mapped or number).is_loopback  # older Pythons take no mapped address for loopback


def ipv6(endpoint: str, security: Binding | Connecting) -> tuple[bool, ...]:
    """The values of ZMQ_IPV6 with which ZeroMQ may reach an address, the best one first.

    Without it, ZeroMQ uses IPv4 only. With it, ZeroMQ uses only the IPv6 address of a name that
    has both, even if nobody listens there (https://github.com/zeromq/libzmq/issues/4313).
    """
    kind, _, rest = endpoint.partition("://")
    source, _, target = rest.rpartition(";")
    host = target.rpartition(":")[0]
    if kind != "tcp":
        return (False,)
    if isinstance(security, Binding):
        # With IPv6, * is both; an interface may have any address.
        return (host == "*" or ":" in host,)
    if source:
        return ("[" in source,)
    versions = {number.version for number in _numbers(host)}
    if len(versions) == 1:
        return (versions == {6},)
    return False, True  # it has both, or the name server is away


# Sockets


def protect(socket: zmq.Socket[bytes], security: Binding | Connecting) -> None:
    """Give a tcp socket its keys, before it is bound or connected."""
    if security.pair is None:
        return
    socket.setsockopt(zmq.CURVE_SECRETKEY, security.pair.private)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, security.pair.public)
    if isinstance(security, Connecting):
        socket.setsockopt(zmq.CURVE_SERVERKEY, security.server_key)
    else:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        # Without it, ZeroMQ admits everybody while no authenticator is there.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


class Authenticator:
    """Tells ZeroMQ who may connect: the holders of allowed public keys.

    Args:
        socket: where ZeroMQ asks; made before the sockets that it guards are bound.
        allowed: public keys in Z85, with comments.
        monotonic: for the pace of the reports, seconds.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        allowed: Mapping[bytes, str],
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self.socket = socket
        self._allowed = allowed
        self._log = LimitedLog(log, monotonic)

    def answer(self) -> None:
        while self.socket.poll(0):
            _, request, _, address, _, mechanism, *credentials = self.socket.recv_multipart()
            # That is how an address of IPv4 appears where we listen to both.
            peer = address.decode(errors="replace").removeprefix("::ffff:")
            name = self._admit(peer, mechanism, credentials)
            status = [b"400", b"this key is not allowed"] if name is None else [b"200", b"OK"]
            self.socket.send_multipart([b"1.0", request, *status, name or b"", b""])

    def _admit(self, address: str, mechanism: bytes, credentials: list[bytes]) -> bytes | None:
        if mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != 32:
            return None
        key = z85.encode(credentials[0])
        whose = self._allowed.get(key)
        if whose is not None:
            self._log.info(
                "%s connects with the key %s %s",
                address,
                key.decode(),
                whose,
                extra=event("subscriber-connects", address=address),
                of=(address, key),
            )
            return key
        self._log.warning(
            "refused a subscriber at %s: its key %s is not allowed\n"
            "  what to do: if it may subscribe, put that key among the --allowed-keys",
            address,
            key.decode(),
            extra=event("subscriber-refused", address=address),
        )
        return None
