"""How durations travel between the master and its slaves; works with any cbor2."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import cbor2


def default_encoder(encoder: Any, value: Any) -> None:
    encoder.encode(cbor2.CBORTag(2001, [value.days, value.seconds, value.microseconds]))


def default_decoder(*arguments: Any) -> timedelta:
    (tag,) = [one for one in arguments if isinstance(one, cbor2.CBORTag)]
    days, seconds, microseconds = tag.value
    return timedelta(days, seconds, microseconds)
