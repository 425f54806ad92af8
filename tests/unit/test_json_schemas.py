"""schema/*.json agree with what we accept and publish, and every keyword in them matters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from voluptuous import Required

from indexer.schema import messages

from .. import samples
from ..documentation.json_schemas import CLOSED, NAMES, SCHEMAS, VALIDATORS, faults, wrong
from ..support import CASES, REFUSED, REPOSITORY, Case, by_case

pytestmark = pytest.mark.unit

MESSAGE = SCHEMAS["message"]
DEFINED = MESSAGE["$defs"]
CAPTURED = REPOSITORY / "tests" / "captures" / "farm" / "site"

ADDITIONS = {"name", "abis", "build_duration", "builds", "build_id", "built_at", "earlier"}
"""What the documents have beyond what piwheels serves (docs/documents.md)."""


def document(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_they_are_schemas(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:piw-indexer:schema:{name}"
    assert schema["title"]
    assert schema["description"]


def test_all_of_them_are_tested() -> None:
    files = {path.name for path in (REPOSITORY / "schema").glob("*.json")}
    elsewhere = {"status.schema.json"}  # in tests/acceptance/test_status.py
    assert files - elsewhere == {f"{name}.schema.json" for name in NAMES}


# Drawn from the same source: the fields of the voluptuous schemas


def without_words(schema: Any) -> Any:
    words = ("description", "examples", "default", "title")
    return {key: value for key, value in schema.items() if key not in words}


def check_value(node: Any, schema: dict[str, Any], path: str) -> None:
    """A JSON schema and a voluptuous one agree about a value."""
    while "$ref" in schema and not isinstance(node, messages.Nullable) and not callable(node):
        schema = DEFINED[schema["$ref"].removeprefix("#/$defs/")]
    if isinstance(node, dict):
        check_record(node, schema, path)
    elif isinstance(node, list):
        assert schema["type"] == "array", path
        check_value(node[0], schema["items"], f"{path}[]")
    elif isinstance(node, messages.Map):
        while "$ref" in schema:
            schema = DEFINED[schema["$ref"].removeprefix("#/$defs/")]
        assert schema["type"] == "object", path
        assert schema.get("maxProperties") == node.most, path
        assert schema.get("minProperties", 0) == node.least, path
        check_value(node.key, schema["propertyNames"], f"{path} key")
        check_value(node.value, schema["additionalProperties"], f"{path} value")
    elif isinstance(node, messages.Nullable):
        if node.validator is messages.text:
            assert without_words(schema) == {"type": ["string", "null"]}, path
        else:
            inner, null = schema["anyOf"]
            assert null == {"type": "null"}, path
            check_value(node.validator, inner, path)
    elif node is messages.text:
        assert without_words(schema) == {"type": "string"}, path
    elif node is messages.boolean:
        assert without_words(schema) == {"type": "boolean"}, path
    else:
        name = "time" if node is messages.time_json else node.__name__
        assert schema["$ref"] == f"#/$defs/{name}", path


def check_record(node: dict[Any, Any], schema: dict[str, Any], path: str) -> None:
    """Both have the same fields, required fields and defaults."""
    assert schema["type"] == "object", path
    assert list(schema["properties"]) == [str(key) for key in node], path
    assert schema["required"] == [str(key) for key in node if isinstance(key, Required)], path
    assert "additionalProperties" not in schema, f"{path}: publishers may grow"
    for key, inner in node.items():
        field = schema["properties"][str(key)]
        assert field.get("description") or "$ref" in field, f"{path}.{key} is not described"
        if not isinstance(key, Required):
            assert field["default"] == key.default(), f"{path}.{key}"
        check_value(inner, field, f"{path}.{key}")


@pytest.mark.parametrize("name", messages.messages(messages.time_json))
def test_a_message_has_the_fields_that_we_validate(name: str) -> None:
    check_record(messages.messages(messages.time_json)[name], DEFINED[name], name)
    assert DEFINED[name]["description"]


def test_every_message_is_there_and_no_other() -> None:
    names = list(messages.messages(messages.time_json))
    assert MESSAGE["properties"]["msg"]["enum"] == names
    chosen = [
        (one["if"]["properties"]["msg"]["const"], one["then"]["properties"]["data"]["$ref"])
        for one in MESSAGE["allOf"]
    ]
    assert chosen == [(name, f"#/$defs/{name}") for name in names]
    envelope = messages.envelope(messages.time_json)
    assert list(MESSAGE["properties"]) == [str(key) for key in envelope]
    assert MESSAGE["required"] == [str(key) for key in envelope if isinstance(key, Required)]


def test_positions_and_replays_have_the_fields_that_we_validate() -> None:
    defined = SCHEMAS["change"]["$defs"]
    position = [str(key) for key in messages.POSITION]
    assert defined["message"]["required"] == list(defined["message"]["properties"]) == position
    assert defined["heartbeat"]["required"] == list(defined["heartbeat"]["properties"]) == position
    ((key, asked),) = messages.REPLAY.items()
    replay = defined["replay"]
    assert replay["required"] == list(replay["properties"]) == [str(key)]
    inner = replay["properties"][str(key)]
    assert inner["required"] == list(inner["properties"]) == [str(one) for one in asked]


# What there is


@by_case
def test_every_message_of_the_cases_is_valid(case: Case) -> None:
    # Downloads differ in little, and so do the lines of a long case: some stand for all.
    lines = [line for line in case.lines if b'"LOGDOWNLOAD"' not in line]
    lines = lines[:: 1 + len(lines) // 200]
    lines += [line for line in case.lines if b'"LOGDOWNLOAD"' in line][::60]
    for line in lines:
        assert faults("message", json.loads(line)) == [], line


@by_case
def test_every_document_of_the_cases_is_valid(case: Case) -> None:
    for path in case.expected.glob("project/*/json/index.json"):
        CLOSED["project"].validate(document(path))
    CLOSED["packages"].validate(document(case.expected / "packages.json"))


BASIC = next(case for case in CASES if case.directory.name == "basic")

UNSEEN = {
    "not JSON": "is not a JSON value at all",
    "impossible time": "30 February: a pattern does not know how long months are",
}
"""The refused lines that a schema cannot see, and why."""


def test_the_refused_lines_are_invalid() -> None:
    reasons = (REFUSED.directory / "reasons.txt").read_text().splitlines()
    seen = set()
    for reason, line in zip(reasons, REFUSED.lines, strict=True):
        try:
            valid = faults("message", json.loads(line)) == []
        except ValueError:
            valid = True
        if valid:
            seen.add(reason)
    assert seen == UNSEEN.keys()
    assert len(reasons) == 97


def test_what_piwheels_serves_is_valid_but_for_our_additions() -> None:
    paths = list(CAPTURED.glob("project/*/json/index.json"))
    assert len(paths) == 7
    for path in paths:
        for error in VALIDATORS["project"].iter_errors(document(path)):
            assert error.validator == "required", error
            assert error.message.split("'")[1] in ADDITIONS, error
    assert faults("packages", document(CAPTURED / "packages.json")) == []


def test_rows_may_grow_on_the_right_and_documents_may_gain_fields() -> None:
    assert faults("packages", [["numpy", 1, 2, "more"]]) == []
    found = document(BASIC.expected / "project" / "numpy" / "json" / "index.json")
    assert faults("project", {**found, "more": 1}) == []


# No keyword is idle

_ASSERTIONS = (
    "type enum pattern minimum maximum maxLength minItems uniqueItems anyOf not required"
).split()
_INNER = "properties $defs".split()
_LISTS = "anyOf allOf prefixItems".split()
_ONE = "items additionalProperties propertyNames then else".split()


def assertions(schema: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """All that a schema asserts: (the subschema's identity, keyword), each required field alone."""
    for keyword in _ASSERTIONS:
        if keyword == "required":
            for field in schema.get("required", ()):
                yield id(schema), f"required {field}"
        elif keyword in schema:
            yield id(schema), keyword
    for keyword in _INNER:
        for inner in schema.get(keyword, {}).values():
            yield from assertions(inner)
    for keyword in _LISTS:
        for inner in schema.get(keyword, ()):
            yield from assertions(inner)
    for keyword in _ONE:
        if isinstance(schema.get(keyword), dict):
            yield from assertions(schema[keyword])


def violated(error: jsonschema.ValidationError) -> Iterator[tuple[int, str]]:
    """An error and the errors that led to it."""
    keyword = str(error.validator)
    if keyword == "required":
        keyword += " " + error.message.split("'")[1]
    yield id(error.schema), keyword
    for inner in error.context:
        yield from violated(inner)


POSITION = {"feed": "master", "epoch": 3, "serial": 5}


def valid_values(name: str) -> list[Any]:
    """Values with every part that a schema describes."""
    if name == "packages":
        return [[["numpy", 1, 2]]]
    if name == "failures":
        reason = {"category": "missing-header", "detail": "x.h", "packages": 1}
        reason |= {"downloads_recent": 2, "abis": {"cp311": 1}, "examples": ["numpy"]}
        return [{"reasons": [reason]}]
    if name == "site-status":
        waiting = {"pending": 1, "built_last_hour": 0, "built_last_day": 2, "done_in_seconds": 90}
        builder = {"label": "pi-3", "abi": "cp311", "doing": "building", "package": "numpy"}
        builder |= {"version": "1.0", "since": "2026-11-28 07:30:00"}
        attempt = valid_values("project")[0]["releases"].popitem()[1]["builds"][1]
        return [
            {
                "at": "2026-11-28 07:40:00",
                "serial": 7,
                "behind_seconds": 0.5,
                "abis": {"cp311": waiting},
                "builders": [builder],
                "recent_builds": [{"package": "numpy", "version": "1.0", **attempt}],
            }
        ]
    if name == "project":
        found = document(BASIC.expected / "project" / "numpy" / "json" / "index.json")
        version, release = next(
            (version, release) for version, release in found["releases"].items() if release["files"]
        )
        abis = {
            "cp311": next(one for one in release["abis"].values() if one["build_id"]),
            "cp313": {
                "status": "pending",
                "build_id": None,
                "duration": None,
                "log_url": None,
                "platforms": [],
            },
        }
        filename = min(release["files"])
        content = {"filehash": "a" * 64, "filesize": 1, "build_id": 1, "built_at": None}
        file = {"requires_python": None, "earlier": [content]}
        only = {filename: {**release["files"][filename], **file}}
        failure = {"category": "missing-header", "detail": "x.h"}
        attempt = release["builds"][0]
        builds = [attempt, {**attempt, "status": "fail", "failure": failure}]
        parts = {"abis": abis, "files": only, "builds": builds}
        return [{**found, "releases": {version: {**release, **parts}}}]
    if name == "change":
        message = {"msg": "DELPKG", "at": samples.AT, "data": {"package": "foo"}}
        return [
            {**POSITION, **message},
            POSITION,
            {"replay": {"epoch": 3, "after": 0, "limit": 1}},
            {"end": 5},
            {"gone": {"epoch": 3, "first": 2}},
        ]
    return list(samples.EVERY)


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_no_keyword_is_idle(name: str) -> None:
    """Each refuses something, by itself: mutations of what is valid run into all of them."""
    idle = set(assertions(SCHEMAS[name]))
    if name == "change":
        idle -= set(assertions(MESSAGE))
    assert idle
    for value in valid_values(name):
        assert faults(name, value) == []
        for changed in wrong(value):
            if not idle:
                return
            for error in VALIDATORS[name].iter_errors(changed):
                idle -= set(violated(error))
    where = {id(inner): inner for inner in subschemas(SCHEMAS[name])}
    assert not idle, [(keyword, where[number]) for number, keyword in idle]


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            yield from subschemas(inner)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        ({"status": "unknown"}, "'unknown' is not one of"),
        ({"build_id": None}, "is not of type 'null'"),
        ({"log_url": None}, "is not of type 'string'"),
        ({"status": "pending"}, "is not of type 'null'"),
    ],
)
def test_a_build_that_contradicts_itself(build: dict[str, Any], says: str) -> None:
    (value,) = valid_values("project")
    (release,) = value["releases"].values()
    release["abis"]["cp311"].update(build)
    found = faults("project", value)
    assert found
    assert all("abis.cp311" in one for one in found)
    assert any(says in one for one in found)
