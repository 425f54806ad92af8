"""The messages: every field, its type and its limits, as docs/messages.md shows them.

The schemas are the documentation of the wire: what a validator refuses is not journaled. Names
are those of piwheels' own protocol. A validator returns the value as the program keeps it: times
as microseconds since 1970, durations as float seconds, maps as pairs in the order they came.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgpack
from voluptuous import REMOVE_EXTRA, Invalid, Optional, Required, Schema

from ..base import names, times

Validator = Callable[[Any], Any]

MAX_INTEGER = 2**63 - 1
"""The largest integer that SQLite stores."""

MAX_ABIS = 100
"""Build ABIs; every version of every package has an entry for each in its document."""

MAX_LOCATION = 200
"""Characters of where a file is served from."""

MAX_FAILURE_DETAIL = 500
"""Characters of the detail of why a build failed."""

MAX_COUNT = 2**40
"""The most downloads that a message may give a package."""


def text(value: Any) -> str:
    """Any text, even an empty one."""
    if type(value) is not str:
        raise Invalid(f"expected text, got {shown(value)}")
    return value


def integer(value: Any) -> int:
    """A whole number from 0 up that SQLite can store; true and false are not numbers."""
    if type(value) is not int:
        raise Invalid(f"expected a whole number, got {shown(value)}")
    if not 0 <= value <= MAX_INTEGER:
        raise Invalid(f"{shown(value)} is not between 0 and {MAX_INTEGER}")
    return value


def positive(value: Any) -> int:
    """A whole number from 1 up."""
    if integer(value) == 0:
        raise Invalid("0 is not between 1 and " + str(MAX_INTEGER))
    return int(value)


def count(value: Any) -> int:
    """A number of downloads, small enough that no sum of them ever overflows."""
    if integer(value) > MAX_COUNT:
        raise Invalid(f"{value} is not between 0 and {MAX_COUNT}")
    return int(value)


def boolean(value: Any) -> bool:
    """true or false; 0 and 1 are neither."""
    if type(value) is not bool:
        raise Invalid(f"expected true or false, got {shown(value)}")
    return value


def seconds(value: Any) -> float:
    """A duration: finite float seconds from 0 up."""
    if type(value) is not float and type(value) is not int:
        raise Invalid(f"expected seconds as a number, got {shown(value)}")
    try:
        number = float(value) + 0.0  # turns -0.0 into 0.0
    except OverflowError:
        raise Invalid("is too large for a number of seconds") from None
    if not (0.0 <= number < math.inf):
        raise Invalid(f"{shown(value)} is not a duration")
    return number


def _path_component(value: Any, longest: int) -> str:
    fault = names.unsafe(text(value), longest)
    if fault:
        raise Invalid(f"{shown(value)} {fault}")
    return str(value)


def version(value: Any) -> str:
    """A version as its author wrote it, PEP 440 or not; it may become a part of a path."""
    return _path_component(value, names.MAX_NAME)


def alias(value: Any) -> str:
    """A spelling of a package's name; becomes a symlink."""
    return _path_component(value, names.MAX_NAME)


def filename(value: Any) -> str:
    """A file's name, without any directory."""
    return _path_component(value, names.MAX_FILENAME)


def package(value: Any) -> str:
    """A canonical package name (PEP 503); becomes a directory."""
    _path_component(value, names.MAX_NAME)
    if not names.is_canonical(value):
        raise Invalid(f"{shown(value)} is not a canonical package name (PEP 503)")
    return str(value)


def build_abi(value: Any) -> str:
    """An ABI that is built for: a CPython ABI tag (PEP 425), never `none` or `abi3`."""
    if names.abi_version(text(value)) is None:
        raise Invalid(f"{shown(value)} is not a CPython ABI tag")
    return str(value)


_HEX = frozenset("0123456789abcdef")


def sha256(value: Any) -> str:
    """A SHA-256 as 64 lower-case hexadecimal digits."""
    if len(text(value)) != 64 or not _HEX.issuperset(value):
        raise Invalid(f"{shown(value)} is not a SHA-256 in 64 lower-case hexadecimal digits")
    return str(value)


def tool(value: Any) -> str:
    """What installs a dependency: apt, pip, or nothing known ('')."""
    if value not in ("apt", "pip", "") or type(value) is not str:
        raise Invalid(f"{shown(value)} is not one of 'apt', 'pip' and ''")
    return value


def location(value: Any) -> str:
    """Where a file is served from: the part of its URL before /package/filename."""
    if not text(value) or len(value) > MAX_LOCATION or not value.isprintable():
        raise Invalid(f"{shown(value)} is not 1 to {MAX_LOCATION} printable characters")
    return str(value)


_CATEGORY = re.compile(r"[a-z][a-z0-9-]{0,49}", re.ASCII)


def category(value: Any) -> str:
    """The kind of reason why a build failed."""
    if not _CATEGORY.fullmatch(text(value)):
        raise Invalid(
            f"{shown(value)} is not a category: 1 to 50 of a-z, 0-9 and -, first a letter"
        )
    return str(value)


def detail(value: Any) -> str:
    """The one thing that tells why a build failed; '' if there is none."""
    if len(text(value)) > MAX_FAILURE_DETAIL or not value.isprintable():
        raise Invalid(
            f"{shown(value)} is not a line of up to {MAX_FAILURE_DETAIL} printable characters"
        )
    return str(value)


def build_outcome(value: Any) -> str:
    """The result of the builds of a version on an ABI, in a snapshot."""
    if value not in ("success", "fail", "error", "pending", "skip") or type(value) is not str:
        raise Invalid(f"{shown(value)} is not a build status")
    return value


def time_msgpack(value: Any) -> times.Time:
    """A time on the wire: msgpack's timestamp extension.

    Source: https://github.com/msgpack/msgpack/blob/master/spec.md#timestamp-extension-type
    """
    if type(value) is not msgpack.Timestamp:
        raise Invalid(f"expected a timestamp, got {shown(value)}")
    microseconds = int(value.seconds) * times.SECOND + int(value.nanoseconds) // 1000
    if not times.EARLIEST <= microseconds <= times.LATEST:
        raise Invalid("lies outside the years 1 to 9999 UTC")
    return microseconds


def time_json(value: Any) -> times.Time:
    """A time in a file: RFC 3339 with its zone."""
    try:
        return times.parse_rfc3339(text(value))
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{shown(value)} is not a time: {error}") from None


def hour(value: Any) -> int:
    """The start of a UTC hour, RFC 3339 (a key, so text on the wire too); kept as seconds."""
    start = time_json(value)
    if start % times.HOUR:
        raise Invalid(f"{shown(value)} is not the start of an hour")
    return start // times.SECOND


def shown(value: Any) -> str:
    """A value as an error shows it: short, and safe on a terminal, whatever it is."""
    if isinstance(value, (dict, list, tuple)):
        return f"a {'map' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, (str, bytes)):
        value = value[:60]
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"  # Python refuses to write some of them
    picture = ascii(value)
    return picture if len(picture) <= 60 else picture[:57] + "..."


class Nullable:
    """`validator`, which may be the schema of a map with named fields, or null."""

    def __init__(self, validator: Validator | dict[Any, Any]) -> None:
        self.validator = validator
        self._schema = Schema(validator, extra=REMOVE_EXTRA)

    def __call__(self, value: Any) -> Any:
        return None if value is None else self._schema(value)


class Map:
    """A map whose keys and values are all of one kind, with `least` to `most` entries.

    voluptuous would ignore keys that do not fit, as it ignores extra fields.
    """

    def __init__(self, key: Validator, value: Any, most: int | None = None, least: int = 0) -> None:
        self.key = key
        self.value = value
        self.most = most
        self.least = least
        self._schema = Schema(value, extra=REMOVE_EXTRA)

    def __call__(self, value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise Invalid(f"expected a map, got {shown(value)}")
        if self.most is not None and len(value) > self.most:
            raise Invalid(f"has more than {self.most} entries")
        if len(value) < self.least:
            raise Invalid("is empty")
        valid = {}
        for key, inner in value.items():
            try:
                valid[self.key(key)] = self._schema(inner)
            except Invalid as error:
                error.prepend([key])
                raise
        return valid


FAILURE = {
    Required("category"): category,  # "missing-header"
    Required("detail"): detail,  # "pybind11/pybind11.h"
}
"""Why a build failed."""

FILE = {
    Required("filename"): filename,  # unique across everything
    Required("filesize"): integer,  # bytes
    Required("filehash"): sha256,  # of the file's content
    Required("package_tag"): text,  # the parts of the filename (PEP 427)
    Required("package_version_tag"): text,
    Required("py_version_tag"): text,  # "cp311", "py3", "py2.py3"
    Required("abi_tag"): text,  # "cp311", "abi3", "none"
    Required("platform_tag"): text,  # "linux_armv7l", "any"
    Required("requires_python"): Nullable(text),  # null and "" are kept apart
    Required("dependencies"): Map(tool, [text]),  # what must be installed, by tool
    Optional("location", default="/simple"): location,  # base of its URL
}
"""A file that a build made."""

SNAPSHOT_FILE = {
    Required("filesize"): integer,  # bytes
    Required("filehash"): sha256,
    Required("location"): location,  # base of its URL
    Required("platform_tag"): text,
    Required("abi_tag"): text,  # the file's own
    Required("builder_abi"): build_abi,  # of the slave that built it
    Required("requires_python"): Nullable(text),
    Required("apt_dependencies"): [text],  # without what is preinstalled
    Required("pip_dependencies"): [text],
}
"""A file as a piwheels master describes it (PROJDATA)."""


def messages(time: Validator) -> dict[str, dict[Any, Any]]:
    """The schema of every message's `data`, by NAME; `time` reads this encoding's times."""
    # The status of a version on a build ABI, as a piwheels master describes it (PROJDATA).
    snapshot_build = {
        Required("status"): build_outcome,
        Required("build_id"): Nullable(positive),  # null: pending, or skipped and never tried
        Optional("slave_id", default=None): Nullable(integer),  # null: not known
        Optional("built_at", default=None): Nullable(time),
        Optional("duration", default=None): Nullable(seconds),
    }
    snapshot_release = {
        Required("released"): time,
        Required("skip"): text,  # the version's reason, else the package's
        Required("yanked"): boolean,
        Required("abis"): Map(build_abi, snapshot_build, MAX_ABIS),
        Required("files"): Map(filename, SNAPSHOT_FILE),
    }
    return {
        "SETABIS": {
            # ABI: why it is skipped, '' if active
            Required("build_abis"): Map(build_abi, text, MAX_ABIS),
            Required("preinstalled_apt_packages"): Map(build_abi, [text], MAX_ABIS),
        },
        "NEWPKG": {
            Required("package"): package,
            Optional("skip", default=""): text,  # why it is not built
            Optional("description", default=""): text,
        },
        "NEWPKGNAME": {
            Required("package"): package,
            Required("name"): alias,
            Required("seen"): Nullable(time),  # null: 1970
        },
        "SETDESC": {Required("package"): package, Required("description"): text},
        "SKIPPKG": {Required("package"): package, Required("reason"): text},  # '': not skipped
        "DELPKG": {Required("package"): package},
        "NEWVER": {
            Required("package"): package,
            Required("version"): version,
            Required("released"): Nullable(time),  # null: the message's own time
            Optional("skip", default=""): text,
        },
        "SKIPVER": {
            Required("package"): package,
            Required("version"): version,
            Required("reason"): text,  # '': not skipped
        },
        "YANKVER": {Required("package"): package, Required("version"): version},
        "UNYANKVER": {Required("package"): package, Required("version"): version},
        "DELVER": {Required("package"): package, Required("version"): version},
        "LOGBUILD": {
            Required("build_id"): positive,
            Required("slave_id"): integer,
            Required("package"): package,
            Required("version"): version,
            Required("abi_tag"): build_abi,  # of the slave that built
            Required("status"): boolean,  # true: it succeeded
            Required("duration"): seconds,
            Required("files"): [FILE],
            Optional("failure", default=None): Nullable(FAILURE),  # null: not known, or it did not
        },
        "FAILURE": {Required("build_id"): positive, Required("failure"): FAILURE},
        "MOVEFILES": {
            Required("package"): package,
            Required("files"): Map(filename, location, least=1),  # where each is served from now
        },
        "DELBUILD": {Required("package"): package, Required("version"): version},
        "LOGDOWNLOAD": {
            Required("filename"): filename,
            Required("accessed_at"): time,
            Required("arch"): Nullable(text),
            Required("distro_name"): Nullable(text),
            Required("distro_version"): Nullable(text),
            Required("os_name"): Nullable(text),
            Required("os_version"): Nullable(text),
            Required("py_name"): Nullable(text),
            Required("py_version"): Nullable(text),
            Required("installer_name"): Nullable(text),
            Required("installer_version"): Nullable(text),
            Required("setuptools_version"): Nullable(text),
        },
        "SNAPSHOT": {
            Required("package"): package,
            Required("name"): alias,  # the display name
            Required("description"): text,
            Required("aliases"): [alias],  # every other spelling
            Required("releases"): Map(version, snapshot_release),
        },
        "DOWNLOADS": {
            Required("package"): package,
            Required("all"): count,  # ever
            Required("hours"): Map(hour, count),  # what is known by the hour
        },
    }


def envelope(time: Validator) -> dict[Any, Any]:
    """What surrounds every message."""
    return {
        Required("msg"): text,
        Optional("at", default=None): Nullable(time),  # null or missing: the time of receipt
        Required("data"): dict,
    }


POSITION = {
    Required("feed"): text,  # who publishes
    Required("epoch"): integer,  # the epoch of the publisher's spool
    Required("serial"): integer,  # from 1, without gaps; a heartbeat's may be 0
}
"""The position of a message in a change feed."""

REPLAY = {
    Required("replay"): {
        Required("epoch"): integer,
        Required("after"): integer,  # the last serial that the subscriber has
        Required("limit"): positive,  # how many to send at most
    }
}
"""A subscriber's request to the publisher's ROUTER."""
