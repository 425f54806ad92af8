"""The documents are what a naive reading of the design gives."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.index import fits, queries

from ..reasons import reasons
from . import strategies as s
from .model import EPOCH, Model, admits, fit
from .profiles import examples
from .test_index import nows
from .world import Tree, World, tree, world

pytestmark = pytest.mark.property


def expected_tree(model: Model, now: datetime) -> Tree:
    counters = model.counters(now)
    documents = {package: model.document(package) for package in model.packages}
    recent = {package: count for package, count, _ in json.loads(counters)}
    failures = orjson.dumps({"reasons": reasons(documents, recent)})
    found: Tree = {
        "project": ("directory", None),
        "packages.json": ("file 0o644", counters),
        "packages.json.gz": ("file 0o644", counters),
        "failures.json": ("file 0o644", failures),
        "failures.json.gz": ("file 0o644", failures),
    }
    for package, document in documents.items():
        found[f"project/{package}"] = "directory", None
        found[f"project/{package}/json"] = "directory", None
        found[f"project/{package}/json/index.json"] = "file 0o644", document
    for name, package in model.links().items():
        found[f"project/{name}"] = "link", package
    return found


def unzipped(found: Tree) -> Tree:
    return {
        name: (
            kind,
            gzip.decompress(content)
            if isinstance(content, bytes) and name.endswith(".gz")
            else content,
        )
        for name, (kind, content) in found.items()
    }


@pytest.mark.parametrize("kind", s.KINDS)
@examples(7)
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


_numbers = st.sampled_from((0, 1, 5, 9, 12, 98, 99, 100, 101, 999))
_versions = st.builds(
    lambda minor, rest: f"3.{minor}{rest}",
    st.sampled_from((8, 9, 11)),
    st.one_of(
        st.just(""),
        st.builds(
            "{}{}{}".format,
            st.sampled_from((".", ".", ".", ".0", ".00")),
            _numbers,
            st.sampled_from(("", "", "", "rc1", ".dev2", ".post3", "a4", "+local", ".0", ".1")),
        ),
    ),
)
_specifiers = st.one_of(
    st.builds(
        "{}{}".format, st.sampled_from((">=", "<=", ">", "<", "==", "!=", "~=", "===")), _versions
    ),
    st.builds("{}{}.*".format, st.sampled_from(("==", "!=")), _versions),
    st.sampled_from(("", "3.9", "any", ">=", "==*", "===3.9.5 ", "١", "> 3.9 ")),
)


@examples(90)
@given(
    st.lists(_specifiers, max_size=3).map(",".join), st.sampled_from(("cp39", "cp311", "cp313t"))
)
def test_a_requirement_admits_what_some_patch_level_satisfies(requirement: str, abi: str) -> None:
    assert fits.admits(requirement, abi) == admits(requirement, abi)


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
    attempts = here.view(
        "SELECT build_id, status, failure_category, failure_detail, slave_id, built_at, duration"
        " FROM build_attempts"
    )
    assert attempts == [
        (
            build.number,
            "success" if build.succeeded else "fail",
            *(build.failure.values() if build.failure else (None, None)),
            build.slave,
            build.at,
            build.duration,
        )
        for build in sorted(numbered, key=lambda build: -(build.number or 0))
    ]
    reasons = here.view("SELECT failure_category, failure_detail, packages FROM failure_reasons")
    failed: dict[tuple[str, ...], set[str]] = {}
    for build in model.builds:
        if build.failure:
            failed.setdefault((*build.failure.values(),), set()).add(build.package)
    assert sorted(reasons) == sorted((*why, len(found)) for why, found in failed.items())
    contents = here.view("SELECT filename, filehash, build_id, current FROM file_history")
    expected = []
    for name in sorted({*model.files, *model.left}):
        file = model.files.get(name)
        expected += [(name, file.sha256, file.build.number, 1)] if file else []
        for content in reversed(model.left.get(name, {}).values()):
            if file is None or content["filehash"] != file.sha256:
                expected.append((name, content["filehash"], content["build_id"], 0))
    assert contents == expected
    top = here.view("SELECT package, downloads_recent, downloads_all FROM top_downloads")
    assert sorted(map(list, top)) == json.loads(model.counters(now))
