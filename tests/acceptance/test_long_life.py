"""Backups, checkpoints and damage, from an administrator's point of view."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..integration.journals import (
    MONTHS,
    archive,
    fill,
    forget_index,
    messages_of,
    month,
    serials,
    spoil_leaf,
    take,
)
from ..support import Case, Feed, Site, assert_published, case_named, contents

pytestmark = pytest.mark.acceptance

CASE = case_named("churn-1")


def assert_restored(site: Site, backup: Path, home: Path, case: Case = CASE) -> Site:
    """A copy of a backup publishes what the case expects."""
    home.mkdir()
    restored = Site(home)
    shutil.copytree(backup, restored.state_dir)
    restored.piw("rebuild", "--as-of", case.as_of)
    assert_published(case, restored.output_path)
    return restored


def test_backup_and_checkpoint_while_a_daemon_runs(site: Site, ipc: Feed, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with site.publisher(ipc, CASE.messages, "--rate", 1500) as publisher:
        with site.daemon(ipc) as daemon:
            site.wait(lambda found: found["applied_serial"] > 0, daemon, publisher)
            for number in range(2):
                site.piw("checkpoint")
                site.piw("backup", backup)
                # Of one moment, whichever that was.
                other = Site(tmp_path / f"other-{number}")
                shutil.copytree(backup, other.state_dir)
                other.piw("rebuild")
                assert "No differences." in other.piw("check").stdout
            site.wait_for_all(CASE.count, daemon, publisher)
            site.piw("checkpoint")
            site.piw("backup", backup)
            daemon.terminate()
        restored = assert_restored(site, backup, tmp_path / "restored")
        # It goes on where it ended: the publisher has nothing to send again.
        with restored.daemon(ipc) as daemon:
            restored.wait_for_all(CASE.count, daemon, publisher)
            daemon.terminate()
    site.write_and_compare(CASE)
    assert "No differences." in site.piw("check").stdout


def test_an_older_backup_catches_up_from_the_feed(site: Site, ipc: Feed, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    with site.publisher(ipc, CASE.messages, "--rate", 1500) as publisher:
        with site.daemon(ipc) as daemon:
            site.wait(lambda found: found["applied_serial"] > 0, daemon, publisher)
            site.piw("backup", backup)
            site.wait_for_all(CASE.count, daemon, publisher)
            daemon.kill()
        shutil.rmtree(site.state_dir)
        shutil.copytree(backup, site.state_dir)
        with site.daemon(ipc) as daemon:
            site.wait_for_all(CASE.count, daemon, publisher)
            daemon.terminate()
    site.write_and_compare(CASE)
    assert "No differences." in site.piw("check").stdout


def test_a_rebuild_starts_from_the_checkpoint_when_months_are_archived(
    site: Site, ipc: Feed
) -> None:
    fill(site.state_dir, CASE)
    said = site.piw("checkpoint").stdout
    for name in MONTHS:
        assert (str(month(site.state_dir, name)) in said) == (name != MONTHS[2])
    archive(site.state_dir, *MONTHS[:2])
    site.piw("rebuild", "--as-of", CASE.as_of)
    assert_published(CASE, site.output_path)
    assert "No differences." in site.piw("check").stdout
    forget_index(site.state_dir)
    shutil.rmtree(site.output_path)
    with site.daemon(ipc) as daemon:
        site.wait_for_all(CASE.count, daemon)
        daemon.terminate()
    site.write_and_compare(CASE)
    shutil.rmtree(site.state_dir / "checkpoint")
    for command in ("rebuild", "check"):
        result = site.piw(command, status=3)
        assert "no checkpoint holds what was before" in result.stdout + result.stderr


def test_a_damaged_month(site: Site, ipc: Feed) -> None:
    fill(site.state_dir, CASE)
    site.piw("write", "--as-of", CASE.as_of)
    path = month(site.state_dir, MONTHS[1])
    first, last = serials(path)[0], serials(path)[-1]
    spoil_leaf(path, 2)
    found = site.piw("check", status=3)
    assert f"journal: {MONTHS[1]}.db is damaged" in found.stdout
    assert "rebuild --salvage" in found.stderr
    assert "restore" in site.piw("rebuild", status=3).stderr
    said = site.piw("rebuild", "--salvage", "--as-of", CASE.as_of).stdout
    words = said.split(f"{MONTHS[1]}.db: lost messages ")[1].split()
    assert first <= int(words[0]) <= int(words[2].rstrip(";")) <= last
    assert "Nothing is missing from the documents." in said
    assert_published(CASE, site.output_path)
    assert "No differences." in site.piw("check").stdout
    with site.daemon(ipc) as daemon:
        site.wait_for_all(CASE.count, daemon)
        assert site.status()["problems"] == []
        daemon.terminate()


def test_a_damaged_month_without_an_index(site: Site) -> None:
    fill(site.state_dir, CASE)
    spoil_leaf(month(site.state_dir, MONTHS[1]), 2)
    forget_index(site.state_dir)
    said = site.piw("rebuild", "--salvage").stdout
    assert "missing from the documents" in said
    (problem,) = site.status()["problems"]
    assert "feed master is broken: messages" in problem
    assert "No differences." in site.piw("check").stdout
    assert "nothing to salvage" in site.piw("rebuild", "--salvage").stdout


def test_a_backup_of_a_damaged_journal_spoils_nothing(site: Site, tmp_path: Path) -> None:
    fill(site.state_dir, CASE)
    backup = tmp_path / "backup"
    site.piw("backup", backup)
    before = contents(backup / "journal")
    take(site.state_dir, MONTHS[2], messages_of(CASE)[:1])
    spoil_leaf(month(site.state_dir, MONTHS[2]), 1)
    result = site.piw("backup", backup, status=3)
    assert "what to do" in result.stderr
    assert contents(backup / "journal") == before
    assert_restored(site, backup, tmp_path / "restored")
