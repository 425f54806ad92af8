"""Files that are opened to write are never links, FIFOs or files of others, whatever the umask."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.base import database, filesystem, lock, notes, places
from indexer.base.directories import CHECK
from indexer.base.errors import ForeignFileError, StateError
from indexer.base.lock import Lock
from indexer.check.resume import RESUME, Run
from indexer.daemon.status_file import LiveFile
from indexer.index import queries
from indexer.messages import poison
from indexer.piwheels.bridge.unsettled import FILE as MARKS
from indexer.piwheels.bridge.unsettled import Marks
from indexer.schema import index as schema
from indexer.state.state import State
from indexer.watch.notes import Check

from ..support import contents

pytestmark = pytest.mark.integration

AS_ROOT = os.geteuid() == 0
OTHER = 4242


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that must never be touched."""
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    victim.chmod(0o600)
    yield victim
    assert victim.read_text() == "theirs"
    assert mode(victim) == 0o600


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


PLANTED: dict[str, Callable[[Path, Path], None]] = {
    "a link": lambda path, victim: path.symlink_to(victim),
    "a link to nothing": lambda path, victim: path.symlink_to(victim.with_name("nothing")),
    "a hard link": lambda path, victim: os.link(victim, path),
    "a FIFO": lambda path, victim: os.mkfifo(path),
    "a socket": lambda path, victim: os.mknod(path, stat.S_IFSOCK | 0o600),
}
"""What somebody may have put where a file of ours belongs."""

planted = pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
not_regular = pytest.mark.parametrize(
    "plant", [PLANTED[name] for name in PLANTED if name != "a hard link"]
)


# What is made


@planted
def test_what_is_in_the_place_of_a_new_file_gives_way(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(tmp_path / "new", victim)
    descriptor = filesystem.create(tmp_path / "new")
    os.write(descriptor, b"ours")
    os.close(descriptor)
    assert (tmp_path / "new").read_bytes() == b"ours"
    assert not (tmp_path / "nothing").exists()


@planted
def test_a_key_is_made_only_where_nothing_is(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(tmp_path / "new", victim)
    with pytest.raises(FileExistsError):
        filesystem.create(tmp_path / "new", over=False)
    assert not (tmp_path / "nothing").exists()


@planted
@pytest.mark.parametrize("name", ["note", filesystem.TEMPORARY.format("note")])
def test_a_small_file_is_written_beside_what_somebody_has_planted(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None], name: str
) -> None:
    plant(tmp_path / name, victim)
    filesystem.write(tmp_path / "note", b"ours")
    assert (tmp_path / "note").read_bytes() == b"ours"
    assert not (tmp_path / filesystem.TEMPORARY.format("note")).exists()
    assert not (tmp_path / "nothing").exists()


def test_modes_are_as_they_are_named(tmp_path: Path, umask: int) -> None:
    os.close(filesystem.create(tmp_path / "one", 0o640))
    filesystem.write(tmp_path / "two", b"", filesystem.DOCUMENT)
    os.close(filesystem.open_own(tmp_path / "three"))
    assert [mode(tmp_path / name) for name in ("one", "two", "three")] == [0o640, 0o644, 0o600]


def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "note").write_bytes(b"before")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        filesystem.write(tmp_path / "note", b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").read_bytes() == b"before"


def test_somebody_who_is_there_again_and_again(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unlink = tmp_path / "new", os.unlink

    def race(name: Path, **where: int) -> None:
        unlink(name, **where)
        path.symlink_to(victim)

    path.symlink_to(victim)
    monkeypatch.setattr(os, "unlink", race)
    with pytest.raises(FileExistsError, match="keeps making a file"):
        filesystem.create(path)


# What is opened


@not_regular
def test_only_regular_files_are_opened(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None]
) -> None:
    plant(tmp_path / "it", victim)
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
        with pytest.raises(OSError, match="not a regular file"):
            filesystem.open_regular(tmp_path / "it", flags)
    with pytest.raises(OSError, match="not a regular file"):
        filesystem.overwrite(tmp_path / "it", b"ours")
    with pytest.raises(OSError, match="not a regular file"):
        filesystem.copy(tmp_path / "it", tmp_path / "copy")


@pytest.mark.skipif(not AS_ROOT, reason="only root can make files of others")
def test_a_file_of_somebody_else_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    os.chown(tmp_path / "lock", OTHER, OTHER)
    with pytest.raises(OSError, match="belongs to another user"):
        filesystem.open_own(tmp_path / "lock")


def test_a_file_with_another_name_is_not_written_in_place(tmp_path: Path) -> None:
    """Once a lock was cut to nothing, and what else had that name with it."""
    other = tmp_path / "other"
    theirs = places.SIGNATURE + b"of another directory"
    other.write_bytes(theirs)
    other.chmod(0o640)
    state = tmp_path / "state"
    state.mkdir()
    os.link(other, state / "lock")
    with pytest.raises(OSError, match="another name"):
        filesystem.open_own(state / "lock")
    with pytest.raises(OSError, match="another name"):
        filesystem.overwrite(state / "lock", b"ours")
    with pytest.raises(StateError, match="another name"):
        Lock(state, "test")
    assert (other.read_bytes(), mode(other)) == (theirs, 0o640)


@pytest.mark.parametrize("plant", [*PLANTED.values(), lambda path, _: path.mkdir()])
def test_only_a_socket_of_ours_is_opened_to_others(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None]
) -> None:
    path = tmp_path / "it"
    plant(path, victim)
    if plant is PLANTED["a socket"]:
        filesystem.open_socket_to(path, 0o666, os.getegid())
        assert mode(path) == 0o666
        return
    before = path.lstat().st_mode
    with pytest.raises(OSError, match="not a socket of ours"):
        filesystem.open_socket_to(path, 0o666, os.getegid())
    assert path.lstat().st_mode == before


# The state


def test_nothing_of_a_state_is_open_to_others(tmp_path: Path, umask: int) -> None:
    state = State(tmp_path / "state", "test", lambda: 0)
    state.journal.begin()
    notes.leave(tmp_path / "state" / CHECK, Check(0, True, 0, 0))
    LiveFile(tmp_path / "state").write(Check(0, True, 0, 0), {})  # type: ignore[arg-type]
    Run(tmp_path / "state", [], False).close()
    Marks(tmp_path / "state").close()
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    directories = [path for path in (tmp_path / "state").rglob("*") if path.is_dir()]
    state.close()
    assert {mode(path) for path in [tmp_path / "state", *directories]} <= {0o750, 0o750 & ~umask}
    locks = {lock.FILE, RESUME, MARKS, poison.FILE}
    assert {path.name for path in files} >= {
        *locks,
        queries.FILE,
        f"{queries.FILE}-wal",
        CHECK,
    }
    for path in files:
        if path.exists():
            assert mode(path) == (0o600 if path.name in locks else 0o640), path


def test_a_state_that_is_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    State(directory, "test", lambda: 0).close()
    (directory / "spool").mkdir()
    (directory / "spool" / "2026-11.db").touch()
    for path in (directory, *directory.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    State(directory, "test", lambda: 0).close()
    for path in (directory, *directory.rglob("*")):
        assert not mode(path) & 0o027, path


def test_a_directory_that_was_not_ours_keeps_its_mode(tmp_path: Path) -> None:
    """A new disk, mounted for a backup, may have these."""
    tmp_path.chmod(0o755)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".profile").touch()
    Lock(tmp_path, "test").release()
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("name", ["index.html", "lock", "site"])
def test_a_directory_with_anything_of_others_is_not_used(tmp_path: Path, name: str) -> None:
    """Once the files of a home directory were closed to others, and one called lock was emptied."""
    path = tmp_path / name
    if name == "site":
        path.mkdir(0o755)
    else:
        path.write_text("theirs")
        path.chmod(0o666)
    before = contents(tmp_path), mode(path)
    with pytest.raises(StateError, match=f"{name} is in it, and is not ours"):
        State(tmp_path, "test", lambda: 0)
    assert (contents(tmp_path), mode(path)) == before


def test_a_state_may_have_files_of_its_administrator(tmp_path: Path) -> None:
    State(tmp_path, "test", lambda: 0).close()
    (tmp_path / "copy-of-2026-11.db").touch()
    (tmp_path / "lock").write_bytes(bytes(20))  # after a power failure
    State(tmp_path, "test", lambda: 0).close()


@pytest.mark.parametrize("name", ["journal", "spool", "index.db", "check.json", "anything"])
def test_no_links_in_a_state(tmp_path: Path, victim: Path, name: str) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(victim)
    with pytest.raises(StateError, match=f"{name}: it is a symbolic link") as error:
        State(tmp_path / "state", "test", lambda: 0)
    assert "mount --bind" in error.value.remedy
    with pytest.raises(StateError, match="symbolic link"):  # it did not keep the lock
        State(tmp_path / "state", "test", lambda: 0)


@not_regular
@pytest.mark.parametrize("name", [lock.FILE, RESUME, MARKS])
def test_a_lock_is_a_regular_file(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None], name: str
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    plant(state / name, victim)
    if name == lock.FILE:
        with pytest.raises(StateError, match="not a regular file"):
            Lock(state, "test")
    elif name == MARKS:
        Marks(state).close()  # the master goes on without
    else:
        Run(state, [], False).close()  # nothing is remembered
    assert not (tmp_path / "nothing").exists()


# Databases


@not_regular
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_database_is_made_of_regular_files(
    tmp_path: Path, victim: Path, plant: Callable[[Path, Path], None], suffix: str
) -> None:
    path = tmp_path / "one.db"
    if suffix:
        database.open_writer(path, schema.SCHEMA, synchronous="OFF").close()
    plant(Path(f"{path}{suffix}"), victim)
    for opens in (writer, database.open_reader, database.roll_back):
        with pytest.raises(ForeignFileError, match="not a regular file"):
            opens(path)
    assert not (tmp_path / "nothing").exists()


def writer(path: Path) -> object:
    return database.open_writer(path, schema.SCHEMA, synchronous="OFF")


@pytest.mark.skipif(not AS_ROOT, reason="only root can make files of others")
def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    database.open_writer(path, schema.SCHEMA, synchronous="OFF").close()
    os.chown(path, OTHER, OTHER)
    for opens in (writer, database.open_reader, database.roll_back):
        with pytest.raises(ForeignFileError, match="belongs to another user"):
            opens(path)
    # One whose directory is his may be read: monitoring is another user.
    os.chown(tmp_path, OTHER, OTHER)
    database.open_reader(path).close()
    os.chown(tmp_path, 0, 0)


def test_a_copy_is_no_more_open_than_the_original(tmp_path: Path) -> None:
    source, target = tmp_path / "one.db", tmp_path / "two.db"
    database.open_writer(source, schema.SCHEMA, synchronous="OFF").close()
    for given, expected in ((0o666, 0o640), (0o640, 0o640), (0o600, 0o600)):
        source.chmod(given)
        database.copy(source, target)
        assert mode(target) == expected
        target.chmod(0o666)
        filesystem.copy(source, target)
        assert mode(target) == expected
