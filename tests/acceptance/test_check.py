"""`check` finds differences, and `check --fix` repairs them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.base.errors import StateError
from indexer.check import differences, index
from indexer.check.differences import Difference, Part, Sort
from indexer.check.resume import Run
from indexer.cli import piw_indexer
from indexer.journal.reader import JournalReader
from indexer.schema.index import SCHEMA

from .. import samples
from ..crash.harness import SEAMS
from ..support import Feed, Process, Site, case_named, contents

pytestmark = pytest.mark.acceptance

CASE = case_named("lifecycle")
Content = dict[str, bytes | str]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with the documents of a case, for the present time."""
    site = Site(tmp_path_factory.mktemp("pristine"))
    site.ingest(CASE.messages)
    return site


@pytest.fixture
def checked(pristine: Site, site: Site) -> Site:
    """A copy of the site, to be damaged."""
    site.copy(pristine)
    return site


def published(site: Site) -> Content:
    return {name: content for name, (content, _, _) in contents(site.output_path).items()}


def rows(site: Site) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(site.state_dir / "index.db")
    try:
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
            for table in ("packages", "package_names", "versions", "builds", "files",
                          "dependencies", "build_abis", "download_counts", "download_hours")
        }  # fmt: skip
    finally:
        connection.close()


def first_alias(site: Site) -> Path:
    return next(path for path in (site.output_path / "project").iterdir() if path.is_symlink())


def document(site: Site, package: str = "skipper") -> Path:
    return site.output_path / "project" / package / "json" / "index.json"


def edit_document(site: Site) -> str:
    document(site).write_bytes(b"{}")
    return str(document(site))


def delete_document(site: Site) -> str:
    document(site).unlink()
    return str(document(site))


def delete_project(site: Site) -> str:
    shutil.rmtree(document(site).parent.parent)
    return str(document(site))


def stray_document(site: Site) -> str:
    document(site, "stranger").parent.mkdir(parents=True)
    document(site, "stranger").write_bytes(b"{}")
    return "stranger"


def alias_to_elsewhere(site: Site) -> str:
    alias = first_alias(site)
    alias.unlink()
    alias.symlink_to("nobody")
    return alias.name


def alias_gone(site: Site) -> str:
    alias = first_alias(site)
    alias.unlink()
    return alias.name


def stray_alias(site: Site) -> str:
    (site.output_path / "project" / "Stranger").symlink_to("skipper")
    return "Stranger"


def edit_packages(site: Site) -> str:
    (site.output_path / "packages.json").write_bytes(b"[]")
    return "packages.json"


def edit_compressed_packages(site: Site) -> str:
    (site.output_path / "packages.json.gz").write_bytes(b"old")
    return "packages.json"


def flip_compressed_packages(site: Site) -> str:
    """Its end, the only part that the writer reads, stays as it was."""
    path = site.output_path / "packages.json.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return "packages.json.gz"


def delete_packages(site: Site) -> str:
    (site.output_path / "packages.json").unlink()
    return "packages.json"


def delete_compressed_packages(site: Site) -> str:
    (site.output_path / "packages.json.gz").unlink()
    return "packages.json"


def in_index(statement: str, says: str) -> Callable[[Site], str]:
    def spoil(site: Site) -> str:
        connection = sqlite3.connect(site.state_dir / "index.db")
        with connection:
            assert connection.execute(statement).rowcount > 0
        connection.close()
        return says

    return spoil


def delete_index(site: Site) -> str:
    (site.state_dir / "index.db").unlink()
    return "index.db"


def garble_index(site: Site) -> str:
    (site.state_dir / "index.db").write_bytes(b"garbage " * 4096)
    return "index"


def tear_index(site: Site) -> str:
    path = site.state_dir / "index.db"
    whole = path.read_bytes()
    path.write_bytes(whole[: 3 * 4096] + b"\xff" * 20_000 + whole[3 * 4096 + 20_000 :])
    return "damaged"


SPOILS: dict[str, Callable[[Site], str]] = {
    "edited document": edit_document,
    "deleted document": delete_document,
    "deleted project": delete_project,
    "stray document": stray_document,
    "alias to elsewhere": alias_to_elsewhere,
    "deleted alias": alias_gone,
    "stray alias": stray_alias,
    "edited packages.json": edit_packages,
    "edited packages.json.gz": edit_compressed_packages,
    "flipped packages.json.gz": flip_compressed_packages,
    "deleted packages.json": delete_packages,
    "deleted packages.json.gz": delete_compressed_packages,
    "changed description": in_index(
        "UPDATE packages SET description = 'x' WHERE package = 'skipper'",
        'index: skipper: packages.description is "x", should be "',
    ),
    "changed build": in_index(
        "UPDATE builds SET status = 1 - status",
        "builds.status is 0, should be 1 (the index is wrong: the journal says otherwise)",
    ),
    "deleted version": in_index(
        "DELETE FROM versions WHERE package = 'skipper' AND version = '1.0'",
        "index: skipper 1.0 is missing in versions",
    ),
    "deleted file": in_index(
        "DELETE FROM files WHERE filename LIKE '%a%'", "whl is missing in files"
    ),
    "row without a parent": in_index(
        "INSERT INTO dependencies VALUES ('nowhere.whl', 'apt', 'x')",
        "dependency apt x is in dependencies, and should not be",
    ),
    "changed counter": in_index(
        "UPDATE download_counts SET downloads_all = downloads_all + 1",
        "the download counters: download_counts.downloads_all is 1, should be 0",
    ),
    "deleted index": delete_index,
    "garbled index": garble_index,
    "torn index": tear_index,
}


def test_a_sound_state_has_no_differences(checked: Site) -> None:
    before = contents(checked.output_path)
    assert checked.piw("check").stdout == "No differences.\n"
    assert checked.piw("check", "--fix").stdout.endswith("No differences.\n")
    assert contents(checked.output_path) == before


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS.keys())
def test_check_reports_and_fix_repairs(
    spoil: Callable[[Site], str], checked: Site, pristine: Site
) -> None:
    says = spoil(checked)
    spoiled = published(checked)
    result = checked.piw("check", status=1)
    assert says in result.stdout
    assert published(checked) == spoiled, "check alone changes nothing"

    fixed = checked.piw("check", "--fix")
    assert fixed.status == 0
    assert checked.piw("check").stdout == "No differences.\n"
    assert published(checked) == published(pristine)
    assert rows(checked) == rows(pristine)


def test_several_differences_at_once(checked: Site, pristine: Site) -> None:
    says = [
        spoil(checked)
        for name, spoil in SPOILS.items()
        if name in ("deleted project", "stray document", "stray alias", "edited packages.json")
    ]
    result = checked.piw("check", status=1)
    for part in says:
        assert part in result.stdout
    checked.piw("check", "--fix")
    assert published(checked) == published(pristine)


def test_documents_of_an_index_that_differs(checked: Site, pristine: Site) -> None:
    """The repair looks at them, and repairs them, too."""
    SPOILS["changed build"](checked)
    for name in ("edited document", "stray alias", "deleted packages.json"):
        SPOILS[name](checked)
    assert "builds" in checked.piw("check", status=1).stdout
    checked.piw("check", "--fix")
    assert published(checked) == published(pristine)
    assert rows(checked) == rows(pristine)


def test_what_is_pending_is_no_difference(checked: Site) -> None:
    checked.take(
        samples.message("SETDESC", package="skipper", description="new"),
        samples.message("DELPKG", package="version-zoo"),
        samples.new_name("skipper", "SKIPPER"),
        write=False,
    )
    assert checked.piw("check").stdout == "No differences.\n"
    checked.piw("write")
    assert checked.piw("check").stdout == "No differences.\n"
    assert os.readlink(checked.output_path / "project" / "SKIPPER") == "skipper"


def test_files_of_others_are_none_of_our_business(checked: Site) -> None:
    project = checked.output_path / "project"
    theirs = [
        checked.output_path / "index.html",
        project / "index.html",
        project / "skipper" / "index.html",
        project / "skipper" / "json" / "other.json",
        project / "other" / "index.html",
        project / "Other.Name" / "file",
    ]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"theirs")
    (project / "their-link").symlink_to("../index.html")
    assert checked.piw("check").stdout == "No differences.\n"

    # They stay where a package is deleted, and where all is written anew.
    checked.take(samples.message("DELPKG", package="skipper"))
    checked.piw("write", "--all")
    checked.piw("rebuild")
    checked.piw("check", "--fix")
    for path in theirs:
        assert path.read_bytes() == b"theirs"
    assert os.readlink(project / "their-link") == "../index.html"
    assert not document(checked).exists()
    assert checked.piw("check").stdout == "No differences.\n"


def test_check_beside_a_running_daemon(ipc: Feed, checked: Site) -> None:
    with checked.daemon(ipc) as daemon:
        checked.wait(lambda found: f"pid {daemon.pid}" in found["held_by"], daemon)
        assert checked.piw("check").stdout == "No differences.\n"
        edit_document(checked)
        assert "skipper" in checked.piw("check", status=1).stdout
        daemon.terminate()


def spoiled(site: Site, change: Callable[[bytes], bytes]) -> str:
    """The report on a document whose bytes were changed."""
    path = document(site)
    before = path.read_bytes()
    path.write_bytes(change(before))
    said = site.piw("check", status=1).stdout
    path.write_bytes(before)
    return said


def changed_fields(content: bytes) -> bytes:
    found = json.loads(content)
    version = next(iter(found["releases"]))
    found["summary"] = "forged"
    found["releases"][version]["more"] = 1
    del found["pypi_url"]
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed_fields, ['summary is "forged", should be "', "pypi_url is missing",
                          "more should not be there", "not what was published; changed at 2"]),
        (lambda content: b"", ["is empty"]),
        (lambda content: content[:50], ["is cut off after 50 of "]),
        (lambda content: b"{" + content, ["is not JSON: "]),
        (lambda content: content.replace(b",", b", "), ["says the same in other bytes"]),
        (lambda content: b"[]", ["it is []"]),
        (lambda content: b"[" * 200_000, ["is nested too deeply"]),
    ],
    ids=["fields", "empty", "cut", "no JSON", "white space", "another kind", "deep"],
)  # fmt: skip
def test_words_for_a_document(
    checked: Site, change: Callable[[bytes], bytes], says: list[str]
) -> None:
    said = spoiled(checked, change)
    assert f"documents: skipper: {document(checked)} " in said
    for words in says:
        assert words in said
    assert "What to do: stop the daemon, and run `piw-indexer check --fix`." in said


def test_words_for_packages_json(checked: Site) -> None:
    path = checked.output_path / "packages.json"
    found = json.loads(path.read_bytes())
    found[0][2] += 7
    path.write_bytes(json.dumps(found).encode())
    name, recent, ever = found[0]
    says = f"{name} is [{recent}, {ever}], should be [{recent}, {ever - 7}]"
    assert says in checked.piw("check", status=1).stdout
    Path(f"{path}.gz").write_bytes(b"\x1f\x8bnonsense")
    assert "packages.json.gz is not gzip" in checked.piw("check", status=1).stdout


def test_a_large_document_of_others_is_not_read(checked: Site) -> None:
    """The file has a terabyte, but no block on the disk."""
    with document(checked).open("r+b") as file:
        file.truncate(2**40)
    assert "cannot be read: it has more than 128 MiB" in checked.piw("check", status=1).stdout
    said = checked.piw("explain", "skipper").stdout
    assert f"{2**40:,} bytes" in said
    checked.piw("check", "--fix")
    checked.piw("check")


def test_what_unpacks_to_much_is_not_unpacked(checked: Site) -> None:
    """A few kilobytes that unpack to gigabytes once took as much memory."""
    path = checked.output_path / "packages.json.gz"
    right = gzip.decompress(path.read_bytes())
    bomb = gzip.compress(right + bytes(64 * 2**20))
    tracemalloc.start()
    try:
        says = differences.content(bomb, path.read_bytes())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert says == "holds another document, compressed"
    assert most < 2**20
    again = gzip.compress(right, 1)
    assert differences.content(again, path.read_bytes()) == "is compressed in another way"


def test_a_fix_touches_only_what_is_wrong_and_says_what_it_did(checked: Site) -> None:
    before = contents(checked.output_path)
    edit_document(checked)
    stray_document(checked)
    alias = alias_gone(checked)
    other = document(checked, "version-zoo")
    other.chmod(0o600)
    assert f"{other} has the mode 0600, should be 0644" in checked.piw("check", status=1).stdout
    said = checked.piw("check", "--fix").stdout
    for line in ("1 document written", "1 link made", "1 stray removed", "1 mode set"):
        assert f"documents: {line}\n" in said
    assert said.endswith("Repaired.\n")
    after = contents(checked.output_path)
    mended = {document(checked).relative_to(checked.output_path).as_posix(), f"project/{alias}"}
    assert {name for name in before if before[name] != after.get(name)} <= mended
    assert after.keys() == before.keys()

    in_index("UPDATE builds SET status = 1 - status", "")(checked)
    before = contents(checked.output_path)
    said = checked.piw("check", "--fix").stdout
    assert "index: rebuilt from the journal; " in said
    assert contents(checked.output_path) == before


def test_a_fix_mends_a_compressed_copy_that_ends_as_it_should(
    checked: Site, pristine: Site
) -> None:
    path = checked.output_path / "packages.json.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert "packages.json.gz" in checked.piw("check", status=1).stdout
    said = checked.piw("check", "--fix").stdout
    assert "documents: packages.json and packages.json.gz written\n" in said
    assert published(checked) == published(pristine)


def test_a_fix_of_a_mode_writes_nothing(checked: Site) -> None:
    path = checked.output_path / "packages.json"
    before = path.stat()
    path.chmod(0o600)
    said = checked.piw("check", "--fix").stdout
    assert "documents: 1 mode set\n" in said
    assert "packages.json.gz written" not in said
    after = path.stat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


def test_a_link_in_the_place_of_a_document(checked: Site) -> None:
    outside = checked.home / "outside"
    outside.write_bytes(document(checked).read_bytes())
    document(checked).unlink()
    document(checked).symlink_to(outside)
    assert f"is a link to {outside}, and no file" in checked.piw("check", status=1).stdout
    checked.piw("check", "--fix")
    assert not document(checked).is_symlink()
    assert outside.exists()


def test_many_differences_are_counted_not_listed(site: Site) -> None:
    site.take(*(samples.message("NEWPKG", package=f"p{number}") for number in range(50)))
    for path in site.output_path.glob("project/*/json/index.json"):
        path.write_bytes(b"{}")
    said = site.piw("check", status=1).stdout
    assert "documents: document: 30 more, 50 in all" in said
    assert said.count("is missing") < 100
    found = json.loads(site.piw("check", "--json", status=1).stdout)
    assert (found["finished"], found["differences"], found["fixed"]) == (True, 50, 0)
    assert found["counts"] == {"documents: document": 50}
    assert len(found["found"]) == 20
    assert found["found"][0]["package"] == "p0"
    left = json.loads((site.state_dir / "check.json").read_text())
    assert {key: found[key] for key in left} == left
    assert json.loads(site.piw("check", "--fix", "--json").stdout)["fixed"] == 50
    assert json.loads((site.state_dir / "check.json").read_text())["serial"] == 50


def leftovers(site: Site) -> set[str]:
    return {path.name for path in site.state_dir.glob("*check*")} - {"check.json"}


def test_what_cannot_be_repaired_is_named(checked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was repaired is reported as repaired."""
    edit_document(checked)
    monkeypatch.setattr("indexer.commands.check.publish", lambda *rest: 0)
    arguments = ["check", *checked.state, *checked.output, "--fix"]
    done = CliRunner().invoke(piw_indexer, list(map(str, arguments)), standalone_mode=False)
    assert done.return_value == 1, done.output
    assert "not repaired: documents: skipper: " in done.output
    assert "Repaired." not in done.output
    assert json.loads((checked.state_dir / "check.json").read_bytes())["fixed"] == 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A state of more messages than two batches have."""
    site = Site(tmp_path_factory.mktemp("large"))
    lines = b"".join(
        json.dumps(samples.log_build(number, f"p{number % 50}", "1.0")).encode() + b"\n"
        for number in range(1, 21_001)
    )
    site.piw("ingest", "--write", "-", input=lines)
    return site


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
)
def test_an_interrupted_check_resumes(large: Site, site: Site, number: int, status: int) -> None:
    site.copy(large)
    # The check itself sends the signal, when it has committed its second batch of 10,000 messages:
    # after the migrations and the journal's identity.
    commit = len(SCHEMA.migrations) + 3
    seam = {"PIW_TEST_SEAM": f"index:{commit}:after", "PIW_TEST_SEAM_SIGNAL": str(int(number))}
    settings = {"PYTHONPATH": str(SEAMS), **seam}
    with Process(site.home, "check", *site.state, *site.output, settings=settings) as process:
        assert process.wait() == status, process.output
    assert "check.resume" in leftovers(site)
    if number != signal.SIGKILL:
        left = json.loads((site.state_dir / "check.json").read_bytes())
        assert not left["finished"]
        assert left["serial"] > 0
    scratch = sqlite3.connect(site.state_dir / "index.db.check")
    [(replayed,)] = scratch.execute(
        "SELECT value FROM state WHERE key = 'applied_serial'"
    ).fetchall()
    scratch.close()
    assert replayed == 20_000, "what it had replayed is still there"
    said = site.piw("check").stdout
    assert said.startswith("Going on with the check of 2")
    assert said.endswith("No differences.\n")
    assert leftovers(site) == set()


def test_what_was_found_before_an_interruption_is_not_forgotten(checked: Site) -> None:
    """`--fresh` starts from the beginning."""
    run = Run(checked.state_dir, against(checked), fresh=True)
    run.index, run.documents = 1, "zzz"
    run.found = [Difference(Part.DOCUMENTS, "p: gone", Sort.DOCUMENT, package="p", fault="others")]
    run.save(now=True)
    with pytest.raises(StateError, match="another check runs"):
        Run(checked.state_dir, [], fresh=True)
    run.close()
    edit_document(checked)  # before "zzz": this run has compared it
    said = checked.piw("check", status=1).stdout
    assert "documents: p: gone (others)" in said
    assert "skipper" not in said
    assert "skipper" in checked.piw("check", status=1).stdout, "that was only for that run"

    run = Run(checked.state_dir, against(checked), fresh=True)
    run.index, run.documents = 1, "zzz"
    run.save(now=True)
    run.close()
    assert "skipper" in checked.piw("check", "--fresh", status=1).stdout


def against(site: Site) -> list[str]:
    reader = JournalReader(site.state_dir / "journal")
    try:
        return [reader.journal_id, str(site.output_path.resolve()), "https://www.piwheels.org"]
    finally:
        reader.close()


def test_a_torn_scratch_index_is_made_anew(checked: Site) -> None:
    run = Run(checked.state_dir, against(checked), fresh=True)
    run.scratch = True
    run.save(now=True)
    run.close()
    (checked.state_dir / "index.db.check").write_bytes(b"garbage " * 1000)
    assert checked.piw("check").stdout.endswith("No differences.\n")
    assert leftovers(checked) == set()


def test_tables_are_compared_in_chunks(checked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of the documents, and wherever they differ."""
    monkeypatch.setattr(index, "_CHUNK", 3)
    for name in ("changed build", "deleted version", "changed counter", "row without a parent"):
        SPOILS[name](checked)
    connection = sqlite3.connect(checked.state_dir / "index.db")
    with connection:
        connection.execute("INSERT INTO packages (package) VALUES ('zzz'), ('aaa')")
    [(builds,)] = connection.execute("SELECT count(*) FROM builds").fetchall()
    [(counters,)] = connection.execute("SELECT count(*) FROM download_counts").fetchall()
    connection.close()
    run = Run(checked.state_dir, [], fresh=True)
    found = Counter(one.table for one in index.check_index(checked.state_dir, run, lambda *_: None))
    run.close()
    assert found["builds"] >= builds
    assert found["download_counts"] == counters
    assert found["packages"] == 2
    assert found["versions"] == 1


def test_check_while_a_daemon_takes_messages(ipc: Feed, site: Site) -> None:
    """Changes during the check are not differences."""
    messages = site.home / "messages.jsonl"
    with messages.open("w") as file:
        for one in range(1, 1501):
            built = samples.log_build(one, f"p{one % 300}", f"{one % 7}.0")
            print(json.dumps(built), file=file)
    with (
        site.daemon(ipc) as daemon,
        site.publisher(ipc, messages, "--rate", 500) as publisher,
    ):
        site.wait(lambda found: found["serial"] > 100, daemon, publisher)
        while site.gather()["serial"] < 1500:
            assert site.piw("check").stdout == "No differences.\n"
        publisher.terminate()
        daemon.terminate()
    assert site.piw("check").stdout == "No differences.\n"
