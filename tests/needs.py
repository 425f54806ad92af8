"""The programs that some tests start, and the Debian packages that have them.

`python -m tests.needs` installs what is missing. Where it cannot, it says what is missing, and the
tests that need it are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = {
    "apache2": "apache2-bin",
    "cc": "gcc",
    "initdb": "postgresql",
    "mandoc": "mandoc",
    "nginx": "nginx-light",
    "psql": "postgresql-client",
    "sqlite3": "sqlite3",
    "systemd-analyze": "systemd",
}
"""The Debian package of each program."""

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Debian's users do not have the last two in theirs."""

_POSTGRES = Path("/usr/lib/postgresql")
"""Where Debian has PostgreSQL's server, by version, and outside every PATH."""


def find(name: str) -> str | None:
    """The path of a program; None if it is not installed."""
    if name == "initdb":
        versions = sorted(_POSTGRES.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
        if versions:
            return str(versions[-1])
    return shutil.which(name, path=_PATH)


def program(name: str) -> str:
    """The path of a program; leaves the test out if it is not installed, but in CI fails it."""
    path = find(name)
    if path is None:
        reason = f"{name} is not installed (Debian package: {PACKAGES[name]})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PACKAGES if find(name) is None]


def _install(packages: list[str]) -> None:
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    apt_get = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        print("+", *apt_get, *arguments, flush=True)
        subprocess.run([*apt_get, *arguments], stdin=subprocess.DEVNULL, check=True)


def main() -> None:
    """Install what is missing, or say why the tests go on without it."""
    packages = sorted({PACKAGES[name] for name in missing()})
    if not packages:
        return
    if shutil.which("apt-get") is None:
        reason = "this machine has no apt-get"
    elif os.geteuid() != 0 and shutil.which("sudo") is None:
        reason = "only root may install packages, and there is no sudo"
    else:
        try:
            _install(packages)
            return
        except (OSError, subprocess.CalledProcessError) as error:
            reason = str(error)
    print(
        f"The tests that need {', '.join(missing())} are left out: {reason}.\n"
        f"  what to do: install these Debian packages: {' '.join(packages)}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
