"""What a bridge notes beside its spool, so that the next one knows whether changes were lost.

A master may be killed between the commit of its database and that of the spool. How many changes
had begun and how many were settled by then is in a file, at the price of one write each. After a
power cut nobody knows whether that was up to date, so something counts as lost.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from pathlib import Path

from ...base import directories, filesystem
from ...base.log import event

log = logging.getLogger(__name__)

FILE = "bridge"
"""Its name in the state directory."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Tells one start of the machine from another. Source: random(4)."""

_MAGIC = b"piwbrdg1"
_LAYOUT = struct.Struct(">8s36s4xQQQ32s")  # magic, boot, begun, settled, epoch, digest
_COUNTS = struct.Struct(">QQ")
_COUNTS_AT = 48
_ABIS = struct.Struct(">Q32s")
_ABIS_AT = 64
_CLEAN = b"\0" * 36
"""In place of the machine's start: a bridge ended in good order."""


class Marks:
    """The notes of one bridge; its methods may be called from any thread, and never fail.

    Args:
        directory: the state directory; made if it is not there.

    Attributes:
        lost: true if changes may be missing from the spool.
        abis: the epoch in which build ABIs were published last, and their digest.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._begun = self._settled = 0
        self._descriptor: int | None = None
        self._boot = _boot_id()
        self.lost = False
        self.abis = (0, b"")
        path = directory / FILE
        try:
            directories.make(directory, filesystem.STATE_DIRECTORY)
            self._descriptor = filesystem.open_own(path)
            found = os.pread(self._descriptor, _LAYOUT.size, 0)
            self._read(found)
            self._write_all()
            os.fsync(self._descriptor)
        except OSError as error:
            self._give_up(error)

    def _read(self, found: bytes) -> None:
        if not found:
            return  # it has just been made
        if len(found) != _LAYOUT.size or not found.startswith(_MAGIC):
            self.lost = True
            return
        _, boot, begun, settled, epoch, digest = _LAYOUT.unpack(found)
        self.abis = epoch, digest
        self.lost = begun != settled or boot not in (self._boot, _CLEAN)

    def _write_all(self, boot: bytes | None = None) -> None:
        assert self._descriptor is not None
        # Until the loss is made good, a bridge that is killed leaves it to the next.
        begun = self._begun + self.lost
        content = _LAYOUT.pack(_MAGIC, boot or self._boot, begun, self._settled, *self.abis)
        os.pwrite(self._descriptor, content, 0)

    def begin(self) -> None:
        """A change begins."""
        with self._lock:
            self._begun += 1
            self._write(_COUNTS_AT, _COUNTS.pack(self._begun + self.lost, self._settled))

    def settle(self, count: int = 1) -> None:
        """Changes are in the spool, or did not come about."""
        with self._lock:
            self._settled += count
            self._write(_COUNTS_AT, _COUNTS.pack(self._begun + self.lost, self._settled))

    @property
    def unsettled(self) -> int:
        """How many changes have begun and are not settled."""
        return self._begun - self._settled

    def made_good(self) -> None:
        """What was lost is known to be: the spool has a new epoch."""
        with self._lock:
            self.lost = False
            self._write(_COUNTS_AT, _COUNTS.pack(self._begun, self._settled))

    def published_abis(self, epoch: int, digest: bytes) -> None:
        """Build ABIs are in the spool."""
        with self._lock:
            self.abis = epoch, digest
            self._write(_ABIS_AT, _ABIS.pack(epoch, digest))

    def _write(self, at: int, content: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            os.pwrite(self._descriptor, content, at)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.error(
            "cannot write the file %s of the bridge: %s\n  what to do: check --state-dir; without"
            " it, changes that are lost when the master is killed go unnoticed",
            FILE,
            error.strerror or error,
            extra=event("marks-unwritable"),
        )
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        """End in good order; if changes are not settled, that stays known."""
        with self._lock:
            if self._descriptor is None:
                return
            try:
                self._write_all(_CLEAN)
                os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = None
            except OSError as error:
                self._give_up(error)


def _boot_id() -> bytes:
    try:
        return BOOT_ID.read_bytes().strip()[:36].ljust(36, b" ")
    except OSError:
        return b"unknown".ljust(36, b" ")
