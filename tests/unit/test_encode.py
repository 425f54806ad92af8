"""Encoding: messages come back unchanged from the wire and from the journal."""

from __future__ import annotations

import itertools

import msgpack
import pytest

from indexer.base import times
from indexer.messages import decode, encode
from indexer.messages import types as messages
from indexer.messages.types import Position

from .. import samples
from ..samples import NOW, Envelope, decoded

pytestmark = pytest.mark.unit

by_message = pytest.mark.parametrize(
    "envelope", samples.EVERY, ids=lambda envelope: envelope["msg"]
)

AT = Position("master", 5, 7)


@by_message
def test_a_message_comes_back_from_the_journal(envelope: Envelope) -> None:
    message = decoded(envelope)
    stored = encode.to_journal(message)
    assert encode.from_journal(message.name, message.at, stored) == message
    assert encode.to_journal(message) == stored
    hash(encode.from_journal(message.name, message.at, stored))


@by_message
def test_a_message_comes_back_from_the_wire(envelope: Envelope) -> None:
    message = decoded(envelope)
    topic, payload = encode.published(AT, message)
    position, again, error = decode.published(payload, NOW)
    assert (position, again, error) == (AT, message, None)
    package = envelope["data"].get("package")
    assert topic.decode() == (f"{message.name} {package}" if package else message.name)
    assert payload == encode.payload(AT, message)
    assert topic == encode.topic(message)


def test_wire_has_the_names_and_types_of_the_design() -> None:
    message = decoded(samples.log_download("numpy-2.0-py3-none-any.whl", arch=None))
    topic, payload = encode.published(AT, message)
    assert topic == b"LOGDOWNLOAD"
    sent = msgpack.unpackb(payload)
    assert {name: sent[name] for name in ("feed", "epoch", "serial", "msg")} == {
        "feed": "master",
        "epoch": 5,
        "serial": 7,
        "msg": "LOGDOWNLOAD",
    }
    assert sent["at"] == msgpack.Timestamp(NOW // times.SECOND, 0)
    assert sent["data"]["accessed_at"] == msgpack.Timestamp(NOW // times.SECOND, 0)
    assert sent["data"]["filename"] == "numpy-2.0-py3-none-any.whl"
    assert sent["data"]["arch"] is None
    build = decoded(samples.log_build(1, "numpy", "2.0", "numpy-2.0-py3-none-any.whl"))
    topic, payload = encode.published(AT, build)
    assert topic == b"LOGBUILD numpy"
    data = msgpack.unpackb(payload)["data"]
    assert data["files"][0] == samples.file("numpy-2.0-py3-none-any.whl") | {"location": "/simple"}
    assert (data["status"], data["duration"]) == (True, 1.5)


def test_heartbeat_and_replay() -> None:
    topic, payload = encode.heartbeat(AT)
    assert topic == b"HEARTBEAT"
    assert decode.heartbeat(payload) == AT
    assert msgpack.unpackb(payload) == {"feed": "master", "epoch": 5, "serial": 7}
    assert decode.replay_request(encode.replay_request(5, 7, 9)) == decode.ReplayRequest(5, 7, 9)
    assert msgpack.unpackb(encode.replay_request(5, 7, 9)) == {
        "replay": {"epoch": 5, "after": 7, "limit": 9}
    }
    assert decode.replayed(encode.replay_end(7), NOW) == decode.End(7)
    assert msgpack.unpackb(encode.replay_end(7)) == {"end": 7}
    assert decode.replayed(encode.replay_gone(5, 3), NOW) == decode.Gone(5, 3)
    assert msgpack.unpackb(encode.replay_gone(5, 3)) == {"gone": {"epoch": 5, "first": 3}}


@pytest.mark.parametrize("value", [times.EARLIEST, -1, 0, 1, NOW, NOW + 999_999, times.LATEST])
def test_times_on_the_wire(value: int) -> None:
    packed = msgpack.packb(encode.timestamp(value))
    stamp = msgpack.unpackb(packed)
    assert int(stamp.seconds) * times.SECOND + stamp.nanoseconds // 1000 == value


def test_order_of_the_fields_in_the_journal() -> None:
    """Old journals store fields by position, so a new field goes to the end, with a default."""
    found = {name: " ".join(data._fields) for name, data in messages.BY_NAME.items()}
    assert found == {
        "SETABIS": "build_abis preinstalled_apt_packages",
        "NEWPKG": "package skip description",
        "NEWPKGNAME": "package name seen",
        "SETDESC": "package description",
        "SKIPPKG": "package reason",
        "DELPKG": "package",
        "NEWVER": "package version released skip",
        "SKIPVER": "package version reason",
        "YANKVER": "package version",
        "UNYANKVER": "package version",
        "DELVER": "package version",
        "LOGBUILD": "build_id slave_id package version abi_tag status duration files failure",
        "FAILURE": "build_id failure",
        "MOVEFILES": "package files",
        "DELBUILD": "package version",
        "LOGDOWNLOAD": "filename accessed_at arch distro_name distro_version os_name os_version"
        " py_name py_version installer_name installer_version setuptools_version",
        "SNAPSHOT": "package name description aliases releases",
        "DOWNLOADS": "package all hours",
    }
    assert messages.File._fields == (
        *("filename", "filesize", "filehash", "package_tag", "package_version_tag"),
        *("py_version_tag", "abi_tag", "platform_tag", "requires_python", "dependencies"),
        "location",
    )
    assert messages.SnapshotRelease._fields == (
        *("version", "released", "skip", "yanked", "abis", "files"),
    )
    assert messages.SnapshotBuild._fields == (
        *("abi_tag", "status", "build_id", "slave_id", "built_at", "duration"),
    )
    assert messages.SnapshotFile._fields == (
        *("filename", "filesize", "filehash", "location", "platform_tag", "abi_tag"),
        *("builder_abi", "requires_python", "apt_dependencies", "pip_dependencies"),
    )


def test_bytes_of_an_old_journal_are_still_read() -> None:
    """As the first version wrote them."""
    build = bytes.fromhex(
        "9807 01 a56e756d7079 a3322e30 a56370333131 c3 cb3ff8000000000000 91 9b"
        "a178 01 a0 a0 a0 a3707933 a46e6f6e65 a3616e79 c0 91 92 a3617074 91 a56c69626336"
        "a72f73696d706c65"
    )
    message = encode.from_journal("LOGBUILD", NOW, build)
    assert message.data == messages.LogBuild(
        *(7, 1, "numpy", "2.0", "cp311", True, 1.5),
        (
            messages.File(
                *("x", 1, "", "", "", "py3", "none", "any", None, (("apt", ("libc6",)),)),
                "/simple",
            ),
        ),
    )


def test_a_checksum_depends_on_all_of_a_message() -> None:
    """Every single bit of its serial, time and data, and its name."""
    whole = 123_456, 1_763_640_000_000_000, "DELVER", b"a\x93 few bytes"
    serial, at, name, data = whole
    changed = [(serial ^ 1 << bit, at, name, data) for bit in range(40)]
    changed += [(serial, at ^ 1 << bit, name, data) for bit in range(63)]
    changed += [
        (serial, at, other, data) for other in (*messages.BY_NAME, "EELVER") if other != name
    ]
    for place, bit in itertools.product(range(len(data)), range(8)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        changed.append((serial, at, name, bytes(flipped)))
    found = encode.checksum(*whole)
    assert encode.first_changed([(*whole, found), (*whole, None)]) is None
    for one in changed:
        assert encode.checksum(*one) != found
        assert encode.first_changed([(*whole, found), (*one, found)]) == one[0]
