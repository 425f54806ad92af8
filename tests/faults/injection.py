"""The shim between a process and its system, which kills it, fails its calls, or logs them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .. import needs

SOURCE = Path(__file__).with_name("shim.c")
KINDS = "write fsync open rename unlink ftruncate mkdir symlink rmdir send read".split()
"""The calls that it sees, as the enum of its source numbers them."""

ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EIO")


def build(directory: Path) -> Path:
    """Compile the shim."""
    library = directory / "shim.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Wno-unused-result", "-shared", "-fPIC", "-pthread"]
    subprocess.run([needs.program("cc"), *flags, "-o", library, SOURCE], check=True)
    return library


@dataclass(frozen=True)
class Shim:
    """The compiled shim, for calls on files below a directory."""

    library: Path
    root: Path

    def settings(
        self,
        plan: str = "",
        *,
        file: Path | None = None,
        log: Path | None = None,
        counts: Path | None = None,
        statfs: int = 0,
        hosts: str = "",
    ) -> dict[str, str]:
        """The environment of a process with the shim; its source explains the plan."""
        settings = {"LD_PRELOAD": str(self.library), "FAULT_ROOTS": str(self.root)}
        if plan:
            settings["FAULT_PLAN"] = plan
        for name, path in (("FAULT_FILE", file), ("FAULT_LOG", log), ("FAULT_COUNTS", counts)):
            if path is not None:
                settings[name] = str(path)
        if statfs:
            settings["FAULT_STATFS"] = str(statfs)
        if hosts:
            settings["FAULT_HOSTS"] = hosts
        return settings


def counted(directory: Path) -> dict[str, int]:
    """How many calls of each kind a process made, at the most, of those that counted into it."""
    found = dict.fromkeys(KINDS, 0)
    for path in directory.iterdir():
        for line in path.read_text().splitlines():
            kind, number = line.split()
            found[kind] = max(found[kind], int(number))
    return found


class Switch:
    """A plan that can be switched on and off while processes run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on(self, plan: str) -> None:
        temporary = self.path.with_suffix(".new")
        temporary.write_text(plan)
        os.rename(temporary, self.path)

    def off(self) -> None:
        self.path.unlink(missing_ok=True)
