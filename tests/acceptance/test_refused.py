"""An invalid message is quarantined with a reason, and changes nothing."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest

from indexer.journal.quarantine import MAX_KEPT_BODY

from .. import samples
from ..support import REFUSED, Feed, Site, case_named, contents, eventually

pytestmark = pytest.mark.acceptance

LINES = REFUSED.lines
REASONS = (REFUSED.directory / "reasons.txt").read_text().splitlines()


def quarantined(site: Site, *options: object) -> list[dict[str, Any]]:
    listed = site.piw("quarantine", "--json", *options).stdout
    return [json.loads(one) for one in listed.splitlines()]


def test_every_refused_line_is_kept_with_its_reason_and_nothing_else_changes(site: Site) -> None:
    case = case_named("basic")
    site.ingest(case.messages, as_of=case.as_of)
    before = contents(site.output_path)
    serial = site.status()["serial"]

    result = site.ingest(REFUSED.messages, as_of=case.as_of)
    assert f"{len(LINES)} quarantined" in result.stdout
    assert f"{len(LINES)} lines" in result.stderr
    assert contents(site.output_path) == before
    status = site.status()
    assert (status["serial"], status["quarantined"]) == (serial, len(LINES))
    assert f"{len(LINES)} messages are in the quarantine" in status["problems"][0]

    found = quarantined(site)
    assert [bytes.fromhex(one["raw"]) for one in found] == LINES
    assert [one["feed_serial"] for one in found] == list(range(1, len(LINES) + 1))
    for number, (one, reason) in enumerate(zip(found, REASONS, strict=True)):
        assert one["reason"], number
        assert one["source"] == str(REFUSED.messages)
        assert one["path"] == path_of(reason, one["path"]), (reason, one)

    listed = site.piw("quarantine").stdout
    counts = [line.split()[1] for line in listed.splitlines()[1:]]
    assert sum(map(int, counts)) == len(LINES)
    shown = site.piw("quarantine", 7).stdout
    assert "data.package" in shown
    assert "../etc" in shown

    # Neither a retry nor the same file again changes anything.
    retried = site.piw("quarantine", "--retry")
    assert f"0 of {len(LINES)} accepted" in retried.stdout
    assert retried.stderr.count("still refused") == len(LINES)
    site.ingest(REFUSED.messages, as_of=case.as_of)
    assert quarantined(site) == found
    assert site.status()["serial"] == serial
    site.piw("write", "--all", "--as-of", case.as_of)
    assert contents(site.output_path) == before


def path_of(reason: str, otherwise: str) -> str:
    """The place in the message where the fault must be reported, if the reason has one."""
    kind, _, rest = reason.partition(" ")
    field = re.match(r"(?:without )?(\w+)", rest)
    assert field or kind not in ("file", "build", "download")
    match kind:
        case "file":
            assert field
            inner = ".npm" if "npm" in rest else ".apt" if "{'apt'" in rest else ""
            return f"data.files[0].{field[1]}{inner}"
        case "build" | "download":
            assert field
            return f"data.{field[1]}"
        case _:
            return otherwise


def test_refused_lines_among_good_ones(site: Site) -> None:
    """Messages between them are accepted, and any number of runs gives the same result."""
    case = case_named("equal-versions")
    mixed = b"".join(
        good + bad for good, bad in zip(case.lines, LINES, strict=False) if good.strip()
    )
    file = site.home / "mixed.jsonl"
    file.write_bytes(mixed)
    site.ingest(file, as_of=case.as_of)
    site.ingest(file, as_of=case.as_of)
    status = site.status()
    assert (status["serial"], status["quarantined"]) == (case.count, case.count)
    site.write_and_compare(case)
    site.piw("rebuild", "--as-of", case.as_of)
    assert site.status()["quarantined"] == case.count


def test_retry_after_a_fix(site: Site) -> None:
    """As after an update of the program: a refused message is valid now."""
    site.ingest("-", input=samples.line(samples.new_package("NumPy")))
    site.ingest("-", input=samples.line(samples.new_package("SciPy")))
    [journal] = site.state_dir.glob("journal/*.db")
    with sqlite3.connect(journal) as connection:
        connection.execute(
            "UPDATE quarantine SET raw = ? WHERE quarantine_id = 1",
            (samples.line(samples.new_package("numpy")),),
        )
    connection.close()

    assert "1 of 1 accepted" in site.piw("quarantine", "--retry", 1).stdout
    assert [one["quarantine_id"] for one in quarantined(site)] == [2]
    assert [one["retried"] for one in quarantined(site, "--all")] == [1, None]
    assert site.status()["quarantined"] == 1
    result = site.piw("quarantine", "--retry")
    assert "0 of 1 accepted" in result.stdout
    assert "2: still refused: data.package" in result.stderr
    assert site.status()["serial"] == 1

    site.piw("write")
    assert [path.name for path in (site.output_path / "project").iterdir()] == ["numpy"]
    site.piw("rebuild")
    assert site.status()["serial"] == 1
    assert site.piw("check").stdout == "No differences.\n"


def test_what_was_looked_at_is_put_aside_and_kept(site: Site) -> None:
    site.take({"msg": "NEWPKG", "data": {"package": "../one"}}, write=False)
    site.take({"msg": "NEWPKG", "data": {"package": "../two"}}, write=False)
    assert "no ID is given" in site.piw("quarantine", "--dismiss", status=2).stderr
    assert "1 put aside" in site.piw("quarantine", 1, "--dismiss").stdout
    assert [one["quarantine_id"] for one in quarantined(site)] == [2]
    assert site.status()["quarantined"] == 1
    assert [one["retried"] for one in quarantined(site, "--all")] == [0, None]
    assert "0 of 0 accepted" in site.piw("quarantine", 1, "--retry").stdout
    assert "1 put aside" in site.piw("quarantine", 1, 2, "--dismiss").stdout
    assert "quarantine" not in [one["id"] for one in site.status()["alerts"]]
    assert site.piw("check", *site.output).stdout.endswith("No differences.\n")


def test_a_dismissal_while_the_daemon_runs(site: Site, ipc: Feed) -> None:
    """Of an ID, a range, a source, a reason, or of all. The daemon had to be stopped for it."""
    lines = [samples.line(samples.new_package(f"../{number}")) for number in range(4)]
    for number in range(3):
        site.ingest("-", input=b"".join(lines[: number + 2]))
    file = site.home / "other.jsonl"
    file.write_bytes(b'{"msg": "FORMAT", "data": {}}\n{"msg": "DELPKG", "data": {}}\n')
    site.ingest(file)
    total = site.status()["quarantined"]
    with site.daemon(ipc) as daemon:
        site.wait(lambda found: f"(pid {daemon.pid})" in found["held_by"], daemon)

        def dismissed(count: int, *options: object) -> None:
            nonlocal total
            assert f"{count} put aside" in site.piw("quarantine", "--dismiss", *options).stdout
            total -= count
            assert site.status()["quarantined"] == total
            assert len(quarantined(site)) == total

        dismissed(1, 1)
        dismissed(2, "2-3")
        dismissed(1, "--source", file, "--reason", "there is no message")
        dismissed(1, "--source", file)
        dismissed(total, "--all")
        dismissed(0, "--all")
        assert not (site.state_dir / "dismiss.json").exists()
        (site.state_dir / "dismiss.json").write_text("[nonsense")
        eventually(lambda: not (site.state_dir / "dismiss.json").exists())
        daemon.terminate()
        assert "ignored the request" in daemon.output
    assert site.piw("check", *site.output).stdout.endswith("No differences.\n")


def test_ranges_that_are_none(site: Site) -> None:
    site.take({"msg": "NEWPKG", "data": {"package": "../one"}}, write=False)
    for given, said in (("2-9", "there is no 2-9 in it"), ("9-2", "there is no"), ("x", "an ID")):
        assert said in site.piw("quarantine", given, "--dismiss", status=2).stderr


def test_many_are_listed_by_their_reasons(site: Site) -> None:
    """Fifty thousand lines are a list that nobody reads, and that took a minute."""
    lines = [samples.line(samples.new_package(f"../{number}")) for number in range(3000)]
    site.ingest("-", input=samples.line(samples.new_package("numpy")) + b"".join(lines))
    listed = site.piw("quarantine").stdout
    assert listed.count("\n") < 10
    assert "1...3000" in listed
    assert "3,000" in listed


def test_what_is_kept_in_part_cannot_be_retried(site: Site) -> None:
    """A long list shows no bytes, and says what is not kept."""
    description = {"package": "NumPy", "description": "x" * MAX_KEPT_BODY}
    for number in range(2):
        site.take({"msg": "NEWPKG", "data": {**description, "skip": f"{number}"}}, write=False)
    assert "0 of 2 accepted" in (result := site.piw("quarantine", "--retry")).stdout
    assert f"only the first {MAX_KEPT_BODY} of its" in result.stderr
    [one, _] = quarantined(site)
    assert (len(one["raw"]), one["size"]) == (2 * MAX_KEPT_BODY, one["size"])
    assert one["size"] > MAX_KEPT_BODY
    assert len(one["sha256"]) == 64
    shown = site.piw("quarantine", one["quarantine_id"]).stdout
    assert one["sha256"] in shown
    [journal] = site.state_dir.glob("journal/*.db")
    with sqlite3.connect(journal) as connection:
        connection.execute("INSERT INTO quarantine_let_go VALUES ('tcp://x', 12, 5000)")
    connection.close()
    listed = site.piw("quarantine").stdout
    assert "12 older messages were deleted" in listed
    assert len(listed) < 2000
    assert site.status()["quarantined_let_go"] == 12
    assert "2; 12 more were deleted" in site.piw("status").stdout


def test_quarantine_of_nothing(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    assert site.piw("quarantine").stdout == "The quarantine is empty.\n"
    assert quarantined(site) == []
    result = site.piw("quarantine", 1, status=2)
    assert "there is no 1 in it" in result.stderr


def test_log_and_address_are_never_stored(site: Site) -> None:
    """The log of a build is large, and the address of a downloader is personal data."""
    build = samples.log_build(1, "numpy", "2.0", "numpy-2.0-py3-none-any.whl")
    build["data"]["output"] = "gcc: a secret log"
    download = samples.log_download("numpy-2.0-py3-none-any.whl", host="203.0.113.77")
    site.take(build, download)
    assert site.status()["quarantined"] == 0
    for path in site.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"secret log" not in content, path
            assert b"203.0.113.77" not in content, path
