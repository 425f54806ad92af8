"""`piw-indexer backfill --dsn`: an index from the database of a piwheels, in a real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexer.base.lock import Lock

from ..postgres import Server
from ..samples import HASH
from ..support import Feed, Site

pytestmark = pytest.mark.acceptance

CONTENT = """
INSERT INTO build_abis VALUES ('cp311', '');
INSERT INTO packages VALUES ('numpy', '', 'Arrays');
INSERT INTO package_names VALUES ('numpy', 'NumPy', '2026-11-20');
INSERT INTO versions VALUES ('numpy', '2.2.6', '2026-11-20 12:00:00');
INSERT INTO builds (build_id, package, version, built_by, duration, abi_tag)
    VALUES (12345, 'numpy', '2.2.6', 1, '00:01:01.5', 'cp311');
INSERT INTO downloads (filename, accessed_by, accessed_at)
    SELECT 'numpy-2.2.6-cp311-cp311-linux_armv7l.whl', '203.0.113.77', '2026-11-20 12:00:00'
    FROM generate_series(1, 7);
"""


WHEEL = "numpy-2.2.6-cp311-cp311-linux_armv7l.whl"
FILE = f"""
UPDATE builds SET status = true;
INSERT INTO files VALUES ('{WHEEL}', 12345, 1000, '{HASH}', 'numpy', '2.2.6', 'cp311', 'cp311',
    'linux_armv7l', NULL);
"""


@pytest.fixture
def dsn(postgres: Server) -> str:
    name = postgres.piwheels()
    postgres.psql(name, CONTENT)
    return postgres.url(name)


def test_backfill_from_a_database(site: Site, dsn: str) -> None:
    result = site.piw("backfill", "--dsn", dsn)
    assert result.stderr == ""
    assert result.stdout == (
        "1 package read, 1 different and taken with 1 build, 0 gone, 1 counter taken\n"
    )
    site.piw("write", "--as-of", "2026-11-20T13:00:00Z")
    assert (site.output_path / "packages.json").read_bytes() == b'[["numpy",7,7]]'
    path = site.output_path / "project" / "numpy" / "json" / "index.json"
    abis = json.loads(path.read_bytes())["releases"]["2.2.6"]["abis"]
    assert abis["cp311"] == {
        "status": "error",
        "build_id": 12345,
        "duration": 61.5,
        "log_url": "/logs/0000/0001/2345.txt.gz",
        "platforms": [],
    }
    again = site.piw("backfill", settings={"PIW_INDEXER_DSN": dsn})
    assert again.stdout.startswith("1 package read, 0 different")
    site.piw("check")


def test_backfill_beside_the_daemon(ipc: Feed, site: Site, postgres: Server, dsn: str) -> None:
    """A timer repeats it; the daemon once had to be stopped for it."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    path = site.output_path / "project" / "numpy" / "json" / "index.json"
    with site.daemon(ipc) as daemon:
        site.wait(lambda found: found["daemon"] is not None, daemon)
        result = site.piw("backfill", "--dsn", dsn)
        assert (result.stdout, result.stderr) == (
            "1 package read, 1 different and taken with 1 build, 0 gone, 1 counter taken\n",
            "",
        )
        site.wait(lambda found: found["pending"] == 0, daemon)
        release = json.loads(path.read_bytes())["releases"]["2.2.6"]
        assert release["builds"][0]["built_at"] is not None
        assert not release["yanked"]
        postgres.psql(name, "UPDATE versions SET yanked = true")
        postgres.psql(name, "INSERT INTO packages VALUES ('scipy')")
        again = site.piw("backfill", "--dsn", dsn)
        assert again.stdout.startswith("2 packages read, 2 different and taken with 1 build,")
        site.wait(lambda found: found["pending"] == 0, daemon)
        assert json.loads(path.read_bytes())["releases"]["2.2.6"]["yanked"]
        postgres.psql(name, "DELETE FROM packages WHERE package = 'scipy'")
        assert ", 1 gone, 0 counters taken" in site.piw("backfill", "--dsn", dsn).stdout
        serial = site.status()["serial"]
        site.piw("backfill", "--dsn", dsn)
        assert site.status()["serial"] == serial, "nothing differed"
        daemon.terminate()
    site.piw("check")


def test_files_that_an_archiver_moved(
    ipc: Feed, site: Site, postgres: Server, dsn: str, tmp_path: Path
) -> None:
    """One query finds them, and nothing is asked for package by package."""
    name = dsn.partition("?")[0].rpartition("/")[2]
    postgres.psql(name, FILE)
    # The daemon's own configuration names a queue, which must not keep anybody from the database.
    configuration = tmp_path / "indexer.conf"
    configuration.write_text("[indexer]\ndb-queue = ipc:///nowhere/db\n")
    where = ["-c", configuration, "--dsn", dsn]
    site.piw("backfill", *where)
    assert site.piw("reconcile", *where).stdout == "No differences.\n"
    postgres.psql(name, "UPDATE files SET location = '/archive'")
    found = site.piw("reconcile", *where, status=1).stdout
    assert found == (
        f"numpy: 1 file served from elsewhere, such as {WHEEL}: '/simple' in the index, '/archive'"
        " at the master\n"
    )
    assert site.piw("reconcile", "scipy", *where).stdout == "No differences.\n"
    fixed = site.piw("reconcile", "NumPy", "--fix", *where).stdout
    assert fixed.endswith("Taken from the master: 1. `piw-indexer write` publishes them.\n")
    with site.daemon(ipc) as daemon:
        site.wait(lambda status: status["daemon"] is not None, daemon)
        postgres.psql(name, "UPDATE files SET location = '/elsewhere'")
        beside = site.piw("reconcile", "--fix", *where).stdout
        assert beside.endswith("Taken from the master: 1.\n")
        assert site.piw("reconcile", *where).stdout == "No differences.\n"
        site.wait(lambda status: status["pending"] == 0, daemon)
        daemon.terminate()
    path = site.output_path / "project" / "numpy" / "json" / "index.json"
    files = json.loads(path.read_bytes())["releases"]["2.2.6"]["files"]
    assert files[WHEEL]["file_url"] == f"/elsewhere/numpy/{WHEEL}"
    postgres.psql(name, "UPDATE files SET location = E'/a\nb'")
    odd = site.piw("reconcile", "--fix", *where, status=1).stdout
    assert "what the master has is not valid" in odd
    assert odd.endswith("Not repaired: 1.\n")
    postgres.psql(name, "ALTER TABLE files DROP location CASCADE")
    assert "the table files has no location" in site.piw("reconcile", *where, status=2).stderr


def test_addresses_are_never_stored(site: Site, dsn: str) -> None:
    site.piw("backfill", "--dsn", dsn)
    for path in site.state_dir.rglob("*"):
        if path.is_file():
            assert b"203.0.113.77" not in path.read_bytes()


def test_how_it_ends(site: Site, postgres: Server, dsn: str) -> None:
    def refused(*options: object, status: int) -> str:
        result = site.piw("backfill", *options, status=status)
        assert result.stderr.startswith("piw-indexer: cannot ")
        assert "\n  what to do: " in result.stderr
        return result.stderr

    assert "neither --db-queue nor --dsn is given" in refused(status=2)
    both = ["--dsn", dsn, "--db-queue", "ipc:///nowhere/db"]
    assert "exclude each other" in refused(*both, status=2)
    assert "not of piwheels" in refused("--dsn", postgres.url("postgres"), status=2)
    assert "does not exist" in refused("--dsn", postgres.url("nowhere"), status=4)
    secret = refused("--dsn", "postgresql://me:secret@/x?host=/nowhere", status=4)
    assert "secret" not in secret
    assert not (site.state_dir / "index.db").exists()
    lock = Lock(site.state_dir, "ingest")
    assert "locked by piw-indexer ingest" in refused("--dsn", dsn, status=3)
    lock.release()


def test_rows_that_are_refused(site: Site, postgres: Server, dsn: str) -> None:
    postgres.psql(dsn.partition("?")[0].rpartition("/")[2], "INSERT INTO packages VALUES ('Odd')")
    result = site.piw("backfill", "--dsn", dsn)
    assert "not valid: 1 row;" in result.stderr
    assert "'Odd' is not a canonical package name" in site.piw("quarantine").stdout
