"""Apply a SNAPSHOT: it replaces what it can tell of a package, and leaves the rest.

A piwheels master tells one build an ABI, and the ABI of a file's builder, but not which build made
a file; nor when a build ended, how long it took and why it failed. What the index knows of that
stays, as long as the version is there. A number stands for one build of a snapshot, whatever it
says: the first one that it is told for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..base import times
from ..messages import types as messages
from . import fits
from .rows import Rows


class _Known(NamedTuple):
    """A file that the index has, with what tells it from another one of its name."""

    build_id: int
    version: str
    builder_abi: str
    filehash: str


_Plan = dict[str, dict[tuple[int, str], list[messages.SnapshotFile]]]
"""The files of a snapshot by version, and by the number and the ABI of their build."""

_Attempts = dict[int, tuple[str, str]]
"""The version and the ABI that a number stands for."""


def apply(rows: Rows, serial: int, at: times.Time, data: messages.Snapshot) -> None:
    """Apply a snapshot.

    Args:
        at: when the master was asked.
        data: what it told.
    """
    rows.counters.flush()
    package = data.package
    attempts: _Attempts = {}
    plan: _Plan = {}
    added = rows.add_package(serial, package, "", data.description)
    known = {} if added else _known_files(rows, package)
    for release in data.releases:
        plan[release.version] = _builds(rows, package, release, known, attempts)
    _keep_last(plan)
    if not added:
        _clear(rows, serial, data, known, plan)
    rows.touched[package] = serial
    spellings = dict.fromkeys((*data.aliases, package), 0)
    spellings[data.name] = at
    rows.connection.executemany(
        "INSERT OR IGNORE INTO package_names VALUES (?, ?, ?)",
        [(name, package, times.to_sql_precise(seen)) for name, seen in sorted(spellings.items())],
    )
    for release in data.releases:
        version = release.version, times.to_sql(release.released), release.skip, release.yanked
        rows.execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " released = excluded.released, skip = excluded.skip, yanked = excluded.yanked",
            (package, *version),
        )
        _put_builds(rows, serial, package, release, plan[release.version], attempts)
    rows.files.flush()
    rows.execute(
        "DELETE FROM builds WHERE package = ? AND build_id < 0"
        " AND NOT EXISTS (SELECT 1 FROM files f WHERE f.build_id = builds.build_id)",
        (package,),
    )


def _known_files(rows: Rows, package: str) -> dict[str, _Known]:
    """The files of a package in the index, by name."""
    return {
        filename: _Known(*known)
        for filename, *known in rows.execute(
            "SELECT f.filename, b.build_id, b.version, b.abi_tag, f.filehash"
            " FROM builds b JOIN files f ON f.build_id = b.build_id WHERE b.package = ?",
            (package,),
        )
    }


def _builds(
    rows: Rows,
    package: str,
    release: messages.SnapshotRelease,
    known: dict[str, _Known],
    attempts: _Attempts,
) -> dict[tuple[int, str], list[messages.SnapshotFile]]:
    """The builds that the files of a release belong to.

    A file that the index knows stays with its build. The others belong to the build that is told
    for their builder's ABI; if none is, a number below 0 stands for it. If the index does not know
    the build that is told, and no file is new, then that build has made them all again.
    """
    by_builder: dict[str, list[messages.SnapshotFile]] = {}
    for file in release.files:
        by_builder.setdefault(file.builder_abi, []).append(file)
    builds: dict[tuple[int, str], list[messages.SnapshotFile]] = {}
    for builder_abi, files in sorted(by_builder.items()):
        attempt = release.version, builder_abi
        told = _told_build_id(release, builder_abi, files, by_builder.keys())
        if told is not None and attempts.get(told, attempt) != attempt:
            told = None
        kept: list[tuple[int, messages.SnapshotFile]] = []
        others: list[messages.SnapshotFile] = []
        for file in files:
            of_file = known.get(file.filename)
            if (
                of_file is not None
                and of_file[1:] == (*attempt, file.filehash)
                and attempts.get(of_file.build_id, attempt) == attempt
                # A number that is told takes the place of one that only stood for it.
                and (of_file.build_id > 0 or told is None)
            ):
                kept.append((of_file.build_id, file))
            else:
                others.append(file)
        if told is not None and not others and not _is_build(rows, told, package, release.version):
            kept, others = [], files
        if others and told is None:
            least = rows.execute("SELECT min(build_id) FROM builds").fetchone()[0]
            told = min(least or 0, 0, *attempts) - 1
        for build_id, file in (*kept, *((told or 0, file) for file in others)):
            attempts[build_id] = attempt
            builds.setdefault((build_id, builder_abi), []).append(file)
    return builds


def _keep_last(plan: _Plan) -> None:
    """Have each file once: of several versions that name it, the last one has it."""
    seen: set[str] = set()
    for builds in reversed(plan.values()):
        names = {file.filename for files in builds.values() for file in files}
        for build, files in builds.items():
            builds[build] = [file for file in files if file.filename not in seen]
        seen |= names


def _is_build(rows: Rows, build_id: int, package: str, version: str) -> bool:
    """Whether the index knows a build of that number, of that version."""
    return bool(
        rows.execute(
            "SELECT 1 FROM builds WHERE build_id = ? AND package = ? AND version = ?",
            (build_id, package, version),
        ).fetchone()
    )


def _clear(
    rows: Rows,
    serial: int,
    data: messages.Snapshot,
    known: dict[str, _Known],
    plan: _Plan,
) -> None:
    """Take away what a snapshot tells anew, and what it shows to have gone."""
    execute, package = rows.execute, data.package
    execute(
        "UPDATE packages SET skip = '', description = ? WHERE package = ?",
        (data.description, package),
    )
    rows.forget_names(serial, package)
    # A number that takes the place of one that stood for it is not another build.
    same = {
        file.filename
        for version, builds in plan.items()
        for (build_id, builder_abi), files in builds.items()
        for file in files
        if (of_file := known.get(file.filename)) is not None
        and of_file[1:] == (version, builder_abi, file.filehash)
        and (of_file.build_id == build_id or of_file.build_id < 0)
    }
    for filename in sorted(known.keys() - same):
        rows.files.keep_contents("f.filename = ?", (filename,))
    execute(
        "DELETE FROM files WHERE build_id IN (SELECT build_id FROM builds WHERE package = ?)",
        (package,),
    )
    versions = execute("SELECT version FROM versions WHERE package = ?", (package,)).fetchall()
    for (version,) in versions:
        if version not in plan:
            rows.delete_version(serial, package, version)


def _put_builds(
    rows: Rows,
    serial: int,
    package: str,
    release: messages.SnapshotRelease,
    builds: dict[tuple[int, str], list[messages.SnapshotFile]],
    attempts: _Attempts,
) -> None:
    """Have the builds of a release in the index, with their files."""
    details = {abi.build_id: abi for abi in reversed(release.abis)}  # the first one counts
    for (build_id, builder_abi), files in builds.items():
        attempt = package, release.version, builder_abi
        _put_build(rows, serial, build_id, attempt, details.get(build_id), True, made=True)
        rows.files.add(serial, build_id, [_file(file) for file in files])
    unmentioned = _unmentioned(release)
    for abi in release.abis:
        # Attempts without a file; of one for a skipped version it is not told how it ended.
        if abi.build_id is None or abi.build_id in attempts:
            continue
        if abi.abi_tag not in unmentioned:  # else this build was another's
            attempts[abi.build_id] = release.version, abi.abi_tag
            attempt = package, release.version, abi.abi_tag
            told, succeeded = details[abi.build_id], _ENDS.get(abi.status)
            _put_build(rows, serial, abi.build_id, attempt, told, succeeded, made=False)


_ENDS = {"success": True, "error": True, "fail": False}
"""How an attempt ended, by its status; "skip" does not tell."""


def _put_build(
    rows: Rows,
    serial: int,
    build_id: int,
    attempt: tuple[str, str, str],
    told: messages.SnapshotBuild | None,
    succeeded: bool | None,
    *,
    made: bool,
) -> None:
    """Have a build in the index; what is known of it and not told stays.

    Args:
        attempt: its package, version and ABI.
        told: what is told of it.
        succeeded: whether it succeeded, if the index does not know it; None if that is not told:
            it is left out then.
        made: whether it has files, so that it has not failed.
    """
    slave_id, built_at, duration = told[3:6] if told is not None else (None, None, None)
    measured = slave_id, None if built_at is None else times.to_sql(built_at), duration
    if rows.execute(
        "UPDATE builds SET built_by = coalesce(?, built_by), built_at = coalesce(?, built_at),"
        " duration = coalesce(?, duration), status = max(status, ?),"
        " failure_category = CASE WHEN ? THEN NULL ELSE failure_category END,"
        " failure_detail = CASE WHEN ? THEN NULL ELSE failure_detail END"
        " WHERE build_id = ? AND package = ? AND version = ? AND abi_tag = ?",
        (*measured, made, made, made, build_id, *attempt),
    ).rowcount:
        return
    if succeeded is not None:
        rows.add_build(serial, (build_id, *attempt, succeeded, *measured, None, None))


def unmentioned(snapshot: messages.Snapshot) -> Iterator[tuple[str, str]]:
    """The versions and ABIs of which a snapshot says nothing, though it seems to."""
    for release in snapshot.releases:
        for abi_tag in _unmentioned(release):
            yield release.version, abi_tag


def _unmentioned(release: messages.SnapshotRelease) -> set[str]:
    """ABIs that are called a success without a file that fits: a master compares ABIs as text."""
    return {
        abi.abi_tag
        for abi in release.abis
        if abi.status == "success" and not _fits(release.files, abi.abi_tag)
    }


def _told_build_id(
    release: messages.SnapshotRelease,
    builder_abi: str,
    files: Sequence[messages.SnapshotFile],
    builders: Collection[str],
) -> int | None:
    """The build that made a builder's files, as far as a master tells; None if it does not.

    It is the one of the builder's own ABI; if that is not built for any more, the one of an ABI
    that these files serve, and that has none of its own.
    """
    for abi in release.abis:
        if abi.abi_tag == builder_abi:
            return abi.build_id if abi.status in ("success", "skip") else None
    for abi in sorted(release.abis, key=lambda abi: abi.abi_tag):
        if abi.status == "success" and abi.build_id and abi.abi_tag not in builders:
            if _fits(files, abi.abi_tag):
                return abi.build_id
    return None


def _fits(files: Iterable[messages.SnapshotFile], abi_tag: str) -> bool:
    """Whether any of the files can be installed on that ABI."""
    return any(
        fits.fit(_file(file).py_version_tag, file.abi_tag, abi_tag) is not None
        and fits.admits(file.requires_python, abi_tag)
        for file in files
    )


def _file(file: messages.SnapshotFile) -> messages.File:
    """A snapshot's file with the tags that its name tells (PEP 427)."""
    stem = file.filename.removesuffix(".whl")
    parts = stem.rsplit("-", 3)
    named = stem.split("-", 2)
    return messages.File(
        file.filename,
        file.filesize,
        file.filehash,
        named[0] if len(parts) == 4 else "",
        named[1] if len(parts) == 4 and len(named) > 1 else "",
        parts[1] if len(parts) == 4 else "",
        file.abi_tag,
        file.platform_tag,
        file.requires_python,
        (("apt", file.apt_dependencies), ("pip", file.pip_dependencies)),
        file.location,
    )
