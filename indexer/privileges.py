"""Whose files: what root starts works as the owner of the state directory.

A file that root left there the daemon could not write, and the next start would fail.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from .errors import StateError
from .journal_log import event

log = logging.getLogger(__name__)

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def as_owner(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """A decorator of commands that write to `state_dir`: root becomes its owner first."""

    @functools.wraps(function)
    def working(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        directory = options["state_dir"]
        assert isinstance(directory, Path)
        become_owner(directory)
        return function(*arguments, **options)

    return working


def become_owner(directory: Path) -> None:
    """If we are root, and the directory is somebody else's, be that user from now on.

    Raises:
        StateError: if that is refused.
    """
    if os.geteuid() != 0:
        return
    try:
        status = os.stat(directory)
    except OSError:
        return  # whoever uses it says so
    if status.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(status.st_uid)
        name, home = user.pw_name, user.pw_dir
    except KeyError:
        user, name, home = None, f"user {status.st_uid}", "/"
    try:
        if user is not None:
            os.initgroups(name, user.pw_gid)
            os.setgid(user.pw_gid)
        else:
            os.setgroups([])
            os.setgid(status.st_gid)
        os.setuid(status.st_uid)
    except OSError as error:
        raise StateError(
            f"work as {name}, whom {directory} belongs to",
            error.strerror or error,
            f"start it as {name}",
        ) from error
    os.environ["HOME"] = home
    log.debug(
        "working as %s, whom %s belongs to",
        name,
        directory,
        extra=event("working-as-owner", path=directory),
    )
