"""What the tests read in a page of the documentation: its prose, blocks and command lines."""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


class Typed(NamedTuple):
    """A command line of a console block, and what the page says that it prints."""

    line: str
    output: str


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [textwrap.dedent(block) for _, kind, block in _FENCED.findall(text) if kind == language]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", text)


def inline(text: str) -> list[str]:
    """What stands in backquotes in the prose."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def typed(text: str) -> list[Typed]:
    """The command lines of the console blocks."""
    found = []
    for block in blocks(text, "console"):
        first, *rest = re.split(r"^\$ ", block, flags=re.M)
        assert not first, f"a console block begins with a command: {block}"
        for step in rest:
            line, _, output = step.partition("\n")
            found.append(Typed(line, output))
    return found


def words(output: str) -> list[list[str]]:
    """The words of each line: how wide a column is does not matter."""
    return [line.split() for line in output.splitlines()]
