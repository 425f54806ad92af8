"""The modules that a short command loads: on a Raspberry Pi every import takes time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from indexer.cli import SECTIONS, piw_indexer

from .. import samples
from ..support import Site, environment

pytestmark = pytest.mark.acceptance

PROGRAM = """
import sys
from indexer.cli import main
try:
    main(sys.argv[1:])
finally:
    print(" ".join(sys.modules), file=sys.stderr)
"""


def modules(home: Path, *arguments: object) -> set[str]:
    """The modules that are loaded when a command ends."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        env=environment(home),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,  # the exit status of --monitor is its verdict
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_no_command_is_loaded_for_what_needs_none(option: str, tmp_path: Path) -> None:
    loaded = modules(tmp_path, option)
    assert not [name for name in loaded if name.startswith("indexer.commands.")]
    heavy = {"zmq", "sqlite_utils", "rich", "prometheus_client", "cbor2", "msgpack", "voluptuous"}
    assert loaded.isdisjoint(heavy)


@pytest.mark.parametrize("options", [[], ["--json"], ["--monitor"]])
def test_status_loads_what_it_needs(options: list[str], site: Site) -> None:
    site.take(samples.new_package("numpy"))
    loaded = modules(site.home, "status", *site.state, *options)
    assert "indexer.watch.status" in loaded
    heavy = {"zmq", "sqlite_utils", "voluptuous", "prometheus_client", "asyncio"}
    heavy |= {"logging_journald", "rich.progress", "ctypes", "hashlib"}
    if options:
        heavy |= {"rich"}
    assert loaded.isdisjoint(heavy)


def test_every_command_has_a_sentence_and_a_module() -> None:
    names = [name for section in SECTIONS.values() for name in section]
    assert sorted(names) == sorted(set(names))
    for name in names:
        assert piw_indexer.commands[name].name == name
    for section in SECTIONS.values():
        assert all(sentence.endswith(".") for sentence in section.values())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_imports_what_migrations_need_before_it_becomes_the_owner() -> None:
    somebody = 65534
    with tempfile.TemporaryDirectory(prefix="piw-") as directory:
        os.chmod(directory, 0o755)
        site = Site(Path(directory))
        site.take(samples.new_package("numpy"))
        for path in [Path(directory), *Path(directory).rglob("*")]:
            os.lchown(path, somebody, somebody)
        # Its index has all migrations already: nothing else in `write` imports it.
        loaded = modules(site.home, "write", *site.state, *site.output)
        assert "indexer.documents.writer" in loaded
        assert {"sqlite_utils", "importlib.metadata"} <= loaded
        for option in ("--json", "--monitor", "-c/dev/null"):
            assert "sqlite_utils" not in modules(site.home, "status", *site.state, option)
