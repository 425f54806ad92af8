"""Wraps an installed piwheels master: what its database commits also goes to an outbox.

A master that does not look like the tested one is refused, because a bridge that misunderstands it
would publish nonsense.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import io
import logging
import threading
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import cbor2

from ...base.errors import UsageError
from ...base.log import event
from .changes import CHANGES, DOWNLOAD, OTHERS, STATES, TESTED_WITH, Change
from .outbox import Outbox

log = logging.getLogger(__name__)

OPERATION = "run piwheels' master"
ABIS_INTERVAL = 60.0
"""Seconds between reads of the build ABIs, which are changed by hand with SQL."""


class Master:
    """The installed piwheels.

    Raises:
        UsageError: if there is none, or it does not look like the tested one.
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
                f"it is not installed, or not whole: {error}",
                "install piwheels (with its extra `master`) into the Python environment of"
                f" piw-indexer; {TESTED_WITH} is the version that was tested",
            ) from error
        except AttributeError as error:
            raise self._different(str(error)) from error
        self._check()
        if self.version != TESTED_WITH:
            log.warning(
                "this is piwheels %s; the bridge was tested with %s, which looks the same where it"
                " matters",
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
            self._check_method(change, found)
        unknown = found.keys() - {change.message for change in CHANGES} - OTHERS
        if unknown:
            raise self._different(f"its requests {', '.join(sorted(unknown))} are not known")
        if _signature(self._database) != "(dsn)":
            raise self._different("Database is made in another way")
        if not isinstance(getattr(self._database, "engines", None), dict):
            raise self._different("Database has no engines")
        for name, fields in STATES.items():
            missing = [
                field for field in fields if not hasattr(getattr(self._states, name, None), field)
            ]
            if missing:
                raise self._different(f"its {name} has no {', '.join(missing)}")
        self._check_transport()

    def _check_transport(self) -> None:
        """Refuse a piwheels that cannot read its own messages: it would fail with its slaves."""
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

    def _check_method(self, change: Change, found: dict[str, str]) -> None:
        if change.message not in found:
            raise self._different(f"it has no request {change.message}")
        if found[change.message] != change.method:
            raise self._different(f"its {change.message} is a method {found[change.message]}")
        method = getattr(self._database, change.method)
        if not callable(getattr(method, "data_to_args", None)):
            raise self._different(f"its {change.method} has no data_to_args")
        signature = _signature(method)
        if signature != change.signature:
            raise self._different(
                f"its {change.method} takes {signature} instead of {change.signature}"
            )

    # Wrapping it

    def wrap(self, outbox: Outbox, downloads: bool = True) -> None:
        """Put what is committed from now on into an outbox.

        Args:
            outbox: of the bridge.
            downloads: whether to include downloads.
        """
        for change in CHANGES:
            if downloads or change.message != DOWNLOAD:
                method = getattr(self._database, change.method)
                setattr(self._database, change.method, wrapped(method, change, outbox))
        connected = self._database.__init__
        once = threading.Lock()  # never released

        @functools.wraps(connected)
        def connect(database: Any, dsn: str) -> None:
            connected(database, dsn)
            if once.acquire(blocking=False):
                BuildAbis(self._database.engines[dsn], outbox).start()

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


def _signature(function: Any) -> str:
    """The parameters of a function, without types."""
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


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
        except Exception:  # noqa: BLE001 - the master did nothing wrong, and goes on
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


class BuildAbis(threading.Thread):
    """Reads the build ABIs and their preinstalled packages, now and every minute.

    Args:
        engine: the master's, of SQLAlchemy.
        outbox: takes them.

    Attributes:
        ended: ends the thread when it is set; a master runs until its process ends.
    """

    def __init__(self, engine: Any, outbox: Outbox) -> None:
        super().__init__(name="bridge-abis", daemon=True)
        self._engine = engine
        self._outbox = outbox
        self.ended = threading.Event()

    def run(self) -> None:
        """Read them again and again."""
        known = None
        reported = False
        while not self.ended.is_set():
            try:
                abis = self._read()
            except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
                if not reported:
                    reported = True
                    log.error(
                        "cannot read the build ABIs; it is tried again: %s",
                        error,
                        extra=event("abis-unreadable"),
                    )
            else:
                reported = False
                if abis != known:
                    known = abis
                    self._outbox.put_abis(abis)
            self.ended.wait(ABIS_INTERVAL)

    def _read(self) -> dict[str, Any]:
        with self._engine.connect() as connection, connection.begin():
            abis = connection.execute("SELECT abi_tag, skip FROM build_abis").fetchall()
            preinstalled = connection.execute(
                "SELECT abi_tag, apt_package FROM preinstalled_apt_packages"
            ).fetchall()
        names: dict[str, list[str]] = {}
        for abi_tag, package in sorted(map(tuple, preinstalled)):
            names.setdefault(abi_tag, []).append(package)
        return {
            "build_abis": dict(sorted(map(tuple, abis))),
            "preinstalled_apt_packages": names,
        }
