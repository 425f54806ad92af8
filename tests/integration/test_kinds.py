"""A new kind of document is a class and an entry in the registry: everything else knows it then."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.base import database
from indexer.base.errors import PublishError
from indexer.cli import piw_indexer
from indexer.daemon import writer as writer_handle
from indexer.daemon import writer_loop
from indexer.daemon.writer_messages import Options
from indexer.documents import registry, writer
from indexer.documents.kind import (
    Document,
    Moment,
    Package,
    PackageDocument,
    PeriodicPackageDocument,
    TreeDocument,
    with_copy,
)
from indexer.documents.publish import Publisher
from indexer.index import pending, queries
from indexer.watch.prometheus import METRICS

from ..property.test_writer_loop import Thread
from ..samples import log_build, message, new_name, new_package
from ..support import DEADLINE, Site
from ..unit.test_problems import daemon
from ..unit.test_problems import found as found_status

pytestmark = pytest.mark.integration

URL = "https://www.piwheels.org"


class Versions(PackageDocument):
    """Of the packages that have versions, below a root of its own, with links."""

    name = "versions"
    root = "versions"
    file = "list/all.json"
    linked = True

    def render(self, package: Package) -> bytes | None:
        versions = sorted(row[0] for row in package.rows.versions)
        return json.dumps(versions).encode() if versions else None


class Hourly(PeriodicPackageDocument):
    """Beside the document of the project."""

    name = "hourly"
    root = "project"
    file = "json/hourly.json"
    interval = 3600.0

    def version(self, moment: Moment) -> str:
        return str(queries.get(moment.connection, "counters_serial", 0))

    def packages(self, moment: Moment, since: str | None) -> Iterable[str]:
        return [row[0] for row in moment.connection.execute("SELECT package FROM packages")]

    def render(self, package: Package) -> bytes:
        return json.dumps({"package": package.name}).encode()


class Pages(TreeDocument):
    """Serials, two on a page; a page that is full never changes."""

    name = "pages"
    path = "pages/0.json"
    interval = 0.0
    when = "at once"

    def version(self, moment: Moment) -> str:
        return str(queries.applied_serial(moment.connection))

    def documents(self, moment: Moment, since: str | None) -> Iterator[Document]:
        last = queries.applied_serial(moment.connection)
        for page in range(int(since or 0) // 2, last // 2 + 1):
            content = json.dumps([*range(page * 2 + 1, min(page * 2 + 2, last) + 1)]).encode()
            yield from with_copy(f"pages/{page}.json", content)

    def indexed(self, moment: Moment, package: str) -> list[int]:
        return [1, 2]

    def published(self, content: bytes, package: str) -> list[int] | None:
        try:
            return [int(serial) for serial in json.loads(content)]
        except ValueError:
            return None


class Now(TreeDocument):
    """Another one every time."""

    name = "now"
    path = "now.json"
    interval = 0.0
    when = "at once"
    live = True

    def version(self, moment: Moment) -> str:
        return str(moment.now)

    def documents(self, moment: Moment, since: str | None) -> Iterator[Document]:
        yield Document(self.path, json.dumps({"at": moment.now}).encode())


TOYS = (Versions(), Hourly(), Pages(), Now())


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process there are four kinds more."""
    monkeypatch.setattr(registry, "KINDS", (*registry.KINDS, *TOYS))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with two packages, one of them with a version."""
    made = Site(tmp_path)
    made.take(
        log_build(1, "numpy", "1.0", "numpy-1.0-py3-none-any.whl"),
        new_name("numpy", "NumPy"),
        new_package("scipy"),
        write=False,
    )
    assert run(made, "write") == ""
    return made


def run(site: Site, command: str, *arguments: str, status: int = 0) -> str:
    """A command in this process; what it says, but for how much was written."""
    options = map(str, [*site.state, *site.output])
    done = CliRunner().invoke(piw_indexer, [command, *arguments, *options], standalone_mode=False)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert (done.return_value or 0) == status, done.output
    lines = done.output.splitlines(keepends=True)
    return "".join(line for line in lines if not line.endswith("documents written\n"))


def files(site: Site, root: str = "") -> list[str]:
    """The files and links of the toys."""
    below = site.output_path / root
    return sorted(
        str(path.relative_to(site.output_path))
        for path in below.rglob("*")
        if (path.is_file() or path.is_symlink())
        and path.name.partition(".")[0] not in ("index", "packages", "failures")
    )


EVERY = [
    "now.json",
    "pages/0.json",
    "pages/0.json.gz",
    "pages/1.json",
    "pages/1.json.gz",
    "project/NumPy",
    *(f"project/{name}/json/hourly.json" for name in ("numpy", "scipy")),
    "versions/NumPy",
    "versions/numpy/list/all.json",
]


def test_they_are_written_and_come_back_whatever_is_lost(site: Site) -> None:
    assert files(site) == EVERY
    assert (site.output_path / "versions/numpy/list/all.json").read_bytes() == b'["1.0"]'
    before = {name: (site.output_path / name).stat().st_mtime_ns for name in EVERY[1:]}
    run(site, "write", "--all")
    assert {name: (site.output_path / name).stat().st_mtime_ns for name in EVERY[1:]} == before
    for name in EVERY:
        (site.output_path / name).unlink()
    run(site, "write", "--all")
    assert files(site) == EVERY
    for name in EVERY:
        (site.output_path / name).unlink()
    run(site, "rebuild")
    assert files(site) == EVERY


def test_they_go_with_their_package(site: Site) -> None:
    site.take(message("DELPKG", package="numpy"), write=False)
    run(site, "write")
    assert not [name for name in files(site) if "umpy" in name]
    assert sorted(path.name for path in (site.output_path / "versions").iterdir()) == []
    assert run(site, "check") == "No differences.\n"


def test_a_package_that_has_no_such_document_any_more(site: Site) -> None:
    site.take(message("DELVER", package="numpy", version="1.0"), write=False)
    run(site, "write")
    assert files(site, "versions") == ["versions/NumPy"]


SPOILS = {
    "versions/numpy/list/all.json": "numpy: ",
    "project/scipy/json/hourly.json": "scipy: ",
    "pages/0.json": "pages/0.json",
    "pages/1.json.gz": "pages/1.json.gz",
    "now.json": "now.json is not JSON",
}


@pytest.mark.parametrize("path", SPOILS)
def test_check_finds_and_fixes_what_is_wrong_with_them(site: Site, path: str) -> None:
    assert run(site, "check") == "No differences.\n"
    right = (site.output_path / path).read_bytes()
    (site.output_path / path).write_bytes(b"{wrong")
    assert SPOILS[path] in run(site, "check", status=1)
    assert run(site, "check", "--fix").endswith("Repaired.\n")
    assert run(site, "check") == "No differences.\n"
    if path != "now.json":
        assert (site.output_path / path).read_bytes() == right


def test_check_finds_and_fixes_modes_links_and_strays_of_them(site: Site) -> None:
    (site.output_path / "pages/1.json").chmod(0o600)
    (site.output_path / "versions/NumPy").unlink()
    stray = site.output_path / "versions/stranger/list/all.json"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"[]")
    unwanted = site.output_path / "versions/scipy/list/all.json"
    unwanted.parent.mkdir(parents=True)
    unwanted.write_bytes(b"[]")
    said = run(site, "check", status=1)
    for words in (
        "pages/1.json has the mode 0600",
        "its alias NumPy is missing",
        "stranger has a document, and is not a package",
        f"{unwanted} should not be there",
    ):
        assert words in said
    run(site, "check", "--fix")
    assert files(site) == EVERY
    assert run(site, "check") == "No differences.\n"


def test_what_is_due_is_no_difference(site: Site) -> None:
    """While a daemon may be about to write it."""
    connection = queries.open_index(site.state_dir / "index.db")
    with database.transaction(connection):
        pending.forget_written(connection, "pages")
        pending.forget_written(connection, "hourly")
    connection.close()
    (site.output_path / "pages/0.json").write_bytes(b"old")
    (site.output_path / "project/numpy/json/hourly.json").write_bytes(b"old")
    assert run(site, "check") == "No differences.\n"


def test_explain_says_what_is_wrong_with_them(site: Site) -> None:
    def explain(package: str) -> str:
        return " ".join(run(site, "explain", package).split())

    assert "numpy is published as the index has it." in explain("numpy")
    document = site.output_path / "versions/numpy/list/all.json"
    right = document.read_bytes()
    document.write_bytes(b'["2.0"]')
    assert "numpy is published wrongly: it differs" in explain("numpy")
    document.write_bytes(right)
    (site.output_path / "pages/0.json").write_bytes(b"[7]")
    assert "pages/0.json has other pages. what to do: run `piw-indexer write`" in explain("scipy")


def test_a_file_in_the_way_of_one_package_holds_up_no_other(site: Site) -> None:
    for name in ("numpy", "scipy"):
        (site.output_path / f"project/{name}/json/hourly.json").unlink()
    (site.output_path / "project/numpy/json/hourly.json").mkdir()
    with pytest.raises(PublishError, match="numpy/json/hourly"):
        run(site, "write", "--all")
    assert (site.output_path / "project/scipy/json/hourly.json").is_file()


def test_the_daemons_writer_writes_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in its time, and none for ever while it stops; metrics show them by their names."""
    monkeypatch.setattr(writer_handle, "start_process", Thread)
    monkeypatch.setattr(writer_loop, "FLUSH_TIMEOUT", DEADLINE)
    monkeypatch.setattr(Now, "interval", 3600.0)
    written = []
    documents = Now.documents

    def noted(self: Now, moment: Moment, since: str | None) -> Iterator[Document]:
        written.append(moment.now)
        return documents(self, moment, since)

    monkeypatch.setattr(Now, "documents", noted)
    site.take(new_package("pandas"), message("DELPKG", package="scipy"), write=False)
    connection = queries.open_index(site.state_dir / "index.db")
    options = Options(
        site.state_dir / "index.db", site.output_path, URL, 0.0, 0.0, {"counters": 0.0}
    )
    handle = writer_handle.WriterHandle(options, connection)
    try:
        handle.wake()
    finally:
        handle.stop()
    assert handle.failure is None
    moment = Moment(connection, URL, 0)
    due = [kind.name for kind in registry.periodic() if kind.due(moment)]
    connection.close()
    assert due == ["status", "now"]
    assert len(written) <= 1, "a stop does not write what is due for ever"
    found = files(site)
    assert "project/pandas/json/hourly.json" in found
    assert not [name for name in found if "scipy" in name]
    assert set(handle.published) >= {"project", "versions", "counters", "hourly", "pages"}
    [metric] = [one for one in METRICS if "kind_published" in one.name]
    status = found_status(daemon=daemon(kinds_published=dict(handle.published)))
    shown = {kind for (kind,), _ in metric.samples(status)}
    assert shown == set(handle.published)


def test_a_package_that_is_deleted_while_its_document_is_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left, whoever comes first."""
    connection = queries.open_index(site.state_dir / "index.db")
    publisher = Publisher(site.output_path)
    worker = writer.Writer(connection, publisher, URL)
    render = Hourly.render
    held = []

    def delete(self: Hourly, package: Package) -> bytes:
        held.append(publisher.package_lock.locked())
        return render(self, package)

    monkeypatch.setattr(Hourly, "render", delete)
    writer.write_periodic(TOYS[1], connection, publisher, URL, 0)
    assert held == [True] * 2
    site.take(message("DELPKG", package="numpy"), write=False)
    worker.write(["numpy"])
    writer.write_periodic(TOYS[1], connection, publisher, URL, 0)
    worker.close()
    connection.close()
    assert not (site.output_path / "project/numpy").exists()
