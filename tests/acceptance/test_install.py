"""`piw-indexer install`: what it writes, whether systemd accepts it, and what it leaves alone."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer.base import options
from indexer.install import files as installation

from .. import needs, samples
from ..support import COMMAND, REPOSITORY, RUN, Site, contents, environment, piw

pytestmark = pytest.mark.acceptance

UNITS = REPOSITORY / "systemd"
SERVICES = [name for name in installation.UNITS if name.endswith(".service")]
PASSWD = "root:x:0:0:root:/root:/bin/bash\n"
PIWHEELS = "piwheels:x:999:999::/home/piwheels:/bin/bash\n"
MAX_EXPOSED = 2.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine without piwheels."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(PASSWD)
    return root


@pytest.fixture
def master(root: Path) -> Iterator[Path]:
    """A machine with a running master."""
    (root / "etc" / "passwd").write_text(PASSWD + PIWHEELS)
    (root / "tmp").mkdir()
    (root / "etc" / "piwheels.conf").write_text(
        "[master]\n"
        "status-queue = ipc:///tmp/piw-first\n"
        "output-path = /var/www/html\n"
        "debug\n"
        "[slave]\n"
        "db-queue: ipc:///tmp/piw-db ; not inproc\n"
        "status-queue = ipc:///tmp/piw-status\n"
        "log-queue=ipc:///tmp/piw-master-logger\n"
    )
    # Bound by a short relative name: the path of a socket has but 107 bytes.
    directory = os.open(root / "tmp", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as status:
        status.bind(f"/proc/self/fd/{directory}/piw-status")
        os.close(directory)
        yield root


def install(root: Path, *arguments: object, status: int | None = 0) -> str:
    result = piw("install", "--root", root, *arguments, home=root.parent, status=status)
    return result.stdout if not status else result.stderr


def text(root: Path, path: str) -> str:
    return (root / path.lstrip("/")).read_text()


def unit(root: Path, name: str = "piw-indexer.service") -> str:
    return text(root, f"{installation.UNIT_DIRECTORY}/{name}")


def systemd_analyze(*arguments: object) -> str:
    done = subprocess.run(
        [needs.program("systemd-analyze"), *map(str, arguments)],
        env=environment(Path("/nonexistent")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


def exposure(path: Path) -> float:
    found = re.search(r"exposure level for \S+: ([0-9.]+)", systemd_analyze_security(path))
    assert found is not None
    return float(found[1])


def systemd_analyze_security(path: Path) -> str:
    return systemd_analyze("security", "--offline=yes", "--no-pager", path)


# systemd's own judgement


def test_units_in_the_repository_are_clean() -> None:
    assert {path.name for path in UNITS.glob("*.*r*")} >= set(installation.UNITS)
    for name in installation.UNITS:
        said = systemd_analyze("verify", UNITS / name).splitlines()
        # Where the command is not installed, that is all there is to say.
        assert {line.partition(": ")[2] for line in said} <= {
            "Command /usr/local/bin/piw-indexer is not executable: No such file or directory"
        }


@pytest.mark.parametrize("name", SERVICES)
def test_services_in_the_repository_are_hardened(name: str) -> None:
    assert exposure(UNITS / name) <= MAX_EXPOSED


def test_units_are_clean_and_hardened_as_installed(root: Path) -> None:
    install(root, "--output-path", "/srv/a site")
    for name in installation.UNITS:
        path = root / "etc" / "systemd" / "system" / name
        assert systemd_analyze("verify", path) == "", name
        if name in SERVICES:
            assert exposure(path) <= MAX_EXPOSED


def test_verify_finds_what_it_should(root: Path) -> None:
    """Proves that the test above can fail."""
    install(root)
    path = root / "etc" / "systemd" / "system" / "piw-indexer.service"
    path.write_text(path.read_text().replace("ProtectClock=yes", "ProtectCloak=yes"))
    assert "ProtectCloak" in systemd_analyze("verify", path)


def test_units_are_of_one_kind() -> None:
    """The daemon has no more rights than the check, except those that its work needs."""
    daemon, check = ((UNITS / name).read_text().splitlines() for name in SERVICES)
    hardening = [
        line for line in check if re.match(r"(Protect|Restrict|Private|Capab|NoNew|Memory)", line)
    ]
    assert set(hardening) - set(daemon) == {"PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"}


# What it finds


def test_a_machine_without_piwheels(root: Path) -> None:
    said = install(root)
    assert "systemctl enable --now piw-indexer.service piw-indexer-check.timer" in said
    assert f"ExecStart={COMMAND} run -c /etc/piw-indexer.conf\n" in unit(root)
    assert f"ExecStart={COMMAND} check -c /etc/piw-indexer.conf\n" in unit(root, SERVICES[1])
    for name in SERVICES:
        assert "\nUser=piw-indexer\n" in unit(root, name)
        assert "\nReadWritePaths=-/srv/piw-indexer\n" in unit(root, name)
    assert "\nu piw-indexer " in text(root, installation.SYSUSERS)
    assert "\nd /srv/piw-indexer 0755 piw-indexer" in text(root, installation.TMPFILES)
    found = options.read_file(root / "etc" / "piw-indexer.conf")
    assert found == {"output_path": Path("/srv/piw-indexer")}
    assert "No piwheels was found" in text(root, installation.CONFIGURATION)


def test_a_machine_with_a_master(master: Path) -> None:
    install(master)
    assert "\nUser=piwheels\n" in unit(master)
    assert not (master / installation.SYSUSERS.lstrip("/")).exists()
    found = options.read_file(master / "etc" / "piw-indexer.conf")
    assert found == {
        "output_path": Path("/srv/piw-indexer"),
        "status_queue": "ipc:///tmp/piw-status",  # the last line of a name, not the first
        "db_queue": "ipc:///tmp/piw-db",
    }
    said = text(master, installation.CONFIGURATION)
    assert "/var/www/html (/etc/piwheels.conf, line 3)" in said
    assert "from /etc/piwheels.conf, line 7; its socket is there" in said
    assert "#log-forward = ipc:///tmp/piw-master-logger\n" in said
    commented = re.sub(r"^#([a-z-]+ = )", r"\1", said, flags=re.M)
    (master / "all.conf").write_text(commented)
    assert len(options.read_file(master / "all.conf")) > 7, "what is commented out is valid, too"


def test_a_master_that_does_not_run_and_lets_nobody_ask(master: Path) -> None:
    (master / "tmp" / "piw-status").unlink()
    (master / "etc" / "piwheels.conf").write_text("output-path = /var/www\n")
    install(master)
    found = options.read_file(master / "etc" / "piw-indexer.conf")
    assert found["status_queue"] == "ipc:///tmp/piw-status"
    assert "db_queue" not in found
    assert "is the master running?" in text(master, installation.CONFIGURATION)


def test_what_is_said_counts_before_what_is_found(master: Path) -> None:
    home = master / "home" / "piwheels" / ".config" / "piwheels"
    home.mkdir(parents=True)
    (home / "piwheels.conf").write_text("[indexer]\noutput-path = /srv/first\n")
    install(master)
    assert "\nReadWritePaths=-/srv/first\n" in unit(master)
    install(master, "--output-path", "/var/www", "--user", "root")
    assert "\nReadWritePaths=-/var/www\n" in unit(master)
    assert "\nUser=root\n" in unit(master)
    assert "no such user" in install(master, "--user", "nobody-here", status=2)


def test_the_unit_follows_the_configuration(root: Path) -> None:
    install(root)
    path = root / "etc" / "piw-indexer.conf"
    path.write_text(path.read_text().replace("/srv/piw-indexer", "/srv/elsewhere"))
    assert "/etc/piw-indexer.conf: kept, because it was edited" in install(root)
    assert "\nReadWritePaths=-/srv/elsewhere\n" in unit(root)


# What it does not believe


HOSTILE = {
    "a line break": "/srv/x\n  ExecStartPre=+/home/piwheels/evil",
    "a carriage return": "/srv/x\rExecStartPre=+/home/piwheels/evil",
    "a control character": "/srv/x\x1b[2J",
    "a separator": "/srv/x\u2028User=root",
    "a quote": '/srv/x" "/etc',
    "a backslash": "/srv/x\\",
    "the way up": "/srv/x/../../etc",
    "a space at its end": "/srv/x ",
    "all that there is": "/",
}
"""Output paths."""

hostile = pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)


def nothing_was_written(root: Path) -> bool:
    return not list((root / "etc").rglob("*piw-indexer*"))


@hostile
def test_hostile_output_paths(root: Path, value: str) -> None:
    said = install(root, "--output-path", value, status=2)
    assert "install for an output path" in said
    assert "\x1b" not in said
    assert nothing_was_written(root)
    settings = {"PIW_INDEXER_OUTPUT_PATH": value}
    result = piw("install", "--root", root, home=root.parent, status=2, settings=settings)
    assert "install for an output path" in result.stderr
    assert nothing_was_written(root)


@pytest.mark.parametrize(
    "file", ["etc/piwheels.conf", "usr/local/etc/piwheels.conf", "etc/piw-indexer.conf"]
)
@pytest.mark.parametrize("value", [*HOSTILE.values(), "srv/x", "./x"], ids=[*HOSTILE, "r", "r2"])
def test_hostile_output_paths_from_a_file(root: Path, file: str, value: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(f"[indexer]\noutput-path = {value}\n")
    if value.strip() != value:  # of a file, spaces around a value are not part of it
        install(root)
        assert "\nReadWritePaths=-/srv/x\n" in unit(root)
        return
    install(root, status=2)
    assert not (root / "etc" / "systemd").exists()


@pytest.mark.parametrize("user", ["root\nExecStartPre=+/x", "a b", "0", "-x", "%u", ""])
def test_a_user_name_that_systemd_misreads_is_refused(root: Path, user: str) -> None:
    (root / "etc" / "passwd").write_text(f"{PASSWD}{user}:x:999:999::/home/x:/bin/bash\n")
    install(root, "--user", user, status=None if not user else 2)
    if user:
        assert nothing_was_written(root)
    else:
        assert "\nUser=piw-indexer\n" in unit(root)


@pytest.mark.parametrize("output", ["/srv/a site", "/srv/50%/%n", "/srv/$HOME;#x", "/srv/ü"])
def test_unusual_paths_are_written_as_systemd_reads_them(
    root: Path, tmp_path: Path, output: str
) -> None:
    """systemd-analyze verify reports a command that it cannot find."""
    command = tmp_path / "50% of $HOME" / "piw-indexer"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    machine = installation.Machine(command, "root", Path(output), {}, frozenset(), 252)
    for path, content in installation.files(machine).items():
        installation.put(root, path, content)
    for name in installation.UNITS:
        assert systemd_analyze("verify", root / "etc" / "systemd" / "system" / name) == ""
    assert options.read_file(root / "etc" / "piw-indexer.conf") == {"output_path": Path(output)}


def test_a_configuration_of_a_terabyte_is_not_read(master: Path) -> None:
    """The file has no block on the disk; the master's user can make one in a moment."""
    directory = master / "home" / "piwheels" / ".config" / "piwheels"
    directory.mkdir(parents=True)
    (directory / "piwheels.conf").touch()
    os.truncate(directory / "piwheels.conf", 2**40)
    result = piw("install", "--root", master, home=master.parent, status=2)
    assert "it has more than 1 MiB" in result.stderr


@pytest.mark.parametrize("trap", ["loop", "spaces"])
def test_a_configuration_that_holds_up_root(master: Path, trap: str) -> None:
    directory = master / "home" / "piwheels" / ".config" / "piwheels"
    directory.mkdir(parents=True)
    if trap == "loop":
        (directory / "piwheels.conf").symlink_to("piwheels.conf")
    else:
        (directory / "piwheels.conf").write_text(f"a=b{' ' * 1000}c")
    assert "what to do: correct it" in install(master, status=2)


@pytest.mark.parametrize("way", ["link", "directory", "home"])
def test_configurations_outside_of_an_image_are_not_read(
    root: Path, tmp_path: Path, way: str
) -> None:
    """A link in it, or the home of a user of it, may lead to files of this machine."""
    outside = tmp_path / "outside" / ".config" / "piwheels"
    outside.mkdir(parents=True)
    (outside / "piwheels.conf").write_text(
        "[indexer]\noutput-path = /srv/stolen\n[master]\nstatus-queue = ipc:///tmp/stolen\n"
    )
    home = "/../outside" if way == "home" else "/home/piwheels"
    (root / "etc" / "passwd").write_text(f"{PASSWD}piwheels:x:999:999::{home}:/bin/sh\n")
    if way == "link":
        (root / "etc" / "piwheels.conf").symlink_to(outside / "piwheels.conf")
    elif way == "directory":
        (root / "home").mkdir()
        (root / "home" / "piwheels").symlink_to(tmp_path / "outside")
    install(root)
    assert "stolen" not in unit(root)
    assert "stolen" not in text(root, installation.CONFIGURATION)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
@pytest.mark.parametrize("whose", ["file", "directory", "mode", "link"])
def test_what_the_services_user_may_write_is_no_word_of_roots(master: Path, whose: str) -> None:
    directory = master / "home" / "piwheels" / ".config" / "piwheels"
    directory.mkdir(parents=True)
    path = directory / "piwheels.conf"
    path.write_text("[indexer]\noutput-path = /etc\n[master]\nstatus-queue = ipc:///tmp/x\x1b[2J\n")
    if whose == "file":
        os.chown(path, 999, 999)
    elif whose == "directory":
        os.chown(directory.parent.parent, 999, 999)
    elif whose == "mode":
        path.chmod(0o666)
    else:
        path.rename(master / "home" / "theirs")
        path.symlink_to(master / "home" / "theirs")
        os.chown(path, 999, 999, follow_symlinks=False)
    result = piw("install", "--root", master, home=master.parent)
    assert f"the output-path in {path} is ignored" in result.stderr
    assert "\nReadWritePaths=-/srv/piw-indexer\n" in unit(master)
    assert "\x1b" not in text(master, installation.CONFIGURATION)
    path.write_text("nonsense\n[indexer\n")
    install(master)


@pytest.mark.parametrize(
    "path", ["etc/systemd", "etc/systemd/system", "etc/sysusers.d", "etc/tmpfiles.d"]
)
def test_links_in_an_image_lead_nowhere(root: Path, tmp_path: Path, path: str) -> None:
    """Below --root: a link made by others may lead out of the image."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).symlink_to(theirs)
    assert f"/{path}" in install(root, status=2)
    assert list(theirs.iterdir()) == []


@pytest.mark.parametrize("plant", ["link", "FIFO", "directory"])
def test_what_is_in_the_place_of_a_unit(root: Path, tmp_path: Path, plant: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    path = root / "etc" / "systemd" / "system" / "piw-indexer.service"
    path.parent.mkdir(parents=True)
    if plant == "link":
        path.symlink_to(victim)
    elif plant == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert str(path) in install(root, status=2)
    assert victim.read_text() == "theirs"


# What it leaves alone


def test_dry_run_shows_all_and_touches_nothing(root: Path) -> None:
    before = contents(root)
    said = install(root, "--dry-run")
    assert contents(root) == before
    assert "/etc/piw-indexer.conf: would be written" in said
    assert "    output-path = /srv/piw-indexer\n" in said
    assert "would run: systemd-sysusers /etc/sysusers.d/piw-indexer.conf" in said
    install(root)
    before = contents(root)
    assert "would be written" not in install(root, "--dry-run")
    said = install(root, "--dry-run", "--output-path", "/var/www")
    assert "    -ReadWritePaths=-/srv/piw-indexer\n    +ReadWritePaths=-/var/www\n" in said
    assert contents(root) == before


def test_again_changes_nothing(root: Path) -> None:
    install(root)
    before = contents(root)
    said = install(root)
    assert said.count(": unchanged\n") == len(before) - 1
    assert contents(root) == before


def test_what_was_edited_is_kept(root: Path) -> None:
    install(root)
    path = root / "etc" / "systemd" / "system" / "piw-indexer.service"
    path.write_text(path.read_text().replace("MemoryMax=1G", "MemoryMax=2G"))
    edited = path.read_text()
    assert ": kept, because it was edited" in install(root)
    assert path.read_text() == edited
    assert "\nMemoryMax=1G\n" in path.with_name("piw-indexer.service.new").read_text()


def test_an_older_version_is_replaced_unless_it_was_edited(root: Path) -> None:
    install(root)
    path = root / "etc" / "systemd" / "system" / "piw-indexer.service"
    written = path.read_text()
    older = installation.marked("[Service]\nMemoryMax=12M\n").replace(" install` ", " install` 0.")
    path.write_text(older)
    install(root)
    assert path.read_text() == written
    path.write_text(older.replace("12M", "13M"))
    install(root)
    assert "13M" in path.read_text()


def test_the_way_back(root: Path) -> None:
    before = contents(root)
    install(root)
    install(root, "--remove", "--dry-run")
    wants = root / "etc" / "systemd" / "system" / "multi-user.target.wants"
    wants.mkdir()
    (wants / "piw-indexer.service").symlink_to("/etc/systemd/system/piw-indexer.service")
    assert "systemctl disable --now" in install(root, "--remove", status=2)
    shutil.rmtree(wants)
    state = root / "var" / "lib" / "piw-indexer"
    state.mkdir(parents=True)
    path = root / "etc" / "piw-indexer.conf"
    path.write_text(path.read_text() + "settle = 2\n")
    said = install(root, "--remove")
    assert "/etc/piw-indexer.conf: kept, because it was edited" in said
    assert state.is_dir()
    left = contents(root)
    assert left.keys() - before.keys() == {"etc/piw-indexer.conf"}


def test_who_may_not_write_is_told(root: Path) -> None:
    (root / "etc" / "systemd").write_text("in the way")
    said = install(root, status=2)
    assert "/etc/systemd/system/piw-indexer.service" in said
    assert "--dry-run" in said


# Downgrades


def newer(path: Path) -> None:
    """Make a database look as if a later version had changed it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " SELECT migration_set, '999-later', applied_at FROM _sqlite_migrations LIMIT 1"
        )


def test_a_newer_index_is_refused_and_made_again(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    index = site.state_dir / "index.db"
    newer(index)
    for command in ("write", "rebuild", RUN, "status", "check"):
        output = site.output if command == RUN else []
        said = site.piw(*command.split(), *output, status=3).stderr
        assert "999-later" in said, command
        assert f"`rm {index}*`" in said, command
        assert "install that version again" in said
    for path in site.state_dir.glob("index.db*"):  # as it says
        path.unlink()
    site.take(samples.new_package("scipy"))
    assert (site.output_path / "packages.json").read_bytes() == b'[["numpy",0,0],["scipy",0,0]]'


def test_a_newer_journal_is_refused(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    (month,) = (site.state_dir / "journal").glob("*.db")
    newer(month)
    before = contents(site.state_dir / "journal")
    for command in ("write", "rebuild", RUN, "status", "check"):
        output = site.output if command == RUN else []
        said = site.piw(*command.split(), *output, status=3).stderr
        assert str(month) in said
        assert "999-later" in said, command
        assert "install that version again" in said
        assert "restore a backup" in said
    after = contents(site.state_dir / "journal")
    assert after[month.name][0] == before[month.name][0]


# From a checkout


def test_pip_installs_a_checkout(root: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("indexer", "schema", "systemd"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, checkout / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, checkout)
    shutil.copytree(REPOSITORY / "docs" / "man", checkout / "docs" / "man")
    venv = tmp_path / "opt"
    # What it depends on is what the tests have: pip looks after that, and it is not what is tested.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [libraries] = venv.glob("lib/python3*/site-packages")
    (libraries / "tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(venv), "install", "--no-deps", "--quiet"]
    subprocess.run([*pip, str(checkout)], check=True)

    for path in (REPOSITORY / "schema").glob("*.sql"):
        assert (libraries / "indexer" / "schema" / path.name).read_bytes() == path.read_bytes()

    def installed(*arguments: str) -> str:
        done = subprocess.run(
            [venv / "bin" / "piw-indexer", "install", "--root", root, *arguments],
            env=environment(tmp_path),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    # man does not look into the environment: there are links, but for a page of somebody else's.
    manual = root / "usr" / "local" / "share" / "man"
    pages = sorted(path.name for path in (REPOSITORY / "docs" / "man").iterdir())
    (manual / "man1").mkdir(parents=True)
    (manual / "man1" / "piw-indexer-run.1").write_text("somebody else's")
    (manual / "man1" / "piw-indexer-old.1").symlink_to("/opt/old/share/man/man1/piw-indexer-old.1")
    said = f"/usr/local/share/man: {len(pages) - 1} manual pages"
    assert f"{said} would be linked" in installed("--dry-run")
    assert f"{said} linked" in installed()
    assert "manual pages" not in installed()
    links = {path.name for path in manual.glob("*/*") if path.is_symlink()}
    assert links == set(pages) - {"piw-indexer-run.1"}
    page = (manual / "man5" / "piw-indexer.conf.5").read_bytes()
    assert page == (REPOSITORY / "docs" / "man" / "piw-indexer.conf.5").read_bytes()
    assert f"ExecStart={venv}/bin/piw-indexer run" in unit(root)
    path = root / "etc" / "systemd" / "system" / "piw-indexer.service"
    assert systemd_analyze("verify", path) == ""
    assert f"{len(links)} links removed" in installed("--remove")
    assert [path.name for path in manual.glob("*/*")] == ["piw-indexer-run.1"]
