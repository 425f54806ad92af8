"""How commands end: done, usage, locked or unusable; errors that say what to do, no tracebacks."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from indexer import __version__
from indexer.state.state import State

from .. import needs, samples
from ..forkserver import Forked
from ..support import (
    COMMAND,
    DEADLINE,
    RUN,
    Feed,
    Site,
    case_named,
    contents,
    environment,
    free_ports,
    piw,
)

pytestmark = pytest.mark.acceptance

AS_ROOT = os.geteuid() == 0

WITH_OUTPUT = ("write", "rebuild", "check", "explain")
"""Commands that look at documents."""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with the documents of a case."""
    site = Site(tmp_path_factory.mktemp("pristine"))
    case = case_named("equal-versions")
    site.ingest(case.messages, as_of=case.as_of)
    return site


@pytest.fixture
def filled(pristine: Site, site: Site) -> Site:
    """A copy of the site, to be damaged."""
    site.copy(pristine)
    return site


def assert_explained(stderr: str, *parts: object) -> None:
    """An error says operation, object and cause on one line, and what to do on another."""
    lines = stderr.splitlines()
    assert lines[-2].startswith("piw-indexer: cannot "), stderr
    assert lines[-1].startswith("  what to do: "), stderr
    for part in parts:
        assert str(part) in stderr, stderr


def in_shell(site: Site, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell beside a site."""
    return subprocess.run(
        ["sh", "-c", line], env=environment(site.home), capture_output=True, text=True, check=False
    )


def databases(site: Site) -> dict[str, bytes]:
    """What is in the databases of a state."""
    return {path.name: path.read_bytes() for path in site.state_dir.rglob("*.db")}


def ended_with(
    site: Site,
    arguments: list[str],
    *,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> tuple[int, str]:
    """How a command on a site ends with such standard streams, and what it says on stderr."""
    places = [*site.state, *(site.output if arguments[0] in WITH_OUTPUT else [])]
    if arguments[0] in ("--help", "--version", "install"):
        places = []
    with tempfile.TemporaryFile() as file, open(os.devnull, "rb") as nothing:
        process = Forked(
            [*arguments, *map(str, places)],
            environment=environment(site.home),
            cwd=site.home,
            streams=(nothing.fileno(), (stdout or file).fileno(), (stderr or file).fileno()),
        )
        ended = process.wait(DEADLINE)
        file.seek(0)
        return ended, file.read().decode()


# 0: done


def test_version_and_help_are_results(tmp_path: Path) -> None:
    assert __version__ in piw("--version", home=tmp_path).stdout
    assert piw("-h", home=tmp_path).stdout == piw("--help", home=tmp_path).stdout
    assert piw("status", "-h", home=tmp_path).stdout.startswith("Usage: piw-indexer status")


def test_results_go_to_stdout_and_nothing_to_stderr(filled: Site) -> None:
    for command in ("write", "rebuild", "check", "status", "quarantine"):
        result = filled.piw(command)
        assert result.stdout, command
        assert result.stderr == "", command


def test_ingest_reads_the_standard_input(site: Site) -> None:
    case = case_named("equal-versions")
    site.ingest("-", as_of=case.as_of, input=case.messages.read_bytes())
    site.write_and_compare(case)
    # It is known by its content, as a file is.
    site.ingest(case.messages, as_of=case.as_of)
    assert site.status()["serial"] == case.count


def test_ingest_takes_several_files(site: Site) -> None:
    one, two = case_named("equal-versions"), case_named("farm")
    result = site.ingest(one.messages, two.messages, one.messages)
    counts = [line.rpartition(": ")[2] for line in result.stdout.splitlines()[:3]]
    assert counts == [
        f"{one.count} messages",
        f"{two.count} messages",
        "0 messages, the rest was known",
    ]
    assert site.status()["serial"] == one.count + two.count
    assert site.status()["files_ingested"] == 2


def test_ingest_without_write_publishes_nothing(site: Site) -> None:
    case = case_named("equal-versions")
    site.piw("ingest", case.messages)
    assert not (site.output_path / "packages.json").exists()
    assert site.status()["pending"] > 0
    assert "No differences" in site.piw("check").stdout
    site.write_and_compare(case)
    assert site.status()["pending"] == 0


def test_empty_lines_and_empty_files(site: Site) -> None:
    empty = site.home / "empty.jsonl"
    empty.write_bytes(b"\n \n\n")
    site.ingest(empty)
    site.ingest("-", input=b"")
    status = site.status()
    assert (status["serial"], status["quarantined"]) == (0, 0)
    assert (site.output_path / "packages.json").read_bytes() == b"[]"


def test_last_line_needs_no_end(site: Site) -> None:
    site.ingest("-", input=samples.line(samples.new_package("numpy")).rstrip())
    assert site.status()["serial"] == 1


def test_status_for_programs(filled: Site) -> None:
    status = filled.status()
    count = case_named("equal-versions").count
    assert status["serial"] == status["applied_serial"] == count
    assert (status["pending"], status["quarantined"], status["lag"]) == (0, 0, 0)
    assert status["feeds"] == []
    assert status["problems"] == []
    assert status["held_by"] == ""
    assert status["counts"] == {
        "packages": 1,
        "versions": 12,
        "builds": 12,
        "files": status["counts"]["files"],
        "download_counts": 1,
    }
    assert not status["well"], "no daemon runs"
    lines = filled.piw("status").stdout.splitlines()
    assert lines[0].strip() == "✗ Not well: 1 critical."
    assert lines[1].startswith("✗ daemon-not-running")


def test_status_accounts_for_all_of_its_disk(filled: Site) -> None:
    filled.piw("checkpoint")
    shutil.copytree(filled.state_dir / "journal", filled.state_dir / "spool")
    parts = filled.status()["state_parts"]
    sizes = {
        path.relative_to(filled.state_dir).as_posix(): path.lstat().st_size
        for path in filled.state_dir.rglob("*")
        if path.is_file()
    }
    assert sum(parts.values()) == sum(sizes.values())
    assert parts["index"] == sizes["index.db"]
    assert parts["journal"] == parts["spool"] == filled.status()["journal_bytes"]
    assert parts["checkpoints"] == sum(
        size for name, size in sizes.items() if name.startswith("checkpoint/")
    )
    [disk] = [line for line in filled.piw("status").stdout.splitlines() if line.startswith("disk ")]
    for part in ("journal", "index", "checkpoints", "spool"):
        assert re.search(rf"{part} [0-9.]+ [KM]iB", disk), disk


def test_packages_with_downloads_are_counted_and_not_rows(site: Site) -> None:
    """Every package has a row of counters, and so has one of which only downloads are known."""
    site.take(
        *(samples.new_package(package) for package in ("numpy", "scipy", "pandas")),
        samples.log_download("numpy-1.0-py3-none-any.whl"),
        samples.log_download("unknown-1.0-py3-none-any.whl"),
    )
    assert site.status()["packages_with_downloads"] == 1
    assert "2 counted, of 1 package;" in site.piw("status").stdout


def test_download_of_no_wheel_shows_in_status(site: Site) -> None:
    site.take(samples.log_download("numpy-1.0.tar.gz"), samples.log_download("README"))
    assert site.status()["not_a_wheel"] == 2
    assert "2 of what is not a wheel" in site.piw("status").stdout


def test_reader_that_has_seen_enough_is_no_error(site: Site) -> None:
    """As `| head -1` does: the output is larger than a pipe holds."""
    refused = samples.line(samples.message("N" * 200))
    site.piw("ingest", "-", input=refused * 2000)
    for form in (["--json"], []):  # rich would end with 1
        command = shlex.join([str(COMMAND), "quarantine", *form, *map(str, site.state)])
        done = in_shell(site, f"{{ {command}; echo ended with $? >&2; }} | head -c 1")
        assert done.stdout
        assert done.stderr == "ended with 0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["status", "--help"],
        ["status"],
        ["status", "--json"],
        ["status", "--monitor"],
        ["top"],
        ["show", "equals"],
        ["history", "equals"],
        ["explain", "equals"],
        ["check"],
        ["write"],
        ["rebuild"],
        ["quarantine"],
        ["metrics"],
        ["install", "--dry-run", "--root", "."],
    ],
    ids=" ".join,
)
def test_stdout_that_is_full_is_an_error_in_one_line(filled: Site, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ended, said = ended_with(filled, arguments, stdout=full)
    assert said == "piw-indexer: cannot write to stdout: No space left on device\n"
    assert ended == 4


def test_stdout_that_is_closed_is_an_error_in_one_line(filled: Site) -> None:
    """Its descriptor is not given to a database, which would be overwritten."""
    before = databases(filled)
    state = shlex.join(map(str, filled.state))
    for command in (f"status {state}", f"status --json {state}", "--version"):
        done = in_shell(filled, f"{COMMAND} {command} >&-")
        assert done.stderr == "piw-indexer: cannot write to stdout: it is closed\n"
        assert done.returncode == 4
    assert databases(filled) == before


def test_what_prints_nothing_needs_no_stdout(filled: Site) -> None:
    line = shlex.join(
        [str(COMMAND), *RUN.split(), "--validate", *map(str, filled.state + filled.output)]
    )
    done = in_shell(filled, f"{line} <&- >&- 2>&-")
    assert done.returncode == 0


def test_stdin_that_is_closed_is_an_error(site: Site) -> None:
    done = in_shell(site, shlex.join([str(COMMAND), "ingest", "-", *map(str, site.state)]) + " <&-")
    assert_explained(done.stderr, "cannot read -", "Bad file descriptor")
    assert done.returncode == 2


def test_stderr_that_is_full_does_not_change_how_a_command_ends(site: Site) -> None:
    with open("/dev/full", "wb") as full:
        ended, _ = ended_with(site, ["status"], stderr=full)
    assert ended == 3


def test_umask_does_not_hide_the_site(site: Site) -> None:
    before = os.umask(0o077)
    try:
        site.take(samples.new_package("numpy"), samples.new_name("numpy", "NumPy"))
    finally:
        os.umask(before)
    for path in (site.output_path / "project").rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044, path
    assert (site.output_path / "packages.json").stat().st_mode & 0o777 == 0o644
    assert (site.output_path / "packages.json.gz").stat().st_mode & 0o777 == 0o644
    assert (site.output_path / "project").stat().st_mode & 0o777 == 0o755


# 2: usage


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "frobnicate"),
        (["ingest"], "FILE"),
        (["status", "--frobnicate"], "--frobnicate"),
        (["status", "extra"], "extra"),
        (["write", "--as-of", "yesterday"], "yesterday"),
        (["write", "--as-of", "2026-11-22T14:00:00"], "time zone"),
        (["run", "--settle", "soon"], "soon"),
        (["run", "--settle", "-1"], "-1"),
        (["run", "--settle", "nan"], "nan"),
        (["run", "--settle", "inf"], "inf"),
        (["run", "--max-delay", "nan"], "nan"),
        (["run", "--max-delay", "inf"], "inf"),
        (["run", "--counters-interval", "-0.1"], "-0.1"),
        (["run", "--counters-interval", "nan"], "nan"),
        (["run", "--changes-queue", "somewhere"], "somewhere"),
        (["run", "--changes-queue", "udp://x:1"], "udp://x:1"),
        (["run", "--replay-queue", "tcp://"], "tcp://"),
        (["run", "--changes-queue", "tcp://localhost:port"], "tcp://localhost:port"),
        (["run", "--changes-queue", "ipc:///a", "--changes-queue", "ipc:///b"], "--replay-queue"),
        (["publish", "--rate", "0"], "0"),
        (["publish", "--rate", "nan"], "nan"),
        (["publish", "--rate", "inf"], "inf"),
        (["publish", "missing.jsonl"], "missing.jsonl"),
        (["publish", "--changes-queue", "ipc:///no/such/directory/x"], "ipc:///no/such"),
        (["publish", "--changes-queue", "tcp://localhost:99999999"], "tcp://localhost:99999999"),
        (["ingest", "missing.jsonl"], "missing.jsonl"),
        (["ingest", "."], "."),
        (["quarantine", "one"], "one"),
        (["check", "-c", "missing.conf"], "missing.conf"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_of_usage(arguments: list[str], says: str, site: Site) -> None:
    if arguments[0] == "quarantine":
        site.take(samples.new_package("numpy"))
    options = [*site.state] if len(arguments) > 1 else []
    if arguments[0] in ("run", "write", "ingest", "check"):
        options += site.output
    if arguments[0] == "publish" and "--changes-queue" not in arguments:
        changes, replay = free_ports(2)
        options += ["--changes-queue", f"tcp://127.0.0.1:{changes}"]
        options += ["--replay-queue", f"tcp://127.0.0.1:{replay}", "--exit"]
    if arguments[0] == "publish" and "--changes-queue" in arguments:
        options += ["--replay-queue", "ipc:///no/such/directory/replay"]
    if "--rate" in arguments:
        (site.home / "one.jsonl").write_bytes(samples.line(samples.new_package("numpy")))
        options += ["one.jsonl"]
    result = piw(*arguments, *options, home=site.home, status=2)
    assert says in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif(AS_ROOT, reason="root may read everything")
def test_file_that_may_not_be_read(site: Site) -> None:
    file = site.home / "secret.jsonl"
    file.write_bytes(b"")
    file.chmod(0)
    result = site.ingest(file, status=2)
    assert_explained(result.stderr, file, "ermission")


def test_address_that_somebody_has_bound(ipc: Feed, tcp: Feed, site: Site) -> None:
    with site.publisher(tcp) as publisher:
        site_two = Site(site.home / "two")
        site_two.home.mkdir()
        with site.daemon(tcp) as daemon:
            site.wait(lambda found: len(found["feeds"]) == 1, daemon, publisher)
            with site_two.publisher(tcp) as other:
                assert other.wait() == 2
                assert_explained(other.output, tcp.changes, "bind")
            daemon.terminate()


# 3: locked or unusable


@pytest.fixture
def held(site: Site) -> Iterator[Site]:
    """A site whose state another process holds."""
    state = State(site.state_dir, "run", lambda: samples.NOW)
    yield site
    state.close()


@pytest.mark.parametrize(
    "command",
    [
        RUN.split(),
        ["ingest", "-"],
        ["ingest", "--write", "-"],
        ["write"],
        ["rebuild"],
        ["check", "--fix"],
        ["quarantine", "--retry"],
    ],
    ids=" ".join,
)
def test_a_locked_state_is_refused_and_the_holder_named(command: list[str], held: Site) -> None:
    output = [] if command[0] == "quarantine" else held.output
    result = piw(*command, *held.state, *output, home=held.home, status=3)
    assert_explained(result.stderr, held.state_dir, f"piw-indexer run (pid {os.getpid()})")
    assert held.status()["held_by"] == f"piw-indexer run (pid {os.getpid()})"


def test_locked_state_may_be_looked_at(held: Site) -> None:
    held.piw("check")
    held.piw("quarantine")
    held.piw("status")


def test_ingest_is_refused_while_a_daemon_runs(ipc: Feed, site: Site) -> None:
    case = case_named("equal-versions")
    with site.daemon(ipc) as daemon:
        site.wait(lambda found: f"pid {daemon.pid}" in found["held_by"], daemon)
        result = site.ingest(case.messages, status=3)
        assert_explained(result.stderr, f"piw-indexer run (pid {daemon.pid})")
        assert "No differences" in site.piw("check").stdout
        daemon.kill()
    # Nothing that a killed daemon left behind locks it.
    site.ingest(case.messages)
    site.write_and_compare(case)


def test_two_publishers_of_one_spool(ipc: Feed, tcp: Feed, site: Site) -> None:
    with site.publisher(ipc) as publisher, site.daemon(ipc) as daemon:
        site.wait(lambda found: len(found["feeds"]) == 1, daemon, publisher)
        with site.publisher(tcp) as other:
            assert other.wait() == 3
            assert_explained(other.output, f"piw-indexer publish (pid {publisher.pid})")
        publisher.terminate()
        daemon.terminate()


@pytest.mark.parametrize("command", ["status", "check", "quarantine"])
def test_state_that_is_not_there(command: str, site: Site) -> None:
    result = site.piw(command, status=3)
    assert_explained(result.stderr, site.state_dir)
    assert not site.state_dir.exists()


@pytest.mark.parametrize("command", ["write", "rebuild"])
def test_state_that_is_not_there_does_not_empty_the_site(command: str, filled: Site) -> None:
    """A mistyped --state-dir must not replace packages.json by an empty one."""
    before = contents(filled.output_path)
    wrong = filled.home / "stat"
    result = filled.piw(command, "--state-dir", wrong, status=None)
    assert contents(filled.output_path) == before
    assert result.status == 3
    assert_explained(result.stderr, wrong)


@pytest.mark.parametrize("command", [RUN, "ingest -", "write", "rebuild"])
def test_paths_below_a_file(command: str, site: Site) -> None:
    (site.home / "file").write_text("")
    below = site.home / "file" / "directory"
    result = piw(*command.split(), "--state-dir", below, *site.output, home=site.home, status=3)
    assert_explained(result.stderr, below)
    options = ["--write"] if "ingest" in command else []
    result = piw(
        *command.split(), *options, *site.state, "--output-path", below, home=site.home, status=None
    )
    assert result.status in (2, 3)
    assert_explained(result.stderr, below)
    assert not site.state_dir.exists(), "nothing is touched before the output path is known good"


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_output_path_that_may_not_be_written(filled: Site) -> None:
    for path in (filled.output_path, filled.output_path / "project"):
        path.chmod(0o555)
    try:
        result = filled.piw("write", "--all", status=None)
    finally:
        for path in (filled.output_path, filled.output_path / "project"):
            path.chmod(0o755)
    assert result.status in (2, 3)
    assert_explained(result.stderr, filled.output_path)


def newer(path: Path) -> None:
    """Make a database look as if a newer version of the program had written it."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " SELECT migration_set, '999-later', applied_at FROM _sqlite_migrations LIMIT 1"
        )
    connection.close()


COMMANDS = [RUN, "ingest -", "write", "check", "check --fix", "status"]


@pytest.mark.parametrize("command", [*COMMANDS])
def test_newer_index_is_refused(command: str, filled: Site) -> None:
    newer(filled.state_dir / "index.db")
    assert_refused_as_newer(command, filled)


@pytest.mark.parametrize("command", [*COMMANDS, "rebuild", "quarantine", "quarantine --retry"])
def test_newer_journal_is_refused(command: str, filled: Site) -> None:
    [journal] = filled.state_dir.glob("journal/*.db")
    newer(journal)
    assert_refused_as_newer(command, filled)


def assert_refused_as_newer(command: str, site: Site) -> None:
    before = contents(site.output_path)
    result = site.piw(*command.split(), status=3)
    assert_explained(result.stderr, "newer", "999-later")
    assert contents(site.output_path) == before


@pytest.mark.parametrize("how", ["garbage", "empty", "torn", "gone", "half"])
def test_damaged_index_is_made_anew_by_itself(how: str, site: Site) -> None:
    case = case_named("lifecycle")
    site.ingest(case.messages, as_of=case.as_of)
    published = contents(site.output_path)
    path = site.state_dir / "index.db"
    damage(path, how)
    site.piw("write", "--as-of", case.as_of)
    assert contents(site.output_path) == published
    assert site.piw("check").stdout == "No differences.\n"


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    match how:
        case "garbage":
            path.write_bytes(b"no database " * 4096)
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(whole[: len(whole) // 2] + b"\xff" * (len(whole) - len(whole) // 2))
        case "half":
            path.write_bytes(whole[: len(whole) // 2])
        case "gone":
            path.unlink()


@pytest.mark.parametrize("how", ["garbage", "torn", "half"])
def test_damaged_journal_is_refused(how: str, filled: Site) -> None:
    [journal] = filled.state_dir.glob("journal/*.db")
    damage(journal, how)
    before = contents(filled.output_path)
    for command in ("rebuild", "check"):
        result = filled.piw(command, status=3)
        assert_explained(result.stderr, "journal")
        assert "backup" in result.stderr
    assert contents(filled.output_path) == before


def test_journal_that_lost_its_end_is_refused(filled: Site) -> None:
    """As after a restore of an old journal beside a new index."""
    [journal] = filled.state_dir.glob("journal/*.db")
    connection = sqlite3.connect(journal)
    with connection:
        connection.execute("DELETE FROM messages WHERE serial > 20")
    connection.close()
    result = filled.piw("write", status=3)
    assert_explained(result.stderr, "lost its end", "rebuild")
    # It is the admin's to accept.
    filled.piw("rebuild")
    assert filled.status()["serial"] == 20
    assert "No differences" in filled.piw("check").stdout


# What the sqlite3 shell answers


def test_admin_questions_are_answered_by_a_view_without_a_join(site: Site) -> None:
    numpy = "numpy-2.2.6-cp311-cp311-linux_armv7l.whl"
    site.take(
        samples.set_abis("cp39", "cp311", "cp313", "cp314"),
        samples.log_build(1, "numpy", "2.2.6", numpy, abi_tag="cp311"),
        samples.log_build(2, "numpy", "2.2.6", abi_tag="cp39", status=False),
        samples.log_build(3, "numpy", "2.2.6", abi_tag="cp314"),
        samples.log_download(numpy),
        samples.new_version("scipy", "1.0"),
    )

    def ask(question: str) -> list[str]:
        done = subprocess.run(
            [needs.program("sqlite3"), "-readonly", site.state_dir / "index.db", question],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    today = "date(built_at) = date('2026-11-20')"
    assert ask(f"SELECT package, version, abi_tag FROM build_failures WHERE {today}") == [
        "numpy|2.2.6|cp39"
    ]
    assert ask("SELECT package, version FROM builds_pending WHERE abi_tag = 'cp313'") == [
        "numpy|2.2.6",
        "scipy|1.0",
    ]
    assert ask("SELECT * FROM top_downloads LIMIT 20") == ["numpy|1|1", "scipy|0|0"]
    assert ask(
        "SELECT abi_tag, status, build_id FROM build_status"
        " WHERE package = 'numpy' AND version = '2.2.6' ORDER BY abi_tag"
    ) == ["cp311|success|1", "cp313|pending|", "cp314|error|3", "cp39|fail|2"]
    schema = "\n".join(ask(".schema"))
    for word in ("-- Every package of PyPI", "-- bytes", "-- the slave's number"):
        assert word in schema


@pytest.mark.skipif(not AS_ROOT, reason="only root can become somebody else")
def test_root_leaves_nothing_that_the_daemon_cannot_write() -> None:
    somebody = 65534
    with tempfile.TemporaryDirectory(prefix="piw-") as directory:
        os.chmod(directory, 0o755)
        site = Site(Path(directory))
        site.take(samples.new_package("numpy"), {"msg": "NEWPKG", "data": {"package": "../x"}})
        for path in [Path(directory), *Path(directory).rglob("*")]:
            os.lchown(path, somebody, somebody)
        site.take(samples.new_package("scipy"))
        (site.output_path / "project" / "scipy" / "json" / "index.json").write_text("{}")
        (site.state_dir / "index.db").write_bytes(b"no index")
        site.piw("check", "--fix", *site.output, status=None)
        site.piw("rebuild", *site.output)
        site.piw("write", "--all", *site.output)
        site.piw("quarantine", 1, "--dismiss")
        site.piw("import-site", site.output_path)
        assert site.piw("check", *site.output).stdout.endswith("No differences.\n")
        owners = {path: path.lstat().st_uid for path in Path(directory).rglob("*")}
        assert set(owners.values()) == {somebody}, owners


@pytest.mark.parametrize("place", ["project/numpy/json/index.json", "packages.json"])
def test_a_fifo_in_the_output_tree_holds_nobody_up(site: Site, place: str) -> None:
    """Opening a FIFO would wait for a writer for ever."""
    site.take(samples.new_package("numpy"))
    path = site.output_path / place

    def plant() -> None:
        path.unlink()
        os.mkfifo(path)

    plant()
    assert "is not a file" in site.piw("check", status=1).stdout
    site.piw("explain", "numpy")
    site.piw("check", "--fix")
    assert path.is_file()
    plant()
    site.piw("write", "--all")
    assert path.is_file()
