"""Files of an open directory, replaced and removed so that no reader sees half of one.

No path is opened here: whoever calls has opened the directory, and knows that it is ours.
"""

from __future__ import annotations

import errno
import os
import stat

from ..base import filesystem

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def open_own(name: str, parent: int) -> int:
    """Open a directory of ours, made if it is not there. A link in its place gives way.

    Writing through a link could end up anywhere.
    """
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if error.errno != errno.ENOENT:
            if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise
            os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, DIRECTORY, dir_fd=parent)


def differs(directory: int, name: str, content: bytes) -> bool:
    """Whether a file has other bytes, is not there, cannot be read, or is not a file."""
    try:
        return not filesystem.holds(name, content, dir_fd=directory)
    except OSError:
        return True


def replace(directory: int, name: str, content: bytes) -> bool:
    """Replace a file, unless it has these bytes already; durable on return.

    Returns:
        True if it had other ones.
    """
    changed = differs(directory, name, content)
    if changed:
        filesystem.stage(directory, name, content, filesystem.DOCUMENT, durable=True)
        filesystem.put(directory, name)
    # The same bytes may have been renamed just before a crash.
    os.fsync(directory)
    return changed


def set_mode(directory: int, name: str) -> None:
    """Give a document its mode, whatever comes into its place meanwhile.

    A file that is not ours alone is removed: it may be another user's, or have another name
    somewhere else. What is in it is not published: it may be private, or not what was compared.
    """
    descriptor = filesystem.open_regular(name, os.O_RDONLY, dir_fd=directory)
    try:
        if filesystem.is_ours_alone(descriptor):
            os.fchmod(descriptor, filesystem.DOCUMENT)
        else:
            unlink(directory, name)
    finally:
        os.close(descriptor)


def remove(directory: int, name: str) -> bool:
    """Remove a file, and what a crash left of it; false if it is not there. Not durable."""
    unlink(directory, filesystem.TEMPORARY.format(name))
    return unlink(directory, name)


def unlink(directory: int, name: str) -> bool:
    """Remove a file; false if it is not there."""
    try:
        os.unlink(name, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def remove_directory(within: int, name: str) -> bool:
    """Remove a directory; false if there is something in it."""
    try:
        os.rmdir(name, dir_fd=within)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True
