"""Processes of our own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from indexer.base import process
from indexer.base.errors import StateError

pytestmark = pytest.mark.unit


def test_an_interpreter_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was said to have left a message, and to start again by itself."""
    for name in ("missing", "a-directory"):
        python = tmp_path / name
        if name == "a-directory":
            python.mkdir()
        monkeypatch.setattr(sys, "executable", str(python))
        with pytest.raises(StateError) as found:
            process.start("indexer.daemon.writer_loop")
        assert str(python) in str(found.value)
        assert "this user may run that file" in str(found.value)


def test_a_process_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not answer holds even a process that was killed."""
    monkeypatch.setattr(process, "END_TIMEOUT", 0.0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert not process.wait(child)
        child.kill()
        child.wait()
        assert process.wait(child)
