"""One generated stream for all crash tests."""

from __future__ import annotations

import pytest

from ..property import profiles
from ..tally import SCALE
from .harness import Stream, make_stream

profiles.load()


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Messages, and what an undisturbed run makes of them."""
    return make_stream(tmp_path_factory.mktemp("stream"), scale=2 if SCALE else 1)
