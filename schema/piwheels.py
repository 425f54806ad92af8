"""What a piwheels that runs today sends: every message, its positional data, its limits.

The names of the fields are ours; piwheels sends lists. What does not fit is refused, or it would
be taken for something else.

Source: piwheels 0.23, `piwheels/protocols.py` and `piwheels/states.py`, and frames off its sockets.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, Final

from voluptuous import Invalid

from ..base.times import EARLIEST, LATEST, Time, from_datetime
from .messages import Nullable, Validator, boolean, integer, shown, text

MAX_LINE = 255
"""Characters of what is shown in a line: a label, a version, a file's name."""


class _NoData:
    def __repr__(self) -> str:
        return "no data"


NO_DATA: Final = _NoData()
"""Stands for the data of a message that has none."""


def time(value: Any) -> Time:
    """A time of piwheels: an aware `datetime`; kept as microseconds since 1970."""
    if not isinstance(value, datetime):
        raise Invalid(f"expected a time, got {shown(value)}")
    if value.tzinfo is None:
        raise Invalid("is a time without its zone")
    found = from_datetime(value)
    if not EARLIEST <= found <= LATEST:
        raise Invalid("lies outside the years 1 to 9999 UTC")
    return found


def seconds(value: Any) -> float:
    """A duration of piwheels: a `timedelta`; kept as float seconds."""
    if not isinstance(value, timedelta):
        raise Invalid(f"expected a duration, got {shown(value)}")
    if value < timedelta(0):
        raise Invalid("is a duration below 0")
    return value / timedelta(seconds=1)


def number(value: Any) -> float:
    """Any finite number: a load, a temperature."""
    if type(value) not in (int, float):
        raise Invalid(f"expected a number, got {shown(value)}")
    try:
        found = float(value)
    except OverflowError:
        raise Invalid(f"{shown(value)} is too large") from None
    if not math.isfinite(found):  # JSON has no way to say it, and SQLite would store null
        raise Invalid(f"{found} is not a finite number")
    return found


def line(value: Any) -> str:
    """Text that is shown in a line: more of it would fill memory and screen.

    Terminals act on what is not printable, and a slave could speak to them through its label.
    """
    if len(text(value)) > MAX_LINE:
        raise Invalid(f"is longer than {MAX_LINE} characters")
    if not value.isprintable():
        raise Invalid(f"{shown(value)} has characters that are not printable")
    return str(value)


def nothing(value: Any) -> None:
    """No data: the tag, or null, which a slave that timed out leaves."""
    if value is not NO_DATA and value is not None:
        raise Invalid(f"expected no data, got {shown(value)}")


class Fields:
    """A list of fields by position; gives them by name. A newer piwheels may add some at the end.

    Args:
        fields: the validator of each, in order.
    """

    def __init__(self, **fields: Validator) -> None:
        self.fields = fields

    def __call__(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, list | tuple):
            raise Invalid(f"expected a list of {len(self.fields)}, got {shown(value)}")
        if len(value) < len(self.fields):
            raise Invalid(f"expected a list of {len(self.fields)}, got one of {len(value)}")
        valid = {}
        for position, (name, validator) in enumerate(self.fields.items()):
            try:
                valid[name] = validator(value[position])
            except Invalid as error:
                error.prepend([name])
                raise
        return valid


class ListOf:
    """A list (or a set) whose items are all of one kind; a set comes sorted."""

    def __init__(self, item: Validator) -> None:
        self.item = item

    def __call__(self, value: Any) -> list[Any]:
        if not isinstance(value, list | tuple | set | frozenset):
            raise Invalid(f"expected a list, got {shown(value)}")
        found = []
        for position, one in enumerate(value):
            try:
                found.append(self.item(one))
            except Invalid as error:
                error.prepend([position])
                raise
        return sorted(found, key=str) if isinstance(value, set | frozenset) else found


class MapOf:
    """A map whose keys and values are all of one kind."""

    def __init__(self, key: Validator, value: Validator) -> None:
        self.key = key
        self.value = value

    def __call__(self, value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise Invalid(f"expected a map, got {shown(value)}")
        valid = {}
        for key, inner in value.items():
            try:
                valid[self.key(key)] = self.value(inner)
            except Invalid as error:
                error.prepend([str(key)])
                raise
        return valid


# The status feed

MASTER_HELLO = Fields(
    started=time,
    label=line,
    os_name=line,
    os_version=line,
    board_revision=line,
    board_serial=line,
)
"""The master began to work."""

MASTER_STATS = Fields(
    at=time,
    packages_built=integer,
    builds_last_hour=MapOf(line, integer),  # ABI: how many
    builds_time=seconds,  # all builds together
    builds_size=integer,  # bytes
    builds_pending=MapOf(line, integer),  # ABI: how many
    new_last_hour=integer,
    files_count=integer,
    downloads_last_hour=integer,
    downloads_last_month=integer,
    downloads_all=integer,
    disk_size=integer,  # bytes, of the output directory
    disk_free=integer,
    mem_size=integer,
    mem_free=integer,
    swap_size=integer,
    swap_free=integer,
    load_average=number,
    cpu_temp=number,  # Celsius
)
"""How the master does, now and then."""

SLAVE_HELLO = Fields(
    build_timeout=seconds,
    busy_timeout=seconds,
    native_py_version=line,  # "311"
    native_abi=line,  # "cp311"
    native_platform=line,  # "linux_armv7l"
    label=line,
    os_name=line,
    os_version=line,
    board_revision=line,
    board_serial=line,
)
"""A slave began to work."""

SLAVE_STATS = Fields(
    at=time,  # by the slave's own clock
    disk_size=integer,  # bytes, of the directory that it builds in
    disk_free=integer,
    mem_size=integer,
    mem_free=integer,
    swap_size=integer,
    swap_free=integer,
    load_average=number,
    cpu_temp=number,
)
"""How a slave does, every few seconds."""

SLAVE_MESSAGES: dict[str, Validator] = {
    "HELLO": SLAVE_HELLO,
    "STATS": SLAVE_STATS,
    "ACK": Fields(slave_id=integer, pypi_url=line),
    "SLEEP": boolean,  # true: it was told to pause
    "BUILD": Fields(package=line, version=line),
    "CONT": nothing,  # go on with what it is doing
    "SEND": line,  # a file that was built
    "DONE": nothing,
    "DIE": nothing,
}
"""What a slave was told or said, as the status feed repeats it."""

SLAVE = Fields(slave_id=integer, at=time, name=line, data=lambda value: value)
"""What surrounds each of those."""

# The log queue

_CLIENT: dict[str, Validator] = {
    "arch": Nullable(text),
    "distro_name": Nullable(text),
    "distro_version": Nullable(text),
    "os_name": Nullable(text),
    "os_version": Nullable(text),
    "py_name": Nullable(text),
    "py_version": Nullable(text),
    "installer_name": Nullable(text),
    "installer_version": Nullable(text),
    "setuptools_version": Nullable(text),
}
DOWNLOAD = Fields(filename=text, host=text, accessed_at=time, **_CLIENT)
"""LOGDOWNLOAD; the host is checked and forgotten."""

OTHER_LOGS = ("LOGSEARCH", "LOGPROJECT", "LOGJSON", "LOGPAGE")
"""What else piw-logger sends: counted and passed on."""

# The database queue

PROJECT_FILE: dict[str, Validator] = {
    "size": integer,
    "hash": text,
    "location": text,
    "platform": text,
    "abi_file": text,
    "abi_builder": text,
    "requires_python": Nullable(text),
    "apt_dependencies": ListOf(text),
    "pip_dependencies": ListOf(text),
}
PROJECT_BUILD: dict[str, Validator] = {"status": text, "build_id": Nullable(integer)}


class Keys:
    """A map with these keys; others are passed over."""

    def __init__(self, fields: dict[str, Validator]) -> None:
        self.fields = fields

    def __call__(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Invalid(f"expected a map, got {shown(value)}")
        valid = {}
        for name, validator in self.fields.items():
            if name not in value:
                raise Invalid("is missing", path=[name])
            try:
                valid[name] = validator(value[name])
            except Invalid as error:
                error.prepend([name])
                raise
        return valid


PROJECT = Keys(
    {
        "name": Nullable(text),  # null: there is no such package
        "description": Nullable(text),  # null: there is no such package
        "releases": MapOf(
            text,
            Keys(
                {
                    "yanked": boolean,
                    "released": time,
                    "skip": text,
                    "files": MapOf(text, Keys(PROJECT_FILE)),
                    "abis": MapOf(text, Keys(PROJECT_BUILD)),
                }
            ),
        ),
    }
)
"""The answer to PROJDATA."""

NAMES = ListOf(text)
"""The answers to ALLPKGS, GETABIS and GETPKGNAMES."""

COUNTERS = MapOf(text, Fields(recent=integer, all=integer))
"""The answer to GETSEARCH: package: downloads of the last 30 days, and ever."""
