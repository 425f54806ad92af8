"""Times inside the program: integer microseconds since 1970-01-01 00:00 UTC.

Years 1 to 9999, as RFC 3339 has them. Nothing here reads the clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

Time = int
"""Microseconds since 1970-01-01 00:00 UTC."""

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

EARLIEST: Time = -62_135_596_800 * SECOND
"""0001-01-01T00:00:00Z"""
LATEST: Time = 253_402_300_800 * SECOND - 1
"""9999-12-31T23:59:59.999999Z"""

# fromisoformat alone would also take week dates, missing seconds and times without a zone.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)

WINDOW_DAYS = 30


def from_datetime(value: datetime) -> Time:
    """Microseconds of a timezone-aware datetime."""
    since = value - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def to_datetime(value: Time) -> datetime:
    """The datetime (UTC) of a time between `EARLIEST` and `LATEST`."""
    return _EPOCH + timedelta(microseconds=value)


def parse_rfc3339(text: str) -> Time:
    """Read an RFC 3339 time with its zone; digits past the microsecond are cut off.

    Raises ValueError if it is not such a time, or lies outside the years 1 to 9999 UTC.
    """
    if _RFC3339.fullmatch(text) is None:
        raise ValueError("not an RFC 3339 time with a time zone")
    value = from_datetime(datetime.fromisoformat(text.upper()))
    if not EARLIEST <= value <= LATEST:
        raise ValueError("outside the years 1 to 9999 UTC")
    return value


def to_rfc3339(value: Time) -> str:
    """`2026-11-22T14:17:17.520624+00:00`; the fraction is left out when it is zero."""
    return to_datetime(value).isoformat()


def to_sql(value: Time) -> str:
    """`2026-11-22 14:17:17`, as SQLite's date functions and the documents have it (UTC)."""
    days, second = divmod(value // SECOND, 86_400)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f"{_date(days)} {hour:02d}:{minute:02d}:{second:02d}"


@lru_cache(maxsize=1024)
def _date(days: int) -> str:
    return to_datetime(days * DAY).isoformat()[:10]


def from_sql(text: str) -> Time:
    """The time of a text that `to_sql` or `to_sql_precise` made.

    Raises ValueError if it is another text.
    """
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def to_sql_precise(value: Time) -> str:
    """`2026-11-22 14:17:17.520624`; sorting these texts sorts the times."""
    return to_datetime(value).isoformat(" ", "microseconds")[:26]


def month(value: Time) -> str:
    """The UTC month, `2026-11`."""
    return to_datetime(value).isoformat()[:7]


def window_start(now: Time) -> int:
    """The first hour of the 30-day window at `now`, in seconds since 1970.

    The window holds the hours that began less than 30 days before `now`, and all later ones.
    """
    return ((now - WINDOW_DAYS * DAY) // HOUR + 1) * 3600
