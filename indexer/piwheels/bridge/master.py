"""Wraps an installed piwheels master: what its database commits also goes to an outbox.

It needs what it reads to be there, and nothing else to be as it was: a master may have more
requests, more arguments and more attributes. What is missing is named at the start, with what is
not published without it, and everything else is. Only a master that cannot be wrapped is refused.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import cbor2

from ...base import names
from ...base.errors import UsageError
from ...base.log import event
from .changes import CHANGES, DOWNLOAD, MAY_LACK, OTHERS, STATES, TESTED_WITH, Change
from .outbox import Item, Outbox

log = logging.getLogger(__name__)

OPERATION = "run piwheels' master"
ABIS_INTERVAL = 60.0
"""Seconds between reads of the build ABIs, which are changed by hand with SQL."""

LOCATIONS_INTERVAL = 600.0
"""Seconds between looks at where files are: the database reads the table of all files for it."""

DEFAULT = "/simple"
"""Where files are that have not been moved."""

BY_SQL = "build ABIs, and where files are,"
"""What is changed without a request, in words."""

AT_ONCE = 1000
"""Files in one message, or in one answer of the database."""


class Master:
    """The installed piwheels.

    Raises:
        UsageError: if there is none, or it cannot be wrapped.
    """

    def __init__(self) -> None:
        try:
            package = importlib.import_module("piwheels")
            self.version = str(getattr(package, "__version__", "unknown"))
            self._main: Any = importlib.import_module("piwheels.master").main
            self._database: Any = importlib.import_module("piwheels.master.db").Database
            self._oracle = importlib.import_module("piwheels.master.the_oracle")
            self._states = importlib.import_module("piwheels.states")
            self._transport = importlib.import_module("piwheels.transport")
        except ImportError as error:
            raise UsageError(
                OPERATION,
                f"it is not installed, or incomplete: {error}",
                "install piwheels (with its extra `master`) into the Python environment of"
                f" piw-indexer; {TESTED_WITH} is the version that was tested",
            ) from error
        except AttributeError as error:
            raise self._different(str(error)) from error
        self._wrapped: list[tuple[str, Change]] = []  # and the name of its method
        self._check()
        if self.version != TESTED_WITH:
            log.warning(
                "this is piwheels %s; the bridge was tested with %s",
                self.version,
                TESTED_WITH,
                extra=event("piwheels-untested", version=self.version),
            )

    # What it looks like

    def _different(self, what: str) -> UsageError:
        return UsageError(
            OPERATION,
            f"piwheels {self.version} does not look like {TESTED_WITH}, which was tested: {what}",
            f"install piwheels {TESTED_WITH}, or a piw-indexer that knows {self.version}; or run"
            " piw-master itself, without the bridge",
        )

    def _check(self) -> None:
        if not callable(self._main):
            raise self._different("piwheels.master has no main")
        if getattr(self._oracle, "Database", None) is not self._database:
            raise self._different("requests are not executed by its class Database")
        found = {
            method.message: name
            for name, method in inspect.getmembers(self._database)
            if hasattr(method, "message")
        }
        for change in CHANGES:
            if missing := self._missing(change, found):
                self._report(change.what, missing)
            else:
                self._wrapped.append((found[change.message], change))
        if not self._wrapped:
            raise self._different("it has no request that the bridge knows")
        database: Any = self._database
        connects = "dsn" in inspect.signature(database).parameters
        self._has_engines = connects and isinstance(getattr(database, "engines", None), dict)
        if not self._has_engines:
            self._report(BY_SQL, "Database is made in another way, or has no engines")
        if unknown := found.keys() - {change.message for change in CHANGES} - OTHERS:
            log.warning(
                "piwheels %s has requests that the bridge does not know: %s\n"
                "  what happens: what they change is not published, and `piw-indexer reconcile`"
                " finds it",
                self.version,
                ", ".join(sorted(unknown)),
                extra=event("master-unknown", version=self.version),
            )
        self._check_transport()

    def _report(self, what: str, missing: str) -> None:
        """Log what a master lacks, and what is not published for that reason."""
        log.error(
            "piwheels %s does not look like %s, which was tested: %s\n"
            "  what happens: %s are not published; everything else is\n"
            "  what to do: let `piw-indexer reconcile --fix` find what is missing, or install a"
            " piw-indexer that knows this piwheels",
            self.version,
            TESTED_WITH,
            missing,
            what,
            extra=event("master-different", version=self.version),
        )

    def _check_transport(self) -> None:
        """Refuse a piwheels that cannot read its own messages: it would fail with its slaves."""
        if not all(
            hasattr(self._transport, name) for name in ("default_encoder", "default_decoder")
        ):
            return  # it reads and writes its messages in another way, which is not ours
        duration = timedelta(days=1)
        try:
            encoded = cbor2.dumps(duration, default=self._transport.default_encoder)
            decoded = cbor2.loads(encoded, tag_hook=self._transport.default_decoder)
        except Exception as error:  # noqa: BLE001 - whatever cbor2 and piwheels make of each other
            decoded = error
        if decoded != duration:
            raise UsageError(
                OPERATION,
                f"piwheels {self.version} and cbor2 {version('cbor2')} do not work together:"
                f" {decoded!r}",
                "install piw-indexer with its extra `bridge`, which has a cbor2 before 6",
            )

    def _missing(self, change: Change, found: dict[str, str]) -> str:
        """What it lacks of what a change is read from; empty if nothing."""
        if change.message not in found:
            return f"it has no request {change.message}"
        name = found[change.message]
        method = getattr(self._database, name)
        if not callable(getattr(method, "data_to_args", None)):
            return f"its {name} has no data_to_args"
        parameters = inspect.signature(method).parameters
        if lacking := [argument for argument in change.arguments if argument not in parameters]:
            return f"its {name} has no argument {', '.join(lacking)}"
        for state, fields in STATES.get(change.message, {}).items():
            kind = getattr(self._states, state, None)
            lacking = [field for field in fields if not _has(kind, field)]
            if needed := [field for field in lacking if field not in MAY_LACK]:
                return f"its {state} has no {', '.join(needed)}"
            if lacking:
                log.warning(
                    "the %s of piwheels %s has no %s: %s are published without it",
                    state,
                    self.version,
                    ", ".join(lacking),
                    change.what,
                    extra=event("master-different", version=self.version),
                )
        return ""

    # Wrapping it

    def wrap(self, outbox: Outbox, downloads: bool = True) -> None:
        """Put what is committed from now on into an outbox.

        Args:
            outbox: of the bridge.
            downloads: whether to include downloads.
        """
        for name, change in self._wrapped:
            if downloads or change.message != DOWNLOAD:
                method = getattr(self._database, name)
                setattr(self._database, name, wrapped(method, change, outbox))
        if not self._has_engines:
            return
        connected = self._database.__init__
        signature = inspect.signature(connected)
        once = threading.Lock()  # never released

        @functools.wraps(connected)
        def connect(database: Any, *args: Any, **kwargs: Any) -> None:
            connected(database, *args, **kwargs)
            if once.acquire(blocking=False):
                dsn = signature.bind(database, *args, **kwargs).arguments["dsn"]
                engine = self._database.engines.get(dsn)
                if engine is None:
                    self._report(BY_SQL, "Database keeps its engines by other keys")
                else:
                    BuildAbis(engine, outbox).start()
                    Locations(engine, outbox).start()

        self._database.__init__ = connect

    def only_speaks(self, arguments: list[str]) -> bool:
        """True if it would end at once, because the arguments are wrong or ask for help."""
        silence = io.StringIO()
        with redirect_stdout(silence), redirect_stderr(silence):
            try:
                self._main.configure_parser().parse_args(arguments)
            except (SystemExit, Exception):  # noqa: BLE001 - it says itself what is wrong
                return True
        return False

    def run(self, arguments: list[str]) -> Any:
        """Run it like its command; returns its exit status."""
        return self._main(arguments)


def _has(kind: Any, field: str) -> bool:
    """Whether the objects of a class have an attribute; those of a dataclass are only annotated."""
    return hasattr(kind, field) or field in getattr(kind, "__annotations__", {})


def wrapped(method: Callable[..., Any], change: Change, outbox: Outbox) -> Callable[..., Any]:
    """A method of `Database` that also puts its change into an outbox."""
    signature = inspect.signature(method)

    @functools.wraps(method)  # with it goes what the requests are matched by
    def execute(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return method(*args, **kwargs)  # it says what is wrong itself
        bound.apply_defaults()
        try:
            packages = list(change.concerns(bound.arguments))
        except Exception:  # noqa: BLE001 - the master did nothing wrong, and continues
            packages = []
        with outbox.in_order(packages):
            at = outbox.begin()
            try:
                result = method(*args, **kwargs)
            except BaseException as error:
                outbox.failed(error)
                raise
            outbox.committed(change, at, bound.arguments, result)
        return result

    return execute


class Watch(threading.Thread):
    """Looks again and again at what is changed without a request.

    Args:
        engine: the master's, of SQLAlchemy.
        outbox: takes what has changed.

    Attributes:
        what: it looks at.
        interval: seconds between two looks.
        ended: ends the thread when it is set; a master runs until its process ends.
    """

    what: str
    interval: float

    def __init__(self, engine: Any, outbox: Outbox) -> None:
        super().__init__(name=f"bridge: {self.what}", daemon=True)
        self._engine = engine
        self._outbox = outbox
        self.ended = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        reported = False
        while not self.ended.is_set():
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
                if not reported:
                    reported = True
                    log.error(
                        "cannot read %s; the bridge tries again: %s",
                        self.what,
                        error,
                        extra=event("database-unreadable"),
                    )
            else:
                reported = False
            self.ended.wait(self.interval)

    def look(self) -> None:
        """Publish what has changed since the last look."""
        raise NotImplementedError

    def _rows(self, sql: str) -> Iterator[Any]:
        """The rows of a query; the server keeps them until they are read."""
        with self._engine.connect() as connection, connection.begin():
            # Newer versions of SQLAlchemy refuse text in `execute`.
            rows = connection.exec_driver_sql(sql, execution_options={"stream_results": True})
            while some := rows.fetchmany(AT_ONCE):
                yield from some


class BuildAbis(Watch):
    """Looks at the build ABIs and their preinstalled packages."""

    what = "the build ABIs"
    interval = ABIS_INTERVAL
    _known: dict[str, Any] | None = None

    def look(self) -> None:
        abis = self._read()
        if abis != self._known:
            self._known = abis
            self._outbox.put_abis(abis)

    def _read(self) -> dict[str, Any]:
        abis = self._rows("SELECT abi_tag, skip FROM build_abis")
        preinstalled = self._rows("SELECT abi_tag, apt_package FROM preinstalled_apt_packages")
        names: dict[str, list[str]] = {}
        for abi_tag, package in sorted(map(tuple, preinstalled)):
            names.setdefault(abi_tag, []).append(package)
        return {
            "build_abis": dict(sorted(map(tuple, abis))),
            "preinstalled_apt_packages": names,
        }


class Locations(Watch):
    """Looks at where files are served from, which changes when they are archived.

    What is there at the first look is not published: subscribers have it from their backfill.
    """

    what = "where files are served from"
    interval = LOCATIONS_INTERVAL
    _known: dict[str, int] | None = None  # of each package with such files, what they are

    def look(self) -> None:
        found: dict[str, int] = {}
        for package, filename, location in self._rows(
            "SELECT b.package, f.filename, f.location FROM files f"
            f" JOIN builds b ON b.build_id = f.build_id WHERE f.location <> '{DEFAULT}'"
        ):
            # The order of the rows does not matter.
            found[package] = found.get(package, 0) ^ hash((filename, location))
        if self._known is None:
            self._known = found
        for package in sorted(found.keys() | self._known.keys()):
            if found.get(package) != self._known.get(package):
                self._publish(package)
                self._known[package] = found.get(package, 0)
        self._known = found

    def _publish(self, package: str) -> None:
        """Publish where all files of a package are."""
        if not names.is_canonical(package):
            return  # nothing of it is published
        # Until it is in the outbox, no build may replace the files.
        with self._outbox.in_order([package]):
            files = list(
                self._rows(
                    "SELECT f.filename, f.location FROM files f"
                    f" JOIN builds b ON b.build_id = f.build_id WHERE b.package = '{package}'"
                    " ORDER BY f.filename"
                )
            )
            for start in range(0, len(files), AT_ONCE):
                some = dict(map(tuple, files[start : start + AT_ONCE]))
                at = self._outbox.begin()
                self._outbox.put(Item("MOVEFILES", at, {"package": package, "files": some}))
