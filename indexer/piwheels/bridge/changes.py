"""Which requests change a piwheels master's database, and the message about each.

Messages contain what the database committed, and of a failed build the reason, which its output
tells. The output itself is not kept, and the address of a downloader is never read.

Source: piwheels 0.23, `piwheels/master/db.py`, `piwheels/states.py` and its SQL functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from ...base import names
from ...reasons import build_log

TESTED_WITH = "0.23"
"""The version of piwheels that this was tested with."""

Arguments = Mapping[str, Any]
"""The arguments of a method of piwheels' database, by name."""

_CONTROL = dict.fromkeys((*range(9), 0x0B, *range(0x0E, 0x20), 0x7F), "\N{REPLACEMENT CHARACTER}")
"""piwheels replaces control characters in what a downloader says."""


class Change(NamedTuple):
    """A request that changes the database.

    Attributes:
        message: its name, piwheels' and ours.
        method: of piwheels' class `Database`, in the tested version.
        arguments: those of that method that are read.
        what: it changes, for what is said where a master lacks it.
        data: the data of our message from arguments and result; None if nothing changed.
        concerns: the packages whose rows it may touch.
        log: from which the reason of a failed build is read, later; '' if there is none.
    """

    message: str
    method: str
    arguments: tuple[str, ...]
    what: str
    data: Callable[[Arguments, Any], dict[str, Any] | None]
    concerns: Callable[[Arguments], Iterable[str]]
    log: Callable[[Arguments], str] = lambda _: ""


def _package(arguments: Arguments) -> tuple[str, ...]:
    return (arguments["package"],)


def _name(arguments: Arguments) -> tuple[str, ...]:
    # A name stays with the package that had it first, usually the one that it is a spelling of.
    return arguments["package"], names.canonical(arguments["name"])


def _build(arguments: Arguments) -> list[str]:
    # A file may move to this build from a build of any package.
    build = arguments["build"]
    return [build.package, *(names.wheel_package(name) or "" for name in build.files)]


def _nothing(arguments: Arguments) -> tuple[str, ...]:
    return ()


def _as_it_is(*fields: str) -> Callable[[Arguments, Any], dict[str, Any]]:
    def data(arguments: Arguments, result: Any) -> dict[str, Any]:
        return {field: arguments[field] for field in fields}

    return data


def _new_package(arguments: Arguments, result: Any) -> dict[str, Any] | None:
    # False: the package is known, and nothing was changed.
    return {f: arguments[f] for f in ("package", "skip", "description")} if result else None


def _new_version(arguments: Arguments, result: Any) -> dict[str, Any] | None:
    if not result:
        return None
    return {
        **{field: arguments[field] for field in ("package", "version", "skip")},
        "released": _utc(arguments["released"]),
    }


def _new_name(arguments: Arguments, result: Any) -> dict[str, Any]:
    return {
        "package": arguments["package"],
        "name": arguments["name"],
        "seen": _utc(arguments["seen"]),
    }


def _utc(value: datetime | None) -> datetime | None:
    """A time as piwheels understands it: without a zone, it is local."""
    return None if value is None else value.astimezone(UTC)


FILE_FIELDS = (
    "filename",
    "filesize",
    "filehash",
    "package_tag",
    "package_version_tag",
    "py_version_tag",
    "abi_tag",
    "platform_tag",
    "requires_python",
    "location",
)
"""Of `piwheels.states.FileState`, as our messages call them, besides `dependencies`."""

BUILD_FIELDS = ("slave_id", "package", "version", "abi_tag", "status")
"""Of `piwheels.states.BuildState`, besides `duration` and `files`."""

CLIENT_FIELDS = (
    "arch",
    "distro_name",
    "distro_version",
    "os_name",
    "os_version",
    "py_name",
    "py_version",
    "installer_name",
    "installer_version",
    "setuptools_version",
)
"""Of `piwheels.states.DownloadState`, besides `filename` and `timestamp`."""

STATES: dict[str, dict[str, tuple[str, ...]]] = {
    "LOGBUILD": {
        "FileState": (*FILE_FIELDS, "dependencies"),
        "BuildState": (*BUILD_FIELDS, "duration", "files"),
    },
    "LOGDOWNLOAD": {"DownloadState": ("filename", "timestamp", *CLIENT_FIELDS)},
}
"""The attributes that are read of objects, by the message and their class."""

MAY_LACK = frozenset({"requires_python", *CLIENT_FIELDS})
"""Those that are null where a master does not have them."""


def _attribute(state: Any, field: str) -> Any:
    return getattr(state, field, None) if field in MAY_LACK else getattr(state, field)


def _log_build(arguments: Arguments, result: Any) -> dict[str, Any]:
    build = arguments["build"]
    return {
        **{field: getattr(build, field) for field in BUILD_FIELDS},
        "build_id": result,
        "duration": seconds(build.duration),
        "failure": None,
        "files": [
            {
                **{field: _attribute(file, field) for field in FILE_FIELDS},
                "dependencies": {tool: list(names) for tool, names in file.dependencies.items()},
            }
            for file in build.files.values()
        ],
    }


def _output(arguments: Arguments) -> str:
    """The output of a failed build; '' if a master has none, or has it in another form."""
    build = arguments["build"]
    output = getattr(build, "output", None)
    return output[-build_log.MAX_TEXT :] if not build.status and isinstance(output, str) else ""


def seconds(duration: timedelta) -> float:
    """The duration of a build.

    If a slave's clock was set back, the build ends before it begins. The database stores that, and
    the build must not be missing.
    """
    return max(0.0, duration / timedelta(seconds=1))


def _log_download(arguments: Arguments, result: Any) -> dict[str, Any]:
    download = arguments["download"]
    data = {field: _attribute(download, field) for field in ("filename", *CLIENT_FIELDS)}
    return {
        **{field: text and text.translate(_CONTROL) for field, text in data.items()},
        "accessed_at": _utc(download.timestamp),
    }


DOWNLOAD = "LOGDOWNLOAD"

CHANGES = (
    Change(
        "NEWPKG",
        "add_new_package",
        ("package", "skip", "description"),
        "new packages",
        _new_package,
        _package,
    ),
    Change(
        "NEWVER",
        "add_new_package_version",
        ("package", "version", "released", "skip"),
        "new versions",
        _new_version,
        _package,
    ),
    Change(
        "NEWPKGNAME",
        "add_package_name",
        ("package", "name", "seen"),
        "spellings of names",
        _new_name,
        _name,
    ),
    Change(
        "SETDESC",
        "set_package_description",
        ("package", "description"),
        "descriptions",
        _as_it_is("package", "description"),
        _package,
    ),
    Change(
        "SKIPPKG",
        "skip_package",
        ("package", "reason"),
        "skipped packages",
        _as_it_is("package", "reason"),
        _package,
    ),
    Change(
        "SKIPVER",
        "skip_package_version",
        ("package", "version", "reason"),
        "skipped versions",
        _as_it_is("package", "version", "reason"),
        _package,
    ),
    Change(
        "DELPKG", "delete_package", ("package",), "deleted packages", _as_it_is("package"), _package
    ),
    Change(
        "DELVER",
        "delete_version",
        ("package", "version"),
        "deleted versions",
        _as_it_is("package", "version"),
        _package,
    ),
    Change(
        "YANKVER",
        "yank_version",
        ("package", "version"),
        "yanked versions",
        _as_it_is("package", "version"),
        _package,
    ),
    Change(
        "UNYANKVER",
        "unyank_version",
        ("package", "version"),
        "versions that are not yanked any more",
        _as_it_is("package", "version"),
        _package,
    ),
    Change(
        "LOGBUILD", "log_build", ("build",), "builds and their files", _log_build, _build, _output
    ),
    Change(
        "DELBUILD",
        "delete_build",
        ("package", "version"),
        "deleted builds",
        _as_it_is("package", "version"),
        _package,
    ),
    # Downloads need no order, so nothing waits for them.
    Change(DOWNLOAD, "log_download", ("download",), "downloads", _log_download, _nothing),
)
"""Every request that changes what the index knows."""

OTHERS = frozenset(
    "ALLPKGS ALLVERS GETABIS GETPKGNAMES GETPYPI GETSEARCH GETSKIP GETSTATS INITSTATS LOADRWP"
    " LOGJSON LOGPAGE LOGPROJECT LOGSEARCH PKGDELETED PKGEXISTS PKGFILES PROJDATA SAVERWP SETPYPI"
    " VEREXISTS VERFILES VERSDELETED".split()
)
"""All other requests: they only read, or change what the index does not contain."""
