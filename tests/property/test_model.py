"""The documents are what a naive reading of the design gives."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.index import fits, queries

from . import strategies as s
from .model import EPOCH, Model, fit
from .profiles import examples
from .test_index import nows
from .world import Tree, World, tree, world

pytestmark = pytest.mark.property


def expected_tree(model: Model, now: datetime) -> Tree:
    counters = model.counters(now)
    found: Tree = {
        "project": ("directory", None),
        "packages.json": ("file 0o644", counters),
        "packages.json.gz": ("file 0o644", counters),
    }
    for package in model.packages:
        found[f"project/{package}"] = "directory", None
        found[f"project/{package}/json"] = "directory", None
        found[f"project/{package}/json/index.json"] = "file 0o644", model.document(package)
    for name, package in model.links().items():
        found[f"project/{name}"] = "link", package
    return found


def unzipped(found: Tree) -> Tree:
    kind, content = found["packages.json.gz"]
    assert isinstance(content, bytes)
    return {**found, "packages.json.gz": (kind, gzip.decompress(content))}


@pytest.mark.parametrize("kind", s.KINDS)
@examples(12)
@given(st.data(), nows)
def test_documents_and_counters_are_those_of_the_model(
    kind: str, data: st.DataObject, now: datetime
) -> None:
    history = data.draw(s.histories(20, kind))
    model = Model()
    with world() as here:
        here.take(history)
        for message in history:
            model.apply(message)
        here.publish(now)
        assert unzipped(tree(here.output)) == expected_tree(model, now)
        assert queries.get(here.state.connection, "no_wheels", 0) == model.no_wheels
        hours = here.view(
            "SELECT package, hour, downloads FROM download_hours JOIN download_counts USING"
            " (counter_id)"
        )
        assert sorted(hours) == sorted(
            (package, int((hour - EPOCH).total_seconds()), count)
            for package, counts in model.hours.items()
            for hour, count in counts.items()
            if count
        )
        check_views(here, model, now)


@pytest.mark.parametrize("abi", s.ABIS)
@pytest.mark.parametrize("file_abi", s.FILE_ABIS)
def test_files_fit_as_the_model_says(file_abi: str, abi: str) -> None:
    for python in s.PYTHONS:
        assert fits.fit(python, file_abi, abi) == fit(python, file_abi, abi), python


def check_views(here: World, model: Model, now: datetime) -> None:
    """The views show what the documents say."""
    published: dict[tuple[str, str, str], tuple[str, int | None]] = {}
    logs: dict[int, str] = {}
    for package in model.packages:
        releases: dict[str, Any] = json.loads(here.document(package))["releases"]
        for version, release in releases.items():
            for abi, told in release["abis"].items():
                published[package, version, abi] = told["status"], told["build_id"]
                if told["build_id"] is not None:
                    logs[told["build_id"]] = told["log_url"]
    shown = here.view("SELECT package, version, abi_tag, status, build_id FROM build_status")
    assert {row[:3]: row[3:] for row in shown} == published
    waiting = here.view("SELECT package, version, abi_tag FROM builds_pending")
    assert sorted(waiting) == sorted(
        place for place, (status, _) in published.items() if status == "pending"
    )
    recent = dict(here.view("SELECT build_id, log_url FROM recent_builds"))
    assert {number: recent[number] for number in logs} == logs
    numbered = [build for build in model.builds if build.number is not None]
    assert sorted(recent) == sorted(build.number for build in numbered if build.number)
    failures = here.view("SELECT build_id FROM build_failures ORDER BY build_id")
    assert [row[0] for row in failures] == sorted(
        build.number for build in numbered if build.number and not build.succeeded
    )
    top = here.view("SELECT package, downloads_recent, downloads_all FROM top_downloads")
    assert sorted(map(list, top)) == json.loads(model.counters(now))
