"""Messages for hypothesis: valid ones that collide, mutated and hostile ones, and mere bytes.

A message is a dict as `json.loads` gives it, with RFC 3339 times; `wire` packs it as a publisher
would, without any of the code under test. Few names are drawn, so that messages meet: files are
taken over, names stolen, packages reborn, builds logged again under the same number.
"""

from __future__ import annotations

import json
import math
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
from hypothesis import strategies as st

Message = dict[str, Any]

NOW = datetime(2026, 11, 22, 14, 17, 17, 520_624, tzinfo=UTC)
"""The present of the valid messages: most of their times lie around it."""

PACKAGES = ("foo", "bar", "foo-bar", "b", "x2")
# Spellings of several packages at once, and names that are a package of their own as well.
SPELLINGS = ("foo", "Foo", "FOO", "foo_bar", "foo.bar", "Foo-Bar", "bar", "B", "x2", "ñ", "a b\n")
VERSIONS = ("1.0", "1.0.0", "1.0rc1", "2.0", "10.0", "2!0.1", "1.0-final.x", "latest")
ABIS = ("cp37m", "cp39", "cp310", "cp311", "cp313", "cp313t")
PYTHONS = (
    "cp37",
    "cp39",
    "cp310",
    "cp311",
    "cp313",
    "py3",
    "py2.py3",
    "py2",
    "py310",
    "py39.cp311",
    "CP311",
    "Py3",
)
FILE_ABIS = (
    "cp37m",
    "cp39",
    "cp311",
    "cp313",
    "cp313t",
    "abi3",
    "none",
    "abi3.cp311",
    "CP311",
    "None",
    "ABI3",
)
APT = ("libc6", "libssl3", "zlib1g", "libÄ")
PIP = ("numpy", "Attrs", "six")
TEXTS = ("", "broken", "a <b> & “c”", 'say "x" \\ \n', "日本", "\x00\x1f", "🍓")
WHEELS = (
    "foo-1.0-py3-none-any.whl",
    "foo-1.0-cp311-cp311-linux_armv7l.whl",
    "Foo_Bar-1.0-cp39-abi3-linux_armv6l.whl",
    "foo_bar-2.0-1-py3-none-any.whl",
    "bar-2.0-cp313-cp313t-linux_aarch64.whl",
    "b-1.0-py2.py3-none-any.whl",
    "nobody-1.0-py3-none-any.whl",
    "x2-1.0.0-py3-none-any.whl",
)
NO_WHEELS = ("foo-1.0.tar.gz", "foo.whl", "-1-py3-none-any.whl", "foo-1.0-py3-none-any.whl.asc")

_TIMES = {"at", "built_at", "released", "seen", "accessed_at"}


def rfc3339(value: datetime) -> str:
    return value.isoformat()


def hour(value: datetime) -> datetime:
    return value.replace(minute=0, second=0, microsecond=0)


# Around now and both ends of the 30-day window, to the microsecond; sometimes at an end of time.
_around = st.builds(
    lambda day, seconds, microseconds: (
        hour(NOW) - timedelta(days=day, seconds=seconds, microseconds=microseconds)
    ),
    st.sampled_from((0, 0, 1, 29, 30, 30, 31, -1, -400, 4000)),
    st.integers(-2, 2).map(lambda hours: hours * 3600),
    st.sampled_from((0, 0, 1, -1, 999_999, 1_800_000_000)),
)
_ends = st.sampled_from(
    (
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    )
)
instants = st.one_of(*[_around] * 9, _ends)
times = instants.map(rfc3339)
hours = instants.map(hour).map(rfc3339)

packages = st.sampled_from(PACKAGES)
spellings = st.sampled_from(SPELLINGS)
versions = st.sampled_from(VERSIONS)
abis = st.sampled_from(ABIS)
texts = st.sampled_from(TEXTS)
filenames = st.sampled_from(WHEELS)
build_ids = st.integers(1, 9) | st.sampled_from((10_000, 123_456_789_012))
hashes = st.sampled_from(("a" * 64, "b" * 64, "0123456789abcdef" * 4))
sizes = st.sampled_from((0, 1, 2**31, 2**63 - 1))
durations = st.sampled_from((0.0, 1.5, 17, 0.1, 1e16, 3600.000001))
counts = st.sampled_from((0, 1, 2, 10, 1000))


locations = st.sampled_from(("/simple", "https://x/y", "ftp://old"))
failures = st.fixed_dictionaries(
    {
        "category": st.sampled_from(("missing-header", "unknown", "x0-")),
        "detail": st.sampled_from(("", "pybind11/pybind11.h", "ñ <b>", "x" * 500)),
    }
)
requirements = st.sampled_from(
    (
        None,
        "",
        ">=3.9",
        ">=3.11",
        "<3.10",
        "~=3.9.5",
        "!=3.9.*,!=3.10.*",
        "==3.11.*,!=3.11.0",
        ">=3.9.0rc1,<3.9.1.dev0",
        ">3.13.98",
        ">3.13.99",
        "==3.13.012",
        "===3.11.7",
        "<4,>=2.7",
        "1!3.9",
        "any",
    )
)
"""Requires-Python; some admit every Python, because they mean nothing."""


def _record(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(fields)


files = st.builds(
    lambda required, optional: {**required, **optional},
    _record(
        filename=filenames,
        filesize=sizes,
        filehash=hashes,
        package_tag=st.just("foo"),
        package_version_tag=st.just("1.0"),
        py_version_tag=st.sampled_from(PYTHONS),
        abi_tag=st.sampled_from(FILE_ABIS),
        platform_tag=st.sampled_from(("any", "linux_armv7l")),
        requires_python=requirements,
        dependencies=st.dictionaries(
            st.sampled_from(("apt", "pip", "")), st.lists(st.sampled_from(APT + PIP), max_size=4)
        ),
    ),
    st.fixed_dictionaries({}, optional={"location": locations}),
)

_snapshot_file = _record(
    filesize=sizes,
    filehash=hashes,
    location=locations,
    platform_tag=st.sampled_from(("any", "linux_armv7l")),
    abi_tag=st.sampled_from(FILE_ABIS),
    builder_abi=abis,
    requires_python=requirements,
    apt_dependencies=st.lists(st.sampled_from(APT), max_size=3),
    pip_dependencies=st.lists(st.sampled_from(PIP), max_size=3),
)
_snapshot_build = st.fixed_dictionaries(
    {
        "status": st.sampled_from(("success", "fail", "error", "pending", "skip")),
        "build_id": st.none() | build_ids,
    },
    optional={
        "slave_id": st.none() | st.integers(0, 3),
        "built_at": st.none() | times,
        "duration": st.none() | durations,
    },
)
_told_build = st.builds(
    lambda build, build_id: {**build, "build_id": build_id},
    _snapshot_build,
    st.none() | st.integers(1, 5),
)
_release = _record(
    released=times,
    skip=texts,
    yanked=st.booleans(),
    abis=st.dictionaries(abis, _snapshot_build, max_size=3),
    files=st.dictionaries(filenames, _snapshot_file, max_size=2),
)

_of_package = {"package": packages}
_of_version = {"package": packages, "version": versions}
CLIENT = (
    "arch distro_name distro_version os_name os_version py_name py_version installer_name"
    " installer_version setuptools_version"
).split()
_client = {field: st.sampled_from((None, "", "armv7l")) for field in CLIENT}

DATA: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "SETABIS": _record(
        build_abis=st.dictionaries(abis, st.sampled_from(("", "", "disabled"))),
        preinstalled_apt_packages=st.dictionaries(
            abis, st.lists(st.sampled_from(APT), max_size=3), max_size=3
        ),
    ),
    "NEWPKG": st.fixed_dictionaries(_of_package, optional={"skip": texts, "description": texts}),
    "NEWPKGNAME": _record(package=packages, name=spellings, seen=st.none() | times),
    "SETDESC": _record(package=packages, description=texts),
    "SKIPPKG": _record(package=packages, reason=texts),
    "DELPKG": _record(**_of_package),
    "NEWVER": st.fixed_dictionaries(
        {**_of_version, "released": st.none() | times}, optional={"skip": texts}
    ),
    "SKIPVER": _record(**_of_version, reason=texts),
    "YANKVER": _record(**_of_version),
    "UNYANKVER": _record(**_of_version),
    "DELVER": _record(**_of_version),
    "LOGBUILD": st.fixed_dictionaries(
        {
            "build_id": build_ids,
            "slave_id": st.integers(0, 3),
            **_of_version,
            "abi_tag": abis,
            "status": st.sampled_from((True, True, False)),
            "duration": durations,
            "files": st.lists(files, max_size=3),
        },
        optional={"failure": st.none() | failures},
    ),
    "FAILURE": _record(build_id=build_ids, failure=failures),
    "MOVEFILES": _record(
        package=packages, files=st.dictionaries(filenames, locations, min_size=1, max_size=3)
    ),
    "DELBUILD": _record(**_of_version),
    "LOGDOWNLOAD": _record(
        filename=st.one_of(filenames, filenames, filenames, st.sampled_from(NO_WHEELS)),
        accessed_at=times,
        **_client,
    ),
    "SNAPSHOT": _record(
        package=packages,
        name=spellings,
        description=texts,
        aliases=st.lists(spellings, max_size=3),
        releases=st.dictionaries(versions, _release, max_size=3),
    ),
    "DOWNLOADS": _record(
        package=packages, all=counts, hours=st.dictionaries(hours, counts, max_size=4)
    ),
}
"""The data of every message, by NAME."""

_FREQUENT = ("LOGBUILD", "LOGBUILD", "LOGBUILD", "LOGDOWNLOAD", "LOGDOWNLOAD", "NEWPKGNAME")


def messages_of(*names: str) -> st.SearchStrategy[Message]:
    """Valid messages of these NAMEs."""
    return st.sampled_from(names).flatmap(
        lambda name: st.fixed_dictionaries({"msg": st.just(name), "at": times, "data": DATA[name]})
    )


messages = messages_of(*DATA, *_FREQUENT)
"""Valid messages of every NAME."""


def _onto(many: tuple[str, ...], few: tuple[str, ...]) -> dict[str, str]:
    return {name: few[number % len(few)] for number, name in enumerate(many)}


_FEW = (
    _onto(SPELLINGS, ("Foo", "foo", "bar"))
    | _onto(PACKAGES, PACKAGES[:2])
    | _onto(WHEELS, (WHEELS[0], WHEELS[4]))
    | _onto(VERSIONS, VERSIONS[:2])
    | _onto(PYTHONS + FILE_ABIS, ("py3",))
    | _onto(FILE_ABIS, ("none",))
    | _onto(ABIS, ("cp311", "cp313"))
)


def narrowed(value: Any) -> Any:
    """A message of a small world: two packages, versions, files and ABIs, few tags."""
    if isinstance(value, dict):
        return {_FEW.get(key, key): narrowed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [narrowed(inner) for inner in value]
    return _FEW.get(value, value) if isinstance(value, str) else value


def _with(message: Message, /, **fields: Any) -> Message:
    """A message with other values in some fields of its data."""
    return {**message, "data": {**message["data"], **fields}}


def _of(message: str, /, **fields: Any) -> st.SearchStrategy[Message]:
    return messages_of(message).map(lambda found: _with(found, **fields))


# Stories: messages that have to do with each other, which would hardly meet by chance. Other
# messages, commits, publications and restarts come between them.

Story = list[Message]


@st.composite
def _file_story(draw: st.DrawFn) -> Story:
    """A file is downloaded before and after it gets another package, or goes."""
    first, second = draw(st.permutations(PACKAGES[:2]))
    file = {**draw(files), "filename": draw(st.sampled_from((WHEELS[0], WHEELS[4])))}
    version = draw(versions)
    built = {"version": version, "status": True, "files": [file]}
    owned = {"package": first, "version": version}
    download = _of("LOGDOWNLOAD", filename=file["filename"])
    change = draw(
        st.one_of(
            _of("LOGBUILD", **{**built, "package": second}),
            _of("DELBUILD", **owned),
            _of("DELVER", **owned),
            _of("DELPKG", package=first),
            _of("SNAPSHOT", package=first),
            _of("DOWNLOADS", package=first),
        )
    )
    return [
        *draw(st.sampled_from(([], [draw(_of("NEWVER", package=second, version=version))]))),
        draw(_of("LOGBUILD", **{**built, "package": first})),
        *draw(st.lists(download, min_size=1, max_size=2)),
        change,
        *draw(st.lists(download, max_size=2)),
    ]


@st.composite
def _name_story(draw: st.DrawFn) -> Story:
    """Several spellings of two packages are seen, by either of them."""
    seen = draw(st.permutations([rfc3339(NOW + timedelta(days=days)) for days in range(5)]))
    names = draw(st.permutations(SPELLINGS))[:2]
    owners = [*PACKAGES[:1] * 2, *PACKAGES[:2] * 2]
    told = [
        draw(_of("NEWPKGNAME", package=owner, name=names[number % 2], seen=seen[number]))
        for number, owner in enumerate(owners[: draw(st.integers(2, 5))])
    ]
    end = st.one_of(
        _of("DELPKG", package=draw(st.sampled_from(PACKAGES[:2]))),
        _of("SNAPSHOT", package=PACKAGES[1], name=names[0]),
        _of("NEWPKG", package="bar"),
    )
    return [*told, *draw(st.lists(end, max_size=2))]


@st.composite
def _attempt_story(draw: st.DrawFn) -> Story:
    """Two builds of one version, which fit the same ABIs about as well."""
    owned = {"package": "foo", "version": "1.0", "status": True}
    tags = draw(st.sampled_from((("py3", "none"), ("cp39", "abi3"), ("cp311", "cp311"))))
    made = [
        {**draw(files), "filename": name, "py_version_tag": tags[0], "abi_tag": tags[1]}
        for name in draw(st.permutations(WHEELS))[:2]
    ]
    return [draw(_of("LOGBUILD", **owned, files=[file])) for file in made]


@st.composite
def _snapshot_story(draw: st.DrawFn) -> Story:
    """A master is asked for what was built, and knows about as much of it as the index."""
    names = draw(st.permutations(WHEELS))[:2]
    built = [
        draw(
            _of(
                "LOGBUILD",
                build_id=number,
                package="foo",
                version="1.0",
                abi_tag=draw(st.sampled_from(("cp39", "cp39", "cp311"))),
                files=[
                    {**draw(files), "filename": name} for name in names[: draw(st.integers(0, 2))]
                ],
            )
        )
        for number in range(1, draw(st.integers(2, 4)))
    ]
    release = draw(_release)
    made = {
        file["filename"]: (message["data"]["abi_tag"], file["filehash"])
        for message in built
        for file in message["data"]["files"]
    }
    same = st.sampled_from((True, True, False))
    told = {
        name: {**draw(_snapshot_file), "builder_abi": abi}
        | ({"filehash": filehash} if draw(same) else {})
        for name, (abi, filehash) in made.items()
        if draw(same)
    }
    asked = [
        draw(
            _of(
                "SNAPSHOT",
                package="foo",
                releases={
                    "1.0": {
                        **release,
                        "files": told,
                        "abis": draw(
                            st.dictionaries(st.sampled_from(("cp39", "cp311")), _told_build)
                        ),
                    }
                },
            )
        )
        for _ in range(draw(st.integers(1, 2)))
    ]
    return [*built, *asked]


@st.composite
def _abi_story(draw: st.DrawFn) -> Story:
    """The build ABIs change while there is no file of a kind that was known, and comes again."""
    file = {**draw(files), "filename": WHEELS[0]}
    build = _of("LOGBUILD", package="foo", version="1.0", status=True, files=[file])
    gone = _of("DELBUILD", package="foo", version="1.0")
    return [draw(build), draw(gone), draw(messages_of("SETABIS")), draw(build)]


def _joined(stories: list[Story]) -> list[Message]:
    return [message for story in stories for message in story]


def _alone(found: st.SearchStrategy[Message]) -> st.SearchStrategy[Story]:
    return found.map(lambda message: [message])


KINDS: dict[str, st.SearchStrategy[Story]] = {
    "all": _alone(messages),
    "builds": _alone(
        messages_of(
            "SETABIS", *["LOGBUILD"] * 6, "NEWVER", "DELVER", "DELBUILD", "SKIPVER", "SKIPPKG",
            "SNAPSHOT",
        )
    ),
    "snapshots": _snapshot_story()
    | _alone(messages_of("LOGBUILD", "FAILURE", "MOVEFILES", "SNAPSHOT", "DELBUILD")),
    "attempts": _attempt_story()
    | _abi_story()
    | _alone(_of("LOGBUILD", package="foo", version="1.0")),
    "downloads": _file_story() | _alone(messages_of("LOGDOWNLOAD", "DOWNLOADS", "NEWPKG")),
    "names": _name_story() | _alone(messages_of("NEWPKGNAME", "DELPKG", "NEWPKG", "SETDESC")),
    "skips": _alone(
        messages_of("NEWVER", "SKIPVER", "YANKVER", "UNYANKVER", "SKIPPKG", "SETDESC", "LOGBUILD")
    ),
}  # fmt: skip
"""All messages, and those that have most to do with each other."""


def batches(*kinds: str, most: int) -> st.SearchStrategy[list[Message]]:
    """Messages of one of these kinds, of many packages or of two."""
    # Hypothesis prefers lists that are hardly longer than they must be.
    lists = [
        st.lists(KINDS[kind], min_size=least, max_size=most).map(_joined)
        for least in (1, most // 2)
        for kind in kinds
    ]
    return st.one_of(*lists, *[one.map(lambda found: [*map(narrowed, found)]) for one in lists])


def _started(history: list[Message], with_abis: bool) -> list[Message]:
    return [START, *history] if with_abis else history


START: Message = {
    "msg": "SETABIS",
    "at": rfc3339(NOW),
    "data": {
        "build_abis": {abi: "disabled" if abi == "cp37m" else "" for abi in ABIS},
        "preinstalled_apt_packages": {abi: ["libc6"] for abi in ABIS},
    },
}
"""What a master says when it starts; without ABIs there is no build status."""


def histories(most: int = 40, *kinds: str) -> st.SearchStrategy[list[Message]]:
    """Valid messages in the order in which they act, of these kinds or of any."""
    found = batches(*(kinds or KINDS), most=most)
    return st.builds(_started, found, st.sampled_from((True, True, True, False)))


# Wire and file


def wire_value(value: Any, key: str = "") -> Any:
    """A value of a message as a publisher packs it: times become timestamps."""
    if isinstance(value, dict):
        return {name: wire_value(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [wire_value(inner) for inner in value]
    if key in _TIMES and isinstance(value, str):
        try:
            return msgpack.Timestamp.from_datetime(datetime.fromisoformat(value))
        except ValueError:
            return value
    return value


feeds = st.text(max_size=5).filter(str.isprintable)
"""Names of feeds: a frame with another one is refused whole."""


def wire(message: Message, **position: Any) -> bytes:
    """The msgpack payload of a message, with its position in a feed if one is given."""
    packed: bytes = msgpack.packb({**position, **wire_value(message)})
    return packed


def line(message: Message) -> bytes:
    """The line of a file that holds a message."""
    return json.dumps(message).encode()


# What is not valid

HOSTILE_NAMES = (
    "",
    ".",
    "..",
    "../x",
    "../../../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "foo/json/x",
    "foo/json/index.json",
    "foo/../../../x",
    "foo/",
    "//",
    "a\\..\\b",
    ".hidden",
    "..%2f",
    "a\0b",
    "a\nb",
    "a\x1b[31m",
    "-",
    "-foo",
    "foo-",
    "foo--bar",
    "Foo",
    "foo_bar",
    "index.json",
    "json",
    "project",
    "packages.json",
    ".index.json.piw-indexer",
    "foo ",
    " foo",
    "fo\u0301o",
    "ｆｏｏ",
    "\u202efoo",
    "ſ",
    "K",
    "١",
    "con",
    "~",
    "*",
    "$(id)",
    "</script>",
    "\ufeff",
    "x" * 200,
    "x" * 201,
    "ñ" * 127,
    "ñ" * 128,
    "🍓" * 200,
    "x" * 300,
)
"""Names that were made to leave a directory, to collide, or to confuse who shows them."""

hostile_names = st.sampled_from(HOSTILE_NAMES) | st.text(max_size=8)

HOSTILE_TIMES = (
    "2026-11-22T14:17:17",
    "2026-11-22",
    "2026-W47-7T14:17:17Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "10000-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    "2026-11-22T24:00:00Z",
    "2026-11-22T14:17:60Z",
    "2026-11-22T14:17:17+24:00",
    "2026-11-22T14:17:17+00:00:01",
    "2026-11-22T14:17:17.1234567890Z",
    "2026-11-22t14:17:17z",
    "2026-11-22 14:17:17.999999999+05:30",
    "٢٠٢٦-11-22T14:17:17Z",
    "-2026-11-22T14:17:17Z",
)

_odd_numbers = st.sampled_from(
    (0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, -1.5, 1e308)
) | st.sampled_from((math.nan, math.inf, -math.inf))
_timestamps = st.builds(
    msgpack.Timestamp,
    st.sampled_from((0, -1, -(2**63), 2**63 - 1, 2**34, -62_135_596_801, 253_402_300_800)),
    st.sampled_from((0, 1, 999_999_999)),
)
_leaves = st.one_of(
    st.none(),
    st.booleans(),
    _odd_numbers,
    hostile_names,
    st.sampled_from(HOSTILE_TIMES),
    st.sampled_from(("none", "abi3", "cp", "cp3", "cp39mt", "cp03", "cp311 ", "A" * 64, "apt")),
)
junk = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("package", "", "x", "apt", "..")), inner, max_size=3)
    ),
    max_leaves=6,
)
"""JSON values that hardly any field can be."""

wire_junk = st.one_of(
    junk,
    _timestamps,
    st.binary(max_size=4),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=2)),
)
"""Values of msgpack that hardly any field can be."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a value."""
    found: list[tuple[Any, ...]] = []
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        found += [(*path, key), *places(one, (*path, key))]
    return found


@st.composite
def mutations(
    draw: st.DrawFn, source: st.SearchStrategy[Any], values: st.SearchStrategy[Any]
) -> Any:
    """What `source` draws, with up to three of its parts replaced, moved, added or removed."""
    changed = deepcopy(draw(source))
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        found = places(changed)
        if not found:
            break
        *path, key = draw(st.sampled_from(found))
        parent: Any = changed
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(("replace", "replace", "remove", "add", "rename", "swap")))
        if kind == "replace":
            parent[key] = draw(values)
        elif kind == "remove":
            del parent[key]
        elif kind == "swap":
            other = draw(st.sampled_from(found))
            there = changed
            try:
                for step in other:
                    there = there[step]
            except (KeyError, IndexError, TypeError):
                continue  # it went with what was removed before
            parent[key] = deepcopy(there)
        elif isinstance(parent, dict):
            new = draw(
                st.sampled_from(("host", "output", "extra", "", "apt", "cp311")) | hostile_names
            )
            parent[new] = parent.pop(key) if kind == "rename" else draw(values)
        else:
            parent.insert(key, draw(values))
    return changed


_NAMES = ("package", "name", "version", "filename", "location")
_NAMED = ("releases", "files", "build_abis", "hours", "dependencies")


@st.composite
def _misnamed(draw: st.DrawFn) -> Message:
    changed = deepcopy(draw(messages_of("NEWPKGNAME", "SNAPSHOT", "LOGBUILD", *DATA)))
    named = [
        path
        for path in places(changed)
        if path[-1] in _NAMES or (len(path) > 1 and path[-2] in (*_NAMED, "aliases"))
    ]
    if named:
        *path, key = draw(st.sampled_from(named))
        parent: Any = changed
        for step in path:
            parent = parent[step]
        new = draw(hostile_names)
        if isinstance(parent, list) or key in _NAMES:
            parent[key] = new
        else:
            parent[new] = parent.pop(key)
    return changed


misnamed: st.SearchStrategy[Message] = _misnamed()
"""Messages with names that were made to get somewhere else."""

mutated = mutations(messages, junk)
"""Messages with something changed in them: some are still valid."""

mutated_wire = mutations(messages.map(wire_value), wire_junk)
"""Likewise, as a publisher unpacks them: with timestamps and bytes."""


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return packed


@st.composite
def _spoilt(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some of them changed, cut off or doubled."""
    content = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 4)))
        content[start:end] = draw(st.binary(max_size=4))
    return bytes(content)


def nested(depth: int) -> tuple[bytes, ...]:
    """Payloads of both encodings that nest `depth` deep, alone and inside of a message."""
    deep_map = b"\x81\xa1x" * depth + b"\xc0"
    deep_list = b"\x91" * depth + b"\xc0"
    return (
        b"[" * depth + b"]" * depth,
        b'{"x":' * depth + b"1" + b"}" * depth,
        b'{"msg":"DELPKG","data":{"package":' + b"[" * depth + b"]" * depth + b"}}",
        b'{"msg":"DELPKG","data":' + b'{"package":' * depth + b"1" + b"}" * depth + b"}",
        b'{"msg":' + b"[" * depth + b"]" * depth + b',"data":{}}',
        deep_list,
        deep_map,
        b"\x82\xa3msg\xa6DELPKG\xa4data\x81\xa7package" + deep_list,
        b"\x82\xa3msg\xa6DELPKG\xa4data" + deep_map,
        b"\x82\xa3msg" + deep_list + b"\xa4data\x80",
        b"\x83\xa4feed" + deep_list + b"\xa5epoch\x01\xa6serial\x01",
        b"\x81\xa3end" + deep_list,
        b"\x81\xa4gone" + deep_map,
        b"\x81\xa6replay" + deep_list,
        b"\x81\xa6replay\x83\xa5epoch" + deep_map + b"\xa5after\x01\xa5limit\x01",
    )


DEPTHS = (10, 300, 480, 500, 900, 980, 1000, 1010, 1020, 1023, 1024, 5000, 100_000)
"""Around the limits of Python's stack and of the parsers'."""

NONSENSE = (
    b"",
    b"\0",
    b"\xc1",  # never used by msgpack
    b"null",
    b"{",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe",
    b'{"msg":"DELPKG","data":{"package":"\xff"}}',
    b'{"msg":"DELPKG","data":{"package":"\\ud800"}}',
    b'{"msg":"DELPKG","data":{"package":NaN}}',
    b'{"msg":"DELPKG","data":{"package":' + b"9" * 5000 + b"}}",
    b'{"msg":"DELPKG","data":{"package":1e99999}}',
    b'{"msg":"DELPKG","msg":"NEWPKG","data":{"package":"foo"},"data":[]}',
    b'{"msg":"DELPKG","at":1e400,"data":{"package":"foo"}}',
    b"\x82\xa3msg\xa6DELPKG\xa4data\x81\xa7package\xa1\xff",  # no UTF-8
    b"\x82\xa3msg\xa6DELPKG\xa4data\x81\xa7package\xa3\xed\xa0\x80",  # a lone surrogate
    b"\x82\xa3msg\xa6DELPKG\xa4data\x81\x01\xa3foo",  # a number as key
    b"\x82\xa3msg\xa6DELPKG\xa4data\x81\x91\x01\xa3foo",  # a list as key
    b"\x82\xa3msg\xa6DELPKG\xa4data\x81\xc4\x07package\xc4\x03foo",  # bytes as key and value
    b"\xdd\xff\xff\xff\xff",  # a list of four billion
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xd6\xff\0\0\0\0",  # timestamps: of 32 bits,
    b"\xd7\xff" + b"\xff" * 8,  # with too many nanoseconds,
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xc7\x01\xff\0",  # and of a length that none has
    b"\x80\x80",  # more than one value
)
"""Bytes that are not messages, each for a reason of its own."""

_structured = st.one_of(
    mutated.map(line),
    mutated_wire.map(_pack),
    st.builds(lambda message: wire(message, feed="f", epoch=1, serial=7), messages),
    st.fixed_dictionaries(
        {},
        optional={
            "feed": wire_junk | st.just("f"),
            "epoch": wire_junk | st.just(1),
            "serial": wire_junk | st.just(1),
            "end": wire_junk,
            "gone": wire_junk | st.fixed_dictionaries({"epoch": wire_junk, "first": wire_junk}),
            "replay": wire_junk
            | st.fixed_dictionaries({"epoch": wire_junk, "after": wire_junk, "limit": wire_junk}),
            "msg": wire_junk | st.sampled_from(tuple(DATA)),
            "data": wire_junk,
        },
    ).map(_pack),
    junk.map(lambda value: json.dumps(value).encode()),
    wire_junk.map(_pack),
)

any_bytes = st.one_of(
    st.binary(max_size=64), st.sampled_from(NONSENSE), _structured, _spoilt(_structured)
)
"""Any bytes at all: random ones, and those that nearly are a message."""
