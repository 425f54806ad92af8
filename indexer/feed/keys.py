"""Keys of ZeroMQ's CURVE: pairs, their files, and lists of public keys.

A private key is never overwritten, never shown, and never read from a file that other users may
read. Private and public keys have distinct file formats, so one cannot be given in place of the
other.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from ..base import disk, filesystem, options
from ..base.errors import UsageError
from ..base.log import event

log = logging.getLogger(__name__)

LENGTH = 40
"""Characters of a key in Z85 (https://rfc.zeromq.org/spec/32/)."""

PRIVATE = "private"
"""The word before a private key in its file, so that it cannot pass for a public key."""

MAX_FILE = 1024 * 1024
"""Bytes of a file of keys; a wrong file that is named by mistake may be very large."""


@dataclass(frozen=True)
class KeyPair:
    """A private key and the public key that belongs to it, both in Z85."""

    public: bytes
    private: bytes = field(repr=False)


def make() -> KeyPair:
    """A new pair."""
    while True:
        public, private = zmq.curve_keypair()
        # On a command line, a key that begins with - / or . would pass for something else.
        if public[:1].isalnum() and private[:1].isalnum():
            return KeyPair(public, private)


def files(name: Path) -> tuple[Path, Path]:
    """The files of a pair, the private one first; `name` may be either of them."""
    base = name.with_suffix("") if name.suffix in (".key", ".pub") else name
    return base.with_name(f"{base.name}.key"), base.with_name(f"{base.name}.pub")


def write(name: Path, pair: KeyPair) -> None:
    """Write a pair to its two files.

    Raises UsageError if one of them exists, or cannot be written.
    """
    private, public = files(name)
    _create(
        private,
        0o600,
        "# A private key for CURVE: nobody but its owner may read it.\n"
        f"{PRIVATE} {pair.private.decode()}\n",
    )
    try:
        _create(public, 0o644, f"{pair.public.decode()} {public.stem}\n")
    except UsageError:
        private.unlink()  # half a pair is of no use
        raise


def _create(path: Path, mode: int, text: str) -> None:
    operation = f"write the key {path}"
    try:
        filesystem.write_new(path, text.encode(errors="replace"), mode)
    except FileExistsError as error:
        raise UsageError(
            operation,
            "the file exists, and a key that is overwritten is lost",
            "choose another name, or see what is there with --show",
        ) from error
    except OSError as error:
        remedy = disk.remedy(error.errno or 0) or "choose a directory that can be written"
        raise UsageError(operation, error.strerror or error, remedy) from error


def read_private(path: Path) -> KeyPair:
    """The pair of the private key in a file.

    Raises UsageError if the file cannot be read, holds no private key, or others may read it.
    """
    shown = options.as_typed(path)
    operation = f"read the private key {shown}"
    text, mode = _read(operation, path)
    if mode & 0o077:
        raise UsageError(
            operation,
            f"users other than its owner may use it (its mode is {mode:04o})",
            f"chmod 600 {shown}; and if somebody may have read it, make a new pair with"
            " `piw-indexer keys`",
        )
    words = [line.split() for line in text.splitlines() if not line.startswith("#")]
    lines = [line for line in words if line]
    if len(lines) != 1 or lines[0][:1] != [PRIVATE] or not is_key(" ".join(lines[0][1:])):
        raise UsageError(
            operation, "it holds no private key", "make a pair with `piw-indexer keys`"
        )
    private = lines[0][1].encode()
    return KeyPair(zmq.curve_public(private), private)


def read_public(given: str) -> bytes:
    """A public key that is given as text or as a file; raises UsageError if it is neither."""
    path = Path(given)
    if is_key(given) and not given.startswith(("/", ".")) and not path.exists():
        return given.encode()
    keys = read_list(path)
    if len(keys) != 1:
        raise UsageError(
            f"read the public key {path}", f"it holds {len(keys)} keys", "name a file with one"
        )
    return next(iter(keys))


def read_list(path: Path) -> dict[bytes, str]:
    """The public keys in a file, or in the files *.pub of a directory, each with its comment.

    A line is a key and, after a space, a comment that says whose it is. Empty lines and lines that
    begin with # are ignored.

    Raises UsageError if there is no key, a line is not a public key, or a file cannot be read.
    """
    operation = f"read the public keys of {path}"
    try:
        sources = sorted(path.glob("*.pub")) if path.is_dir() else [path]
    except OSError as error:
        raise UsageError(operation, error.strerror or error, "check its permissions") from error
    keys: dict[bytes, str] = {}
    for source in sources:
        text, _ = _read(operation, source)
        for number, line in enumerate(text.splitlines(), 1):
            key, _, comment = line.strip().partition(" ")
            if is_key(key):
                keys[key.encode()] = comment.strip()
            elif key and not key.startswith("#"):
                raise UsageError(
                    operation,
                    f"line {number} of {source} is not a public key"
                    + (", but a private one" if key == PRIVATE else ""),
                    "give the .pub files that `piw-indexer keys` makes, or their lines in one file",
                )
    if not keys:
        raise UsageError(
            operation,
            "there is no key in it",
            "put the .pub files of those who may subscribe there",
        )
    return keys


class KeyList(Mapping[bytes, str]):
    """The public keys of a file or a directory, read again when it has changed.

    If the list cannot be read any more, the keys stay as they were.

    Args:
        path: see `read_list`.

    Raises UsageError if it cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._signature()
        self._keys = read_list(path)

    def _signature(self) -> list[tuple[str, int, int, int]]:
        """A value that changes whenever one of the files does."""
        try:
            sources = [self._path]
            if self._path.is_dir():
                sources += sorted(self._path.glob("*.pub"))
            files = [(str(file), file.stat()) for file in sources]
        except OSError:
            return []
        return [(name, file.st_ino, file.st_size, file.st_mtime_ns) for name, file in files]

    def refresh(self) -> None:
        seen = self._signature()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._keys = read_list(self._path)
        except UsageError as error:
            log.error(
                "%s\n  what happens: the list that was read last stays in force",
                error,
                extra=event("keys-unreadable", path=self._path),
            )
        else:
            log.info(
                "%d keys may subscribe now",
                len(self._keys),
                extra=event("keys-read", path=self._path, keys=len(self._keys)),
            )

    def __getitem__(self, key: bytes) -> str:
        self.refresh()
        return self._keys[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def is_key(text: str) -> bool:
    """True if a text is a key, public or private: 32 bytes in Z85."""
    if len(text) != LENGTH:
        return False
    try:
        return len(z85.decode(text.encode("ascii"))) == 32
    except (KeyError, ValueError, struct.error):
        return False


def _read(operation: str, path: Path) -> tuple[str, int]:
    try:
        # A pipe that nobody writes to would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(operation, f"{path} is not a file", "name a file of keys")
            content = file.read(MAX_FILE + 1)
            if len(content) > MAX_FILE:  # a part of a list would let nobody in, or too few
                cause = f"{path} has more than {MAX_FILE >> 20} MiB"
                raise UsageError(operation, cause, "name a file of keys")
            text = content.decode()
    except OSError as error:
        raise UsageError(
            operation,
            f"{options.as_typed(path)}: {error.strerror or error}",
            "check its name, and that the user that runs piw-indexer may read it",
        ) from error
    except ValueError as error:
        raise UsageError(operation, f"{path} is not text", "name a file of keys") from error
    return text, stat.S_IMODE(status.st_mode)
