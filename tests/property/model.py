"""A naive reading of the design: plain dicts, everything worked out anew for every document.

Written from docs/messages.md and docs/documents.md, not from the code; slow and obvious.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SITE = "https://www.piwheels.org"


@dataclass(eq=False)
class Build:
    package: str
    version: str
    abi: str
    succeeded: bool
    number: int | None  # None: a snapshot did not tell it
    slave: int | None = None
    at: str | None = None
    duration: float | None = None
    failure: dict[str, str] | None = None


@dataclass
class File:
    build: Build
    size: int
    sha256: str
    python_tag: str
    abi_tag: str
    platform: str
    requires_python: str | None
    location: str
    apt: set[str]
    pip: set[str]

    def rank(self, abi: str) -> int | None:
        """How well it fits; None: it does not."""
        return (
            fit(self.python_tag, self.abi_tag, abi) if admits(self.requires_python, abi) else None
        )


@dataclass
class Version_:
    released: datetime
    skip: str
    yanked: bool = False


@dataclass
class Package:
    skip: str = ""
    description: str = ""
    versions: dict[str, Version_] = field(default_factory=dict)


class Model:
    """What is known after some messages."""

    def __init__(self) -> None:
        self.packages: dict[str, Package] = {}
        self.names: dict[str, tuple[str, datetime]] = {}  # spelling: whose, when seen
        self.builds: list[Build] = []
        self.files: dict[str, File] = {}
        self.left: dict[str, dict[str, Any]] = {}  # contents by filename, then by hash
        self.abis: dict[str, str] = {}
        self.preinstalled: dict[str, list[str]] = {}
        self.hours: dict[str, dict[datetime, int]] = {}
        self.ever: dict[str, int] = {}
        self.no_wheels = 0

    def apply(self, message: dict[str, Any]) -> None:
        at = datetime.fromisoformat(message["at"])
        getattr(self, "on_" + message["msg"].lower())(at, **message["data"])

    # Messages

    def on_setabis(self, at: datetime, build_abis: Any, preinstalled_apt_packages: Any) -> None:
        self.abis, self.preinstalled = build_abis, preinstalled_apt_packages

    def on_newpkg(self, at: datetime, package: str, skip: str = "", description: str = "") -> None:
        self.packages.setdefault(package, Package(skip, description))

    def on_newpkgname(self, at: datetime, package: str, name: str, seen: str | None) -> None:
        self.packages.setdefault(package, Package())
        owner, _ = self.names.get(name, (package, EPOCH))
        self.names[name] = owner, EPOCH if seen is None else datetime.fromisoformat(seen)

    def on_setdesc(self, at: datetime, package: str, description: str) -> None:
        if package in self.packages:
            self.packages[package].description = description

    def on_skippkg(self, at: datetime, package: str, reason: str) -> None:
        if package in self.packages:
            self.packages[package].skip = reason

    def on_delpkg(self, at: datetime, package: str) -> None:
        if package in self.packages:
            self._clear(package)
            del self.packages[package]

    def _clear(self, package: str) -> None:
        self._forget_names(package)
        for version in list(self.packages[package].versions):
            self.on_delver(EPOCH, package, version)

    def _forget_names(self, package: str) -> None:
        for name in [name for name, (owner, _) in self.names.items() if owner == package]:
            del self.names[name]

    def on_newver(
        self, at: datetime, package: str, version: str, released: str | None, skip: str = ""
    ) -> None:
        self.packages.setdefault(package, Package())
        when = at if released is None else datetime.fromisoformat(released)
        self.packages[package].versions.setdefault(version, Version_(when, skip))

    def _version(self, package: str, version: str) -> Version_ | None:
        found = self.packages.get(package)
        return found.versions.get(version) if found is not None else None

    def on_skipver(self, at: datetime, package: str, version: str, reason: str) -> None:
        found = self._version(package, version)
        if found is not None:
            found.skip = reason

    def on_yankver(self, at: datetime, package: str, version: str, yanked: bool = True) -> None:
        found = self._version(package, version)
        if found is not None:
            found.yanked = yanked

    def on_unyankver(self, at: datetime, package: str, version: str) -> None:
        self.on_yankver(at, package, version, yanked=False)

    def on_delver(self, at: datetime, package: str, version: str) -> None:
        if self._version(package, version) is not None:
            self.on_delbuild(at, package, version)
            del self.packages[package].versions[version]

    def on_delbuild(self, at: datetime, package: str, version: str) -> None:
        for build in list(self.builds):
            if (build.package, build.version) == (package, version):
                self._drop(build)

    def _drop(self, build: Build) -> None:
        self.builds.remove(build)
        for name in [name for name, file in self.files.items() if file.build is build]:
            self._leave(name)

    def _leave(self, name: str) -> None:
        """A file leaves its build; what it held is remembered, with the first of its builds."""
        file = self.files.pop(name, None)
        if file is not None:
            content = {
                "filehash": file.sha256,
                "filesize": file.size,
                "build_id": file.build.number,
                "built_at": file.build.at,
            }
            self.left.setdefault(name, {}).setdefault(file.sha256, content)

    def _record(self, build: Build) -> None:
        for other in list(self.builds):
            if build.number is not None and other.number == build.number:
                self._drop(other)
        self.builds.append(build)

    def on_logbuild(
        self,
        at: datetime,
        build_id: int,
        slave_id: int,
        package: str,
        version: str,
        abi_tag: str,
        status: bool,
        duration: float,
        files: list[dict[str, Any]],
        failure: dict[str, str] | None = None,
    ) -> None:
        self.on_newver(at, package, version, None)
        build = Build(package, version, abi_tag, status, build_id)
        build.slave, build.at, build.duration = slave_id, sql(at), float(duration)
        build.failure = reason(failure) if failure is not None and not status else None
        self._record(build)
        last = {file["filename"]: file for file in files}
        for name, file in last.items() if status else ():
            self._leave(name)
            self.files[name] = File(
                build,
                file["filesize"],
                file["filehash"],
                file["py_version_tag"],
                file["abi_tag"],
                file["platform_tag"],
                file["requires_python"],
                file.get("location", "/simple"),
                set(file["dependencies"].get("apt", ())),
                set(file["dependencies"].get("pip", ())),
            )

    def on_failure(self, at: datetime, build_id: int, failure: dict[str, str]) -> None:
        for build in self.builds:
            if build.number == build_id and not build.succeeded:
                build.failure = reason(failure)

    def on_movefiles(self, at: datetime, package: str, files: dict[str, str]) -> None:
        for name, location in files.items():
            if name in self.files and self.files[name].build.package == package:
                self.files[name].location = location

    def on_logdownload(
        self, at: datetime, filename: str, accessed_at: str, **client: str | None
    ) -> None:
        package = None
        if filename in self.files:
            package = self.files[filename].build.package
        elif filename.endswith(".whl") and filename.count("-") in (4, 5):
            name = re.sub("[-_.]+", "-", filename.split("-")[0]).lower()
            package = name if re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) else None
        if package is None:
            self.no_wheels += 1
            return
        hour = datetime.fromisoformat(accessed_at).replace(minute=0, second=0, microsecond=0)
        hours = self.hours.setdefault(package, {})
        hours[hour] = hours.get(hour, 0) + 1
        self.ever[package] = self.ever.get(package, 0) + 1

    def on_downloads(self, at: datetime, package: str, all: int, hours: dict[str, int]) -> None:
        if package not in self.packages:
            return
        self.ever[package] = all
        self.hours[package] = {datetime.fromisoformat(hour): n for hour, n in hours.items()}

    def on_snapshot(
        self,
        at: datetime,
        package: str,
        name: str,
        description: str,
        aliases: list[str],
        releases: dict[str, Any],
    ) -> None:
        known = self.packages.setdefault(package, Package())
        known.skip, known.description = "", description
        self._forget_names(package)
        for spelling in {*aliases, package, name}:
            if spelling not in self.names:
                self.names[spelling] = package, at if spelling == name else EPOCH
        for version in known.versions.keys() - releases.keys():
            self.on_delver(at, package, version)
        for version, release in releases.items():
            known.versions[version] = Version_(
                datetime.fromisoformat(release["released"]), release["skip"], release["yanked"]
            )
        # A number stands for one build: the first one that it is told for.
        taken: dict[int, tuple[str, str]] = {}
        made = {
            version: self._makers(package, version, release, taken)
            for version, release in releases.items()
        }
        # Of several versions that name a file, the last one has it.
        last = {name: version for version, makers in made.items() for name in makers}
        as_before = {
            name
            for version, makers in made.items()
            for name, (build, file) in makers.items()
            if last[name] == version
            and (old := self.files.get(name)) is not None
            and (old.build.package, old.build.version) == (build.package, build.version)
            and (old.build.abi, old.sha256) == (build.abi, file.sha256)
            # What stood for a build whose number is now told is that build.
            and (old.build is build or old.build.number is None)
        }
        for name in [name for name, file in self.files.items() if file.build.package == package]:
            if name not in as_before:
                self._leave(name)
        for version, release in releases.items():
            for name, (build, file) in made[version].items():
                self._have(build, release["abis"])
                build.succeeded, build.failure = True, None
                if last[name] != version:
                    continue
                if name not in as_before:
                    self._leave(name)
                self.files[name] = file
            self._attempts(package, version, release, taken)
        with_files = [file.build for file in self.files.values()]
        for build in list(self.builds):
            if build.package == package and build.number is None and build not in with_files:
                self.builds.remove(build)

    def _makers(
        self, package: str, version: str, release: dict[str, Any], taken: dict[int, Any]
    ) -> dict[str, tuple[Build, File]]:
        """The files of a release, and the builds that made them as far as anybody can tell.

        One of the same content stays with its build. Others are of the build that is told for
        their builder, or of one without a number. If a build is told that nobody heard of, and none
        of its builder's files is new, it has made them again.
        """
        found = {}
        builders = {file["builder_abi"] for file in release["files"].values()}
        for abi in sorted(builders):
            here = version, abi
            files = {
                name: snapshot_file(name, file)
                for name, file in release["files"].items()
                if file["builder_abi"] == abi
            }
            number = told_number(abi, release["abis"], files.values(), builders)
            if number is not None and taken.get(number, here) != here:
                number = None
            old = {}
            for name, file in files.items():
                before = self.files.get(name)
                if before is None or before.sha256 != file.sha256:
                    continue
                build = before.build
                if (build.package, build.version, build.abi) != (package, version, abi):
                    continue
                if build.number is None:
                    stays = number is None
                else:
                    stays = taken.get(build.number, here) == here
                if stays:
                    old[name] = build
            heard_of = any(
                (build.package, build.version, build.number) == (package, version, number)
                for build in self.builds
            )
            if number is not None and not heard_of and len(old) == len(files):
                old = {}
            new = self._build(package, version, abi, number, succeeded=True)
            for name, file in files.items():
                file.build = old.get(name, new)
                if file.build.number is not None:
                    taken[file.build.number] = here
                found[name] = file.build, file
        return found

    def _build(
        self, package: str, version: str, abi: str, number: int | None, *, succeeded: bool
    ) -> Build:
        for build in self.builds:
            same = (build.package, build.version, build.abi) == (package, version, abi)
            if same and number is not None and build.number == number:
                return build
        return Build(package, version, abi, succeeded, number)

    def _attempts(
        self, package: str, version: str, release: dict[str, Any], taken: dict[int, Any]
    ) -> None:
        """The attempts of a release that have no files in a snapshot."""
        files = [snapshot_file(name, file) for name, file in release["files"].items()]
        for abi, about in release["abis"].items():
            number = about["build_id"]
            if number is None or number in taken:
                continue
            # Whoever says that all is well, and there is no file for it, means another ABI.
            if about["status"] == "success" and all(file.rank(abi) is None for file in files):
                continue
            taken[number] = version, abi
            well = about["status"] in ("success", "error")
            build = self._build(package, version, abi, number, succeeded=well)
            # Of other attempts it is not told how they ended, and they are left out.
            if build in self.builds or about["status"] in ("success", "error", "fail"):
                self._have(build, release["abis"])

    def _have(self, build: Build, abis: dict[str, Any]) -> None:
        """A build that a snapshot names or has files of; what it does not tell stays."""
        if build not in self.builds:
            self._record(build)
        for about in abis.values():
            if build.number is not None and about["build_id"] == build.number:
                if about.get("slave_id") is not None:
                    build.slave = about["slave_id"]
                if about.get("built_at") is not None:
                    build.at = sql(datetime.fromisoformat(about["built_at"]))
                if about.get("duration") is not None:
                    build.duration = float(about["duration"])
                return

    # Documents

    def display_name(self, package: str) -> str:
        spellings = [(seen, name) for name, (owner, seen) in self.names.items() if owner == package]
        return max(spellings)[1] if spellings else package

    def links(self) -> dict[str, str]:
        """What every link in project/ points to."""
        return {name: owner for name, (owner, _) in self.names.items() if name not in self.packages}

    def document(self, package: str) -> bytes:
        """project/<package>/json/index.json"""
        known = self.packages[package]
        releases = {}
        for version in sorted(known.versions, key=version_order, reverse=True):
            about = known.versions[version]
            skip = about.skip or known.skip
            releases[version] = {
                "released": sql(about.released),
                "prerelease": is_prerelease(version),
                "yanked": about.yanked,
                "skip_reason": skip,
                "abis": {
                    abi: self._status(package, version, abi, skip)
                    for abi in sorted(self.abis)
                    if not self.abis[abi]
                },
                "files": {
                    name: self._file(package, name, self.files[name])
                    for name in sorted(self.files)
                    if self._is_of(self.files[name].build, package, version)
                },
                "builds": [
                    {
                        "build_id": build.number,
                        "abi": build.abi,
                        "status": "success" if build.succeeded else "fail",
                        "built_at": build.at,
                        "duration": build.duration,
                        "slave_id": build.slave,
                        "log_url": log_url(build.number),
                        "failure": build.failure,
                    }
                    for build in sorted(self.builds, key=lambda build: -(build.number or 0))
                    if build.number is not None and self._is_of(build, package, version)
                ],
            }
        return orjson.dumps(
            {
                "package": package,
                "name": self.display_name(package),
                "summary": known.description,
                "pypi_url": f"https://pypi.org/project/{package}",
                "piwheels_url": f"{SITE}/project/{package}",
                "releases": releases,
            }
        )

    def _is_of(self, build: Build, package: str, version: str) -> bool:
        return (build.package, build.version) == (package, version)

    def _file(self, package: str, name: str, file: File) -> dict[str, Any]:
        preinstalled = self.preinstalled.get(file.abi_tag, [])
        return {
            "file_url": f"{file.location}/{package}/{name}",
            "filehash": file.sha256,
            "filesize": file.size,
            "builder_abi": file.build.abi,
            "file_abi_tag": file.abi_tag,
            "platform": file.platform,
            "requires_python": file.requires_python,
            "apt_dependencies": sorted(file.apt.difference(preinstalled)),
            "pip_dependencies": sorted(file.pip),
            "build_duration": file.build.duration,
            "build_id": file.build.number,
            "built_at": file.build.at,
            "earlier": [
                content
                for content in reversed(self.left.get(name, {}).values())
                if content["filehash"] != file.sha256
            ],
        }

    def _status(self, package: str, version: str, abi: str, skip: str) -> dict[str, Any]:
        fitting = []
        platforms = set()
        for file in self.files.values():
            rank = file.rank(abi)
            if self._is_of(file.build, package, version) and rank is not None:
                order = -rank, file.build.abi == abi, file.build.number or 0
                fitting.append((order, file.build))
                platforms.add(file.platform)
        attempts = [
            (build.number or 0, build)
            for build in self.builds
            if self._is_of(build, package, version) and build.abi == abi
        ]
        build = None
        status = "pending"
        if fitting:
            status, build = "success", max(fitting, key=lambda found: found[0])[1]
        elif attempts:
            build = max(attempts, key=lambda found: found[0])[1]
            status = "error" if build.succeeded else "fail"
        number = build.number if build is not None else None
        return {
            "status": "skip" if skip else status,
            "build_id": number,
            "duration": build.duration if build is not None else None,
            "log_url": log_url(number),
            "platforms": sorted(platforms),
        }

    def counters(self, now: datetime) -> bytes:
        """packages.json"""
        rows = []
        for package in sorted(self.packages):
            recent = sum(
                count
                for hour, count in self.hours.get(package, {}).items()
                if now - hour < timedelta(days=30)
            )
            rows.append([package, recent, self.ever.get(package, 0)])
        return orjson.dumps(rows)


def version_order(version: str) -> tuple[Any, ...]:
    try:
        return 1, Version(version), version
    except InvalidVersion:
        return 0, version


def is_prerelease(version: str) -> bool:
    try:
        return Version(version).is_prerelease
    except InvalidVersion:
        return False


def reason(failure: dict[str, str]) -> dict[str, str]:
    return {"category": failure["category"], "detail": failure["detail"]}


def sql(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")


def log_url(number: int | None) -> str | None:
    if number is None:
        return None
    digits = f"{number:012d}"
    return f"/logs/{digits[:-8]}/{digits[-8:-4]}/{digits[-4:]}.txt.gz"


def snapshot_file(name: str, file: dict[str, Any]) -> File:
    """A file as a snapshot tells it; whose build it is, the snapshot does not tell."""
    return File(
        Build("", "", "", True, None),
        file["filesize"],
        file["filehash"],
        name.removesuffix(".whl").split("-")[-3],
        file["abi_tag"],
        file["platform_tag"],
        file["requires_python"],
        file["location"],
        set(file["apt_dependencies"]),
        set(file["pip_dependencies"]),
    )


def told_number(
    builder: str, told: dict[str, Any], made: Iterable[File], builders: set[str]
) -> int | None:
    """The number of the build that made a builder's files, as far as a snapshot tells it.

    That of the builder's own ABI. One that is not built for any more has none; then that of an
    ABI which is well because of these files, and has no builder of its own.
    """
    if builder in told:
        well = told[builder]["status"] in ("success", "skip")
        return told[builder]["build_id"] if well else None
    for abi in sorted(told):
        if told[abi]["status"] == "success" and told[abi]["build_id"] and abi not in builders:
            if any(file.rank(abi) is not None for file in made):
                number: int = told[abi]["build_id"]
                return number
    return None


def fit(python: str, file_abi: str, abi: str) -> int | None:
    """0 if the file's own tag is that ABI, 1 for abi3, 2 for none; None: it does not fit."""
    major, minor, flags = re.fullmatch(r"cp(\d)(\d+)([a-z]*)", abi).groups()  # type: ignore[union-attr]
    here = int(major), int(minor)
    file_abis, pythons = file_abi.lower().split("."), python.lower().split(".")
    cpythons = [(int(tag[2]), int(tag[3:])) for tag in pythons if re.fullmatch(r"cp\d\d+", tag)]
    if abi in file_abis:
        return 0
    if "abi3" in file_abis and "t" not in flags and any(other <= here for other in cpythons):
        return 1
    if "none" in file_abis:
        if "py3" in pythons or here in cpythons:
            return 2
        for tag in pythons:
            if re.fullmatch(r"py3\d+", tag) and (3, int(tag[3:])) <= here:
                return 2
    return None


@cache
def admits(requires_python: str | None, abi: str) -> bool:
    """Whether some patch level, 0 to 99, of that Python is good enough."""
    try:
        specifiers = SpecifierSet(requires_python or "")
    except InvalidSpecifier:
        return True
    major, minor = re.fullmatch(r"cp(\d)(\d+)[a-z]*", abi).groups()  # type: ignore[union-attr]
    return any(
        specifiers.contains(f"{major}.{minor}.{patch}", prereleases=True) for patch in range(100)
    )
