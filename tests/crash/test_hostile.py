"""Whatever bytes a peer sends, the daemon continues, and quarantines what it refuses."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.base.errors import DecodeError
from indexer.feed.sockets import MAX_MESSAGE
from indexer.feed.subscriber import MAX_FEEDS
from indexer.journal import quarantine
from indexer.journal.quarantine import Quarantined
from indexer.journal.reader import JournalReader
from indexer.messages import decode, encode
from indexer.messages.redact import refused
from indexer.messages.types import Position

from ..property import strategies as s
from ..support import Feed, Site, eventually, ipc_feed
from .harness import Victim, daemon

pytestmark = pytest.mark.crash

GOOD = "good"
TOO_LARGE = b"\0" * (MAX_MESSAGE + 1)
EPOCH = 77_000_000_077
"""Of the good messages: a request for a replay names no feed."""


def marker(serial: int) -> list[bytes]:
    """A good message among bad ones."""
    message = {"msg": "NEWPKG", "at": s.rfc3339(s.NOW), "data": {"package": f"good-{serial}"}}
    return [b"NEWPKG", s.wire(message, feed=GOOD, epoch=EPOCH, serial=serial)]


class Peer:
    """A publisher that sends what the test says, and its daemon."""

    def __init__(self, site: Site, feed: Feed, victim: Victim | None = None) -> None:
        self.site = site
        self.feed = feed
        self.serial = 0
        self.junk: list[list[bytes]] = []  # to be sent before the next answer
        self.large: set[int] = set()  # serials whose message no frame may hold
        self.context: zmq.Context[Any] = zmq.Context()
        self.changes, self.replay = (
            self.bound(zmq.XPUB, feed.changes),
            self.bound(zmq.ROUTER, feed.replay),
        )
        self.daemon = victim or daemon(site, feed)

    def bound(self, kind: int, address: str) -> zmq.Socket[bytes]:
        made: zmq.Socket[bytes] = self.context.socket(kind)
        made.setsockopt(zmq.SNDHWM, 0)
        made.setsockopt(zmq.LINGER, 0)
        made.bind(address)
        return made

    def await_subscriber(self) -> None:
        eventually(lambda: bool(self.changes.poll(20)), lambda: self.daemon.output)
        self.changes.recv()

    def answer(self) -> None:
        """Answer a request, beginning with junk."""
        while self.replay.poll(50):
            sender, request = self.replay.recv_multipart()
            wanted = decode.replay_request(request)
            for frames in self.junk:
                self.replay.send_multipart([sender, *frames])
            self.junk.clear()
            last = wanted.after
            if wanted.epoch == EPOCH:
                for last in range(wanted.after + 1, self.serial + 1):
                    payload = TOO_LARGE if last in self.large else marker(last)[1]
                    self.replay.send_multipart([sender, payload])
            self.replay.send_multipart([sender, encode.replay_end(last)])

    def journal(self) -> JournalReader:
        return JournalReader(self.site.state_dir / "journal")

    def accepted(self) -> int:
        reader = self.journal()
        try:
            return max([one.serial for one in reader.feeds() if one.feed == GOOD], default=0)
        finally:
            reader.close()

    def quarantine(self) -> list[Quarantined]:
        reader = self.journal()
        try:
            return list(quarantine.entries(reader))
        finally:
            reader.close()

    def await_accepted(self) -> None:
        """Wait until the last good message is accepted; answer requests meanwhile."""

        def done() -> bool:
            self.daemon.assert_running()
            self.send(encode.heartbeat(Position(GOOD, EPOCH, self.serial)))
            self.answer()
            return self.accepted() == self.serial

        eventually(done, lambda: self.daemon.output)

    def send(self, frames: list[bytes]) -> None:
        self.changes.send_multipart(frames)

    def send_good(self) -> None:
        self.serial += 1
        self.send(marker(self.serial))

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    directory = tmp_path_factory.mktemp("p")  # short: it becomes an address
    made = Peer(Site(directory), ipc_feed(directory))
    with made.daemon:
        made.await_subscriber()
        yield made
        made.close()
        made.daemon.terminate()


def refused_as(decoder: Callable[[bytes], object], payload: bytes) -> bytes | None:
    """The entry that the quarantine must have for these bytes; None if they are valid."""
    try:
        decoder(payload)
    except DecodeError as error:
        return refused(None, "", "msgpack", error, payload).raw
    return None


def refused_change(frames: list[bytes]) -> bytes | None:
    if len(frames) != 2:
        return refused(None, "", "msgpack", DecodeError("", ""), frames[-1]).raw
    if frames[0] == encode.HEARTBEAT:
        return refused_as(decode.heartbeat, frames[1])
    return refused_as(lambda payload: decode.published(payload, 0), frames[1])


topics = st.sampled_from((b"", b"HEARTBEAT", b"DELPKG foo", b"\xff", b"HEARTBEAT2"))
payloads = st.one_of(s.any_bytes, st.sampled_from(s.nested(1000) + s.nested(3)))
changes = st.one_of(
    st.builds(lambda topic, payload: [topic, payload], topics, payloads),
    st.lists(payloads, min_size=1, max_size=4),
)


@settings(max_examples=30)
@given(st.lists(changes, max_size=25), st.lists(payloads.map(lambda one: [one]), max_size=25))
def test_any_bytes_on_both_sockets(
    peer: Peer, bad_changes: list[list[bytes]], bad_answers: list[list[bytes]]
) -> None:
    for number, frames in enumerate(bad_changes):
        peer.send(frames)
        if not number % 5:
            peer.send_good()
    # A hole: the daemon asks for what was not sent, and gets the rest of the nonsense.
    peer.serial += 1
    peer.junk += bad_answers
    peer.send_good()
    peer.await_accepted()
    kept = {(one.source, one.raw) for one in peer.quarantine()}
    for frames in bad_changes:
        raw = refused_change(frames)
        assert raw is None or (peer.feed.changes, raw) in kept, frames
    for (payload,) in bad_answers:
        raw = refused_as(lambda payload: decode.replayed(payload, 0), payload)
        assert raw is None or (peer.feed.replay, raw) in kept, payload


def test_an_invalid_message_keeps_its_place(peer: Peer) -> None:
    """It must neither look like a missing message nor get lost."""
    for _ in range(3):
        peer.serial += 1
        body = {"feed": GOOD, "epoch": EPOCH, "serial": peer.serial, "msg": "?", "data": {}}
        peer.send([b"?", msgpack.packb(body)])
        peer.send_good()
    peer.await_accepted()
    kept = [one.feed_serial for one in peer.quarantine() if one.feed == GOOD]
    assert kept == [peer.serial - 5, peer.serial - 3, peer.serial - 1]


def test_a_frame_that_is_too_large(peer: Peer) -> None:
    """The connection is cut, and ZeroMQ would not make another one."""
    for _ in range(2):
        peer.send([b"DELPKG", TOO_LARGE])
        peer.send_good()
        peer.await_accepted()
        peer.send_good()
        peer.await_accepted()


def test_a_message_that_cannot_be_replayed(site: Site, feed: Feed) -> None:
    """It is requested a few times, then given up and reported; later messages are accepted."""
    with daemon(site, feed) as victim:
        peer = Peer(site, feed, victim)
        try:
            peer.await_subscriber()
            for _ in range(3):
                peer.send_good()
            peer.await_accepted()
            peer.serial += 1
            peer.large.add(peer.serial)
            for _ in range(3):
                peer.send_good()
            peer.await_accepted()
            problems = site.gather()["problems"]
        finally:
            peer.close()
        [broken] = [one for one in problems if "broken" in one]
        assert "messages 4 to 4 are lost" in broken
        assert site.gather()["serial"] == 6
        victim.terminate()


def test_names_of_feeds_without_end(site: Site, ipc: Feed) -> None:
    """Invented names of feeds neither fill the memory nor displace the real feed."""
    with daemon(site, ipc) as victim:
        peer = Peer(site, ipc, victim)
        try:
            peer.await_subscriber()
            peer.send_good()
            peer.await_accepted()
            for number in range(2 * MAX_FEEDS):
                message = {"msg": "NEWPKG", "data": {"package": f"package-{number}"}}
                made_up = s.wire(message, feed=f"feed-{number}", epoch=1, serial=1)
                peer.send([b"NEWPKG", made_up])
            peer.send_good()
            peer.await_accepted()
            found = site.gather()
            refused = [one.reason for one in peer.quarantine()]
        finally:
            peer.close()
        assert len(found["feeds"]) == MAX_FEEDS
        assert len(refused) == MAX_FEEDS + 1
        assert {f"this address has {MAX_FEEDS} other feeds already"} == set(refused)
        victim.terminate()


class Babbler:
    """A server that speaks anything but ZeroMQ."""

    def __init__(self, address: str) -> None:
        self.server = socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))
        self.served = 0
        self.thread = threading.Thread(target=self.babble, daemon=True)
        self.thread.start()

    def babble(self) -> None:
        bytes_of = random.Random(self.served).randbytes
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            kinds = [
                bytes_of(10_000),
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                b"",
                b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL" + b"\0" * 48 + bytes_of(500),
                b"\xff" + b"\xff" * 8 + b"\x7f" + bytes_of(500),
            ]
            with connection:
                try:
                    connection.sendall(kinds[self.served % len(kinds)])
                    connection.settimeout(0.05)
                    connection.recv(1000)
                except OSError:
                    pass  # it hung up, as it should
            self.served += 1

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


def test_a_server_that_speaks_anything_but_zeromq(site: Site, tcp: Feed) -> None:
    """When the publisher is back, its messages must arrive."""
    babblers = [Babbler(tcp.changes), Babbler(tcp.replay)]
    with daemon(site, tcp) as victim:
        try:
            eventually(lambda: all(one.served for one in babblers), lambda: victim.output)
        finally:
            for one in babblers:
                one.close()
        peer = Peer(site, tcp, victim)
        try:
            peer.send_good()
            peer.await_accepted()
        finally:
            peer.close()
