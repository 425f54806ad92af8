"""Reads piwheels' own tables from PostgreSQL as messages; writes nothing there.

Everything is read as of one moment, and in the order of the packages. The server's cursors hold the
results, so they may have any size.

Source: the layout of piwheels 0.23, `piwheels/initdb/sql/create_piwheels.sql`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from ...base.clock import Clock
from ...base.errors import DecodeError, IndexerError, PeerError, UsageError
from ...base.log import event
from ...base.names import MAX_NAME, is_canonical
from ...base.times import HOUR, SECOND, Time, to_rfc3339
from ...messages.entries import Entry, Refused
from ...messages.types import Downloads, Message
from ...schema.messages import MAX_COUNT
from .. import translate
from ..bridge.changes import FILE_FIELDS, TESTED_WITH

log = logging.getLogger(__name__)

SOURCE = "postgres"
"""Where refused rows come from, in the quarantine."""

AT_ONCE = 5000
"""Rows in one answer of the server."""

# PostgreSQL knows times that never come, and years whose microseconds are too many for a bigint.
_IN_TIME = "{0} BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999'"
_MICROSECONDS = (
    f"CASE WHEN {_IN_TIME} THEN (extract(epoch FROM {{0}}) * 1000000)::bigint"
    " WHEN {0} IS NOT NULL THEN 9223372036854775807 END"  # which is refused
)

# Sorted by bytes like SQLite and Python, whatever the database's locale is.
_AFTER = 'WHERE {0} COLLATE "C" > %(after)s ORDER BY {0} COLLATE "C"'

_PACKAGES = "SELECT package, skip, description FROM packages " + _AFTER.format("package")
_NAMES = (
    f"SELECT package, name, {_MICROSECONDS.format('seen')} FROM package_names "
    + _AFTER.format("package")
    + ', name COLLATE "C"'
)
_VERSIONS = (
    f"SELECT package, version, {_MICROSECONDS.format('released')}, skip, yanked FROM versions "
    + _AFTER.format("package")
    + ', version COLLATE "C"'
)
_BUILDS = (
    "SELECT package, build_id, built_by, version, abi_tag, status,"
    " extract(epoch FROM duration)::float8,"
    f" {_MICROSECONDS.format('built_at')} FROM builds " + _AFTER.format("package") + ", build_id"
)
_FILES = (
    "SELECT b.package, f.build_id, f.filename, f.filesize, f.filehash, f.package_tag,"
    " f.package_version_tag, f.py_version_tag, f.abi_tag, f.platform_tag, f.requires_python,"
    " f.location FROM files f JOIN builds b USING (build_id) "
    + _AFTER.format("b.package")
    + ', f.build_id, f.filename COLLATE "C"'
)
_LOCATIONS = (
    "SELECT b.package, f.filename, f.location FROM files f JOIN builds b USING (build_id) "
    + _AFTER.format("b.package")
)
_DEPENDENCIES = (
    "SELECT b.package, d.filename, d.tool, d.dependency"
    " FROM dependencies d JOIN files f USING (filename) JOIN builds b USING (build_id) "
    + _AFTER.format("b.package")
    + ', d.filename COLLATE "C", d.tool, d.dependency COLLATE "C"'
)

# The package in a wheel's name, for files that are not known (any more); like
# `names.wheel_package`.
_OF_WHEEL = (
    "CASE WHEN right(filename, 4) = '.whl'"
    " AND length(filename) - length(replace(filename, '-', '')) BETWEEN 4 AND 5"
    r" THEN lower(regexp_replace(split_part(filename, '-', 1), '[-_.]+', '-', 'g')) END"
)
_DOWNLOADS = (
    "WITH counted AS ("
    " SELECT filename, date_trunc('hour', accessed_at) AS hour, count(*) AS downloads"
    f" FROM downloads WHERE {_IN_TIME.format('accessed_at')} GROUP BY 1, 2),"
    " by_package AS ("
    f" SELECT coalesce(b.package, {_OF_WHEEL}) AS package, hour, sum(downloads) AS downloads"
    " FROM counted LEFT JOIN files f USING (filename) LEFT JOIN builds b USING (build_id)"
    " GROUP BY 1, 2)"
    " SELECT package, sum(downloads)::bigint,"
    " array_agg(extract(epoch FROM hour)::bigint ORDER BY hour) FILTER (WHERE kept),"
    " array_agg(downloads::bigint ORDER BY hour) FILTER (WHERE kept)"
    " FROM (SELECT *, hour >= to_timestamp(%(since)s) AT TIME ZONE 'UTC' AS kept FROM by_package)"
    ' AS all_hours WHERE package IS NOT NULL GROUP BY package ORDER BY package COLLATE "C"'
)


_NEEDED: dict[str, tuple[str, ...]] = {
    "build_abis": ("abi_tag", "skip"),
    "packages": ("package", "skip"),
    "versions": ("package", "version", "released", "skip"),
    "builds": ("build_id", "package", "version", "abi_tag", "status", "built_by", "built_at"),
    "files": (
        *("filename", "build_id", "filesize", "filehash", "package_tag", "package_version_tag"),
        *("py_version_tag", "abi_tag", "platform_tag"),
    ),
}
"""What cannot be done without: columns by table."""


class _Optional(NamedTuple):
    """A column of a table that another version of piwheels may lack.

    Attributes:
        table: its table.
        column: its name.
        sql: how the queries name it.
        instead: what they read instead.
        lost: what is not known then, in words.
    """

    table: str
    column: str
    sql: str
    instead: str
    lost: str


_OPTIONAL = (
    _Optional("packages", "description", ", description ", ", '' ", "descriptions"),
    _Optional("versions", "yanked", ", yanked ", ", false ", "which versions are yanked"),
    _Optional(
        "builds", "duration", "(epoch FROM duration)", "(epoch FROM interval '0')", "durations"
    ),
    _Optional("files", "requires_python", "f.requires_python", "NULL::text", "Requires-Python"),
    _Optional("files", "location", "f.location", "'/simple'", "where files are served from"),
)

_OPTIONAL_TABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "package_names": (("package", "name", "seen"), "spellings of names"),
    "dependencies": (("filename", "tool", "dependency"), "dependencies"),
    "preinstalled_apt_packages": (("abi_tag", "apt_package"), "what is preinstalled"),
    "downloads": (("filename", "accessed_at"), "downloads"),
}
"""Tables that another version of piwheels may lack, their columns, and what is not known then."""


class Package(NamedTuple):
    """What the database knows about a package, as messages in an order that makes it.

    Attributes:
        package: its name.
        known: NEWPKG, NEWPKGNAME, NEWVER and YANKVER.
        builds: LOGBUILD.
        refused: rows that are not valid messages.
    """

    package: str
    known: list[Message]
    builds: list[Message]
    refused: list[Entry]


class Source:
    """A piwheels database as of one moment.

    Args:
        dsn: how to connect, for libpq or SQLAlchemy.
        clock: the time of what is read.

    Attributes:
        lost: what the database does not tell, because it lacks tables or columns.

    Raises:
        UsageError: if the extra `postgres` is not installed, or the database does not belong to a
            known version of piwheels.
        PeerError: if it cannot be reached.
    """

    def __init__(self, dsn: str, clock: Clock) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise UsageError(
                "read PostgreSQL",
                f"psycopg is not installed: {error}",
                "install piw-indexer with its extra `postgres`",
            ) from error
        self._errors = psycopg
        try:
            # A DSN of piwheels also names the driver of SQLAlchemy.
            self._connection = psycopg.connect(dsn.replace("+psycopg2://", "://", 1))
        except psycopg.ProgrammingError as error:
            raise UsageError(
                "read the --dsn", _first_line(error), "give one as postgresql:///piwheels"
            ) from error
        except psycopg.Error as error:
            raise self._failed(error, "connect to the database") from error
        self._connection.read_only = True
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        self._cursors: list[Any] = []
        try:
            self.at: Time = clock()
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Look at the layout: name what is missing, and refuse only what cannot be read.

        Raises UsageError if something is missing without which nothing can be read.
        """
        tables: dict[str, set[str]] = {}
        # Not the information schema: it shows nobody what he may not read.
        for table, column in self._all(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped"
            " AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        ):
            tables.setdefault(table, set()).add(column)
        for table, columns in _NEEDED.items():
            if lacking := sorted({*columns} - tables.get(table, set())):
                raise UsageError(
                    "read the database",
                    f"it is not of piwheels {TESTED_WITH}: the table {table} has no"
                    f" {', '.join(lacking)}",
                    "give the --dsn of piwheels' database; another layout cannot be read",
                )
        self._lacking = [it for it in _OPTIONAL if it.column not in tables[it.table]]
        self._no_table = {
            table
            for table, (columns, _) in _OPTIONAL_TABLES.items()
            if {*columns} - tables.get(table, set())
        }
        self.lost = [column.lost for column in self._lacking]
        self.lost += [_OPTIONAL_TABLES[table][1] for table in sorted(self._no_table)]
        version = "unknown"
        if "version" in tables.get("configuration", ()):
            version = next(
                (row[0] for row in self._all("SELECT version FROM configuration")), version
            )
        if version != TESTED_WITH or self.lost:
            log.warning(
                "the database is of piwheels %s; %s was tested%s",
                version,
                TESTED_WITH,
                f". It does not tell: {', '.join(self.lost)}; everything else is read"
                if self.lost
                else ", and what is read looks the same",
                extra=event("piwheels-untested", version=version),
            )

    def _failed(self, error: Exception, operation: str) -> IndexerError:
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith("42") and state != "42501":  # there is no such table, no such column
            return UsageError(
                "read the database",
                f"it is not of piwheels {TESTED_WITH}: {_first_line(error)}",
                "give the --dsn of piwheels' database; another layout cannot be read",
            )
        return PeerError(
            operation,
            _first_line(error),
            "check --dsn, that the server runs, and that this user may read piwheels' tables;"
            " then run it again: what was taken is kept",
        )

    def _all(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql).fetchall()
        except self._errors.Error as error:
            raise self._failed(error, "read the database") from error

    def _rows(
        self, sql: str, /, table: str = "", **parameters: object
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query; the server keeps them until they are read.

        None if it needs a table that is not there; columns that are not there have one value.
        """
        if table in self._no_table:
            return
        for column in self._lacking:
            sql = sql.replace(column.sql, column.instead)
        cursor = self._connection.cursor(f"piw_indexer_{len(self._cursors)}", binary=True)
        self._cursors.append(cursor)
        try:
            cursor.execute(sql, parameters)
            while rows := cursor.fetchmany(AT_ONCE):
                yield from rows
        except self._errors.Error as error:
            raise self._failed(error, "read the database") from error

    def count(self) -> int:
        """How many packages there are; raises PeerError if the database does not answer."""
        return int(self._all("SELECT count(*) FROM packages")[0][0])

    def abis(self) -> Message:
        """The build ABIs, and what is preinstalled on them.

        Raises PeerError if the database does not answer, or has an invalid ABI.
        """
        build_abis = sorted(self._all("SELECT abi_tag, skip FROM build_abis"))
        preinstalled: dict[str, list[str]] = {}
        for abi, name in sorted(
            self._rows(
                "SELECT abi_tag, apt_package FROM preinstalled_apt_packages",
                "preinstalled_apt_packages",
            )
        ):
            preinstalled.setdefault(abi, []).append(name)
        data = {"build_abis": dict(build_abis), "preinstalled_apt_packages": preinstalled}
        try:
            return translate.message("SETABIS", self.at, data)
        except DecodeError as error:
            raise PeerError("read the build ABIs", error, "correct the table build_abis") from error

    def packages(self, after: str) -> Iterator[Package]:
        """Every package whose name comes after `after`, in order.

        Raises PeerError if the database does not answer.
        """
        names = _Groups(self._rows(_NAMES, "package_names", after=after))
        versions = _Groups(self._rows(_VERSIONS, after=after))
        builds = _Groups(self._rows(_BUILDS, after=after))
        files = _Groups(self._rows(_FILES, after=after))
        dependencies = _Groups(self._rows(_DEPENDENCIES, "dependencies", after=after))
        for package, skip, description in self._rows(_PACKAGES, after=after):
            maker = _Maker(package, self.at)
            maker.add("NEWPKG", skip=skip, description=description)
            if maker.known:  # a package with an unsafe name has nothing else
                for _, name, seen in names.of(package):
                    maker.add("NEWPKGNAME", name=name, seen=seen)
                for _, version, released, reason, yanked in versions.of(package):
                    if maker.add("NEWVER", version=version, released=released, skip=reason):
                        if yanked:
                            maker.add("YANKVER", version=version)
                _add_builds(maker, builds.of(package), files.of(package), dependencies.of(package))
            yield Package(package, maker.known, maker.builds, maker.refused)

    def locations(self) -> Iterator[tuple[Any, ...]]:
        """The package, name and location of every file, in the order of the packages.

        Raises:
            UsageError: if the database has no locations.
            PeerError: if it does not answer.
        """
        if any(one.column == "location" for one in self._lacking):
            raise UsageError(
                "compare where files are served from",
                "the table files has no location",
                "give the --dsn of a database that has it, or --db-queue",
            )
        yield from self._rows(_LOCATIONS, after="")

    def downloads(self, since: int) -> Iterator[Message]:
        """DOWNLOADS of every package that was ever downloaded, known or not, in order.

        Args:
            since: earlier hours (seconds since 1970) are only in the sum.

        Raises PeerError if the database does not answer.
        """
        for package, ever, hours, counts in self._rows(_DOWNLOADS, "downloads", since=since):
            if is_canonical(package) and len(package) <= MAX_NAME:
                pairs = zip(hours or (), counts or (), strict=True)
                kept = tuple((hour, min(count, MAX_COUNT)) for hour, count in pairs)
                data = Downloads(package, min(ever, MAX_COUNT), kept)
                yield Message("DOWNLOADS", self.at, data)

    def close(self) -> None:
        for cursor in self._cursors:
            try:
                cursor.close()
            except self._errors.Error:
                pass  # the connection broke off
        self._connection.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Groups:
    """Groups rows that begin with a package and are sorted by it."""

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._groups = groupby(rows, itemgetter(0))
        self._package: str | None = ""
        self._rows: Iterable[tuple[Any, ...]] = ()

    def of(self, package: str) -> Iterable[tuple[Any, ...]]:
        """The rows of a package; earlier rows are skipped."""
        while self._package is not None and self._package < package:
            self._package, self._rows = next(self._groups, (None, ()))
        return self._rows if self._package == package else ()


class _Maker:
    """Makes the messages of one package."""

    def __init__(self, package: str, at: Time) -> None:
        self._package = package
        self._at = at
        self.known: list[Message] = []
        self.builds: list[Message] = []
        self.refused: list[Entry] = []

    def add(self, name: str, /, at: Time | None = None, **data: object) -> bool:
        """Add a message about the package; false if it is not valid."""
        when = self._at if at is None else at
        data["package"] = self._package
        try:
            message = translate.message(name, when, data)
        except DecodeError as error:
            self.refused.append(refusal(name, when, data, error))
            return False
        (self.builds if name == "LOGBUILD" else self.known).append(message)
        return True


def _add_builds(
    maker: _Maker,
    builds: Iterable[tuple[Any, ...]],
    files: Iterable[tuple[Any, ...]],
    dependencies: Iterable[tuple[Any, ...]],
) -> None:
    """Add the builds of a package with their files and dependencies."""
    needs: dict[str, dict[str, list[str]]] = {}
    for _, filename, tool, dependency in dependencies:
        needs.setdefault(filename, {}).setdefault(tool, []).append(dependency)
    made: dict[int, list[dict[str, Any]]] = {}
    for _, build_id, *fields in files:
        file = dict(zip(FILE_FIELDS, fields, strict=True))
        file["dependencies"] = needs.get(fields[0], {})
        made.setdefault(build_id, []).append(file)
    for _, build_id, slave_id, version, abi_tag, status, duration, built_at in builds:
        maker.add(
            "LOGBUILD",
            built_at,
            build_id=build_id,
            slave_id=slave_id,
            version=version,
            abi_tag=abi_tag,
            status=status,
            duration=max(0.0, duration),  # a slave's clock may have been set back
            files=made.get(build_id, []) if status else [],
        )


def refusal(name: str, at: Time, data: dict[str, Any], error: DecodeError) -> Refused:
    """The refusal of a row that is not a valid message; it can be retried."""
    named = dict(data)
    for field in ("seen", "released"):
        if isinstance(named.get(field), int):
            named[field] = _in_words(named[field])
    raw = json.dumps({"msg": name, "at": _in_words(at), "data": named}, default=str)
    return Refused(None, SOURCE, "json", error, raw.encode())


def _in_words(at: Time) -> str:
    try:
        return to_rfc3339(at)
    except OverflowError:
        return str(at)


def hours_since(now: Time, days: int | None) -> int:
    """The first hour of the last `days` days, in seconds since 1970."""
    return 0 if days is None else (now // HOUR * HOUR - days * 24 * HOUR) // SECOND
