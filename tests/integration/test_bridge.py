"""The bridge: whatever happens, each committed change is published once and in order."""

from __future__ import annotations

import inspect
import logging
import random
import sqlite3
import sys
import threading
from collections import UserDict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from indexer.base import clock, times
from indexer.base.errors import StateError, UsageError
from indexer.base.lock import Lock
from indexer.base.log import NOTICE
from indexer.journal.journal import Journal
from indexer.messages.types import Failure, Message
from indexer.piwheels.bridge import outbox
from indexer.piwheels.bridge.bridge import Bridge
from indexer.piwheels.bridge.changes import CHANGES
from indexer.piwheels.bridge.master import Locations, Master
from indexer.piwheels.bridge.unsettled import Marks
from indexer.reasons import build_log

from ..support import Feed, eventually
from .bridged import (
    HASH,
    HOST,
    OUTPUT,
    STANDIN,
    WHEN,
    Bridged,
    build,
    download,
    imported,
    published,
    quarantined,
)

pytestmark = pytest.mark.integration

WHEEL = "numpy-2.2.6-cp311-cp311-linux_armv7l.whl"
AT = times.from_datetime(WHEN)


@pytest.fixture(autouse=True)
def standin() -> Iterator[None]:
    with imported(STANDIN):
        yield


@pytest.fixture
def start(tmp_path: Path, ipc: Feed) -> Iterator[Callable[..., Bridged]]:
    """Starts bridges, one after the other."""
    started: list[Bridged] = []

    def one(**options: Any) -> Bridged:
        for before in started:
            before.stop()
        started.append(Bridged(tmp_path, ipc, **options))
        return started[-1]

    yield one
    for before in started:
        before.stop()


@pytest.fixture
def bridged(start: Callable[..., Bridged]) -> Bridged:
    return start()


def names(messages: list[Message]) -> list[str]:
    return [message.name for message in messages]


# What is published


def test_every_change_is_published(bridged: Bridged) -> None:
    database = bridged.database
    began = clock.now()
    assert database.add_new_package("numpy", skip="why", description="Arrays") is True
    database.add_package_name("numpy", "NumPy", WHEN)
    database.add_package_name("numpy", "numpy")
    database.set_package_description("numpy", "Many arrays")
    database.skip_package("numpy", "")
    assert database.add_new_package_version("numpy", "2.2.6", WHEN, "binary only") is True
    assert database.add_new_package_version("numpy", "3.0")
    database.skip_package_version("numpy", "2.2.6", reason="")
    database.yank_version("numpy", "2.2.6")
    database.unyank_version("numpy", "2.2.6")
    build_id = bridged.build("numpy", "2.2.6", WHEEL)
    bridged.download(WHEEL, py_version="3.11", arch="armv7l")
    database.delete_build("numpy", "2.2.6")
    database.delete_version("numpy", "2.2.6")
    database.delete_package("numpy")
    found = bridged.changes()
    assert [(name, data._asdict()) for name, _, data in found] == [
        ("NEWPKG", {"package": "numpy", "skip": "why", "description": "Arrays"}),
        ("NEWPKGNAME", {"package": "numpy", "name": "NumPy", "seen": AT}),
        ("NEWPKGNAME", {"package": "numpy", "name": "numpy", "seen": None}),
        ("SETDESC", {"package": "numpy", "description": "Many arrays"}),
        ("SKIPPKG", {"package": "numpy", "reason": ""}),
        (
            "NEWVER",
            {"package": "numpy", "version": "2.2.6", "released": AT, "skip": "binary only"},
        ),
        ("NEWVER", {"package": "numpy", "version": "3.0", "released": None, "skip": ""}),
        ("SKIPVER", {"package": "numpy", "version": "2.2.6", "reason": ""}),
        ("YANKVER", {"package": "numpy", "version": "2.2.6"}),
        ("UNYANKVER", {"package": "numpy", "version": "2.2.6"}),
        (
            "LOGBUILD",
            {
                "build_id": build_id,
                "slave_id": 3,
                "package": "numpy",
                "version": "2.2.6",
                "abi_tag": "cp311",
                "status": True,
                "duration": 120.5,
                "files": (
                    (
                        WHEEL,
                        1000,
                        HASH,
                        *("numpy", "2.2.6", "cp311", "cp311", "linux_armv7l"),
                        ">=3.9",
                        (("apt", ("libx",)), ("pip", ())),
                        "/simple",
                    ),
                ),
                "failure": None,
            },
        ),
        (
            "LOGDOWNLOAD",
            {
                **dict.fromkeys(found[11].data._fields),
                "filename": WHEEL,
                "accessed_at": AT,
                "arch": "armv7l",
                "py_version": "3.11",
            },
        ),
        ("DELBUILD", {"package": "numpy", "version": "2.2.6"}),
        ("DELVER", {"package": "numpy", "version": "2.2.6"}),
        ("DELPKG", {"package": "numpy"}),
    ]
    assert {one.name for one in found} == {one.message for one in CHANGES}
    assert all(began <= one.at <= clock.now() for one in found)


def test_what_changed_nothing_is_not_published(bridged: Bridged) -> None:
    database = bridged.database
    database.add_new_package("numpy")
    database.add_new_package_version("numpy", "1.0", WHEN)
    assert database.add_new_package("numpy", "other") is False
    assert database.add_new_package_version("numpy", "1.0", skip="x") is False
    refusal = sys.modules["piwheels.master.db"].IntegrityError
    with pytest.raises(refusal):
        database.add_new_package_version("unknown", "1.0")
    with pytest.raises(refusal):
        bridged.build("numpy", "7.0")
    with pytest.raises(refusal):
        bridged.download(WHEEL, host="localhost")
    with pytest.raises(TypeError):
        database.delete_version("numpy")
    database.get_all_packages()
    assert names(bridged.changes()) == ["NEWPKG", "NEWVER"]


def test_addresses_and_output_are_never_published(bridged: Bridged) -> None:
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package_version("numpy", "1.0")
    bridged.build("numpy", "1.0", WHEEL)
    bridged.download(WHEEL)
    bridged.download("not/a/filename")  # refused
    bridged.wait()
    bridged.stop()
    assert len(quarantined(bridged.spool)) == 1
    for path in bridged.state_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert HOST.encode() not in content
            assert OUTPUT.encode() not in content


def test_why_a_build_failed_is_read_from_its_output(bridged: Bridged) -> None:
    """The output itself is nowhere; a master that has none, or another form of it, does no harm."""
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package_version("numpy", "1.0")
    log = "a.c:3:10: fatal error: ffi.h: No such file or directory\nsecret \ud800\n"
    bridged.build("numpy", "1.0", status=False, output=log)
    bridged.build("numpy", "1.0", status=False, output=None)
    bridged.build("numpy", "1.0", status=False, output=b"bytes")
    bridged.build("numpy", "1.0", WHEEL, output=log)
    builds = [one.data for one in bridged.changes() if one.name == "LOGBUILD"]
    assert [build.failure for build in builds] == [("missing-header", "ffi.h"), None, None, None]
    bridged.stop()
    for path in bridged.state_dir.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes()


def test_logs_that_do_not_fit_are_left_out(
    bridged: Bridged, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """They wait while nothing can be published: a thread of the master does not read them."""
    monkeypatch.setattr(outbox, "MAX_LOGS", 1000)
    log = "a.c:3:10: fatal error: ffi.h: No such file or directory\n"
    abis_read(bridged, 1)
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package_version("numpy", "1.0")
    writer = full(bridged)
    bridged.database.add_new_package("first", description="x" * 100_000)  # it alone is held
    eventually(lambda: bool(errors(caplog)))
    for size in (900, 1000, 10):
        bridged.build("numpy", "1.0", status=False, output=log + "x" * size)
    make_room(writer)
    bridged.wait()
    bridged.build("numpy", "1.0", status=False, output=log)
    builds = [one.data for one in bridged.changes() if one.name == "LOGBUILD"]
    reason = ("missing-header", "ffi.h")
    assert [build.failure for build in builds] == [reason, None, None, reason]
    assert "2 failed builds are published without the reason" in caplog.text


def test_a_log_takes_room_until_it_has_been_read(
    bridged: Bridged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_LOGS", 1000)
    reading, may_end = threading.Event(), threading.Event()

    def read(log: str) -> Failure:
        reading.set()
        may_end.wait()
        return Failure("unknown", "")

    monkeypatch.setattr(build_log, "read_text", read)
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package_version("numpy", "1.0")
    for _ in range(2):
        bridged.build("numpy", "1.0", status=False, output="x" * 900)
        reading.wait()
    may_end.set()
    builds = [one.data for one in bridged.changes() if one.name == "LOGBUILD"]
    assert [build.failure for build in builds] == [("unknown", ""), None]


def test_what_the_database_makes_of_odd_values(bridged: Bridged) -> None:
    east = timezone(timedelta(hours=9))
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package_version("numpy", "1.0", WHEN.astimezone(east))
    bridged.database.add_package_name("numpy", "NUMPY", datetime(2026, 7, 1, 12))  # noqa: DTZ001
    bridged.build("numpy", "1.0", duration=timedelta(seconds=-5), status=False)
    bridged.download("numpy\x07.whl", timestamp=WHEN.astimezone(east), distro_name="a\x00b")
    version, name, failure, download = [one.data for one in bridged.changes()][-4:]
    assert version.released == AT
    assert times.to_datetime(name.seen) == datetime(2026, 7, 1, 12).astimezone()
    assert failure.duration == 0.0, "the slave's clock was set back"
    assert failure.files == ()
    assert download.filename == "numpy\N{REPLACEMENT CHARACTER}.whl"
    assert download.distro_name == "a\N{REPLACEMENT CHARACTER}b"
    assert download.accessed_at == AT


def test_no_downloads_leaves_downloads_to_the_master(start: Callable[..., Bridged]) -> None:
    bridged = start(downloads=False)
    bridged.download(WHEEL)
    bridged.database.add_new_package("numpy")
    assert "LOGDOWNLOAD" not in names(bridged.published())
    assert bridged.sql("SELECT count(*) FROM downloads") == [(1,)]


def test_refused_changes_are_quarantined(
    bridged: Bridged, caplog: pytest.LogCaptureFixture
) -> None:
    bridged.database.add_new_package("Not_Canonical", description="x")
    bridged.download(WHEEL, arch="\ud800")
    bridged.database.add_new_package("numpy")
    assert names(bridged.changes()) == ["NEWPKG"]
    first, second = quarantined(bridged.spool)
    assert "is not a canonical package name" in first[0]
    assert first[1]["data"] == {"package": "Not_Canonical", "skip": "", "description": "x"}
    assert "surrogates not allowed" in second[0]
    assert second[1]["data"]["arch"] == "\ud800"
    bridged.database.add_new_package("Not_Canonical_Either")
    bridged.wait()
    assert len([one for one in caplog.messages if "not a valid message" in one]) == 2, "once a kind"


# Their order


def test_published_in_the_order_of_the_commits(bridged: Bridged) -> None:
    """Threads that commit with delays; changes of one package are published in their order."""
    sys.modules["piwheels.master.db"].Database.dawdle = 0.01

    def work(seed: int) -> None:
        chance = random.Random(seed)
        database = bridged.connect()
        for number in range(40):
            package = f"package-{chance.randrange(3)}"
            database.add_new_package(package)
            if chance.random() < 0.2:
                database.delete_package(package)
            else:
                database.set_package_description(package, f"{seed}-{number}")
        database.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    committed: dict[str, list[str]] = {}
    for message, package in bridged.sql("SELECT message, package FROM commits ORDER BY number"):
        committed.setdefault(package, []).append(message)
    descriptions: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for name, _, data in bridged.changes():
        # One that found nothing to change is told, too: it changes nothing here either.
        known = data.package in descriptions
        if name == "NEWPKG":
            descriptions[data.package] = ""
        elif not known:
            continue
        elif name == "DELPKG":
            del descriptions[data.package]
        else:
            descriptions[data.package] = data.description
        found.setdefault(data.package, []).append(name)
    assert found == committed
    assert descriptions == dict(bridged.sql("SELECT package, description FROM packages"))


def test_a_file_that_moves_between_packages(bridged: Bridged) -> None:
    """Builds of different packages with the same file are published in their order."""
    sys.modules["piwheels.master.db"].Database.dawdle = 0.01
    for package in ("numpy", "scipy", "other"):
        bridged.database.add_new_package(package)
        bridged.database.add_new_package_version(package, "1.0")

    def work(package: str) -> None:
        database = bridged.connect()
        for _ in range(25):
            database.log_build(build(bridged.states, package, "1.0", WHEEL))
        database.close()

    threads = [threading.Thread(target=work, args=(one,)) for one in ("numpy", "scipy", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    builds = [one.data.build_id for one in bridged.published() if one.name == "LOGBUILD"]
    assert builds == sorted(builds)
    assert len(builds) == 75


def test_other_packages_do_not_wait(bridged: Bridged) -> None:
    """A change that waits in the database delays no other change."""
    bridged.database.add_new_package("numpy")
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with bridged.outbox.in_order(["numpy"]):
            inside.set()
            go_on.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    others = [f"package-{number}" for number in range(8)]
    free = [one for one in others if hash(one) % 64 != hash("numpy") % 64]
    waiting = threading.Thread(target=bridged.connect().skip_package, args=("numpy", "x"))
    waiting.start()
    for package in free:
        bridged.database.add_new_package(package)
    bridged.download(WHEEL)
    assert waiting.is_alive()
    go_on.set()
    waiting.join()
    holder.join()
    assert names(bridged.changes())[-1] == "SKIPPKG"


# The build ABIs


def abis(messages: list[Message]) -> list[Any]:
    return [one.data for one in messages if one.name == "SETABIS"]


def abis_read(bridged: Bridged, count: int) -> None:
    eventually(lambda: len(abis(published(bridged.spool))) == count)


def test_build_abis_when_they_are_new(start: Callable[..., Bridged]) -> None:
    bridged = start()
    abis_read(bridged, 1)
    bridged.sql(
        "INSERT INTO build_abis VALUES ('cp311', ''), ('cp39', 'old')",
        "INSERT INTO preinstalled_apt_packages VALUES ('cp311', 'libc6'), ('cp311', 'liba')",
    )
    bridged = start()
    abis_read(bridged, 2)
    assert abis(bridged.published())[1] == (
        (("cp311", ""), ("cp39", "old")),
        (("cp311", ("liba", "libc6")),),
    )
    bridged = start()
    bridged.database.add_new_package("numpy")
    eventually(lambda: bridged.bridge._abis is not None)
    bridged.stop()
    assert names(published(bridged.spool)) == ["SETABIS", "SETABIS", "NEWPKG"], "not once more"


def test_where_files_are_whoever_moved_them(bridged: Bridged) -> None:
    """Files are archived by other programs, with no request to the master."""
    other = "scipy-1.0-cp311-cp311-linux_armv7l.whl"
    for package, filename in (("numpy", WHEEL), ("scipy", other)):
        bridged.database.add_new_package(package)
        bridged.database.add_new_package_version(package, "1.0")
        bridged.build(package, "1.0", filename)
    bridged.sql(f"UPDATE files SET location = '/old' WHERE filename = '{other}'")
    engine = bridged._class.engines[bridged.dsn]
    locations = Locations(engine, bridged.outbox)

    def moved(statement: str) -> list[Any]:
        bridged.sql(statement)
        before = len(bridged.published())
        locations.look()
        return [one.data for one in bridged.published()[before:] if one.name == "MOVEFILES"]

    assert moved("SELECT 1") == [], "subscribers know it from their backfill"
    update = f"UPDATE files SET location = '/archive' WHERE filename = '{WHEEL}'"
    assert moved(update) == [("numpy", ((WHEEL, "/archive"),))]
    assert moved("SELECT 1") == []
    assert moved("UPDATE files SET location = '/simple'") == [
        ("numpy", ((WHEEL, "/simple"),)),
        ("scipy", ((other, "/simple"),)),
    ]
    assert moved("DELETE FROM files") == []
    bridged.stop()


def test_build_abis_of_a_new_epoch(start: Callable[..., Bridged]) -> None:
    bridged = start()
    abis_read(bridged, 1)
    bridged.stop()
    for path in bridged.spool.glob("*"):
        path.unlink()
    abis_read(start(), 1)


# The spool fails


def writer_of(bridged: Bridged) -> sqlite3.Connection:
    """The connection with which the spool is written."""
    spool = bridged.bridge._spool
    assert spool is not None
    writer = spool._writer
    assert writer is not None
    return writer


def full(bridged: Bridged) -> sqlite3.Connection:
    """Let the spool have no more pages, as on a full disk; returns its connection."""
    bridged.wait()
    writer = writer_of(bridged)
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    return writer


def make_room(writer: sqlite3.Connection) -> None:
    writer.execute("PRAGMA max_page_count = 1000000")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]


def test_full_disk_is_outlived(
    start: Callable[..., Bridged], caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(NOTICE)
    failed: list[Exception] = []
    fail = Bridge._failed

    def failing(bridge: Bridge, error: Exception) -> None:
        failed.append(error)
        fail(bridge, error)

    monkeypatch.setattr(Bridge, "_failed", failing)
    bridged = start()
    abis_read(bridged, 1)
    writer = full(bridged)
    for number in range(300):
        bridged.database.add_new_package(f"package-{number}", description="x" * 500)
    eventually(lambda: len(failed) >= 5)
    assert bridged.marks.unsettled
    (error,) = errors(caplog)
    assert "full" in error
    assert "free some disk space" in error
    assert "the master continues" in error
    make_room(writer)
    messages = bridged.published()[1:]
    assert [one.data.package for one in messages] == [f"package-{n}" for n in range(300)]
    eventually(lambda: "can be written again" in caplog.text)
    epoch = bridged.epoch
    assert start().epoch == epoch, "nothing was lost"


def test_what_does_not_fit_begins_a_new_epoch(start: Callable[..., Bridged], caplog: Any) -> None:
    bridged = start(most=50)
    abis_read(bridged, 1)
    epoch = bridged.epoch
    writer = full(bridged)
    # Larger than any page that is left. A bridge that holds it takes nothing else: how much of
    # the rest fits then does not depend on how fast the bridge is.
    bridged.database.add_new_package("first", description="x" * 100_000)
    eventually(lambda: bool(errors(caplog)))
    for number in range(200):
        bridged.database.add_new_package(f"package-{number}", description="x" * 500)
    make_room(writer)
    bridged.wait()
    bridged.database.add_new_package("later")
    bridged.wait()
    assert names(published(bridged.spool)) == ["SETABIS", "NEWPKG"]
    assert bridged.epoch != epoch
    _, *old = published(bridged.spool.with_name("spool.old"))
    kept = ["first", *(f"package-{number}" for number in range(50))]
    assert [one.data.package for one in old] == kept, "what fitted is in the epoch before"
    assert "more than 50 changes waited" in caplog.text
    assert "new epoch" in caplog.text
    epoch = bridged.epoch
    assert start().epoch == epoch


def test_master_that_ends_while_the_disk_is_full(
    start: Callable[..., Bridged], caplog: Any
) -> None:
    bridged = start(last_tries=0.2)
    abis_read(bridged, 1)
    full(bridged)
    epoch = bridged.epoch
    for number in range(100):
        bridged.database.add_new_package(f"package-{number}", description="x" * 500)
    bridged.stop()
    assert "changes of the master are not in the feed" in caplog.text
    bridged = start()
    assert bridged.epoch != epoch


def test_spool_that_was_damaged(start: Callable[..., Bridged], caplog: Any) -> None:
    bridged = start()
    bridged.database.add_new_package("numpy")
    bridged.wait()
    bridged.stop()
    (month,) = bridged.spool.glob("*.db")
    month.write_bytes(b"damaged" * 1000)
    bridged = start()
    bridged.database.add_new_package("scipy")
    assert "damaged" in caplog.text
    assert [one.data.package for one in bridged.published() if one.name == "NEWPKG"] == ["scipy"]
    assert (bridged.state_dir / "spool.old" / month.name).read_bytes() == b"damaged" * 1000


def test_spool_that_is_damaged_while_it_is_used(start: Callable[..., Bridged], caplog: Any) -> None:
    bridged = start()
    abis_read(bridged, 1)
    epoch = bridged.epoch
    bridged.wait()
    writer_of(bridged).execute("ALTER TABLE messages RENAME TO lost")
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package("scipy")
    found = [one.data.package for one in bridged.published() if one.name == "NEWPKG"]
    assert found == ["numpy", "scipy"]
    assert bridged.epoch != epoch
    assert "new epoch" in caplog.text


def test_spool_that_another_uses(start: Callable[..., Bridged], tmp_path: Path) -> None:
    lock = Lock(tmp_path / "state" / "spool", "publish")
    with pytest.raises(StateError, match="locked by piw-indexer publish"):
        start()
    lock.release()


def test_spool_that_cannot_be_opened_for_now(
    start: Callable[..., Bridged], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """As when a machine starts with a full disk: the master starts nevertheless."""
    begin = Journal.begin

    refused = 0

    def refuse(self: Journal) -> None:
        nonlocal refused
        refused += 1
        raise StateError("make a month", "database or disk is full", "make room", transient=True)

    monkeypatch.setattr(Journal, "begin", refuse)
    bridged = start()
    bridged.database.add_new_package("numpy")
    eventually(lambda: refused >= 4)
    assert len(errors(caplog)) == 1
    monkeypatch.setattr(Journal, "begin", begin)
    assert "NEWPKG" in names(bridged.published())


# What is lost is known


def test_bridge_that_was_killed_while_changes_were_under_way(
    start: Callable[..., Bridged], caplog: Any
) -> None:
    bridged = start()
    abis_read(bridged, 1)
    epoch = bridged.epoch
    killed = (bridged.state_dir / "bridge").read_bytes()
    bridged.outbox.begin()
    halfway = (bridged.state_dir / "bridge").read_bytes()
    bridged.marks.settle()
    bridged.stop()

    (bridged.state_dir / "bridge").write_bytes(killed)
    bridged = start()
    assert bridged.epoch == epoch
    assert not caplog.messages
    bridged.stop()

    (bridged.state_dir / "bridge").write_bytes(halfway)
    bridged = start()
    assert bridged.epoch != epoch
    assert "did not end in good order" in caplog.text


class BrokeOffError(Exception):
    """SQLAlchemy's errors for a lost connection."""

    connection_invalidated = True

    def __init__(self, statement: str | None) -> None:
        self.statement = statement


@pytest.mark.parametrize(("statement", "lost"), [("VALUES (1)", False), (None, True)])
def test_connection_that_breaks_off(
    bridged: Bridged, statement: str | None, lost: bool, caplog: Any
) -> None:
    """During a statement nothing was committed; during a commit nobody knows."""
    abis_read(bridged, 1)
    epoch = bridged.epoch
    bridged.outbox.begin()
    bridged.outbox.failed(BrokeOffError(statement))
    bridged.wait()
    bridged.database.add_new_package("numpy")
    bridged.wait()
    assert (bridged.epoch != epoch) is lost


def test_change_that_cannot_be_read(bridged: Bridged, caplog: Any) -> None:
    """The master continues, and subscribers learn that something is missing."""
    bridged.database.add_new_package("numpy")
    bridged.database.add_new_package_version("numpy", "1.0")
    bridged.wait()
    epoch = bridged.epoch
    odd = build(bridged.states, "numpy", "1.0")
    odd._values["duration"] = "two minutes"
    assert bridged.database.log_build(odd) == 1
    bridged.wait()
    assert bridged.epoch != epoch
    assert "a LOGBUILD of the master cannot be read" in caplog.text


# Marks


def marks_of(directory: Path, change: Callable[[bytearray], object] = lambda content: None) -> bool:
    """Whether messages count as lost after a change of the file."""
    file = directory / "bridge"
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)
    marks = Marks(directory)
    lost = marks.lost
    marks.made_good()
    marks.close()
    return lost


def test_marks_show_what_a_kill_left_unpublished(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    assert not marks.lost
    marks.begin()
    marks.begin()
    marks.settle(2)
    marks.published_abis(7, b"x" * 32)
    assert not marks_of(tmp_path), "killed while nothing was under way"
    marks.close()
    again = Marks(tmp_path)
    assert not again.lost
    assert again.abis == (7, b"x" * 32)
    again.begin()
    assert marks_of(tmp_path), "killed in the middle"
    again.close()
    assert Marks(tmp_path).lost, "ended with something unsettled"
    assert Marks(tmp_path).lost, "and that stays so until it is made good"
    assert marks_of(tmp_path)
    assert not marks_of(tmp_path)


def test_marks_after_a_power_cut(tmp_path: Path) -> None:
    Marks(tmp_path)  # never closed

    def another_start(content: bytearray) -> None:
        content[8:12] = b"beef"

    assert marks_of(tmp_path, another_start)
    assert not marks_of(tmp_path, lambda content: None), "closed in good order"
    assert marks_of(tmp_path, bytearray.clear) is False, "as new"
    assert marks_of(tmp_path, lambda content: content.pop())
    assert marks_of(tmp_path, lambda content: content.__setitem__(0, 0))


def test_marks_that_cannot_be_written(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "bridge").mkdir()
    marks = Marks(tmp_path)
    marks.begin()
    marks.settle()
    marks.close()
    assert len(errors(caplog)) == 1
    assert "go unnoticed" in caplog.text


# Another piwheels


def database() -> Any:
    return sys.modules["piwheels.master.db"].Database


def remove(name: str) -> Callable[[Any], None]:
    return lambda patch: patch.delattr(database(), name)


def rename_message(patch: Any) -> None:
    patch.setattr(database().delete_package, "message", "DROPPKG")


def replaced(message: str, method: Any) -> Callable[[Any], None]:
    """The method that executes a request is another one."""
    method.message = message
    method.data_to_args = tuple

    def change(patch: Any) -> None:
        [name] = [name for name, one in vars(database()).items() if _message(one) == message]
        patch.setattr(database(), name, method)

    return change


def _message(method: Any) -> str:
    return getattr(method, "message", "")


def without(state: str, *names: str) -> Callable[[Any], None]:
    def change(patch: Any) -> None:
        kind = getattr(sys.modules["piwheels.states"], state)
        for name in names:
            patch.delattr(kind, name)

    return change


def other_engines(patch: Any) -> None:
    patch.setattr(database(), "engines", UserDict())


def oracle(patch: Any) -> None:
    patch.setattr(sys.modules["piwheels.master.the_oracle"], "Database", 1)


def no_requests(patch: Any) -> None:
    for change in CHANGES:
        patch.delattr(database(), change.method)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (oracle, "not executed by its class Database"),
        (no_requests, "it has no request that the bridge knows"),
        (lambda patch: patch.delattr(sys.modules["piwheels.master"], "main"), "no attribute"),
        (lambda patch: patch.setattr(sys.modules["piwheels.master"], "main", 1), "no main"),
        (
            lambda patch: patch.setattr(
                sys.modules["piwheels.transport"], "default_decoder", lambda one, two: one
            ),
            "do not work together",
        ),
    ],
)
def test_piwheels_that_cannot_be_wrapped(
    change: Callable[[Any], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Master()
    change(monkeypatch)
    with pytest.raises(UsageError) as found:
        Master()
    assert says in str(found.value)
    assert "0.23" in str(found.value)


@pytest.mark.parametrize(
    ("change", "says", "lost"),
    [
        (remove("delete_build"), "it has no request DELBUILD", "deleted builds"),
        (rename_message, "it has no request DELPKG", "deleted packages"),
        (
            replaced("LOGBUILD", lambda self, result: None),
            "has no argument build",
            "builds and their files",
        ),
        (other_engines, "has no engines", "build ABIs"),
        (without("BuildState", "duration"), "its BuildState has no duration", "builds and their"),
        (without("FileState", "filehash"), "its FileState has no filehash", "builds and their"),
        (without("DownloadState", "timestamp"), "has no timestamp", "downloads"),
    ],
)
def test_what_a_master_lacks_is_named_and_the_rest_is_published(
    change: Callable[[Any], None],
    says: str,
    lost: str,
    start: Callable[..., Bridged],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Master()
    assert "does not look like" not in caplog.text
    change(monkeypatch)
    bridged = start()
    [error] = [error for error in errors(caplog) if "does not look like" in error]
    assert says in error
    assert lost in error.partition("what happens: ")[2]
    bridged.database.add_new_package("numpy", "", "Arrays")
    assert [message.name for message in bridged.changes()] == ["NEWPKG"]


def test_a_master_that_has_more_is_published(
    start: Callable[..., Bridged],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """More requests, more arguments, other names of methods, and fewer details of downloads."""
    Master()
    kind = database()
    add_new_package, log_download = kind.add_new_package, kind.log_download

    def add(
        self: Any, package: str, skip: str = "", description: str = "", trusted: bool = False
    ) -> bool:
        return bool(add_new_package(self, package, skip, description))

    def count(self: Any, where: str = "", *, download: Any, **more: Any) -> None:
        log_download(self, download)

    monkeypatch.delattr(kind, "add_new_package")
    methods: list[tuple[str, str, Any]] = [
        ("add", "NEWPKG", add),
        ("log_download", "LOGDOWNLOAD", count),
    ]
    for name, message, method in methods:
        method.message, method.data_to_args = message, tuple
        monkeypatch.setattr(kind, name, method, raising=False)
    new_request(monkeypatch)
    bridged = start()
    assert not errors(caplog)
    assert "has requests that the bridge does not know: PURGE" in caplog.text
    bridged.database.add("numpy", description="Arrays", trusted=True)
    item = download(bridged.states, "a-1.0-py3-none-any.whl")
    bridged.database.log_download(download=item, rate=1)
    first, second = bridged.changes()
    assert (first.name, first.data.description) == ("NEWPKG", "Arrays")
    assert (second.name, second.data.filename) == ("LOGDOWNLOAD", "a-1.0-py3-none-any.whl")


def test_downloads_lack_what_a_master_does_not_tell(
    start: Callable[..., Bridged],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Master()
    without("DownloadState", "setuptools_version")(monkeypatch)
    bridged = start()
    assert "has no setuptools_version: downloads are published without it" in caplog.text
    bridged.download("a-1.0-py3-none-any.whl", arch="armv7l")
    [message] = bridged.changes()
    assert (message.data.arch, message.data.setuptools_version) == ("armv7l", None)


def new_request(patch: Any) -> None:
    def purge(self: Any) -> None:
        pass

    purge.message = "PURGE"  # type: ignore[attr-defined]
    patch.setattr(database(), "purge", purge, raising=False)


def test_other_version_that_looks_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Master()
    monkeypatch.setattr(sys.modules["piwheels"], "__version__", "0.24")
    Master()
    assert "this is piwheels 0.24; the bridge was tested with 0.23" in caplog.text


def test_wrapped_methods_look_like_the_originals(bridged: Bridged) -> None:
    """piwheels finds its handlers by inspecting methods."""
    for change in CHANGES:
        method = getattr(type(bridged.database), change.method)
        assert method.message == change.message
        assert callable(method.data_to_args)
        assert method.__name__ == change.method
        assert {*change.arguments} <= {*inspect.signature(method).parameters}
