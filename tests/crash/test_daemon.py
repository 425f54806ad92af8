"""The daemon and its publisher, killed again and again, end where undisturbed ones do."""

from __future__ import annotations

import signal

import pytest

from .. import tally
from ..support import Feed, Site, eventually
from .harness import (
    AS_OF,
    DAEMON_SEAMS,
    PUBLISHER_SEAMS,
    Chance,
    Stream,
    Victim,
    Watcher,
    daemon,
    journaled,
    publisher,
    session,
    spooled,
)

pytestmark = pytest.mark.crash

LIFE = 1.0
"""Seconds that a daemon lives at most."""


def test_killed_again_and_again(stream: Stream, site: Site, ipc: Feed) -> None:
    rounds = tally.amount(5, 150)
    rate = ["--rate", stream.count / (rounds * LIFE * 0.8)]
    chance = Chance("daemon")
    site.output_path.mkdir()
    with Watcher(site.output_path) as watcher:
        source = publisher(site, ipc, stream.file, *rate)
        durable = 0
        for _ in range(rounds):
            settings = chance.settings(DAEMON_SEAMS)
            with daemon(site, ipc, settings) as victim:
                chance.kill(victim, settings, LIFE)
            before, durable = durable, journaled(site)
            assert before <= durable <= spooled(site)
            if source.ended() is not None or chance.random.random() < 0.25:
                with source:
                    status = source.ended()
                    if status is None:
                        source.kill()
                    if status in (None, -signal.SIGKILL):
                        tally.add("kills", "publisher")
                    chance.note("publisher")
                settings = chance.settings(PUBLISHER_SEAMS)
                source = publisher(site, ipc, stream.file, *rate, settings=settings)
        with source:
            if source.ended() is None:
                source.kill()
        with publisher(site, ipc, stream.file) as last, daemon(site, ipc) as survivor:
            site.wait_for_all(stream.count, survivor, last)
            survivor.terminate()
            last.terminate()
    print(f"{chance.kills}, {durable} of {stream.count} durable then, {watcher.read} reads")
    found = site.status()
    assert not found["problems"]
    assert found["quarantined"] == 0
    assert [(feed["feed"], feed["serial"]) for feed in found["feeds"]] == [("master", stream.count)]
    site.piw("write", "--as-of", AS_OF)
    stream.check(site, spool=True)
    assert "No differences" in site.piw("check").stdout


def ends_with_all(victim: Victim) -> bool:
    return not session(victim.pid)


def test_nothing_outlives_a_killed_daemon(stream: Stream, site: Site, ipc: Feed) -> None:
    """A writer that continued would write at the same time as the next daemon's writer."""
    with publisher(site, ipc, stream.file), daemon(site, ipc) as victim:
        eventually(lambda: journaled(site) > 0 and len(session(victim.pid)) > 1)
        victim.kill_alone()
        eventually(lambda: ends_with_all(victim), lambda: session(victim.pid))
