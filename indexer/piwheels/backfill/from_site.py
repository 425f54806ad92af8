"""Turns the published documents of a piwheels site into messages, for users without other sources.

A page is rewritten only when its package changes, so the documents of a site are of any age: fields
that piwheels added later may be missing, and rows of packages.json may have more columns.

Source: https://www.piwheels.org/json.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from voluptuous import Invalid

from ...base import names, printable, times
from ...base.errors import DecodeError, UsageError
from ...messages.types import Message
from ...schema import piwheels as schema
from ...schema.messages import Nullable, Validator, boolean, integer, text
from .. import translate

DOCUMENT = "index.json"
COUNTERS = "packages.json"


def _released(value: Any) -> times.Time:
    """`2026-11-22 14:00:00`, UTC; without a time it is 1970."""
    if not text(value):
        return 0
    try:
        return times.parse_rfc3339(f"{value}+00:00")
    except ValueError as error:
        raise Invalid(str(error)) from None


def _of_any_age(fields: dict[str, Validator], later: dict[str, Any]) -> Validator:
    """A map with these keys; those in `later` may be missing or null, and have their value then."""
    keys = schema.Keys(fields)

    def validate(value: Any) -> Any:
        if type(value) is not dict:
            return keys(value)
        there = {name: one for name, one in value.items() if one is not None or name not in later}
        return keys({**later, **there})

    return validate


_FILE = _of_any_age(
    {
        "file_url": Nullable(text),
        "filehash": text,
        "filesize": integer,
        "builder_abi": text,
        "file_abi_tag": text,
        "platform": text,
        "requires_python": Nullable(text),
        "apt_dependencies": schema.ListOf(text),
        "pip_dependencies": schema.ListOf(text),
    },
    {"file_url": None, "requires_python": None, "apt_dependencies": [], "pip_dependencies": []},
)
_RELEASE = _of_any_age(
    {
        "released": _released,
        "yanked": boolean,
        "skip_reason": text,
        "files": schema.MapOf(text, _FILE),
    },
    {"yanked": False, "skip_reason": ""},
)
_PROJECT = _of_any_age(
    {"package": text, "summary": text, "releases": schema.MapOf(text, _RELEASE)}, {"summary": ""}
)
_COUNTERS = schema.Fields(package=text, recent=integer, all=integer)


def packages(site: Path) -> list[Path]:
    """The documents of a site, sorted; raises UsageError if it is not a site of piwheels."""
    project = site / "project"
    if not project.is_dir():
        raise UsageError(
            f"read the site {site}", "it has no directory `project`", "give the root of a site"
        )
    return sorted(
        path / "json" / DOCUMENT
        for path in project.iterdir()
        if not path.is_symlink() and (path / "json" / DOCUMENT).is_file()
    )


def aliases(site: Path) -> dict[str, list[str]]:
    """The other spellings of package names, which are links; the one that was made last at the end.

    Of spellings that a master has, it makes the links when it first writes a page with them.
    """
    found: list[tuple[int, str, str]] = []
    for path in (site / "project").iterdir():
        # Spellings of names are always UTF-8.
        if path.is_symlink() and path.name == printable.utf8(path.name):
            found.append((path.lstat().st_mtime_ns, path.name, path.readlink().name))
    spellings: dict[str, list[str]] = {}
    for _, name, package in sorted(found):
        spellings.setdefault(package, []).append(name)
    return spellings


def snapshot(document: bytes, spellings: list[str], at: times.Time) -> Message:
    """The SNAPSHOT of a package's document.

    Only newer documents say how builds without files ended, which build made a file, and how the
    package is spelled. A master's own says none of that: the spelling is that of the newest link.

    Args:
        spellings: the names of links to the package, the newest last.

    Raises DecodeError if it is not such a document.
    """
    content = _json(document)
    project = translate.checked(_PROJECT, content, "document")
    releases = {
        version: {
            "released": release["released"],
            "skip": release["skip_reason"],
            "yanked": release["yanked"],
            "abis": _abis(content["releases"][version].get("abis")),
            "files": {name: _file(file) for name, file in release["files"].items()},
        }
        for version, release in project["releases"].items()
    }
    package = project["package"]
    name = content.get("name")
    if not (isinstance(name, str) and name):
        of_it = [package, *(other for other in spellings if names.canonical(other) == package)]
        name = of_it[-1]
    return translate.message(
        "SNAPSHOT",
        at,
        {
            "package": package,
            "name": name,
            "description": project["summary"],
            "aliases": sorted({*spellings} - {package, name}),
            "releases": releases,
        },
    )


def _file(file: dict[str, Any]) -> dict[str, Any]:
    return {
        "filesize": file["filesize"],
        "filehash": file["filehash"],
        "location": _location(file["file_url"]),
        "platform_tag": file["platform"],
        "abi_tag": file["file_abi_tag"],
        "builder_abi": file["builder_abi"],
        "requires_python": file["requires_python"],
        "apt_dependencies": file["apt_dependencies"],
        "pip_dependencies": file["pip_dependencies"],
    }


def _location(file_url: str | None) -> str:
    return "/simple" if file_url is None else file_url.rpartition("/")[0].rpartition("/")[0]


def _abis(abis: Any) -> dict[str, Any]:
    """The status of builds, if the document has it."""
    if not isinstance(abis, dict):
        return {}
    return {
        abi: {"status": fields.get("status"), "build_id": fields.get("build_id")}
        for abi, fields in abis.items()
        if isinstance(fields, dict)
    }


def rows(document: bytes) -> list[Any]:
    """The rows of packages.json; each may be anything.

    Raises DecodeError if it is not a list.
    """
    found: list[Any] = translate.checked(schema.ListOf(lambda row: row), _json(document), COUNTERS)
    return found


def counters(row: Any, number: int, at: times.Time) -> Message:
    """The DOWNLOADS of a row of packages.json; columns after the third are ignored.

    Raises DecodeError if it is not such a row.
    """
    columns = row[: len(_COUNTERS.fields)] if isinstance(row, list) else row
    found = translate.checked(_COUNTERS, columns, f"{COUNTERS}[{number}]")
    return translate.downloads(found["package"], found["recent"], found["all"], at)


def _json(document: bytes) -> Any:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise DecodeError("", f"is not JSON: {error}") from None
