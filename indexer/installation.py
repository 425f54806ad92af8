"""The units and the configuration of a service, for what a machine has.

What an administrator has edited is never replaced: every file says in its first line what it was
when it was written, and one that is no longer that gets a `.new` beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from . import __version__, config
from .errors import UsageError

USER = "piw-indexer"
"""The user of the daemon where there is no master's."""

MASTERS_USER = "piwheels"

OUTPUT_PATH = Path("/srv/piw-indexer")
"""A tree of our own."""

CONFIGURATION = config.OURS
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
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise UsageError(f"read {path}", error, "mend it, or its permissions") from error
        for number, line in enumerate(text.splitlines(), 1):
            match = re.match(r"\s*([^:=;#\s\[]+)\s*[:=\s]\s*(.+?)\s*(?:\s[;#].*)?$", line)
            if match is not None:
                found[match[1]] = Setting(match[2], f"{shown}, line {number}")
    return found


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
    output = str(machine.output_path).replace("%", "%%")
    quoted = f'"{output}"' if " " in output else output
    text = text.replace("ExecStart=/usr/local/bin/piw-indexer", f"ExecStart={machine.command}")
    text = text.replace("\nUser=piwheels\n", f"\nUser={machine.user}\n")
    text = text.replace(
        "\nReadWritePaths=-/var/www\n",
        f"\nReadWritePaths=-{quoted}\n" if '"' not in quoted else f'\nReadWritePaths="-{output}"\n',
    )
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
    address = status.value if status else "ipc:///tmp/piw-status"
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
    if asked is not None and asked.value.startswith(("ipc://", "tcp://")):
        lines += [
            f"# The master's database queue, from {asked.place}: packages are asked for there.",
            f"db-queue = {asked.value}",
            "",
        ]
    else:
        lines += [
            "# The master's database queue. Nobody outside of the master can ask there, until its",
            "# own configuration has `db-queue = ipc:///tmp/piw-db` and it was started again; then",
            "# take the # away, and reload.",
            "#db-queue = ipc:///tmp/piw-db",
            "",
        ]
    lines += [
        "# A change feed, of `piw-indexer bridge` or of another publisher; both addresses.",
        "#changes-queue = ipc:///run/piwheels/changes",
        "#replay-queue = ipc:///run/piwheels/replay",
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
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"# Written by `piw-indexer install` {__version__}, {digest}.\n{text}"


def untouched(text: str) -> bool:
    """Whether it is as it was written."""
    match = _MARK.match(text)
    return (
        match is not None and hashlib.sha256(text[match.end() :].encode()).hexdigest() == match[1]
    )


def same(one: str, other: str) -> bool:
    """Whether two texts say the same, by whatever version they were written."""
    return _MARK.sub("", one, 1) == _MARK.sub("", other, 1)


def read(path: Path) -> str | None:
    """What a file says; None if it is not there.

    Raises:
        UsageError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refused(f"read {path}", error) from error


def put(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        UsageError: if that is refused.
    """
    new = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        os.rename(new, path)
    except OSError as error:
        raise refused(f"write {path}", error) from error


def take_away(path: Path) -> None:
    """Remove a file.

    Raises:
        UsageError: if that is refused.
    """
    try:
        path.unlink()
    except OSError as error:
        raise refused(f"remove {path}", error) from error


def refused(operation: str, error: OSError) -> UsageError:
    """What to raise if the machine refuses something."""
    return UsageError(
        operation,
        error.strerror or error,
        "run it as root; --dry-run shows what it would do, --root DIR does it elsewhere",
    )
