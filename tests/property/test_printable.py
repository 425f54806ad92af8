"""Text from outside becomes printable and bounded, and is not changed again after that."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.panel import Panel

from indexer.base import printable
from indexer.base.bar import bar
from indexer.base.console import console

pytestmark = pytest.mark.property

ANY = st.text(st.characters(exclude_categories=()))
"""Lone surrogates, too."""


@given(ANY, st.integers(1, 50))
def test_a_line_is_printable_and_bounded_and_made_once(value: str, longest: int) -> None:
    shown = printable.line(value, longest)
    assert shown.isprintable()
    assert len(shown) <= longest
    assert printable.line(shown, longest) == shown


@given(ANY, st.integers(1, 50))
def test_a_text_keeps_only_the_ends_of_its_lines(value: str, longest: int) -> None:
    shown = printable.text(value, longest)
    assert shown.replace("\n", "").isprintable()
    assert len(shown) <= longest
    assert printable.text(shown, longest) == shown


@given(st.text())
def test_json_that_is_printed_is_exact_and_printable(value: str) -> None:
    @click.command()
    def say() -> None:
        printable.echo(json.dumps(value, ensure_ascii=False).encode())

    said = CliRunner().invoke(say).output
    assert said.replace("\n", "").isprintable()
    assert json.loads(said) == value


@pytest.mark.parametrize("name", ["[red]a[/red]", "a[/]", "a[/b]", ":smile:", "[link=x]a", "{x}"])
def test_names_are_no_markup(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal the bar of a file called `[/]` ended the command with a traceback."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes what is captured for a terminal
    monkeypatch.setenv("COLUMNS", "200")
    with bar(name) as advance:
        advance(1, 2)
    console().print(name, Panel(name))
    shown = capsys.readouterr()
    assert name in shown.err
    assert shown.out.count(name) == 2
