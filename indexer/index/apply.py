"""Apply messages to the index: one handler a message, a pure function of the journal.

It uses no clock and no randomness: the same messages give the same rows in any batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from ..base import database, times
from ..messages import types as messages
from ..messages.entries import Row
from . import downloads, pending, queries, tags
from .files import BuiltFiles

_INSERT_BUILD = "INSERT INTO builds VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

_Handler = Callable[["Applier", int, times.Time, Any], None]


class Applier:
    """Applies messages to an index.

    Args:
        connection: the one that writes the index.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._counters = downloads.Counters(connection)
        self._touched: dict[str, int] = {}
        self._files = BuiltFiles(connection, self._touched)

    def apply(self, rows: Sequence[Row]) -> int:
        """Apply messages and store the last serial and the touched names, in one transaction.

        Args:
            rows: messages of the journal, in order; those already applied are skipped.

        Returns:
            The number of touched names.
        """
        with database.transaction(self._connection):
            self._begin()
            applied = queries.applied_serial(self._connection)
            download = self._counters.download
            hour = times.HOUR
            serial, name = applied, ""
            try:
                for serial, (name, at, data) in rows:
                    if serial <= applied:
                        continue
                    if name == "LOGDOWNLOAD":  # by far the most frequent message
                        download(data.filename, data.accessed_at // hour * 3600)
                    else:
                        if name != "LOGBUILD":
                            self._files.flush()
                        _HANDLERS[name](self, serial, at, data)
                    applied = serial
            except sqlite3.Error as error:
                with database.wrap_errors(
                    f"apply message {serial}, {name}, to the index", beside=self._connection
                ):
                    raise error
            self._files.flush()
            self._counters.flush()
            pending.mark(self._connection, self._touched)
            if self._counters.changed:
                queries.put(self._connection, "counters_serial", applied)
            queries.put(self._connection, "applied_serial", applied)
        return len(self._touched)

    def _begin(self) -> None:
        self._touched.clear()
        self._counters.begin()
        self._files.begin()

    # Packages

    def _add_package(self, serial: int, package: str, skip: str = "", summary: str = "") -> bool:
        added = self._execute(
            "INSERT OR IGNORE INTO packages VALUES (?, ?, ?)", (package, skip, summary)
        ).rowcount
        if added:
            self._counters.list_package(package, True)
            self._touched[package] = serial
        return bool(added)

    def _new_package(self, serial: int, at: times.Time, data: messages.NewPackage) -> None:
        self._add_package(serial, data.package, data.skip, data.description)

    def _new_package_name(self, serial: int, at: times.Time, data: messages.NewPackageName) -> None:
        self._add_package(serial, data.package)
        seen = times.to_sql_precise(data.seen or 0)
        owner = queries.alias_owner(self._connection, data.name)
        if owner is None:
            self._execute(
                "INSERT INTO package_names VALUES (?, ?, ?)", (data.name, data.package, seen)
            )
            owner = data.package
        else:
            self._execute("UPDATE package_names SET seen = ? WHERE name = ?", (seen, data.name))
        self._touched[owner] = serial

    def _set_package(self, serial: int, column: str, package: str, value: str) -> None:
        if self._execute(
            f"UPDATE packages SET {column} = ? WHERE package = ?", (value, package)
        ).rowcount:
            self._touched[package] = serial

    def _set_description(self, serial: int, at: times.Time, data: messages.SetDescription) -> None:
        self._set_package(serial, "description", data.package, data.description)

    def _skip_package(self, serial: int, at: times.Time, data: messages.SkipPackage) -> None:
        self._set_package(serial, "skip", data.package, data.reason)

    def _delete_package(self, serial: int, at: times.Time, data: messages.DeletePackage) -> None:
        self._counters.flush()
        if not queries.is_package(self._connection, data.package):
            return
        self._forget_names(serial, data.package)
        self._execute("DELETE FROM packages WHERE package = ?", (data.package,))
        self._counters.list_package(data.package, False)
        self._touched[data.package] = serial

    def _forget_names(self, serial: int, package: str) -> None:
        """Remove the spellings of a package's name; the writer removes their links."""
        for (name,) in self._execute(
            "DELETE FROM package_names WHERE package = ? RETURNING name", (package,)
        ).fetchall():
            self._touched[name] = serial

    # Versions

    def _add_version(
        self,
        serial: int,
        package: str,
        version: str,
        released: times.Time,
        skip: str = "",
        yanked: bool = False,
    ) -> None:
        self._add_package(serial, package)
        if self._execute(
            "INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, ?)",
            (package, version, times.to_sql(released), skip, yanked),
        ).rowcount:
            self._touched[package] = serial

    def _new_version(self, serial: int, at: times.Time, data: messages.NewVersion) -> None:
        released = at if data.released is None else data.released
        self._add_version(serial, data.package, data.version, released, data.skip)

    def _set_version(
        self, serial: int, column: str, package: str, version: str, value: object
    ) -> None:
        if self._execute(
            f"UPDATE versions SET {column} = ? WHERE package = ? AND version = ?",
            (value, package, version),
        ).rowcount:
            self._touched[package] = serial

    def _skip_version(self, serial: int, at: times.Time, data: messages.SkipVersion) -> None:
        self._set_version(serial, "skip", data.package, data.version, data.reason)

    def _yank_version(self, serial: int, at: times.Time, data: messages.YankVersion) -> None:
        self._set_version(serial, "yanked", data.package, data.version, 1)

    def _unyank_version(self, serial: int, at: times.Time, data: messages.UnyankVersion) -> None:
        self._set_version(serial, "yanked", data.package, data.version, 0)

    def _delete_version(self, serial: int, at: times.Time, data: messages.DeleteVersion) -> None:
        self._counters.flush()
        if self._execute(
            "DELETE FROM versions WHERE package = ? AND version = ?", (data.package, data.version)
        ).rowcount:
            self._touched[data.package] = serial

    # Builds and files

    def _log_build(self, serial: int, at: times.Time, data: messages.LogBuild) -> None:
        if self._counters.waiting:
            self._files.flush()  # they may be files that were just downloaded
            self._counters.flush()
        build = (
            data.build_id,
            data.package,
            data.version,
            data.abi_tag,
            data.status,
            data.slave_id,
            times.to_sql(at),
            data.duration,
        )
        try:
            # Usually the version exists and the build does not.
            self._execute(_INSERT_BUILD, build)
            self._touched[data.package] = serial
        except sqlite3.IntegrityError:
            self._add_version(serial, data.package, data.version, at)
            self._add_build(serial, build)
        if data.status:
            self._files.add(serial, data.build_id, data.files)

    def _add_build(self, serial: int, build: tuple[Any, ...]) -> None:
        """Add a build, replacing a build with the same build_id."""
        try:
            self._execute(_INSERT_BUILD, build)
        except sqlite3.IntegrityError:
            self._files.flush()
            for (package,) in self._execute(
                "DELETE FROM builds WHERE build_id = ? RETURNING package", build[:1]
            ).fetchall():
                self._touched[package] = serial
            self._execute(_INSERT_BUILD, build)
        self._touched[build[1]] = serial

    def _delete_build(self, serial: int, at: times.Time, data: messages.DeleteBuild) -> None:
        self._counters.flush()
        if self._execute(
            "DELETE FROM builds WHERE package = ? AND version = ?", (data.package, data.version)
        ).rowcount:
            self._touched[data.package] = serial

    # All packages

    def _set_abis(self, serial: int, at: times.Time, data: messages.SetAbis) -> None:
        build_abis = sorted(dict(data.build_abis).items())
        preinstalled = sorted(
            {(abi, name) for abi, names in data.preinstalled_apt_packages for name in names}
        )
        # A master sends this at every start: do not rewrite 600,000 documents without a change.
        if (
            self._execute("SELECT * FROM build_abis ORDER BY 1").fetchall() == build_abis
            and self._execute("SELECT * FROM preinstalled_apt_packages ORDER BY 1, 2").fetchall()
            == preinstalled
        ):
            return
        self._execute("DELETE FROM preinstalled_apt_packages")
        self._execute("DELETE FROM build_abis")
        self._connection.executemany("INSERT INTO build_abis VALUES (?, ?)", build_abis)
        self._connection.executemany(
            "INSERT INTO preinstalled_apt_packages VALUES (?, ?)", preinstalled
        )
        self._files.set_abis(abi for abi, _ in build_abis)
        queries.put(self._connection, "abis_serial", serial)
        pending.mark_all(self._connection, serial)

    def _snapshot(self, serial: int, at: times.Time, data: messages.Snapshot) -> None:
        self._counters.flush()
        package = data.package
        if not self._add_package(serial, package, "", data.description):
            self._execute(
                "UPDATE packages SET skip = '', description = ? WHERE package = ?",
                (data.description, package),
            )
            self._forget_names(serial, package)
            self._execute("DELETE FROM versions WHERE package = ?", (package,))
        self._touched[package] = serial
        spellings = dict.fromkeys((*data.aliases, package), 0)
        spellings[data.name] = at
        self._connection.executemany(
            "INSERT OR IGNORE INTO package_names VALUES (?, ?, ?)",
            [
                (name, package, times.to_sql_precise(seen))
                for name, seen in sorted(spellings.items())
            ],
        )
        for release in data.releases:
            self._add_version(
                serial, package, release.version, release.released, release.skip, release.yanked
            )
            self._snapshot_builds(serial, package, release)

    def _snapshot_builds(
        self, serial: int, package: str, release: messages.SnapshotRelease
    ) -> None:
        """Make the builds of a release from a master's answer.

        The answer has one build for each ABI, and the ABI of each file's builder, but not the build
        that made a file. What the answer does not have stays null.
        """
        by_builder: dict[str, list[messages.File]] = {}
        for file in release.files:
            by_builder.setdefault(file.builder_abi, []).append(_file(file))
        untold = _untold(release.abis, [file for files in by_builder.values() for file in files])
        seen: set[int] = set()
        for builder_abi, files in sorted(by_builder.items()):
            build_id = _snapshot_build_id(release, builder_abi, files, by_builder.keys())
            if build_id is None or build_id in seen:
                # The answer has no number: one below 0 is used.
                least = self._execute("SELECT min(build_id) FROM builds").fetchone()[0]
                build_id = min(least or 0, 0) - 1
            seen.add(build_id)
            known = package, release.version, builder_abi, 1
            self._add_build(serial, (build_id, *known, None, None, None))
            self._files.add(serial, build_id, files)
        for abi in release.abis:
            # Attempts without a file; for a skipped version the result is not known.
            if abi.build_id is not None and abi.build_id not in seen:
                if abi.abi_tag in untold:
                    continue  # this build was another package's
                seen.add(abi.build_id)
                succeeded = int(abi.status in ("success", "error"))
                known = package, release.version, abi.abi_tag, succeeded
                self._add_build(serial, (abi.build_id, *known, None, None, None))

    def _downloads(self, serial: int, at: times.Time, data: messages.Downloads) -> None:
        if queries.is_package(self._connection, data.package):
            self._counters.replace(data.package, data.all, dict(data.hours))


def untold(snapshot: messages.Snapshot) -> Iterator[tuple[str, str]]:
    """The versions and ABIs about which a snapshot only seems to say something."""
    for release in snapshot.releases:
        for abi_tag in _untold(release.abis, [_file(file) for file in release.files]):
            yield release.version, abi_tag


def _untold(abis: Iterable[messages.SnapshotBuild], files: Sequence[messages.File]) -> set[str]:
    """ABIs called a success without a file that fits, because a master compares ABIs as text."""
    return {
        abi.abi_tag for abi in abis if abi.status == "success" and not _fits(files, abi.abi_tag)
    }


def _snapshot_build_id(
    release: messages.SnapshotRelease,
    builder_abi: str,
    files: Sequence[messages.File],
    builders: Collection[str],
) -> int | None:
    """The build that made a builder's files; None if the answer does not show it.

    It is the build of the builder's own ABI. If that ABI is no longer built for, it is the build of
    an ABI that these files fit and that has no file of its own.
    """
    for abi in release.abis:
        if abi.abi_tag == builder_abi:
            return abi.build_id if abi.status in ("success", "skip") else None
    for abi in sorted(release.abis):
        if abi.status == "success" and abi.build_id and abi.abi_tag not in builders:
            if _fits(files, abi.abi_tag):
                return abi.build_id
    return None


def _fits(files: Iterable[messages.File], abi_tag: str) -> bool:
    """Whether any of the files can be installed on that ABI."""
    return any(tags.fit(one.py_version_tag, one.abi_tag, abi_tag) is not None for one in files)


def _file(file: messages.SnapshotFile) -> messages.File:
    """A snapshot's file with the tags in its name (PEP 427)."""
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


_HANDLERS: dict[str, _Handler] = {
    "SETABIS": Applier._set_abis,
    "NEWPKG": Applier._new_package,
    "NEWPKGNAME": Applier._new_package_name,
    "SETDESC": Applier._set_description,
    "SKIPPKG": Applier._skip_package,
    "DELPKG": Applier._delete_package,
    "NEWVER": Applier._new_version,
    "SKIPVER": Applier._skip_version,
    "YANKVER": Applier._yank_version,
    "UNYANKVER": Applier._unyank_version,
    "DELVER": Applier._delete_version,
    "LOGBUILD": Applier._log_build,
    "DELBUILD": Applier._delete_build,
    "SNAPSHOT": Applier._snapshot,
    "DOWNLOADS": Applier._downloads,
}
