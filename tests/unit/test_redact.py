"""What is kept of refused bytes: never the address of a downloader, also not in the reason."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import cbor2
import pytest

from indexer.base.errors import DecodeError
from indexer.messages import decode
from indexer.messages.entries import Refused, Withheld
from indexer.messages.redact import refused
from indexer.piwheels import cbor, translate
from indexer.piwheels.redact import refused_log

AT = datetime(2026, 11, 26, 12, tzinfo=UTC)
HOST = "192.0.2.77"


def entry(*client: object, name: str = "x-1-py3-none-any.whl") -> list[object]:
    return [name, HOST, AT, *client, *[None] * (10 - len(client))]


FRAMES = {
    "fields by name": cbor2.dumps(["LOGDOWNLOAD", {"filename": "x", "host": HOST}]),
    "another name": cbor2.dumps(["DOWNLOAD", ["x", HOST, AT]]),
    "the address as the name": cbor2.dumps([HOST, ["x"]]),
    "the address twice": cbor2.dumps(["LOGDOWNLOAD", entry(HOST, name="../x")]),
    "a name of a machine twice": cbor2.dumps(["LOGDOWNLOAD", [f"../{HOST}", HOST, *entry()[2:]]]),
    "the address as a time": cbor2.dumps(["LOGDOWNLOAD", ["x", "y", HOST, *[None] * 10]]),
    "in a time": cbor2.dumps(["LOGDOWNLOAD", ["x", "y", cbor2.CBORTag(0, HOST), *[None] * 10]]),
    "a time as tag 1": cbor2.dumps(["LOGDOWNLOAD", ["x", HOST, cbor2.CBORTag(1, 1790000000)]]),
    "a byte after its end": cbor2.dumps(["LOGDOWNLOAD", entry()]) + b"\0",
    "cut off": cbor2.dumps(["LOGDOWNLOAD", entry()])[:-2],
    "more fields": cbor2.dumps(["LOGDOWNLOAD", [*entry(name="../x"), HOST]]),
}


def of_frame(frame: bytes) -> Refused:
    try:
        name, data = cbor.loads(frame)
        if name != "LOGDOWNLOAD":
            raise DecodeError("", f"{name!r} is not a log entry")
        translate.download(data, 0)
    except DecodeError as error:
        return refused_log("log-queue", error, frame)
    raise AssertionError("it is valid")


def assert_withheld(found: Refused, raw: bytes) -> None:
    assert found.raw == b""
    assert found.withheld == Withheld(len(raw), hashlib.sha256(raw).digest())
    assert HOST not in str(found.error)
    assert str(found.error)


@pytest.mark.parametrize("name", FRAMES)
def test_of_a_log_entry_without_its_shape_nothing_is_kept(name: str) -> None:
    assert_withheld(of_frame(FRAMES[name]), FRAMES[name])


def test_a_log_entry_with_its_shape_can_be_retried() -> None:
    for data in (entry(7), entry(name="../x")):
        found = of_frame(cbor2.dumps(["LOGDOWNLOAD", data]))
        name, kept = cbor.loads(found.raw)
        assert (name, kept) == ("LOGDOWNLOAD", [data[0], "", *data[2:]])
        assert found.withheld is None


LINES = {
    "cut off": f'{{"msg":"LOGDOWNLOAD","data":{{"filename":"x","host":"{HOST}"}}',
    "data a list": f'{{"msg":"LOGDOWNLOAD","data":["x.whl","{HOST}"]}}',
    "a list": f'["LOGDOWNLOAD",["x.whl","{HOST}"]]',
    "a line of a log": f'{HOST} - - [26/Nov/2026:12:00:00 +0000] "GET /simple/x.whl HTTP/1.1" 200',
    "by the name of a machine": 'dsl-7.example.net - - [26/Nov/2026] "GET /simple/x.whl"',
    "another log": f'{{"msg":"LOGPAGE","data":{{"page":"faq","client":"{HOST}"}}}}',
    "in another field": f'{{"msg":"LOGDOWNLOAD","data":{{"filename":"x","client":"{HOST}"}}}}',
    "as the time": f'{{"msg":"LOGDOWNLOAD","data":{{"filename":"x","accessed_at":"{HOST}"}}}}',
    "escaped and cut off": '{"msg":"LOGD\\u004fWNLOAD","data":{"h\\u006fst":"2001\\u003adb8',
}


def of_line(line: str) -> Refused:
    try:
        decode.from_json(line.encode(), 0)
    except DecodeError as error:
        return refused(None, "file", "json", error, line.encode())
    raise AssertionError("it is valid")


@pytest.mark.parametrize("name", LINES)
def test_of_a_line_that_may_hold_an_address_nothing_is_kept(name: str) -> None:
    assert_withheld(of_line(LINES[name]), LINES[name].encode())


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (f'{{"msg":"LOGDOWNLOAD","data":{{"host":"{HOST}"}}}}', b'{"msg":"LOGDOWNLOAD","data":{}}'),
        (
            f'{{"msg":"NEW","data":{{"version":"1.2.3.4","by":{{"host":"{HOST}"}}}}}}',
            b'{"msg":"NEW","data":{"version":"1.2.3.4","by":{}}}',
        ),
        (f'{{"msg":"NEWVER","host":"{HOST}","data":[]}}', b'{"msg":"NEWVER","data":[]}'),
        ('{"msg":"NEWPKG", ', b'{"msg":"NEWPKG", '),
        ("[]", b"[]"),
        ("nonsense", b"nonsense"),
    ],
)
def test_what_is_free_of_an_address_is_kept(line: str, kept: bytes) -> None:
    found = of_line(line)
    assert (found.raw, found.withheld) == (kept, None)
