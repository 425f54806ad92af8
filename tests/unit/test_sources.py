"""Options for the queues of a master that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer.base.errors import UsageError
from indexer.piwheels.sources import refuse_masters_tree

pytestmark = pytest.mark.unit


def test_the_tree_of_the_master_is_refused(tmp_path: Path) -> None:
    """Its documents replaced ours a minute after each build, and all was well."""
    tree, ours = tmp_path / "www", tmp_path / "ours"
    tree.mkdir()
    (tmp_path / "link").symlink_to(tree)
    file = tmp_path / "piwheels.conf"
    file.write_text(f"[indexer]\noutput-path = {ours}\n\n[master]\noutput-path={tree}\n")
    for path in (tree, tmp_path / "link"):
        with pytest.raises(UsageError) as found:
            refuse_masters_tree(path, [str(file)])
        assert str(file) in str(found.value)
    refuse_masters_tree(ours, [str(file)])
    refuse_masters_tree(tree, [str(tmp_path / "missing")])
    file.write_text(f"output_path: {tree}\n[other]\noutput-path={ours}\n")
    refuse_masters_tree(tree, [str(file)])
