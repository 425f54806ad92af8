"""The messages inside the program: frozen, typed, already validated.

The journal stores the fields of a message in this order. So fields are only ever appended, with a
default; otherwise old journals could not be read.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..base.times import Time


class File(NamedTuple):
    """A file that a build made; sizes in bytes."""

    filename: str
    filesize: int
    filehash: str
    package_tag: str
    package_version_tag: str
    py_version_tag: str
    abi_tag: str
    platform_tag: str
    requires_python: str | None
    dependencies: tuple[tuple[str, tuple[str, ...]], ...]
    location: str = "/simple"


class Failure(NamedTuple):
    """Why a build failed: the kind of reason, and the one detail that matters ('': none)."""

    category: str
    detail: str

    def __str__(self) -> str:
        return f"{self.category}: {self.detail}" if self.detail else self.category


class SetAbis(NamedTuple):
    """The build ABIs with their skip reasons, and the preinstalled apt packages."""

    build_abis: tuple[tuple[str, str], ...]
    preinstalled_apt_packages: tuple[tuple[str, tuple[str, ...]], ...]


class NewPackage(NamedTuple):
    """A package appears."""

    package: str
    skip: str = ""
    description: str = ""


class NewPackageName(NamedTuple):
    """A spelling of a package's name was seen."""

    package: str
    name: str
    seen: Time | None


class SetDescription(NamedTuple):
    """A package's summary."""

    package: str
    description: str


class SkipPackage(NamedTuple):
    """Why a package is not built; '' builds it again."""

    package: str
    reason: str


class DeletePackage(NamedTuple):
    """A package is deleted, with everything below it."""

    package: str


class NewVersion(NamedTuple):
    """A version appears."""

    package: str
    version: str
    released: Time | None
    skip: str = ""


class SkipVersion(NamedTuple):
    """Why a version is not built; '' builds it again."""

    package: str
    version: str
    reason: str


class YankVersion(NamedTuple):
    """A version was yanked (PEP 592)."""

    package: str
    version: str


class UnyankVersion(NamedTuple):
    """A version is no longer yanked."""

    package: str
    version: str


class DeleteVersion(NamedTuple):
    """A version is deleted, with its builds and files."""

    package: str
    version: str


class LogBuild(NamedTuple):
    """A build ended; the duration is in seconds."""

    build_id: int
    slave_id: int
    package: str
    version: str
    abi_tag: str
    status: bool
    duration: float
    files: tuple[File, ...]
    failure: Failure | None = None


class LogFailure(NamedTuple):
    """Somebody found out later why a build failed."""

    build_id: int
    failure: Failure


class MoveFiles(NamedTuple):
    """Files are served from elsewhere now: (filename, location)."""

    package: str
    files: tuple[tuple[str, str], ...]


class DeleteBuild(NamedTuple):
    """All builds and files of a version are deleted."""

    package: str
    version: str


class LogDownload(NamedTuple):
    """A file was downloaded."""

    filename: str
    accessed_at: Time
    arch: str | None
    distro_name: str | None
    distro_version: str | None
    os_name: str | None
    os_version: str | None
    py_name: str | None
    py_version: str | None
    installer_name: str | None
    installer_version: str | None
    setuptools_version: str | None


class SnapshotBuild(NamedTuple):
    """The result of the builds of a version on one ABI; None: not known."""

    abi_tag: str
    status: str
    build_id: int | None
    slave_id: int | None = None
    built_at: Time | None = None
    duration: float | None = None


class SnapshotFile(NamedTuple):
    """A file as a piwheels master describes it."""

    filename: str
    filesize: int
    filehash: str
    location: str
    platform_tag: str
    abi_tag: str
    builder_abi: str
    requires_python: str | None
    apt_dependencies: tuple[str, ...]
    pip_dependencies: tuple[str, ...]


class SnapshotRelease(NamedTuple):
    """A version with its builds and files."""

    version: str
    released: Time
    skip: str
    yanked: bool
    abis: tuple[SnapshotBuild, ...]
    files: tuple[SnapshotFile, ...]


class Snapshot(NamedTuple):
    """Everything that a piwheels master knows about a package."""

    package: str
    name: str
    description: str
    aliases: tuple[str, ...]
    releases: tuple[SnapshotRelease, ...]


class Downloads(NamedTuple):
    """A package's counters: downloads ever, and those known by the hour (seconds since 1970)."""

    package: str
    all: int
    hours: tuple[tuple[int, int], ...]


BY_NAME: dict[str, type[Any]] = {
    "SETABIS": SetAbis,
    "NEWPKG": NewPackage,
    "NEWPKGNAME": NewPackageName,
    "SETDESC": SetDescription,
    "SKIPPKG": SkipPackage,
    "DELPKG": DeletePackage,
    "NEWVER": NewVersion,
    "SKIPVER": SkipVersion,
    "YANKVER": YankVersion,
    "UNYANKVER": UnyankVersion,
    "DELVER": DeleteVersion,
    "LOGBUILD": LogBuild,
    "FAILURE": LogFailure,
    "MOVEFILES": MoveFiles,
    "DELBUILD": DeleteBuild,
    "LOGDOWNLOAD": LogDownload,
    "SNAPSHOT": Snapshot,
    "DOWNLOADS": Downloads,
}
"""The type of the data of every message, by its NAME on the wire."""


class Message(NamedTuple):
    """An accepted message: its NAME, when it happened, and its data (one of `BY_NAME`)."""

    name: str
    at: Time
    data: Any


class Position(NamedTuple):
    """The position of a message: the name of the feed, the epoch of its spool, and the serial."""

    feed: str
    epoch: int
    serial: int


def package_of(data: Any) -> str | None:
    """The package of a message; None if it does not name one."""
    return getattr(data, "package", None)
