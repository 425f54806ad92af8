"""Nobody gains anything by being first: addresses, other users, names of feeds."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import pytest
import zmq

from ..strangers import STRANGER, as_root, taken
from ..support import Feed, Site, case_named, eventually, ipc_feed
from .test_bridge import Master, ready

pytestmark = pytest.mark.acceptance

HOST = "203.0.113.77"
WHEN = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def everybodys(sockets: Path) -> Path:
    """A directory like /tmp."""
    sockets.chmod(0o1777)
    return sockets


def alerts(found: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["what"] for one in found["alerts"]}


# Addresses


def test_nothing_to_follow_and_nowhere_to_publish(site: Site) -> None:
    refused = site.piw("run", *site.output, status=2)
    assert "there is nothing to follow" in refused.stderr
    for option in ("--changes-queue", "--replay-queue", "--status-queue", "--db-queue"):
        assert option in refused.stderr
    for command in ("publish", "bridge"):
        refused = site.piw(command, status=2)
        assert "one --changes-queue and one --replay-queue, but 0 and 0 are given" in refused.stderr
        assert "--changes-queue ipc:///run/piw-indexer/changes" in refused.stderr
    assert not site.state_dir.exists()


def test_addresses_that_do_not_go_together(site: Site, ipc: Feed) -> None:
    link = site.home / "link"
    link.symlink_to(Path(ipc.changes.removeprefix("ipc://")).parent)
    pairs = [
        (ipc.changes, ipc.changes),
        (ipc.changes, ipc.changes.replace("/changes", "//./changes")),
        (ipc.changes, f"ipc://{link}/changes"),
        ("tcp://localhost:5560", "tcp://127.0.0.1:5560"),
        ("tcp://LOCALHOST:5560", "tcp://[::1]:05560"),
        ("tcp://[::1]:5560", "tcp://[0::1]:5560"),
        ("tcp://127.0.0.1:5560", "tcp://[::ffff:127.0.0.1]:5560"),
    ]
    for command in ("run", "publish", "bridge"):
        for changes, replay in pairs:
            same = ["--changes-queue", changes, "--replay-queue", replay]
            refused = site.piw(command, *same, status=2).stderr
            assert "is given twice" in refused or "are the same, for --changes-queue" in refused
    for option in ("--status-queue", "--control-queue", "--db-queue", "--log-queue"):
        same = ["--status-queue", f"{ipc.replay}-2", option, ipc.replay]
        assert "is given twice" in site.piw("run", *ipc.options, *same, status=2).stderr
    logs = ["--log-queue", "tcp://127.0.0.1:5560", "--log-forward", "tcp://localhost:5560"]
    refused = site.piw("run", *logs, status=2).stderr
    assert "are the same, for --log-queue and --log-forward" in refused
    other = ["--changes-queue", ipc.changes, "--replay-queue", f"{ipc.replay}-2"]
    assert "is given twice" in site.piw("run", *ipc.options, *other, status=2).stderr
    more = ["--replay-queue", f"{ipc.replay}-2"]
    assert "1 --changes-queue, but 2" in site.piw("run", *ipc.options, *more, status=2).stderr


def test_only_what_is_configured_is_followed(site: Site, sockets: Path) -> None:
    options = [*site.output, "--status-queue", f"ipc://{sockets}/status"]
    with site.daemon([], "--status-queue", f"ipc://{sockets}/status") as daemon:
        site.wait(lambda found: found["daemon"] is not None, daemon)
        found = site.gather()
        daemon.terminate()
    assert found["daemon"]["queues"] == []
    assert "feed-never-heard" not in alerts(found)
    site.piw("run", *options, "--validate")


def test_queues_of_a_master_over_tcp_need_a_word(site: Site) -> None:
    for option in ("--db-queue", "--status-queue"):
        refused = site.piw("run", *site.output, option, "tcp://192.0.2.1:5560", status=2)
        assert "--allow-insecure-tcp" in refused.stderr
    refused = site.piw("backfill", "--db-queue", "tcp://192.0.2.1:5560", status=2)
    assert "--allow-insecure-tcp" in refused.stderr


# What is at an address


def test_file_in_the_place_of_our_socket_is_left_alone(
    site: Site, sockets: Path, ipc: Feed
) -> None:
    precious = sockets / "important.conf"
    precious.write_text("precious")
    log_queue = ["--log-queue", f"ipc://{precious}"]
    for more in (["--validate"], []):
        refused = site.piw("run", *site.output, *log_queue, *more, status=2)
        assert "a regular file is there, not a socket" in refused.stderr
    for name, feed in (("c", Feed(f"ipc://{precious}", ipc.replay)), ("r", ipc)):
        addresses = feed if name == "c" else Feed(ipc.changes, f"ipc://{precious}")
        refused = site.piw("publish", *addresses.options, status=2)
        assert "a regular file is there, not a socket" in refused.stderr
    assert precious.read_text() == "precious"


@as_root
def test_feed_of_a_stranger(site: Site, everybodys: Path) -> None:
    feed = ipc_feed(everybodys)
    with taken(feed.changes, feed.replay) as heard, site.daemon(feed) as daemon:
        site.wait(lambda found: "peer-not-believed" in alerts(found), daemon)
        found = site.gather()
        assert f"user {STRANGER}" in alerts(found)["peer-not-believed"]
        assert not found["well"]
        assert (found["serial"], found["feeds"], found["quarantined"]) == (0, [], 0)
        assert heard.read_bytes() == b"", "nothing was asked of it"
        daemon.terminate()
    with taken(feed.changes, feed.replay), site.daemon(feed, "--ipc-peer", STRANGER) as daemon:
        site.wait_for_all(1, daemon)
        assert "peer-not-believed" not in alerts(site.gather())
        daemon.terminate()
    unknown = site.piw("run", *site.output, *feed.options, "--ipc-peer", "nobody-at-all", status=2)
    assert "there is no such user" in unknown.stderr


@as_root
def test_log_entries_go_to_no_stranger(site: Site, everybodys: Path) -> None:
    """Log entries contain the addresses of downloaders."""
    ours, theirs = f"ipc://{everybodys}/logger", f"ipc://{everybodys}/master-logger"
    entry = cbor2.dumps(["LOGDOWNLOAD", ["numpy-1.0-py3-none-any.whl", HOST, WHEN, *[None] * 10]])
    context: zmq.Context[Any] = zmq.Context()
    options = ["--log-queue", ours, "--log-forward", theirs]
    with site.daemon([], *options) as daemon:
        with taken("", pull=theirs) as heard:
            site.wait(lambda found: "peer-not-believed" in alerts(found), daemon)
            logger = context.socket(zmq.PUSH)
            logger.connect(ours)
            logger.send(entry)
            site.wait_for_all(1, daemon)
            assert heard.read_bytes() == b""
        master = context.socket(zmq.PULL)
        master.bind(theirs)
        eventually(lambda: bool(master.poll(100)), lambda: daemon.output)
        assert master.recv() == entry
        site.wait(lambda found: "peer-not-believed" not in alerts(found), daemon)
        daemon.terminate()
    context.destroy(linger=0)


@as_root
def test_database_queue_of_a_stranger(site: Site, everybodys: Path) -> None:
    address = f"ipc://{everybodys}/db"
    site.take({"msg": "NEWPKG", "data": {"package": "numpy"}})
    with taken("", replay="", pull=address):
        for command in ("backfill", "reconcile"):
            refused = site.piw(command, "--db-queue", address, status=4)
            assert f"user {STRANGER}" in refused.stderr
            assert "--ipc-peer" in refused.stderr


# The bridge


def test_master_runs_while_somebody_has_the_address_of_its_feed(
    site: Site, ipc: Feed, sockets: Path
) -> None:
    master = Master(site.home, ipc)
    master.run_alone()
    requests = master.requests(["NEWPKG", ["numpy", "", ""]], ["NEWPKG", ["scipy", "", ""]])
    path = sockets / "changes"
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(path))
        first.listen()
        with master.start(requests) as process:
            ready(process)
            eventually(
                lambda: "another process listens there" in process.output, lambda: process.output
            )
            assert f"cannot bind {ipc.changes}" in process.output
            eventually(lambda: _spooled(master) == 3, lambda: process.output)
            process.assert_running()
            first.close()
            eventually(lambda: "the feed is served again" in process.output, lambda: process.output)
            with site.daemon(ipc) as daemon:
                site.wait_for_all(3, daemon, process)  # the build ABIs, too
                daemon.terminate()
            process.terminate()
    assert not os.path.lexists(path)


def _spooled(master: Master) -> int:
    reader = master.spool()
    try:
        return reader.last_serial()
    finally:
        reader.close()


# Names


def test_two_publishers_of_one_name(site: Site, sockets: Path) -> None:
    feeds = [ipc_feed(sockets, "-a"), ipc_feed(sockets, "-b")]
    case, other_case = case_named("farm"), case_named("equal-versions")
    other = Site(site.home / "other")
    other.home.mkdir()
    with site.publisher(feeds[0], case.messages) as publisher:
        with site.daemon(feeds[:1]) as daemon:
            site.wait_for_all(case.count, daemon, publisher)
            daemon.terminate()
        with other.publisher(feeds[1], other_case.messages) as second, site.daemon(feeds) as daemon:
            site.wait(lambda found: "feed-name-taken" in alerts(found), daemon, publisher, second)
            found = site.gather()
            assert feeds[0].changes in alerts(found)["feed-name-taken"]
            assert found["serial"] == case.count
            [feed] = found["feeds"]
            assert (feed["serial"], feed["broken"]) == (case.count, None)
            daemon.terminate()
            # It has moved: its old address is not followed any more.
            with site.daemon(feeds[1:]) as daemon:
                site.wait_for_all(case.count + other_case.count, daemon, second)
                assert "feed-name-taken" not in alerts(site.gather())
                assert f"belongs to {feeds[1].changes} from now on" in daemon.output
                daemon.terminate()
            second.terminate()
        publisher.terminate()
