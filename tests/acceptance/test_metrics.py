"""Metrics for Prometheus, and the lists of metrics and problems in docs/watching.md."""

from __future__ import annotations

import os
import re
import shlex
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer.cli import piw_indexer
from indexer.messages.entries import Accepted
from indexer.messages.types import Position
from indexer.state.state import State
from indexer.watch.alerts import KINDS
from indexer.watch.prometheus import METRICS

from .. import samples
from ..support import DEADLINE, REPOSITORY, Feed, Process, Site, case_named, eventually, free_ports

pytestmark = pytest.mark.acceptance

CASE = case_named("equal-versions")
GUIDE = (REPOSITORY / "docs" / "watching.md").read_text()

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values(exposition: str) -> Values:
    """Every sample, by name and labels; read as Prometheus reads them."""
    found: Values = {}
    for family in text_string_to_metric_families(exposition):
        assert family.documentation, family.name
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def value(found: Values, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def problem(found: Values, kind: str) -> float | None:
    return value(found, "piw_indexer_problem", id=kind, severity=KINDS[kind].severity)


def shown(site: Site, **more: Any) -> Values:
    return values(site.piw("metrics", **more).stdout)


def test_a_daemon_and_its_death(ipc: Feed, site: Site) -> None:
    with site.publisher(ipc, CASE.messages) as publisher, site.daemon(ipc) as daemon:
        site.wait_for_all(CASE.count, daemon, publisher)
        # The daemon says it once a second.
        site.wait(
            lambda found: found["well"] and found["daemon"]["accepted"] == CASE.count,
            daemon,
            publisher,
        )
        found = shown(site)
        assert value(found, "piw_indexer_up") == 1
        assert value(found, "piw_indexer_well") == 1
        assert value(found, "piw_indexer_journal_serial") == CASE.count
        assert value(found, "piw_indexer_accepted_messages_total") == CASE.count
        assert value(found, "piw_indexer_feed_lag_messages", feed="master") == 0
        assert value(found, "piw_indexer_rows", table="versions") == 12
        assert problem(found, "daemon-not-running") == 0
        assert value(found, "piw_indexer_disk_free_bytes", of="output")
        daemon.kill()
        found = shown(site)
        assert value(found, "piw_indexer_up") == 0
        assert value(found, "piw_indexer_well") == 0
        assert problem(found, "daemon-not-running") == 1
        assert value(found, "piw_indexer_feed_lag_messages", feed="master") is None


def test_what_cannot_be_read(site: Site) -> None:
    found = shown(site)
    assert value(found, "piw_indexer_state_readable") == 0
    assert value(found, "piw_indexer_up") == 0
    assert problem(found, "state-unreadable") == 1
    assert value(found, "piw_indexer_journal_serial") is None


def test_a_textfile_is_replaced_as_a_whole(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    collected = site.home / "textfile"
    collected.mkdir()
    path = collected / "piw-indexer.prom"
    for serial in (1, 2):
        assert site.piw("metrics", "--textfile", path).stdout == ""
        assert value(values(path.read_text()), "piw_indexer_journal_serial") == serial
        assert [one.name for one in collected.iterdir()] == [path.name]
        assert path.stat().st_mode & 0o777 == 0o644, "node_exporter is another user"
        site.take(samples.new_package("scipy"))
    refused = site.piw("metrics", "--textfile", site.home / "nowhere" / "x.prom", status=2)
    assert "No such file or directory" in refused.stderr
    assert "what to do: " in refused.stderr


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text: str = answer.read().decode()
        return text


def reachable(port: int) -> Callable[[], bool]:
    def reached() -> bool:
        try:
            return bool(scrape(port))
        except urllib.error.URLError:
            return False

    return reached


def test_a_port_serves_the_present_state(site: Site) -> None:
    [port] = free_ports(1)
    with Process(site.home, "metrics", *site.state, "--listen", port) as server:
        eventually(reachable(port), lambda: server.output)
        assert value(values(scrape(port)), "piw_indexer_state_readable") == 0
        site.take(samples.new_package("numpy"))
        assert value(values(scrape(port)), "piw_indexer_journal_serial") == 1, "as it is now"
        site.take(samples.new_package("scipy"))
        assert value(values(scrape(port)), "piw_indexer_journal_serial") == 2
        again = site.piw("metrics", "--listen", f"127.0.0.1:{port}", status=2)
        assert f"cannot serve the metrics at 127.0.0.1:{port}: Address already in use" in (
            again.stderr
        )
        server.terminate()


# Strangers who connect


@pytest.fixture
def served(site: Site) -> Iterator[int]:
    """A port where the metrics are served."""
    site.take(samples.new_package("numpy"))
    [port] = free_ports(1)
    with Process(site.home, "metrics", *site.state, "--listen", port) as server:
        eventually(reachable(port), lambda: server.output)
        yield port
        server.terminate()
        assert server.output == "", "a stranger's request is not an event"


def connected(port: int, said: bytes = b"") -> socket.socket:
    """A connection that has sent something and reads nothing yet."""
    found = socket.create_connection(("127.0.0.1", port), DEADLINE)
    found.sendall(said)
    return found


def read_all(connection: socket.socket) -> bytes:
    """Everything that comes until the other side ends the connection."""
    found = b""
    try:
        while got := connection.recv(65_536):
            found += got
    except ConnectionResetError:
        pass
    return found


REQUEST = b"%s %s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"],
    ids=["silent", "half a line", "half a request"],
)
def test_connection_that_says_no_more_is_ended(said: bytes, served: int) -> None:
    with connected(served, said) as slow:
        assert scrape(served)
        assert b"200 OK" not in read_all(slow)


def test_requests_that_come_slowly(served: int) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(served)) for _ in range(5)]
        for one in REQUEST % (b"GET", b"/metrics"):
            for connection in slow:
                connection.sendall(bytes([one]))
            assert scrape(served)
        for connection in slow:
            assert b"piw_indexer_up" in read_all(connection)


def threads(server: Process) -> int:
    """How many descriptors a process has."""
    return len(os.listdir(f"/proc/{server.pid}/task"))


def test_reader_that_does_not_read(site: Site) -> None:
    """The answer is larger than the kernel's buffers, so a thread waits for the reader."""
    state = State(site.state_dir, "test", lambda: samples.NOW)
    message = samples.decoded(samples.new_package("numpy"))
    feeds = [f"{number:06}" + "🥧" * 94 for number in range(2500)]  # 6 MB, all in all
    state.take([Accepted(Position(feed, 1, 1), message) for feed in feeds])
    state.close()
    [port] = free_ports(1)
    with (
        Process(site.home, "metrics", *site.state, "--listen", port) as server,
        ExitStack() as all_,
    ):
        eventually(lambda: b"200 OK" in head(port), lambda: server.output)
        eventually(lambda: threads(server) == 2)
        for _ in range(3):
            deaf = all_.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(REQUEST % (b"GET", b"/metrics"))
            assert deaf.recv(1) == b"H", "the answer has begun"
        assert scrape(port)
        eventually(lambda: threads(server) == 2, lambda: threads(server))
        server.terminate()
        assert server.output == ""


def head(port: int) -> bytes:
    try:
        with connected(port, REQUEST % (b"HEAD", b"/metrics")) as connection:
            return read_all(connection)
    except ConnectionRefusedError:
        return b""


def test_two_hundred_connections(served: int) -> None:
    """The number of connections is limited, and the server continues to answer."""
    with ExitStack() as stack:
        oldest = stack.enter_context(connected(served, b"GET /metrics?"))

        def ended() -> bool:
            try:
                oldest.sendall(b"x")  # it is never silent, and so ends for no other reason
            except OSError:
                return True
            return False

        held = [stack.enter_context(connected(served)) for _ in range(200)]
        assert scrape(served)
        eventually(ended)
        one = held[-1]
        one.sendall(REQUEST % (b"GET", b"/metrics"))
        assert b"piw_indexer_up" in read_all(one), "the newest is served"
    assert scrape(served)


def test_head_and_other_paths_and_methods(served: int) -> None:
    def answer(method: bytes, path: bytes) -> tuple[int, bytes]:
        with connected(served, REQUEST % (method, path)) as connection:
            head, _, body = read_all(connection).partition(b"\r\n\r\n")
            return int(head.split()[1]), body

    assert answer(b"HEAD", b"/metrics") == (200, b"")
    assert answer(b"HEAD", b"/x") == (404, b"")
    assert answer(b"GET", b"/metrics?x=y")[0] == 200
    for path in (b"/", b"/metricsx", b"/../etc/passwd", b"/\x1b[2J", b"*"):
        assert answer(b"GET", path)[0] == 404, path
    for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT"):
        assert answer(method, b"/metrics")[0] == 501, method
    for line in (b"/" + b"x" * 100_000, b"/ HTTP/9.9 x"):
        assert answer(b"GET", line)[0] in (400, 414), line[:20]


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:0", "1:2:x", ":70000"])
def test_addresses_that_are_none(address: str, site: Site) -> None:
    assert "127.0.0.1:9817" in site.piw("metrics", "--listen", address, status=2).stderr


def test_options_that_do_not_go_together(site: Site) -> None:
    refused = site.piw("metrics", "--listen", 9817, "--textfile", "x", status=2)
    assert "give one" in refused.stderr


def test_a_feed_with_a_strange_name(site: Site, ipc: Feed) -> None:
    name = "it's \"\\ a\u20ac name"
    with (
        Process(
            site.home, "publish", "--state-dir", site.publisher_dir, "--feed", name, *ipc.options,
            CASE.messages,
        ) as publisher,
        site.daemon(ipc) as daemon,
    ):  # fmt: skip
        site.wait_for_all(CASE.count, daemon, publisher)
        assert value(shown(site), "piw_indexer_feed_serial", feed=name) == CASE.count
        daemon.terminate()


# Names


def test_names_follow_the_conventions() -> None:
    """`promtool check metrics` checks the same."""
    assert len({one.name for one in METRICS}) == len(METRICS)
    for one in METRICS:
        assert re.fullmatch(r"piw_indexer_[a-z_]+", one.name)
        assert one.name.endswith("_total") == one.counter, one.name
        assert not re.search(r"_(count|sum|bucket)$", one.name)
        assert one.help.endswith(".")


def rows(header: str) -> list[list[str]]:
    """The rows of a table of the guide, cells without their bars."""
    lines = GUIDE[GUIDE.index(f"| {header} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_guide_lists_every_metric() -> None:
    assert rows("metric") == [
        [f"`{one.name}`", ", ".join(f"`{label}`" for label in one.labels), one.help]
        for one in METRICS
    ]


def test_the_guide_lists_every_kind_of_problem() -> None:
    assert rows("id") == [
        [f"`{kind.id}`", kind.severity, kind.means, kind.remedy] for kind in KINDS.values()
    ]


def test_remedies_and_the_guide_name_commands_that_exist() -> None:
    typed = re.findall(r"^\$ piw-indexer (.*)$", GUIDE, re.M)
    assert typed
    for line in typed:
        name, *arguments = shlex.split(line)
        piw_indexer.commands[name].make_context(name, arguments)
    told = [kind.remedy for kind in KINDS.values()]
    mentioned = re.findall(
        r"(?<!-u )(?<!start )(?<!status )piw-indexer ([a-z-]+)((?: --[a-z-]+| [A-Z]+)*)", str(told)
    )
    assert mentioned
    for name, options in mentioned:
        if name == "status" and not options:
            continue
        known = {
            spelling
            for one in piw_indexer.commands[name].params
            if isinstance(one, click.Option)
            for spelling in one.opts
        }
        assert set(re.findall(r"--[a-z-]+", options)) <= known, (name, options)
