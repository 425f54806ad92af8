"""`piw-indexer install`: units and a configuration for this machine."""

from __future__ import annotations

import difflib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
from click.core import ParameterSource

from ..base import options, printable
from ..base.errors import UsageError
from ..install import files as installation
from ..install import manual_pages
from ..install.files import Machine

_START = (
    "systemctl daemon-reload",
    "systemctl enable --now piw-indexer.service piw-indexer-check.timer",
)
_SOURCES = re.compile(r"^(changes|status|db|log)-queue =", re.MULTILINE)
_STOP = "systemctl disable --now piw-indexer.service piw-indexer-check.timer"


@click.command()
@options.option("output-path")
@options.option("user")
@options.option("root")
@options.flag("dry-run")
@options.flag("remove")
def install(
    output_path: Path, user: str | None, root: Path | None, dry_run: bool, remove: bool
) -> None:
    """Write systemd units and a commented configuration for what is found on this machine.

    A file that you have edited is kept, and the new text is written beside it as FILE.new. So
    change units by drop-ins (systemctl edit). Nothing is started; the commands for that are
    printed. --remove deletes what install wrote, and leaves the state and the documents.
    """
    base = root or Path("/")
    if remove:
        _remove(base, dry_run)
        return
    source = click.get_current_context().get_parameter_source("output_path")
    given = source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    machine = _machine(base, output_path if given else None, user)
    texts = installation.files(machine)
    for path, text in texts.items():
        _lay(base, path, text, dry_run)
    pages = manual_pages.link(Path(sys.prefix), base, dry_run)
    if pages:
        printable.echo(pages)
    helpers = [
        (tool, *arguments, path)
        for tool, arguments, path in (
            ("systemd-sysusers", (), installation.SYSUSERS),
            ("systemd-tmpfiles", ("--create",), installation.TMPFILES),
        )
        if path in texts
    ]
    for helper in helpers:
        if dry_run or root is not None:
            printable.echo(f"{'would run' if dry_run else 'run this there'}: {' '.join(helper)}")
        else:
            _run(helper)
    if root is None:
        for program in (machine.command, Path(sys.executable).resolve()):
            closed = _closed(program)
            if closed is not None:
                printable.warn(
                    f"{machine.user} cannot start {program}: {closed} is not open to"
                    " everybody; install piw-indexer below /opt, as docs/install.md says"
                )
            writable = installation.others_may_write(program, Path("/"))
            if writable is not None:
                printable.warn(
                    f"users other than root may write to {writable}, and so decide"
                    " what root runs as piw-indexer; install it as root, below /opt"
                )
    if not _SOURCES.search(texts[installation.CONFIGURATION]):
        printable.echo(
            f"{installation.CONFIGURATION} names no source of messages, as no master was found:"
            " before you start it, set changes-queue and replay-queue there, or status-queue."
        )
    printable.echo(
        "To start it:" if not dry_run else "Nothing was written. After an install, start it with:"
    )
    for line in _START:
        printable.echo(f"  {line}")


def _machine(base: Path, output_path: Path | None, user: str | None) -> Machine:
    """What was found below `base`."""
    homes = _homes(base)
    name = user or (
        installation.MASTERS_USER if installation.MASTERS_USER in homes else installation.USER
    )
    if name not in homes and name != installation.USER:
        raise UsageError(
            f"install for the user {name}",
            "there is no such user",
            "create the user, or leave --user out",
        )
    theirs = []
    for file in options.PIWHEELS_FILES:
        if not file.startswith("~"):
            theirs.append(installation.below(base, file))
        elif name in homes:
            theirs.append(installation.below(base, homes[name] + file[1:]))
    theirs = [path for path in theirs if _is_inside(path, base)]
    piwheels = installation.piwheels_settings(theirs, base)
    ours = installation.below(base, installation.CONFIGURATION)
    chosen = output_path
    if chosen is None:
        for path in (*theirs, ours):
            if path.is_file() and _is_inside(path, base):
                chosen = _configured(path, base) or chosen
    command = Path(sys.prefix) / "bin" / "piw-indexer"
    if not command.is_file():
        command = Path(sys.argv[0]).absolute()
    sockets = {
        f"ipc:///tmp/{path.name}"
        for path in installation.below(base, "/tmp").glob("piw-*")
        if path.is_socket()
    }
    return Machine(
        command=command,
        user=name,
        output_path=chosen or installation.OUTPUT_PATH,
        piwheels=piwheels,
        sockets=frozenset(sockets),
        systemd=_systemd() if base == Path("/") else 0,
    )


def _is_inside(path: Path, base: Path) -> bool:
    """Whether a file is below a root: a link in an image, or a home, may lead out of it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(base))


def _configured(path: Path, base: Path) -> Path | None:
    """The output path in a configuration file, if only root may write that file.

    The units grant the daemon access to this path, and root creates the directory.
    """
    writable = installation.others_may_write(path.resolve(), base.resolve())
    writable = writable or installation.others_may_write(path, base)
    try:
        options.read_file(path)
        settings = {key.replace("_", "-"): text for key, text in options.section(path).items()}
    except UsageError:
        if writable is None:
            raise
        return None
    text = (settings.get("output-path") or "").strip()
    if not text or writable is None:
        return Path(text) if text else None
    printable.warn(
        f"the output-path in {path} is ignored, because users other than root may"
        f" write to {writable}: if it is right, give it as --output-path"
    )
    return None


def _homes(base: Path) -> dict[str, str]:
    """The users and their homes; below another root, those in its passwd."""
    if base == Path("/"):
        return {user.pw_name: user.pw_dir for user in pwd.getpwall()}
    text = installation.read(base, "/etc/passwd") or ""
    return {
        fields[0]: fields[5] for line in text.splitlines() if len(fields := line.split(":")) == 7
    }


def _systemd() -> int:
    """The version of systemd; 0 if it is not installed."""
    try:
        done = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 0
    match = re.match(r"systemd (\d+)", done.stdout)
    return int(match[1]) if match else 0


def _closed(path: Path) -> Path | None:
    """The first directory on the way to it that not everybody may enter."""
    for directory in reversed(path.parents):
        if not os.stat(directory).st_mode & 0o001:
            return directory
    return None


def _lay(base: Path, path: str, text: str, dry_run: bool) -> None:
    """Write a file, unless somebody has edited the existing one."""
    there = installation.read(base, path)
    if there is not None and installation.same(there, text):
        printable.echo(f"{path}: unchanged")
        return
    kept = there is not None and not installation.untouched(there)
    shown = f"{path}.new" if kept else path
    what = "kept, because it was edited; the new text is beside it" if kept else "written"
    if dry_run:
        printable.echo(f"{path}: would be {what}: {shown}" if kept else f"{path}: would be {what}")
        lines = text.splitlines()
        if there is not None:
            lines = [
                line.rstrip("\n")
                for line in difflib.unified_diff(
                    there.splitlines(), lines, path, shown, lineterm=""
                )
            ]
        for line in lines:
            printable.echo(f"    {line}".rstrip())
        return
    installation.put(base, shown, text)
    printable.echo(f"{path}: {what}" + (f": {shown}" if kept else ""))


def _run(helper: tuple[str, ...]) -> None:
    tool = helper[0]
    line = " ".join(helper)
    if shutil.which(tool) is None:
        printable.warn(f"{tool} is not installed: do by hand what {helper[-1]} says")
        return
    done = subprocess.run(helper, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"run {line}", done.stderr.strip(), "run it by hand, then install again")


def _remove(base: Path, dry_run: bool) -> None:
    """Delete the files that were written and not edited since."""
    units = installation.below(base, installation.UNIT_DIRECTORY)
    wanted = [
        path.name for path in units.glob("*.wants/piw-indexer*") if path.name in installation.UNITS
    ]
    if wanted:
        raise UsageError(
            "remove the units", f"{' and '.join(sorted(wanted))} would still be started", _STOP
        )
    for path in installation.EVERY_FILE:
        there = installation.read(base, path)
        if there is None:
            continue
        if not installation.untouched(there):
            printable.echo(f"{path}: kept, because it was edited")
        elif dry_run:
            printable.echo(f"{path}: would be removed")
        else:
            installation.take_away(base, path)
            printable.echo(f"{path}: removed")
    pages = manual_pages.unlink(base, dry_run)
    if pages:
        printable.echo(pages)
    printable.echo("State (/var/lib/piw-indexer), documents and the user stay. Then:")
    printable.echo(f"  {_START[0]}")
