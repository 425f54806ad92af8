"""The change feed through the installed commands: restarts, late subscribers, strangers."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import pytest
import zmq

from indexer.feed.sockets import MAX_MESSAGE
from indexer.journal.reader import JournalReader

from .. import samples
from ..support import REFUSED, Feed, Process, Site, case_named, eventually

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    ("name", "feed"), [("random-1", "ipc"), ("downloads", "tcp")], indirect=["feed"]
)
def test_subscriber_starts_when_everything_was_sent(name: str, feed: Feed, site: Site) -> None:
    case = case_named(name)
    with site.publisher(feed, case.messages) as publisher:
        eventually(lambda: "messages sent" in publisher.output, lambda: publisher.output)
        with site.daemon(feed) as daemon:
            site.wait_for_all(case.count, daemon, publisher)
            daemon.terminate()
        publisher.terminate()
    site.write_and_compare(case)


@pytest.mark.slow
def test_file_sent_in_part_goes_on_where_it_stopped(ipc: Feed, site: Site) -> None:
    case = case_named("random-2")
    rate = case.count / 1000  # it would take a quarter of an hour
    with site.daemon(ipc) as daemon:
        with site.publisher(ipc, case.messages, "--rate", rate) as publisher:
            site.wait(lambda found: found["serial"] > 0, daemon, publisher)
            publisher.kill()
        spool = JournalReader(site.publisher_dir / "spool")
        sent = spool.last_serial()
        spool.close()
        with site.publisher(ipc, case.messages, "--rate", rate) as publisher:
            site.wait(lambda found: found["serial"] > sent, daemon, publisher)
            publisher.terminate()
        assert "messages sent" not in publisher.output
        with site.publisher(ipc, case.messages) as publisher:
            site.wait_for_all(case.count, daemon, publisher)
            publisher.terminate()
        # It was sent whole: once more sends nothing.
        with site.publisher(ipc, case.messages, "--exit") as publisher:
            assert publisher.wait() == 0
            assert f"{case.messages}: 0 messages sent" in publisher.output
        daemon.terminate()
    status = site.status()
    assert status["serial"] == case.count
    [feed] = status["feeds"]
    assert (feed["feed"], feed["serial"], feed["broken"]) == ("master", case.count, None)
    site.write_and_compare(case)


def test_publisher_that_leaves_serves_later(ipc: Feed, site: Site) -> None:
    case = case_named("basic")
    with site.publisher(ipc, case.messages, "--exit") as publisher:
        assert publisher.wait() == 0
        assert "nobody was listening" in publisher.output
    with site.publisher(ipc) as publisher, site.daemon(ipc) as daemon:
        site.wait_for_all(case.count, daemon, publisher)
        publisher.signal(signal.SIGINT)
        assert publisher.wait() == 0
        daemon.signal(signal.SIGINT)
        assert daemon.wait() == 0
    site.write_and_compare(case)


def test_daemon_follows_two_publishers(ipc: Feed, tcp: Feed, site: Site) -> None:
    one, two = case_named("equal-versions"), case_named("farm")
    other = Site(site.home / "other")
    other.home.mkdir()
    with (
        site.daemon([ipc, tcp]) as daemon,
        site.publisher(ipc, one.messages) as publisher,
        other.publisher(tcp, two.messages, "--feed", "other") as another,
    ):
        site.wait_for_all(one.count + two.count, daemon, publisher, another)
        # The daemon says it once a second.
        site.wait(lambda found: [feed["lag"] for feed in found["feeds"]] == [0, 0], daemon)
        status = site.status()
        daemon.terminate()
    feeds = {feed["feed"]: feed for feed in status["feeds"]}
    assert {name: feed["serial"] for name, feed in feeds.items()} == {
        "master": one.count,
        "other": two.count,
    }
    assert all(feed["broken"] is None for feed in feeds.values())
    assert status["problems"] == []


def test_publisher_with_a_new_spool_is_reported(ipc: Feed, site: Site) -> None:
    first, second = case_named("equal-versions"), case_named("farm")
    with site.daemon(ipc) as daemon:
        with site.publisher(ipc, first.messages) as publisher:
            site.wait_for_all(first.count, daemon, publisher)
            publisher.terminate()
        shutil.rmtree(site.publisher_dir)
        with site.publisher(ipc, second.messages) as publisher:
            site.wait_for_all(first.count + second.count, daemon, publisher)
            publisher.terminate()
        daemon.terminate()
    status = site.status()
    [feed] = status["feeds"]
    assert feed["serial"] == second.count
    assert "new spool" in feed["broken"]
    assert any("master is broken" in problem for problem in status["problems"])
    assert "broken" in site.piw("status").stdout


WAITING = ["--settle", 600, "--max-delay", 600, "--counters-interval", 600]
"""Options of a daemon that publishes nothing but packages.json, once, before it stops."""


def wait_for_writer(site: Site, daemon: Process) -> None:
    """Wait until the writer process runs: at its start it publishes at once."""
    packages = site.output_path / "packages.json"
    eventually(packages.exists, lambda: daemon.output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_stops_well_when_its_whole_group_is_told_to(
    number: signal.Signals, ipc: Feed, site: Site
) -> None:
    """As systemd and Ctrl-C do: the writer process gets the signal, too."""
    case = case_named("lifecycle")
    with site.daemon(ipc, *WAITING) as daemon:
        wait_for_writer(site, daemon)
        with site.publisher(ipc, case.messages) as publisher:
            site.wait(lambda found: found["applied_serial"] == case.count, daemon, publisher)
            assert site.status()["pending"] > 0
            daemon.signal_group(number)
            assert daemon.wait() == 0, daemon.output
    assert site.status()["pending"] == 0
    site.write_and_compare(case)


def test_daemon_publishes_what_is_pending_before_it_stops(ipc: Feed, site: Site) -> None:
    case = case_named("random-1")
    with site.daemon(ipc, *WAITING) as daemon:
        wait_for_writer(site, daemon)
        with site.publisher(ipc, case.messages) as publisher:
            site.wait(lambda found: found["applied_serial"] == case.count, daemon, publisher)
            assert site.status()["pending"] > 0
            daemon.terminate()
    status = site.status()
    assert (status["pending"], status["held_by"], status["daemon"]) == (0, "", None)
    site.write_and_compare(case)


def test_daemon_keeps_packages_json_current(ipc: Feed, site: Site) -> None:
    spooled = site.home / "messages.jsonl"
    filename = "numpy-2.0-py3-none-any.whl"
    old = "2001-01-01T00:00:00Z"
    spooled.write_bytes(
        samples.line(samples.new_package("numpy"))
        + samples.line(samples.log_download(filename, old))
        + samples.line(samples.log_download(filename, "2199-01-01T00:00:00Z"))
    )
    packages = site.output_path / "packages.json"
    with (
        site.daemon(ipc, "--counters-interval", 0) as daemon,
        site.publisher(ipc, spooled) as publisher,
    ):
        eventually(
            lambda: packages.exists() and packages.read_bytes() == b'[["numpy",1,2]]',
            lambda: daemon.output,
        )
        daemon.terminate()
        publisher.terminate()


@contextmanager
def stranger(feed: Feed) -> Iterator[zmq.Socket[bytes]]:
    """A PUB socket at the address of the publisher."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.bind(feed.changes)
        assert socket.poll(60_000)  # a subscriber
        socket.recv()
        yield socket
        socket.linger = 1000


POSITION = msgpack.packb({"feed": "evil", "epoch": 1, "serial": 1})
DEEP = (
    b"\x85"  # a map of five; the first three are the position
    + POSITION[1:]
    + msgpack.packb("msg")
    + msgpack.packb("NEWPKG")
    + msgpack.packb("data")
    + b"\x81"
    + msgpack.packb("package")
    + b"\x91" * 1000
    + b"\xc0"
)

GARBAGE = {
    "nothing": [b""],
    "one frame": [b"NEWPKG numpy"],
    "three frames": [b"NEWPKG numpy", b"\x80", b"\x90"],
    "an empty map": [b"NEWPKG numpy", b"\x80"],
    "no msgpack": [b"NEWPKG numpy", b"\xc1\xff\x00"],
    "half a message": [b"NEWPKG numpy", b"\x86\xa4feed"],
    "a heartbeat of nothing": [b"HEARTBEAT", b"\xc0"],
    "nested 1,000 times": [b"NEWPKG x", b"\x91" * 1000 + b"\xc0"],
    "data that is nested 1,000 times": [b"NEWPKG x", DEEP],
}


# What comes again with the same payload and from the same address is counted, not kept twice.
DIFFERENT = len({frames[-1] for frames in GARBAGE.values()})


def test_daemon_survives_whatever_a_stranger_sends(tcp: Feed, site: Site) -> None:
    with site.daemon(tcp) as daemon:
        with stranger(tcp) as socket:
            for frames in GARBAGE.values():
                socket.send_multipart(frames)
            site.wait(lambda found: found["quarantined"] == DIFFERENT, daemon)
        # The publisher that was meant comes, and all goes on.
        case = case_named("equal-versions")
        with site.publisher(tcp, case.messages) as publisher:
            site.wait_for_all(case.count, daemon, publisher)
        daemon.terminate()
    assert site.status()["problems"]
    assert f"{DIFFERENT} messages are in the quarantine" in str(site.status()["problems"])
    site.write_and_compare(case)


def test_refused_messages_of_a_publisher_keep_their_place(tcp: Feed, site: Site) -> None:
    """A newer publisher may send messages that this version refuses."""
    good = samples.new_package("numpy")
    bad = samples.new_package("NumPy")
    with site.daemon(tcp) as daemon:
        with stranger(tcp) as socket:
            for serial, envelope in enumerate([good, bad, samples.new_package("scipy")], 1):
                payload = {"feed": "master", "epoch": 5, "serial": serial, **envelope, "at": None}
                socket.send_multipart([b"NEWPKG", msgpack.packb(payload)])
            site.wait(lambda found: found["applied_serial"] == 2, daemon)
        daemon.terminate()
    status = site.status()
    [feed] = status["feeds"]
    assert (feed["serial"], feed["broken"], status["quarantined"]) == (3, None, 1)
    shown = site.piw("quarantine", 1).stdout
    assert "data.package" in shown
    assert "canonical" in shown
    assert sorted(path.name for path in (site.output_path / "project").iterdir()) == [
        "numpy",
        "scipy",
    ]


def test_publisher_does_not_send_what_is_no_message(ipc: Feed, site: Site) -> None:
    with site.publisher(ipc, REFUSED.messages, "--exit") as publisher:
        assert publisher.wait() == 0
        assert "0 messages sent" in publisher.output
        assert f"{REFUSED.count} lines" in publisher.output
    listed = site.piw(
        "quarantine", "--state-dir", site.publisher_dir, "--spool", "--json"
    ).stdout.splitlines()
    assert len(listed) == REFUSED.count
    # The state of a bridge or a publisher has no journal, and once had no status for that reason.
    state = ("--state-dir", site.publisher_dir)
    status = json.loads(site.piw("status", "--json", *state).stdout)
    assert (status["spool"]["serial"], status["spool"]["quarantined"]) == (0, REFUSED.count)
    alerts = {alert["id"]: alert for alert in status["alerts"]}
    assert "--spool" in alerts["quarantine"]["remedy"]
    assert "bridge" in alerts["daemon-not-running"]["what"]
    screen = site.piw("status", *state).stdout
    assert f"0 messages published, {REFUSED.count} refused; held by nobody" in screen
    assert "quarantine --spool" in screen
    assert site.piw("status", "--monitor", *state, status=2).stdout.startswith("PIW-INDEXER")


def test_publisher_does_not_send_what_no_frame_may_hold(ipc: Feed, site: Site) -> None:
    """Fields that are never sent may have any length."""
    at = "2026-11-20T12:00:00+00:00"
    envelopes = [
        {"msg": "NEWPKG", "at": at, "data": {"package": "a", "output": "x" * MAX_MESSAGE}},
        {"msg": "NEWPKG", "at": at, "data": {"package": "b", "description": "x" * MAX_MESSAGE}},
        {"msg": "NEWPKG", "at": at, "data": {"package": "c"}},
    ]
    file = site.home / "large.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in envelopes))
    with site.publisher(ipc, file) as publisher, site.daemon(ipc) as daemon:
        site.wait_for_all(2, daemon, publisher)
        assert "1 line of" in publisher.output
        assert not site.status()["problems"]
        daemon.terminate()
        publisher.terminate()
    published = site.output_path / "project"
    assert sorted(path.name for path in published.iterdir()) == ["a", "c"]


def test_daemon_killed_after_the_last_message_publishes_on_its_next_start(
    ipc: Feed, site: Site
) -> None:
    case = case_named("churn-1")
    with site.daemon(ipc, *WAITING) as daemon:
        wait_for_writer(site, daemon)
        with site.publisher(ipc, case.messages) as publisher:
            site.wait(lambda found: found["applied_serial"] == case.count, daemon, publisher)
            assert site.status()["pending"] > 0
            daemon.kill()
    with site.daemon(ipc, *WAITING) as daemon:
        site.wait_for_all(case.count, daemon)
        daemon.terminate()
    site.write_and_compare(case)
