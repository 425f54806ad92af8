"""`status` for people, programs and monitoring systems: real states with real problems."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from indexer.base import lock
from indexer.base.directories import LIVE
from indexer.watch.alerts import KINDS

from .. import samples
from ..support import REPOSITORY, Feed, Site, case_named, environment, piw

pytestmark = pytest.mark.acceptance

SCHEMA = json.loads((REPOSITORY / "schema" / "status.schema.json").read_text())
CASE = case_named("equal-versions")
OTHERS = [f"other-{number}" for number in range(300)]


def undescribed(found: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Every field that is missing from a schema that lists fields."""
    if isinstance(found, list):
        items = schema.get("items", {})
        return [one for value in found for one in undescribed(value, items, f"{path}[]")]
    if not isinstance(found, dict) or "properties" not in schema:
        return []
    missing = []
    for key, value in found.items():
        inner = schema["properties"].get(key)
        missing += (
            [f"{path}.{key}"] if inner is None else undescribed(value, inner, f"{path}.{key}")
        )
    return missing


def valid(site: Site) -> dict[str, Any]:
    """What `status --json` prints, checked against the schema."""
    status = site.status()
    jsonschema.Draft202012Validator(
        SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    ).validate(status)
    slaves: dict[str, Any] = {"slaves": [], "finished": []}  # farm --json has all of theirs
    shown = {**status, "farm": status["farm"] and {**status["farm"], **slaves}}
    assert undescribed(shown, SCHEMA) == []
    for one in status["alerts"]:
        assert KINDS[one["id"]].severity == one["severity"]
    return status


def ids(status: dict[str, Any]) -> set[str]:
    """The ids of the alerts."""
    return {one["id"] for one in status["alerts"] if one["severity"] != "notice"}


def monitored(site: Site, code: int) -> str:
    """The line of `--monitor`, which must have this exit status."""
    line = site.piw("status", "--monitor", status=code).stdout
    assert line.count("\n") == 1
    return line


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"serial": 1}, SCHEMA)


def test_without_a_daemon(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    status = valid(site)
    assert ids(status) == {"daemon-not-running"}
    assert status["well"] is False
    assert status["problems"] == [], "what older programs read says this elsewhere"
    assert monitored(site, 2).startswith("PIW-INDEXER CRITICAL - no daemon runs | serial=1c ")


@pytest.mark.slow
def test_a_daemon_that_is_well_and_then_is_not(ipc: Feed, site: Site) -> None:
    with site.daemon(ipc) as daemon:
        with site.publisher(ipc, CASE.messages) as publisher:
            site.wait_for_all(CASE.count, daemon, publisher)
            site.wait(lambda found: found["lag"] == 0 and found["well"], daemon, publisher)
            status = valid(site)
            assert ids(status) == set()
            assert status["well"] is True
            assert status["output_path"] == str(site.output_path)
            assert site.piw("status").stdout.startswith("✓ All is well.")
            line = monitored(site, 0)
            assert line.startswith(
                f"PIW-INDEXER OK - serial {CASE.count}, 0 behind | serial={CASE.count}c lag=0 "
            )
            publisher.terminate()
        site.wait(lambda found: ids(found) == {"feed-silent"}, daemon)
        assert "feed master has been silent for" in monitored(site, 1)
        # The publisher has forgotten what it sent: something is lost.
        shutil.rmtree(site.publisher_dir)
        with site.publisher(ipc, case_named("farm").messages) as publisher:
            site.wait(lambda found: ids(found) == {"feed-broken"}, daemon, publisher)
            status = valid(site)
            [broken] = [one for one in status["alerts"] if one["id"] == "feed-broken"]
            assert "piw-indexer backfill" in broken["remedy"]
            assert "CRITICAL - feed master is broken" in monitored(site, 2)
            screen = site.piw("status").stdout.splitlines()
            assert screen[0].strip() == "✗ Not well: 1 critical."
            assert screen[1].startswith("✗ feed-broken  ")
            assert screen[2].startswith("  what to do: fetch it from the master again")
        daemon.terminate()


@pytest.mark.slow
def test_a_publisher_that_never_was_there(ipc: Feed, site: Site) -> None:
    with site.daemon(ipc) as daemon:
        site.wait(lambda found: ids(found) == {"feed-never-heard"}, daemon)
        assert f"nothing has come from {ipc.changes} yet" in monitored(site, 1)
        daemon.terminate()


def test_documents_that_cannot_be_written(ipc: Feed, site: Site) -> None:
    [package] = [path for path in (CASE.expected / "project").iterdir() if path.is_dir()]
    in_the_way = site.output_path / "project" / package.name / "json"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("somebody's file")
    with site.publisher(ipc, CASE.messages) as publisher, site.daemon(ipc) as daemon:
        site.wait(lambda found: "writer-failing" in ids(found), daemon, publisher)
        [one] = [one for one in valid(site)["alerts"] if one["id"] == "writer-failing"]
        assert str(in_the_way) in one["what"]
        assert "CRITICAL" in monitored(site, 2)
        in_the_way.unlink()
        site.wait(lambda found: ids(found) == set(), daemon, publisher)
        monitored(site, 0)
        daemon.terminate()


def test_a_document_that_cannot_be_written_is_not_forgotten_over_others(
    ipc: Feed, site: Site
) -> None:
    in_the_way = site.output_path / "project" / "blocked" / "json"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("somebody's file")
    lines = [samples.line(samples.new_package(name)) for name in ("blocked", *OTHERS)]
    file = site.home / "feed.jsonl"
    file.write_bytes(b"".join(lines))

    def are_written(found: dict[str, Any]) -> bool:
        assert "writer-failing" in ids(found), found["daemon"]
        return bool(found["serial"] == len(lines) and found["pending"] == 1)

    with site.daemon(ipc) as daemon:
        with site.publisher(ipc, file, "--rate", 1) as publisher:
            site.wait(lambda found: "writer-failing" in ids(found), daemon, publisher)
            assert site.gather()["serial"] < len(lines), "the others were written first"
            publisher.kill()
        with site.publisher(ipc, file) as publisher:
            site.wait(are_written, daemon, publisher)
            in_the_way.unlink()
            site.wait(lambda found: ids(found) == set(), daemon, publisher)
            daemon.terminate()


def test_a_mistake_in_the_configuration_does_not_hide_how_it_stands(ipc: Feed, site: Site) -> None:
    site.take(samples.new_package("numpy"))
    file = site.home / "wrong.conf"
    file.write_text(f"[indexer]\nstate-dir = {site.state_dir}\nsettle = often\nsetle = 1\n")
    for command in (["status"], ["show", "numpy"], ["history", "numpy"], ["metrics"]):
        result = piw(*command, "-c", file, home=site.home)
        assert "settle = often" in result.stderr
        assert "did you mean settle?" in result.stderr
        assert result.stdout
    assert piw("status", "--monitor", "-c", file, home=site.home, status=2).stdout.startswith(
        "PIW-INDEXER CRITICAL - no daemon runs"
    )
    assert "settle = often" in piw("write", "-c", file, home=site.home, status=2).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_look_is_told_so(site: Site) -> None:
    """Also by the line for monitoring, which runs as another user."""
    site.take(samples.new_package("numpy"))
    site.state_dir.chmod(0o700)
    # Everything is imported first: this user may not be allowed to read Python's files.
    as_nobody = (
        "import os, sys; from indexer.cli import main; import indexer.commands.status;"
        " import indexer.base.console, indexer.screens.status;"
        " os.setgroups([]); os.setgid(65534); os.setuid(65534); main(sys.argv[1:])"
    )
    for options, status in (([], 3), (["--monitor"], 3)):
        done = subprocess.run(
            [sys.executable, "-c", as_nobody, "status", *map(str, site.state), *options],
            env=environment(site.home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        said = done.stdout if options else done.stderr
        assert "look into the state directory" in said
        assert not options or said.startswith("PIW-INDEXER UNKNOWN - ")


@pytest.mark.slow
def test_a_daemon_that_says_nothing_any_more(ipc: Feed, site: Site) -> None:
    with site.publisher(ipc) as publisher, site.daemon(ipc) as daemon:
        site.wait(lambda found: found["well"], daemon, publisher)
        os.kill(daemon.pid, 19)  # SIGSTOP
        site.wait(lambda found: "daemon-silent" in ids(found), daemon, publisher)
        assert "the daemon has not reported its state" in monitored(site, 2)
        os.kill(daemon.pid, 18)  # SIGCONT
        site.wait(lambda found: found["well"], daemon, publisher)
        daemon.terminate()


def test_what_cannot_be_read(site: Site) -> None:
    assert "UNKNOWN - cannot use the state directory" in monitored(site, 3)
    site.take(samples.new_package("numpy"))
    connection = sqlite3.connect(site.state_dir / "index.db")
    connection.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
        " VALUES ('piw-indexer-index', '999-future', '')"
    )
    connection.commit()
    connection.close()
    assert "a newer piw-indexer made it" in monitored(site, 3)
    (site.state_dir / "index.db").write_bytes(b"nonsense" * 1000)
    assert "UNKNOWN - cannot " in monitored(site, 3)
    site.piw("status", status=3)


def test_quarantine_and_notes(site: Site, tmp_path: Path) -> None:
    site.take(samples.new_package("numpy"))
    site.piw("ingest", "-", input=b'{"msg": "NONSENSE"}\n', status=None)
    assert ids(valid(site)) == {"daemon-not-running", "quarantine"}
    assert site.status()["last_backup"] is None
    site.piw("backup", tmp_path / "backup")
    status = valid(site)
    assert status["last_backup"]["serial"] == 1
    assert status["last_backup"]["directory"] == str(tmp_path / "backup")
    note = {"at": "2026-11-26T11:00:00+00:00", "finished": True, "differences": 3, "serial": 1}
    (site.state_dir / "check.json").write_text(json.dumps(note))
    status = valid(site)
    assert ids(status) == {"daemon-not-running", "quarantine", "check-differences"}
    assert status["last_check"] == note
    assert "3 differences" in site.piw("status").stdout
    for nonsense in ("{", "[" * 200_000, "5"):
        (site.state_dir / "check.json").write_text(nonsense)
        status = valid(site)
        assert status["last_check"] is None
        assert ids(status) == {"daemon-not-running", "quarantine", "note-unreadable"}
    os.truncate(site.state_dir / "check.json", 2**40)  # a terabyte, and no block on the disk
    assert valid(site)["last_check"] is None
    assert "check.json in the state directory cannot be read" in site.piw("status").stdout


@pytest.mark.parametrize("nonsense", ["{", "[" * 200_000, "[]", "{}"])
def test_what_no_daemon_says_of_itself(nonsense: str, site: Site) -> None:
    site.take(samples.new_package("numpy"))
    held = lock.Lock(site.state_dir, "run")
    try:
        (site.state_dir / LIVE).write_text(nonsense)
        assert ids(valid(site)) == {"note-unreadable"}
        assert "daemon.json in the state directory cannot be read" in monitored(site, 1)
        told = site.piw("farm", status=4).stderr
        assert "daemon.json in the state directory cannot be read" in told
    finally:
        held.release()


def test_options_that_do_not_go_together(site: Site) -> None:
    refused = piw("status", "--json", "--monitor", *site.state, home=site.home, status=2)
    assert "--monitor" in refused.stderr
