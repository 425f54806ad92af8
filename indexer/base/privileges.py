"""Commands that root starts work as the owner of the state directory, and from `/`.

The daemon could not write files that root left in the state, and a user who may write there could
make root write elsewhere. Commands leave the current directory, because the owner of the state may
not be allowed to enter it.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from . import places
from .errors import StateError
from .log import event

log = logging.getLogger(__name__)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_UNKNOWN_USER = 65534
"""The owner that a user namespace shows for users it does not know, such as the real root."""


class Owner(NamedTuple):
    """The owner of a state directory.

    Attributes:
        name: of the user; "user" and the number if there is no name.
        known: whether the user has a name, and so groups.
    """

    name: str
    known: bool
    uid: int
    gid: int
    home: str


class _Start:
    """The directory in which this process was started; None until it has left it."""

    directory: str | None = None


def as_owner(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A decorator for commands with `state_dir`: root becomes its owner before anything else.

    A command that has `output_path`, too, needs the two apart.
    """

    @functools.wraps(function)
    def working(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        directory = options["state_dir"]
        assert isinstance(directory, Path)
        become_owner(directory)
        leave_start()
        output_path = options.get("output_path")
        if isinstance(output_path, Path):
            places.refuse_overlap(directory, output_path)
        return function(*arguments, **options)

    return working


def leave_start() -> None:
    """Change to `/`: child processes start there, and may not be allowed to be here."""
    try:
        _Start.directory = os.getcwd()
    except OSError:
        _Start.directory = "/"  # it was removed
    os.chdir("/")


def start() -> str:
    """Where this process was started, or `/` if it may not return there."""
    directory = _Start.directory or os.curdir
    return directory if os.access(directory, os.X_OK) else "/"


def typed(name: str) -> Path:
    """The file that a name on the command line means."""
    return Path(_Start.directory or os.curdir, name)


def become_owner(directory: Path, *, only_to_look: bool = False) -> None:
    """If we are root and the directory belongs to another user, become that user.

    What migrations need is imported before, because only root can read a Python below /root.

    Args:
        only_to_look: whether no database will be opened for writing, so that nothing is migrated.

    Raises StateError if that is refused.
    """
    owner = _owner(directory)
    if owner is None:
        return
    if not only_to_look:
        # Usually those that use these import them. Here that would be too late where the owner may
        # not read Python's files: commands ended with a traceback.
        import ctypes  # noqa: F401
        import hashlib  # noqa: F401

        from sqlite_utils import Database

        Database(memory=True).close()  # opening the first one imports the rest
    with _explained(owner, directory):
        _take_groups(owner)
        os.setgid(owner.gid)
        os.setuid(owner.uid)
    os.environ["HOME"] = owner.home
    log.debug(
        "working as %s, the owner of %s",
        owner.name,
        directory,
        extra=event("working-as-owner", path=directory),
    )


@contextmanager
def looking_as_owner(directory: Path) -> Iterator[None]:
    """If we are root and the directory belongs to another user, be that user inside.

    Raises StateError if that is refused.
    """
    owner = _owner(directory)
    if owner is None:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    with _explained(owner, directory):
        _take_groups(owner)
        os.setegid(owner.gid)
        os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _owner(directory: Path) -> Owner | None:
    """The user that we, as root, have to become; None if we can stay who we are.

    Raises StateError if the directory is root's, but other users could replace it.
    """
    if os.geteuid() != 0:
        return None
    try:
        status = os.stat(directory)
    except OSError:
        return None  # the command reports it when it uses the directory
    if status.st_uid == 0:
        _refuse_others_way(directory)
        return None
    try:
        user = pwd.getpwuid(status.st_uid)
    except KeyError:
        return Owner(f"user {status.st_uid}", False, status.st_uid, status.st_gid, "/")
    return Owner(user.pw_name, True, user.pw_uid, user.pw_gid, user.pw_dir)


def _refuse_others_way(directory: Path) -> None:
    """Refuse a state of root's whose path leads through links or directories of other users."""
    path = directory.absolute()
    for part in (path, *path.parents):
        status = os.lstat(part)
        if status.st_uid not in (0, _UNKNOWN_USER):
            what = "symbolic link" if stat.S_ISLNK(status.st_mode) else "directory"
            raise StateError(
                f"use {directory} as root",
                f"it belongs to root, and {part} on the way to it is a {what} of another user",
                f"give the state to its user (chown -R USER {directory}), or root another one",
            )


def _take_groups(owner: Owner) -> None:
    if owner.known:
        os.initgroups(owner.name, owner.gid)
    else:
        os.setgroups([])


@contextmanager
def _explained(owner: Owner, directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"work as {owner.name}, the owner of {directory}",
            error.strerror or error,
            f"start it as {owner.name}",
        ) from error
