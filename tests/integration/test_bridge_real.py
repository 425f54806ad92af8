"""The bridge with the installed piwheels, on a real PostgreSQL; skipped without them."""

from __future__ import annotations

import functools
import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from indexer.base import clock
from indexer.feed.spool_server import Options, SpoolServer
from indexer.journal import quarantine
from indexer.journal.reader import JournalReader
from indexer.messages.entries import Accepted
from indexer.messages.types import Position
from indexer.piwheels.bridge.bridge import Bridge
from indexer.piwheels.bridge.changes import CHANGES
from indexer.piwheels.bridge.master import Locations, Master
from indexer.piwheels.bridge.outbox import Outbox
from indexer.piwheels.bridge.unsettled import Marks
from indexer.state.state import State

from ..postgres import Server
from ..support import Feed, eventually
from .bridged import build, download

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what piwheels uses
]

THREADS = 4
TABLES = {
    "packages": "SELECT package, skip, description FROM packages",
    "package_names": "SELECT package, name, to_char(seen, 'YYYY-MM-DD HH24:MI:SS.US')"
    " FROM package_names",
    "versions": "SELECT package, version, to_char(released, 'YYYY-MM-DD HH24:MI:SS'), skip,"
    " yanked::int FROM versions",
    "builds": "SELECT build_id, package, version, abi_tag, status::int, built_by,"
    " extract(epoch FROM duration)::float8 FROM builds",
    "files": "SELECT filename, build_id, filesize, filehash, package_tag, package_version_tag,"
    " py_version_tag, abi_tag, platform_tag, requires_python, location FROM files",
    "dependencies": "SELECT filename, tool, dependency FROM dependencies",
    "build_abis": "SELECT abi_tag, skip FROM build_abis",
    "preinstalled_apt_packages": "SELECT abi_tag, apt_package FROM preinstalled_apt_packages",
}
"""What both databases hold, as PostgreSQL is asked."""

OURS = {
    **{name: f"SELECT * FROM {name}" for name in TABLES},
    "package_names": "SELECT package, name, seen FROM package_names",
    "builds": "SELECT build_id, package, version, abi_tag, status, built_by, duration FROM builds",
    "files": TABLES["files"],
}


AUDIT = """
CREATE TABLE audit (number SERIAL, package TEXT, description TEXT);
CREATE FUNCTION note() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (package, description) VALUES (NEW.package, NEW.description);
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE OF description ON packages FOR EACH ROW EXECUTE FUNCTION note();
"""
"""Notes in which order the rows of packages were described; a row is locked until the commit."""


@pytest.fixture
def dsn(postgres: Server) -> str:
    """A database with piwheels' own layout, made by piwheels itself."""
    pytest.importorskip("piwheels.master", reason="piwheels is not installed")
    from piwheels import initdb  # type: ignore[import-not-found,unused-ignore]

    name = postgres.new_database()
    postgres.psql("postgres", "DROP ROLE IF EXISTS piwheels; CREATE ROLE piwheels LOGIN")
    script = "\n".join(initdb.parse_statements(initdb.get_script()))
    postgres.psql(name, script.format(username="piwheels", dbname=name))
    postgres.psql(
        name,
        "INSERT INTO build_abis VALUES ('cp39', 'old'), ('cp311', ''), ('cp313', '');"
        "INSERT INTO preinstalled_apt_packages VALUES ('cp311', 'libc6');" + AUDIT,
    )
    return postgres.url(name, "piwheels")


@pytest.fixture
def real(dsn: str, tmp_path: Path, ipc: Feed) -> Iterator[tuple[Any, Any, Marks, Bridge]]:
    """piwheels' class `Database`, wrapped; its states; and the bridge."""
    from piwheels import states  # type: ignore[import-not-found,unused-ignore]
    from piwheels.master.db import Database  # type: ignore[import-not-found,unused-ignore]

    marks = Marks(tmp_path)
    outbox = Outbox(marks, clock.now)
    server = SpoolServer(Options(str(tmp_path / "spool"), "master", ipc.changes, ipc.replay))
    ended = threading.Event()
    bridge = Bridge(tmp_path / "spool", server, outbox, marks, lambda: not ended.is_set())
    bridge.open()
    original = dict(vars(Database))
    for change in CHANGES:
        setattr(Database, change.method, dawdling(original[change.method]))
    Master().wrap(outbox)
    bridge.start()
    yield Database, states, marks, bridge
    ended.set()
    outbox.ring()
    bridge.join()
    for name, value in original.items():
        if vars(Database)[name] is not value:
            setattr(Database, name, value)


def dawdling(method: Any) -> Any:
    """Changes that committed later may finish earlier."""

    @functools.wraps(method)
    def execute(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        finally:
            time.sleep(random.random() * 0.01)

    return execute


def live(database: Any, states: Any, seed: int, refused: list[Exception]) -> None:
    """The life of a few packages, with many failures and many changes without effect."""
    chance = random.Random(seed)
    choose = chance.choice

    def moment() -> datetime:
        seconds = timedelta(seconds=chance.randrange(10**7), microseconds=chance.randrange(10**6))
        return datetime(2026, 1, 1, tzinfo=UTC) + seconds

    for number in range(150):
        package = f"pkg-{chance.randrange(3)}"
        version = f"{chance.randrange(3)}.0"
        text = f"{seed}-{number}"
        underscored = package.replace("-", "_")
        wheel = (
            f"{choose([underscored, 'pkg_0'])}-{version}-cp311-{choose(['cp311', 'none'])}-any.whl"
        )
        status = chance.random() < 0.7
        requests: list[tuple[float, Any, tuple[Any, ...]]] = [
            (2, database.add_new_package, (package, choose(["", text]), text)),
            (2, database.add_package_name, (package, choose([package, underscored]), moment())),
            (1, database.add_package_name, (package, package.upper())),
            (3, database.add_new_package_version, (package, version, moment(), choose(["", text]))),
            (4, database.set_package_description, (package, text)),
            (1, database.skip_package, (package, choose(["", text]))),
            (1, database.skip_package_version, (package, version, choose(["", text]))),
            (1, database.yank_version, (package, version)),
            (1, database.unyank_version, (package, version)),
            (0.5, database.delete_build, (package, version)),
            (0.5, database.delete_version, (package, version)),
            (0.3, database.delete_package, (package,)),
            (1, database.get_project_data, (package,)),
            (2, database.log_download, (download(states, wheel, choose(["10.0.0.1", "odd"])),)),
            (
                4,
                database.log_build,
                (
                    build(
                        states,
                        package,
                        version,
                        *([wheel] * status),
                        status=status,
                        abi_tag=choose(["cp311", "cp313"]),
                        duration=timedelta(seconds=chance.random() * 1000),
                    ),
                ),
            ),
        ]
        weights = [weight for weight, _, _ in requests]
        _, method, arguments = chance.choices(requests, weights)[0]
        try:
            method(*arguments)
        except Exception as error:
            if "psycopg2.errors" not in repr(error):
                raise
            refused.append(error)
    database.close()


def archive(locations: Locations, postgres: Server, name: str) -> None:
    """What an archiver does: it writes the table of files itself."""
    for number in range(10):
        postgres.psql(
            name,
            f"UPDATE files SET location = '/archive/{number % 3}' WHERE filename ="
            " (SELECT filename FROM files ORDER BY random() LIMIT 1)",
        )
        locations.look()


def test_the_index_is_what_the_database_is(
    real: tuple[Any, Any, Marks, Bridge], dsn: str, postgres: Server, tmp_path: Path
) -> None:
    database, states, marks, bridge = real
    refused: list[Exception] = []
    threads = [
        threading.Thread(target=live, args=(database(dsn), states, seed, refused))
        for seed in range(THREADS)
    ]
    name = dsn.partition("?")[0].rpartition("/")[2]
    locations = Locations(database.engines[dsn], bridge._outbox)
    locations.look()
    threads.append(threading.Thread(target=archive, args=(locations, postgres, name)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    locations.look()
    eventually(lambda: not marks.unsettled and bridge._abis is not None and not bridge._held)
    reader = JournalReader(tmp_path / "spool")
    rows = reader.read(0, 10_000)
    assert quarantine.waiting(reader) == 0
    reader.close()
    assert len(rows) > 200, refused[:3]
    assert refused
    state = State(tmp_path / "state", "test", clock.now)
    state.take([Accepted(Position("master", 1, row.serial), row.message) for row in rows])
    state.close()
    index = sqlite3.connect(tmp_path / "state" / "index.db")
    for table, sql in TABLES.items():
        answer = postgres.psql(name, f"SELECT row_to_json(x)::text FROM ({sql}) AS x")
        theirs = {tuple(json.loads(line).values()) for line in answer.splitlines()}
        assert theirs, table
        assert set(index.execute(OURS[table])) == theirs, table
    moved = "SELECT count(*) FROM files WHERE location <> '/simple'"
    assert index.execute(moved).fetchone()[0] > 0
    audit = postgres.psql(name, "SELECT package, description FROM audit ORDER BY number")
    described = [tuple(line.split("|")) for line in audit.splitlines()]
    told = [row.message.data for row in rows if row.message.name == "SETDESC"]
    for package in {package for package, _ in described}:
        inside = [one for one in described if one[0] == package]
        assert [one for one in told if one in set(inside)] == inside
    downloads = int(postgres.psql(name, "SELECT count(*) FROM downloads"))
    assert index.execute("SELECT sum(downloads) FROM download_hours").fetchone() == (downloads,)
    index.close()
