"""Decoding: every rule for messages, and only one kind of exception, whatever the bytes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgpack
import orjson
import pytest

from indexer.base import times
from indexer.base.errors import DecodeError
from indexer.messages import decode
from indexer.messages import types as messages
from indexer.messages.decode import End, Gone, ReplayRequest
from indexer.messages.types import Position
from indexer.schema.messages import MAX_INTEGER

from .. import samples
from ..samples import AT, HASH, NOW, Envelope, decoded

pytestmark = pytest.mark.unit

Change = Callable[[Envelope], object]

TIMES = ("at", "built_at", "released", "seen", "accessed_at")


def on_the_wire(value: Any, name: str = "") -> Any:
    """An envelope with its times as msgpack has them."""
    if isinstance(value, dict):
        return {key: on_the_wire(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [on_the_wire(one) for one in value]
    if name in TIMES and isinstance(value, str):
        seconds, microseconds = divmod(times.parse_rfc3339(value), times.SECOND)
        return msgpack.Timestamp(seconds, microseconds * 1000)
    return value


def refused(envelope: object) -> DecodeError:
    """The error for a message, which must be the same in both encodings."""
    with pytest.raises(DecodeError) as json_error:
        decode.from_json(orjson.dumps(envelope), NOW)
    with pytest.raises(DecodeError) as msgpack_error:
        decode.from_msgpack(msgpack.packb(on_the_wire(envelope)), NOW)
    error = json_error.value
    assert error.path == msgpack_error.value.path
    assert str(error) == (f"{error.path}: {error.cause}" if error.path else error.cause)
    return error


BUILD = samples.log_build(1, "numpy", "2.0", "numpy-2.0-cp311-cp311-linux_armv7l.whl")
SNAPSHOT = samples.snapshot(
    "numpy",
    releases={
        "2.0": samples.snapshot_release(
            {"numpy-2.0-py3-none-any.whl": samples.snapshot_file()}, {"cp311": ("success", 1)}
        )
    },
)


# What is accepted


@pytest.mark.parametrize("envelope", samples.EVERY, ids=lambda envelope: envelope["msg"])
def test_both_encodings_give_the_same_message(envelope: Envelope) -> None:
    from_json = decoded(envelope)
    assert from_json == decode.from_msgpack(msgpack.packb(on_the_wire(envelope)), NOW)
    assert from_json.name == envelope["msg"]
    assert type(from_json.data) is messages.BY_NAME[from_json.name]
    hash(from_json)  # frozen, all the way down


def test_samples_have_every_message() -> None:
    assert {envelope["msg"] for envelope in samples.EVERY} == messages.BY_NAME.keys()


def test_fields_and_their_values() -> None:
    build = decoded(
        samples.log_build(
            7,
            "numpy",
            "2.0",
            samples.file(
                "numpy-2.0-cp311-cp311-linux_armv7l.whl",
                dependencies={"apt": ["libc6"], "": []},
                location="https://example.org",
            ),
            slave_id=0,
            duration=3,
        )
    )
    assert build.at == NOW
    assert build.data == messages.LogBuild(
        build_id=7,
        slave_id=0,
        package="numpy",
        version="2.0",
        abi_tag="cp311",
        status=True,
        duration=3.0,
        files=(
            messages.File(
                filename="numpy-2.0-cp311-cp311-linux_armv7l.whl",
                filesize=1000,
                filehash=HASH,
                package_tag="numpy",
                package_version_tag="2.0",
                py_version_tag="cp311",
                abi_tag="cp311",
                platform_tag="linux_armv7l",
                requires_python=None,
                dependencies=(("apt", ("libc6",)), ("", ())),
                location="https://example.org",
            ),
        ),
    )
    assert type(build.data.duration) is float


def test_missing_fields_have_their_defaults() -> None:
    assert decoded(samples.message("NEWPKG", package="numpy")).data == ("numpy", "", "")
    version = samples.message("NEWVER", package="numpy", version="1", released=None)
    assert decoded(version).data == ("numpy", "1", None, "")
    assert decoded(BUILD).data.files[0].location == "/simple"


@pytest.mark.parametrize("at", ["missing", "null"])
def test_message_without_a_time_has_that_of_its_receipt(at: str) -> None:
    envelope = samples.new_package("numpy")
    if at == "missing":
        del envelope["at"]
    else:
        envelope["at"] = None
    assert decoded(envelope, received=12_345).at == 12_345
    assert decode.from_msgpack(msgpack.packb(envelope), 12_345).at == 12_345


def test_unknown_fields_are_ignored() -> None:
    build = copy.deepcopy(BUILD)
    build["more"] = {"anything": [1]}
    build["data"]["output"] = "gcc " * 1000
    build["data"]["files"][0]["colour"] = "blue"
    assert decoded(build) == decoded(BUILD)
    snapshot = copy.deepcopy(SNAPSHOT)
    snapshot["data"]["releases"]["2.0"]["x"] = None
    snapshot["data"]["releases"]["2.0"]["abis"]["cp311"]["x"] = None
    snapshot["data"]["releases"]["2.0"]["files"]["numpy-2.0-py3-none-any.whl"]["x"] = None
    assert decoded(snapshot) == decoded(SNAPSHOT)
    download = samples.log_download("numpy-2.0-py3-none-any.whl", host="203.0.113.7")
    assert "203.0.113.7" not in repr(decoded(download))


def test_null_and_empty_requires_python_are_kept_apart() -> None:
    for value in (None, "", ">=3.9"):
        envelope = copy.deepcopy(BUILD)
        envelope["data"]["files"][0]["requires_python"] = value
        assert decoded(envelope).data.files[0].requires_python == value


def test_times_of_the_wire_to_the_microsecond() -> None:
    for seconds, nanoseconds, microseconds in (
        (0, 0, 0),
        (-1, 999_999_999, -1),
        (1_795_357_037, 520_624_999, 1_795_357_037_520_624),
        (-62_135_596_800, 0, times.EARLIEST),
        (253_402_300_799, 999_999_000, times.LATEST),
    ):
        at = msgpack.Timestamp(seconds, nanoseconds)
        payload = msgpack.packb({"msg": "DELPKG", "at": at, "data": {"package": "numpy"}})
        assert decode.from_msgpack(payload, NOW).at == microseconds


@pytest.mark.parametrize(
    ("envelope", "change"),
    [
        (samples.new_package("a"), {"package": "a" * 200}),
        (samples.new_name("a", "a"), {"name": "é" * 200}),
        (samples.new_name("a", "a"), {"name": "nobody's name\n"}),
        (samples.new_version("a", "1"), {"version": "x" * 200}),
        (samples.new_version("a", "1"), {"version": "not a version, but safe"}),
        (samples.log_download("x"), {"filename": "é" * 255}),
        (BUILD, {"build_id": MAX_INTEGER, "slave_id": 0, "duration": 0}),
        (BUILD, {"duration": 1e300, "files": []}),
        (BUILD, {"abi_tag": "cp37m"}),
        (BUILD, {"abi_tag": "cp313t"}),
        (samples.set_abis(), {"build_abis": {}, "preinstalled_apt_packages": {}}),
        (samples.set_abis(), {"preinstalled_apt_packages": {"cp37m": [], "cp39": ["", "é"]}}),
    ],
)
def test_limits_are_inside(envelope: Envelope, change: dict[str, Any]) -> None:
    changed = copy.deepcopy(envelope)
    changed["data"] |= change
    decoded(changed)
    decode.from_msgpack(msgpack.packb(on_the_wire(changed)), NOW)


# What is refused


def set_data(**values: object) -> Change:
    return lambda envelope: envelope["data"].update(values)


def drop(name: str) -> Change:
    return lambda envelope: envelope["data"].pop(name)


def set_file(**values: object) -> Change:
    return lambda envelope: envelope["data"]["files"][0].update(values)


def set_release(**values: object) -> Change:
    return lambda envelope: envelope["data"]["releases"]["2.0"].update(values)


def set_snapshot_file(**values: object) -> Change:
    return lambda envelope: envelope["data"]["releases"]["2.0"]["files"][
        "numpy-2.0-py3-none-any.whl"
    ].update(values)


PACKAGE = samples.new_package("numpy")
NAME = samples.new_name("numpy", "NumPy")
VERSION = samples.new_version("numpy", "2.0")
DOWNLOAD = samples.log_download("numpy-2.0-py3-none-any.whl")
ABIS = samples.set_abis("cp311")
COUNTERS = samples.downloads("numpy", 1, {AT: 1})
HUGE = 2**63


@pytest.mark.parametrize(
    ("envelope", "change", "path"),
    [
        # packages: canonical, safe
        *[
            (PACKAGE, set_data(package=value), "data.package")
            for value in (
                *("", "NumPy", "a_b", "-a", "a-", "a--b", ".", "..", "../etc", "/etc", "a\0"),
                *("a/b", "é", "a" * 201, None, 7, True, ["numpy"], {"a": 1}, 1.5, "a\n"),
            )
        ],
        (PACKAGE, drop("package"), "data.package"),
        (PACKAGE, set_data(skip=None), "data.skip"),
        (PACKAGE, set_data(description=7), "data.description"),
        # other spellings: safe
        *[
            (NAME, set_data(name=value), "data.name")
            for value in ("", ".", ".numpy", "../numpy", "a/b", "a\0b", "a" * 201, None, 7)
        ],
        (NAME, drop("seen"), "data.seen"),
        # versions: safe
        *[
            (VERSION, set_data(version=value), "data.version")
            for value in ("", "..", ".1", "1/2", "1\0", "1" * 201, None, 2.0)
        ],
        (VERSION, drop("released"), "data.released"),
        (VERSION, set_data(skip=False), "data.skip"),
        # builds
        *[
            (BUILD, set_data(build_id=value), "data.build_id")
            for value in (0, -1, HUGE, "7", True, 7.0, None)
        ],
        *[(BUILD, set_data(slave_id=value), "data.slave_id") for value in (-1, HUGE, "1", False)],
        *[
            (BUILD, set_data(abi_tag=value), "data.abi_tag")
            for value in ("none", "abi3", "", "cp3", "cp311x", "py3", "cp 39", None, 39)
        ],
        *[(BUILD, set_data(status=value), "data.status") for value in (0, 1, None, "true")],
        *[
            (BUILD, set_data(duration=value), "data.duration")
            for value in (-1, -0.001, "1", None, True, [1])
        ],
        (BUILD, set_data(files=None), "data.files"),
        (BUILD, set_data(files={}), "data.files"),
        (BUILD, set_data(files="x"), "data.files"),
        (BUILD, set_data(files=0), "data.files"),
        (BUILD, set_data(files=[None]), "data.files[0]"),
        (BUILD, set_data(files=[samples.file("a-1-py3-none-any.whl"), 7]), "data.files[1]"),
        *[(BUILD, drop(name), f"data.{name}") for name in BUILD["data"]],
        # files
        *[
            (BUILD, set_file(filename=value), "data.files[0].filename")
            for value in ("", "..", ".htaccess", "../x.whl", "a/b.whl", "a\0b", "a" * 256, None)
        ],
        *[
            (BUILD, set_file(filesize=value), "data.files[0].filesize")
            for value in (-1, "1", True, 1.5, None, HUGE)
        ],
        *[
            (BUILD, set_file(filehash=value), "data.files[0].filehash")
            for value in ("", HASH[1:], HASH + "0", HASH.upper(), "g" * 64, "\uff11" * 64, None)
        ],
        *[
            (BUILD, set_file(**{name: value}), f"data.files[0].{name}")
            for name in (
                *("package_tag", "package_version_tag", "py_version_tag", "abi_tag"),
                *("platform_tag", "location"),
            )
            for value in (None, 7)
        ],
        (BUILD, set_file(requires_python=3), "data.files[0].requires_python"),
        (BUILD, set_file(dependencies=None), "data.files[0].dependencies"),
        (BUILD, set_file(dependencies=["libc6"]), "data.files[0].dependencies"),
        (BUILD, set_file(dependencies={"npm": ["x"]}), "data.files[0].dependencies.npm"),
        (BUILD, set_file(dependencies={"apt": "libc6"}), "data.files[0].dependencies.apt"),
        (BUILD, set_file(dependencies={"apt": [7]}), "data.files[0].dependencies.apt[0]"),
        # downloads
        *[
            (DOWNLOAD, set_data(filename=value), "data.filename")
            for value in ("", "../x.whl", "a/b.whl", None, "a" * 256)
        ],
        (DOWNLOAD, set_data(accessed_at=None), "data.accessed_at"),
        (DOWNLOAD, drop("accessed_at"), "data.accessed_at"),
        *[
            (DOWNLOAD, set_data(**{name: 7}), f"data.{name}")
            for name in DOWNLOAD["data"]
            if name not in ("filename", "accessed_at")
        ],
        *[(DOWNLOAD, drop(name), f"data.{name}") for name in DOWNLOAD["data"]],
        # ABIs
        (ABIS, set_data(build_abis=["cp311"]), "data.build_abis"),
        (ABIS, set_data(build_abis={"abi3": ""}), "data.build_abis.abi3"),
        (ABIS, set_data(build_abis={"cp311": None}), "data.build_abis.cp311"),
        (
            ABIS,
            set_data(preinstalled_apt_packages={"cp311": "libc6"}),
            "data.preinstalled_apt_packages.cp311",
        ),
        (
            ABIS,
            set_data(preinstalled_apt_packages={"none": []}),
            "data.preinstalled_apt_packages.none",
        ),
        # counters
        *[(COUNTERS, set_data(all=value), "data.all") for value in (-1, None, 1.0, HUGE)],
        (COUNTERS, set_data(hours=[]), "data.hours"),
        (COUNTERS, set_data(hours={AT: -1}), f"data.hours.'{AT}'"),
        (COUNTERS, set_data(hours={"noon": 1}), "data.hours.noon"),
        (
            COUNTERS,
            set_data(hours={"2026-11-20T12:00:01Z": 1}),
            "data.hours.'2026-11-20T12:00:01Z'",
        ),
        (COUNTERS, set_data(all=2**62), "data.all"),
        (COUNTERS, set_data(hours={AT: 2**62}), f"data.hours.'{AT}'"),
        # snapshots
        (SNAPSHOT, set_data(name="../x"), "data.name"),
        (SNAPSHOT, set_data(description=None), "data.description"),
        (SNAPSHOT, set_data(aliases="x"), "data.aliases"),
        (SNAPSHOT, set_data(aliases=["a", ".b"]), "data.aliases[1]"),
        (SNAPSHOT, set_data(releases=[]), "data.releases"),
        (SNAPSHOT, set_data(releases={"../1": samples.snapshot_release()}), "data.releases.'../1'"),
        (SNAPSHOT, set_release(skip=None), "data.releases.'2.0'.skip"),
        (SNAPSHOT, set_release(yanked=0), "data.releases.'2.0'.yanked"),
        (
            SNAPSHOT,
            set_release(abis={"any": {"status": "pending", "build_id": None}}),
            "data.releases.'2.0'.abis.any",
        ),
        (
            SNAPSHOT,
            set_release(abis={"cp311": {"status": "good", "build_id": 1}}),
            "data.releases.'2.0'.abis.cp311.status",
        ),
        (
            SNAPSHOT,
            set_release(abis={"cp311": {"status": "fail", "build_id": 0}}),
            "data.releases.'2.0'.abis.cp311.build_id",
        ),
        (
            SNAPSHOT,
            set_release(files={"a/b": samples.snapshot_file()}),
            "data.releases.'2.0'.files.'a/b'",
        ),
        *[
            (
                SNAPSHOT,
                set_snapshot_file(**change),
                "data.releases.'2.0'.files.'numpy-2.0-py3-none-any.whl'." + next(iter(change)),
            )
            for change in (
                {"filesize": -1},
                {"filehash": "x"},
                {"builder_abi": "none"},
                {"apt_dependencies": None},
                {"pip_dependencies": "x"},
                {"requires_python": 3},
            )
        ],
    ],
)
def test_what_is_refused_and_where(envelope: Envelope, change: Change, path: str) -> None:
    changed = copy.deepcopy(envelope)
    change(changed)
    error = refused(changed)
    assert error.path == path
    assert error.cause
    assert "please report" not in error.cause


@pytest.mark.parametrize("value", ["2026-11-20T12:00:00", "yesterday", 5, 1.5, True, []])
def test_times_in_a_file_have_a_zone(value: object) -> None:
    for envelope, name in ((DOWNLOAD, "accessed_at"), (VERSION, "released"), (NAME, "seen")):
        changed = copy.deepcopy(envelope)
        changed["data"][name] = value
        with pytest.raises(DecodeError) as error:
            decoded(changed)
        assert error.value.path == f"data.{name}"
    with pytest.raises(DecodeError) as error:
        decoded(samples.new_package("numpy") | {"at": value})
    assert error.value.path == "at"


@pytest.mark.parametrize(
    "value",
    [
        AT,
        NOW,
        1.5,
        msgpack.Timestamp(-62_135_596_801, 999_999_999),
        msgpack.Timestamp(253_402_300_800, 0),
        msgpack.Timestamp(2**63 - 1, 0),
        msgpack.ExtType(5, b"x"),
    ],
)
def test_times_on_the_wire_are_timestamps(value: object) -> None:
    for envelope, name in ((DOWNLOAD, "accessed_at"), (VERSION, "released"), (NAME, "seen")):
        changed = on_the_wire(envelope)
        changed["data"][name] = value
        with pytest.raises(DecodeError) as error:
            decode.from_msgpack(msgpack.packb(changed), NOW)
        assert error.value.path == f"data.{name}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_durations_are_finite(value: float) -> None:
    changed = on_the_wire(copy.deepcopy(BUILD))
    changed["data"]["duration"] = value
    with pytest.raises(DecodeError) as error:
        decode.from_msgpack(msgpack.packb(changed), NOW)
    assert error.value.path == "data.duration"


@pytest.mark.parametrize(
    ("envelope", "path", "says"),
    [
        ([], "", "map"),
        (None, "", "map"),
        (7, "", "map"),
        ("NEWPKG", "", "map"),
        ({}, "data", "missing"),
        ({"data": {}}, "msg", "missing"),
        ({"msg": None, "data": {}}, "msg", "text"),
        ({"msg": ["NEWPKG"], "data": {}}, "msg", "text"),
        ({"msg": "newpkg", "data": {}}, "msg", "no message"),
        ({"msg": "FORMAT", "data": {}}, "msg", "no message"),
        ({"msg": "NEWPKG"}, "data", "missing"),
        ({"msg": "NEWPKG", "data": None}, "data", "dict"),
        ({"msg": "NEWPKG", "data": ["numpy"]}, "data", "dict"),
        ({"msg": "NEWPKG", "data": {}}, "data.package", "missing"),
        ({"msg": "NEWPKG", "data": {"package": "numpy"}, "at": 5}, "at", "5"),
    ],
)
def test_a_wrong_envelope_is_refused(envelope: object, path: str, says: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode.from_json(orjson.dumps(envelope), NOW)
    assert error.value.path in (path, "msg" if envelope == {} else path)
    assert says in error.value.cause
    with pytest.raises(DecodeError):
        decode.from_msgpack(msgpack.packb(envelope), NOW)


DEEP = 1000

BYTES = {
    "nothing": b"",
    "a NUL": b"\0",
    "never used": b"\xc1",
    "half a map": b"\x82\xa3msg",
    "text that is not UTF-8": b"\x81\xa3msg\xa1\xff",
    "map with keys that cannot be": b"\x81\x90\xc0",
    "number as key": b"\x81\x01\xc0",
    "two messages": b"\x80\x80",
    "a claim of 4 GiB": b"\xdd\xff\xff\xff\xff",
    "bad timestamp": b"\xd6\xff\xff\xff\xff",
    "timestamp of 12 bytes, too many nanoseconds": b"\xc7\x0c\xff" + b"\xff" * 12,
    "deep lists": b"\x91" * DEEP + b"\xc0",
    "deep maps": b"\x81\xa1x" * DEEP + b"\xc0",
    "very deep lists": b"\x91" * 100_000 + b"\xc0",
    "deep data": b"\x82\xa3msg\xa6NEWPKG\xa4data\x81\xa7package" + b"\x91" * DEEP + b"\xc0",
    "deep name": b"\x82\xa4data\x80\xa3msg" + b"\x91" * DEEP + b"\xc0",
    "JSON": b'{"msg": "NEWPKG"}',
    "no JSON": b'{"msg": ',
    "JSON that is not UTF-8": b'{"msg": "\xff"}',
    "half of a surrogate": rb'{"msg": "NEWPKG", "data": {"package": "\ud800"}}',
    "NaN": b'{"msg": "NEWPKG", "data": NaN}',
    "a huge number": b'{"msg": "NEWPKG", "data": {"package": ' + b"9" * 5000 + b"}}",
    "deep JSON": b"[" * DEEP + b"]" * DEEP,
    "very deep JSON": b"[" * 100_000 + b"]" * 100_000,
    "deep JSON data": b'{"msg":"NEWPKG","data":{"package":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "deep JSON map": b'{"msg":' + b'{"x":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "two JSON values": b"{} {}",
    "a mark of byte order": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("payload", BYTES.values(), ids=BYTES.keys())
def test_one_exception_whatever_the_bytes(payload: bytes) -> None:
    for function in (
        lambda: decode.from_msgpack(payload, NOW),
        lambda: decode.from_json(payload, NOW),
        lambda: decode.published(payload, NOW),
        lambda: decode.heartbeat(payload),
        lambda: decode.replayed(payload, NOW),
        lambda: decode.replay_request(payload),
    ):
        with pytest.raises(DecodeError) as error:
            function()
        assert error.value.cause
        assert len(str(error.value)) < 1000


def test_errors_are_short_and_safe_on_a_terminal() -> None:
    error = refused(samples.message("NEWPKG", package="\x1b[31m" + "é" * 100_000))
    assert len(str(error)) < 1000
    assert str(error).isascii()
    assert "\x1b" not in str(error)
    key = refused(
        samples.message("SETABIS", build_abis={"\x1b[2J": ""}, preinstalled_apt_packages={})
    )
    assert "\x1b" not in str(key)


# The change feed


POSITION = {"feed": "master", "epoch": 5, "serial": 7}


def published(**changes: object) -> bytes:
    packed: bytes = msgpack.packb(on_the_wire({**POSITION, **PACKAGE, **changes}))
    return packed


def test_a_published_message_has_its_position() -> None:
    position, message, error = decode.published(published(), NOW)
    assert position == Position("master", 5, 7)
    assert message == decoded(PACKAGE)
    assert error is None


def test_invalid_message_keeps_its_place() -> None:
    position, message, error = decode.published(published(data={"package": "../x"}), NOW)
    assert position == Position("master", 5, 7)
    assert message is None
    assert error is not None
    assert error.path == "data.package"


UNREADABLE = {
    "a timestamp of five bytes": b"\xc7\x05\xff12345",
    "a timestamp with too many nanoseconds": b"\xd7\xff" + b"\xff" * 8,
    "a text that is not UTF-8": b"\xa2\xff\xfe",
    "a key that is a list": b"\x81\x91\x01\x01",
    "a byte that msgpack does not have": b"\xc1",
}


@pytest.mark.parametrize("first", [True, False], ids=["position-first", "position-last"])
@pytest.mark.parametrize("name", UNREADABLE)
def test_message_that_cannot_be_unpacked_keeps_its_place(name: str, first: bool) -> None:
    """One malformed timestamp once broke the feed: its position was not read."""
    bad = UNREADABLE[name]
    position = b"".join(msgpack.packb(one) for pair in POSITION.items() for one in pair)
    rest = msgpack.packb("msg") + msgpack.packb("DELPKG") + msgpack.packb("at") + bad
    payload = b"\x85" + (position + rest if first else rest + position)
    if bad == b"\xc1" and not first:  # where it ends is not known, nor what is behind it
        with pytest.raises(DecodeError):
            decode.published(payload, NOW)
        return
    for decoder in (decode.published, decode.replayed):
        found = decoder(payload, NOW)
        assert isinstance(found, decode.Published)
        assert (found.position, found.message) == (Position("master", 5, 7), None)
        assert "is not msgpack" in str(found.error)


def test_what_is_cut_off_before_its_position_has_none() -> None:
    whole = published()
    for length in range(len(whole)):
        try:
            found = decode.published(whole[:length], NOW)
        except DecodeError:
            continue
        assert found.position == Position("master", 5, 7)
        assert found.error is not None


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"feed": None}, "feed"),
        ({"feed": 7}, "feed"),
        ({"feed": "file:" + HASH}, "feed"),
        ({"epoch": -1}, "epoch"),
        ({"epoch": "5"}, "epoch"),
        ({"epoch": HUGE}, "epoch"),
        ({"serial": 0}, "serial"),
        ({"serial": -1}, "serial"),
        ({"serial": True}, "serial"),
        ({"serial": 1.0}, "serial"),
        ({"serial": HUGE}, "serial"),
    ],
)
def test_message_without_a_place(change: dict[str, object], path: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode.published(published(**change), NOW)
    assert error.value.path == path


@pytest.mark.parametrize(
    "feed",
    ["x" * 101, "x\nforged", "\x1b[2J", "a\u202eb", "\x9b", "zero\u200bwidth", "\x7f"],
    ids=ascii,
)
def test_feed_names_are_short_and_printable(feed: str) -> None:
    """Names of feeds appear in logs, on screens and in metrics, so a bad one is refused."""
    for decoder in (decode.published, decode.replayed):
        with pytest.raises(DecodeError) as error:
            decoder(published(feed=feed), NOW)
        assert error.value.path == "feed"
        assert "is not printable, or is longer than 100 characters" in error.value.cause
        assert str(error.value).isprintable()
    with pytest.raises(DecodeError):
        decode.heartbeat(msgpack.packb({**POSITION, "feed": feed}))
    assert decode.position_of(published(feed=feed)) is None


def test_feed_name_may_have_a_hundred_characters() -> None:
    assert decode.heartbeat(msgpack.packb({**POSITION, "feed": "é" * 100})).feed == "é" * 100


def test_a_heartbeat_is_a_position() -> None:
    assert decode.heartbeat(msgpack.packb(POSITION)) == Position("master", 5, 7)
    beginning = msgpack.packb({**POSITION, "serial": 0, "more": [1]})
    assert decode.heartbeat(beginning) == Position("master", 5, 0)


def test_an_answer_is_a_message_an_end_or_gone() -> None:
    found = decode.replayed(published(), NOW)
    assert found == decode.published(published(), NOW)
    assert decode.replayed(msgpack.packb({"end": 7}), NOW) == End(7)
    gone = msgpack.packb({"gone": {"epoch": 6, "first": 3}})
    assert decode.replayed(gone, NOW) == Gone(6, 3)


@pytest.mark.parametrize(
    "answer",
    [
        {"end": None},
        {"end": -1},
        {"end": "7"},
        {"gone": None},
        {"gone": {}},
        {"gone": {"epoch": 1}},
        {"gone": {"epoch": 1, "first": None}},
        {"gone": [1, 2]},
        {},
        [],
        "end",
        {"neither": 1},
    ],
)
def test_no_answer_to_a_replay(answer: object) -> None:
    with pytest.raises(DecodeError):
        decode.replayed(msgpack.packb(answer), NOW)


def test_a_replay_request_is_read_and_more_fields_ignored() -> None:
    request = {"replay": {"epoch": 5, "after": 0, "limit": 1, "more": 1}}
    assert decode.replay_request(msgpack.packb(request)) == ReplayRequest(5, 0, 1)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        [],
        {"replay": None},
        {"replay": {"epoch": 5, "after": -1, "limit": 1}},
        {"replay": {"epoch": 5, "after": 1, "limit": 0}},
        {"replay": {"epoch": 5}},
    ],
)
def test_no_replay_request(asked: object) -> None:
    with pytest.raises(DecodeError):
        decode.replay_request(msgpack.packb(asked))


def test_there_are_so_many_build_abis() -> None:
    """Each is an entry of every version of every package: with many no document fits anywhere."""
    abis = {f"cp3{number}": "" for number in range(1, 102)}
    for field in ("build_abis", "preinstalled_apt_packages"):
        data: dict[str, Any] = {"build_abis": {}, "preinstalled_apt_packages": {}}
        data[field] = {abi: "" if field == "build_abis" else [] for abi in abis}
        line = orjson.dumps({"msg": "SETABIS", "data": data})
        with pytest.raises(DecodeError, match=f"data.{field}: has more than 100 entries"):
            decode.from_json(line, 0)
        del data[field]["cp3101"]
        decode.from_json(orjson.dumps({"msg": "SETABIS", "data": data}), 0)
