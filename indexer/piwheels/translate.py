"""Translates messages and answers of piwheels into ours, and validates them.

Pure. If one is not valid, `DecodeError` says where.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from voluptuous import Invalid

from ..base.errors import DecodeError
from ..base.times import DAY, EARLIEST, HOUR, LATEST, SECOND, WINDOW_DAYS, Time, to_rfc3339
from ..messages import decode
from ..messages.types import Message
from ..schema import piwheels as schema


def _kept(value: Any) -> Time:
    """A time that is already in microseconds since 1970."""
    if type(value) is not int:
        raise Invalid("expected a time")
    if not EARLIEST <= value <= LATEST:
        raise Invalid("lies outside the years 1 to 9999 UTC")
    return value


_ENCODING = decode.Encoding(_kept)


def checked(validator: Callable[[Any], Any], value: Any, path: str = "data") -> Any:
    """A value that a schema of piwheels describes, with its fields by name.

    Raises DecodeError if it does not fit.
    """
    try:
        return validator(value)
    except Invalid as error:
        where = path + "".join(f".{part}" for part in error.path)
        raise DecodeError(where, str(error.error_message)) from None
    except RecursionError:
        raise DecodeError(path, "is nested too deeply") from None


def message(name: str, at: Time, data: dict[str, Any]) -> Message:
    """A message of ours; its times are microseconds since 1970.

    Raises DecodeError if it is not valid.
    """
    return _ENCODING.message({"msg": name, "at": at, "data": data}, at)


def download(data: Any, at: Time) -> Message:
    """LOGDOWNLOAD as piwheels' logger pushes it; the host is dropped.

    Raises DecodeError if it is something else.
    """
    fields = checked(schema.DOWNLOAD, data)
    del fields["host"]
    return message("LOGDOWNLOAD", at, fields)


def is_unknown(project: Any) -> bool:
    """Whether an answer to PROJDATA says that there is no such package."""
    # Even for a package without names, the master has a description.
    return isinstance(project, dict) and project.get("description", "") is None


class EndedBuild(NamedTuple):
    """What the status feed told of a build that has ended; times are the master's.

    Attributes:
        version: of the package.
        abi_tag: of the slave; '' if not known.
        slave_id: the slave's number.
        outcome: success, fail or unknown.
        began: None if that was not heard.
        ended: when its end was heard.
    """

    version: str
    abi_tag: str
    slave_id: int
    outcome: str
    began: Time | None
    ended: Time


def snapshot(
    package: str,
    project: Any,
    names: Any,
    at: Time,
    ended: Iterable[EndedBuild] = (),
    timed: Collection[int] = (),
) -> Message:
    """The SNAPSHOT of a package: the answers to PROJDATA and GETPKGNAMES.

    Args:
        project: the answer to PROJDATA.
        names: the answer to GETPKGNAMES.
        at: when the master was asked.
        ended: builds of the package that the status feed showed to end before, the latest last. It
            tells their slave, end and duration, which the master does not.
        timed: numbers of builds whose end is known already, and better.

    Raises DecodeError if they are not such answers, or a name in them is unsafe.
    """
    answer = checked(schema.PROJECT, project, "PROJDATA")
    spellings = checked(schema.NAMES, names, "GETPKGNAMES")
    releases = {
        version: {
            "released": release["released"],
            "skip": release["skip"],
            "yanked": release["yanked"],
            "abis": release["abis"],
            "files": {name: _file(file) for name, file in release["files"].items()},
        }
        for version, release in answer["releases"].items()
    }
    for build in ended:
        add_details(releases, build, timed)
    name = answer["name"] or package  # a master that was killed may have a package without names
    data = {
        "package": package,
        "name": name,
        "description": answer["description"],
        "aliases": sorted({*spellings} - {package, name}),
        "releases": releases,
    }
    return message("SNAPSHOT", at, data)


def add_details(
    releases: dict[str, dict[str, Any]], build: EndedBuild, timed: Collection[int]
) -> None:
    """Add what the status feed told of a build to the attempt that it was, if the answer has it.

    It is the attempt on that ABI, unless it ended otherwise, or its end is known already.
    """
    abis = releases.get(build.version, {}).get("abis", {})
    attempt = abis.get(build.abi_tag)
    if attempt is None or attempt["build_id"] is None or attempt["build_id"] in timed:
        return
    ends: dict[str, tuple[str, ...]] = {"success": ("fail",), "fail": ("success", "error")}
    if attempt["status"] in ends.get(build.outcome, ()):
        return  # it is another build
    attempt["slave_id"] = build.slave_id
    attempt["built_at"] = build.ended
    if build.began is not None and build.outcome != "unknown":
        attempt["duration"] = max(0, build.ended - build.began) / SECOND


def _file(file: dict[str, Any]) -> dict[str, Any]:
    return {
        "filesize": file["size"],
        "filehash": file["hash"],
        "location": file["location"],
        "platform_tag": file["platform"],
        "abi_tag": file["abi_file"],
        "builder_abi": file["abi_builder"],
        "requires_python": file["requires_python"],
        "apt_dependencies": file["apt_dependencies"],
        "pip_dependencies": file["pip_dependencies"],
    }


def set_abis(
    active: Iterable[str],
    every: Iterable[str],
    skips: Mapping[str, str],
    preinstalled: Mapping[str, Iterable[str]],
    at: Time,
) -> Message:
    """SETABIS from the two answers to GETABIS, which contain neither reasons nor apt packages.

    Args:
        active: the ABIs that are built for.
        every: those and the skipped ones.
        skips: why each is skipped, as far as known.
        preinstalled: the apt packages of each, as far as known.
        at: when the master was asked.

    Raises DecodeError if one is not a CPython ABI tag.
    """
    built_for = {*active}
    abis = {
        abi: "" if abi in built_for else skips.get(abi, "") or "not built for any more"
        for abi in sorted({*every} | built_for)
    }
    installed = {abi: [*preinstalled.get(abi, ())] for abi in abis if abi in preinstalled}
    return message("SETABIS", at, {"build_abis": abis, "preinstalled_apt_packages": installed})


def delete_package(package: str, at: Time) -> Message:
    """DELPKG of a package that a master does not have any more.

    Raises DecodeError if the name is unsafe.
    """
    return message("DELPKG", at, {"package": package})


def downloads(package: str, recent: int, ever: int, at: Time) -> Message:
    """DOWNLOADS from two sums, of the last 30 days and ever.

    The recent downloads are spread evenly over the 30 days, so that the sum is right now and fades
    as the window moves.

    Raises DecodeError if the name is unsafe, or a number is too large.
    """
    each, rest = divmod(min(recent, ever), WINDOW_DAYS)
    today = at // DAY * DAY
    if today + 12 * HOUR > at:
        today -= DAY  # noons that have been
    hours = {}
    for number in range(WINDOW_DAYS):
        count = each + (number < rest)
        if count:
            noon = today - number * DAY + 12 * HOUR
            hours[to_rfc3339(noon // HOUR * HOUR)] = count
    return message("DOWNLOADS", at, {"package": package, "all": ever, "hours": hours})
