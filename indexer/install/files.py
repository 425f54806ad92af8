"""The units and the configuration of the service, for what was found on a machine.

A file that an administrator has edited is never replaced: the first line of every file has a
checksum, and if the file no longer matches it, the new text goes into a `.new` beside it.
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
"""The daemon's user on a machine without a user for the master."""

MASTERS_USER = "piwheels"

OUTPUT_PATH = Path("/srv/piw-indexer")
"""The default output path."""

CONFIGURATION = options.OURS
UNITS = ("piw-indexer.service", "piw-indexer-check.service", "piw-indexer-check.timer")
UNIT_DIRECTORY = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/piw-indexer.conf"
TMPFILES = "/etc/tmpfiles.d/piw-indexer.conf"

EVERY_FILE = (*(f"{UNIT_DIRECTORY}/{name}" for name in UNITS), CONFIGURATION, SYSUSERS, TMPFILES)
"""Every file that an installation may write."""

STEPS_SINCE = 254
"""The first version of systemd with RestartSteps=."""

_MARK = re.compile(r"# Written by `piw-indexer install` [^ ]+, ([0-9a-f]{64})\.\n")


@dataclass(frozen=True)
class Setting:
    """A line of piwheels' configuration.

    Attributes:
        value: the value that it sets.
        place: its file and line.
    """

    value: str
    place: str


@dataclass(frozen=True)
class Machine:
    """What an installation depends on.

    Attributes:
        command: the path of piw-indexer.
        user: the user that runs the daemon.
        output_path: the root of the site.
        piwheels: the master's settings, by name.
        sockets: the ipc sockets of a master that exist.
        systemd: its version; 0 if that is not known.
    """

    command: Path
    user: str
    output_path: Path
    piwheels: dict[str, Setting]
    sockets: frozenset[str]
    systemd: int


def piwheels_settings(files: list[Path], root: Path) -> dict[str, Setting]:
    """What piwheels reads from its configuration: the last line of each name, in any section.

    Source: ConfigArgParse, DefaultConfigFileParser, which piwheels 0.23 uses.

    Raises UsageError if a file cannot be read.
    """
    settings = {}
    for path in files:
        shown = "/" + str(path.relative_to(root)).lstrip("/")
        try:
            text = options.read_text(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"read {path}", error, "correct it, or its permissions") from error
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r"\s*([^:=;#\s\[]+)\s*[:=\s]\s*(.+?)\s*(?:\s[;#].*)?$", line)
            # They become lines of our configuration, or at least comments in it.
            if match is not None and match[2].isprintable() and shown.isprintable():
                settings[match[1]] = Setting(match[2], f"{shown}, line {number}")
    return settings


# Values that become a line of a file that root or systemd reads


def checked_path(operation: str, path: Path) -> Path:
    """A path that can be written into a unit and a configuration file without changing its meaning.

    Raises UsageError if it cannot.
    """
    text, cause = str(path), ""
    if not text.startswith("/"):
        cause = "it is not an absolute path"
    elif not text.isprintable() or text != text.strip():
        cause = "it has a line break, another control character, or a space at its end"
    elif set(text) & set("\"'\\"):
        cause = "systemd would interpret its quotes or backslashes"
    elif ".." in path.parts or text.startswith("//"):
        cause = "it leads up again"
    elif len(path.parts) == 1:
        cause = "the daemon could write everywhere"
    if cause:
        raise UsageError(operation, f"{text!r}: {cause}", "name a path such as /srv/piw-indexer")
    return path


def checked_user(name: str) -> str:
    """The name of a user that systemd accepts; see systemd.syntax(7).

    Raises UsageError if it is something else.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}", name):
        raise UsageError(
            f"install for the user {name!r}",
            "systemd does not accept this name",
            "use letters, digits, _, - and dots only",
        )
    return name


def others_may_write(path: Path, base: Path) -> Path | None:
    """The file, or the directories above it up to `base`, that others than root and us may write.

    Whoever may write them decides what the file says.
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
        # The mode of a link means nothing, and a sticky directory protects the files of others.
        if status.st_mode & others and not stat.S_ISLNK(status.st_mode):
            if not status.st_mode & stat.S_ISVTX:
                return part
        if part == base:
            break
    return None


def _word(text: str) -> str:
    """A checked path as a word in a unit: specifiers are escaped, and spaces quoted.

    A $ stays as it is, because systemd does not expand variables in these settings.
    """
    text = text.replace("%", "%%")
    return text if re.fullmatch(r"[\w%+,./:=@~-]*", text) else f'"{text}"'


def files(machine: Machine) -> dict[str, str]:
    """The files to write: their contents by path."""
    texts = {f"{UNIT_DIRECTORY}/{name}": _unit(name, machine) for name in UNITS}
    texts[CONFIGURATION] = _configuration(machine)
    if machine.user == USER:
        texts[SYSUSERS] = (
            "# The user of the daemon; see sysusers.d(5).\n"
            f'u {USER} - "Index and JSON API of piwheels" /var/lib/piw-indexer\n'
        )
    if machine.output_path == OUTPUT_PATH:
        texts[TMPFILES] = (
            f"# The documents; see tmpfiles.d(5).\nd {OUTPUT_PATH} 0755 {machine.user} - - -\n"
        )
    return {path: marked(text) for path, text in texts.items()}


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
            "\nRestartSec=10\n# The pause grows as long as it fails.\n"
            "RestartSteps=6\nRestartMaxDelaySec=5min\n",
        )
    return text


def _configuration(machine: Machine) -> str:
    lines = [
        "# The configuration of piw-indexer. It overrides the section [indexer] of piwheels' own",
        "# files. piwheels does not read this file, so its settings do not belong here.",
        "# After a change: systemctl reload piw-indexer. Another output-path needs more, because",
        "# the daemon may write nowhere else: see docs/install.md.",
        "# Every option: piw-indexer run --help.",
        "",
        "[indexer]",
        "",
    ]
    theirs = machine.piwheels.get("output-path")
    if machine.output_path == OUTPUT_PATH:
        lines += [
            "# Where the documents go: a separate tree, which the web server lays over the site",
            "# (docs/beside-a-master.md has the lines for Apache and nginx). Not the master's own",
            "# tree, where the master replaces our documents"
            + (f": {theirs.value} ({theirs.place})." if theirs else "."),
        ]
    else:
        lines.append("# Where the documents go, as given to install or configured before.")
    lines += [f"output-path = {machine.output_path}", ""]
    lines += [
        "# The site's URL in the documents.",
        "#site-url = https://www.piwheels.org",
        "",
        *_feeds(machine),
        *_log_queue(machine),
        "# Seconds that a package must have been quiet before it is written.",
        "#settle = 1",
        "# Least number of seconds between two versions of packages.json.",
        "#counters-interval = 60",
    ]
    return "\n".join(lines) + "\n"


def _feeds(machine: Machine) -> list[str]:
    """The lines for the sources of messages: a master, if one was found, and change feeds."""
    status = machine.piwheels.get("status-queue")
    address = "ipc:///tmp/piw-status"
    if status is not None and options.is_queue(status.value):
        address = status.value
    there = address in machine.sockets
    lines = []
    if machine.piwheels or there:
        why = f"from {status.place}" if status else "piwheels' default"
        seen = (
            "its socket is there" if there else "its socket does not exist: is the master running?"
        )
        lines += [
            f"# The master's public status queue, {why}; {seen}",
            f"status-queue = {address}",
            "",
        ]
    else:
        lines += [
            "# No piwheels was found: no configuration, and no socket in /tmp. If a master is",
            "# installed later, this is its status queue:",
            f"#status-queue = {address}",
            "",
        ]
    asked = machine.piwheels.get("db-queue")
    if asked is not None and options.is_queue(asked.value, ("ipc", "tcp")):
        lines += [
            f"# The master's database queue, from {asked.place}: here we ask for packages.",
            f"db-queue = {asked.value}",
            "",
        ]
    else:
        lines += [
            "# The master's database queue. Nobody outside the master can use it until its",
            "# own configuration has `db-queue = ipc:///run/piw-indexer/db`, its unit has",
            "# RuntimeDirectory=piw-indexer (docs/security.md), and the master was restarted; then",
            "# remove the # and reload.",
            "#db-queue = ipc:///run/piw-indexer/db",
            "",
        ]
    lines += [
        "# Whose ipc sockets are trusted, besides those of root and the daemon's user.",
        f"#ipc-peer = {MASTERS_USER}",
        "",
        "# The two addresses of a change feed: of `piw-indexer bridge`, or another publisher.",
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
        "# `--log-queue ipc:///run/piw-indexer/logger`, then remove the # and reload. (The",
        "# unit allows sockets in /run/piw-indexer, but not in /tmp.)",
        "#log-queue = ipc:///run/piw-indexer/logger",
        f"#log-forward = {address}",
        "",
    ]


# Whether a file was edited


def marked(text: str) -> str:
    """A text with a first line that shows whether it was edited later."""
    digest = _digest(text)
    return f"# Written by `piw-indexer install` {__version__}, {digest}.\n{text}"


def untouched(text: str) -> bool:
    """Whether a text is as it was written."""
    match = _MARK.match(text)
    return match is not None and _digest(text[match.end() :]) == match[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def same(first: str, second: str) -> bool:
    """Whether two texts are the same, apart from the version that wrote them."""
    return _MARK.sub("", first, 1) == _MARK.sub("", second, 1)


@contextmanager
def within(base: Path, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open directory that holds a path below a root, and the last part of the path.

    Below a root other than this machine's, no link is followed: in an image made by others, a link
    could lead out of the image.

    Raises OSError if there is no such directory.
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
    """The text of a file below a root; None if there is no such file.

    Raises UsageError if it cannot be read.
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
    """Write a file below a root atomically; raises UsageError if that is refused."""
    try:
        with within(base, path, make=True) as (directory, name):
            filesystem.stage(directory, name, text.encode(), 0o644, durable=True)
            filesystem.put(directory, name)
    except OSError as error:
        raise refused(f"write {below(base, path)}", error) from error


def take_away(base: Path, path: str) -> None:
    """Remove a file below a root; raises UsageError if that is refused."""
    try:
        with within(base, path) as (directory, name):
            os.unlink(name, dir_fd=directory)
    except OSError as error:
        raise refused(f"remove {below(base, path)}", error) from error


def below(base: Path, path: str) -> Path:
    """A path below a root."""
    return base / path.lstrip("/")


def refused(operation: str, error: OSError) -> UsageError:
    """The error to raise if the system refuses something."""
    return UsageError(
        operation,
        error.strerror or error,
        "run it as root; --dry-run shows what it would do, --root DIR does it elsewhere",
    )
