"""A backfill from piwheels' own tables, in a real PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from indexer.base import times
from indexer.base.errors import DecodeError, PeerError, UsageError
from indexer.index import queries
from indexer.journal import quarantine
from indexer.journal.reader import JournalReader
from indexer.messages import decode
from indexer.messages import types as messages
from indexer.messages.entries import Accepted, Lost
from indexer.messages.types import Position
from indexer.piwheels.backfill.from_database import RECORD, Outcome, Sizes, fill
from indexer.piwheels.backfill.postgres import Source, hours_since
from indexer.state.state import State

from ..postgres import Server
from ..samples import HASH, NOW
from ..support import CASES, Case

pytestmark = pytest.mark.integration

TABLES = (
    "packages package_names versions builds files dependencies build_abis preinstalled_apt_packages"
).split()
WHEEL = "numpy-1.0-cp311-cp311-linux_armv7l.whl"
HOUR = NOW // times.HOUR * 3600


class Database:
    """A piwheels database, to fill and to read."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.dsn = server.dsn(server.piwheels())
        self.connection = psycopg.connect(self.dsn, autocommit=True)

    def sql(self, statement: str, *values: Any) -> None:
        self.connection.execute(statement, values or None)

    def many(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self.connection.cursor() as cursor, self.connection.transaction():
            cursor.executemany(statement, rows)

    def copy(self, here: sqlite3.Connection) -> None:
        """Copy the tables of an index."""
        for table in TABLES:
            theirs = self.connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s", (table,)
            ).fetchall()
            ours = [one[1] for one in here.execute(f"PRAGMA table_info({table})")]
            names = [name for name in ours if (name,) in theirs]
            rows = here.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
            if rows:
                values = ", ".join(_CASTS.get(name, "%s") for name in names)
                self.many(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})", rows)

    def package(self, package: str, *versions: str, description: str = "") -> None:
        self.sql("INSERT INTO packages VALUES (%s, '', %s)", package, description)
        self.sql("INSERT INTO package_names VALUES (%s, %s)", package, package)
        for version in versions:
            self.sql(
                "INSERT INTO versions VALUES (%s, %s, '2026-11-20 12:00:00.5')", package, version
            )

    def build(self, package: str, version: str, *filenames: str, **fields: Any) -> int:
        row = self.connection.execute(
            "INSERT INTO builds (package, version, built_by, built_at, duration, status, abi_tag)"
            " VALUES (%s, %s, 3, '2026-11-20 13:00:00.25', %s, %s, 'cp311') RETURNING build_id",
            (package, version, fields.get("duration", "00:02:00.5"), fields.get("status", True)),
        ).fetchone()
        assert row is not None
        for filename in filenames:
            tags = filename.removesuffix(".whl").split("-")
            self.sql("DELETE FROM files WHERE filename = %s", filename)
            self.sql(
                "INSERT INTO files VALUES (%s, %s, 1000, %s, %s, %s, %s, %s, %s, NULL)",
                *(filename, row[0], fields.get("filehash", HASH), *tags),
            )
            self.sql("INSERT INTO dependencies VALUES (%s, 'apt', 'libx')", filename)
        return int(row[0])

    def download(self, filename: str, hour: int = HOUR, count: int = 1) -> None:
        at = times.to_datetime(hour * times.SECOND).replace(tzinfo=None)
        self.many(
            "INSERT INTO downloads (filename, accessed_by, accessed_at) VALUES (%s, %s, %s)",
            [(filename, "203.0.113.77", at)] * count,
        )

    def close(self) -> None:
        self.connection.close()


_CASTS = {
    "yanked": "%s::int::bool",
    "status": "%s::int::bool",
    "duration": "make_interval(secs => %s)",
}


@pytest.fixture
def database(postgres: Server) -> Iterator[Database]:
    found = Database(postgres)
    yield found
    found.close()


@pytest.fixture
def filled(database: Database) -> Database:
    """A database with a few packages of every kind."""
    database.sql("INSERT INTO build_abis VALUES ('cp311', ''), ('cp39', 'old')")
    database.sql("INSERT INTO preinstalled_apt_packages VALUES ('cp311', 'libc6')")
    database.package("numpy", "1.0", "2.0", description="Arrays")
    database.sql(
        "INSERT INTO package_names VALUES ('numpy', 'NumPy', '2026-11-20 12:00:00.123456')"
    )
    database.sql("UPDATE versions SET yanked = true, skip = 'why' WHERE version = '2.0'")
    database.build("numpy", "1.0", WHEEL)
    database.build("numpy", "1.0", status=False)
    for package in ("a-b", "a0", "ab", "zope"):
        database.package(package, "1.0")
        name = package.replace("-", "_")
        database.build(package, "1.0", f"{name}-1.0-py3-none-any.whl")
    database.download(WHEEL, count=3)
    return database


class Filler:
    """Fills a state from a database."""

    def __init__(self, directory: Path, database: Database) -> None:
        self.directory = directory
        self.dsn = database.dsn
        self.progress: Callable[[int, int], None] = lambda done, total: None
        self.sizes = Sizes()
        self.new = 0
        """Messages that the last run journaled."""

    def state(self) -> State:
        return State(self.directory, "test", lambda: NOW)

    def __call__(self, days: int | None = None) -> Outcome:
        state = self.state()
        source = Source(self.dsn, lambda: NOW)
        before = state.journal.serial
        try:
            return fill(state, source, days, self.progress, self.sizes)
        finally:
            self.new = state.journal.serial - before
            source.close()
            state.close()

    def rows(self, sql: str) -> list[Any]:
        connection = sqlite3.connect(self.directory / queries.FILE)
        found = connection.execute(sql).fetchall()
        connection.close()
        return found

    def tables(self) -> dict[str, set[Any]]:
        return {table: set(self.rows(f"SELECT * FROM {table}")) for table in TABLES}

    def names(self) -> list[str]:
        """The messages of the journal."""
        reader = JournalReader(self.directory / "journal")
        found = [row.message.name for row in reader.read(0, 100_000)]
        reader.close()
        return found

    def quarantine(self) -> list[tuple[str, Any]]:
        reader = JournalReader(self.directory / "journal")
        found = [(f"{one.path}: {one.reason}", one) for one in quarantine.entries(reader)]
        reader.close()
        return found


@pytest.fixture
def filler(tmp_path: Path, database: Database) -> Filler:
    return Filler(tmp_path / "state", database)


# What is read


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_index_goes_there_and_back(
    case: Case, database: Database, filler: Filler, tmp_path: Path
) -> None:
    """The tables of an index, put into a piwheels database, make the same index."""
    first = State(tmp_path / "first", "test", lambda: NOW)
    messages = [decode.from_json(line, NOW) for line in case.lines]
    first.take([Accepted(None, message) for message in messages])
    database.copy(first.connection)
    database.many(
        "INSERT INTO downloads (filename, accessed_by, accessed_at) VALUES (%s, '10.0.0.1', %s)",
        [
            (one.data.filename, times.to_datetime(one.data.accessed_at).replace(tzinfo=None))
            for one in messages
            if one.name == "LOGDOWNLOAD"
        ],
    )
    outcome = filler()
    # A master keeps no reasons.
    first.connection.execute("UPDATE builds SET failure_category = NULL, failure_detail = NULL")
    for table in TABLES:
        expected = set(first.connection.execute(f"SELECT * FROM {table}"))
        assert set(filler.rows(f"SELECT * FROM {table}")) == expected, table
    assert outcome.refused == 0
    if case.name not in OTHERWISE_COUNTED:
        counted = "SELECT package, hour, downloads FROM download_hours JOIN download_counts c"
        counted += " USING (counter_id) WHERE c.listed"
        assert set(filler.rows(counted)) == set(first.connection.execute(counted))
    first.close()
    again = filler()
    assert (again.taken, again.deleted, again.counters, filler.new) == (0, 0, 0, 0)


OTHERWISE_COUNTED = {"orphans"}
"""Cases in which downloads belong to a package that has not their file any more."""


def test_everything_is_read(filled: Database, filler: Filler) -> None:
    assert filler() == Outcome(packages=5, taken=5, deleted=0, builds=6, counters=1, refused=0)
    assert filler.rows("SELECT * FROM packages WHERE package = 'numpy'") == [
        ("numpy", "", "Arrays")
    ]
    assert filler.rows("SELECT name, seen FROM package_names WHERE name LIKE 'n%' ORDER BY 1") == [
        ("NumPy", "2026-11-20 12:00:00.123456"),
        ("numpy", "1970-01-01 00:00:00.000000"),
    ]
    assert filler.rows("SELECT * FROM versions WHERE package = 'numpy'") == [
        ("numpy", "1.0", "2026-11-20 12:00:00", "", 0),
        ("numpy", "2.0", "2026-11-20 12:00:00", "why", 1),
    ]
    assert filler.rows("SELECT * FROM builds WHERE package = 'numpy'") == [
        (1, "numpy", "1.0", "cp311", 1, 3, "2026-11-20 13:00:00", 120.5, None, None),
        (2, "numpy", "1.0", "cp311", 0, 3, "2026-11-20 13:00:00", 120.5, None, None),
    ]
    assert filler.rows("SELECT * FROM files WHERE build_id = 1") == [
        (WHEEL, 1, 1000, HASH, "numpy", "1.0", "cp311", "cp311", "linux_armv7l", None, "/simple")
    ]
    assert filler.rows("SELECT * FROM dependencies WHERE filename LIKE 'numpy%'") == [
        (WHEEL, "apt", "libx")
    ]
    assert filler.rows("SELECT * FROM build_abis") == [("cp311", ""), ("cp39", "old")]
    assert filler.rows("SELECT * FROM preinstalled_apt_packages") == [("cp311", "libc6")]
    assert set(filler.names()) == {
        *("SETABIS", "NEWPKG", "NEWPKGNAME", "NEWVER", "YANKVER", "LOGBUILD", "DOWNLOADS")
    }


def test_it_is_read_and_never_written(filled: Database) -> None:
    source = Source(filled.dsn, lambda: NOW)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        source._connection.execute("DELETE FROM packages")
    source.close()


def test_all_is_of_one_moment(filled: Database, filler: Filler) -> None:
    def change(done: int, total: int) -> None:
        if not seen:
            filled.package("zz-new", "1.0")
            filled.sql("DELETE FROM packages WHERE package = 'zope'")
            filled.download(WHEEL)
        seen.append(done)

    seen: list[int] = []
    filler.progress = change
    filler()
    assert [row[0] for row in filler.rows("SELECT package FROM packages ORDER BY 1")] == [
        *("a-b", "a0", "ab", "numpy", "zope")
    ]
    assert filler.rows("SELECT sum(downloads) FROM download_hours") == [(3,)]


def test_names_that_the_database_sorts_otherwise(filled: Database, filler: Filler) -> None:
    """In the collation of a language, a-b comes after ab."""
    try:
        filled.sql("CREATE COLLATION language (provider = icu, locale = 'und-u-ka-shifted')")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL has no ICU")
    for table in ("packages", "package_names", "versions", "builds"):
        filled.sql(f"ALTER TABLE {table} ALTER package TYPE varchar(200) COLLATE language")
    sorted_by_language = filled.connection.execute("SELECT package FROM packages ORDER BY 1")
    assert [row[0] for row in sorted_by_language][:3] != ["a-b", "a0", "ab"]
    assert filler().builds == 6
    assert filler().taken == 0


# What is different


def compare(database: Database, filler: Filler, tmp_path: Path) -> None:
    """The index is the same as a new one."""
    fresh = Filler(tmp_path / "fresh", database)
    fresh()
    assert filler.tables() == fresh.tables()
    counts = "SELECT package, downloads_all FROM download_counts WHERE listed"
    assert set(filler.rows(counts)) == set(fresh.rows(counts))


CHANGES = {
    "description": "UPDATE packages SET description = 'More arrays' WHERE package = 'numpy'",
    "skip": "UPDATE packages SET skip = 'why' WHERE package = 'numpy'",
    "name": "INSERT INTO package_names VALUES ('numpy', 'NUMPY', now())",
    "name seen": "UPDATE package_names SET seen = now() WHERE name = 'NumPy'",
    "name gone": "DELETE FROM package_names WHERE name = 'NumPy'",
    "version": "INSERT INTO versions VALUES ('numpy', '3.0', now())",
    "version gone": "DELETE FROM versions WHERE package = 'numpy' AND version = '1.0'",
    "released": "UPDATE versions SET released = '2020-01-01' WHERE package = 'numpy'",
    "unyanked": "UPDATE versions SET yanked = false WHERE package = 'numpy'",
    "build": "INSERT INTO builds (package, version, built_by, duration, abi_tag)"
    " VALUES ('numpy', '2.0', 1, '1 day', 'cp39')",
    "builds gone": "DELETE FROM builds WHERE package = 'numpy' AND build_id = 1",
    "duration": "UPDATE builds SET duration = '1 s' WHERE package = 'numpy'",
    "file gone": "DELETE FROM files WHERE filename LIKE 'numpy%'",
    "hash": f"UPDATE files SET filehash = '{HASH[::-1]}' WHERE filename LIKE 'numpy%'",
    "dependency": "UPDATE dependencies SET tool = 'pip' WHERE filename LIKE 'numpy%'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_mended(
    change: str, filled: Database, filler: Filler, tmp_path: Path
) -> None:
    filler()
    connection = sqlite3.connect(filler.directory / queries.FILE)
    connection.execute("DELETE FROM rewrites_pending")
    connection.commit()
    connection.close()
    filled.sql(CHANGES[change])
    outcome = filler()
    assert (outcome.packages, outcome.taken, outcome.deleted) == (5, 1, 0)
    touched = {row[0] for row in filler.rows("SELECT package FROM rewrites_pending")}
    assert touched - {"NumPy", "NUMPY"} == {"numpy"}
    compare(filled, filler, tmp_path)
    assert filler().taken == 0


def test_why_builds_failed_is_kept(filled: Database, filler: Filler) -> None:
    """A database does not know it; replacing the package once took it away."""
    filler()
    failed = "SELECT build_id, failure_category, failure_detail FROM builds WHERE NOT status"
    [(build_id, *unknown)] = filler.rows(failed)
    assert unknown == [None, None]
    told = messages.LogFailure(build_id, messages.Failure("missing-header", "Python.h"))
    state = filler.state()
    state.take([Accepted(None, messages.Message("FAILURE", NOW, told))])
    state.close()
    filled.sql("UPDATE packages SET description = 'x' WHERE package = 'numpy'")
    assert filler().taken == 1
    assert filler.rows(failed) == [(build_id, "missing-header", "Python.h")]
    filler()
    assert filler.new == 0


def test_what_is_gone_is_deleted(filled: Database, filler: Filler, tmp_path: Path) -> None:
    filler()
    filled.sql("DELETE FROM packages WHERE package IN ('a-b', 'ab', 'zope')")
    outcome = filler()
    assert (outcome.packages, outcome.taken, outcome.deleted) == (2, 0, 3)
    assert filler.new == 3
    compare(filled, filler, tmp_path)


def test_files_that_moved(filled: Database, filler: Filler, tmp_path: Path) -> None:
    filler()
    filled.build("a0", "1.0", WHEEL, "zope-1.0-py3-none-any.whl")
    filler()
    compare(filled, filler, tmp_path)


def test_build_abis_that_changed(filled: Database, filler: Filler, tmp_path: Path) -> None:
    filler()
    filled.sql("INSERT INTO build_abis VALUES ('cp313', '')")
    filler()
    assert filler.new == 1
    compare(filled, filler, tmp_path)


def test_many_pages_and_batches(filled: Database, filler: Filler, tmp_path: Path) -> None:
    filler.sizes = Sizes(page=2, batch=3, counts=1)
    for number in range(20):
        filled.package(f"package-{number}", "1.0")
        filled.download(f"package_{number}-1.0-py3-none-any.whl")
    done: list[tuple[int, int]] = []
    filler.progress = lambda *progress: done.append(progress)
    assert filler() == Outcome(25, 25, 0, 6, 21, 0)
    assert done[12] == (25, 25)
    compare(filled, filler, tmp_path)
    filled.sql("DELETE FROM packages WHERE package LIKE 'package-1%'")
    filled.sql("UPDATE packages SET skip = 'x' WHERE package LIKE 'package-%'")
    assert filler() == Outcome(14, 9, 11, 0, 0, 0)
    compare(filled, filler, tmp_path)


def test_empty_database_deletes_nothing(filled: Database, filler: Filler) -> None:
    filler()
    filled.sql("DELETE FROM packages")
    with pytest.raises(UsageError, match="all of them would be deleted"):
        filler()
    assert len(filler.rows("SELECT * FROM packages")) == 5


# Downloads


def counts(filler: Filler) -> dict[str, Any]:
    rows = filler.rows(
        "SELECT package, downloads_all, json_group_array(json_array(hour, downloads))"
        " FROM download_counts LEFT JOIN download_hours USING (counter_id)"
        " WHERE downloads_all GROUP BY package"
    )
    return {package: (ever, sorted(json.loads(hours))) for package, ever, hours in rows}


def test_whom_downloads_count_for(filled: Database, filler: Filler) -> None:
    """For the package of the file, else for that of the wheel's name, else for none."""
    odd = "other-1.0-py3-none-any.whl"
    filled.build("ab", "1.0", odd)
    filled.download(odd, count=2)
    filled.download("A._B-1.0-cp39-cp39-any.whl", HOUR - 7200)
    filled.download("zope-1.0-1-py3-none-any.whl")
    for nothing in ("unknown-1.0-py3-none-any.whl", "ab-1.0.tar.gz", "ab-1.whl", ".-1-2-3-4.whl"):
        filled.download(nothing)
    filler()
    assert counts(filler) == {
        "numpy": (3, [[HOUR, 3]]),
        "ab": (2, [[HOUR, 2]]),
        "a-b": (1, [[HOUR - 7200, 1]]),
        "zope": (1, [[HOUR, 1]]),
    }


def test_downloads_that_changed(filled: Database, filler: Filler) -> None:
    filled.download("zope-1.0-py3-none-any.whl", count=2)
    filler()
    filled.download(WHEEL, HOUR + 3600)
    filled.sql("DELETE FROM downloads WHERE filename LIKE 'zope%'")
    assert filler().counters == 2
    assert counts(filler) == {"numpy": (4, [[HOUR, 3], [HOUR + 3600, 1]])}
    assert filler().counters == 0


def test_only_the_hours_of_some_days(filled: Database, filler: Filler) -> None:
    old = HOUR - 40 * 86400
    filled.download(WHEEL, old, count=7)
    edge = hours_since(NOW, 31)
    assert edge == HOUR - 31 * 86400
    filled.download(WHEEL, edge)
    filled.download(WHEEL, edge - 3600)
    assert filler(days=31).counters == 1
    assert counts(filler)["numpy"] == (12, [[edge, 1], [HOUR, 3]])
    assert filler(days=31).counters == 0
    assert filler().counters == 1
    assert counts(filler)["numpy"][1][0] == [old, 7]


# What goes wrong


def test_rows_that_are_no_messages(filled: Database, filler: Filler, tmp_path: Path) -> None:
    filled.package("Not_Canonical", "1.0")
    filled.build("Not_Canonical", "1.0")
    filled.package("good", "1/0", "1.0", "9.0", "9.1", "9.2")
    filled.sql("INSERT INTO package_names VALUES ('good', '.good')")
    filled.build("good", "1.0", "good-1.0-py3-none-any.whl", filehash="X" * 64)
    filled.build("good", "1.0", "good-2.0-py3-none-any.whl")
    filled.sql("UPDATE versions SET released = '0044-03-15 BC' WHERE version = '9.0'")
    filled.sql("UPDATE versions SET released = 'infinity' WHERE version = '9.1'")
    filled.sql("UPDATE versions SET released = '294276-12-31' WHERE version = '9.2'")
    for _ in range(2):
        assert filler().refused == 7
        assert sorted(reason for reason, _ in filler.quarantine()) == [
            f"data.files[0].filehash: '{'X' * 56}... is not a SHA-256 in 64 lower-case"
            " hexadecimal digits",
            "data.name: '.good' begins with a dot",
            "data.package: 'Not_Canonical' is not a canonical package name (PEP 503)",
            *["data.released: lies outside the years 1 to 9999 UTC"] * 3,
            "data.version: '1/0' has a \"/\"",
        ]
    assert filler.rows("SELECT version FROM versions WHERE package = 'good'") == [("1.0",)]
    assert filler.rows("SELECT filename FROM files WHERE filename LIKE 'good%'") == [
        ("good-2.0-py3-none-any.whl",)
    ]
    for _, one in filler.quarantine():
        assert one.source == "postgres"
        with pytest.raises(DecodeError):
            decode.from_json(one.raw, NOW)
    compare(filled, filler, tmp_path)


@pytest.mark.parametrize("when", ["infinity", "-infinity", "294276-12-31", "0044-03-15 BC"])
def test_downloads_that_never_were(filled: Database, filler: Filler, when: str) -> None:
    """Once one of them ended every backfill."""
    filled.download("zope-1.0-py3-none-any.whl", count=2)
    filled.sql(f"UPDATE downloads SET accessed_at = '{when}' WHERE filename LIKE 'zope%'")
    assert filler().counters == 1
    assert counts(filler).keys() == {"numpy"}


def test_connection_that_breaks_off(
    filled: Database, filler: Filler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was accepted is kept, and the next run continues there."""
    filler.sizes = Sizes(page=1, batch=1)
    monkeypatch.setattr("indexer.piwheels.backfill.postgres.AT_ONCE", 1)

    def break_off(done: int, total: int) -> None:
        if done == 3:
            filled.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )

    filler.progress = break_off
    with pytest.raises(PeerError, match="run it again: what was taken is kept"):
        filler()
    assert len(filler.rows("SELECT * FROM packages")) == 3
    filled.sql("UPDATE packages SET description = 'changed meanwhile'")
    filler.progress = lambda done, total: None
    assert filler() == Outcome(packages=2, taken=2, deleted=0, builds=3, counters=1, refused=0)
    assert not (filler.directory / RECORD).exists()
    assert filler().taken == 3, "a complete one looks at all again"
    compare(filled, filler, tmp_path)


def test_interrupted_among_the_downloads(
    filled: Database, filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = Source.downloads

    def fail(self: Source, since: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Source, "downloads", fail)
    with pytest.raises(KeyboardInterrupt):
        filler()
    monkeypatch.setattr(Source, "downloads", downloads)
    assert filler() == Outcome(packages=0, taken=0, deleted=0, builds=0, counters=1, refused=0)


def test_broken_feeds_are_whole_after_it(filled: Database, filler: Filler) -> None:
    state = filler.state()
    state.take([Lost(Position("master", 1, 7), "it was lost")])
    state.close()
    filler()
    reader = JournalReader(filler.directory / "journal")
    assert [feed.broken for feed in reader.feeds()] == [None]
    reader.close()


def test_without_psycopg_it_says_what_to_install(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match="extra `postgres`"):
        Source(database.dsn, lambda: NOW)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DROP TABLE files CASCADE", "the table files has no abi_tag, build_id"),
        ("ALTER TABLE versions DROP released CASCADE", "the table versions has no released"),
    ],
)
def test_database_with_another_layout(
    statement: str, says: str, filled: Database, filler: Filler
) -> None:
    filled.sql(statement)
    with pytest.raises(UsageError) as found:
        filler()
    assert says in str(found.value)
    assert "not of piwheels 0.23" in str(found.value)


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("DROP TABLE configuration", ""),
        ("DROP TABLE IF EXISTS searches CASCADE", ""),
        ("ALTER TABLE files ADD metadata_hash TEXT", ""),
        ("CREATE TABLE archives (filename TEXT)", ""),
        ("DROP TABLE dependencies CASCADE", "dependencies"),
        ("DROP TABLE downloads CASCADE", "downloads"),
        ("DROP TABLE preinstalled_apt_packages CASCADE", "what is preinstalled"),
        ("DROP TABLE package_names CASCADE", "spellings of names"),
        ("ALTER TABLE files DROP location CASCADE", "where files are served from"),
        ("ALTER TABLE files DROP requires_python CASCADE", "Requires-Python"),
        ("ALTER TABLE versions DROP yanked CASCADE", "which versions are yanked"),
        ("ALTER TABLE packages DROP description CASCADE", "descriptions"),
        ("ALTER TABLE builds DROP duration CASCADE", "durations"),
    ],
)
def test_what_a_database_lacks_is_named_and_the_rest_is_read(
    statement: str, lost: str, filled: Database, filler: Filler, caplog: pytest.LogCaptureFixture
) -> None:
    filled.sql(statement)
    outcome = filler()
    assert outcome.packages > 0
    assert outcome.builds > 0
    assert (f"It does not tell: {lost};" in caplog.text) is bool(lost)


def test_database_of_another_version(
    filled: Database, filler: Filler, caplog: pytest.LogCaptureFixture
) -> None:
    filled.sql("UPDATE configuration SET version = '0.24'")
    filler()
    assert "is of piwheels 0.24; 0.23 was tested" in caplog.text


def test_user_that_may_not_read(filled: Database, postgres: Server, filler: Filler) -> None:
    filled.sql("DROP ROLE IF EXISTS nobody_in_particular")
    filled.sql("CREATE ROLE nobody_in_particular LOGIN")
    filler.dsn = filler.dsn.replace("user=admin", "user=nobody_in_particular")
    with pytest.raises(PeerError, match="permission denied"):
        filler()


def test_dsn_as_piwheels_has_it(filled: Database, postgres: Server, filler: Filler) -> None:
    name = filler.dsn.rpartition("dbname=")[2]
    url = postgres.url(name)
    for dsn in (url, url.replace("postgresql:", "postgres:"), url.replace("ql:", "ql+psycopg2:")):
        Source(dsn, lambda: NOW).close()
    with pytest.raises(UsageError, match="--dsn"):
        Source("no such thing", lambda: NOW)
    with pytest.raises(PeerError, match="does not exist"):
        Source(url.replace(name, "nowhere"), lambda: NOW)
