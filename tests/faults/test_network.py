"""A state on a network file system: not written unless that is allowed, and still looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base import network

from ..support import RUN, Feed, Site, case_named
from .injection import Shim

pytestmark = pytest.mark.crash

NFS, SMB, FUSE = 0x6969, 0xFF534D42, 0x65735546
CASE = case_named("basic")
ALLOW = "--allow-network-file-system"


def databases(site: Site) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in site.state_dir.rglob("*.db")}


@pytest.mark.parametrize("number", [NFS, SMB, FUSE])
def test_a_validation_names_the_file_system(number: int, site: Site, shim: Shim) -> None:
    settings = shim.settings(statfs=number)
    said = site.piw(*RUN.split(), "--validate", settings=settings, status=3).stderr
    assert f"({network.NAMES[number]})" in said
    assert "write-ahead log" in said
    assert ALLOW in said
    assert not site.state_dir.exists()


def test_a_state_there_is_looked_at_but_not_written(site: Site, shim: Shim) -> None:
    site.ingest(CASE.messages, as_of=CASE.as_of)
    before = databases(site)
    settings = shim.settings(statfs=NFS)
    assert "serial" in site.piw("status", settings=settings).stdout
    assert site.piw("show", "numpy", settings=settings).stdout
    for writer in ("ingest -", "write", "rebuild", "check --fix"):
        command, *options = writer.split()
        said = site.piw(command, *options, settings=settings, status=3).stderr
        assert "on a network file system (NFS)" in said, writer
    assert databases(site) == before


def test_it_is_written_if_the_user_says_so(site: Site, shim: Shim) -> None:
    settings = shim.settings(statfs=NFS)
    site.piw("ingest", CASE.messages, ALLOW, settings=settings)
    file = site.home / "our.conf"
    file.write_text("[indexer]\nallow-network-file-system = true\n")
    site.piw("write", "-c", file, settings=settings)
    site.piw("check", settings={**settings, "PIW_INDEXER_ALLOW_NETWORK_FILE_SYSTEM": "true"})


def test_a_publisher_makes_nothing_there(site: Site, shim: Shim, ipc: Feed) -> None:
    said = site.piw("publish", *ipc.options, settings=shim.settings(statfs=NFS), status=3).stderr
    assert ALLOW in said
    assert not site.state_dir.exists()


def test_a_journal_that_is_mounted_there_is_refused(site: Site, library: Path) -> None:
    shim = Shim(library, site.state_dir / "journal")
    (site.state_dir / "journal").mkdir(parents=True)
    said = site.piw("ingest", "-", settings=shim.settings(statfs=NFS), status=3).stderr
    assert f"{shim.root}: it is on a network file system" in said


def test_a_backup_may_be_there(site: Site, library: Path) -> None:
    site.piw("ingest", CASE.messages)
    shim = Shim(library, site.home / "backup")
    for _ in range(2):
        site.piw("backup", shim.root, settings=shim.settings(statfs=NFS))
    assert list(shim.root.glob("journal/*.db"))


def test_a_demo_may_be_there(site: Site, shim: Shim) -> None:
    small = ["--packages=5", "--downloads=5", "--rate=5000", "--seconds=1"]
    said = site.piw("demo", *site.output, *small, settings=shim.settings(statfs=NFS)).stdout
    assert "The daemon has stopped cleanly." in said
