"""A simulated piwheels farm of any size: the messages of its life, the same for the same seed.

Each package is computed from the seed and its number. Nothing is expanded in advance, so memory
hardly grows with the farm. Nothing here reads the clock.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

from ..base import names

Message = dict[str, Any]
_Data = dict[str, Any]
_Event = tuple[int, str, _Data]  # milliseconds since 1970, the message's NAME, its data
_Script = Iterator[_Event]  # likewise, but with the milliseconds to wait afterwards

# name | kind of wheel | versions, oldest first | apt packages it links to | description
_WELL_KNOWN = """
numpy|binary|1.19.5 1.26.4 2.0.2 2.2.6 2.3.1 2.3.4|libopenblas0-pthread|Array computing in Python
gpiozero|pure|1.6.2 2.0 2.0.1||A simple interface to GPIO devices with Raspberry Pi
RPi.GPIO|binary|0.6.5 0.7.0 0.7.1a4 0.7.1||A module to control Raspberry Pi GPIO channels
opencv-python|binary|4.5.1.48 4.8.1.78 4.11.0.86|libavcodec59 libtiff6|Python bindings for OpenCV
cryptography|abi3|3.4.8 41.0.7 44.0.2 46.0.3|libssl3|Cryptographic recipes and primitives
Pillow|binary|8.4.0 10.4.0 11.3.0 12.0.0|liblcms2-2 libwebp7|Python Imaging Library (Fork)
scipy|binary|1.10.1 1.14.1 1.16.3|libopenblas0-pthread libgfortran5|Scientific computing in Python
requests|pure|2.25.1 2.31.0 2.32.5||Python HTTP for Humans.
zope.interface|binary|5.4.0 7.2 8.0.1||Interfaces for Python
"""
_FAMOUS = [line.split("|") for line in _WELL_KNOWN.strip().splitlines()]
_FIRST = """alpha amber async blue cloud cold cyber deep easy edge fast fluent garden green home
hyper iron lazy light lunar micro modern nova open pico py rasp robo simple smart tiny""".split()
_SECOND = """adc alarm api audio barcode battery bus button camera chart clock config display email
gpio gps gyro heater lamp lcd led modbus motor mqtt oled parser player pump radio relay""".split()
_THIRD = ("", "-client", "-utils", "-py", "-server", "-tools", "-lib", "-driver", "-cli", "-kit")
_DESCRIPTIONS = ("A {0} {1} for your Raspberry Pi", "{0} & <{1}>", "{1} — センサー用パッケージ", "")
_APT = "libatlas3-base libcurl4 libgcc-s1 libgpiod2 libpng16-16 libusb-1.0-0 libzmq5".split()
_PIP = "attrs certifi click idna jinja2 packaging python-dateutil typing-extensions urllib3".split()
_KINDS = ("pure", "pure", "pure", "binary", "abi3")
_PREINSTALLED = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g")
_REQUIRES = (None, "", ">=3.7", ">=3.8,<4", ">=3.9", ">=3.9", ">=3.11", ">=2.7,!=3.0.*,!=3.1.*")
_ODD_VERSIONS = ("d", "-final", "-SNAPSHOT", "_stable")  # as PyPI accepted them before PEP 440
_SUFFIXES = ("a1", "b2", "rc1", ".dev3", ".post1", ".post2", *_ODD_VERSIONS)
_SKIPS = ("binary only", "development mode", "not for Raspberry Pi", "build hangs")
_REASONS = (  # each package has one
    ("missing-header", "ffi.h"),
    ("missing-header", "pybind11/pybind11.h"),
    ("missing-library", "atlas"),
    ("missing-rust", ""),
    ("missing-python-module", "numpy"),
    ("compiler-error", "too few arguments to function '_PyLong_AsByteArray'"),
    ("out-of-memory", "cc1plus"),
)
_DELETIONS = ("DELVER", "DELBUILD+LOGBUILD", "DELPKG")
_SEQUELS = """LOGBUILD LOGBUILD YANKVER YANKVER+UNYANKVER SKIPPKG+SKIPPKG SKIPVER SETDESC
NEWPKGNAME""".split()
_CLIENT = """arch distro_name distro_version os_name os_version py_name py_version installer_name
installer_version setuptools_version""".split()
_SYSTEMS = {
    "cp39": ("11", "Linux", "6.1.21-v7+", "CPython", "3.9.2", "pip", "20.3.4", "52.0.0"),
    "cp311": ("12", "Linux", "6.6.51+rpt-rpi-v7", "CPython", "3.11.2", "pip", "23.0.1", "66.1.1"),
    "cp313": ("13", "Linux", "6.12.25+rpt-rpi-v8", "CPython", "3.13.5", "uv", "0.8.3", None),
}
_ARMS = ("linux_armv6l", "linux_armv7l")
_RHYTHM = (5, 4, 3, 3, 3, 4, 5, 7, 9, 11, 12, 12, 12, 12, 13, 13, 13, 13, 13, 12, 12, 10, 8, 6)
_HOUR = 3_600_000  # milliseconds


@dataclass(frozen=True)
class Farm:
    """A farm to simulate; equal farms send the same messages. Raises ValueError if impossible."""

    seed: int = 0  # another seed, another farm
    packages: int = 200  # the first ones are well-known, the others are made up
    versions: float = 4.0  # mean number that a made-up package has; a few have hundreds
    abis: tuple[str, ...] = (
        "cp39",
        "cp311",
        "cp313",
    )  # that it builds for; a disabled cp37m is added
    failure_rate: float = 0.12  # share of builds, 0 to 1; half of them succeed when tried again
    deletion_rate: float = 0.08  # share of the later events of packages, 0 to 1
    downloads: int = 20_000  # number of LOGDOWNLOAD among `messages`
    days: int = 45  # length of the simulated life
    now: datetime = datetime(2026, 11, 22, 14, tzinfo=UTC)  # its end, with a time zone

    def __post_init__(self) -> None:
        if min(self.packages, self.versions, self.days, self.downloads + 1) < 1:
            raise ValueError("a farm has at least 1 package, version and day, and 0 downloads")
        if not 0 <= self.failure_rate <= 1 or not 0 <= self.deletion_rate <= 1:
            raise ValueError("the rates of a farm lie between 0 and 1")
        if not self.abis or None in map(names.abi_version, self.abis):
            raise ValueError(f"a farm builds for CPython ABI tags, not for {self.abis}")
        if self.now.tzinfo is None:
            raise ValueError("the now of a farm has no time zone")

    def messages(self) -> Iterator[Message]:
        """The whole life of the farm in order of time, up to `now`."""
        life = _Life(self)
        downloads = life.downloads(self.downloads)
        return _messages(heapq.merge(life.events(), downloads, key=lambda event: event[0]))

    def population(self) -> Iterator[Message]:
        """Messages that fill an index: SETABIS, all packages with their names, versions, builds."""
        return _messages(_Life(self, complete=True).events())

    def download_messages(self, count: int) -> Iterator[Message]:
        """`count` LOGDOWNLOADs, mostly of files that `population` makes."""
        return _messages(_Life(self, complete=True).downloads(count))

    def build_messages(self, count: int, first_build_id: int = 1) -> Iterator[Message]:
        """`count` successful LOGBUILDs with three files each.

        First one version of every package on each ABI, then the next version. When all versions
        are built, further builds take over the files. If `population` has filled the index,
        `first_build_id` must be above the build ids in it; otherwise those builds are replaced.
        """
        return _messages(_Life(self, complete=True).triple_builds(count), first_build_id)


def _messages(events: Iterable[_Event], build_id: int = 1) -> Iterator[Message]:
    for at, name, data in events:
        if name == "LOGBUILD":
            data["build_id"] = build_id
            build_id += 1
            if not data["status"]:
                reason = _REASONS[sum(data["package"].encode()) % len(_REASONS)]
                data["failure"] = dict(zip(("category", "detail"), reason, strict=True))
        yield {"msg": name, "at": _time(at, "milliseconds"), "data": data}


class _Package:
    """What is fixed about the package with a number, whatever happens in the farm's life."""

    def __init__(self, farm: Farm, number: int) -> None:
        rng = random.Random(f"package {number} of farm {farm.seed}")
        chance, made_up = rng.random, number >= len(_FAMOUS)
        if made_up:
            again, place = divmod(number, len(_FIRST) * len(_SECOND) * len(_THIRD))
            # Steps of a prime that divides no list's length visit every name once, unordered.
            place, first = divmod(place * 1_000_003 + farm.seed, len(_FIRST))
            place, second = divmod(place, len(_SECOND))
            words = _FIRST[first], _SECOND[second]
            self.name = "-".join(words) + _THIRD[place % len(_THIRD)] + str(again + 1) * (again > 0)
            self.display, self.kind = _spelling(self.name, chance()), rng.choice(_KINDS)
            self.description = rng.choice(_DESCRIPTIONS).format(*words)
            versions, apt = _invented(rng, farm.versions), _APT[int(chance() * 6) :][:2]
        else:
            self.display, self.kind, listed, links, self.description = _FAMOUS[number]
            self.name, versions, apt = names.canonical(self.display), listed.split(), links.split()
        self.skip = rng.choice(_SKIPS) if made_up and chance() < 0.02 else ""
        self.distribution = self.display.replace("-", "_")  # as in the names of its wheels
        self.requires_python = rng.choice(_REQUIRES)
        self.apt = [] if self.kind == "pure" else [*apt, "libc6"]
        self.pip = _PIP[int(chance() * 7) :][: int(chance() * 4)]
        self.pending = min(int(chance() * 3), len(versions) - 1)  # versions that come out later
        self.age = int((30 + chance() * 2000) * 24 * _HOUR)  # at the start of the simulation
        # The version, why it is skipped, and how its builds end on each ABI: success, success at
        # the second try (None), or failure. A wheel that fits all ABIs has one outcome, a skipped
        # version has none.
        self.versions: list[tuple[str, str, tuple[bool | None, ...]]] = []
        for version in versions:
            skip = rng.choice(_SKIPS) if made_up and chance() < 0.03 else ""
            wheels = 0 if self.skip or skip else len(farm.abis) if self.kind == "binary" else 1
            rate = 2 if version.endswith(_ODD_VERSIONS) else farm.failure_rate
            draws = [chance() for _ in range(wheels)]
            outcomes = tuple([False if r < rate / 2 else None if r < rate else True for r in draws])
            self.versions.append((version, skip, outcomes))


class _Life:
    """One life of a farm: its random numbers, and what must be remembered of its packages.

    In a `complete` life all packages and versions exist from the beginning, and stay.
    """

    def __init__(self, farm: Farm, complete: bool = False) -> None:
        self.farm = farm
        self.random = random.Random(f"life of farm {farm.seed}")
        self.end = int(farm.now.timestamp()) * 1000
        self.start = self.end - farm.days * 24 * _HOUR
        self.complete = complete
        self.known = farm.packages if complete else 0
        self.appeared: dict[int, int] = {}  # how many of a package's pending versions are out
        self.deleted: set[int] = set()
        self.package = lru_cache(maxsize=32_768)(partial(_Package, farm))
        self.wheels: dict[tuple[str, str], tuple[str, str, tuple[str, ...]]] = {}
        for abi in (*farm.abis, "cp37m"):
            self.wheels["pure", abi] = ("py3", "none", ("any",))
            self.wheels["abi3", abi] = (_python(farm.abis[0]), "abi3", _ARMS)
            self.wheels["binary", abi] = (_python(abi), abi, _ARMS)
        self.clients: list[tuple[int, str, _Data]] = []
        for position, abi in enumerate(farm.abis):
            system = ("Raspbian GNU/Linux", *_SYSTEMS.get(abi, _SYSTEMS["cp313"]))
            for arch, arm, share in (("armv7l", 1, 5), ("aarch64", 1, 3), ("armv6l", 0, 2)):
                client: _Data = dict(zip(_CLIENT, (arch, *system), strict=True))
                self.clients += [(position, _ARMS[arm], client)] * share
            self.clients.append((position, _ARMS[1], dict.fromkeys(_CLIENT)))

    def events(self) -> Iterator[_Event]:
        """Everything but downloads. A package that waits for its turn takes one small tuple."""
        build_abis = {"cp37m": "disabled"} | dict.fromkeys(self.farm.abis, "")
        apt = {abi: [*_PREINSTALLED, f"libpython3.{_python(abi)[3:]}"] for abi in build_abis}
        yield self.start, "SETABIS", {"build_abis": build_abis, "preinstalled_apt_packages": apt}
        queue: list[tuple[int, int, int, _Script | None]] = [(self.start, 0, 0, None)]
        packages, arrived, turn = self.farm.packages, 0, 0
        while queue:
            at, _, number, script = heapq.heappop(queue)
            turn += 1
            if number == arrived:
                script = self.arrival(number)
                arrived += 1
                self.known = max(self.known, arrived)
                # Packages come quickly at first, so that early downloads are of many packages.
                due = self.start + int((self.end - self.start) * (arrived / packages) ** 2)
                if arrived < packages:
                    heapq.heappush(queue, (due, -turn, arrived, None))
            script = script or self.sequel(number, at)
            step = next(script, None)
            if step is not None:
                wait, name, data = step
                yield at, name, data
            elif self.complete or self.random.random() < 0.4:
                continue
            else:
                wait, script = int(self.random.expovariate(8 / (self.end - self.start))), None
            due = at if self.complete else at + wait
            if due < self.end:
                heapq.heappush(queue, (due, turn, number, script))

    def available(self, number: int, package: _Package) -> int:
        """How many versions of a package are released."""
        pending = 0 if self.complete else package.pending - self.appeared.get(number, 0)
        return len(package.versions) - pending

    def arrival(self, number: int) -> _Script:
        """A package appears with the versions that it has released so far, and is built."""
        package = self.package(number)
        owner = {"package": package.name}
        yield 20, "NEWPKG", {**owner, "skip": package.skip, "description": package.description}
        spellings = {package.name: None, package.display: _time(self.start - package.age)}
        for name, seen in spellings.items():
            yield 100, "NEWPKGNAME", {**owner, "name": name, "seen": seen}
        for position in range(self.available(number, package)):
            left = package.age * (len(package.versions) - position) // len(package.versions)
            yield from self.release(package, position, _time(self.start - left))
        if package.kind == "binary" and number % 4 == 0:  # from the days when cp37m was built
            yield 0, "LOGBUILD", self.build(package, package.versions[0][0], "cp37m", True)

    def release(self, package: _Package, position: int, released: str | None) -> _Script:
        """A version is released and built."""
        version, skip, outcomes = package.versions[position]
        data: _Data = {"package": package.name, "version": version}
        yield 500, "NEWVER", {**data, "released": released, "skip": skip}
        if outcomes == (False,):  # if no ABI can build the wheel, all of them try
            outcomes *= len(self.farm.abis)
        for abi, outcome in zip(self.farm.abis, outcomes, strict=False):
            data = self.build(package, version, abi, outcome is True)
            yield self.random.randrange(60_000 if outcome else _HOUR), "LOGBUILD", data
            if outcome is None:
                yield 1000, "LOGBUILD", self.build(package, version, abi, True)

    def sequel(self, number: int, at: int) -> _Script:
        """Something happens to a package that exists already."""
        rng, package = self.random, self.package(number)
        out = self.available(number, package)
        version, _, outcomes = rng.choice(package.versions[:out])
        if number in self.deleted or not outcomes:
            return
        if rng.random() < self.farm.deletion_rate:
            # Nobody deletes a popular package.
            acts = rng.choice(_DELETIONS[: 2 if number < self.farm.packages // 2 else 3])
        elif out < len(package.versions):
            self.appeared[number] = self.appeared.get(number, 0) + 1
            yield from self.release(package, out, None)
            return
        else:
            acts = rng.choice(_SEQUELS)
        reasons = iter((rng.choice(_SKIPS), ""))
        for name in acts.split("+"):
            data: _Data = {"package": package.name}
            if name == "LOGBUILD":
                position = rng.randrange(len(self.farm.abis))
                passes = outcomes[position % len(outcomes)] is not False
                data = self.build(package, version, self.farm.abis[position], passes)
            elif name == "NEWPKGNAME":
                data |= {"name": _spelling(package.name, rng.random()), "seen": _time(at)}
            elif name == "SETDESC":
                data["description"] = f"Deprecated: {package.description}"
            elif name not in ("SKIPPKG", "DELPKG"):
                data["version"] = version
            if name in ("SKIPPKG", "SKIPVER"):
                data["reason"] = next(reasons)
            yield rng.randrange(_HOUR), name, data
        if acts == "DELPKG" and rng.random() < 0.5:
            yield from self.arrival(number)  # it appears again
        elif acts == "DELPKG":
            self.deleted.add(number)

    def build(self, package: _Package, version: str, abi: str, passes: bool) -> _Data:
        """The data of a LOGBUILD whose build_id is still missing."""
        chance = self.random.random
        python_tag, abi_tag, platforms = self.wheels[package.kind, abi]
        pure = package.kind == "pure"
        version_tag = version.replace("-", "_")
        stem = f"{package.distribution}-{version_tag}-{python_tag}-{abi_tag}"
        size = int(10 ** (3.3 + 2 * chance() if pure else 4.5 + 3 * chance()))
        filehash = self.random.randbytes(32).hex()  # the armv6l twin has the same bytes
        location = "/simple" if chance() < 0.99 else "https://archive1.piwheels.org/simple"
        files = [
            {
                "filename": f"{stem}-{platform}.whl",
                "filesize": size,
                "filehash": filehash,
                "package_tag": package.distribution,
                "package_version_tag": version_tag,
                "py_version_tag": python_tag,
                "abi_tag": abi_tag,
                "platform_tag": platform,
                "requires_python": package.requires_python,
                "dependencies": {"apt": [*package.apt], "pip": [*package.pip], "": []},
                "location": location,
            }
            for platform in (platforms if passes else ())
        ]
        return {
            "build_id": 0,
            "slave_id": int(chance() * 8),
            "package": package.name,
            "version": version,
            "abi_tag": abi,
            "status": passes,
            "duration": round(self.random.expovariate(0.1 if pure else 0.003) + 1, 6),
            "files": files,
        }

    def triple_builds(self, count: int) -> Iterator[_Event]:
        for kind, abi in self.wheels:
            self.wheels[kind, abi] = (_python(abi), abi, (*_ARMS, "linux_aarch64"))
        for done in range(count):
            turn, position = divmod(done, len(self.farm.abis))
            turn, number = divmod(turn, self.farm.packages)
            package = self.package(number)
            version = package.versions[turn % len(package.versions)][0]
            data = self.build(package, version, self.farm.abis[position], True)
            yield self.end - (count - 1 - done) * 10, "LOGBUILD", data

    def downloads(self, count: int) -> Iterator[_Event]:
        """`count` downloads over the whole time, more during the day than at night."""
        chance = self.random.random
        hours = range(self.start // _HOUR, self.start // _HOUR + self.farm.days * 24)
        whole = sum(_RHYTHM[hour % 24] for hour in hours)
        passed = done = 0
        for elapsed, hour in enumerate(hours):
            passed += _RHYTHM[hour % 24]
            share = count * passed // whole - done
            done += share
            for position in range(share):
                at = self.start + int((elapsed + (position + chance()) / share) * _HOUR)
                abi, platform, client = self.clients[int(chance() * len(self.clients))]
                filename, odd = self.wanted(abi, platform), chance()
                # A few come from a delayed log, and a few are of files that are not wheels.
                accessed = _time(at - int((at - self.start) * chance()) if odd < 0.02 else at)
                if odd > 0.99:
                    filename = "-".join(filename.split("-")[:2]) + ".tar.gz"
                yield at, "LOGDOWNLOAD", {"filename": filename, "accessed_at": accessed, **client}

    def wanted(self, abi: int, platform: str) -> str:
        """The name of a wheel; popular packages and new versions are downloaded more often."""
        chance = self.random.random
        package, version = self.package(0), ""
        for _ in range(5):  # the last version counts even if it was never built
            number = int((self.known + 1) ** chance()) - 1  # Zipf's law with exponent 1
            package = self.package(number)
            out = self.available(number, package)
            version, _, outcomes = package.versions[out - 1 - int(out * chance() ** 3)]
            built = outcomes and outcomes[abi % len(outcomes)] is not False
            if built and number not in self.deleted:
                break
        python_tag, abi_tag, platforms = self.wheels[package.kind, self.farm.abis[abi]]
        platform = platform if platform in platforms else "any"
        version = version.replace("-", "_")
        return f"{package.distribution}-{version}-{python_tag}-{abi_tag}-{platform}.whl"


def _invented(rng: random.Random, mean: float) -> list[str]:
    """The versions of a made-up package in rising order: usually a few, rarely hundreds."""
    chance, number = rng.random, rng.choice((0, 10_000, 20_230_000))  # 20_230_104: 2023.1.4
    versions = []
    for _ in range(1 + int((mean - 1) * rng.expovariate(1) ** 2 / 2 + chance())):
        step = (1, 1, 1, 1, 1, 1, 100, 100, 100, 10_000)[int(chance() * 10)]
        number += step - number % step
        suffix = rng.choice(_SUFFIXES) if chance() < 0.1 else ""
        versions.append(f"{number // 10_000}.{number // 100 % 100}.{number % 100}{suffix}")
    return versions


def _spelling(name: str, chance: float) -> str:
    """A package's name as its author may spell it; most use the canonical name."""
    ways = (name.replace("-", "_"), name.title(), name.replace("-", "."), name.upper())
    return ways[int(chance * 10)] if chance < 0.4 else name


def _python(abi: str) -> str:
    return abi.rstrip("dmtu")


def _time(milliseconds: int, timespec: str = "seconds") -> str:
    """RFC 3339, to the millisecond: a float cannot hold microseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec=timespec)
