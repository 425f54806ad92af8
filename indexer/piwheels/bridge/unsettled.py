"""Notes beside the spool of a bridge, so that the next bridge knows whether changes were lost.

A master may be killed between the commits of its database and of the spool. A file counts changes
that have begun and that are settled, which costs one write for each. After a power failure, the
file may be out of date, so changes count as lost.
"""

from __future__ import annotations

import logging
import struct
import threading
from pathlib import Path

from ...base import directories, filesystem
from ...base.log import event

log = logging.getLogger(__name__)

FILE = "bridge"
"""The name of the file in the state directory."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Another value after each boot. Source: random(4)."""

_MAGIC = b"piwbrdg1"
_LAYOUT = struct.Struct(">8s36s4xQQQ32s")  # magic, boot, begun, settled, epoch, digest
_COUNTS = struct.Struct(">QQ")
_COUNTS_AT = 48
_ABIS = struct.Struct(">Q32s")
_ABIS_AT = 64
_CLEAN = b"\0" * 36
"""In place of the boot: the bridge ended properly."""


class Marks:
    """The notes of one bridge; any thread may call its methods, which never raise.

    Args:
        directory: the state directory; made if it is not there.

    Attributes:
        lost: true if changes may be missing from the spool.
        abis: the epoch in which build ABIs were last published, and their digest.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._begun = self._settled = 0
        self._boot = _boot_id()
        self.lost = False
        self.abis = (0, b"")
        try:
            directories.make(directory, filesystem.STATE_DIRECTORY)
        except OSError:
            pass  # opening the file will fail, too
        self._file = filesystem.KeptFile(directory / FILE, _log_unwritable)
        self._read(self._file.read(_LAYOUT.size))
        self._write_all(self._boot)

    def _read(self, content: bytes) -> None:
        if not content:
            return  # it has just been made
        if len(content) != _LAYOUT.size or not content.startswith(_MAGIC):
            self.lost = True
            return
        _, boot, begun, settled, epoch, digest = _LAYOUT.unpack(content)
        self.abis = epoch, digest
        self.lost = begun != settled or boot not in (self._boot, _CLEAN)

    def _write_all(self, boot: bytes) -> None:
        # As long as a loss is not handled, it is left to the next bridge.
        begun = self._begun + self.lost
        content = _LAYOUT.pack(_MAGIC, boot, begun, self._settled, *self.abis)
        self._file.write(content, durable=True)

    def begin(self) -> None:
        with self._lock:
            self._begun += 1
            self._write_counts()

    def settle(self, count: int = 1) -> None:
        """Note that changes are in the spool, or failed."""
        with self._lock:
            self._settled += count
            self._write_counts()

    @property
    def unsettled(self) -> int:
        return self._begun - self._settled

    def made_good(self) -> None:
        """Note that the loss was handled: the spool has a new epoch."""
        with self._lock:
            self.lost = False
            self._write_counts()

    def published_abis(self, epoch: int, digest: bytes) -> None:
        with self._lock:
            self.abis = epoch, digest
            self._file.write(_ABIS.pack(epoch, digest), _ABIS_AT)

    def _write_counts(self) -> None:
        self._file.write(_COUNTS.pack(self._begun + self.lost, self._settled), _COUNTS_AT)

    def close(self) -> None:
        """End properly; unsettled changes stay noted."""
        with self._lock:
            self._write_all(_CLEAN)
            self._file.close()


def _log_unwritable(error: OSError) -> None:
    log.error(
        "cannot write the file %s of the bridge: %s\n  what to do: check --state-dir; without it,"
        " changes that are lost when the master is killed go unnoticed",
        FILE,
        error.strerror or error,
        extra=event("marks-unwritable"),
    )


def _boot_id() -> bytes:
    try:
        return BOOT_ID.read_bytes().strip()[:36].ljust(36, b" ")
    except OSError:
        return b"unknown".ljust(36, b" ")
