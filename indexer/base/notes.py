"""Notes that one process leaves for another, in JSON: typed on both sides.

A note is a NamedTuple; its annotations say what each field must be. `read` returns such a value or
raises, whatever the file contains. Fields that the type does not name are ignored, and fields
with a default may be missing: the process that wrote the note may be older or newer.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Hashable
from enum import EnumType
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from . import filesystem, times
from .log import event

log = logging.getLogger(__name__)

MAX_NOTE = 16 * 1024 * 1024
"""Bytes of a note that is read; the status of a daemon with many slaves takes a hundredth of it."""

MAX_COUNT = 2**63 - 1
"""The largest number that SQLite, and programs that read `status --json`, can hold."""

_Note = TypeVar("_Note")


class NoteError(ValueError):
    """A note cannot be read, or is not what it should be; the text says why."""


class Field(NamedTuple):
    """How a value is read from JSON, and how it is written.

    Attributes:
        read: returns the valid value, or raises ValueError.
        write: returns its form in JSON.
    """

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value


def _exact(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("expected text")
    return value


def _text(value: Any) -> str:
    return _exact(value).encode(errors="replace").decode()


def _path(value: Any) -> str:
    if "\0" in _text(value):
        raise ValueError("a path cannot contain NUL")
    return _text(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("expected true or false")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"expected an integer from 0 to {MAX_COUNT}")
    return value


def _number(value: Any) -> float:
    try:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError("expected a finite number")


def _amount(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError("expected a number from 0 up")
    return _number(value)


_FIELDS = {
    str: Field(_text),  # what UTF-8 cannot hold is replaced
    bool: Field(_boolean),
    int: Field(_count),  # from 0 up
    float: Field(_number),
}

Amount = Annotated[float, Field(_amount)]
"""A number from 0 up."""

At = Annotated[times.Time, Field(lambda value: times.parse_rfc3339(_text(value)), times.to_rfc3339)]
"""A time; RFC 3339 in JSON."""

ExactText = Annotated[str, Field(_exact)]
"""Text as it is, lone surrogates included: they stand for bytes of a path."""

PathText = Annotated[str, Field(_path)]
"""A path that the system can be asked about."""


def checked(value: Any, hint: Any, place: str = "") -> Any:
    """The value of type `hint` whose form in JSON is `value`.

    Raises NoteError if it does not stand for one; `place` is what the path in its text begins with.
    """
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return None if value is None else checked(value, _not_none(arguments), place)
    if origin in (tuple, list):
        items = _expected(list, "a list", value, place)
        return origin(checked(item, arguments[0], f"{place}[{n}]") for n, item in enumerate(items))
    if origin is dict:
        entries = _expected(dict, "an object", value, place).items()
        return {_text(key): checked(one, arguments[1], f"{place}.{key}") for key, one in entries}
    if origin is not Annotated and hasattr(hint, "_fields"):
        return _checked_fields(_expected(dict, "an object", value, place), hint, place)
    try:
        return _field(hint).read(value)
    except NoteError:
        raise
    except ValueError as error:
        raise NoteError(f"{place}: {error}") from error


def plain(value: Any, hint: Any = None) -> Any:
    """The form in JSON of a value of type `hint`; fields that have their default are left out.

    Args:
        value: a NamedTuple, or with `hint` anything that a note may hold.
    """
    kind: Any = type(value) if hint is None else hint
    return _writer(kind)(value)


@cache  # the daemon writes some thousand values every second
def _writer(hint: Any) -> Callable[[Any], Any]:
    arguments = get_args(hint)
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        inner = _writer(_not_none(arguments))
        return lambda value: None if value is None else inner(value)
    if origin in (tuple, list):
        inner = _writer(arguments[0])
        return lambda value: [inner(item) for item in value]
    if origin is dict:
        inner = _writer(arguments[1])
        return lambda value: {key: inner(item) for key, item in value.items()}
    if origin is Annotated or not hasattr(hint, "_fields"):
        return _field(hint).write
    defaults = hint._field_defaults
    fields = [(name, _writer(inner)) for name, inner in _hints(hint).items()]
    return lambda value: {
        name: write(getattr(value, name))
        for name, write in fields
        if name not in defaults or getattr(value, name) != defaults[name]
    }


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _not_none(arguments: tuple[Any, ...]) -> Any:
    [hint] = [argument for argument in arguments if argument is not NoneType]
    return hint


@cache
def _field(hint: Any) -> Field:
    if get_origin(hint) is Annotated:
        [field] = hint.__metadata__
        assert isinstance(field, Field)
        return field
    if isinstance(hint, EnumType):
        return Field(lambda value: hint(_exact(value)))
    if get_origin(hint) is Literal:
        return Field(lambda value: _among(value, get_args(hint)))
    return _FIELDS[hint]


def _among(value: Any, texts: tuple[str, ...]) -> str:
    if value not in texts:
        raise ValueError(f"expected one of {', '.join(map(repr, texts))}")
    return _exact(value)


def _checked_fields(value: dict[str, Any], kind: Any, place: str) -> Any:
    fields = {}
    for name, hint in _hints(kind).items():
        inside = f"{place}.{name}".lstrip(".")
        if name in value:
            fields[name] = checked(value[name], hint, inside)
        elif name not in kind._field_defaults:
            raise NoteError(f"{inside} is missing")
    return kind(**fields)


def _expected(kind: type, name: str, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise NoteError(f"{place or 'the whole'}: expected {name}")
    return value


def loads(content: bytes, kind: type[_Note]) -> _Note:
    """What a note says; raises NoteError if it is not JSON, or not of this type."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise NoteError("it is not JSON") from error
    value: _Note = checked(found, kind)
    return value


def dumps(note: Any) -> bytes:
    """The JSON of a note."""
    return json.dumps(plain(note)).encode()


def read(path: Path, kind: type[_Note]) -> _Note | None:
    """What another process noted; None if there is no note.

    Raises NoteError if there is a note that cannot be read, or is not of this type.
    """
    try:
        content = filesystem.read(path, MAX_NOTE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoteError(error.strerror or str(error)) from error
    return loads(content, kind)


def leave(path: Path, note: Any) -> None:
    """Leave a note. A note that cannot be written is only logged: the work itself is done."""
    try:
        filesystem.write(path, dumps(note))
    except OSError as error:
        log.info(
            "cannot write %s: %s", path, error.strerror, extra=event("note-unwritable", path=path)
        )
