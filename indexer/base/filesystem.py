"""The only place that opens files for writing, safely even where other users may write.

It follows no links, does not wait for FIFOs, opens only regular files, and replaces files by new
ones. A file that is written whole gets its name when it is complete. Modes do not depend on the
umask.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

STATE_FILE = 0o640
STATE_DIRECTORY = 0o750
"""Of states, spools and backups, because the quarantine may contain personal data."""

OURS_ALONE = 0o600
"""Of lock files: a user who may read a file can keep it locked for ever."""

DOCUMENT = 0o644

MAX_DOCUMENT = 128 * 1024 * 1024
"""Bytes of a document that is read; one with 10,000 versions has 20 MB."""

TEMPORARY = ".{}.piw-indexer"
"""The name of a file until it is complete."""

_WIDE = 0o777 & ~STATE_DIRECTORY

NOT_REGULAR = "it is not a regular file"

_STATE_DIRECTORIES = ("journal", "checkpoint", "spool", "spool.old")
_CAUTIOUS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_TRIES = 10
"""Another user may keep putting files in the place of a new one."""


def open_regular(
    path: str | Path, flags: int, mode: int = OURS_ALONE, *, dir_fd: int | None = None
) -> int:
    """Open a regular file, but no link, and without waiting for the other end of a FIFO.

    Raises OSError if it cannot be opened, or is not a regular file.
    """
    return _opened(path, flags, mode, dir_fd)[0]


def _opened(path: str | Path, flags: int, mode: int, dir_fd: int | None) -> tuple[int, int]:
    """Likewise; returns the descriptor and the size."""
    try:
        descriptor = os.open(path, flags | _CAUTIOUS, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a FIFO or a socket
            raise OSError(error.errno, NOT_REGULAR, str(path)) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    return descriptor, status.st_size


def read(path: str | Path, limit: int | None = None, *, dir_fd: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        limit: bytes that it may have; a sparse file of a terabyte uses no space on the disk.
        dir_fd: the open directory that `path` is below.

    Raises:
        OSError: as `open_regular`; or if the file is larger.
    """
    descriptor, size = _opened(path, os.O_RDONLY, 0, dir_fd)
    with open(descriptor, "rb", 0) as file:
        if limit is None:
            return file.readall()
        if size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit >> 20} MiB", str(path))
        return file.read(size)  # not what somebody appends meanwhile


def beginning(path: str | Path, size: int) -> bytes:
    """The first bytes of a regular file.

    Raises:
        OSError: as `open_regular`.
    """
    with open(_opened(path, os.O_RDONLY, 0, None)[0], "rb", 0) as file:
        return file.read(size)


def read_linked(path: str | Path, limit: int) -> bytes:
    """Read the file that a path leads to, through links, if it has at most `limit` bytes.

    Raises:
        OSError: as `read`; so, too, if links lead to each other.
    """
    return read(os.path.realpath(path), limit)


def holds(path: str | Path, content: bytes, *, dir_fd: int | None = None) -> bool:
    """Whether a regular file has this content.

    Raises:
        OSError: as `open_regular`.
    """
    descriptor, size = _opened(path, os.O_RDONLY, 0, dir_fd)
    try:
        if size != len(content):
            return False
        place = 0
        while place < size:
            part = os.read(descriptor, size - place)
            if not part or part != content[place : place + len(part)]:
                return False
            place += len(part)
        return True
    finally:
        os.close(descriptor)


def is_ours_alone(descriptor: int) -> bool:
    """Whether an open file belongs to us, and has no other name, maybe somewhere else."""
    status = os.fstat(descriptor)
    return status.st_uid == os.geteuid() and status.st_nlink == 1


def create(
    path: str | Path, mode: int = STATE_FILE, *, dir_fd: int | None = None, over: bool = True
) -> int:
    """Make a file and open it to read and write.

    Args:
        dir_fd: the open directory that `path` is below.
        over: replace what is in its place, unless that is a directory.

    Raises OSError if it cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
        except FileExistsError:
            if not over:
                raise
            # Left by a crash, or another user's link.
            os.unlink(path, dir_fd=dir_fd)
            continue
        os.fchmod(descriptor, mode)
        return descriptor
    raise FileExistsError(errno.EEXIST, "another process keeps making a file there", str(path))


def open_own(path: str | Path) -> int:
    """Open a file of our own that stays open, such as a lock; made if it is missing.

    Raises:
        OSError: if it cannot be opened, is not a regular file, belongs to another user, or has
            another name.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    status = os.fstat(descriptor)
    try:
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user", str(path))
        _refuse_another_name(status, path)
        if stat.S_IMODE(status.st_mode) != OURS_ALONE:
            os.fchmod(descriptor, OURS_ALONE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_another_name(status: os.stat_result, path: str | Path) -> None:
    """What is written in place changes under all its names."""
    if status.st_nlink > 1:
        raise OSError(errno.EMLINK, "it has another name (a hard link)", str(path))


class KeptFile:
    """A small file of our own that stays open and is written in place.

    The first error closes it: the work continues without it, even on a full disk.

    Args:
        path: made if it is missing.
        failed: is called with that error.
    """

    def __init__(self, path: Path, failed: Callable[[OSError], None]) -> None:
        self._failed = failed
        self._descriptor: int | None = None
        try:
            self._descriptor = open_own(path)
        except OSError as error:
            failed(error)

    def read(self, size: int) -> bytes:
        """The first bytes; empty if they cannot be read."""
        content = b""
        if self._descriptor is not None:
            try:
                content = os.pread(self._descriptor, size, 0)
            except OSError as error:
                self._give_up(error)
        return content

    def write(self, content: bytes, at: int = 0, *, durable: bool = False) -> None:
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, content, at)
            if durable:
                os.fsync(self._descriptor)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.close()
        self._failed(error)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def directory(
    path: str | Path, *, dir_fd: int | None = None, follow: bool = False
) -> Iterator[int]:
    """An open directory; only with `follow` may its last name be a link.

    Raises OSError if it cannot be opened, or is something else.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stage(
    within: int, name: str, content: bytes, mode: int = STATE_FILE, *, durable: bool = False
) -> None:
    """Write a file under a temporary name in an open directory; `put` gives it its name.

    Raises OSError if it cannot be written; then nothing is left of it.
    """
    temporary = TEMPORARY.format(name)
    _fill(create(temporary, mode, dir_fd=within), temporary, content, within, durable=durable)


def _fill(
    descriptor: int, path: str | Path, content: bytes, dir_fd: int | None, *, durable: bool
) -> None:
    """Write a new file and close it; if that fails, remove it."""
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        if durable:
            os.fsync(descriptor)
    except OSError:
        os.unlink(path, dir_fd=dir_fd)  # a full disk needs the space
        raise
    finally:
        os.close(descriptor)


def put(within: int, name: str) -> None:
    """Give a staged file its name; raises OSError if that fails."""
    os.rename(TEMPORARY.format(name), name, src_dir_fd=within, dst_dir_fd=within)


def write(path: Path, content: bytes, mode: int = STATE_FILE) -> None:
    """Replace a small file atomically; not durable.

    Raises OSError if it cannot be written.
    """
    with directory(path.parent, follow=True) as within:
        stage(within, path.name, content, mode)
        put(within, path.name)


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Make a small file that does not exist yet; its content is durable on return.

    Raises:
        FileExistsError: if something is there.
        OSError: if it cannot be written; nothing is left of it then.
    """
    _fill(create(path, mode, over=False), path, content, None, durable=True)


def overwrite(path: Path, content: bytes) -> None:
    """Write over a file: on a full disk there is no space for a new one.

    Raises OSError if it does not exist, cannot be written, or has another name.
    """
    with open(open_regular(path, os.O_RDWR), "r+b", 0) as file:
        _refuse_another_name(os.fstat(file.fileno()), path)
        file.write(content)
        file.truncate()


def copy(source: Path, target: Path) -> None:
    """Copy a file without making it readable for more users; not durable.

    Raises OSError if that fails.
    """
    with open(open_regular(source, os.O_RDONLY), "rb") as read_from:
        mode = STATE_FILE & os.fstat(read_from.fileno()).st_mode
        with open(create(target, mode), "wb") as written:
            while part := read_from.read(1024 * 1024):
                written.write(part)


def rename(source: Path, target: Path) -> None:
    """Give a file or directory another name in the same directory; durable on return.

    Raises OSError if that fails.
    """
    os.rename(source, target)
    with directory(target.parent, follow=True) as within:
        os.fsync(within)


def open_socket_to(path: Path, mode: int, group: int | None) -> None:
    """Give a socket of ours its mode, and its group; never what somebody has put in its place.

    Raises OSError if it is something else, or that is refused.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
            raise OSError(errno.EINVAL, "it is not a socket of ours", str(path))
        opened = f"/proc/self/fd/{descriptor}"  # fchmod(2) takes no such descriptor
        if group is not None:
            os.chown(opened, -1, group)
        os.chmod(opened, mode)
    finally:
        os.close(descriptor)


def close_to_others(state: Path, *, itself: bool) -> None:
    """Look through a state directory: it contains no links, and our files are not open to others.

    Args:
        state: the directory of a state, a spool or a backup.
        itself: whether it is ours as a whole, and not only what we have made in it.

    Raises OSError if there is a link in it, or a mode cannot be set.
    """
    if itself:
        _narrow(state)
    with os.scandir(state) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise OSError(errno.ELOOP, "it is a symbolic link", entry.path)
            if entry.is_file(follow_symlinks=False):
                _narrow(entry.path)
            elif entry.name in _STATE_DIRECTORIES and entry.is_dir(follow_symlinks=False):
                close_to_others(Path(entry.path), itself=True)


def _narrow(path: str | Path) -> None:
    """Take from a file or directory of ours what others may do with it, and what a group may write.

    Not from one with a sticky bit: what is like /tmp was never ours alone.
    """
    status = os.lstat(path)
    if not status.st_mode & _WIDE or status.st_mode & stat.S_ISVTX:
        return
    if status.st_uid != os.geteuid():
        return
    # Nobody may have this file open in this process: to close it would drop SQLite's locks.
    descriptor = os.open(path, os.O_RDONLY | _CAUTIOUS)
    try:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & ~_WIDE)
    finally:
        os.close(descriptor)
