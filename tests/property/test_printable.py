"""Text from outside becomes printable and bounded, and is not changed again after that."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from indexer.base import printable

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
