"""docs/logs.md against the code: every event is there, with its level and its fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
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
    """A log call: where it is, how it is called and what it gives."""

    where: str
    name: str | None
    level: str
    fields: frozenset[str]


def calls() -> Iterator[Event]:
    """Every log call of the code."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func.value) not in ("log", "self._log") or node.func.attr not in (
                *LEVELS,
                "log",
            ):
                continue
            level = node.func.attr
            if level == "log":
                level = ast.unparse(node.args[0]).lower()
            extra = next((one.value for one in node.keywords if one.arg == "extra"), None)
            name, fields = None, frozenset[str]()
            if isinstance(extra, ast.Call) and ast.unparse(extra.func).endswith("event"):
                assert isinstance(extra.args[0], ast.Constant)
                name = str(extra.args[0].value)
                fields = frozenset(str(one.arg) for one in extra.keywords)
            yield Event(f"{path.name}:{node.lineno}", name, level, fields)


CALLS = list(calls())


def test_every_call_names_its_event() -> None:
    assert len(CALLS) > 40
    assert [one.where for one in CALLS if one.name is None] == []


def test_the_documentation_lists_every_event() -> None:
    documented = {
        (name, level, frozenset(re.findall(r"`PIW_([A-Z_]+)`", fields)))
        for name, level, fields in _ROW.findall(DOCS.read_text(encoding="utf-8"))
    }
    in_code = {
        (one.name, one.level, frozenset(field.upper() for field in one.fields)) for one in CALLS
    }
    assert documented == in_code


def test_event_gives_what_a_record_may_have() -> None:
    """`logging` refuses an `extra` with the name of an attribute of its own, as `name`."""
    assert log.event("x", name="n", message="m").keys() == {"piw_event", "piw_fields"}
