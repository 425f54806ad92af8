"""Fixtures of the tests on real databases, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .index import Index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """An empty index."""
    with Index(tmp_path / "index.db") as found:
        yield found
