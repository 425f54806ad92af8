"""What `status` can report: every kind of problem, its severity, and what monitoring gets."""

from __future__ import annotations

import re
from typing import Any

import pytest

from indexer.base import times
from indexer.base.ages import Ages
from indexer.base.errors import NewerDatabaseError, StateError
from indexer.base.sqlite_bug import has_wal_reset_bug
from indexer.daemon.status_file import Live, LiveFeed, LiveLog, LiveProblem
from indexer.screens import status as status_screen
from indexer.watch import alerts as problems
from indexer.watch import nagios
from indexer.watch.alerts import KINDS, alert
from indexer.watch.illness import Illness
from indexer.watch.notes import Backup, BackupFailure, Check, Daemon, Sources
from indexer.watch.status import FeedStatus, Status, alerts_of, unreadable

from .test_farm_screen import printed

pytestmark = pytest.mark.unit

NOW = times.parse_rfc3339("2026-11-26T12:00:00Z")
GIB = 2**30


def feed(**more: Any) -> FeedStatus:
    return FeedStatus("master", 1, 10, None, 10, 0, 0.0, False, 0.5)._replace(**more)


def live_feed(changes_queue: str) -> LiveFeed:
    return LiveFeed("master", 1, 10, 10, 0, 0.0, NOW, False, changes_queue, "ipc:///b")


def daemon(age_seconds: float = 0.5, **more: Any) -> Daemon:
    live = Live(
        pid=7, at=NOW, started=NOW - times.HOUR, serial=10, applied_serial=10, pending=0,
        oldest_pending_serial=None, oldest_pending_seconds=None, accepted=10, rate=1.0, trouble="",
        troubles=[], written=3, recently_published=[], last_published=NOW, counters_published=None,
        feeds=[live_feed("ipc:///a")], queues=[("ipc:///a", "ipc:///b")], output_path="/www",
    )  # fmt: skip
    return Daemon(live._replace(**more), Sources(), age_seconds)


def found(**more: Any) -> Status:
    """What `gather` returns for a state without problems."""
    return Status(
        version="1", at=NOW, well=False, alerts=[], problems=[], state_dir="/state",
        held_by="piw-indexer run (pid 7)", serial=10, applied_serial=10, to_apply=0, to_accept=0,
        lag=0, lag_seconds=0.0, pending=0, oldest_pending_serial=None, oldest_pending_seconds=None,
        quarantined=0, quarantined_let_go=0, feeds=[feed()], files_ingested=0, counts={},
        not_a_wheel=0, journal_bytes=4096, journal_months=[], journal_bytes_a_month=None,
        sqlite_version="3.51.3", sqlite_wal_reset_bug=False, last_check=None, last_backup=None,
        daemon=daemon(), farm=None, disk_free_bytes=9 * GIB, disk_bytes=10 * GIB,
        output_path="/www", output_disk_free_bytes=9 * GIB, output_disk_bytes=10 * GIB,
    )._replace(**more)  # fmt: skip


def judged(**more: Any) -> Status:
    """The same with its alerts."""
    status = found(**more)
    return status._replace(alerts=alerts_of(status, {}))


def trouble(kind: str) -> dict[str, Any]:
    problem = StateError("do it", "because", "the very thing").problem
    return {"daemon": daemon(troubles=[LiveProblem(kind, str(problem), *problem)])}


HELD = LiveLog("index.db", 593 * 2**20, 120.0, 5.0 * 2**20)
ILL = Illness(3, "pi3", "cp311", "failures", 50, 38, 22.5, "disk-full", NOW - times.HOUR, NOW)

CASES = [
    ("daemon-not-running", {"daemon": None, "held_by": ""}),
    ("daemon-not-running", {"daemon": None, "held_by": "piw-indexer ingest (pid 3)"}),
    ("daemon-starting", {"daemon": None, "to_apply": 7}),
    ("daemon-silent", {"daemon": daemon(age_seconds=11.0)}),
    ("clock-jump", {"daemon": daemon(age_seconds=-3600.0)}),
    ("disk-full", {"disk_free_bytes": 100_000}),
    ("state-disk-low", {"disk_free_bytes": GIB - 1}),
    ("state-disk-low", {"disk_free_bytes": 5 * GIB, "journal_bytes_a_month": 3 * GIB}),
    ("output-disk-low", {"output_disk_free_bytes": GIB - 1}),
    ("feed-broken", {"feeds": [feed(broken="a new spool")]}),
    ("feed-silent", {"feeds": [feed(silent_seconds=11.0)]}),
    ("feed-behind", {"feeds": [feed(lag=5, lag_seconds=61.0)]}),
    ("feed-filling", {"feeds": [feed(lag=5, lag_seconds=11.0, filling=True)]}),
    ("feed-never-heard", {"daemon": daemon(feeds=[])}),
    ("writer-stuck", {"pending": 1, "oldest_pending_seconds": 301.0}),
    ("quarantine", {"quarantined": 2}),
    ("check-differences", {"last_check": Check(NOW, True, 10, 3)}),
    ("backup-old", {"last_backup": Backup(NOW - 9 * 24 * times.HOUR, "/b", 3)}),
    ("backup-failed", {"backup_failure": BackupFailure(NOW, "/b", "cannot copy", "look")}),
    ("slave-ill", {"ill_slaves": [ILL]}),
    ("log-held", {"daemon": daemon(logs_held=[HELD])}),
    ("sqlite-wal-reset", {"sqlite_wal_reset_bug": True}),
    *[
        (kind, trouble(kind))
        for kind in (
            *("intake-waiting", "index-failing", "writer-failing", "feed-refused"),
            *("source-failing", "reload-refused", "peer-not-believed", "feed-name-taken"),
        )
    ],
]


def alerts(**more: Any) -> list[problems.Alert]:
    return judged(**more).alerts


def test_nothing_is_wrong() -> None:
    assert alerts() == []


@pytest.mark.parametrize(("kind", "more"), CASES, ids=[kind for kind, _ in CASES])
def test_what_is_wrong_is_said_and_nothing_else(kind: str, more: dict[str, Any]) -> None:
    [one] = alerts(**more)
    assert (one.id, one.severity) == (kind, KINDS[kind].severity)
    assert one.what
    assert one.remedy
    assert problems.is_healthy([one]) == (one.severity == problems.NOTICE)


def test_every_kind_is_shown_by_a_case() -> None:
    shown = {kind for kind, _ in CASES}
    # Without the daemon the index may be behind, too; the others are errors of `gather`.
    assert {one.id for one in alerts(daemon=None, held_by="", to_apply=3)} - shown == {
        "index-behind"
    }
    others = {
        "index-behind",
        "rules-newer",
        "state-unreadable",
        "database-newer",
        "note-unreadable",
    }
    assert set(KINDS) - shown == others


@pytest.mark.parametrize(
    "more",
    [
        {"feeds": [feed(lag=5, lag_seconds=59.0)]},
        {"feeds": [feed(lag=5, lag_seconds=9.0, filling=True)]},
        {"feeds": [feed(silent_seconds=9.0)]},
        {"feeds": [feed(silent_seconds=None, lag=None, lag_seconds=None)]},
        {"daemon": daemon(feeds=[], started=NOW - 5 * times.SECOND)},
        # Nobody was heard, but a master is followed, and no feed is.
        {"daemon": daemon(feeds=[], queues=[]), "feeds": []},
        {"pending": 1, "oldest_pending_seconds": 299.0},
        {"disk_free_bytes": None, "output_disk_free_bytes": None},
        {"last_check": Check(NOW, False, 10, 3)},
        {"last_backup": Backup(NOW - 7 * 24 * times.HOUR, "/b", 3)},
        {"daemon": daemon(age_seconds=-5.0)},
    ],
)
def test_what_is_no_problem_yet(more: dict[str, Any]) -> None:
    assert alerts(**more) == []


def test_the_worst_is_said_first() -> None:
    ranks = [
        one.severity
        for one in alerts(
            quarantined=1, sqlite_wal_reset_bug=True, feeds=[feed(broken="x")], daemon=daemon()
        )
    ]
    assert ranks == ["critical", "warning", "notice"]


def test_kinds_can_be_relied_on() -> None:
    for name, kind in KINDS.items():
        assert name == kind.id
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert kind.severity in (problems.CRITICAL, problems.WARNING, problems.NOTICE)
        assert kind.means.endswith(".")
        assert not kind.remedy.endswith(".")


def test_an_error_brings_its_own_remedy() -> None:
    [one] = alerts(daemon=daemon(troubles=[LiveProblem("writer-failing", "all", "it fails", "x")]))
    assert (one.what, one.remedy) == ("it fails", "x")
    assert problems.sentences([one]) == ["it fails\n  what to do: x"]
    [one] = alerts(daemon=daemon(troubles=[LiveProblem("writer-failing", "all", "it fails")]))
    assert one.remedy == KINDS["writer-failing"].remedy
    [one] = alerts(daemon=daemon(troubles=[LiveProblem("writer-failing", "of an older daemon")]))
    assert one.what == "of an older daemon"


def test_a_log_that_is_held_is_named_with_size_growth_and_reader() -> None:
    live = daemon(logs_held=[HELD])
    [one] = alerts(daemon=live, logs_read_by={"index.db": ["sqlite3 index.db (pid 7)"]})
    assert one.what == (
        "the write-ahead log of index.db has 593 MiB and grows by 5.0 MiB/s: for 120 s"
        " sqlite3 index.db (pid 7) has kept it from being merged"
    )
    assert "fuser -v /state/index.db" in one.remedy
    [one] = alerts(daemon=live)
    assert "somebody has kept it" in one.what
    full, _ = alerts(daemon=live, disk_free_bytes=100_000)
    assert full.id == "disk-full"
    assert full.remedy == "end the readers that log-held names, which frees 593 MiB"


def test_sentences_are_those_of_before_there_were_alerts() -> None:
    shown = [alert(kind, "something") for kind in KINDS]
    left_out = len(shown) - len(problems.sentences(shown))
    assert left_out == 6
    assert problems.sentences([alert("daemon-not-running", "no daemon runs")]) == []


# Monitoring


def monitored(**more: Any) -> tuple[str, int]:
    return nagios.line(judged(**more))


def test_monitoring_of_what_is_well() -> None:
    line, code = monitored(sqlite_wal_reset_bug=True)
    assert code == 0
    assert line.startswith("PIW-INDEXER OK - serial 10, 0 behind | serial=10c lag=0 ")
    assert f"disk_free={9 * GIB}B" in line
    assert "oldest_pending" not in line, "what is not known is left out"


def test_monitoring_tells_the_worst() -> None:
    line, code = monitored(quarantined=2)
    assert (code, line.partition(" | ")[0]) == (
        1,
        "PIW-INDEXER WARNING - 2 messages are in the quarantine",
    )
    line, code = monitored(quarantined=2, feeds=[feed(broken="lost | and\ngone")])
    assert code == 2
    assert line.partition(" | ")[0] == (
        "PIW-INDEXER CRITICAL - feed master is broken: lost / and gone;"
        " 2 messages are in the quarantine"
    )
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StateError("read x", "it is gone"), "state-unreadable"),
        (NewerDatabaseError("open x", "it is newer", "install that"), "database-newer"),
    ],
)
def test_what_cannot_be_read_is_unknown(error: StateError, kind: str) -> None:
    line, code = nagios.unknown(error)
    assert code == 3
    assert line == f"PIW-INDEXER UNKNOWN - cannot {error.operation}: {error.cause}"
    assert unreadable(error).id == kind


def test_plugin_output_has_the_form_of_the_guidelines() -> None:
    line, _ = monitored(oldest_pending_seconds=1.5, pending=1)
    data = line.partition(" | ")[2].split()
    assert data
    for one in data:
        assert re.fullmatch(r"[a-z_]+=-?[0-9.]+(s|B|c)?", one), one


# The screen


def screen(**more: Any) -> str:
    return printed(status_screen.screen(judged(**more), 80), 80)


def test_the_verdict_comes_first() -> None:
    assert screen().splitlines()[0].strip() == "✓ All is well."
    lines = screen(quarantined=2, feeds=[feed(broken="lost")]).splitlines()
    assert lines[0].strip() == "✗ Not well: 1 critical, 1 warning."
    assert lines[1].startswith("✗ feed-broken  feed master is broken: lost")
    assert lines[2].startswith("  what to do: fetch it from the master again")
    assert any(line.startswith("! quarantine  2 messages") for line in lines)


def test_a_notice_stands_below_and_leaves_all_well() -> None:
    lines = screen(sqlite_wal_reset_bug=True, sqlite_version="3.40.1").splitlines()
    assert lines[0].strip() == "✓ All is well."
    assert any("sqlite3 -readonly" in line for line in lines[5:])


def test_what_was_never_done() -> None:
    text = screen()
    assert re.search(r"^last check +never *$", text, re.M)
    assert re.search(r"^last backup +never *$", text, re.M)
    text = screen(
        last_check=Check(NOW - times.HOUR, True, 10, 0),
    )
    assert re.search(r"^last check +1 h ago, no differences *$", text, re.M)


# What it is made of


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True),
        ((3, 44, 6), False), ((3, 45, 0), True), ((3, 46, 1), True), ((3, 50, 6), True),
        ((3, 50, 7), False), ((3, 51, 0), True), ((3, 51, 2), True), ((3, 51, 3), False),
        ((3, 52, 0), False), ((3, 53, 0), False), ((4, 0, 0), False),
    ],
)  # fmt: skip
def test_versions_of_sqlite(version: tuple[int, ...], has: bool) -> None:
    assert has_wal_reset_bug(version) == has


def test_a_waiting_time_begins_when_the_number_was_reached() -> None:
    waiting = Ages()
    assert waiting.seconds(1, 0.0) == 0.0
    waiting.note(5, 10.0)
    waiting.note(5, 11.0)
    waiting.note(8, 12.0)
    assert waiting.seconds(3, 13.0) == 3.0, "since it was at 5"
    assert waiting.seconds(6, 13.0) == 1.0, "since it was at 8"
    assert waiting.seconds(9, 13.0) == 0.0, "it is not there yet"
    waiting.note(2, 20.0)
    assert waiting.seconds(1, 21.0) == 1.0, "it began anew"


def test_waiting_for_days_stays_small() -> None:
    waiting = Ages()
    for second in range(100_000):
        waiting.note(second, float(second))
    assert len(waiting._seen) <= 601
    assert waiting.seconds(0, 100_000.0) == 100_000.0
    assert waiting.seconds(99_999, 100_000.0) == 1.0
