"""The JSON Schemas as a reader of ours would use them, and wrong values to refuse with them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from importlib import resources
from typing import Any

import jsonschema
from referencing import Registry, Resource

from ..property.strategies import places

NAMES = ("message", "change", "project", "packages", "failures", "site-status")


def _load(name: str) -> Any:
    # Where the package has them, not the repository.
    file = resources.files("indexer.schema") / f"{name}.schema.json"
    return json.loads(file.read_text(encoding="utf-8"))


SCHEMAS = {name: _load(name) for name in NAMES}


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    """What validates by a schema; references to the others are resolved by their $id."""
    found = [(one["$id"], Resource.from_contents(one)) for one in SCHEMAS.values()]
    registry: Registry[Any] = Registry().with_resources(found)
    return jsonschema.Draft202012Validator(schema, registry=registry)


VALIDATORS = {name: validator(schema) for name, schema in SCHEMAS.items()}


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _closed(one) for key, one in schema.items()}
    if inner.get("type") == "object" and "properties" in inner:
        inner["additionalProperties"] = False
    return inner


CLOSED = {
    name: validator({**_closed(SCHEMAS[name]), "$id": f"urn:closed:{name}"})
    for name in ("project", "packages", "failures", "site-status")
}
"""What we publish has no field that the schemas do not know."""


def faults(name: str, value: Any) -> list[str]:
    """What a schema, by its name, has against a value."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATORS[name].iter_errors(value)]


_WRONG_VALUES: list[Any] = [
    *(None, True, 0, -1, 0.5, 2**41, 2**64, math.inf, "", "x", "../x", "x\n", "a" * 64 + "\n"),
    "x" * 501,
    *("x" * 300, "file:x", "none", [], [1], ["a", "a"], [[]], {}, {"cp311": {}}, {"apt": [1]}),
]
_WRONG_KEYS = ("", "../x", "x" * 300, "cp311\n", "npm", "2026-11-22T14:30:00Z")


def wrong(value: Any) -> Iterator[Any]:
    """A value with one of its parts replaced, renamed or removed; a few are still valid."""
    yield from _WRONG_VALUES
    for *path, key in places(value):
        for kind in (*range(len(_WRONG_VALUES)), *_WRONG_KEYS, None):
            changed = deepcopy(value)
            parent = changed
            for step in path:
                parent = parent[step]
            if isinstance(kind, int):
                parent[key] = _WRONG_VALUES[kind]
            elif kind is None:
                del parent[key]
            elif isinstance(parent, dict):
                parent[kind] = parent.pop(key)
            yield changed
