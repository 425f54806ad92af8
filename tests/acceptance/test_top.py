"""`top` with and without a terminal, with and without a daemon."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .. import samples
from ..support import COMMAND, DEADLINE, Feed, Site, case_named, environment, read_until

pytestmark = pytest.mark.acceptance

CASE = case_named("equal-versions")


@contextmanager
def on_terminal(site: Site) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run `top` on a terminal; yields the other side of the terminal, and the process."""
    screen, side = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [COMMAND, "top", *map(str, site.state)],
        env=environment(site.home, TERM="xterm-256color"),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    try:
        yield screen, process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(screen)


@pytest.mark.parametrize("end", ["q", "Ctrl-C"])
def test_a_daemon_that_goes_away(end: str, ipc: Feed, site: Site) -> None:
    with site.publisher(ipc, CASE.messages) as publisher, site.daemon(ipc) as daemon:
        site.wait_for_all(CASE.count, daemon, publisher)
        with on_terminal(site) as (screen, process):
            read_until(screen, "All is well.")
            daemon.terminate()
            read_until(screen, "daemon-not-running")
            if end == "q":
                os.write(screen, b"q")
            else:
                process.send_signal(signal.SIGINT)
            read_until(screen, None)
            assert process.wait(DEADLINE) == 0


def test_on_no_terminal_once(site: Site) -> None:
    site.take(samples.new_package("numpy"))
    text = site.piw("top").stdout
    assert text.splitlines()[0].startswith("piw-indexer  ✗ Not well: 1 critical.")
    assert text.count("the river") == 1
    assert "\x1b" not in text


def test_without_a_state(site: Site) -> None:
    refused = site.piw("top", status=3)
    assert "there is no journal in it" in refused.stderr
