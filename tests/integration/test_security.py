"""Access to feeds: CURVE and its keys, tcp beyond this machine, the files of ipc sockets."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import socket as network
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import zmq
from zmq.utils import z85

from indexer.base import clock, once_per, printable
from indexer.base.errors import UsageError
from indexer.feed import connection, keys, security, sockets
from indexer.feed.monitored import MonitoredSocket
from indexer.feed.publisher import FeedPublisher
from indexer.feed.security import Authenticator, Binding, Connecting
from indexer.feed.subscriber import Subscriber
from indexer.messages import decode, encode
from indexer.messages.entries import Accepted, Entry
from indexer.messages.types import Position

from .. import samples
from ..support import Feed, eventually, ipc_feed, tcp_feed

pytestmark = pytest.mark.integration

AS_ROOT = os.geteuid() == 0
NOBODY = 65534
SERVER, OURS, OTHERS = keys.make(), keys.make(), keys.make()
GUARDED = Binding(SERVER, {OURS.public: "ours"})
MAY_COME_IN = Connecting(OURS, SERVER.public)


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    """A context whose sockets are closed at the end."""
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)
    Follower.alive.clear()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays are zero, so that errors show and are retried at once."""
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 0.0)
    monkeypatch.setattr(connection, "MAX_WAIT", 0.05)
    monkeypatch.setattr(connection, "REOPEN_DELAY", 1.0)


@contextmanager
def publishing(directory: Path, feed: Feed, binding: Binding) -> Iterator[FeedPublisher]:
    publisher = FeedPublisher(
        directory / "spool", "master", feed.changes, feed.replay, clock.now, binding
    )
    try:
        yield publisher
    finally:
        publisher.close()


class Follower:
    """A subscriber, and everything that has reached it."""

    alive: ClassVar[list[Follower]] = []  # the context closes their sockets, not the collector

    def __init__(self, context: zmq.Context[Any], feed: Feed, connecting: Connecting) -> None:
        self.subscriber = Subscriber(
            context,
            feed.changes,
            feed.replay,
            lambda feed, epoch: 0,
            lambda feed: None,
            clock.now,
            clock.monotonic,
            connecting,
        )
        self.entries: list[Entry] = []
        self.alive.append(self)

    @property
    def heard(self) -> bool:
        """True if anything came from the publisher, even a heartbeat."""
        return bool(self.entries or self.subscriber.feeds)

    @property
    def serials(self) -> list[int]:
        return [
            entry.position.serial
            for entry in self.entries
            if isinstance(entry, Accepted) and entry.position is not None
        ]

    def receive(self) -> None:
        self.entries += self.subscriber.receive(10_000, clock.monotonic() + 1)
        self.subscriber.tick()


def pump(
    publisher: FeedPublisher | None, followers: list[Follower], until: Callable[[], bool]
) -> None:
    """Let a publisher and followers work until something is so."""

    def work() -> bool:
        if publisher is not None:
            publisher.serve(0.0)
        for follower in followers:
            follower.receive()
        return until()

    eventually(work, lambda: [(one.subscriber.problem, one.serials) for one in followers])


_numbers = itertools.count(1)


def publish(publisher: FeedPublisher, count: int) -> None:
    for number in itertools.islice(_numbers, count):
        message = decode.from_json(samples.line(samples.new_package(f"package-{number}")), 0)
        publisher.publish([Accepted(Position("test", 0, number), message)])


# CURVE


def test_right_keys_bring_everything_replay_included(
    context: zmq.Context[Any], tmp_path: Path, tcp: Feed
) -> None:
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        publish(publisher, 30)  # nobody listens: only a replay can bring them
        follower = Follower(context, tcp, MAY_COME_IN)
        pump(publisher, [follower], lambda: len(follower.serials) == 30)
        publish(publisher, 20)
        pump(publisher, [follower], lambda: len(follower.serials) == 50)
        assert follower.serials == list(range(1, 51))
        assert follower.subscriber.problem is None


STRANGERS = {
    "a key that is not in the list": (Connecting(OTHERS, SERVER.public), OTHERS.public),
    "a wrong key of the publisher": (Connecting(OURS, OTHERS.public), OTHERS.public),
    "no key": (Connecting(), b"--curve-key"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_stranger_gets_nothing(
    name: str, context: zmq.Context[Any], tmp_path: Path, tcp: Feed
) -> None:
    connecting, says = STRANGERS[name]
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        publish(publisher, 5)
        friend = Follower(context, tcp, MAY_COME_IN)
        stranger = Follower(context, tcp, connecting)
        pump(publisher, [friend, stranger], lambda: len(friend.serials) == 5)
        pump(
            publisher,
            [friend, stranger],
            lambda: stranger.heard or stranger.subscriber.problem is not None,
        )
        publish(publisher, 5)
        pump(publisher, [friend, stranger], lambda: len(friend.serials) == 10)
        assert not stranger.heard
        assert f"cannot follow the publisher at {tcp.changes}: " in str(stranger.subscriber.problem)
        assert "what to do: " in str(stranger.subscriber.problem)
        assert says.decode() in str(stranger.subscriber.problem)
        assert publisher.last_request == 0 or friend.serials
        assert publisher.subscribers == 1


@pytest.mark.parametrize("name", STRANGERS)
def test_stranger_gets_no_replay(
    name: str, context: zmq.Context[Any], tmp_path: Path, tcp: Feed
) -> None:
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        publish(publisher, 5)
        monitored = MonitoredSocket(
            context, zmq.DEALER, tcp.replay, STRANGERS[name][0], reopen_delay=None
        )
        dealer = monitored.socket
        dealer.setsockopt(zmq.IMMEDIATE, 0)  # a stranger may be as pushy as it likes
        dealer.disconnect(tcp.replay)
        dealer.connect(tcp.replay)
        dealer.send(encode.replay_request(publisher.epoch, 0, 100))

        def refused_or_served() -> bool:
            publisher.serve(0.0)
            monitored.look()
            return monitored.failed or bool(dealer.poll(0))

        eventually(refused_or_served)
        assert not dealer.poll(0)
        assert publisher.last_request == 0
        monitored.close()


IMPOSTORS = {
    "no keys": Binding(),
    "other keys": Binding(OTHERS, {OURS.public: "the victim"}),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_impostor_is_not_listened_to(
    name: str, context: zmq.Context[Any], tmp_path: Path, tcp: Feed
) -> None:
    with publishing(tmp_path, tcp, IMPOSTORS[name]) as impostor:
        publish(impostor, 5)
        victim = Follower(context, tcp, MAY_COME_IN)
        pump(impostor, [victim], lambda: bool(victim.heard or victim.subscriber.problem))
        publish(impostor, 5)
        pump(impostor, [victim], lambda: victim.heard or not impostor.subscribers)
        assert not victim.heard


def test_nobody_gets_in_without_a_gatekeeper(context: zmq.Context[Any], tcp: Feed) -> None:
    """Without the authenticator nobody must be let in."""
    server: zmq.Context[Any] = zmq.Context()
    changes, _ = sockets.bound(server, zmq.XPUB, tcp.changes, GUARDED)
    monitored = MonitoredSocket(context, zmq.SUB, tcp.changes, MAY_COME_IN, reopen_delay=None)

    def decided() -> bool:
        monitored.look()
        return monitored.failed or monitored.connected

    eventually(decided)
    assert not monitored.connected
    assert not changes.poll(0)
    server.destroy(linger=0)
    monitored.close()


def test_sockets_that_end_let_others_live(context: zmq.Context[Any], ipc: Feed) -> None:
    """A closing socket still emits events, and ZeroMQ waits until somebody reads them."""
    for number in range(60):
        monitored = MonitoredSocket(context, zmq.SUB, f"{ipc.changes}{number}")
        monitored.look()
        monitored.close()
    server, listener = sockets.bound(context, zmq.XPUB, ipc.changes)
    monitored = MonitoredSocket(context, zmq.SUB, ipc.changes)

    def together() -> bool:
        monitored.look()
        return monitored.connected

    eventually(together)
    monitored.close()
    server.close()
    assert listener is not None
    listener.remove()


def test_who_was_refused_comes_in_when_the_list_has_its_key(
    context: zmq.Context[Any], tmp_path: Path, tcp: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    late = Follower(context, tcp, Connecting(OTHERS, SERVER.public))
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        publish(publisher, 3)
        pump(publisher, [late], lambda: bool(late.subscriber.problem or late.heard))
        assert not late.heard
        open_before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):  # it tries again and again, and leaves nothing behind
            before = late.subscriber.changes
            pump(publisher, [late], lambda before=before: late.subscriber.changes is not before)  # type: ignore[misc]
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= open_before + 12)
    assert len([one for one in caplog.messages if "does not allow our key" in one]) == 1
    with publishing(tmp_path, tcp, Binding(SERVER, {OTHERS.public: ""})) as publisher:
        pump(publisher, [late], lambda: late.serials == [1, 2, 3])
        pump(publisher, [late], lambda: not late.subscriber.problem)


def test_socket_that_finds_nobody_is_opened_anew(
    context: zmq.Context[Any], tmp_path: Path, tcp: Feed
) -> None:
    """ZeroMQ may have given up silently."""
    follower = Follower(context, tcp, MAY_COME_IN)
    before = follower.subscriber.changes, follower.subscriber.replay
    pump(None, [follower], lambda: follower.subscriber.changes is not before[0])
    assert follower.subscriber.replay is not before[1]
    assert follower.subscriber.problem is None
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        publish(publisher, 3)
        pump(publisher, [follower], lambda: follower.serials == [1, 2, 3])


def test_publisher_names_the_key_that_it_refused(
    context: zmq.Context[Any], tmp_path: Path, tcp: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        stranger = Follower(context, tcp, Connecting(OTHERS, SERVER.public))
        pump(publisher, [stranger], lambda: bool(stranger.subscriber.problem or stranger.heard))
    [said] = [one.message for one in caplog.records if one.name == security.__name__]
    assert "refused a subscriber at 127.0.0.1" in said
    assert OTHERS.public.decode() in said
    assert "--allowed-keys" in said
    for pair in (SERVER, OURS, OTHERS):
        assert pair.private.decode() not in caplog.text + repr(pair)


def test_refused_keys_do_not_fill_the_log(
    context: zmq.Context[Any], caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    gatekeeper = Authenticator(sockets.zap_socket(context), {OURS.public: ""}, lambda: now)
    asker: zmq.Socket[bytes] = context.socket(zmq.REQ)
    asker.connect(sockets.ZAP_ADDRESS)

    def ask(*credentials: bytes, mechanism: bytes = b"CURVE") -> bytes:
        asker.send_multipart(
            [b"1.0", b"7", security.DOMAIN, b"192.0.2.1", b"", mechanism, *credentials]
        )
        gatekeeper.answer()
        version, request, status, _, _, _ = asker.recv_multipart()
        assert (version, request) == (b"1.0", b"7")
        return status

    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            assert ask(z85.decode(OTHERS.public)) == b"400"
        assert len(caplog.records) == 1
        now += once_per.INTERVAL
        assert ask(z85.decode(keys.make().public)) == b"400"
        assert len(caplog.records) == 2
        assert "(999 more were left out of the log before)" in caplog.messages[1]
    assert ask(z85.decode(OURS.public)) == b"200"
    assert ask(z85.decode(OURS.public)[:-1]) == b"400"
    assert ask(mechanism=b"NULL") == b"400"
    assert ask(b"somebody", b"password", mechanism=b"PLAIN") == b"400"
    asker.close()
    gatekeeper.socket.close()


def test_nothing_is_left_of_a_guarded_publisher(
    context: zmq.Context[Any], tmp_path: Path, tcp: Feed
) -> None:
    def left() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    follower = Follower(context, tcp, MAY_COME_IN)
    with publishing(tmp_path, tcp, GUARDED) as publisher:
        publish(publisher, 1)
        pump(publisher, [follower], lambda: follower.serials == [1])
    follower.subscriber.close()
    before = left()
    for _ in range(3):
        with publishing(tmp_path, tcp, GUARDED) as publisher:
            publisher.serve(0.0)
    assert left() <= before


# Keys


def test_pair_in_its_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.write(tmp_path / "master", OURS)
    finally:
        os.umask(before)
    private, public = tmp_path / "master.key", tmp_path / "master.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert keys.read_private(private) == OURS
    assert keys.read_public(str(public)) == OURS.public
    assert keys.read_public(OURS.public.decode()) == OURS.public
    assert keys.read_list(public) == {OURS.public: "master"}
    assert OURS.private.decode() not in public.read_text()


def test_list_of_keys_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """Keys beyond the first MiB were refused without a reason."""
    file = tmp_path / "allowed"
    line = f"{OURS.public.decode()} {'x' * 58}\n"
    file.write_text(line * (2**20 // len(line)) + "# " + "x" * 100)
    with pytest.raises(UsageError, match="has more than 1 MiB"):
        keys.read_list(file)


@pytest.mark.parametrize("exists", ["master.key", "master.pub"])
def test_pair_is_never_overwritten(exists: str, tmp_path: Path) -> None:
    (tmp_path / exists).write_text("precious")
    with pytest.raises(UsageError, match="the file exists"):
        keys.write(tmp_path / "master", OURS)
    assert [path.name for path in tmp_path.iterdir()] == [exists]
    assert (tmp_path / exists).read_text() == "precious"


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644])
def test_private_key_that_others_may_use_is_refused(mode: int, tmp_path: Path) -> None:
    keys.write(tmp_path / "master", OURS)
    (tmp_path / "master.key").chmod(mode)
    with pytest.raises(UsageError, match=r"chmod 600 .*master\.key") as caught:
        keys.read_private(tmp_path / "master.key")
    assert f"{mode:04o}" in str(caught.value)


def test_one_kind_of_key_is_not_taken_for_the_other(tmp_path: Path) -> None:
    keys.write(tmp_path / "master", OURS)
    private, public = tmp_path / "master.key", tmp_path / "master.pub"
    public.chmod(0o600)
    with pytest.raises(UsageError, match="holds no private key"):
        keys.read_private(public)
    for read in (keys.read_list, lambda path: keys.read_public(str(path))):
        with pytest.raises(UsageError, match="private one") as caught:
            read(private)
        assert OURS.private.decode() not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#\n",
        "private\n",
        "private short\n",
        f"private {'~' * 40}\n",
        f"private {'#' * 40}\n",
        f"public {OURS.public.decode()}\n",
        f"private {OURS.private.decode()} x\n",
        f"private {OURS.private.decode()}\nprivate x\n",
    ],
    # The keys are others every time, and a test has one name.
    ids=["empty", "comment", "bare", "short", "tildes", "hashes", "public", "more", "second"],
)
def test_file_without_a_private_key(text: str, tmp_path: Path) -> None:
    file = tmp_path / "x.key"
    file.touch(0o600)
    file.write_text(text)
    with pytest.raises(UsageError, match="holds no private key"):
        keys.read_private(file)


def test_list_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "subscribers"
    text = (
        "# who may subscribe\n\n"
        f"{OURS.public.decode()} the index, rack 3\n"
        f"  {OTHERS.public.decode()}  \n"
        f"#{SERVER.public.decode()} no more\n"
    )
    file.write_text(text)
    assert keys.read_list(file) == {OURS.public: "the index, rack 3", OTHERS.public: ""}
    with pytest.raises(UsageError, match="2 keys"):
        keys.read_public(str(file))
    file.write_text(f"{text}rubbish\n")
    with pytest.raises(UsageError, match=r"line 6 of .* is not a public key"):
        keys.read_list(file)


def test_directory_of_keys(tmp_path: Path) -> None:
    directory = tmp_path / "subscribers"
    directory.mkdir()
    with pytest.raises(UsageError, match="no key in it"):
        keys.read_list(directory)
    keys.write(directory / "one", OURS)
    keys.write(directory / "two", OTHERS)
    (directory / "README").write_text("not a key")
    assert keys.read_list(directory) == {OURS.public: "one", OTHERS.public: "two"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"# nobody\n", "directory", "pipe"])
def test_list_that_is_none(content: bytes | str | None, tmp_path: Path) -> None:
    file = tmp_path / "subscribers"
    if content == "directory":
        file.mkdir()
    elif content == "pipe":
        os.mkfifo(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"subscribers[^$]*what to do: "):
        keys.read_list(file)
    with pytest.raises(UsageError, match=r"subscribers[^$]*what to do: "):
        keys.read_public(str(file))


def test_path_is_not_taken_for_a_key() -> None:
    path = "/etc/piw-indexer/masters/the-publ1ch.pub"
    assert keys.is_key(path), "it could be one"
    with pytest.raises(UsageError, match="No such file"):
        keys.read_public(path)


# tcp

HERE = [
    ("tcp://127.0.0.1:5560", "tcp://127.0.0.1:5560"),
    ("tcp://127.8.9.10:*", "tcp://127.8.9.10:*"),
    ("tcp://[::1]:5560", "tcp://[::1]:5560"),
    ("tcp://here:5560", "tcp://127.0.1.1:5560"),
    ("tcp://here6:5560", "tcp://[::1]:5560"),
    ("tcp://ours:5560", "tcp://127.0.1.1:5560"),
    ("ipc:///run/nobody/x", "ipc:///run/nobody/x"),
    ("inproc://x", "inproc://x"),
]
ELSEWHERE = [
    "tcp://*:5560",
    "tcp://0.0.0.0:5560",
    "tcp://[::]:5560",
    "tcp://192.0.2.1:5560",
    "tcp://[2001:db8::1]:5560",
    "tcp://[::ffff:192.0.2.1]:5560",
    "tcp://eth0:5560",
    "tcp://lo:5560",
    "tcp://there:5560",
    "tcp://both:5560",
    "tcp://both6:5560",
    "tcp://nowhere:5560",
    "tcp://127.0.0.1.there:5560",
    "tcp://127.0.0.1:5560;there:5560",
    "tcp://127.0.0.1",
    "tcp://\u2603\udcff:5560",
]
NAMES = {
    "here": ["127.0.1.1"],
    "there": ["192.0.2.1"],
    "both": ["127.0.0.1", "192.0.2.1"],
    "here6": ["::1"],
    "both6": ["::1", "2001:db8::1"],
    "ours": ["2001:db8::1", "127.0.1.1"],
    "127.0.0.1.there": ["192.0.2.1"],
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host names that do not depend on the machine."""
    security._numbers.cache_clear()

    def look_up(host: str, *_: object) -> list[tuple[object, ...]]:
        host.encode("idna")
        if host not in NAMES:
            raise network.gaierror(network.EAI_NONAME, "Name or service not known")
        return [(network.AF_INET, 1, 6, "", (number, 0)) for number in NAMES[host]]

    monkeypatch.setattr(network, "getaddrinfo", look_up)


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("protection", [Binding(), Connecting()], ids=["bind", "connect"])
def test_tcp_beyond_this_machine_needs_curve(
    protection: Binding | Connecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, number in HERE:
        assert security.endpoint("use", address, protection) == number
    for address in ELSEWHERE:
        with pytest.raises(UsageError, match="--allow-insecure-tcp") as caught:
            security.endpoint("use", address, protection)
        assert f"cannot use {printable.line(address)}: " in str(caught.value)
        assert "--curve-key" in caught.value.remedy
    # A name is asked for once: a name server that is away, or lies, changes nothing later.
    monkeypatch.setitem(NAMES, "here", ["192.0.2.1"])
    assert security.endpoint("use", "tcp://here:5560", protection) == "tcp://127.0.1.1:5560"


@pytest.mark.parametrize(
    "protection",
    [GUARDED, MAY_COME_IN, Binding(insecure=True), Connecting(insecure=True)],
    ids=["bind", "connect", "bind insecurely", "connect insecurely"],
)
def test_tcp_beyond_this_machine_with_curve_or_the_words(
    protection: Binding | Connecting,
) -> None:
    for address in ELSEWHERE:
        assert security.endpoint("use", address, protection) == address


def test_sockets_refuse_by_themselves(
    context: zmq.Context[Any], tmp_path: Path, sockets_directory: Path
) -> None:
    """Code that opens sockets without a command must follow the same rules."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match="without CURVE"):
        sockets.bound(context, zmq.XPUB, "tcp://*:*", Binding())
    with pytest.raises(UsageError, match="without CURVE"):
        MonitoredSocket(context, zmq.SUB, "tcp://192.0.2.1:5560", Connecting())
    assert len(os.listdir("/proc/self/fd")) == before
    feed = ipc_feed(sockets_directory)
    with (
        pytest.raises(UsageError, match="without CURVE"),
        publishing(tmp_path, Feed(feed.changes, "tcp://*:*"), Binding()),
    ):
        pass
    assert not (sockets_directory / "changes").exists()


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "localhost"])
def test_loopback_without_curve(address: str, context: zmq.Context[Any], tmp_path: Path) -> None:
    if address == "[::1]" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    plain = tcp_feed()
    feed = Feed(*(one.replace("127.0.0.1", address) for one in (plain.changes, plain.replay)))
    with publishing(tmp_path, feed, Binding()) as publisher:
        publish(publisher, 2)
        follower = Follower(context, feed, Connecting())
        pump(publisher, [follower], lambda: follower.serials == [1, 2])


def test_ipc_needs_no_keys_beside_a_guarded_tcp(
    context: zmq.Context[Any], tmp_path: Path, ipc: Feed, tcp: Feed
) -> None:
    feed = Feed(tcp.changes, ipc.replay)
    with publishing(tmp_path, feed, GUARDED) as publisher:
        publish(publisher, 2)
        follower = Follower(context, feed, MAY_COME_IN)
        pump(publisher, [follower], lambda: follower.serials == [1, 2])


# ipc


@pytest.fixture
def sockets_directory(sockets: Path) -> Path:
    """A directory for ipc sockets that everybody may enter."""
    sockets.chmod(0o755)
    return sockets


def some_group() -> int:
    """A group other than the process's, if the process may give files to one."""
    if AS_ROOT:
        return 54321
    return next((one for one in os.getgroups() if one != os.getegid()), os.getegid())


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_mode_and_group_of_ipc_sockets(
    mode: int,
    umask: int,
    tmp_path: Path,
    ipc: Feed,
    sockets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = []
    chmod = os.chmod

    def watched(path: Path, to: int) -> None:
        with network.socket(network.AF_UNIX) as probe:
            heard.append(probe.connect_ex(str(path)))
        chmod(path, to)

    monkeypatch.setattr(os, "chmod", watched)
    before = os.umask(umask)
    try:
        with publishing(tmp_path, ipc, Binding(ipc_mode=mode, ipc_group=some_group())):
            assert os.umask(umask) == umask
            for name in ("changes", "replay"):
                status = (sockets / name).stat()
                assert stat.S_IMODE(status.st_mode) == mode
                assert status.st_gid == some_group()
    finally:
        os.umask(before)
    assert heard == [errno.ECONNREFUSED] * 2, "nobody could connect before it had its group"
    assert list(sockets.iterdir()) == []


def test_mode_of_ipc_sockets_unless_told_otherwise(
    tmp_path: Path, ipc: Feed, sockets: Path
) -> None:
    with publishing(tmp_path, ipc, Binding()):
        for path in sockets.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert path.stat().st_gid == os.getegid()


@pytest.mark.skipif(not AS_ROOT, reason="only root can be somebody else")
def test_only_the_group_may_connect(tmp_path: Path, sockets_directory: Path) -> None:
    def may_connect(path: Path, group: int) -> bool:
        with ExitStack() as stack:
            groups, gid = os.getgroups(), os.getegid()
            stack.callback(os.setgroups, groups)
            stack.callback(os.setegid, gid)
            stack.callback(os.seteuid, 0)
            os.setgroups([])
            os.setegid(group)
            os.seteuid(NOBODY)
            with network.socket(network.AF_UNIX) as probe:
                try:
                    probe.connect(str(path))
                except PermissionError:
                    return False
        return True

    feed = ipc_feed(sockets_directory)
    with publishing(tmp_path, feed, Binding(ipc_group=some_group())):
        for name in ("changes", "replay"):
            assert may_connect(sockets_directory / name, some_group())
            assert not may_connect(sockets_directory / name, some_group() + 1)


def test_group_that_cannot_be_given(
    tmp_path: Path, ipc: Feed, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, owner: int, group: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with (
        pytest.raises(UsageError, match="--ipc-group") as caught,
        publishing(tmp_path, ipc, Binding(ipc_group=0)),
    ):
        pass
    assert ipc.changes in str(caught.value)
    assert list(sockets.iterdir()) == []


@pytest.mark.parametrize("address", ["ipc://@piw-changes", "ipc://*"])
def test_ipc_socket_without_a_file_of_its_own(address: str, context: zmq.Context[Any]) -> None:
    with pytest.raises(UsageError, match="no mode") as caught:
        sockets.bound(context, zmq.XPUB, address, Binding())
    assert address in str(caught.value)
