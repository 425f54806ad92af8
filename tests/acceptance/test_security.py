"""Who may speak, through the installed commands: keys, CURVE over tcp, refusals, ipc modes."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.feed import keys as curve

from ..support import Feed, Result, Site, case_named, eventually, free_ports, piw

pytestmark = pytest.mark.acceptance

Keys = Callable[[str], str]


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """Make a pair with the command; returns what it prints."""

    def make(name: str) -> str:
        return piw("keys", name, home=tmp_path).stdout.strip()

    return make


def assert_refused(result: Result, *parts: str) -> None:
    """An error has the operation and cause on one line, and the remedy on the next."""
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("piw-indexer: cannot ")
    assert second.startswith("  what to do: ")
    for part in parts:
        assert part in result.stderr


# The command


def test_keys_makes_a_pair_and_shows_it_again(tmp_path: Path) -> None:
    made = piw("keys", "master", home=tmp_path)
    private, public = tmp_path / "master.key", tmp_path / "master.pub"
    assert made.stderr == ""
    assert curve.is_key(made.stdout.strip())
    assert public.read_text().split() == [made.stdout.strip(), "master"]
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    for name in ("master", "master.key"):
        assert piw("keys", "--show", name, home=tmp_path).stdout == made.stdout
    secret = private.read_text().split()[-1]
    assert secret not in made.stdout + public.read_text()
    assert piw("keys", "other", home=tmp_path).stdout != made.stdout


def test_keys_overwrites_nothing(tmp_path: Path) -> None:
    piw("keys", "master", home=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("master", "master.pub"):
        assert_refused(piw("keys", name, home=tmp_path, status=2), "master.key", "it exists")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_keys_where_none_can_be(tmp_path: Path) -> None:
    assert_refused(piw("keys", "no/such/master", home=tmp_path, status=2), "no/such/master.key")
    assert_refused(piw("keys", "--show", "master", home=tmp_path, status=2), "master.key")


# CURVE


def test_daemon_follows_a_publisher_whose_keys_it_knows(tcp: Feed, site: Site, keys: Keys) -> None:
    case = case_named("equal-versions")
    keys("master")
    keys("index")
    with (
        site.publisher(
            tcp, case.messages, "--curve-key", "master.key", "--allowed-keys", "index.pub"
        ) as publisher,
        site.daemon(tcp, "--curve-key", "index.key", "--curve-server-key", "master.pub") as daemon,
    ):
        site.wait_for_all(case.count, daemon, publisher)
        assert site.status()["problems"] == []
        daemon.terminate()
        publisher.terminate()
    site.write_and_compare(case)


def test_daemon_that_is_not_allowed_says_so_until_it_is(tcp: Feed, site: Site, keys: Keys) -> None:
    case = case_named("equal-versions")
    master, index = keys("master"), keys("index")
    (site.home / "subscribers").mkdir()
    piw("keys", "subscribers/other", home=site.home)
    options = ["--curve-key", "master.key", "--allowed-keys", "subscribers"]
    with site.daemon(tcp, "--curve-key", "index.key", "--curve-server-key", master) as daemon:
        with site.publisher(tcp, case.messages, *options) as publisher:
            site.wait(lambda found: bool(found["daemon"] and found["problems"]), daemon, publisher)
            status = site.status()
            eventually(lambda: index in publisher.output, lambda: publisher.output)
            assert "refused a subscriber at 127.0.0.1" in publisher.output
            assert (status["serial"], status["feeds"]) == (0, [])
            [problem] = status["problems"]
            assert f"cannot follow the publisher at {tcp.changes}: it does not allow" in problem
            assert index in problem
            assert problem in daemon.output
            # A list that is wrong is said, and changes nothing.
            wrong = site.home / "subscribers" / "wrong.pub"
            wrong.write_text("nonsense\n")
            publisher.signal(signal.SIGHUP)
            eventually(lambda: "wrong.pub is not a public key" in publisher.output)
            publisher.assert_running()
            wrong.unlink()
            (site.home / "index.pub").rename(site.home / "subscribers" / "index.pub")
            site.wait_for_all(case.count, daemon, publisher)
            site.wait(lambda found: not found["problems"], daemon, publisher)
            publisher.terminate()
        daemon.terminate()


def test_list_of_keys_is_read_when_a_signal_says_so(tcp: Feed, site: Site, keys: Keys) -> None:
    """Nobody connects, which would make the publisher read the list."""
    keys("master")
    allowed = site.home / "allowed"
    allowed.write_text((site.home / "master.pub").read_text())
    options = ["--curve-key", "master.key", "--allowed-keys", allowed]
    with site.publisher(tcp, case_named("equal-versions").messages, *options) as publisher:
        eventually(lambda: "messages sent" in publisher.output, lambda: publisher.output)
        for nonsense in ("one", "two"):
            allowed.write_text(f"nonsense {nonsense}\n" * 2)
            before = publisher.output.count("is not a public key")
            publisher.signal(signal.SIGHUP)
            eventually(lambda: publisher.output.count("is not a public key") > before)  # noqa: B023
        publisher.terminate()


def test_keys_of_several_publishers(tcp: Feed, site: Site, keys: Keys) -> None:
    one, two = case_named("equal-versions"), case_named("farm")
    changes, replay = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    other = Site(site.home / "other")
    other.home.mkdir()
    first, second = keys("first"), keys("second")
    allowed = ["--allowed-keys", site.home / "index.pub"]
    keys("index")
    with (
        site.publisher(tcp, one.messages, "--curve-key", "first.key", *allowed) as publisher,
        other.publisher(
            Feed(changes, replay),
            two.messages,
            *("--feed", "other", "--curve-key", site.home / "second.key", *allowed),
        ) as another,
        site.daemon(
            [tcp, Feed(changes, replay)],
            *("--curve-key", "index.key"),
            *("--curve-server-key", first, "--curve-server-key", second),
        ) as daemon,
    ):
        site.wait_for_all(one.count + two.count, daemon, publisher, another)
        daemon.terminate()


# Refusals


@pytest.mark.parametrize("command", ["run", "publish"])
@pytest.mark.parametrize(
    ("queue", "address"),
    [("--changes-queue", "tcp://0.0.0.0:5560"), ("--replay-queue", "tcp://192.0.2.1:5560")],
)
def test_tcp_beyond_this_machine(command: str, queue: str, address: str, site: Site) -> None:
    other = {"--changes-queue", "--replay-queue"}.difference([queue]).pop()
    options = [queue, address, other, "ipc:///run/piw-indexer/other"]
    result = piw(command, *options, *site.state, home=site.home, status=2)
    assert_refused(result, address, "without CURVE", "--curve-key", "--allow-insecure-tcp")
    assert not site.state_dir.exists(), "it is refused before anything is opened"


def test_tcp_beyond_this_machine_in_so_many_words(site: Site) -> None:
    case = case_named("equal-versions")
    changes, replay = free_ports(2)
    here = Feed(f"tcp://0.0.0.0:{changes}", f"tcp://*:{replay}")
    there = Feed(f"tcp://127.0.0.1:{changes}", f"tcp://127.0.0.1:{replay}")
    with (
        site.publisher(here, case.messages, "--allow-insecure-tcp") as publisher,
        site.daemon(there) as daemon,
    ):
        site.wait_for_all(case.count, daemon, publisher)
        daemon.terminate()
        publisher.terminate()


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("run", ["--curve-key", "a.key"], "--curve-server-key"),
        ("run", ["--curve-server-key", "b.pub"], "--curve-key"),
        ("run", ["--curve-key", "a.pub", "--curve-server-key", "b.pub"], "a.pub"),
        ("run", ["--curve-key", "missing.key", "--curve-server-key", "b.pub"], "missing.key"),
        ("run", ["--curve-key", "a.key", "--curve-server-key", "missing.pub"], "missing.pub"),
        ("run", ["--curve-key", "a.key", "--curve-server-key", "b.key"], "b.key"),
        ("run", ["--curve-key", "a.key", *["--curve-server-key", "b.pub"] * 2], "one for each"),
        ("run", ["--curve-key", "loose.key", "--curve-server-key", "b.pub"], "chmod 600 loose.key"),
        ("publish", ["--curve-key", "a.key"], "--allowed-keys"),
        ("publish", ["--allowed-keys", "b.pub"], "--curve-key"),
        ("publish", ["--curve-key", "a.key", "--allowed-keys", "missing"], "missing"),
        ("publish", ["--curve-key", "a.key", "--allowed-keys", "a.key"], "private one"),
        ("publish", ["--curve-key", "a.key", "--allowed-keys", "empty"], "no key in it"),
        ("publish", ["--curve-key", "loose.key", "--allowed-keys", "b.pub"], "chmod 600 loose.key"),
        ("publish", ["--ipc-group", "no-such-group"], "no-such-group"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_protection_that_is_not_complete(
    command: str, options: list[str], says: str, site: Site, tcp: Feed
) -> None:
    for name in ("a", "b", "loose"):
        curve.write(site.home / name, curve.make())
    (site.home / "loose.key").chmod(0o640)
    (site.home / "empty").touch()
    result = piw(command, *tcp.options, *site.state, *options, home=site.home, status=2)
    assert_refused(result, says)
    for private in site.home.glob("*.key"):
        assert private.read_text().split()[-1] not in result.stderr
    assert not site.state_dir.exists()


@pytest.mark.parametrize("mode", ["0400", "8", "1660"])
def test_modes_that_are_none(mode: str, site: Site) -> None:
    result = piw("publish", "--ipc-mode", mode, *site.state, home=site.home, status=2)
    assert "--ipc-mode" in result.stderr
    assert not site.state_dir.exists()


# ipc


@pytest.mark.parametrize(("options", "mode"), [([], 0o660), (["--ipc-mode", "0600"], 0o600)])
def test_mode_of_ipc_sockets(
    options: list[str], mode: int, ipc: Feed, site: Site, sockets: Path
) -> None:
    case = case_named("equal-versions")
    with (
        site.publisher(ipc, case.messages, *options, "--ipc-group", os.getegid()) as publisher,
        site.daemon(ipc) as daemon,
    ):
        site.wait_for_all(case.count, daemon, publisher)
        for path in (sockets / "changes", sockets / "replay"):
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert path.stat().st_gid == os.getegid()
        daemon.terminate()
        publisher.terminate()


def test_protection_from_a_file(tcp: Feed, site: Site, keys: Keys) -> None:
    case = case_named("equal-versions")
    keys("master")
    keys("index")
    file = site.home / "piwheels.conf"
    file.write_text(
        "[indexer]\n"
        f"changes-queue = {tcp.changes}\n"
        f"replay-queue = {tcp.replay}\n"
        "curve-key = master.key\n"
        "allowed-keys = index.pub\n"
        "curve-server-key = master.pub\n"
        "ipc-mode = 600\n"
        "allow-insecure-tcp = false\n"
    )
    settings = {"PIW_INDEXER_CURVE_KEY": "index.key"}
    with (
        site.publisher(tcp, case.messages, "-c", file) as publisher,
        site.daemon(tcp, "-c", file, settings=settings) as daemon,
    ):
        site.wait_for_all(case.count, daemon, publisher)
        daemon.terminate()
        publisher.terminate()
