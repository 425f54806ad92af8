"""The shim, compiled once, and the stream of messages that all tests here send."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..crash.harness import Stream, make_stream
from ..support import Site
from . import injection
from .injection import Shim


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return injection.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """Messages, and what an undisturbed run makes of them."""
    return make_stream(tmp_path_factory.mktemp("stream"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site whose two directories have a common parent, apart from the logs of its processes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    site = Site(tmp_path)
    site.state_dir = disk / "state"
    site.output_path = disk / "output"
    site.publisher_dir = disk / "publisher"
    return site


@pytest.fixture
def shim(library: Path, site: Site) -> Shim:
    return Shim(library, site.state_dir.parent)
