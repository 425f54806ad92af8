"""project/<package>/json/index.json: all about a package. The same rows give the same bytes.

Source: docs/documents.md and https://www.piwheels.org/json.html
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson
from packaging.version import InvalidVersion, Version

from ..index.fits import admits
from ..index.queries import Abis
from ..index.queries import Project as Rows
from .kind import Package, PackageDocument

PYPI_URL = "https://pypi.org/project/"

_FITTING = itemgetter(0, 8, 9, 11)
"""What decides whether a file fits: its version, py_version_tag, abi_tag and requires_python."""

_NOTHING: frozenset[str] = frozenset()
_PENDING = {"status": "pending", "build_id": None, "duration": None, "log_url": None}


@lru_cache(maxsize=16_384)
def version_order(version: str) -> tuple[int, Any, str]:
    """Sorts versions: PEP 440 above all others; equal ones, and the others, as text."""
    try:
        return 1, Version(version), version
    except InvalidVersion:
        return 0, version, version


def same_version(one: str, other: str) -> bool:
    """True if two versions are the same text, or compare equal, as `1.0` and `1.0.0`."""
    return version_order(one)[:2] == version_order(other)[:2]


def log_url(build_id: int) -> str:
    """Where the log of a build is: its number in base 10,000."""
    high, low = divmod(build_id, 10_000)
    higher, high = divmod(high, 10_000)
    return f"/logs/{higher:04d}/{high:04d}/{low:04d}.txt.gz"


class Project(PackageDocument):
    """The kind; other spellings of a package's name are links in `project/`."""

    name = "project"
    root = "project"
    file = "json/index.json"
    linked = True

    def render(self, package: Package) -> bytes:
        """The document of a package."""
        return render(package.rows, package.moment.abis, package.moment.site_url)


def attempt(
    build_id: int,
    version: str,
    abi_tag: str,
    status: int,
    duration: float | None,
    built_at: str | None,
    slave_id: int | None,
    category: str | None,
    detail: str | None,
) -> dict[str, Any]:
    """What documents say of a row of `Rows.builds`, under its version."""
    return {
        "build_id": build_id,
        "abi": abi_tag,
        "status": "success" if status else "fail",
        "built_at": built_at,
        "duration": duration,
        "slave_id": slave_id,
        "log_url": log_url(build_id),
        "failure": category and {"category": category, "detail": detail},
    }


def waiting(rows: Rows, abis: Abis) -> dict[str, int]:
    """How many versions its document says are `pending`, by ABI; those with none are left out."""
    if rows.skip:
        return {}
    decided = {(version, abi_tag) for _, version, abi_tag, *_ in rows.builds}
    for version, py_version_tag, abi_tag, requires_python in set(map(_FITTING, rows.files)):
        for build_abi in abis.fits.get((py_version_tag, abi_tag), ()):
            if admits(requires_python, build_abi):
                decided.add((version, build_abi))
    wanted = {version for version, _, skip, _ in rows.versions if not skip}
    done = Counter(abi for version, abi in decided if version in wanted)
    counts = {abi: len(wanted) - done[abi] for abi in abis.active}
    return {abi: count for abi, count in counts.items() if count}


def render(rows: Rows, abis: Abis, site_url: str) -> bytes:
    """The document of a package.

    Args:
        rows: of the package.
        abis: the build ABIs.
        site_url: without a slash at its end.
    """
    # Best fit of every (version, abi): (rank, built elsewhere, -build_id, duration)
    fitting: dict[tuple[str, str], tuple[int, bool, int, float | None]] = {}
    platforms: dict[tuple[str, str], set[str]] = {}
    # Latest attempt of every (version, abi): (build_id, status, duration)
    attempts: dict[tuple[str, str], tuple[int, int, float | None]] = {}
    builds: dict[str, list[dict[str, Any]]] = {}
    for build in sorted(rows.builds, reverse=True):  # by build_id
        build_id, version, abi_tag, status, duration, *_ = build
        attempts.setdefault((version, abi_tag), (build_id, status, duration))
        if build_id > 0:
            builds.setdefault(version, []).append(attempt(*build))
    dependencies: dict[tuple[str, str], list[str]] = {}
    for filename, tool, dependency in rows.dependencies:
        dependencies.setdefault((filename, tool), []).append(dependency)
    earlier: dict[str, list[dict[str, Any]]] = {}
    for filename, filehash, filesize, first_build, first_built_at in rows.contents:
        earlier.setdefault(filename, []).append(
            {
                "filehash": filehash,
                "filesize": filesize,
                "build_id": first_build,
                "built_at": first_built_at,
            }
        )
    files: dict[str, dict[str, Any]] = {}
    for (
        version,
        builder_abi,
        duration,
        built_at,
        build_id,
        filename,
        filesize,
        filehash,
        py_version_tag,
        abi_tag,
        platform_tag,
        requires_python,
        location,
    ) in sorted(rows.files, key=itemgetter(5)):  # by filename
        for build_abi, rank in abis.fits.get((py_version_tag, abi_tag), {}).items():
            if not admits(requires_python, build_abi):
                continue
            key = version, build_abi
            platforms.setdefault(key, set()).add(platform_tag)
            fit = rank, builder_abi != build_abi, -build_id, duration
            best = fitting.get(key)
            if best is None or fit[:3] < best[:3]:
                fitting[key] = fit
        apt = dependencies.get((filename, "apt"))
        if apt:
            preinstalled = abis.preinstalled.get(abi_tag, _NOTHING)
            apt = sorted(name for name in apt if name not in preinstalled)
        files.setdefault(version, {})[filename] = {
            "file_url": f"{location}/{rows.package}/{filename}",
            "filehash": filehash,
            "filesize": filesize,
            "builder_abi": builder_abi,
            "file_abi_tag": abi_tag,
            "platform": platform_tag,
            "requires_python": requires_python,
            "apt_dependencies": apt or [],
            "pip_dependencies": sorted(dependencies.get((filename, "pip"), ())),
            "build_duration": duration,
            "build_id": build_id if build_id > 0 else None,
            "built_at": built_at,
            "earlier": earlier.get(filename, []),
        }
    releases = {}
    order = sorted([version_order(row[0]) + row[1:] for row in rows.versions], reverse=True)
    for valid, parsed, version, released, skip, yanked in order:
        skip = skip or rows.skip
        releases[version] = {
            "released": released,
            "prerelease": bool(valid and parsed.is_prerelease),
            "yanked": bool(yanked),
            "skip_reason": skip,
            "abis": {
                abi: {
                    **_build_status(
                        skip, fitting.get((version, abi)), attempts.get((version, abi))
                    ),
                    "platforms": sorted(platforms.get((version, abi), ())),
                }
                for abi in abis.active
            },
            "files": files.get(version, {}),
            "builds": builds.get(version, []),
        }
    return orjson.dumps(
        {
            "package": rows.package,
            "name": rows.name,
            "summary": rows.description,
            "pypi_url": PYPI_URL + rows.package,
            "piwheels_url": f"{site_url}/project/{rows.package}",
            "releases": releases,
        }
    )


def _build_status(
    skip: str,
    fit: tuple[int, bool, int, float | None] | None,
    attempt: tuple[int, int, float | None] | None,
) -> dict[str, Any]:
    """The status of a version on an ABI, and the build that decided it."""
    if fit is not None:
        status, build_id, duration = "success", -fit[2], fit[3]
    elif attempt is not None:
        build_id, succeeded, duration = attempt
        status = "error" if succeeded else "fail"
    elif skip:
        return {**_PENDING, "status": "skip"}
    else:
        return _PENDING
    known = build_id > 0
    return {
        "status": "skip" if skip else status,
        "build_id": build_id if known else None,
        "duration": duration,
        "log_url": log_url(build_id) if known else None,
    }
