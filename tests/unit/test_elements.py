"""Values are counted before they are made, and no frame of values that nobody sends becomes any."""

from __future__ import annotations

import resource
import subprocess
import sys

import cbor2
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voluptuous import Invalid

from indexer.base.errors import DecodeError
from indexer.messages import decode, elements
from indexer.messages.types import Position
from indexer.piwheels import cbor
from indexer.schema import messages as schema

pytestmark = pytest.mark.unit

SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=300),
    st.binary(max_size=300),
)


def _keys() -> st.SearchStrategy[str]:
    return st.text(max_size=40)


VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(_keys(), inner),
    max_leaves=60,
)


def counted(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(counted, value))
    if isinstance(value, dict):
        return 1 + sum(1 + counted(one) for one in value.values())
    return 1


@given(VALUES)
def test_every_value_is_counted(value: object) -> None:
    assert elements.count_msgpack(msgpack.packb(value)) == counted(value)
    assert elements.count_cbor(cbor2.dumps(value)) == counted(value)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 17, 300, 70_000])
def test_extensions_are_passed_over(size: int) -> None:
    value = [msgpack.ExtType(5, b"x" * size), msgpack.Timestamp(1, 0), "x" * size, b"x" * size, 1]
    assert elements.count_msgpack(msgpack.packb(value)) == 6


@given(st.binary(max_size=200))
def test_whatever_the_bytes(frame: bytes) -> None:
    for count in (elements.count_msgpack, elements.count_cbor):
        try:
            assert count(frame, 1000) >= 1
        except ValueError:
            pass


N = 15 * 1024 * 1024
BIG = N.to_bytes(4, "big")
HEAD = msgpack.packb({"feed": "f", "epoch": 1, "serial": 7, "msg": "NEWPKG"})
DATA = b"\x85" + HEAD[1:] + b"\xa4data\x82\xa7package\xa5numpy\xa1x"
FRAMES = {
    "msgpack: empty lists": DATA + b"\xdd" + BIG + b"\x90" * N,
    "msgpack: empty maps": DATA + b"\xdd" + BIG + b"\x80" * N,
    "msgpack: short texts": DATA + b"\xdd" + (N // 3).to_bytes(4, "big") + b"\xa2ab" * (N // 3),
    "msgpack: lists in lists": DATA + (b"\xdd" + BIG) * 1000 + b"\xc0" * elements.MAX_UNCOUNTED,
    "cbor: empty lists": b"\x82\x6bLOGDOWNLOAD\x9a" + BIG + b"\x80" * N,
    "cbor: empty maps": b"\x82\x6bLOGDOWNLOAD\x9a" + BIG + b"\xa0" * N,
}
PROBE = """
import resource, sys
from indexer.messages import decode, elements
from indexer.base.errors import DecodeError
from indexer.piwheels import cbor
frame = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    if sys.argv[1] == "cbor":
        cbor.loads(frame)
    else:
        print(decode.published(frame, 0).error)
except DecodeError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("what", FRAMES)
def test_a_frame_does_not_become_gigabytes(what: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, what.partition(":")[0]],
        input=FRAMES[what],
        capture_output=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )
    *error, mebibytes = done.stdout.decode().splitlines()
    assert f"more than {elements.MAX_ELEMENTS} values" in "".join(error)
    assert int(mebibytes) < 16, "counting takes no memory"


def test_the_position_is_read_without_the_data() -> None:
    assert decode.position_of(FRAMES["msgpack: empty lists"]) == Position("f", 1, 7)
    assert decode.position_of(b"\x81\xa4data\x90") is None
    assert decode.position_of(b"\xc1") is None
    assert decode.position_of(msgpack.packb({"feed": "file:x", "epoch": 1, "serial": 1})) is None


def test_what_no_frame_holds_is_refused_by_its_number() -> None:
    payload = msgpack.packb({"feed": "f", "x": [[]] * (elements.MAX_ELEMENTS + 1)})
    with pytest.raises(DecodeError, match="more than 1000000 values"):
        decode.published(payload, 0)
    with pytest.raises(DecodeError, match="more than 10 values"):
        cbor.loads(cbor2.dumps(["LOGDOWNLOAD", [0] * 70_000]), max_elements=10)


@pytest.mark.parametrize(
    "hostile",
    [
        cbor2.dumps(["STATS", 2**40_000]),
        cbor2.dumps(["STATS", [2**40_000]]),
        b"\x82\x65STATS\xd8\x23\x61(",  # a regular expression
        b"\x82\x65STATS\xd8\x1c\x81\xd8\x1d\x00",  # a list that holds itself
        b"\x82\x65STATS\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    ],
)
def test_tags_that_piwheels_does_not_have(hostile: bytes) -> None:
    """With cbor2 5 the error about such a number was an error of its own, and ended the daemon."""
    with pytest.raises(ValueError, match="piwheels has no tag"):
        elements.count_cbor(hostile, tags={0, 258, 2001, 2002})
    with pytest.raises(DecodeError, match="piwheels has no tag"):
        cbor.loads(hostile)


def test_numbers_that_python_does_not_write_are_shown_by_their_size() -> None:
    huge = -(10**5000)
    assert schema.shown(huge) == "a number of 16610 bits"
    with pytest.raises(Invalid, match="a number of 16610 bits is not between"):
        schema.integer(huge)
    assert schema.shown(2**64 - 1) == "18446744073709551615"
