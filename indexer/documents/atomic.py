"""Files of an open directory, replaced and removed so that no reader sees half of one.

No path is opened here: whoever calls has opened the directory, and knows that it is ours.
"""

from __future__ import annotations

import errno
import gzip
import os
import stat
import struct
import zlib

from ..base import filesystem

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_GZIP_LEVEL = 6


def compressed(content: bytes) -> bytes:
    """A document as gzip; without a time or a name, so the same bytes give the same."""
    return gzip.compress(content, _GZIP_LEVEL, mtime=0)


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


def replace_both(directory: int, name: str, content: bytes, *, thorough: bool) -> bool:
    """Likewise, a file and its compressed copy, `<name>.gz`.

    Args:
        thorough: compare all of the copy, not only its end: a damaged disk spares the end.
    """
    if not differs(directory, name, content) and _is_copy(directory, name, content, thorough):
        os.fsync(directory)
        return False
    # The compressed one first: what a crash leaves between them is then seen.
    replace(directory, f"{name}.gz", compressed(content))
    replace(directory, name, content)
    return True


def _is_copy(directory: int, name: str, content: bytes, thorough: bool) -> bool:
    """Whether the compressed copy is right: all of it, or what its end says of its content.

    Source of the trailer: RFC 1952, https://www.rfc-editor.org/rfc/rfc1952#section-2.3
    """
    name = f"{name}.gz"
    if thorough:
        return not differs(directory, name, compressed(content))
    try:
        copy = filesystem.open_regular(name, os.O_RDONLY, dir_fd=directory)
        with open(copy, "rb") as file:
            file.seek(-8, os.SEEK_END)
            return file.read() == struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)
    except OSError:
        return False


def set_mode(directory: int, name: str) -> None:
    """Give a document its mode, whatever comes into its place meanwhile.

    A file that is not ours alone is replaced: it may be another user's, or have another name
    somewhere else.
    """
    descriptor = filesystem.open_regular(name, os.O_RDONLY, dir_fd=directory)
    with open(descriptor, "rb", 0) as file:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_nlink == 1:
            os.fchmod(descriptor, filesystem.DOCUMENT)
            return
        filesystem.stage(directory, name, file.readall(), filesystem.DOCUMENT, durable=True)
    filesystem.put(directory, name)
    os.fsync(directory)


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
