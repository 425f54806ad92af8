"""The live screen of `top`, on terminals of all sizes."""

from __future__ import annotations

from typing import Any

import pytest

from indexer.screens import top

from .test_farm_screen import farm, printed, watched
from .test_problems import daemon, feed, judged

pytestmark = pytest.mark.unit

__all__ = ["watched"]  # a fixture


def screen(width: int = 100, height: int = 40, **more: Any) -> str:
    live = daemon(recently_published=["numpy", "scipy"])
    shown = judged(**{"daemon": live, **more})
    return printed(top.frame(shown, [1.0, 5.0, 2.0], height), width)


def test_all_is_well() -> None:
    text = screen()
    assert "✓ All is well." in text.splitlines()[0]
    assert "▂█▄" in text
    assert "0 behind" in text
    assert "project/numpy" in text
    assert "latest builds" not in text, "there is no farm"


def test_a_long_line_cuts_no_name() -> None:
    """The line of the disk once left of these names "pend…", "publ…" and "quar…"."""
    text = screen(60)
    assert "…" in next(line for line in text.splitlines() if "disk" in line)
    for name in ("pending ", "published ", "quarantine "):
        assert f"│ {name}" in text


def test_trouble_comes_first() -> None:
    lines = screen(feeds=[feed(broken="lost", lag=7, lag_seconds=90.0)]).splitlines()
    assert "✗ Not well: 1 critical, 1 warning." in lines[0]
    assert lines[1].startswith("✗ feed-broken  feed master is broken: lost")
    assert any("broken" in line and "1 min 30 s" in line for line in lines)


def test_without_a_daemon() -> None:
    text = screen(daemon=None, held_by="")
    assert "daemon-not-running" in text
    assert text.count("no daemon runs") == 2


def test_with_a_farm(watched: Any) -> None:
    text = screen(farm=farm(watched))
    assert "5 slaves: 1 building" in text
    assert "latest builds" in text
    assert "scipy" in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_latest_builds_on_a_narrow_terminal(width: int, watched: Any) -> None:
    """Each of five columns was once cut to a letter; now the label and the duration go first."""
    text = screen(width, farm=farm(watched))
    (build,) = [line for line in text.splitlines() if "✗ lxml 5.0" in line]
    assert "cp311" in build
    assert "8 s ago" in build
    assert ("four" in build) == (width == 160)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_of_top_is_wider_than_the_terminal(width: int, watched: Any) -> None:
    for height in (24, 60):
        lines = screen(width, height, farm=farm(watched)).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= max(height, 24) or width < 80
