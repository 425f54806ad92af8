"""Turns the published documents of a piwheels site into messages, for users without other sources.

Source: https://www.piwheels.org/json.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from voluptuous import Invalid

from ...base import printable, times
from ...base.errors import DecodeError, UsageError
from ...messages.types import Message
from ...schema import piwheels as schema
from ...schema.messages import Nullable, boolean, integer, text
from .. import translate

DOCUMENT = "index.json"


def _released(value: Any) -> times.Time:
    """`2026-11-22 14:00:00`, UTC; without a time it is 1970."""
    if not text(value):
        return 0
    try:
        return times.parse_rfc3339(f"{value}+00:00")
    except ValueError as error:
        raise Invalid(str(error)) from None


_FILE = schema.Keys(
    {
        "file_url": text,
        "filehash": text,
        "filesize": integer,
        "builder_abi": text,
        "file_abi_tag": text,
        "platform": text,
        "requires_python": Nullable(text),
        "apt_dependencies": schema.ListOf(text),
        "pip_dependencies": schema.ListOf(text),
    }
)
_PROJECT = schema.Keys(
    {
        "package": text,
        "summary": text,
        "releases": schema.MapOf(
            text,
            schema.Keys(
                {
                    "released": _released,
                    "yanked": boolean,
                    "skip_reason": text,
                    "files": schema.MapOf(text, _FILE),
                }
            ),
        ),
    }
)
_COUNTERS = schema.ListOf(schema.Fields(package=text, recent=integer, all=integer))


def packages(site: Path) -> list[Path]:
    """The documents of a site, sorted.

    Raises:
        UsageError: if it is not a site of piwheels.
    """
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
    """The other spellings of package names, which are links."""
    names: dict[str, list[str]] = {}
    for path in sorted((site / "project").iterdir()):
        # Spellings of names are always UTF-8.
        if path.is_symlink() and path.name == printable.utf8(path.name):
            names.setdefault(path.readlink().name, []).append(path.name)
    return names


def snapshot(document: bytes, spellings: list[str], at: times.Time) -> Message:
    """The SNAPSHOT of a package's document.

    Only newer documents say how builds without files ended, and which build made a file.

    Raises:
        DecodeError: if it is not such a document.
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
    name = content.get("name")
    display = name if isinstance(name, str) and name else project["package"]
    return translate.message(
        "SNAPSHOT",
        at,
        {
            "package": project["package"],
            "name": display,
            "description": project["summary"],
            "aliases": sorted({*spellings} - {project["package"], display}),
            "releases": releases,
        },
    )


def _file(file: dict[str, Any]) -> dict[str, Any]:
    return {
        "filesize": file["filesize"],
        "filehash": file["filehash"],
        "location": file["file_url"].rpartition("/")[0].rpartition("/")[0],
        "platform_tag": file["platform"],
        "abi_tag": file["file_abi_tag"],
        "builder_abi": file["builder_abi"],
        "requires_python": file["requires_python"],
        "apt_dependencies": file["apt_dependencies"],
        "pip_dependencies": file["pip_dependencies"],
    }


def _abis(abis: Any) -> dict[str, Any]:
    """The status of builds, if the document has it."""
    if not isinstance(abis, dict):
        return {}
    return {
        abi: {"status": fields.get("status"), "build_id": fields.get("build_id")}
        for abi, fields in abis.items()
        if isinstance(fields, dict)
    }


def counters(document: bytes, at: times.Time) -> Iterator[Message]:
    """The DOWNLOADS of every row of packages.json.

    Raises:
        DecodeError: if it is not such a document.
    """
    for row in translate.checked(_COUNTERS, _json(document), "packages.json"):
        yield translate.downloads(row["package"], row["recent"], row["all"], at)


def _json(document: bytes) -> Any:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise DecodeError("", f"is not JSON: {error}") from None
