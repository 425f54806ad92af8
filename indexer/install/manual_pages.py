"""Links that let man(1) find the manual pages that pip put into a virtual environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from . import files as installation

DIRECTORY = "/usr/local/share/man"

_PAGES = "man[0-9]/piw-indexer*.[0-9]"


def link(prefix: Path, base: Path, dry_run: bool) -> str:
    """Link the pages of an environment below `base`; files of others stay.

    Args:
        prefix: `sys.prefix` of the environment.
        base: the root of the machine.

    Returns:
        What was done, in words; empty if there was nothing to do.

    Raises UsageError if a link cannot be made.
    """
    theirs = prefix / "share" / "man"
    ours = installation.below(base, DIRECTORY)
    pages = {page.relative_to(theirs): page for page in sorted(theirs.glob(_PAGES))}
    if not pages or theirs.resolve() == ours.resolve():
        return ""
    # Links of an environment or a page that no longer exists.
    old = [path for path in _links(base) if path.relative_to(ours) not in pages]
    new = {ours / name: page for name, page in pages.items() if _replaceable(ours / name, page)}
    if not old and not new:
        return ""
    if not dry_run:
        for path in old:
            installation.take_away(base, _path(base, path))
        for path, page in new.items():
            _link(base, path, page)
    return f"{DIRECTORY}: {len(new)} manual pages {'would be ' if dry_run else ''}linked"


def unlink(base: Path, dry_run: bool) -> str:
    """Remove the links that `link` made; returns what was done, in words.

    Raises UsageError if a link cannot be removed.
    """
    links = list(_links(base))
    if not links:
        return ""
    if not dry_run:
        for path in links:
            installation.take_away(base, _path(base, path))
    return f"{DIRECTORY}: {len(links)} links {'would be ' if dry_run else ''}removed"


def _path(base: Path, path: Path) -> str:
    """A path as `files` takes it."""
    return f"/{path.relative_to(base)}"


def _link(base: Path, path: Path, page: Path) -> None:
    """Make a link to a page, and replace an existing link."""
    try:
        with installation.within(base, _path(base, path), make=True) as (directory, name):
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass
            os.symlink(page, name, dir_fd=directory)
    except OSError as error:
        raise installation.refused(f"link {path}", error) from error


def _links(base: Path) -> Iterator[Path]:
    """Links to pages of an environment, which may no longer exist."""
    for path in sorted(installation.below(base, DIRECTORY).glob(_PAGES)):
        if path.is_symlink() and path.readlink().parts[-4:-2] == ("share", "man"):
            yield path


def _replaceable(path: Path, page: Path) -> bool:
    """Whether a link has to be made here: there is none, or it leads to another environment."""
    if path.is_symlink():
        return path.readlink() != page
    return not path.exists()
