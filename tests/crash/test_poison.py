"""A valid message that ends the process that handles it is put aside, and the feed continues."""

from __future__ import annotations

import errno
import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from indexer.journal.reader import JournalReader
from indexer.messages.elements import MAX_UNCOUNTED
from indexer.messages.poison import FILE, MAX_ENDS, MAX_TRIES, Note

from .. import samples
from ..support import Feed, Site, eventually
from .harness import Victim, daemon

pytestmark = pytest.mark.crash

POISON = Path(__file__).with_name("poison")
LARGE = "x" * MAX_UNCOUNTED


def messages(site: Site, description: str) -> Path:
    file = site.home / "messages.jsonl"
    packages = [samples.new_package(f"package-{number}") for number in range(1, 21)]
    packages[9]["data"]["description"] = description
    file.write_text("".join(json.dumps(one) + "\n" for one in packages))
    return file


def poisoned(where: str) -> dict[str, str]:
    return {"PIW_TEST_POISON": where, "PYTHONPATH": str(POISON)}


def ended_or_done(victim: Victim, site: Site) -> bool:
    if victim.ended() is not None:
        return True
    if not (site.state_dir / "journal").exists():
        return False
    reader = JournalReader(site.state_dir / "journal")
    try:
        return reader.last_serial() == 19
    finally:
        reader.close()


def starts_anew(where: str, site: Site, ipc: Feed) -> int:
    """Start a daemon that is killed at a message until one is not; returns how many were."""
    ends = 0
    while True:
        with daemon(site, ipc, poisoned(where)) as victim:
            eventually(partial(ended_or_done, victim, site), lambda: victim.output)
            if victim.ended() is None:
                assert "was put aside" in victim.output
                victim.terminate()
                return ends
            assert victim.wait() == -signal.SIGKILL, (ends, victim.output)
            ends += 1


@pytest.mark.parametrize(
    ("where", "description", "deaths"),
    [
        ("read", "POISON " + LARGE, MAX_TRIES),
        ("append", "POISON " + LARGE, MAX_TRIES),
        # A small one is only suspected when several have ended without getting anywhere.
        ("read", "POISON", MAX_ENDS + MAX_TRIES),
    ],
    ids=["read", "appended", "small"],
)
def test_it_is_put_aside(where: str, description: str, deaths: int, site: Site, ipc: Feed) -> None:
    with site.publisher(ipc, messages(site, description)):
        ends = starts_anew(where, site, ipc)
        # A small one may end more: whoever gets somewhere with an earlier message is no suspect.
        assert ends == deaths or (deaths > MAX_TRIES and deaths < ends < 3 * deaths)
    [found] = [json.loads(line) for line in site.piw("quarantine", "--json").stdout.splitlines()]
    assert (found["feed"], found["feed_serial"]) == ("master", 10)
    assert f"ended {MAX_TRIES} processes" in found["reason"]
    assert b"POISON" in bytes.fromhex(found["raw"])
    status = site.status()
    assert "quarantine" in [one["id"] for one in status["alerts"]]
    assert status["feeds"][0]["serial"] == 20
    assert status["feeds"][0]["broken"] is None
    # When what was wrong is mended, it can be had.
    if len(description) < MAX_UNCOUNTED:
        assert "1 of 1 accepted" in site.piw("quarantine", "--retry").stdout


def test_one_that_cannot_be_applied_is_put_aside(site: Site, ipc: Feed) -> None:
    """It is already in the journal, so every start and every rebuild would apply it again."""
    with site.publisher(ipc, messages(site, "POISON")):
        # In a batch, in the next one's catching up, and twice by itself.
        for number in range(2 + MAX_TRIES):
            with daemon(site, ipc, poisoned("apply")) as victim:
                assert victim.wait() == -signal.SIGKILL, (number, victim.output)
        with daemon(site, ipc, poisoned("apply")) as victim:
            site.wait(lambda found: found["applied_serial"] == 20, victim)
            assert "message 10 of the journal was put aside" in victim.output
            victim.terminate()
    status = site.status()
    assert (status["serial"], status["quarantined"]) == (20, 1)
    [found] = [json.loads(line) for line in site.piw("quarantine", "--json").stdout.splitlines()]
    assert (found["source"], found["feed"]) == ("journal", None)
    site.piw("rebuild")
    assert site.status()["applied_serial"] == 20
    assert site.piw("check", *site.output).stdout.endswith("No differences.\n")
    # When what was wrong is mended, it can be had.
    assert "1 of 1 accepted" in site.piw("quarantine", "--retry").stdout


def test_another_end_at_the_same_message_is_no_proof(site: Site, ipc: Feed) -> None:
    """A single kill may have any other cause."""
    with site.publisher(ipc, messages(site, "POISON " + LARGE)):
        with daemon(site, ipc, poisoned("read")) as victim:
            assert victim.wait() == -signal.SIGKILL
        with daemon(site, ipc) as victim:
            site.wait(lambda found: found["serial"] == 20, victim)
            assert site.status()["quarantined"] == 0
            victim.terminate()


def test_the_note_names_the_message_that_ended_processes(tmp_path: Path) -> None:
    def opened(serial: int) -> Note:
        return Note(tmp_path, serial)

    one, other = b"one", b"other"
    note = opened(5)
    note.begin(5)
    assert not note.refuses(one)
    note.end()
    assert not note.careful
    for _ in range(MAX_TRIES):  # it ends in each of these
        note = opened(5)
        note.begin(5)
        assert not note.refuses(one)
    note = opened(5)
    note.begin(5)
    assert not note.refuses(other)
    note.end()
    # What is put aside is so in the next process, too, until that is in the journal.
    note = opened(5)
    for _ in range(2):
        note.begin(5)
        assert note.refuses(one)
    note.end()
    assert not opened(5).refuses(one)


def test_a_note_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the disk were full."""

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    note = Note(tmp_path, 5)
    note.begin(5)
    assert not note.refuses(b"one")
    note.end()
    note.close()
    assert caplog.text.count("No space left on device") == 1
    monkeypatch.undo()
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    Note(tmp_path, 5).begin(5)
    assert not (tmp_path / "elsewhere").exists()


def test_ends_without_progress_make_it_careful(tmp_path: Path) -> None:
    for number in range(MAX_ENDS):
        note = Note(tmp_path, 5)
        assert not note.careful, number
        note.begin(5)
    assert Note(tmp_path, 5).careful
    note = Note(tmp_path, 5)
    note.begin(5)
    assert not Note(tmp_path, 6).careful, "it got somewhere"
    (tmp_path / FILE).write_bytes(b"nonsense")
    assert not Note(tmp_path, 6).careful
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_nobody_waits_for_a_message_that_is_put_aside(site: Site, ipc: Feed) -> None:
    """Two such messages in a row: one after the other is identified."""
    file = messages(site, "POISON " + LARGE)
    lines = file.read_text().splitlines()
    second = samples.new_package("package-10b", description="POISON again " + LARGE)
    file.write_text("\n".join([*lines[:10], json.dumps(second), *lines[10:]]) + "\n")
    with site.publisher(ipc, file):
        assert starts_anew("read", site, ipc) == 2 * MAX_TRIES
    assert site.status()["quarantined"] == 2
