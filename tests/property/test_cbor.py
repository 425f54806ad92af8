"""piwheels' encoding: `DecodeError` and nothing else, whatever the bytes; data comes back whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.base.errors import DecodeError
from indexer.piwheels import cbor
from indexer.schema import piwheels as schema
from indexer.schema.messages import Validator
from indexer.schema.piwheels import NO_DATA

from ..master import captured
from . import strategies as s
from .decoding import check_error
from .profiles import examples

pytestmark = pytest.mark.property

CAPTURES = [one for path in captured.files() for one in captured.captures(path)]
FRAMES = st.sampled_from([one.frame for one in CAPTURES])

SCHEMAS: dict[str, Validator] = {
    "MASTER_HELLO": schema.MASTER_HELLO,
    "MASTER_STATS": schema.MASTER_STATS,
    "SLAVE": schema.SLAVE,
    **schema.SLAVE_MESSAGES,
    "DOWNLOAD": schema.DOWNLOAD,
    "PROJECT": schema.PROJECT,
    "NAMES": schema.NAMES,
    "COUNTERS": schema.COUNTERS,
}

# Data as piwheels sends it.

_time = st.datetimes(timezones=st.just(UTC))
_leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=9),
    _time,
    st.timedeltas(),
    st.just(NO_DATA),
    st.sets(st.text(max_size=9), max_size=4),
    st.sets(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=4),
)
_data = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)

# Data as piwheels never sends it.

_TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004)
_odd_leaf = st.one_of(
    _leaf,
    st.binary(max_size=9),
    st.floats(),
    st.just(cbor2.undefined),
    st.sampled_from([cbor2.CBORSimpleValue(number) for number in (0, 19, 32, 255)]),
    st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), timedelta.max, "Z" * 300, "2026-11-22T14:00Z"]),
)
_odd = st.recursive(
    _odd_leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=11),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), inner, max_size=5),
        st.builds(
            cbor2.CBORTag, st.sampled_from((*_TAGS, 2001, 2002, 43000, 55799, 2**64 - 1)), inner
        ),
    ),
    max_leaves=20,
)


def _encoded(value: Any) -> bytes:
    def encode(encoder: cbor2.CBOREncoder, one: Any) -> None:
        if isinstance(one, timedelta):
            encoder.encode(cbor2.CBORTag(2001, [one.days, one.seconds, one.microseconds]))
        else:
            encoder.encode(cbor2.CBORTag(2002, None))

    return cbor2.dumps(value, default=encode)


_names = st.sampled_from((*SCHEMAS, "STATS", "OK", "NONSENSE"))
_structured = st.one_of(
    _odd.map(_encoded), st.builds(lambda name, data: _encoded([name, data]), _names, _odd), FRAMES
)


@st.composite
def _spoilt(draw: st.DrawFn) -> bytes:
    """Frames with some bytes changed, cut off or doubled."""
    content = bytearray(draw(_structured))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 4)))
        content[start:end] = draw(st.binary(max_size=4))
    return bytes(content)


def check_frame(frame: bytes) -> None:
    """It is refused as it should be, or its data is, or it fits."""
    try:
        _, data = cbor.loads(frame)
    except DecodeError as error:
        check_error(error)
        return
    for name in SCHEMAS:
        try:
            cbor.checked(SCHEMAS, name, data)
        except DecodeError as error:
            check_error(error)


@examples(120)
@given(st.one_of(st.binary(max_size=64), _structured, _spoilt(), s.any_bytes))
def test_whatever_the_bytes_only_decode_errors(frame: bytes) -> None:
    check_frame(frame)


@examples(60)
@given(st.sampled_from(sorted(SCHEMAS)), _odd)
def test_whatever_the_data_only_decode_errors(name: str, data: Any) -> None:
    try:
        cbor.checked(SCHEMAS, name, data, "data")
    except DecodeError as error:
        check_error(error)


@examples(30)
@given(FRAMES, st.data())
def test_a_part_of_a_frame_is_none(frame: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(DecodeError):
        cbor.loads(frame[:end])
    with pytest.raises(DecodeError):
        cbor.loads(frame + frame[end:])


@examples(120)
@given(st.text(max_size=9), _data)
def test_what_is_encoded_comes_back(name: str, data: Any) -> None:
    assert cbor.loads(cbor.dumps(name, data)) == (name, data)
