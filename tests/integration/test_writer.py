"""The writer: names, marks, counters, and many names at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import pytest

from indexer.base import database, times
from indexer.base.errors import PublishError
from indexer.daemon import writer as writer_handle
from indexer.daemon import writer_loop, writer_messages
from indexer.documents import counters, registry, writer
from indexer.documents.kind import Moment
from indexer.documents.publish import Publisher
from indexer.documents.writer import Writer
from indexer.index import downloads, pending, waiting

from .. import samples
from ..property.test_writer_loop import Thread
from ..samples import log_build, log_download, message, new_name, new_package, new_version, set_abis
from ..support import eventually
from .index import URL, Index

pytestmark = pytest.mark.integration

START = times.window_start(samples.NOW)
COUNTERS = counters.Counters()


class Output:
    """An index with the writer of its documents."""

    def __init__(self, index: Index, output: Path) -> None:
        self.index = index
        self.project = output / "project"
        self.output = output
        self.publisher = Publisher(output)
        self._reader = database.open_reader(index.path)
        self._writer = Writer(self._reader, self.publisher, URL)

    def write(self, *names: str) -> writer.Written:
        return self._writer.write(names)

    def write_pending(self, *, everything: bool = False) -> int:
        return writer.publish_pending(
            self.index.connection,
            self.index.path,
            self.publisher,
            URL,
            samples.NOW,
            everything=everything,
        )

    def names(self) -> list[str]:
        return sorted(
            f"{path.name} -> {os.readlink(path)}" if path.is_symlink() else path.name
            for path in self.project.iterdir()
        )

    def document(self, package: str) -> bytes:
        return (self.project / package / "json" / "index.json").read_bytes()

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


@pytest.fixture
def output(index: Index, tmp_path: Path) -> Iterator[Output]:
    found = Output(index, tmp_path / "output")
    yield found
    found.close()


def test_what_names_stand_for(output: Output, index: Index) -> None:
    index.apply(new_name("numpy", "NumPy"), new_package("scipy"))
    written = output.write("numpy", "NumPy", "scipy", "nobody")
    assert (written.serial, written.failure) == (2, None)
    assert written.names == ["numpy", "NumPy", "scipy", "nobody"]
    assert output.names() == ["NumPy -> numpy", "numpy", "scipy"]
    assert output.document("numpy") == index.document("numpy")
    index.apply(message("DELPKG", package="numpy"))
    assert output.write("numpy", "NumPy") == (3, ["numpy", "NumPy"], 2, None, {})
    assert output.names() == ["scipy"]


def test_marks_are_cleared_up_to_what_was_rendered(output: Output, index: Index) -> None:
    index.apply(new_package("numpy"), new_package("scipy"))
    written = output.write("numpy", "scipy")
    index.apply(message("SETDESC", package="numpy", description="later"))
    pending.clear(index.connection, [(name, written.serial) for name in written.names])
    assert list(pending.names(index.connection)) == ["numpy"]


def test_names_that_fail_keep_their_marks(output: Output, index: Index) -> None:
    index.apply(*(new_package(package) for package in ("a", "b", "c")))
    (output.project / "b").write_bytes(b"somebody's")
    written = output.write("a", "b", "c")
    assert written.names == ["a", "c"]
    assert written.failure is not None
    with pytest.raises(PublishError, match="/project/b/"):
        output.write_pending()
    assert list(pending.names(index.connection)) == ["b"]
    assert output.names() == ["a", "b", "c"]
    (output.project / "b").unlink()
    output.write_pending()
    assert list(pending.names(index.connection)) == []
    assert output.document("b") == index.document("b")


def test_deleted_package_that_is_the_alias_of_another(output: Output, index: Index) -> None:
    """Its document is removed; then its name is a link again."""
    index.apply(new_name("bar", "foo"))
    output.write_pending()
    assert output.names() == ["bar", "foo -> bar"]
    index.apply(new_package("foo"))
    output.write_pending()
    assert output.names() == ["bar", "foo"]
    index.apply(message("DELPKG", package="foo"))
    output.write_pending()
    assert output.names() == ["bar", "foo -> bar"]
    assert output.document("foo") == index.document("bar")


def test_deleted_package_whose_name_is_an_alias_and_a_directory_of_others(
    output: Output, index: Index
) -> None:
    index.apply(new_package("foo"), new_name("bar", "foo"))
    output.write_pending()
    (output.project / "foo" / "index.html").write_bytes(b"theirs")
    index.apply(message("DELPKG", package="foo"))
    output.write_pending()
    assert sorted(path.name for path in (output.project / "foo").iterdir()) == ["index.html"]
    assert index.rows("SELECT * FROM rewrites_pending") == []


def test_alias_that_changes_its_owner(output: Output, index: Index) -> None:
    index.apply(new_name("one", "Name"), new_package("two"))
    output.write_pending()
    index.apply(message("DELPKG", package="one"), new_name("two", "Name"))
    output.write_pending()
    assert output.names() == ["Name -> two", "two"]


def test_alias_is_no_alias_while_it_is_a_package(output: Output, index: Index) -> None:
    index.apply(new_package("foo"), new_name("bar", "foo"), new_name("foo", "bar"))
    output.write_pending()
    assert output.names() == ["bar", "foo"]
    index.apply(message("DELPKG", package="bar"))
    output.write_pending()
    assert output.names() == ["bar -> foo", "foo"]


def test_everything_writes_what_is_not_marked(output: Output, index: Index) -> None:
    index.apply(new_package("numpy"), new_package("scipy"))
    assert output.write_pending() == 2 + len(
        [kind for kind in registry.of_trees() if not kind.live]
    )
    (output.project / "numpy" / "json" / "index.json").write_bytes(b"edited")
    assert output.write_pending() == 0
    assert output.document("numpy") == b"edited"
    assert output.write_pending(everything=True) == 1
    assert output.document("numpy") == index.document("numpy")


def test_new_abis_touch_every_document(output: Output, index: Index) -> None:
    index.apply(log_build(1, "numpy", "1.0", "numpy-1.0-py3-none-any.whl"), new_package("scipy"))
    output.write_pending()
    index.apply(samples.set_abis("cp311"))
    assert output.write_pending() == 1
    assert b'"cp311"' in output.document("numpy")
    # Tags that were never seen fit in documents of the same batch.
    index.apply(log_build(2, "numpy", "2.0", "numpy-2.0-cp39-abi3-x.whl"))
    output.write_pending()
    abis = [found["abis"] for found in json.loads(output.document("numpy"))["releases"].values()]
    assert [found["cp311"]["status"] for found in abis] == ["success", "success"]


def test_many_names_on_all_processors(output: Output, index: Index) -> None:
    count = writer._PARALLEL_FROM + 5
    index.apply(*(new_package(f"package-{number}") for number in range(count)))
    progress: list[tuple[int, int]] = []
    changed = writer.publish_pending(
        index.connection,
        index.path,
        output.publisher,
        URL,
        samples.NOW,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert changed == count + len([kind for kind in registry.of_trees() if not kind.live])
    assert len(output.names()) == count
    assert progress[-1] == (count, count)
    assert pending.count(index.connection) == 0
    assert output.document("package-7") == index.document("package-7")


# packages.json


def due(index: Index) -> bool:
    return COUNTERS.due(Moment(index.connection, URL, 0))


def write_counters(output: Output, index: Index) -> tuple[str, int]:
    return writer.write_periodic(COUNTERS, index.connection, output.publisher, URL, 0)


def test_counters_are_due_when_they_changed(output: Output, index: Index) -> None:
    assert due(index)
    output.write_pending()
    assert (output.output / "packages.json").read_bytes() == b"[]"
    assert not due(index)
    index.apply(new_package("numpy"))
    assert due(index)
    output.write_pending()
    assert not due(index)
    index.apply(message("SETDESC", package="numpy", description="x"))
    assert not due(index)
    index.apply(log_download("numpy-1-py3-none-any.whl"))
    assert due(index)
    output.write_pending()
    assert (output.output / "packages.json").read_bytes() == b'[["numpy",1,1]]'


def test_counters_are_due_when_the_window_moved(output: Output, index: Index) -> None:
    index.apply(new_package("numpy"), log_download("numpy-1-py3-none-any.whl"))
    output.write_pending()
    index.move_window(START + 60 * 24 * 3600)
    assert due(index)
    later = samples.NOW + 60 * times.DAY
    writer.publish_pending(index.connection, index.path, output.publisher, URL, later)
    assert (output.output / "packages.json").read_bytes() == b'[["numpy",0,1]]'
    assert downloads.window_start(index.connection) == START + 60 * 24 * 3600


def test_what_changed_while_packages_json_was_written_is_still_due(
    output: Output, index: Index
) -> None:
    index.apply(new_package("numpy"))
    index.move_window(START)
    version, changed = write_counters(output, index)
    assert (version, changed) == (f"1 {START}", 1)
    index.apply(new_package("scipy"))
    with database.transaction(index.connection):
        pending.note_written(index.connection, "counters", version)
    assert due(index)


def test_packages_json_of_many_packages(output: Output, index: Index) -> None:
    index.apply(*(new_package(f"package-{number:05}") for number in range(25_000)))
    write_counters(output, index)
    document = (output.output / "packages.json").read_bytes()
    rows = [f'["package-{number:05}",0,0]' for number in range(25_000)]
    assert document.decode() == f"[{','.join(rows)}]"


def test_chunks_have_at_most_the_given_size() -> None:
    assert list(writer.chunks([])) == []
    assert list(writer.chunks("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]


# The daemon's side of the process


class Ended:
    """A writer process that reports what it wrote, and ends, before the daemon listens."""

    returncode = 0

    def __init__(self, pipe: Connection) -> None:
        self._pipe = Connection(os.dup(pipe.fileno()))
        self._pipe.send(writer_messages.Ready())

    def poll(self) -> int:
        if not self._pipe.closed:
            while self._pipe.poll(0):
                self._pipe.recv()
            self._pipe.send(writer_messages.NamesWritten(1, ["numpy"], 1, {}))
            self._pipe.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        return self.poll()

    def kill(self) -> None:
        pass


def test_what_the_writer_reports_at_its_end_is_not_written_again(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.apply(new_package("numpy"))
    monkeypatch.setattr(writer_handle, "start_process", Ended)
    options = writer_messages.Options(index.path, tmp_path / "www", URL, 0.0, 0.0, {})
    handle = writer_handle.WriterHandle(options, index.connection)
    handle.stop()
    assert handle.written == 1
    assert pending.count(index.connection) == 0


def test_a_daemon_notes_what_waits(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_handle, "start_process", Thread)
    options = writer_messages.Options(index.path, tmp_path / "www", URL, 0.0, 0.0, {})
    handle = writer_handle.WriterHandle(options, index.connection)
    build = log_build(1, "numpy", "1.0", status=False)
    index.apply(set_abis("cp311", "cp313"), build, new_version("numpy", "2.0"))
    handle.stop()
    assert build["data"]["abi_tag"] == "cp311"
    assert waiting.totals(index.connection) == {"cp311": 1, "cp313": 2}


@pytest.mark.parametrize("slow", [False, True])
def test_a_stop_does_not_wait_for_what_is_slow_and_rare(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    monkeypatch.setattr(writer_handle, "start_process", Thread)
    monkeypatch.setattr(writer_loop, "MAX_AT_STOP", 0.0 if slow else 60.0)
    options = writer_messages.Options(index.path, tmp_path / "www", URL, 0.0, 0.0, {})
    handle = writer_handle.WriterHandle(options, index.connection)

    def written() -> bool:
        handle.handle()
        return "failures" in handle.published

    eventually(written)
    build = log_build(1, "numpy", "1.0", status=False)
    build["data"]["failure"] = {"category": "missing-header", "detail": "ffi.h"}
    index.apply(set_abis("cp311"), build)
    handle.stop()
    assert (b"ffi.h" in (tmp_path / "www" / "failures.json").read_bytes()) is not slow
    assert (tmp_path / "www" / "project" / "numpy" / "json" / "index.json").exists()


def test_what_is_in_the_way_of_one_document_holds_up_no_other(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_handle, "start_process", Thread)
    for name in ("MIN_RETRY_DELAY", "MAX_RETRY_DELAY"):
        monkeypatch.setattr(writer_loop, name, 1e6)
    in_the_way = tmp_path / "www" / "status.json"
    options = writer_messages.Options(index.path, tmp_path / "www", URL, 0.0, 0.0, {"status": 0.0})
    handle = writer_handle.WriterHandle(options, index.connection)
    (in_the_way / "of others").mkdir(parents=True)

    def handled() -> writer_handle.WriterHandle:
        handle.handle()
        return handle

    try:
        handle.ping()
        eventually(lambda: handled().failure is not None)
        index.apply(new_package("numpy"))
        handle.wake()
        eventually(lambda: handled().written == 1)
        handle.ping()
        eventually(lambda: handled().unresponsive_for == 0.0)
        assert "status.json" in str(handle.failure), "it is reported until it is gone"
        (in_the_way / "of others").rmdir()
        in_the_way.rmdir()
        eventually(lambda: handled().failure is None)
        assert in_the_way.is_file()
    finally:
        handle.stop()


def test_a_first_word_of_the_daemon_has_only_live_documents_written(
    index: Index, tmp_path: Path
) -> None:
    """packages.json was written twice within its interval."""
    options = writer_messages.Options(index.path, tmp_path / "www", URL, 0.0, 0.0, {})
    ours, theirs = Pipe()
    loop = writer_loop.WriterLoop(theirs, options)
    loop._look_at["counters"] = 60.0
    loop._obey(writer_messages.Ping(0.0))
    assert loop._look_at == {"counters": 60.0, "failures": 0.0, "status": 0.0}
    for opened in (ours, theirs, loop._connection, loop._periodic_connection, loop._publisher):
        opened.close()
