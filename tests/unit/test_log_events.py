"""docs/logs.md lists every event of the code, with its level and fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import indexer
from indexer.base import log

pytestmark = pytest.mark.unit

PACKAGE = Path(indexer.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "logs.md"
LEVELS = ("debug", "info", "warning", "error", "critical", "exception")
_ROW = re.compile(r"\| `([a-z-]+)` \| ([a-z]+) \|([^|]*)\| [^|]{10,} \|")


class Event(NamedTuple):
    """A log call: its place, its level, and its arguments."""

    where: str
    name: str | None
    level: str
    fields: frozenset[str]


@cache
def calls() -> list[Event]:
    """Every log call of the code."""
    return [event for path in sorted(PACKAGE.rglob("*.py")) for event in calls_of(path)]


def calls_of(path: Path) -> Iterator[Event]:
    """Every log call of a module."""
    source = path.read_text(encoding="utf-8")
    if "log." not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if ast.unparse(node.func.value) not in ("log", "self._log"):
            continue
        if node.func.attr not in (*LEVELS, "log"):
            continue
        level = node.func.attr
        if level == "log":
            level = ast.unparse(node.args[0]).lower()
        extra = next((keyword.value for keyword in node.keywords if keyword.arg == "extra"), None)
        name, fields = None, frozenset[str]()
        if isinstance(extra, ast.Call) and ast.unparse(extra.func).endswith("event"):
            assert isinstance(extra.args[0], ast.Constant)
            name = str(extra.args[0].value)
            fields = frozenset(str(keyword.arg) for keyword in extra.keywords)
        yield Event(f"{path.name}:{node.lineno}", name, level, fields)


def test_every_call_names_its_event() -> None:
    assert len(calls()) > 40
    assert [call.where for call in calls() if call.name is None] == []


def test_the_documentation_lists_every_event() -> None:
    documented = {
        (name, level, frozenset(re.findall(r"`PIW_([A-Z_]+)`", fields)))
        for name, level, fields in _ROW.findall(DOCS.read_text(encoding="utf-8"))
    }
    in_code = {
        (call.name, call.level, frozenset(field.upper() for field in call.fields))
        for call in calls()
    }
    assert documented == in_code


def test_event_gives_what_a_record_may_have() -> None:
    """`logging` refuses an `extra` with the name of an attribute of its own, as `name`."""
    assert log.event("x", name="n", message="m").keys() == {"piw_event", "piw_fields"}
