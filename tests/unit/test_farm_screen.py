"""The screen of the live farm, on terminals of all widths and without one."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from indexer.piwheels.farm.picture import EMPTY, Picture
from indexer.screens import farm as farm_screen
from indexer.screens import parts

from ..status_master import Master
from .test_farm import Watched, life

pytestmark = pytest.mark.unit


def printed(what: RenderableType, width: int = 120) -> str:
    file = StringIO()
    Console(file=file, width=width, highlight=False).print(what)
    return file.getvalue()


@pytest.fixture
def watched() -> Watched:
    """A farm with an example of everything."""
    found = Watched(Master())
    master = found.master
    found.hear(master.hello())
    for label, slow in (("one", 0), ("two", 4000), ("three", -2), ("four", 0), ("five", 0)):
        found.hear(master.join(label, slow=timedelta(seconds=slow)))
    found.hear(master.idle(1, ["numpy", "2.0"]))
    found.hear(master.idle(2, ["scipy", "1.0"]))
    found.hear(master.built(2, "scipy-1.0-cp311-cp311-linux_armv7l.whl"))
    found.hear(master.idle(3, pause=True))
    found.hear(master.idle(4, ["lxml", "5.0"]))
    found.wait(75)
    found.hear(master.built(4))
    found.hear(master.stats())
    found.wait(8)
    return found


def farm(watched: Watched) -> Picture:
    return watched.picture


def test_the_whole_screen(watched: Watched) -> None:
    text = printed(farm_screen.frame(farm(watched), "", 260, 40), 260)
    lines = text.splitlines()
    assert "5 slaves: 1 building, 1 cleaning up, 1 paused, 1 sending, 1 starting" in lines[0]
    assert "1 to look at" in lines[0]
    assert "14:16:36" in lines[0], "the master's time"
    assert "vm" in lines[2]
    assert "Debian GNU/Linux 12 (bookworm), up 1 min 23 s, seen 8 s ago" in lines[2]
    (one,) = [line for line in lines if " one " in line]
    assert (
        one.split()[2:-1]
        == (
            "one cp311 building numpy 2.0 1 min 23 s 0 0 3.97 62 °C 1.0 KiB 6.8 KiB right"
            " 1 min 23 s Pi 4B 1.5, 2 GiB linux_armv7l Debian GNU/Linux 12 (bookworm)"
        ).split()
    )
    assert "sending scipy-1.0-cp311-cp311-linux_armv7l.whl" in text
    assert "1 h 6 min slow" in text
    assert "its clock is 4,000 s slow" in text
    assert "2 s fast" in text
    assert "cleaning up lxml 5.0" in text
    (build,) = [line for line in lines if "✗ lxml 5.0" in line]
    assert build.split()[4:] == ["cp311", "four", *"in 1 min 15 s 8 s ago │".split()]


@pytest.mark.parametrize("width", [20, 60, 80, 100, 140, 250])
def test_no_line_of_the_farm_is_wider_than_the_terminal(watched: Watched, width: int) -> None:
    lines = printed(farm_screen.frame(farm(watched), "", width, 24), width).splitlines()
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert any("building numpy 2.0" in line for line in lines)
        assert any("✗ lxml 5.0" in line and "8 s ago" in line for line in lines)


def test_a_note_is_seen(watched: Watched) -> None:
    text = printed(farm_screen.frame(farm(watched), "no daemon runs there\nmore", 100, 24), 100)
    assert text.splitlines()[0].startswith("no daemon runs there  ")


def test_what_is_not_known() -> None:
    master = Master()
    master.join()
    master.idle(1)
    late = Watched(master)
    late.hear(master.idle(1, ["numpy", "2.0"])[:1])
    data = farm(late)
    row = printed(farm_screen.slaves(data, 80)).splitlines()[1].split()
    assert row[:6] == ["1", "?", "?", "?", "?", "0"]
    late.hear(master.hello())
    late.wait(130)
    row = printed(farm_screen.slaves(farm(late), 80)).splitlines()[1].split()
    assert row[:11] == ["1", "slave", "cp311", "building", "numpy", "2.0", *"≥ 2 min 10 s".split()]


def test_nothing_at_all() -> None:
    data = EMPTY
    for what in (farm_screen.frame(data, "", 80, 24), farm_screen.plain(data, 80)):
        assert "nothing has been heard of it yet" in printed(what)
    assert farm_screen.summary(data) == "0 slaves"


def test_labels_are_text(watched: Watched) -> None:
    """They must not be taken for markup."""
    watched.hear(watched.master.join("[red]six[/] :pi:"))
    assert "[red]six[/] :pi:" in printed(farm_screen.slaves(farm(watched), 200), 200)


def test_without_a_terminal_there_are_plain_tables() -> None:
    data = life("14:15:48.1")[0]
    text = printed(farm_screen.plain(data, 1000), 1000)
    (row,) = [line for line in text.splitlines() if "building" in line]
    assert row.split()[:8] == "3 bookworm-1 cp311 building slowpoke 1.0 3 s".split()
    assert text.count("✓") + text.count("✗") == 15
    assert "✗ brokenlib 1.0        cp39   bullseye-1" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (12_000, "3 h 20 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (360_000, "4 d 4 h"),
        (1_795_356_858, "20,779 d 14 h"),
    ],
)
def test_a_span_has_at_most_two_units(seconds: float, text: str) -> None:
    assert parts.span(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KiB"), (10 * 2**20, "10 MiB"), (2**62, "4.0 EiB")],
)
def test_a_size_has_a_readable_unit(size: int, text: str) -> None:
    assert parts.size(size) == text
