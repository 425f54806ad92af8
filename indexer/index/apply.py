"""Apply messages to the index: one handler a message, a pure function of the journal.

It uses no clock and no randomness: the same messages give the same rows in any batches.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from ..base import database, times
from ..messages import types as messages
from ..messages.entries import Row
from . import pending, queries, snapshot
from .rows import Rows

_Handler = Callable[["Applier", int, times.Time, Any], None]


class Applier:
    """Applies messages to an index."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._rows = rows = Rows(connection)
        self._touched, self._counters, self._files = rows.touched, rows.counters, rows.files

    def apply(self, rows: Sequence[Row]) -> int:
        """Apply messages and store the last serial and the touched names, in one transaction.

        Args:
            rows: messages of the journal, in order; those already applied are skipped.

        Returns:
            The number of touched names.
        """
        with database.transaction(self._connection):
            self._rows.begin()
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

    # Packages

    def _new_package(self, serial: int, at: times.Time, data: messages.NewPackage) -> None:
        self._rows.add_package(serial, data.package, data.skip, data.description)

    def _new_package_name(self, serial: int, at: times.Time, data: messages.NewPackageName) -> None:
        self._rows.add_package(serial, data.package)
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
        self._rows.forget_names(serial, data.package)
        self._files.keep_contents("b.package = ?", (data.package,))
        self._execute("DELETE FROM packages WHERE package = ?", (data.package,))
        self._counters.list_package(data.package, False)
        self._touched[data.package] = serial

    # Versions

    def _new_version(self, serial: int, at: times.Time, data: messages.NewVersion) -> None:
        released = at if data.released is None else data.released
        self._rows.add_version(serial, data.package, data.version, released, data.skip)

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
        self._rows.delete_version(serial, data.package, data.version)

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
            *((None, None) if data.status else data.failure or (None, None)),
        )
        try:
            # Usually the version exists and the build does not.
            self._rows.insert_build(build)
            self._touched[data.package] = serial
        except sqlite3.IntegrityError:
            self._rows.add_version(serial, data.package, data.version, at)
            self._rows.add_build(serial, build)
        if data.status:
            self._files.add(serial, data.build_id, data.files)

    def _delete_build(self, serial: int, at: times.Time, data: messages.DeleteBuild) -> None:
        self._counters.flush()
        version = data.package, data.version
        self._files.keep_contents("b.package = ? AND b.version = ?", version)
        if self._execute("DELETE FROM builds WHERE package = ? AND version = ?", version).rowcount:
            self._touched[data.package] = serial

    def _log_failure(self, serial: int, at: times.Time, data: messages.LogFailure) -> None:
        for (package,) in self._execute(
            "UPDATE builds SET (failure_category, failure_detail) = (?, ?)"
            " WHERE build_id = ? AND status = 0 RETURNING package",
            (*data.failure, data.build_id),
        ).fetchall():
            self._touched[package] = serial

    def _move_files(self, serial: int, at: times.Time, data: messages.MoveFiles) -> None:
        for filename, location in data.files:
            self._files.move(serial, data.package, filename, location)

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
        snapshot.apply(self._rows, serial, at, data)

    def _downloads(self, serial: int, at: times.Time, data: messages.Downloads) -> None:
        if queries.is_package(self._connection, data.package):
            self._counters.replace(data.package, data.all, dict(data.hours))


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
    "FAILURE": Applier._log_failure,
    "MOVEFILES": Applier._move_files,
    "DELBUILD": Applier._delete_build,
    "SNAPSHOT": Applier._snapshot,
    "DOWNLOADS": Applier._downloads,
}
