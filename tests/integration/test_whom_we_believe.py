"""Who owns an ipc socket, before it is trusted; and which files we leave alone where we listen."""

from __future__ import annotations

import os
import socket as unix
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.base.errors import PeerError, UsageError
from indexer.feed import ipc, monitored
from indexer.feed.monitored import MonitoredSocket
from indexer.feed.security import Binding, Connecting
from indexer.feed.sockets import bound

from ..strangers import STRANGER, as_root, taken
from ..support import eventually

pytestmark = pytest.mark.integration

NAMED = Connecting(peers=frozenset({STRANGER}))


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries happen at once."""
    monkeypatch.setattr(monitored, "MAX_RETRY_DELAY", 0.05)
    monkeypatch.setattr(monitored, "MAX_DISTRUST_DELAY", 0.05)


@pytest.fixture
def everybodys(sockets: Path) -> Path:
    """A directory like /tmp."""
    sockets.chmod(0o1777)
    return sockets


@pytest.fixture
def address(everybodys: Path) -> str:
    return f"ipc://{everybodys}/changes"


def watch(one: MonitoredSocket, until: str) -> None:
    """Look at a socket until one of its attributes is true, or until it is `apart`."""

    def looked() -> bool:
        one.look()
        return not one.connected if until == "apart" else bool(getattr(one, until))

    eventually(looked, lambda: one.distrust)


# Where we connect


@as_root
@pytest.mark.parametrize("kind", [zmq.SUB, zmq.DEALER, zmq.REQ, zmq.PUSH])
def test_stranger_is_not_believed(kind: int, address: str, context: zmq.Context[Any]) -> None:
    with taken(address):
        one = MonitoredSocket(context, kind, address, immediate=True)
        watch(one, "distrust")
        for _ in range(20):
            one.look()
            assert not one.open
            assert not one.connected
        assert f"believe what is at {address}" in str(one.distrust)
        assert f"user {STRANGER}" in str(one.distrust)
        assert f"--ipc-peer {STRANGER}" in str(one.distrust)
        one.close()


@as_root
def test_stranger_who_is_named_is_believed(address: str, context: zmq.Context[Any]) -> None:
    with taken(address):
        one = MonitoredSocket(context, zmq.SUB, address, NAMED)
        watch(one, "connected")
        assert one.distrust is None
        eventually(lambda: bool(one.socket.poll(10)))
        one.close()


@as_root
def test_stranger_behind_a_file_of_ours(address: str, context: zmq.Context[Any]) -> None:
    """The process that listens counts, whoever owns the file."""
    with taken(address):
        path = Path(address.removeprefix("ipc://"))
        os.chown(path, 0, 0)
        assert ipc.look_at(address, frozenset()) is not None
        one = MonitoredSocket(context, zmq.SUB, address)
        watch(one, "distrust")
        assert not one.open
        assert "the process that listens there runs as" in str(one.distrust)
        one.close()


@as_root
def test_stranger_takes_the_place_of_a_peer(address: str, context: zmq.Context[Any]) -> None:
    peer, listener = bound(context, zmq.XPUB, address, Binding())
    assert listener is not None
    one = MonitoredSocket(context, zmq.SUB, address)
    watch(one, "connected")
    assert peer.recv() == b"\1"
    peer.send(b"the last words of the peer")
    eventually(lambda: bool(one.socket.poll(10)))
    peer.close()
    listener.remove()
    with taken(address):
        watch(one, "apart")
        assert one.socket.recv(zmq.NOBLOCK) == b"the last words of the peer"
        watch(one, "distrust")
        assert not one.open
    peer, _ = bound(context, zmq.XPUB, address, Binding())
    watch(one, "connected")
    assert one.distrust is None
    one.close()


def test_peer_that_comes_later_and_comes_back(address: str, context: zmq.Context[Any]) -> None:
    one = MonitoredSocket(context, zmq.SUB, address)
    for number in range(3):
        assert not one.connected
        peer, listener = bound(context, zmq.XPUB, address, Binding())
        watch(one, "connected")
        assert one.connections == number + 1
        peer.close()
        assert listener is not None
        listener.remove()
        watch(one, "apart")
    one.close()


def test_directory_to_which_others_may_write(sockets: Path, context: zmq.Context[Any]) -> None:
    address = f"ipc://{sockets}/changes"
    peer: zmq.Socket[bytes] = context.socket(zmq.XPUB)
    peer.bind(address)
    for mode in (0o777, 0o770):
        sockets.chmod(mode)
        with pytest.raises(PeerError, match="others may write to the directory") as caught:
            ipc.look_at(address, frozenset())
        assert f"chmod go-w {sockets}" in str(caught.value)
        one = MonitoredSocket(context, zmq.SUB, address)
        assert "others may write" in str(one.distrust)
        sockets.chmod(0o755)
        watch(one, "connected")
        assert one.distrust is None
        one.close()


@as_root
@pytest.mark.parametrize("kind", ["directory", "link"])
def test_way_that_belongs_to_a_stranger(kind: str, everybodys: Path) -> None:
    (everybodys / "real").mkdir()
    way = everybodys / "way"
    if kind == "directory":
        way.mkdir()
    else:
        way.symlink_to(everybodys / "real")
    with unix.socket(unix.AF_UNIX) as server:
        server.bind(str(way / "changes"))
        address = f"ipc://{way}/changes"
        assert ipc.look_at(address, frozenset()) is not None
        os.lchown(way, STRANGER, STRANGER)
        with pytest.raises(PeerError, match=f"{way}.*user {STRANGER}"):
            ipc.look_at(address, frozenset())
        assert ipc.look_at(address, {STRANGER}) is not None


def test_what_is_not_a_socket_is_not_connected(everybodys: Path) -> None:
    (everybodys / "file").touch()
    with pytest.raises(PeerError, match="there is a regular file in the place of a socket"):
        ipc.look_at(f"ipc://{everybodys}/file", frozenset())
    assert ipc.look_at(f"ipc://{everybodys}/nothing", frozenset()) is None
    (everybodys / "loop").symlink_to("loop")
    with pytest.raises(PeerError, match="symbolic links"):
        ipc.look_at(f"ipc://{everybodys}/loop", frozenset())


# Where we listen


def in_the_way(path: Path, kind: str) -> None:
    if kind == "a regular file":
        path.write_text("precious")
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a directory":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("kind", ["a regular file", "a FIFO", "a directory", "a symbolic link"])
def test_what_is_not_a_socket_is_left_alone(
    kind: str, everybodys: Path, context: zmq.Context[Any]
) -> None:
    path = everybodys / "changes"
    in_the_way(path, kind)
    before = os.lstat(path)
    for refuse in (
        lambda: ipc.refuse_unbindable(f"ipc://{path}"),
        lambda: bound(context, zmq.XPUB, f"ipc://{path}", Binding()),
    ):
        with pytest.raises(UsageError, match=f"there is {kind} in the place of a socket") as caught:
            refuse()
        assert f"bind ipc://{path}" in str(caught.value)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
    )


def test_old_socket_of_ours_is_replaced_and_one_in_use_is_not(
    everybodys: Path, context: zmq.Context[Any]
) -> None:
    path = everybodys / "changes"
    with unix.socket(unix.AF_UNIX) as old:
        old.bind(str(path))
        old.listen()
        with pytest.raises(UsageError, match="another process has it"):
            bound(context, zmq.XPUB, f"ipc://{path}", Binding())
        ipc.refuse_unbindable(f"ipc://{path}")  # the one who asks may have it
    peer, listener = bound(context, zmq.XPUB, f"ipc://{path}", Binding())
    one = MonitoredSocket(context, zmq.SUB, f"ipc://{path}")
    watch(one, "connected")
    one.close()
    peer.close()
    assert listener is not None
    path.unlink()
    path.write_text("somebody else's")
    listener.remove()
    assert path.read_text() == "somebody else's"


@as_root
def test_old_socket_of_a_stranger_is_left_alone(
    everybodys: Path, context: zmq.Context[Any]
) -> None:
    path = everybodys / "changes"
    with unix.socket(unix.AF_UNIX) as old:
        old.bind(str(path))
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(UsageError, match=f"there is a socket of user {STRANGER}"):
        bound(context, zmq.XPUB, f"ipc://{path}", Binding())
    assert path.lstat().st_uid == STRANGER


def test_directory_where_others_could_replace_our_socket(
    sockets: Path, context: zmq.Context[Any]
) -> None:
    sockets.chmod(0o777)
    with pytest.raises(UsageError, match="others may write to the directory"):
        bound(context, zmq.XPUB, f"ipc://{sockets}/changes", Binding())
    assert not (sockets / "changes").exists()
    sockets.chmod(0o755)
    with pytest.raises(UsageError, match="there is no directory"):
        ipc.refuse_unbindable(f"ipc://{sockets}/none/changes")


def test_users_by_name_and_by_number() -> None:
    assert ipc.user_ids(["root", "4343"]) == {0, 4343}
    with pytest.raises(UsageError, match="there is no such user"):
        ipc.user_ids(["nobody-of-that-name"])
