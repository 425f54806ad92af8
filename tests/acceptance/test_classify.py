"""Why builds failed, from the log files of a master: `classify`, and `run --logs`."""

from __future__ import annotations

import gzip
import os
import sqlite3
from pathlib import Path
from typing import Any

import click
import pytest

from indexer.base import notes
from indexer.base.notes import leave
from indexer.cli import piw_indexer
from indexer.piwheels import log_files
from indexer.reasons import note as rules

from .. import samples
from ..support import Site, eventually

pytestmark = pytest.mark.acceptance

HEADER = b"a.c:3:10: fatal error: ffi.h: No such file or directory\n"
MODULE = b"ModuleNotFoundError: No module named 'numpy'\n"
OLD = (1_000_000_000, 1_000_000_000)


def write_log(directory: Path, build_id: int, content: bytes, *, whole: bool = True) -> Path:
    """A log where piwheels writes it; not whole: it is cut off."""
    path = log_files.path_of(directory, build_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(content)
    path.write_bytes(packed if whole else packed[:-9])
    return path


def reasons(site: Site) -> dict[int, Any]:
    """The detail of the reason of each failed build."""
    connection = sqlite3.connect(f"file:{site.state_dir}/index.db?mode=ro", uri=True)
    try:
        return dict(
            connection.execute("SELECT build_id, failure_detail FROM builds WHERE status = 0")
        )
    finally:
        connection.close()


def failed(build_id: int, **data: Any) -> dict[str, Any]:
    return samples.log_build(build_id, "numpy", "1.0", status=False, **data)


def test_logs_are_read_and_the_reasons_published(site: Site) -> None:
    logs = site.home / "logs"
    known = {"category": "missing-header", "detail": "Python.h"}
    site.take(failed(1), failed(20_001), failed(3), failed(4, failure=known), failed(5))
    site.take(samples.log_build(6, "numpy", "1.0", "numpy-1.0-cp311-cp311-linux_armv7l.whl"))
    assert write_log(logs, 1, HEADER) == logs / "0000" / "0000" / "0001.txt.gz"
    assert write_log(logs, 20_001, MODULE) == logs / "0000" / "0002" / "0001.txt.gz"
    for build_id in (4, 6):
        write_log(logs, build_id, HEADER)
    log_files.path_of(logs, 5).symlink_to("/dev/zero")
    out = site.piw("classify", logs).stdout
    assert "2 logs of failed builds read" in out
    assert "; reasons: 2 new, 0 changed; 2 builds without a log" in out
    assert reasons(site) == {1: "ffi.h", 20_001: "numpy", 3: None, 4: "Python.h", 5: None}
    site.piw("write")
    document = (site.output_path / "project" / "numpy" / "json" / "index.json").read_text()
    assert '"failure":{"category":"missing-python-module","detail":"numpy"}' in document
    write_log(logs, 3, MODULE)
    assert "1 log of failed builds read" in site.piw("classify", logs).stdout
    site.piw("write")
    site.piw("check")


def test_again_says_what_has_changed_and_continues(site: Site) -> None:
    """As after an update with better rules; an interrupted run is not begun anew."""
    logs = site.home / "logs"
    unknown = {"category": "unknown", "detail": "error"}
    for build_id in (1, 1500, 2500):
        site.take(failed(build_id, failure=unknown))
        write_log(logs, build_id, HEADER)
    assert "0 logs" in site.piw("classify", logs).stdout
    for wrong, says in ((site.home, "it has no logs"), (site.home / "gone", "No such file")):
        # As if all had been read, if the logs are not mounted.
        assert says in site.piw("classify", wrong, "--again", status=2).stderr
    note = site.state_dir / "classify.json"
    note.write_text(f'{{"rules":{rules.VERSION},"again_after":2000,"read_with":99}}')
    result = site.piw("classify", logs)
    assert "--again reads them anew" in result.stderr
    out = site.piw("classify", logs, "--again").stdout
    assert "1 log of failed builds read" in out
    assert "  1: unknown -> missing-header\n" in out
    assert reasons(site) == {1: "error", 1500: "error", 2500: "ffi.h"}
    out = site.piw("classify", logs, "--again").stdout
    assert "3 logs of failed builds read" in out
    assert " 2 changed;" in out
    assert "again" not in site.piw("classify", logs).stderr


def test_what_an_interrupted_again_has_read_is_not_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next version would not have said that its rules are newer."""

    def leave_and_end(path: Path, note: rules.Note) -> None:
        leave(path, note)
        if note.again_after:
            raise KeyboardInterrupt

    site.take(failed(1), write=False)
    write_log(site.home / "logs", 1, HEADER)
    monkeypatch.setattr(notes, "leave", leave_and_end)
    with pytest.raises(click.Abort):
        piw_indexer(
            ["classify", str(site.home / "logs"), "--state-dir", str(site.state_dir), "--again"],
            standalone_mode=False,
        )
    assert rules.find(site.state_dir).read_with == rules.VERSION


@pytest.mark.parametrize("whole", [True, False])
def test_logs_that_are_cut_off(tmp_path: Path, whole: bool) -> None:
    """A master may still write one that is young; an old one is read as far as it goes."""
    path = write_log(tmp_path, 1, HEADER * 5, whole=whole)
    assert (log_files.read(path) is not None) == whole
    os.utime(path, OLD)
    assert log_files.read(path) == ("missing-header", "ffi.h")


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert log_files.read(path) is None
    path.write_bytes(b"not gzip\n")
    os.utime(path, OLD)
    assert log_files.read(path) == ("unknown", "")
    path.unlink()
    os.mkfifo(path)
    assert log_files.read(path) is None


def test_a_log_is_read_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KiB can become gigabytes."""
    monkeypatch.setattr(log_files, "MAX_LOG", 100_000)
    path = write_log(tmp_path, 1, b"." * 1_000_000 + b"\n" + HEADER)
    assert log_files.read(path) == ("unknown", "")


def test_the_daemon_reads_logs_of_old_and_new_builds(site: Site) -> None:
    logs = site.home / "logs"
    many = range(1, 4000, 9)
    site.take(*(failed(build_id) for build_id in many), write=False)
    for build_id in many:
        write_log(logs, build_id, HEADER)
    with site.daemon([], "--status-queue", f"ipc://{site.home}/status", "--logs", logs):
        eventually(lambda: set(reasons(site).values()) == {"ffi.h"}, lambda: reasons(site))
