"""The simulated farm: the same for the same seed, valid, of any size, made as it is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from itertools import islice
from typing import Any

import pytest

from indexer.base import names
from indexer.demo import simulation
from indexer.demo.simulation import Farm, Message
from indexer.messages import decode
from indexer.messages.types import BY_NAME

pytestmark = pytest.mark.unit

FARMS = [
    Farm(downloads=2_000),
    Farm(seed=7, packages=300, downloads=500, deletion_rate=0.5, failure_rate=0.4),
    Farm(seed=8, packages=1, downloads=50, days=1),
    Farm(seed=9, packages=100, abis=("cp313t", "cp314"), versions=1, failure_rate=0, downloads=0),
]


LIFE = Farm(packages=2_000, downloads=5_000)


def streams(farm: Farm, count: int = 500) -> dict[str, Iterator[Message]]:
    return {
        "messages": farm.messages(),
        "population": farm.population(),
        "download_messages": farm.download_messages(count),
        "build_messages": farm.build_messages(count),
    }


@cache
def lists(farm: Farm) -> dict[str, list[Message]]:
    """The streams of a farm. They are made once for the tests that only read them."""
    return {name: list(stream) for name, stream in streams(farm).items()}


def data_of(name: str, stream: Iterable[Message]) -> list[dict[str, Any]]:
    return [message["data"] for message in stream if message["msg"] == name]


def files_of(stream: Iterable[Message]) -> list[dict[str, Any]]:
    return [file for build in data_of("LOGBUILD", stream) for file in build["files"]]


def count(stream: Iterable[Message]) -> Counter[str]:
    return Counter(message["msg"] for message in stream)


@pytest.mark.parametrize("stream", ["messages", "population", "download_messages"])
def test_same_seed_same_stream_other_seed_another(stream: str) -> None:
    first, again, other = (
        list(streams(Farm(seed=seed, downloads=500))[stream]) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_nothing_depends_on_the_zone_of_now() -> None:
    now = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    local = now.astimezone(timezone(timedelta(hours=5, minutes=30)))
    utc, elsewhere = (Farm(now=instant, downloads=100).messages() for instant in (now, local))
    assert list(utc) == list(elsewhere)


@pytest.mark.parametrize("farm", FARMS)
def test_every_message_is_valid(farm: Farm) -> None:
    for stream in lists(farm).values():
        for message in stream:
            decode.from_json(json.dumps(message).encode(), 0)


@pytest.mark.parametrize("farm", FARMS)
def test_names_are_safe_and_tags_agree_with_filenames(farm: Farm) -> None:
    for stream in lists(farm).values():
        for message in stream:
            data = message["data"]
            assert message["msg"] in BY_NAME
            assert data.keys() <= set(BY_NAME[message["msg"]]._fields)
            if message["msg"] not in ("SETABIS", "LOGDOWNLOAD"):
                assert names.is_canonical(data["package"])
            if message["msg"] == "NEWPKGNAME":
                assert names.canonical(data["name"]) == data["package"]
                assert not names.unsafe(data["name"], names.MAX_NAME)
            if "version" in data:
                assert not names.unsafe(data["version"], names.MAX_NAME)
            for file in data.get("files", []):
                tags = "package_tag package_version_tag py_version_tag abi_tag platform_tag"
                assert file["filename"] == "-".join(file[tag] for tag in tags.split()) + ".whl"
                assert names.wheel_package(file["filename"]) == data["package"]
                assert not names.unsafe(file["filename"], names.MAX_FILENAME)
                assert re.fullmatch("[0-9a-f]{64}", file["filehash"])
                assert file["filesize"] >= 0


@pytest.mark.parametrize("farm", FARMS)
def test_a_filename_belongs_to_one_version(farm: Farm) -> None:
    owners: dict[str, tuple[str, str]] = {}
    for stream in lists(farm).values():
        for message in stream:
            owner = message["data"].get("package", ""), message["data"].get("version", "")
            for file in message["data"].get("files", []):
                assert owners.setdefault(file["filename"], owner) == owner


@pytest.mark.parametrize("farm", FARMS)
def test_messages_are_in_order_of_time_within_the_life(farm: Farm) -> None:
    times = [datetime.fromisoformat(str(message["at"])) for message in lists(farm)["messages"]]
    assert times == sorted(times)
    assert times[0] == farm.now - timedelta(days=farm.days)
    assert times[-1] <= farm.now


@pytest.mark.parametrize("farm", FARMS)
@pytest.mark.parametrize("stream", ["messages", "population", "build_messages"])
def test_build_ids_count_up_from_one(farm: Farm, stream: str) -> None:
    build_ids = [build["build_id"] for build in data_of("LOGBUILD", lists(farm)[stream])]
    assert build_ids == list(range(1, len(build_ids) + 1))


def test_made_up_names_are_unique() -> None:
    farm = Farm(seed=3)
    packages = [simulation._Package(farm, number).name for number in range(20_000)]
    assert len(set(packages)) == len(packages)


def test_a_life_has_everything_in_it() -> None:
    counts = count(lists(LIFE)["messages"])
    assert counts.keys() == BY_NAME.keys() - {"SNAPSHOT", "DOWNLOADS", "FAILURE", "MOVEFILES"}
    assert counts["SETABIS"] == 1
    assert counts["LOGDOWNLOAD"] == 5_000
    assert counts["NEWPKG"] > 2_000, "none was reborn"


def test_a_life_has_all_kinds_of_builds() -> None:
    farm, messages = LIFE, lists(LIFE)["messages"]
    files = files_of(messages)
    tags = {(file["abi_tag"], file["platform_tag"]) for file in files}
    assert {("none", "any"), ("abi3", "linux_armv6l"), ("abi3", "linux_armv7l")} <= tags
    assert {(abi, arm) for abi in farm.abis for arm in ("linux_armv6l", "linux_armv7l")} <= tags
    assert {file["requires_python"] for file in files} >= {None, "", ">=3.9"}
    assert any(file["dependencies"]["apt"] for file in files)
    assert any(file["dependencies"]["pip"] for file in files)
    assert max(Counter(file["filename"] for file in files).values()) > 1, "none was rebuilt"

    attempts: dict[tuple[str, ...], list[bool]] = {}
    for build in data_of("LOGBUILD", messages):
        attempt = build["package"], build["version"], build["abi_tag"]
        attempts.setdefault(attempt, []).append(build["status"])
        assert bool(build["files"]) is build["status"]
        assert not (build["status"] and build["failure"])
    assert [False, True] in attempts.values()
    assert [False] in attempts.values()
    failed = [build for build in data_of("LOGBUILD", messages) if not build["status"]]
    reasons = Counter(build["failure"] and build["failure"]["category"] for build in failed)
    assert len(reasons) > 10
    assert 0 < reasons[None] < len(failed) / 5, "most reasons are known"


def test_the_failure_rate_is_the_share_of_failed_builds() -> None:
    def failed(rate: float) -> float:
        builds = data_of("LOGBUILD", Farm(failure_rate=rate, packages=500).population())
        builds = [build for build in builds if build["package"] in ("numpy", "pillow", "scipy")]
        return sum(not build["status"] for build in builds) / len(builds)

    assert failed(0) == 0
    assert failed(1) > 0.5


def test_the_deletion_rate_is_the_share_of_deletions() -> None:
    deletions = {"DELPKG", "DELVER", "DELBUILD"}
    assert not deletions & count(Farm(deletion_rate=0).messages()).keys()
    assert count(Farm(deletion_rate=0.8).messages()).keys() >= deletions


def test_downloads_are_mostly_of_files_and_few_packages_have_most() -> None:
    farm = Farm(downloads=5_000)
    built = {file["filename"] for file in files_of(farm.population())}
    wanted = [data["filename"] for data in data_of("LOGDOWNLOAD", farm.download_messages(5_000))]
    assert 0.95 < sum(filename in built for filename in wanted) / len(wanted) < 1
    assert any(names.wheel_package(filename) is None for filename in wanted)
    packages = Counter(names.wheel_package(filename) for filename in wanted)
    assert packages["numpy"] == max(packages.values())
    assert len(packages) > 100
    assert sum(number for _, number in packages.most_common(20)) > 2_500


def test_downloads_follow_the_hours_of_the_day() -> None:
    times = [message["at"] for message in Farm(days=10).download_messages(10_000)]
    hours = Counter(at[11:13] for at in times)
    assert hours["15"] > 2 * hours["03"]
    assert len({at[:10] for at in times}) == 11  # from 14:00 to 14:00


def test_a_population_has_the_requested_size() -> None:
    for packages in (1, 50, 400):
        counts = count(Farm(packages=packages).population())
        assert counts["NEWPKG"] == packages
        assert counts["SETABIS"] == 1
        assert counts.keys() <= {"SETABIS", "NEWPKG", "NEWPKGNAME", "NEWVER", "LOGBUILD"}
    few, many = (count(Farm(packages=1_000, versions=mean).population()) for mean in (2, 8))
    assert 1_500 < few["NEWVER"] < 2_500
    assert 6_000 < many["NEWVER"] < 10_000


def test_a_life_and_a_population_are_of_the_same_packages() -> None:
    farm = Farm(packages=500, downloads=0)
    population = list(farm.population())
    life = list(farm.messages())
    for name, field in (("NEWPKG", "package"), ("NEWPKG", "description"), ("NEWVER", "version")):
        known = {data[field] for data in data_of(name, population)}
        assert {data[field] for data in data_of(name, life)} <= known
    lived = {data["package"] for data in data_of("NEWPKG", life)}
    assert lived == {data["package"] for data in data_of("NEWPKG", population)}


def test_builds_for_a_benchmark_have_three_files() -> None:
    farm = Farm(packages=10)
    builds = data_of("LOGBUILD", farm.build_messages(500, first_build_id=1_000))
    assert [build["build_id"] for build in builds] == list(range(1_000, 1_500))
    assert {len({file["filename"] for file in build["files"]}) for build in builds} == {3}
    assert len({build["package"] for build in builds}) == 10
    assert {build["abi_tag"] for build in builds} == {*farm.abis}


@pytest.mark.parametrize("stream", ["messages", "population", "download_messages"])
def test_a_large_farm_is_not_made_in_advance(stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counted(simulation._Package):
        def __init__(self, farm: Farm, number: int) -> None:
            nonlocal made
            made += 1
            super().__init__(farm, number)

    monkeypatch.setattr(simulation, "_Package", Counted)
    farm = Farm(packages=600_000, downloads=100_000_000)
    assert len(list(islice(streams(farm, 10**8)[stream], 1_000))) == 1_000
    assert 0 < made < 1_500


@pytest.mark.parametrize(
    "impossible",
    [
        {"packages": 0},
        {"versions": 0.5},
        {"days": 0},
        {"downloads": -1},
        {"failure_rate": 1.1},
        {"deletion_rate": -0.1},
        {"abis": ()},
        {"abis": ("cp311", "abi3")},
        {"now": datetime(2026, 1, 1)},  # noqa: DTZ001
    ],
)
def test_impossible_farms_are_refused(impossible: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a farm"):
        Farm(**impossible)
