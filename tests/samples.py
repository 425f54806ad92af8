"""Messages for tests, as in a JSON-lines file; fields that a test does not give are plausible."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from indexer.base import times
from indexer.messages import decode
from indexer.messages.types import Message

AT = "2026-11-20T12:00:00+00:00"
NOW = times.parse_rfc3339(AT)
HASH = "0123456789abcdef" * 4

Envelope = dict[str, Any]


def message(msg: str, at: str = AT, /, **data: object) -> Envelope:
    return {"msg": msg, "at": at, "data": data}


def set_abis(*active: str, preinstalled: dict[str, list[str]] | None = None, **skipped: str) -> Any:
    """SETABIS with active ABIs, and skipped ones with their reasons."""
    return message(
        "SETABIS",
        build_abis={**dict.fromkeys(active, ""), **skipped},
        preinstalled_apt_packages=preinstalled or {},
    )


def new_package(package: str, **data: object) -> Envelope:
    return message("NEWPKG", package=package, **data)


def new_name(package: str, name: str, seen: str | None = AT) -> Envelope:
    return message("NEWPKGNAME", package=package, name=name, seen=seen)


def new_version(package: str, version: str, released: str | None = AT, **data: Any) -> Envelope:
    return message("NEWVER", package=package, version=version, released=released, **data)


def file(filename: str, **changes: object) -> dict[str, Any]:
    """A file of a build, with the tags of its name."""
    package, version, python, abi, platform = filename.removesuffix(".whl").split("-")
    return {
        "filename": filename,
        "filesize": 1000,
        "filehash": HASH,
        "package_tag": package,
        "package_version_tag": version,
        "py_version_tag": python,
        "abi_tag": abi,
        "platform_tag": platform,
        "requires_python": None,
        "dependencies": {},
        **changes,
    }


def log_build(
    build_id: int,
    package: str,
    version: str,
    *files: dict[str, Any] | str,
    abi_tag: str = "cp311",
    status: bool = True,
    duration: float = 1.5,
    slave_id: int = 1,
    at: str = AT,
    **data: object,
) -> Envelope:
    return message(
        "LOGBUILD",
        at,
        build_id=build_id,
        slave_id=slave_id,
        package=package,
        version=version,
        abi_tag=abi_tag,
        status=status,
        duration=duration,
        files=[file(one) if isinstance(one, str) else one for one in files],
        **data,
    )


def log_download(filename: str, accessed_at: str = AT, **data: object) -> Envelope:
    return message(
        "LOGDOWNLOAD",
        accessed_at,
        **{
            "filename": filename,
            "accessed_at": accessed_at,
            "arch": "armv7l",
            "distro_name": "Raspberry Pi OS",
            "distro_version": "12",
            "os_name": "Linux",
            "os_version": None,
            "py_name": "CPython",
            "py_version": "3.11.2",
            "installer_name": "pip",
            "installer_version": "23.0.1",
            "setuptools_version": None,
            **data,
        },
    )


def snapshot_file(**changes: object) -> dict[str, Any]:
    return {
        "filesize": 1000,
        "filehash": HASH,
        "location": "/simple",
        "platform_tag": "linux_armv7l",
        "abi_tag": "cp311",
        "builder_abi": "cp311",
        "requires_python": None,
        "apt_dependencies": [],
        "pip_dependencies": [],
        **changes,
    }


def snapshot_release(
    files: dict[str, Any] | None = None, abis: dict[str, tuple[str, int | None]] | None = None
) -> dict[str, Any]:
    return {
        "released": AT,
        "skip": "",
        "yanked": False,
        "abis": {
            abi: {"status": status, "build_id": build_id}
            for abi, (status, build_id) in (abis or {}).items()
        },
        "files": files or {},
    }


def snapshot(package: str, at: str = AT, **data: object) -> Envelope:
    return message(
        "SNAPSHOT",
        at,
        **{
            "package": package,
            "name": package,
            "description": "",
            "aliases": [],
            "releases": {},
            **data,
        },
    )


def downloads(package: str, ever: int, hours: dict[str, int]) -> Envelope:
    return message("DOWNLOADS", package=package, all=ever, hours=hours)


EVERY: Sequence[Envelope] = (
    set_abis("cp39", "cp311", preinstalled={"cp311": ["libc6", "zlib1g"]}, cp37m="too old"),
    new_package("numpy", skip="no", description="Arrays"),
    new_name("rpi-gpio", "RPi.GPIO", "2026-11-01T10:00:00.123456+01:00"),
    new_name("numpy", "NumPy", None),
    message("SETDESC", package="numpy", description="Größe \U0001f40d\n"),
    message("SKIPPKG", package="numpy", reason=""),
    message("DELPKG", package="numpy"),
    new_version("numpy", "1!2.0+local", "1969-12-31T23:59:59.000001Z", skip="binary only"),
    new_version("numpy", "no version at all", None),
    message("SKIPVER", package="numpy", version="2.0", reason="broken"),
    message("YANKVER", package="numpy", version="2.0"),
    message("UNYANKVER", package="numpy", version="2.0"),
    message("DELVER", package="numpy", version="2.0"),
    log_build(
        1,
        "numpy",
        "2.0",
        file(
            "numpy-2.0-cp311-cp311-linux_armv7l.whl",
            requires_python="",
            dependencies={"apt": ["libc6", "libopenblas0"], "pip": [], "": ["libfoo.so"]},
        ),
        file("numpy-2.0-py2.py3-none-any.whl", requires_python=">=3.9", location="https://x.org/y"),
    ),
    log_build(2, "numpy", "2.0", abi_tag="cp313t", status=False, duration=0.0),
    log_build(
        3,
        "numpy",
        "2.0",
        status=False,
        failure={"category": "missing-header", "detail": "pybind11/pybind11.h"},
    ),
    message("FAILURE", build_id=2, failure={"category": "unknown", "detail": ""}),
    message(
        "MOVEFILES", package="numpy", files={"numpy-2.0-py2.py3-none-any.whl": "https://x.org/z"}
    ),
    message("DELBUILD", package="numpy", version="2.0"),
    log_download("numpy-2.0-cp311-cp311-linux_armv7l.whl"),
    log_download("numpy-2.0.tar.gz", arch=None, py_name=None),
    snapshot("numpy"),
    snapshot(
        "rpi-gpio",
        name="RPi.GPIO",
        description="GPIO",
        aliases=["rpi.gpio", "RPi_GPIO"],
        releases={
            "0.7.1": snapshot_release(
                {
                    "RPi.GPIO-0.7.1-cp311-cp311-linux_armv7l.whl": snapshot_file(
                        apt_dependencies=["libc6"], requires_python=""
                    )
                },
                {"cp311": ("success", 7), "cp39": ("pending", None)},
            )
        },
    ),
    snapshot(
        "numpy",
        releases={
            "2.0": {
                **snapshot_release(),
                "abis": {
                    "cp311": {
                        "status": "fail",
                        "build_id": 9,
                        "slave_id": 4,
                        "built_at": AT,
                        "duration": 0.5,
                    }
                },
            }
        },
    ),
    downloads("numpy", 12, {"2026-11-20T11:00:00Z": 5, "1969-12-31T23:00:00+00:00": 0}),
)
"""Valid messages, every NAME among them."""


def line(envelope: Envelope) -> bytes:
    """A line of a JSON-lines file."""
    return json.dumps(envelope).encode() + b"\n"


def decoded(envelope: Envelope, received: int = NOW) -> Message:
    return decode.from_json(line(envelope), received)
