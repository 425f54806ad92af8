"""Metrics for Prometheus, and docs/watching.md, which lists them and every kind of problem."""

from __future__ import annotations

import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer.cli import piw_indexer
from indexer.metrics import METRICS
from indexer.problems import KINDS

from .. import samples
from ..support import REPOSITORY, Feed, Process, Site, case_named, eventually, free_ports

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


def test_a_textfile(site: Site) -> None:
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


def test_a_port(site: Site) -> None:
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
    """What `promtool check metrics` looks for, too."""
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
