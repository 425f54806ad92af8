"""Makes text from outside safe for a terminal, a log, a metric or a unit's status.

`line` and `text` return only printable characters (`text` keeps newlines), never more than asked
for. Applying them twice changes nothing.
"""

from __future__ import annotations

import re
from typing import Any

MAX_LINE = 500
MAX_TEXT = 20_000
_ELLIPSIS = "…"
_LINE_BREAK = re.compile(r"\n\s*")
_MAX_OF_ONE = len(r"\U0010ffff")


def line(value: str, longest: int = MAX_LINE) -> str:
    """`value` as one line: what cannot be printed is escaped, what is too long is cut."""
    cut = value[: longest + 1]  # so that 10 MB are not escaped for nothing
    shown = cut if cut.isprintable() else "".join(map(_escaped, cut))
    return shown if len(shown) <= longest else shown[: longest - 1] + _ELLIPSIS


def sentence(value: str, longest: int = MAX_LINE) -> str:
    """Likewise, but line breaks become spaces: errors of libraries contain some."""
    return line(_LINE_BREAK.sub(" ", value[: 2 * longest]), longest)


def many(number: int, noun: str) -> str:
    """How many there are: `1 file`, `2,000 entries`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("ry") else f"{number:,} {noun}s"


def whole_line(value: str) -> str:
    """`value` as one line, without cutting it: for results."""
    return line(value, _MAX_OF_ONE * len(value) + 1)


def utf8(value: str) -> str:
    """`value` as JSON and SQLite can hold it: bytes of a path that are not UTF-8 are escaped."""
    return value.encode(errors="backslashreplace").decode()


def text(value: str, longest: int = MAX_TEXT) -> str:
    """`value` with its lines kept: what else cannot be printed is escaped, the rest is cut."""
    cut = value[: longest + 1]
    if not cut.replace("\n", "").isprintable():
        cut = "".join(character if character == "\n" else _escaped(character) for character in cut)
    return cut if len(cut) <= longest else cut[: longest - 1] + _ELLIPSIS


def facts(value: Any) -> Any:
    """A structure of dicts, lists, tuples and scalars with each string as one line.

    Keys that would become equal get numbers, so nothing is lost.
    """
    if isinstance(value, str):
        return line(value)
    if isinstance(value, dict):
        shown: dict[Any, Any] = {}
        for key, item in value.items():
            shown[_distinct(facts(key), shown)] = facts(item)
        return shown
    if isinstance(value, list):
        return [facts(item) for item in value]
    if isinstance(value, tuple):
        items = map(facts, value)
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


def echo(value: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text, or JSON as bytes, which is escaped by JSON's own rules and stays exact.

    Nothing is cut, because a result that is cut is wrong.
    """
    if isinstance(value, bytes):
        shown = "".join(
            character if character == "\n" or character.isprintable() else _json_escaped(character)
            for character in value.decode()
        )
    else:
        shown = str(value)
        shown = text(shown, _MAX_OF_ONE * len(shown) + 1)
    import click  # only here: most users of this module do not print

    click.echo(shown, err=err, nl=nl)


def warn(text: object) -> None:
    """Print a diagnostic to stderr."""
    echo(f"piw-indexer: {text}", err=True)


def _distinct(key: Any, others: dict[Any, Any]) -> Any:
    distinct, number = key, len(others)
    while distinct in others:
        number += 1
        distinct = f"{key} ({number})"
    return distinct


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _json_escaped(character: str) -> str:
    pair = character.encode("utf-16-be").hex()
    return "".join(f"\\u{pair[at : at + 4]}" for at in range(0, len(pair), 4))
