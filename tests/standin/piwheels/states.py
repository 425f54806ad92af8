"""What is handed to the database: builds, their files, and downloads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


class _State:
    """Fields by position, as they come in a message, and by name."""

    FIELDS: tuple[str, ...] = ()

    def __init__(self, *values: Any) -> None:
        self._values = dict(zip(self.FIELDS, values, strict=True))

    def as_message(self) -> list[Any]:
        return list(self._values.values())

    @classmethod
    def from_message(cls, value: list[Any]) -> Any:
        return cls(*value)


def _fields(cls: type[_State]) -> type[_State]:
    for name in cls.FIELDS:
        setattr(cls, name, _field(name))
    return cls


def _field(name: str) -> property:
    return property(lambda self: self._values[name])


@_fields
class FileState(_State):
    FIELDS = tuple(
        "filename filesize filehash package_tag package_version_tag py_version_tag abi_tag"
        " platform_tag requires_python dependencies location".split()
    )


@_fields
class BuildState(_State):
    FIELDS = tuple("slave_id package version abi_tag status duration output files".split())

    def as_message(self) -> list[Any]:
        *others, files = super().as_message()
        return [*others, [file.as_message() for file in files.values()]]

    @classmethod
    def from_message(cls, value: list[Any]) -> Any:
        *others, files = value
        states = [FileState.from_message(file) for file in files]
        others[5] = timedelta(seconds=others[5]) if isinstance(others[5], float) else others[5]
        return cls(*others, {file._values["filename"]: file for file in states})

    def logged(self, build_id: int) -> None:
        self.build_id = build_id


@_fields
class DownloadState(_State):
    FIELDS = tuple(
        "filename host timestamp arch distro_name distro_version os_name os_version py_name"
        " py_version installer_name installer_version setuptools_version".split()
    )
