"""The units and the configuration of a service, for what a machine has.

What an administrator has edited is never replaced: every file says in its first line what it was
when it was written, and one that is no longer that gets a `.new` beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

from .. import __version__
from ..base import filesystem, options
from ..base.errors import UsageError

USER = "piw-indexer"
"""The user of the daemon where there is no master's."""

MASTERS_USER = "piwheels"

OUTPUT_PATH = Path("/srv/piw-indexer")
"""A tree of our own."""

CONFIGURATION = options.OURS
UNITS = ("piw-indexer.service", "piw-indexer-check.service", "piw-indexer-check.timer")
UNIT_DIRECTORY = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/piw-indexer.conf"
TMPFILES = "/etc/tmpfiles.d/piw-indexer.conf"

EVERY_FILE = (*(f"{UNIT_DIRECTORY}/{name}" for name in UNITS), CONFIGURATION, SYSUSERS, TMPFILES)
"""Whatever an installation may write."""

STEPS_SINCE = 254
"""The version of systemd that knows RestartSteps=."""

_MARK = re.compile(r"# Written by `piw-indexer install` [^ ]+, ([0-9a-f]{64})\.\n")


@dataclass(frozen=True)
class Setting:
    """A line of piwheels' configuration.

    Attributes:
        value: what it sets.
        place: the file and line.
    """

    value: str
    place: str


@dataclass(frozen=True)
class Machine:
    """What an installation depends on.

    Attributes:
        command: the path of piw-indexer.
        user: who runs the daemon.
        output_path: the root of the site.
        piwheels: the master's settings, by name.
        sockets: which of the ipc sockets of a master are there.
        systemd: its version; 0 if that is not known.
    """

    command: Path
    user: str
    output_path: Path
    piwheels: dict[str, Setting]
    sockets: frozenset[str]
    systemd: int


def piwheels_settings(files: list[Path], root: Path) -> dict[str, Setting]:
    """What piwheels reads out of its configuration: the last line of a name, in any section.

    Source: ConfigArgParse, DefaultConfigFileParser, which piwheels 0.23 uses.

    Raises:
        UsageError: if a file cannot be read.
    """
    found = {}
    for path in files:
        shown = "/" + str(path.relative_to(root)).lstrip("/")
        try:
            text = options.read_text(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"read {path}", error, "mend it, or its permissions") from error
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r"\s*([^:=;#\s\[]+)\s*[:=\s]\s*(.+?)\s*(?:\s[;#].*)?$", line)
            # They become lines of our configuration, comments of it at least.
            if match is not None and match[2].isprintable() and shown.isprintable():
                found[match[1]] = Setting(match[2], f"{shown}, line {number}")
    return found


# What becomes a line of a file that root or systemd reads


def checked_path(operation: str, path: Path) -> Path:
    """A path that can stand in a unit and in a configuration file, and is what it says.

    Raises:
        UsageError: if it cannot.
    """
    text, cause = str(path), ""
    if not text.startswith("/"):
        cause = "it does not begin at the root of the file system"
    elif not text.isprintable() or text != text.strip():
        cause = "it has a line break, another control character, or a space at its end"
    elif set(text) & set("\"'\\"):
        cause = "systemd would read its quotes or backslashes in another way"
    elif ".." in path.parts or text.startswith("//"):
        cause = "it leads up again"
    elif len(path.parts) == 1:
        cause = "the daemon could write everywhere"
    if cause:
        raise UsageError(operation, f"{text!r}: {cause}", "name a path such as /srv/piw-indexer")
    return path


def checked_user(name: str) -> str:
    """The name of a user as systemd wants it; see systemd.syntax(7).

    Raises:
        UsageError: if it is something else.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}", name):
        raise UsageError(
            f"install for the user {name!r}",
            "systemd takes no such name",
            "name one of letters, digits, _, - and dots",
        )
    return name


def others_may_write(path: Path, base: Path) -> Path | None:
    """What on the way to a file, from `base` on, somebody else than root and us may write.

    What such a file says is that user's word, not that of whoever installs.
    """
    ours = {0, os.geteuid()}
    for part in (path, *path.parents):
        try:
            status = os.lstat(part)
        except FileNotFoundError:
            continue
        if status.st_uid not in ours:
            return part
        others = 0o002 if status.st_gid in (0, os.getegid()) else 0o022
        # The mode of a link says nothing, and in /tmp nobody exchanges what is not his own.
        if status.st_mode & others and not stat.S_ISLNK(status.st_mode):
            if not status.st_mode & stat.S_ISVTX:
                return part
        if part == base:
            break
    return None


def _word(text: str) -> str:
    """A checked path as a word of a unit: without specifiers, and quoted if it has to be.

    A $ stays as it is: variables are not looked for in these.
    """
    text = text.replace("%", "%%")
    return text if re.fullmatch(r"[\w%+,./:=@~-]*", text) else f'"{text}"'


def files(machine: Machine) -> dict[str, str]:
    """What to write: paths, and what belongs there."""
    found = {f"{UNIT_DIRECTORY}/{name}": _unit(name, machine) for name in UNITS}
    found[CONFIGURATION] = _configuration(machine)
    if machine.user == USER:
        found[SYSUSERS] = (
            "# The user of the daemon; see sysusers.d(5).\n"
            f'u {USER} - "Index and JSON API of piwheels" /var/lib/piw-indexer\n'
        )
    if machine.output_path == OUTPUT_PATH:
        found[TMPFILES] = (
            f"# The documents; see tmpfiles.d(5).\nd {OUTPUT_PATH} 0755 {machine.user} - - -\n"
        )
    return {path: marked(text) for path, text in found.items()}


def _unit(name: str, machine: Machine) -> str:
    text = (resources.files("indexer.systemd") / name).read_text(encoding="utf-8")
    output = checked_path("install for an output path", machine.output_path)
    command = str(checked_path("install the command", machine.command))
    text = text.replace("ExecStart=/usr/local/bin/piw-indexer", f"ExecStart={_word(command)}")
    text = text.replace("\nUser=piwheels\n", f"\nUser={checked_user(machine.user)}\n")
    text = text.replace("\nReadWritePaths=-/var/www\n", f"\nReadWritePaths={_word(f'-{output}')}\n")
    if machine.systemd >= STEPS_SINCE:
        text = text.replace(
            "\nRestartSec=10\n",
            "\nRestartSec=10\n# Later and later, as long as it fails.\n"
            "RestartSteps=6\nRestartMaxDelaySec=5min\n",
        )
    return text


def _configuration(machine: Machine) -> str:
    """The commented configuration."""
    lines = [
        "# The configuration of piw-indexer. It counts before the section [indexer] of piwheels'",
        "# own files, and is no place for piwheels' settings: it does not read this.",
        "# After a change: systemctl reload piw-indexer. Another output-path takes more, because",
        "# the daemon may write nowhere else: docs/install.md says what.",
        "# Every option: piw-indexer run --help.",
        "",
        "[indexer]",
        "",
    ]
    theirs = machine.piwheels.get("output-path")
    if machine.output_path == OUTPUT_PATH:
        lines += [
            "# Where the documents go: a tree of our own, which the web server lays over the site",
            "# (docs/beside-a-master.md has the lines for Apache and nginx). The same tree as the",
            "# master's is possible, too: the output-path of its own configuration"
            + (f" is {theirs.value} ({theirs.place})." if theirs else "."),
        ]
    else:
        lines.append("# Where the documents go: as it was said, or configured before.")
    lines += [f"output-path = {machine.output_path}", ""]
    lines += [
        "# The site's URL, as the documents show it.",
        "#site-url = https://www.piwheels.org",
        "",
        *_feeds(machine),
        *_log_queue(machine),
        "# Seconds that a package must have been quiet before it is written.",
        "#settle = 1",
        "# Seconds between two packages.json, at least.",
        "#counters-interval = 60",
    ]
    return "\n".join(lines) + "\n"


def _feeds(machine: Machine) -> list[str]:
    """Where messages come from: a master, as far as one was found, and change feeds."""
    status = machine.piwheels.get("status-queue")
    address = "ipc:///tmp/piw-status"
    if status is not None and options.is_queue(status.value):
        address = status.value
    there = address in machine.sockets
    lines = []
    if machine.piwheels or there:
        why = f"from {status.place}" if status else "piwheels' default"
        seen = "its socket is there" if there else "its socket is not there: is the master running?"
        lines += [
            f"# The master's public status queue, {why}; {seen}",
            f"status-queue = {address}",
            "",
        ]
    else:
        lines += [
            "# No piwheels was found here: no configuration, and no socket in /tmp. The status",
            "# queue of a master that comes later:",
            f"#status-queue = {address}",
            "",
        ]
    asked = machine.piwheels.get("db-queue")
    if asked is not None and options.is_queue(asked.value, ("ipc", "tcp")):
        lines += [
            f"# The master's database queue, from {asked.place}: packages are asked for there.",
            f"db-queue = {asked.value}",
            "",
        ]
    else:
        lines += [
            "# The master's database queue. Nobody outside of the master can ask there, until its",
            "# own configuration has `db-queue = ipc:///run/piw-indexer/db`, its unit has",
            "# RuntimeDirectory=piw-indexer (docs/security.md), and it was started again; then",
            "# take the # away, and reload.",
            "#db-queue = ipc:///run/piw-indexer/db",
            "",
        ]
    lines += [
        "# Whose ipc sockets are believed, besides those of root and of the user of the daemon.",
        f"#ipc-peer = {MASTERS_USER}",
        "",
        "# A change feed, of `piw-indexer bridge` or of another publisher; both addresses.",
        "#changes-queue = ipc:///run/piw-indexer/changes",
        "#replay-queue = ipc:///run/piw-indexer/replay",
        "",
    ]
    return lines


def _log_queue(machine: Machine) -> list[str]:
    theirs = machine.piwheels.get("log-queue")
    address = theirs.value if theirs else "ipc:///tmp/piw-logger"
    return [
        "# Downloads. piw-logger pushes to us, and we pass on every frame to the master's own",
        f"# log queue ({theirs.place if theirs else 'its default'}). Start piw-logger with",
        "# `--log-queue ipc:///run/piw-indexer/logger`, then take the # away, and reload. (The",
        "# unit lets us make sockets in /run/piw-indexer, and not in /tmp.)",
        "#log-queue = ipc:///run/piw-indexer/logger",
        f"#log-forward = {address}",
        "",
    ]


# What was written, and what became of it


def marked(text: str) -> str:
    """A text with a first line that tells whether it was edited since."""
    digest = _digest(text)
    return f"# Written by `piw-indexer install` {__version__}, {digest}.\n{text}"


def untouched(text: str) -> bool:
    """Whether it is as it was written."""
    match = _MARK.match(text)
    return match is not None and _digest(text[match.end() :]) == match[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def same(one: str, other: str) -> bool:
    """Whether two texts say the same, by whatever version they were written."""
    return _MARK.sub("", one, 1) == _MARK.sub("", other, 1)


@contextmanager
def within(base: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open directory that a path below a root is in, and its name there.

    Below another root than this machine's no link is followed: in an image that others have made,
    one could lead out of it.

    Raises:
        OSError: if there is no such directory.
    """
    *parents, name = PurePosixPath(path.lstrip("/")).parts
    with ExitStack() as stack:
        here = stack.enter_context(filesystem.directory(base, follow=True))
        for part in parents:
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=here)
                except FileExistsError:
                    pass
            there = filesystem.directory(part, dir_fd=here, follow=base == Path("/"))
            here = stack.enter_context(there)
        yield here, name


def read(base: Path, path: str) -> str | None:
    """What a file below a root says; None if it is not there.

    Raises:
        UsageError: if it cannot be read.
    """
    try:
        with within(base, path) as (directory, name):
            content = filesystem.read(name, filesystem.MAX_DOCUMENT, dir_fd=directory)
            return content.decode(errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(f"read {below(base, path)}", error) from error


def put(base: Path, path: str, text: str) -> None:
    """Write a file below a root, whole or not at all.

    Raises:
        UsageError: if that is refused.
    """
    try:
        with within(base, path, make=True) as (directory, name):
            filesystem.stage(directory, name, text.encode(), 0o644, durable=True)
            filesystem.put(directory, name)
    except OSError as error:
        raise refused(f"write {below(base, path)}", error) from error


def take_away(base: Path, path: str) -> None:
    """Remove a file below a root.

    Raises:
        UsageError: if that is refused.
    """
    try:
        with within(base, path) as (directory, name):
            os.unlink(name, dir_fd=directory)
    except OSError as error:
        raise refused(f"remove {below(base, path)}", error) from error


def below(base: Path, path: str) -> Path:
    """Where a path is below a root."""
    return base / path.lstrip("/")


def refused(operation: str, error: OSError) -> UsageError:
    """What to raise if the machine refuses something."""
    return UsageError(
        operation,
        error.strerror or error,
        "run it as root; --dry-run shows what it would do, --root DIR does it elsewhere",
    )
