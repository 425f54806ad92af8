"""Times: how they are read and shown, and the 30-day window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from indexer.base import times

pytestmark = pytest.mark.unit

DAY = 24 * 3600
START = int(datetime(2026, 11, 22, 14, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-22T14:17:17+00:00", "2026-11-22T14:17:17+00:00"),
        ("2026-11-22T14:17:17Z", "2026-11-22T14:17:17+00:00"),
        ("2026-11-22t14:17:17z", "2026-11-22T14:17:17+00:00"),
        ("2026-11-22 14:17:17.5Z", "2026-11-22T14:17:17.500000+00:00"),
        ("2026-11-22T14:17:17.000001Z", "2026-11-22T14:17:17.000001+00:00"),
        ("2026-11-22T14:17:17.123456789Z", "2026-11-22T14:17:17.123456+00:00"),
        ("2026-11-22T14:17:17+05:30", "2026-11-22T08:47:17+00:00"),
        ("2026-11-22T00:17:17-01:00", "2026-11-22T01:17:17+00:00"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
    ],
)
def test_rfc_3339_times_are_read_and_shown(text: str, shown: str) -> None:
    value = times.parse_rfc3339(text)
    assert times.to_rfc3339(value) == shown
    assert times.from_datetime(times.to_datetime(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-22",
        "2026-11-22T14:17:17",
        "2026-11-22T14:17Z",
        "2026-11-22T14Z",
        "20261122T141717Z",
        "2026-W47-7T14:17:17Z",
        "2026-02-30T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T14:17:60Z",
        "2026-11-22T14:17:17+24:00",
        "2026-11-22T14:17:17+00:60",
        "2026-11-22T14:17:17+0000",
        "2026-11-22T14:17:17.Z",
        "2026-11-22T14:17:17,5Z",
        " 2026-11-22T14:17:17Z",
        "2026-11-22T14:17:17Z\n",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "٢٠٢٦-11-22T14:17:17Z",
    ],
)
def test_what_is_not_an_rfc_3339_time_is_refused(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        times.parse_rfc3339(text)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "2024-02-29T23:59:59.999999Z",
        "9999-12-31T23:59:59.999999Z",
    ],
)
def test_text_of_sqlite(text: str) -> None:
    value = times.parse_rfc3339(text)
    plain = text[:19].replace("T", " ")
    assert times.to_sql(value) == plain
    fraction = text[19:-1] or ".000000"
    assert times.to_sql_precise(value) == plain + fraction
    assert times.month(value) == text[:7]


def test_precise_text_sorts_as_time() -> None:
    values = [times.parse_rfc3339(f"2026-11-22T14:17:17{f}Z") for f in ("", ".000001", ".1", ".9")]
    assert [*map(times.to_sql_precise, values)] == sorted(map(times.to_sql_precise, values))


@pytest.mark.parametrize(
    ("now", "first"),
    [
        # At the full hour, the hour that began exactly 30 days ago is out.
        (START * times.SECOND, START - 30 * DAY + 3600),
        (START * times.SECOND - 1, START - 30 * DAY),
        (START * times.SECOND + 1, START - 30 * DAY + 3600),
        ((START + 3600) * times.SECOND - 1, START - 30 * DAY + 3600),
        ((START + 3600) * times.SECOND, START - 30 * DAY + 7200),
    ],
)
def test_window_holds_the_hours_that_began_less_than_30_days_ago(now: int, first: int) -> None:
    assert times.window_start(now) == first
    thirty_days = timedelta(days=30)
    began = times.to_datetime(first * times.SECOND)
    assert times.to_datetime(now) - began < thirty_days
    assert times.to_datetime(now) - (began - timedelta(hours=1)) >= thirty_days
