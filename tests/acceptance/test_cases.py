"""Every case gives exactly its documents, however its messages arrive."""

from __future__ import annotations

import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from ..support import (
    Case,
    Feed,
    Process,
    Site,
    assert_published,
    by_case,
    by_few_cases,
    contents,
    eventually,
)

pytestmark = pytest.mark.acceptance


@by_case
def test_in_one_go_and_rebuilt(case: Case, site: Site) -> None:
    result = site.ingest(case.messages, as_of=case.as_of)
    assert f"{case.count:,} messages" in result.stdout
    assert_published(case, site.output_path)
    published = contents(site.output_path)

    # The same file changes nothing, wherever it lies.
    copy = site.home / "copy.jsonl"
    copy.write_bytes(case.messages.read_bytes())
    site.ingest(copy, as_of=case.as_of)
    assert contents(site.output_path) == published

    site.piw("rebuild", "--as-of", case.as_of)
    assert contents(site.output_path) == published
    assert site.piw("check").stdout == "No differences.\n"

    # All but the journal may be lost.
    for path in site.state_dir.glob("index.db*"):
        path.unlink()
    shutil.rmtree(site.output_path)
    site.piw("write", "--as-of", case.as_of)
    again = contents(site.output_path)
    assert {name: found[0] for name, found in again.items()} == {
        name: found[0] for name, found in published.items()
    }


@by_few_cases
def test_in_small_runs_one_of_them_killed(case: Case, site: Site) -> None:
    for number, part in enumerate(parts(case, site.home, 4)):
        if number == 2:
            ingest_killed_half_way(site, part)
        site.ingest(part, as_of=case.as_of)
    assert_published(case, site.output_path)


def parts(case: Case, directory: Path, count: int) -> list[Path]:
    """A case's messages in several files."""
    size = -(-case.count // count)
    files = []
    for number in range(count):
        file = directory / f"part-{number}.jsonl"
        # Two parts of the same lines would be the same file.
        file.write_bytes(b"".join(case.lines[number * size : (number + 1) * size]) + b"\n" * number)
        files.append(file)
    return files


def ingest_killed_half_way(site: Site, file: Path) -> None:
    """Kill `ingest` as soon as its first messages are in the journal."""

    def looks() -> set[tuple[Path, int]]:
        found = set()
        for path in site.state_dir.glob("journal/*.db*"):
            with suppress(FileNotFoundError):  # a log is gone when `ingest` has ended
                # Not the size: a few messages have room in pages that were there.
                found.add((path, path.stat().st_mtime_ns))
        return found

    before = looks()
    with Process(site.home, "ingest", "--write", *site.state, *site.output, file) as ingest:
        eventually(lambda: looks() != before, lambda: ingest.output)
        ingest.kill()


@by_few_cases
def test_through_a_running_daemon(case: Case, ipc: Feed, site: Site) -> None:
    with site.daemon(ipc) as daemon, site.publisher(ipc, case.messages) as publisher:
        site.wait_for_all(case.count, daemon, publisher)
        daemon.terminate()
        publisher.terminate()
    site.write_and_compare(case)


@by_few_cases
def test_through_restarts_of_everything(case: Case, tcp: Feed, site: Site) -> None:
    """The daemon is stopped and killed, the publisher is killed, all in the middle."""
    rate = ["--rate", max(100, case.count)]
    with site.publisher(tcp, case.messages, *rate) as publisher:
        with site.daemon(tcp) as daemon:
            site.wait(lambda found: found["serial"] > case.count // 6, daemon)
            daemon.terminate()
        publisher.kill()
    with site.publisher(tcp, case.messages, *rate) as publisher:
        with site.daemon(tcp) as daemon:
            site.wait(lambda found: found["serial"] > case.count // 2, daemon, publisher)
            daemon.signal(signal.SIGKILL)
            assert daemon.wait() == -signal.SIGKILL
        with site.daemon(tcp) as daemon:
            site.wait_for_all(case.count, daemon, publisher)
            daemon.terminate()
        publisher.terminate()
    site.write_and_compare(case)
