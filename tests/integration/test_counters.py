"""The download counters: which package a download counts for, from when, and the 30-day window."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexer.base import times
from indexer.index import downloads as counters
from indexer.schema.index import NO_WINDOW

from .. import samples
from ..samples import downloads, log_build, log_download, message, new_package
from .index import Index

pytestmark = pytest.mark.integration

WHEEL = "numpy-1.0-py3-none-any.whl"
HOUR = 3600
DAY = 24 * HOUR
NOON = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())


def at(seconds: int) -> str:
    return times.to_rfc3339(seconds * times.SECOND)


def no_wheels(index: Index) -> int:
    found = index.rows("SELECT value FROM state WHERE key = 'no_wheels'")
    return int(found[0][0]) if found else 0


# For whom a download counts


def test_by_the_file_before_its_name(index: Index) -> None:
    """A file belongs to the package of its build, whatever its name says."""
    index.apply(new_package("numpy"), log_build(1, "scipy", "1.0", WHEEL), log_download(WHEEL))
    assert index.counts() == [("numpy", 0, 0), ("scipy", 0, 1)]


def test_by_the_wheels_name_without_the_file(index: Index) -> None:
    index.apply(
        new_package("rpi-gpio"),
        log_download("RPi.GPIO-0.7.1-cp311-cp311-linux_armv7l.whl"),
        log_download("rpi_gpio-0.7.2-1-py3-none-any.whl"),
    )
    assert index.counts() == [("rpi-gpio", 0, 2)]


def test_known_file_need_not_be_a_wheel(index: Index) -> None:
    odd = {**samples.file(WHEEL), "filename": "archive.tar.gz"}
    index.apply(log_build(1, "numpy", "1.0", odd), log_download("archive.tar.gz"))
    assert index.counts() == [("numpy", 0, 1)]
    assert no_wheels(index) == 0


def test_what_is_no_wheel_counts_for_nobody(index: Index) -> None:
    index.apply(
        new_package("numpy"),
        log_download("numpy-1.0.tar.gz"),
        log_download("numpy.whl"),
        log_download("index.html"),
    )
    assert index.counts() == [("numpy", 0, 0)]
    assert no_wheels(index) == 3
    index.apply(log_download("numpy-1.0.tar.gz"))
    assert no_wheels(index) == 4


def test_at_once_and_for_good(index: Index) -> None:
    """A download counts from the moment it happened, whatever happens to the file later."""
    index.apply(
        new_package("numpy"),
        new_package("scipy"),
        log_download(WHEEL),  # by the name: numpy
        log_build(1, "scipy", "1.0", WHEEL),
        log_download(WHEEL),  # by the file: scipy
        log_build(2, "numpy", "1.0", WHEEL),
        log_download(WHEEL),  # it moved: numpy
        message("DELBUILD", package="numpy", version="1.0"),
        log_download(WHEEL),  # it is gone: by the name
    )
    assert index.counts() == [("numpy", 0, 3), ("scipy", 0, 1)]


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        log_build(2, "scipy", "1.0", WHEEL),
        log_build(1, "scipy", "1.0"),
        message("DELPKG", package="owner"),
        message("DELVER", package="owner", version="1.0"),
        message("DELBUILD", package="owner", version="1.0"),
        samples.snapshot("owner"),
        samples.snapshot(
            "scipy", releases={"1.0": samples.snapshot_release({WHEEL: samples.snapshot_file()})}
        ),
    ],
    ids=lambda envelope: f"{envelope['msg']} {envelope['data']['package']}",
)
def test_downloads_before_a_change_in_one_batch(
    change: samples.Envelope, batches: bool, index: Index
) -> None:
    """They count for the package that had the file then, however messages are batched."""
    script = [log_build(1, "owner", "1.0", WHEEL), log_download(WHEEL), change]
    if batches:
        index.apply(*script)
    else:
        for envelope in script:
            index.apply(envelope)
    found = dict(index.rows("SELECT package, downloads_all FROM download_counts"))
    assert found["owner"] == 1
    assert sum(found.values()) == 1


def test_package_that_appears_later_has_its_downloads(index: Index) -> None:
    index.apply(log_download(WHEEL), log_download("scipy-1.0-py3-none-any.whl"))
    assert index.counts() == []
    index.apply(new_package("numpy"))
    assert index.counts() == [("numpy", 0, 1)]
    index.apply(message("DELPKG", package="numpy"), log_download(WHEEL))
    assert index.counts() == []
    index.apply(log_build(1, "numpy", "2.0"))
    assert index.counts() == [("numpy", 0, 2)]


# The window


@pytest.fixture
def hourly(index: Index) -> Index:
    """A package with one download an hour, for three days up to noon."""
    index.apply(
        new_package("numpy"),
        new_package("quiet"),
        *(log_download(WHEEL, at(NOON - hours * HOUR + 1800)) for hours in range(72)),
    )
    return index


def recent(index: Index) -> int:
    return index.counts()[0][1]


def test_no_window_at_first(hourly: Index) -> None:
    assert counters.window_start(hourly.connection) == NO_WINDOW
    assert hourly.counts() == [("numpy", 0, 72), ("quiet", 0, 0)]


def test_window_moves_forth_and_back(hourly: Index) -> None:
    assert hourly.move_window(NOON - 10 * HOUR) is True
    assert recent(hourly) == 11
    assert hourly.move_window(NOON - 9 * HOUR) is True
    assert recent(hourly) == 10
    assert hourly.move_window(NOON - 9 * HOUR) is False
    assert hourly.move_window(NOON - 30 * HOUR) is True
    assert recent(hourly) == 31
    assert hourly.move_window(NOON + HOUR) is True
    assert recent(hourly) == 0
    assert hourly.move_window(NOON + DAY) is False
    assert hourly.move_window(0) is True
    assert recent(hourly) == 72
    assert hourly.counts()[0][2] == 72


def test_downloads_after_the_window_was_set(hourly: Index) -> None:
    hourly.move_window(NOON)
    assert recent(hourly) == 1
    hourly.apply(
        log_download(WHEEL, at(NOON)),
        log_download(WHEEL, at(NOON - 1)),
        log_download(WHEEL, "2199-01-01T00:00:00Z"),  # what lies in the future is in it
        log_download(WHEEL, "1969-12-31T23:59:59Z"),
    )
    assert hourly.counts()[0] == ("numpy", 3, 76)
    hourly.move_window(NOON - HOUR)
    assert hourly.counts()[0] == ("numpy", 5, 76)


def test_window_of_packages_that_are_not_known(hourly: Index) -> None:
    hourly.apply(log_download("scipy-1.0-py3-none-any.whl", at(NOON)))
    hourly.move_window(NOON - HOUR)
    hourly.apply(log_download("scipy-1.0-py3-none-any.whl", at(NOON)))
    hourly.move_window(NOON)
    hourly.apply(new_package("scipy"))
    assert hourly.counts() == [("numpy", 1, 72), ("quiet", 0, 0), ("scipy", 2, 2)]


def test_incremental_is_the_same_as_at_once(tmp_path: Path) -> None:
    script = [
        new_package("numpy"),
        *(log_download(WHEEL, at(NOON - hours * 7 * HOUR)) for hours in range(150)),
        downloads("numpy", 1000, {at(NOON - hours * HOUR): hours for hours in range(0, 900, 5)}),
        *(log_download(WHEEL, at(NOON - hours * 5 * HOUR)) for hours in range(150)),
    ]
    with Index(tmp_path / "at-once.db") as at_once, Index(tmp_path / "steps.db") as steps:
        at_once.apply(*script)
        at_once.move_window(NOON - 30 * DAY)
        for number, envelope in enumerate(script):
            steps.move_window(NOON - (number * 17 % 60) * DAY)
            steps.apply(envelope)
        steps.move_window(NOON - 30 * DAY)
        assert steps.counts() == at_once.counts()
        assert steps.table("download_hours") == at_once.table("download_hours")


# DOWNLOADS


def test_downloads_replace_the_counters(hourly: Index) -> None:
    hourly.move_window(NOON)
    hourly.apply(downloads("numpy", 500, {at(NOON): 3, at(NOON - HOUR): 40, at(NOON + HOUR): 0}))
    assert hourly.counts()[0] == ("numpy", 3, 500)
    hourly.move_window(NOON - HOUR)
    assert hourly.counts()[0] == ("numpy", 43, 500)
    hourly.apply(log_download(WHEEL, at(NOON)))
    assert hourly.counts()[0] == ("numpy", 44, 501)
    hourly.apply(downloads("numpy", 0, {}))
    assert hourly.counts()[0] == ("numpy", 0, 0)
    assert hourly.table("download_hours") == []
    hourly.apply(log_download(WHEEL, at(NOON)))
    assert hourly.counts()[0] == ("numpy", 1, 1)


def test_downloads_touch_nobody_else(hourly: Index) -> None:
    hourly.apply(log_download("quiet-1-py3-none-any.whl", at(NOON)))
    hourly.apply(downloads("numpy", 0, {}))
    hourly.move_window(0)
    assert hourly.counts() == [("numpy", 0, 0), ("quiet", 1, 1)]


def test_downloads_count_in_the_batch_that_they_came_in(index: Index) -> None:
    index.apply(
        new_package("numpy"),
        log_download(WHEEL),
        downloads("numpy", 10, {at(NOON): 5}),
        log_download(WHEEL),
    )
    index.move_window(0)
    assert index.counts() == [("numpy", 6, 11)]


def test_largest_counters_do_not_overflow(index: Index) -> None:
    """An accepted message must never stop the daemon when it is counted."""
    from indexer.schema.messages import MAX_COUNT

    index.apply(
        new_package("numpy"),
        downloads("numpy", MAX_COUNT, {at(NOON + n * HOUR): MAX_COUNT for n in range(200)}),
        log_download(WHEEL),
    )
    index.move_window(0)
    assert index.counts() == [("numpy", 200 * MAX_COUNT + 1, MAX_COUNT + 1)]
    index.move_window(NOON + 300 * HOUR)
    assert index.counts() == [("numpy", 0, MAX_COUNT + 1)]


# When packages.json must be written


def test_counters_serial_moves_with_what_packages_json_shows(index: Index) -> None:
    def serial() -> object:
        return dict(index.rows("SELECT key, value FROM state")).get("counters_serial", 0)

    assert serial() == 0
    index.apply(new_package("numpy"))
    assert serial() == 1
    index.apply(samples.new_version("numpy", "1.0"), message("SETDESC", package="numpy",
                                                             description="x"))  # fmt: skip
    assert serial() == 1
    index.apply(log_download("x.tar.gz"))
    assert serial() == 1
    index.apply(log_download(WHEEL))
    assert serial() == 5
    index.apply(message("DELPKG", package="numpy"))
    assert serial() == 6
