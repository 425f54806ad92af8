"""Notes that one command leaves for another, in JSON: read whole, and only if they have the shape.

A shape is data. A dict is an object: its fields and their shapes, and fields that it does not name
are left out. A list with one item is an array of that. A function returns the valid value, or
raises ValueError. What `read` returns can be shown and printed without another look at it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import filesystem, times
from .log import event

log = logging.getLogger(__name__)

MAX_NOTE = 16 * 1024 * 1024
"""Bytes of a note that is read; how a daemon with many slaves stands takes a hundredth of it."""

MAX_COUNT = 2**63 - 1
"""SQLite, and programs that read `status --json`, know no larger numbers."""

Shape = Any


class NoteError(ValueError):
    """There is a note that cannot be read, or is not what it should be; the text says why."""


class Optional(NamedTuple):
    """A field that may be missing."""

    shape: Shape


class Nullable(NamedTuple):
    """A value, or null."""

    shape: Shape


class Map(NamedTuple):
    """An object with any keys; the shape of its values."""

    shape: Shape


class OneOf(NamedTuple):
    """One of these texts."""

    texts: tuple[str, ...]


def exact(value: Any) -> str:
    """Text as it is, lone surrogates included: they stand for bytes of a path."""
    if type(value) is not str:
        raise ValueError("expected text")
    return value


def text(value: Any) -> str:
    """Text to show; what UTF-8 cannot hold is replaced."""
    return exact(value).encode(errors="replace").decode()


def path_text(value: Any) -> str:
    """A path that the system can be asked about."""
    if "\0" in text(value):
        raise ValueError("no path has a NUL")
    return text(value)


def boolean(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


def count(value: Any) -> int:
    """An integer from 0 up."""
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"expected an integer from 0 to {MAX_COUNT}")
    return value


def number(value: Any) -> float:
    """A finite number that a float can be."""
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError("expected a finite number")


def amount(value: Any) -> float:
    """Likewise, from 0 up."""
    if number(value) < 0:
        raise ValueError("expected a number from 0 up")
    return number(value)


def time(value: Any) -> str:
    """A time, RFC 3339."""
    times.parse_rfc3339(text(value))
    return text(value)


def checked(value: Any, shape: Shape, place: str = "") -> Any:
    """A value as its shape has it.

    Raises:
        NoteError: if it is something else; `place` is what its path begins with.
    """
    if isinstance(shape, Nullable):
        return None if value is None else checked(value, shape.shape, place)
    if isinstance(shape, list):
        [item] = shape
        items = _expected(list, "a list", value, place)
        return [checked(one, item, f"{place}[{position}]") for position, one in enumerate(items)]
    if isinstance(shape, Map):
        entries = _expected(dict, "an object", value, place).items()
        return {text(key): checked(one, shape.shape, f"{place}.{key}") for key, one in entries}
    if isinstance(shape, dict):
        return _checked_fields(_expected(dict, "an object", value, place), shape, place)
    valid: Callable[[Any], Any] = _among(shape) if isinstance(shape, OneOf) else shape
    try:
        return valid(value)
    except NoteError:
        raise
    except ValueError as error:
        raise NoteError(f"{place}: {error}") from error


def _checked_fields(value: dict[str, Any], shape: dict[str, Shape], place: str) -> dict[str, Any]:
    found = {}
    for name, inner in shape.items():
        inside = f"{place}.{name}".lstrip(".")
        if name in value:
            needed = inner.shape if isinstance(inner, Optional) else inner
            found[name] = checked(value[name], needed, inside)
        elif not isinstance(inner, Optional):
            raise NoteError(f"{inside} is missing")
    return found


def _expected(kind: type, name: str, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise NoteError(f"{place or 'the whole'}: expected {name}")
    return value


def _among(one_of: OneOf) -> Callable[[Any], Any]:
    def valid(value: Any) -> Any:
        if type(value) is not str or value not in one_of.texts:
            raise ValueError(f"expected one of {', '.join(map(repr, one_of.texts))}")
        return value

    return valid


def loads(content: bytes, shape: Shape) -> Any:
    """What a note says.

    Raises:
        NoteError: if it is not JSON of this shape.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NoteError("it is not JSON") from error
    return checked(found, shape)


def read(path: Path, shape: Shape) -> Any:
    """What another process noted; None if there is no note.

    Raises:
        NoteError: if there is one that cannot be read, or does not have the shape.
    """
    try:
        content = filesystem.read(path, MAX_NOTE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoteError(error.strerror or str(error)) from error
    return loads(content, shape)


def leave(path: Path, content: dict[str, Any]) -> None:
    """Leave a note. It is only good to know: that it cannot be written is no error."""
    try:
        filesystem.write(path, json.dumps(content).encode())
    except OSError as error:
        log.info(
            "cannot write %s: %s", path, error.strerror, extra=event("note-unwritable", path=path)
        )
