"""Publishing is atomic, writes only what differs, and never touches files of others."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from indexer.base import directories
from indexer.base.errors import PublishError
from indexer.base.names import is_canonical
from indexer.documents.kind import Document, with_copy
from indexer.documents.publish import LOCK, Link, Output, Publisher

from ..support import contents

pytestmark = pytest.mark.integration

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def path_of(package: str) -> str:
    return f"project/{package}/json/index.json"


def of(package: str, content: bytes, aliases: Sequence[str] = ()) -> Output:
    """All that belongs to a package."""
    links = [Link("project", alias, package) for alias in aliases]
    return Output(package, [Document(path_of(package), content)], links)


class Tree(Publisher):
    """A publisher with few words for what the tests do most."""

    def project(self, package: str, content: bytes, aliases: Sequence[str] = ()) -> bool:
        return self.publish_name(of(package, content, aliases))

    def packages(self, content: bytes) -> bool:
        return sum(map(self.publish, with_copy("packages.json", content))) > 0

    def gone(self, name: str) -> bool:
        """Nothing belongs to the name."""
        documents = [Document(path_of(name), None)] if is_canonical(name) else []
        return self.publish_name(Output(name, documents, [Link("project", name, None)]))

    def alias(self, alias: str, package: str) -> bool:
        return self.link(Link("project", alias, package))

    def leads_to(self, alias: str) -> str | None:
        return self.links_to("project", alias)


class Together(Tree):
    """Publishes as many documents are published, with one sync for all."""

    def publish_name(self, output: Output) -> bool:
        [outcome] = self.publish_names([output])
        if isinstance(outcome, PublishError):
            raise outcome
        return outcome


@pytest.fixture(params=[Tree, Together])
def publisher(output: Path, request: pytest.FixtureRequest) -> Tree:
    made: Tree = request.param(output)
    return made


@pytest.fixture
def project(output: Path) -> Path:
    return output / "project"


def document_of(project: Path, package: str = "numpy") -> Path:
    return project / package / "json" / "index.json"


def test_a_document_is_published_for_everybody_to_read(
    publisher: Tree, project: Path, output: Path
) -> None:
    assert publisher.project("numpy", b"{}", []) is True
    assert document_of(project).read_bytes() == b"{}"
    assert sorted(contents(output)) == ["project/numpy/json/index.json"]
    assert document_of(project).stat().st_mode & 0o7777 == 0o644
    for path in (project / "numpy", project / "numpy" / "json"):
        assert path.stat().st_mode & 0o055 == 0o055
    assert str(document_of(project)) == publisher.path(path_of("numpy"))


def test_same_bytes_are_left_alone(publisher: Tree, project: Path, output: Path) -> None:
    publisher.project("numpy", b"{}", ["NumPy"])
    before = contents(output)
    inode = document_of(project).stat().st_ino
    assert publisher.project("numpy", b"{}", ["NumPy"]) is False
    assert contents(output) == before
    assert document_of(project).stat().st_ino == inode
    assert publisher.project("numpy", b"{ }", ["NumPy"]) is True
    assert document_of(project).read_bytes() == b"{ }"


def test_reader_never_sees_half_a_document(publisher: Tree, project: Path) -> None:
    """Who has the old one open goes on reading it; the new one is another file."""
    publisher.project("numpy", b"old " * 1000, [])
    with document_of(project).open("rb") as opened:
        publisher.project("numpy", b"new", [])
        assert opened.read() == b"old " * 1000
    assert document_of(project).read_bytes() == b"new"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The syncs and renames, in order."""
    done: list[str] = []
    sync, rename, whole = os.fsync, os.rename, directories.sync_file_system

    def record_whole(descriptor: int) -> None:
        whole(descriptor)
        done.append("sync everything")

    def record_sync(descriptor: int) -> None:
        sync(descriptor)
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")

    def record_rename(source: str, target: str, **where: int) -> None:
        rename(source, target, **where)
        done.append(f"rename {target}")

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "rename", record_rename)
    monkeypatch.setattr(directories, "sync_file_system", record_whole)
    return done


def test_every_rename_is_of_what_was_synced(output: Path, done: list[str]) -> None:
    """File before the rename, directory after it."""
    publisher = Tree(output)
    done.clear()
    publisher.project("numpy", b"{}", [])
    publisher.sync()
    at = done.index("rename index.json")
    assert done[at - 1] == "sync .index.json.piw-indexer"
    assert done[at + 1] == "sync json"
    assert {"sync numpy", "sync project"} <= set(done[at:])
    done.clear()
    publisher.packages(b"[]")
    assert done == [
        *("sync .packages.json.piw-indexer", "rename packages.json", "sync output"),
        *("sync .packages.json.gz.piw-indexer", "rename packages.json.gz", "sync output"),
    ]


def test_first_sync_is_made_whatever_was_published(output: Path, done: list[str]) -> None:
    """The process before this one may have been killed between a rename and its sync."""
    publisher = Tree(output)
    done.clear()
    publisher.sync()
    assert done == ["sync project"]
    publisher.sync()
    assert done == ["sync project"]


def test_one_sync_for_many(output: Path, done: list[str]) -> None:
    publisher = Tree(output)
    done.clear()
    documents = [of(name, b"{}", [name.upper()]) for name in ("flask", "numpy")]
    assert publisher.publish_names(documents) == [True, True]
    publisher.sync()
    links = [one for one in done if one.startswith("rename ") and "index.json" not in one]
    assert len(links) == 2
    assert [one for one in done if one not in links] == [
        "sync everything",
        *["rename index.json"] * 2,
        "sync everything",
    ]
    done.clear()
    assert publisher.publish_names(documents) == [False, False]
    publisher.sync()
    assert done == ["sync everything"], "they may have been renamed just before a crash"


def test_one_that_cannot_be_published_does_not_hold_up_the_others(output: Path) -> None:
    publisher = Tree(output)
    (output / "project" / "numpy").write_text("somebody's")
    flask, numpy = publisher.publish_names([of("flask", b"{}"), of("numpy", b"")])
    assert flask is True
    assert isinstance(numpy, PublishError)
    assert not numpy.general
    assert document_of(output / "project", "flask").read_bytes() == b"{}"


def test_without_a_sync_none_gets_its_name(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Tree(output)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(directories, "sync_file_system", fail)
    [failure] = publisher.publish_names([of("numpy", b"{}", ["Numpy"])])
    assert isinstance(failure, PublishError)
    assert failure.general
    assert not document_of(output / "project").exists()
    assert publisher.leads_to("Numpy") == ""


def test_temporary_file_that_a_crash_left(publisher: Tree, project: Path) -> None:
    publisher.project("numpy", b"1", [])
    temporary = project / "numpy" / "json" / ".index.json.piw-indexer"
    temporary.write_bytes(b"half")
    temporary.chmod(0o600)
    publisher.project("numpy", b"2", [])
    assert [path.name for path in temporary.parent.iterdir()] == ["index.json"]
    assert document_of(project).read_bytes() == b"2"
    assert document_of(project).stat().st_mode & 0o777 == 0o644


def test_temporary_file_that_is_a_link(publisher: Tree, project: Path, tmp_path: Path) -> None:
    """Writing through it could end up anywhere."""
    publisher.project("numpy", b"1", [])
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    (project / "numpy" / "json" / ".index.json.piw-indexer").symlink_to(victim)
    try:
        publisher.project("numpy", b"2", [])
    except PublishError:
        pass
    assert victim.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "prepare",
    [
        lambda project, theirs: (project / "numpy").symlink_to(theirs),
        lambda project, theirs: (project / "numpy").symlink_to("nowhere"),
        lambda project, theirs: (project / "numpy").symlink_to("numpy"),
        lambda project, theirs: (
            (project / "numpy").mkdir(),
            (project / "numpy" / "json").symlink_to(theirs),
        ),
        lambda project, theirs: (
            (project / "numpy" / "json").mkdir(parents=True),
            (project / "numpy" / "json" / "index.json").symlink_to(theirs / "index.json"),
        ),
    ],
    ids=["project", "dangling", "loop", "json", "document"],
)
def test_links_in_the_way(
    prepare: Callable[[Path, Path], object], publisher: Tree, project: Path, tmp_path: Path
) -> None:
    """A link is replaced; nothing is written through it."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.json").write_bytes(b"theirs")
    prepare(project, theirs)
    assert publisher.project("numpy", b"ours", []) is True
    assert (theirs / "index.json").read_bytes() == b"theirs"
    assert [path.name for path in theirs.iterdir()] == ["index.json"]
    assert document_of(project).read_bytes() == b"ours"
    for path in (project / "numpy", project / "numpy" / "json", document_of(project)):
        assert not path.is_symlink()


def test_root_of_the_site_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    publisher = Tree(tmp_path / "link")
    publisher.project("numpy", b"{}", ["NumPy"])
    publisher.packages(b"[]")
    assert {"packages.json", "project/numpy/json/index.json", "project/NumPy"} <= contents(
        tmp_path / "real"
    ).keys()


@pytest.mark.parametrize(
    "prepare",
    [
        lambda project: (project / "numpy").write_bytes(b"theirs"),
        lambda project: (
            (project / "numpy").mkdir(),
            (project / "numpy" / "json").write_bytes(b"theirs"),
        ),
        lambda project: (project / "numpy" / "json" / "index.json").mkdir(parents=True),
    ],
    ids=["project", "json", "document"],
)
def test_files_of_others_in_the_way(
    prepare: Callable[[Path], object], publisher: Tree, project: Path
) -> None:
    """They stay; the error says where, and concerns only this name."""
    prepare(project)
    with pytest.raises(PublishError) as error:
        publisher.project("numpy", b"ours", [])
    assert str(project / "numpy") in str(error.value)
    assert error.value.remedy
    assert error.value.general is False
    assert publisher.project("scipy", b"ours", []) is True


def test_names_that_must_not_become_paths(publisher: Tree, tmp_path: Path) -> None:
    for name in ("", ".", "..", "../x", "/x", "a/b", "a\0b", ".hidden", "x" * 201):
        with pytest.raises(PublishError):
            publisher.project(name, b"", [])
        with pytest.raises(PublishError):
            publisher.project("numpy", b"", [name])
        with pytest.raises(PublishError):
            publisher.alias(name, "numpy")
        with pytest.raises(PublishError):
            publisher.alias("alias", name)
        with pytest.raises(PublishError):
            publisher.gone(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


# Aliases


def test_aliases_are_links_that_follow_the_names(publisher: Tree, project: Path) -> None:
    assert publisher.project("rpi-gpio", b"{}", ["RPi.GPIO", "RPi_GPIO"]) is True
    for alias in ("RPi.GPIO", "RPi_GPIO"):
        assert os.readlink(project / alias) == "rpi-gpio"
        assert (project / alias / "json" / "index.json").read_bytes() == b"{}"
        assert publisher.leads_to(alias) == "rpi-gpio"
    assert publisher.project("rpi-gpio", b"{}", ["RPi.GPIO", "RPi_GPIO"]) is False
    assert publisher.project("rpi-gpio", b"{}", ["RPi.GPIO", "rpi.gpio"]) is True
    assert sorted(path.name for path in project.iterdir()) == sorted(
        ["rpi-gpio", "RPi.GPIO", "RPi_GPIO", "rpi.gpio"]
    )


def test_alias_that_moves(publisher: Tree, project: Path) -> None:
    publisher.project("one", b"1", ["Name"])
    publisher.project("two", b"2", [])
    assert publisher.alias("Name", "two") is True
    assert os.readlink(project / "Name") == "two"
    assert publisher.alias("Name", "two") is False


def test_alias_never_takes_the_place_of_what_is_no_link(publisher: Tree, project: Path) -> None:
    (project / "Dir").mkdir()
    (project / "Dir" / "theirs").write_bytes(b"theirs")
    (project / "File").write_bytes(b"theirs")
    publisher.project("real", b"real", [])
    assert publisher.project("numpy", b"{}", ["Dir", "File", "real"]) is True
    assert (project / "Dir" / "theirs").read_bytes() == b"theirs"
    assert (project / "File").read_bytes() == b"theirs"
    assert document_of(project, "real").read_bytes() == b"real"
    assert publisher.leads_to("Dir") is None
    assert publisher.leads_to("nothing") == ""


def test_alias_that_no_file_system_can_hold(publisher: Tree) -> None:
    alias = "é" * 200
    assert publisher.alias(alias, "numpy") is False
    assert publisher.gone(alias) is False
    publisher.project("numpy", b"{}", [alias, "x" * 200])
    assert publisher.leads_to("x" * 200) == "numpy"


def test_package_takes_the_place_of_an_alias(publisher: Tree, project: Path) -> None:
    publisher.project("one", b"1", ["two"])
    publisher.project("two", b"2", [])
    assert document_of(project, "one").read_bytes() == b"1"
    assert document_of(project, "two").read_bytes() == b"2"
    assert not (project / "two").is_symlink()


# Removal


def test_removal_leaves_nothing_of_ours(publisher: Tree, output: Path) -> None:
    publisher.project("numpy", b"{}", ["NumPy"])
    assert publisher.gone("NumPy") is True
    assert publisher.gone("numpy") is True
    assert list((output / "project").iterdir()) == []
    assert publisher.gone("numpy") is False
    assert publisher.gone("nobody") is False


def test_removal_is_durable(output: Path, done: list[str]) -> None:
    publisher = Tree(output)
    publisher.project("numpy", b"{}", [])
    publisher.sync()
    done.clear()
    publisher.gone("numpy")
    publisher.sync()
    assert done == ["sync project"]


def test_removal_that_fails_says_why(publisher: Tree, project: Path) -> None:
    document_of(project).mkdir(parents=True)
    with pytest.raises(PublishError) as failed:
        publisher.gone("numpy")
    assert failed.value.operation == f"remove {project}/numpy/json/index.json"
    assert failed.value.cause == "Is a directory"
    assert "move away what is there" in failed.value.remedy


def test_files_of_others_stay(publisher: Tree, project: Path) -> None:
    publisher.project("numpy", b"{}", [])
    (project / "numpy" / "index.html").write_bytes(b"theirs")
    publisher.project("scipy", b"{}", [])
    (project / "scipy" / "json" / "other.json").write_bytes(b"theirs")
    assert publisher.gone("numpy") is True
    assert publisher.gone("scipy") is True
    assert sorted(path.relative_to(project).as_posix() for path in project.rglob("*")) == [
        *("numpy", "numpy/index.html", "scipy", "scipy/json", "scipy/json/other.json"),
    ]
    # And a rebirth puts the document beside them.
    publisher.project("numpy", b"{}", [])
    assert (project / "numpy" / "index.html").read_bytes() == b"theirs"


def test_temporary_file_goes_with_the_document(publisher: Tree, project: Path) -> None:
    publisher.project("numpy", b"{}", [])
    (project / "numpy" / "json" / ".index.json.piw-indexer").write_bytes(b"half")
    publisher.gone("numpy")
    assert list(project.iterdir()) == []


def test_removal_follows_no_link(publisher: Tree, project: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs" / "json"
    theirs.mkdir(parents=True)
    (theirs / "index.json").write_bytes(b"theirs")
    (project / "outside").symlink_to(theirs.parent)
    (project / "half").mkdir()
    (project / "half" / "json").symlink_to(theirs)
    (project / "file").write_bytes(b"theirs")
    for name in ("outside", "half", "file"):
        assert publisher.gone(name) is False
    assert (theirs / "index.json").read_bytes() == b"theirs"
    assert (project / "outside").is_symlink()
    assert (project / "file").exists()


def test_directory_of_others_under_an_alias_is_not_ours(publisher: Tree, project: Path) -> None:
    """Only a canonical name can ever have been a package: this document is somebody else's."""
    theirs = project / "NumPy" / "json" / "index.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    publisher.project("numpy", b"{}", ["NumPy"])
    publisher.gone("NumPy")
    assert theirs.read_bytes() == b"theirs"


# packages.json


def test_packages_json_is_published_with_its_gzip_copy(publisher: Tree, output: Path) -> None:
    assert publisher.packages(b'[["a",1,2]]') is True
    assert (output / "packages.json").read_bytes() == b'[["a",1,2]]'
    assert gzip.decompress((output / "packages.json.gz").read_bytes()) == b'[["a",1,2]]'
    for name in ("packages.json", "packages.json.gz"):
        assert (output / name).stat().st_mode & 0o7777 == 0o644
    before = contents(output)
    assert publisher.packages(b'[["a",1,2]]') is False
    assert contents(output) == before


def test_same_packages_give_the_same_gzip(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Tree(tmp_path / name).packages(b"[]" * 1000)
    one, two = (tmp_path / name / "packages.json.gz" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("lost", ["packages.json", "packages.json.gz"])
def test_lost_half_comes_back(lost: str, publisher: Tree, output: Path) -> None:
    publisher.packages(b"[]")
    (output / lost).unlink()
    assert publisher.packages(b"[]") is True
    assert gzip.decompress((output / "packages.json.gz").read_bytes()) == b"[]"
    assert (output / "packages.json").read_bytes() == b"[]"


@pytest.mark.parametrize("stops_at", range(1, 3))
def test_crash_between_the_two(
    stops_at: int, publisher: Tree, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file was replaced first, after the next start both agree again."""
    publisher.packages(b"old")
    rename = os.rename
    count = 0

    def stopping(source: str, target: str, **where: int) -> None:
        nonlocal count
        count += 1
        if count == stops_at:
            raise OSError(5, "stopped")
        rename(source, target, **where)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", stopping)
        with pytest.raises(PublishError):
            publisher.packages(b"new")
    Tree(output).packages(b"new")
    assert (output / "packages.json").read_bytes() == b"new"
    assert gzip.decompress((output / "packages.json.gz").read_bytes()) == b"new"


# The output path


def test_output_path_is_made(tmp_path: Path) -> None:
    Publisher(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "project").is_dir()


def test_output_path_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError) as error:
        Publisher(tmp_path / "file" / "output")
    assert str(tmp_path / "file") in str(error.value)
    assert error.value.remedy


@pytest.mark.skipif(AS_ROOT, reason="root may write everywhere")
def test_output_path_that_may_not_be_written(output: Path) -> None:
    Publisher(output)
    (output / "project").chmod(0o555)
    try:
        with pytest.raises(PublishError, match="permission"):
            Publisher(output)
    finally:
        (output / "project").chmod(0o755)


def test_only_one_process_publishes(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.documents.publish.LOCK_TIMEOUT", 0.0)
    first, second = Tree(output), Tree(output)
    first.hold()
    with pytest.raises(PublishError, match="another process publishes there"):
        second.hold()
    first.close()
    second.hold()
    second.close()


# Whoever may write there, too


PLACES = (
    "project/numpy/json/index.json",
    "project/numpy/json/.index.json.piw-indexer",
    "packages.json",
    "packages.json.gz",
    ".packages.json.piw-indexer",
    ".packages.json.gz.piw-indexer",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("plant", ["FIFO", "socket", "link", "hard link"])
def test_what_is_not_ours_gives_way_and_stays_as_it_is(
    output: Path, tmp_path: Path, place: str, plant: str
) -> None:
    """A FIFO that nobody writes to would keep whoever opens it for ever."""
    publisher = Tree(output)
    publisher.project("numpy", b"1", [])
    publisher.packages(b"[]")
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    victim.chmod(0o600)
    (output / place).unlink(missing_ok=True)
    if plant == "FIFO":
        os.mkfifo(output / place)
    elif plant == "socket":
        os.mknod(output / place, stat.S_IFSOCK | 0o600)
    elif plant == "link":
        (output / place).symlink_to(victim)
    else:
        os.link(victim, output / place)
    publisher.project("numpy", b"2", [])
    publisher.packages(b"[1]")
    assert publisher.publish_names([of("numpy", b"3")]) == [True]
    assert document_of(output / "project").read_bytes() == b"3"
    assert (output / "packages.json").read_bytes() == b"[1]"
    assert victim.read_bytes() == b"theirs"
    assert victim.stat().st_mode & 0o777 == 0o600
    assert not [path for path in output.rglob("*.piw-indexer") if path.is_file()]


def test_what_came_since_it_was_looked_at_is_not_published(output: Path, tmp_path: Path) -> None:
    """Once `check --fix` copied whatever was in the place of a document, for everybody to read."""
    publisher = Tree(output)
    publisher.project("numpy", b"1", [])
    secret = tmp_path / "private.key"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    document_of(output / "project").unlink()
    os.link(secret, document_of(output / "project"))
    publisher.set_mode(path_of("numpy"))
    published = [path for path in output.rglob("*") if path.is_file() and path.stat().st_mode & 4]
    assert not [path for path in published if path.read_bytes() == b"secret"]
    assert secret.read_bytes() == b"secret"


def test_links_that_come_while_it_runs_lead_nowhere(output: Path, tmp_path: Path) -> None:
    publisher = Tree(output)
    publisher.project("numpy", b"1", [])
    theirs = tmp_path / "theirs"
    (theirs / "numpy" / "json").mkdir(parents=True)
    (theirs / "numpy" / "json" / "index.json").write_bytes(b"theirs")
    before = contents(theirs)
    (output / "project").rename(output / "moved")
    (output / "project").symlink_to(theirs)
    for call in (
        lambda: publisher.project("numpy", b"2", []),
        lambda: publisher.alias("NumPy", "numpy"),
        lambda: publisher.gone("numpy"),
        lambda: publisher.set_mode(path_of("numpy")),
        lambda: publisher.sync(),
    ):
        with pytest.raises(PublishError):
            call()
    [failure] = publisher.publish_names([of("numpy", b"2")])
    assert isinstance(failure, PublishError)
    assert contents(theirs) == before


def test_project_that_is_a_link(output: Path, tmp_path: Path) -> None:
    """A link of an administrator is followed, a link of another user is not."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    output.mkdir()
    (output / "project").symlink_to(theirs)
    Tree(output).project("numpy", b"1", [])
    assert document_of(theirs).read_bytes() == b"1"
    if AS_ROOT:
        os.chown(output / "project", 4242, 4242, follow_symlinks=False)
        with pytest.raises(PublishError, match="a symbolic link of another user"):
            Publisher(output)


def test_project_that_is_another_link_by_the_time_it_is_followed(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for one in (ours, theirs, output):
        one.mkdir()
    (output / "project").symlink_to(ours)
    follow = os.path.realpath

    def after_another_came(path: str) -> str:
        (output / "project").unlink()
        (output / "project").symlink_to(theirs)
        return follow(path)

    monkeypatch.setattr(os.path, "realpath", after_another_came)
    Tree(output).project("numpy", b"1", [])
    assert document_of(ours).read_bytes() == b"1"
    assert list(theirs.iterdir()) == []


def test_nobody_else_can_take_the_lock(output: Path) -> None:
    """Whoever may open what is published may lock it, too; that keeps nobody from publishing."""
    publisher = Tree(output)
    descriptors = [os.open(path, os.O_RDONLY) for path in (output, output / "project")]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    publisher.hold()
    publisher.close()
    for descriptor in descriptors:
        os.close(descriptor)
    (output / LOCK).chmod(0o755)
    publisher.hold()
    assert (output / LOCK).stat().st_mode & 0o777 == 0o700
    publisher.close()


def test_a_lock_that_is_not_ours(output: Path, tmp_path: Path) -> None:
    publisher = Tree(output)
    (output / LOCK).symlink_to(tmp_path)
    with pytest.raises(PublishError, match="move away what is there"):
        publisher.hold()
    (output / LOCK).unlink()
    if AS_ROOT:
        (output / LOCK).mkdir()
        os.chown(output / LOCK, 4242, 4242)
        with pytest.raises(PublishError, match="it belongs to another user"):
            publisher.hold()


@pytest.mark.parametrize("package", ["numpy", ""])
@pytest.mark.parametrize("kind", ["ours", "hard link", "another user's", "link", "FIFO"])
def test_mode_of_a_document(output: Path, tmp_path: Path, package: str, kind: str) -> None:
    """What is ours alone keeps its time; what is not is removed, or left alone."""
    publisher = Tree(output)
    publisher.project("numpy", b"1", [])
    publisher.packages(b"1")
    path = document_of(output / "project") if package else output / "packages.json"
    victim = tmp_path / "victim"
    victim.write_bytes(b"1")
    if kind == "hard link":
        path.unlink()
        os.link(victim, path)
    elif kind == "link":
        path.unlink()
        path.symlink_to(victim)
    elif kind == "FIFO":
        path.unlink()
        os.mkfifo(path, 0o600)
    elif kind == "another user's":
        if not AS_ROOT:
            pytest.skip("only root can make files of others")
        os.chown(path, 4242, 4242)
    for one in (path, victim):
        one.chmod(0o600)
    before = path.lstat()
    if kind in ("link", "FIFO"):
        with pytest.raises(PublishError, match="not a regular file"):
            publisher.set_mode(path_of(package) if package else "packages.json")
        assert path.lstat().st_mode == before.st_mode
    else:
        publisher.set_mode(path_of(package) if package else "packages.json")
        assert path.exists() == (kind == "ours")
        publisher.project("numpy", b"1", [])
        publisher.packages(b"1")
        after = path.lstat()
        assert (after.st_mode & 0o777, after.st_uid) == (0o644, os.geteuid())
        assert (after.st_ino == before.st_ino) == (kind == "ours")
        assert path.read_bytes() == b"1"
    assert victim.stat().st_mode & 0o777 == 0o600
