"""The files of ipc sockets: who owns them, checked before one is used and before one is made.

Anybody who may write to a directory can take any name in it first, and everybody may write to
/tmp. So only sockets of our user, of root, and of named users are trusted. Where we listen, only an
old socket of our own is removed.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
import struct
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from ..base import filesystem
from ..base.errors import PeerError, UsageError

SCHEME = "ipc://"

MAX_LINKS = 40
"""Symbolic links on the way to a file; the kernel follows as many."""

BACKLOG = 100
"""Connections that wait to be accepted."""

_CREDENTIALS = struct.Struct("3i")
"""pid, uid and gid; see SO_PEERCRED in unix(7)."""

_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _UnsafeError(Exception):
    """What is wrong with a path, and what to do about it."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.remedy = remedy


class Identity(NamedTuple):
    """Distinguishes a file from another one that takes its name."""

    device: int
    inode: int
    made: int  # its modification time, ns: a file system gives the inode to the next file at once


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_mtime_ns)


def file_of(address: str) -> Path | None:
    """The file of an ipc address; None for other addresses, and for those without a file."""
    path = address.removeprefix(SCHEME)
    return Path(path) if address.startswith(SCHEME) and path[:1] not in ("@", "*") else None


def user_ids(names: Iterable[str]) -> frozenset[int]:
    """The numbers of users who are given by name or number.

    Raises UsageError if there is no user of a name.
    """
    numbers = set()
    for name in names:
        try:
            numbers.add(int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid)
        except KeyError as error:
            raise UsageError(
                f"trust the user {name}",
                "there is no such user",
                "name one with --ipc-peer that `getent passwd` shows",
            ) from error
    return frozenset(numbers)


def user_name(number: int) -> str:
    """The name of a user."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


# Where we connect


def look_at(address: str, peers: Collection[int]) -> Identity | None:
    """Examine an ipc address before connecting to it; None if nothing is there yet.

    Raises PeerError if it is not a socket, or others could have put it there.
    """
    path = file_of(address)
    assert path is not None
    trusted = {0, os.geteuid(), *peers}
    try:
        status = _reached(path, trusted, follow=True)
        if not stat.S_ISSOCK(status.st_mode):
            raise _UnsafeError(
                f"{_kind(status)} is there, not a socket", "give the address of a socket"
            )
        _refuse_owner(status.st_uid, trusted, "the socket belongs to")
    except FileNotFoundError:
        return None
    except _UnsafeError as error:
        raise _not_trusted(address, str(error), error.remedy) from error
    except OSError as error:
        raise _not_trusted(
            address,
            f"{error.filename}: {error.strerror}",
            "let the user that runs piw-indexer look into its directory",
        ) from error
    return _identity(status)


def refuse_stranger(address: str, descriptor: int, peers: Collection[int]) -> None:
    """Ask the kernel who listens at the other end of a connection.

    Where the kernel cannot say, the owner of the file must do, which `look_at` has checked.

    Raises:
        PeerError: if it is a user whom we do not trust.
        OSError: if the connection has ended.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        answer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(answer)
    try:
        _refuse_owner(user, {0, os.geteuid(), *peers}, "the process that listens there runs as")
    except _UnsafeError as error:
        raise _not_trusted(address, str(error), error.remedy) from error


def _not_trusted(address: str, cause: str, remedy: str) -> PeerError:
    return PeerError(f"trust the peer at {address}", cause, remedy)


def _refuse_owner(user: int, trusted: Collection[int], what: str) -> None:
    if user not in trusted:
        name = user_name(user)
        raise _UnsafeError(
            f"{what} {name}, who is not trusted",
            f"if the peer runs as that user, give --ipc-peer {name.removeprefix('user ')}; if not,"
            " another program has taken its place: see which one (ss -xlp), and move the address to"
            " a directory that belongs to the user of the peer (docs/security.md)",
        )


# Where we listen


class Listener:
    """A listening socket at a path that nobody else can take.

    Args:
        address: where others connect to.
        mode: of the file; users who may write to it may connect.
        group: the number of its group; None for that of the process.

    Attributes:
        descriptor: of the socket; the caller closes it.

    Raises:
        UsageError: if something is there that is not an old socket of ours, or others could
            replace the socket.
    """

    def __init__(self, address: str, mode: int, group: int | None) -> None:
        path = file_of(address)
        assert path is not None
        self._path = path.absolute()
        refuse_unbindable(address)
        if _is_heard(self._path):
            raise UsageError(
                f"bind {address}",
                "another process listens there",
                "stop that process, or give another address",
            )
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.unlink(missing_ok=True)
            listening.bind(str(self._path))
            made = os.lstat(self._path)
            self._identity = _identity(made)
            self._let_in(address, mode, group)
            listening.listen(BACKLOG)  # nobody can connect before
        except OSError as error:
            listening.close()
            raise UsageError(
                f"bind {address}", error.strerror or error, "give another address"
            ) from error
        except UsageError:
            listening.close()
            self.remove()
            raise
        self.descriptor = listening.detach()

    def _let_in(self, address: str, mode: int, group: int | None) -> None:
        try:
            filesystem.open_socket_to(self._path, mode, group)
        except OSError as error:
            raise UsageError(
                f"set the group and mode of {address}",
                error.strerror or error,
                "give --ipc-group a group that the user who runs piw-indexer belongs to",
            ) from error

    def remove(self) -> None:
        """Remove the file, unless another file has taken its name."""
        try:
            status = os.lstat(self._path)
            if _identity(status) == self._identity:
                self._path.unlink()
        except OSError:
            pass  # the file or its directory is gone


def refuse_unbindable(address: str) -> None:
    """Refuse an address that can never be bound; a socket of ours that is in use is not an error.

    Raises UsageError if something else is there, or if others could replace our socket.
    """
    path = file_of(address)
    if path is None:
        return
    operation = f"bind {address}"
    ours = {0, os.geteuid()}
    try:
        try:
            status = _reached(path, ours, follow=False)
        except FileNotFoundError as error:
            if not path.absolute().parent.is_dir():
                raise _UnsafeError(
                    f"there is no directory {path.absolute().parent}",
                    "make it, or give an address in one that exists, such as"
                    " ipc:///run/piw-indexer/changes",
                ) from error
            return
        if not stat.S_ISSOCK(status.st_mode):
            raise _UnsafeError(
                f"{_kind(status)} is there, not a socket",
                "give another address, or move away what is there; it was not touched",
            )
        if status.st_uid != os.geteuid():
            raise _UnsafeError(
                f"there is a socket of {user_name(status.st_uid)}",
                "give another address, in a directory where nobody else can make sockets, such"
                " as ipc:///run/piw-indexer/changes; or remove that socket, if it is old",
            )
    except _UnsafeError as error:
        raise UsageError(operation, str(error), error.remedy) from error
    except OSError as error:
        raise UsageError(
            operation,
            f"{error.filename}: {error.strerror}",
            "give an address in a directory of the user that runs piw-indexer",
        ) from error


def _is_heard(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its backlog is full
            return True
        except OSError:
            return False
    return True


# Paths


def _reached(path: Path, trusted: Collection[int], *, follow: bool) -> os.stat_result:
    """The status of a file; all directories and links above it belong to trusted users.

    Args:
        follow: also follow the last name, if it is a symbolic link.

    Raises:
        _UnsafeError: if an untrusted user could put another file in its place.
        OSError: if it is missing or cannot be examined.
    """
    here = Path("/")
    waiting = list(reversed(path.absolute().parts[1:]))
    links = 0
    _refuse_directory(here, trusted)
    while True:
        name = waiting.pop() if waiting else "."
        if name == "..":
            here = here.parent
            continue
        status = os.lstat(here / name)
        if stat.S_ISLNK(status.st_mode) and (waiting or follow):
            _refuse_link(here / name, status, trusted)
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = Path(os.readlink(here / name))
            here = Path("/") if target.is_absolute() else here
            waiting += reversed([part for part in target.parts if part != "/"])
            continue
        if not waiting:
            return status
        here /= name
        if not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(here))
        _refuse_directory(here, trusted)


def _refuse_link(link: Path, status: os.stat_result, trusted: Collection[int]) -> None:
    if status.st_uid not in trusted:
        raise _UnsafeError(
            f"{link} is a symbolic link of {user_name(status.st_uid)}", "give the path without it"
        )


def _refuse_directory(directory: Path, trusted: Collection[int]) -> None:
    """Refuse a directory in which untrusted users could replace a file."""
    status = os.stat(directory)
    if status.st_uid not in trusted:
        raise _UnsafeError(
            f"the directory {directory} belongs to {user_name(status.st_uid)}, who can put another"
            " socket there",
            "give an address in a directory of root or of the user that runs piw-indexer, such as"
            " /run/piw-indexer",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        raise _UnsafeError(
            f"others may write to the directory {directory} (its mode is"
            f" {stat.S_IMODE(status.st_mode):04o}), and put another socket there",
            f"chmod go-w {directory}, or give an address in another directory, such as"
            " /run/piw-indexer",
        )


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
