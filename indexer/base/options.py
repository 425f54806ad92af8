"""Options of the commands: on the command line, in the environment, in configuration files.

The command line takes precedence over the environment (`PIW_INDEXER_<OPTION>`), and that over the
section `[indexer]` of the configuration files. Files are checked completely before anything is
opened.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from . import filesystem, network, printable, times
from .errors import UsageError
from .names import FILE_FEED, MAX_FEED_NAME, is_feed_name

PIWHEELS_FILES = (
    "/etc/piwheels.conf",
    "/usr/local/etc/piwheels.conf",
    "~/.config/piwheels/piwheels.conf",
)
"""piwheels' own configuration files."""

OURS = "/etc/piw-indexer.conf"
"""The file that `install` writes."""

FILES = (*PIWHEELS_FILES, OURS)
"""Configuration files; a later one takes precedence."""

MAX_SPACES = 200
"""In a row, in a line of a configuration file: a parser takes the square of their number."""

_SPACES = re.compile(rf"[^\S\n]{{{MAX_SPACES + 1}}}")

MAX_SETTINGS = 1024 * 1024
"""Bytes of a configuration file; a master's has a few thousand."""

SECTION = "indexer"
PREFIX = "PIW_INDEXER_"

UMASK = "indexer.umask"
"""Where click's context keeps the umask that the command was started with."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Parsed(click.ParamType[Any]):
    """The type of an option whose text a function reads.

    Args:
        name: of the type, for the help.
        read: returns the value of a text; the ValueError that it raises says what is wrong.
    """

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(f"{value!r} is {error}", param, context)


def _time(text: str) -> times.Time:
    try:
        return times.parse_rfc3339(text)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{error}, such as 2026-11-22T14:00:00+00:00") from error


def _queue(text: str) -> str:
    kind, _, rest = text.partition("://")
    if not is_queue(text):
        raise ValueError(
            "not an address, such as ipc:///run/piw-indexer/changes or tcp://host:5560"
        )
    if kind == "ipc" and rest[:1] not in ("/", "@", "*"):  # a name of Linux' own, or any
        return f"ipc://{os.path.abspath(rest)}"
    return text


def is_queue(text: str, kinds: Sequence[str] = ("ipc", "tcp", "inproc")) -> bool:
    """Whether a text looks like an address of ZeroMQ of one of these kinds."""
    kind, _, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    good = rest if kind in ("ipc", "inproc") else host and _is_port(port)
    return kind in kinds and bool(good)


def _is_port(text: str) -> bool:
    """Whether it is a TCP port: libzmq accepts larger numbers and binds another port."""
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 0xFFFF


def _listen(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not _is_port(port):
        raise ValueError("not an address, such as 127.0.0.1:9817")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _feed(name: str) -> str:
    if not name or not is_feed_name(name) or name.startswith(FILE_FEED):
        raise ValueError(
            f"not a name of a feed: 1 to {MAX_FEED_NAME} printable characters that do not begin"
            f" with {FILE_FEED}"
        )
    return name


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _seconds(text: str) -> float:
    if not 0 <= _number(text) < math.inf:
        raise ValueError("not a number of seconds from 0 up")
    return _number(text)


def _rate(text: str) -> float:
    if not 0 < _number(text) < math.inf:
        raise ValueError("not a number of messages a second above 0")
    return _number(text)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise ValueError("not a mode with which its owner may read and write, such as 0660")
    return mode


def _key(text: str) -> str:
    return os.path.abspath(text) if os.path.exists(text) else text


_typed: dict[Path, Path] = {}
"""Paths from the root, and as they were typed."""


def as_typed(path: Path) -> Path:
    """A path, or one below it, as the user typed it; for output."""
    for part in (path, *path.parents):
        if part in _typed:
            return _typed[part] / path.relative_to(part)
    return path


class PathType(click.Path):
    """A path, made absolute because commands leave the current directory."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, path_type=Path)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Path:
        given = Path(os.fsdecode(super().convert(value, param, context)))
        _typed[given.absolute()] = given
        return given.absolute()


_TIME = Parsed("time", _time)
_QUEUE = Parsed("address", _queue)
_SECONDS = Parsed("seconds", _seconds)
_DIRECTORY = PathType(file_okay=False)

OPTIONS: dict[str, dict[str, Any]] = {
    "state-dir": {
        # Missing permissions are reported better by the code that reads the file.
        "type": PathType(file_okay=False, readable=False),
        "default": "/var/lib/piw-indexer",
        "help": "The directory of journal and index.",
    },
    "output-path": {
        "type": _DIRECTORY,
        "default": "/var/www",
        "help": "The root of the web site; documents are written below it.",
    },
    "site-url": {
        "default": "https://www.piwheels.org",
        "help": "The URL of the web site.",
    },
    "changes-queue": {
        "type": _QUEUE,
        "multiple": True,
        "help": "The address of a change feed; `run` takes one for each publisher.",
    },
    "replay-queue": {
        "type": _QUEUE,
        "multiple": True,
        "help": "Where the publisher of that feed answers requests for missed messages; one for"
        " each --changes-queue.",
    },
    "curve-key": {
        "type": PathType(dir_okay=False),
        "metavar": "FILE",
        "help": "Our own private key for CURVE on tcp, made by `piw-indexer keys`.",
    },
    "curve-server-key": {
        "type": Parsed("key", _key),
        "multiple": True,
        "metavar": "KEY|FILE",
        "help": "The public key of the publisher, or its file. Give it once, or once for each"
        " publisher.",
    },
    "allowed-keys": {
        "type": PathType(),
        "metavar": "FILE|DIR",
        "help": "The public keys that may subscribe: a file with one a line, or a directory of .pub"
        " files.",
    },
    "ipc-peer": {
        "multiple": True,
        "metavar": "USER",
        "help": "A user whose ipc sockets are trusted, besides our own and root's. May be given"
        " several times.",
    },
    "ipc-mode": {
        "type": Parsed("mode", _mode),
        "default": "0660",
        "help": "The mode of ipc sockets. Whoever may write to one may subscribe.",
    },
    "ipc-group": {
        "metavar": "GROUP",
        "help": "The group of ipc sockets. Default: the group of the process.",
    },
    "settle": {
        "type": _SECONDS,
        "default": 1.0,
        "help": "Seconds without news of a package before its documents are written.",
    },
    "max-delay": {
        "type": _SECONDS,
        "default": 10.0,
        "help": "Seconds after which they are written even if there is always news.",
    },
    "counters-interval": {
        "type": _SECONDS,
        "default": 60.0,
        "help": "Minimum number of seconds between two versions of packages.json.",
    },
    "as-of": {
        "type": _TIME,
        "help": "The end of the 30-day window, RFC 3339. Default: the present.",
    },
    "status-queue": {
        "type": _QUEUE,
        "help": "The master's public status queue, which shows what every slave is doing.",
    },
    "control-queue": {
        "type": _QUEUE,
        "help": "The master's control queue, to say hello there as piw-monitor does.",
    },
    "db-queue": {
        "type": _QUEUE,
        "help": "The master's database queue, to ask for packages. The master's setting has the"
        " same name.",
    },
    "logs": {
        "type": _DIRECTORY,
        "help": "The master's directory `logs`. The daemon reads the logs of failed builds there,"
        " and finds out why they failed.",
    },
    "dsn": {
        "metavar": "DSN",
        "help": "The master's database, such as postgresql:///piwheels. Nothing is written to it.",
    },
    "download-days": {
        "type": click.IntRange(min=31),
        "metavar": "DAYS",
        "help": "Keep downloads by the hour for this many days, older ones as a sum. Default: all.",
    },
    "pause": {
        "type": _SECONDS,
        "default": 0.02,
        "help": "Seconds between two requests for packages.",
    },
    "sweep-pause": {
        "type": _SECONDS,
        "default": 1.0,
        "help": "Seconds between two requests for packages without news; may be less than 1.",
    },
    "log-queue": {
        "type": _QUEUE,
        "help": "Where piw-logger sends log entries: we take the place of the master's log queue.",
    },
    "log-forward": {
        "type": _QUEUE,
        "help": "The master's own log queue. Every frame is passed on to it unchanged.",
    },
    "feed": {
        "type": Parsed("feed", _feed),
        "metavar": "TEXT",
        "help": "The name of the feed. Default: the name of this machine.",
    },
    "user": {
        "metavar": "USER",
        "help": "The user that runs the daemon. Default: piwheels if it exists, else piw-indexer.",
    },
    "root": {
        "type": _DIRECTORY,
        "metavar": "DIR",
        "help": "Read and write below this directory, as if it were the root of the file system.",
    },
    "since": {
        "type": _TIME,
        "help": "Show only events since this time, RFC 3339. Default: all.",
    },
    "limit": {
        "type": click.IntRange(min=1),
        "metavar": "NUMBER",
        "help": "Show only the latest events, this many. Default: all.",
    },
    "source": {
        "metavar": "TEXT",
        "help": "Only messages from this source: an address or a file, as the list shows it.",
    },
    "reason": {
        "metavar": "TEXT",
        "help": "Only messages whose reason contains this text, as the list shows it.",
    },
    "rate": {
        "type": Parsed("rate", _rate),
        "help": "Messages a second. Default: as fast as possible.",
    },
    "textfile": {
        "type": PathType(dir_okay=False),
        "metavar": "FILE",
        "help": "Write the metrics to this file, for node_exporter's textfile collector.",
    },
    "listen": {
        "type": Parsed("listen", _listen),
        "metavar": "[HOST:]PORT",
        "help": "Serve the metrics at this address until stopped. Without a host: on this machine"
        " only.",
    },
}
"""Every option with a value: its type, default and help."""

FLAGS: dict[str, str] = {
    "write": "Also publish what has changed.",
    "all": "Everything, not only a part.",
    "fix": "Rebuild the index if it differs, and write the documents that differ.",
    "again": "Also read the logs of builds whose reason is known.",
    "fresh": "Start from the beginning, even if an earlier check was interrupted.",
    "exit": "Exit when the file is sent and no subscriber asks for a replay any longer.",
    "json": "Print JSON, for programs.",
    "monitor": "Print one line and set the exit status, for Nagios, Icinga and the like.",
    "dismiss": "Put messages aside: those with the given IDs, from a --source, with a --reason, or"
    " --all. `status` no longer reports them. They are kept, and listed with --all. The daemon may"
    " run.",
    "retry": "Try to accept the given messages again, or all that wait. The daemon must be"
    " stopped.",
    "salvage": "Continue with what can be read of a damaged journal; the rest is lost.",
    "allow-insecure-tcp": "Use tcp beyond this machine without CURVE: anybody on the network can"
    " read the feed, and can forge it.",
    "allow-network-file-system": "Keep databases on a network file system, such as NFS. SQLite's"
    " write-ahead log does not work there if a second machine uses the directory.",
    "no-downloads": "Do not publish downloads: the daemon gets them elsewhere.",
    "with-downloads": "Also show the downloads of every day.",
    "show": "Show the public key of an existing pair, instead of making one.",
    "validate": "Check the configuration as a start does, and exit.",
    "dry-run": "Only show what would be done.",
    "remove": "Delete the files that install wrote, except those that were edited since.",
    "spool": "Use the quarantine of the publisher's spool, not of the journal.",
}
"""Every switch, and its help."""


def option(name: str) -> Callable[[_Function], _Function]:
    """A decorator that gives a command the option `name` of `OPTIONS`."""
    settings = OPTIONS[name]
    return click.option(
        f"--{name}",
        envvar=PREFIX + name.upper().replace("-", "_"),
        show_default="default" in settings,
        show_envvar=True,
        **settings,
    )


def flag(name: str, text: str = "", **settings: Any) -> Callable[[_Function], _Function]:
    """A decorator that gives a command the switch `name` of `FLAGS`, or one with its own help."""
    return click.option(
        f"--{name}",
        name.replace("-", "_") if name not in _RESERVED else _RESERVED[name],
        is_flag=True,
        envvar=PREFIX + name.upper().replace("-", "_"),
        show_envvar=True,
        help=text or FLAGS[name],
        **settings,
    )


def state_to_write(function: _Function) -> _Function:
    """A decorator for commands that write databases: --state-dir, and where that may be."""

    def allow(context: click.Context, parameter: click.Parameter, given: bool) -> None:
        if given:
            network.allow()

    allowing = flag("allow-network-file-system", expose_value=False, callback=allow)
    return option("state-dir")(allowing(function))


def grouped(kind: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """A decorator that gives a command an option or switch for each field of a NamedTuple.

    The command gets the tuple as an argument with the lower-case name of the type.
    """
    fields: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    name = kind.__name__.lower()

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        def command(*arguments: Any, **given: Any) -> Any:
            given[name] = kind(*[given.pop(field) for field in fields])
            return function(*arguments, **given)

        grouping: Any = command
        for field in reversed(fields):
            written = field.replace("_", "-")
            grouping = (flag if written in FLAGS else option)(written)(grouping)
        return cast(_Function, grouping)

    return decorate


_RESERVED = {"all": "everything", "json": "as_json", "exit": "leave"}
"""Switches whose names would hide builtins or modules."""


def feeds(
    operation: str,
    changes_queue: tuple[str, ...],
    replay_queue: tuple[str, ...],
    others: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """The changes-queue and the replay-queue of each publisher.

    Args:
        changes_queue: as the option was given.
        replay_queue: likewise.
        others: the options and the addresses of other queues.

    Raises UsageError if their numbers differ, or two queues have the same address.
    """
    if len(changes_queue) != len(replay_queue):
        raise UsageError(
            operation,
            f"there are {len(changes_queue)} --changes-queue, but {len(replay_queue)}"
            " --replay-queue",
            "give one of each for every publisher",
        )
    refuse_same(
        operation,
        [
            *(("--changes-queue", address) for address in changes_queue),
            *(("--replay-queue", address) for address in replay_queue),
            *others,
        ],
    )
    return list(zip(changes_queue, replay_queue, strict=True))


def refuse_same(operation: str, queues: Sequence[tuple[str, str]]) -> None:
    """Refuse addresses that are the same, of queues that must be different.

    Args:
        queues: the option and the address of each queue.

    Raises UsageError if two of them are the same, however they are written.
    """
    seen: dict[str, tuple[str, str]] = {}
    for option, address in queues:
        for same in _places(address):
            if same not in seen:
                continue
            before, other = seen[same]
            what = (
                f"the address {address} is given twice"
                if address == other
                else f"the addresses {other} and {address} are the same"
            )
            both = option if option == before else f"{before} and {option}"
            raise UsageError(
                operation, f"{what}, for {both}", "every queue needs an address of its own"
            )
        seen |= dict.fromkeys(_places(address), (option, address))


_LOOPBACK = {"127.0.0.1", "::1"}
_HOSTS = {"localhost": _LOOPBACK, "*": {"*", *_LOOPBACK}, "::": {"*", *_LOOPBACK}}
_HOSTS["0.0.0.0"] = {"*", "127.0.0.1"}


def _places(address: str) -> set[str]:
    """What an address leads to, written in one way; names of other machines are not looked up."""
    kind, _, rest = address.partition("://")
    if kind == "ipc":
        return {f"ipc://{rest if rest[:1] in ('@', '*') else os.path.realpath(rest)}"}
    if kind != "tcp":
        return {address}
    # ZeroMQ's way to say where to connect from is before a semicolon.
    host, _, port = rest.rpartition(";")[2].rpartition(":")
    host = host.removeprefix("[").removesuffix("]").lower()
    import ipaddress  # `status` has no address

    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass  # it is a name
    else:
        host = str(getattr(number, "ipv4_mapped", None) or number)
    return {f"tcp://{place}:{int(port)}" for place in _HOSTS.get(host, {host})}


def feed(
    operation: str, changes_queue: tuple[str, ...], replay_queue: tuple[str, ...]
) -> tuple[str, str]:
    """The changes-queue and the replay-queue of a publisher.

    Raises UsageError if there is not exactly one of each, or they are equal.
    """
    if len(changes_queue) != 1 or len(replay_queue) != 1:
        raise UsageError(
            operation,
            "a publisher takes one --changes-queue and one --replay-queue, but"
            f" {len(changes_queue)} and {len(replay_queue)} are given",
            "give the addresses for subscribers, such as --changes-queue"
            " ipc:///run/piw-indexer/changes --replay-queue ipc:///run/piw-indexer/replay",
        )
    return feeds(operation, changes_queue, replay_queue)[0]


def configuration(function: _Function) -> _Function:
    """A decorator that gives a command `-c FILE`, and reads the configuration files."""
    return _configuration(_read_files)(function)


def configuration_to_look(function: _Function) -> _Function:
    """Likewise for a command that only looks: it must work in spite of mistakes in the files."""
    return _configuration(_read_what_is_right)(function)


def _configuration(callback: Callable[..., None]) -> Callable[[_Function], _Function]:
    return click.option(
        "-c",
        "--configuration",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=callback,
        help="Another configuration file, which overrides piwheels' own.",
    )


def _read_what_is_right(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> None:
    def log_mistake(error: UsageError) -> None:
        printable.warn(f"{error}\n  ignored")

    _read_files(context, parameter, value, log_mistake)


def _read_files(
    context: click.Context,
    parameter: click.Parameter,
    value: Path | None,
    mistake: Callable[[UsageError], None] | None = None,
) -> None:
    if value is not None and not value.is_file():
        raise UsageError(f"read the configuration {value}", "there is no such file")
    paths = [path for name in FILES if os.path.isfile(path := Path(name).expanduser())]
    settings: dict[str, Any] = {}
    for path in (*paths, *([value] if value is not None else [])):
        try:
            settings |= read_file(path, mistake)
        except UsageError as error:
            if mistake is None:
                raise
            mistake(error)
    context.default_map = {**(context.default_map or {}), **settings}


def read_file(path: Path, mistake: Callable[[UsageError], None] | None = None) -> dict[str, Any]:
    """The options in the section `[indexer]` of a file, by the names that click gives them.

    Args:
        mistake: is called with an unknown key or a bad value, which is then ignored.

    Raises UsageError if the file cannot be read, or has an unknown key or a bad value there.
    """
    operation = f"read the configuration {path}"
    settings = {}
    for written, text in section(path).items():
        try:
            parameter, value = _option(operation, written, text)
        except UsageError as error:
            if mistake is None:
                raise
            mistake(error)
        else:
            settings[parameter] = value
    return settings


def read_text(path: Path) -> str:
    """The text of a configuration file, which another user may have written to slow a parser down.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not text, or has too many spaces in a row.
    """
    text = filesystem.read_linked(path, MAX_SETTINGS).decode()
    spaces = _SPACES.search(text)
    if spaces is not None:
        number = text.count("\n", 0, spaces.start()) + 1
        raise ValueError(f"line {number} has more than {MAX_SPACES} spaces in a row")
    return text


def section(path: Path) -> dict[str, str | None]:
    """The section `[indexer]` of a file, as text; raises UsageError if the file cannot be read."""
    import configparser  # most machines where only `status` runs have no file

    operation = f"read the configuration {path}"
    # A [DEFAULT] is a section like others: its keys are not ours.
    # piwheels writes switches without a value.
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, default_section="", allow_no_value=True
    )
    try:
        text = read_text(path)
        try:
            parser.read_string(text, str(path))
        except configparser.MissingSectionHeaderError:
            # piwheels reads keys outside of any section too; they are not for us.
            parser.read_string("[ ]\n" + text, str(path))
    except OSError as error:
        cause, remedy = error.strerror or str(error), "correct the file, or name another one"
        raise UsageError(operation, cause, remedy) from error
    except (ValueError, configparser.Error) as error:
        cause = " ".join(str(error).split())
        raise UsageError(operation, cause, "correct that line, or name another file") from error
    for name in parser.sections():
        for written in parser.options(name):
            if written.startswith("["):  # it would have been a key without a value
                raise UsageError(
                    operation, f"the header {written!r} is not closed", "correct that line"
                )
    return dict(parser.items(SECTION)) if parser.has_section(SECTION) else {}


def _option(operation: str, written: str, text: str | None) -> tuple[str, Any]:
    """A line of the section: the parameter's name, and its value."""
    name = written.replace("_", "-")
    if name not in OPTIONS and name not in FLAGS:
        import difflib

        close = difflib.get_close_matches(name, [*OPTIONS, *FLAGS], 1)
        raise UsageError(
            operation,
            f"[{SECTION}] has no option {written!r}",
            f"did you mean {close[0]}?" if close else "see piw-indexer --help",
        )
    return _RESERVED.get(name, name.replace("-", "_")), _checked(operation, name, text or "")


def _checked(operation: str, name: str, text: str) -> Any:
    settings = OPTIONS.get(name, {"type": click.BOOL})
    # A value that continues in the next line would be something else in whatever it is copied to.
    if not settings.get("multiple") and not text.strip().isprintable():
        raise UsageError(
            operation,
            f"[{SECTION}] {name} = {text!r}: it has a line break or another control character",
            "correct that line",
        )
    kind = click.types.convert_type(settings.get("type", str))
    try:
        if settings.get("multiple"):
            return [kind.convert(word, None, None) for word in text.split()]
        return kind.convert(text.strip(), None, None)
    except click.UsageError as error:
        raise UsageError(
            operation, f"[{SECTION}] {name} = {text}: {error.message}", "correct that line"
        ) from error
