"""Notes the message that is being handled, so that the next process knows which one ended this one.

A valid message may end the process that reads or applies it, for example for lack of memory. Then
it is not in the journal, and its publisher replays it after every start. So its digest is noted
before it is read, and a message that was noted when two processes ended is put aside unread. Small
messages cost nothing: they are noted only after several processes have ended without progress.

The note outlives the process. It need not survive a crash of the machine, which no message causes.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from pathlib import Path

from ..base import filesystem
from ..base.errors import DecodeError
from ..base.log import event
from .elements import MAX_UNCOUNTED

log = logging.getLogger(__name__)

FILE = "handling"
"""Its name in the state directory."""

MAX_TRIES = 2
"""Processes that end over one message before it is put aside."""

MAX_ENDS = 3
"""Processes that end without progress before small messages are noted, too."""

CAREFUL_MESSAGES = 10_000
"""Messages that are handled one by one then; a batch has no more."""

_LAYOUT = struct.Struct(">8sBBBxxxxxQ32s")  # magic, busy, ends, tries, serial, key
_MAGIC = b"piwnote1"
_IDLE, _BATCH, _MESSAGE, _APPLYING, _APPLYING_ONE = range(5)
_NONE = b"\0" * 32


class PutAsideError(DecodeError):
    """A message is not read, because it has ended the processes that read it."""

    def __init__(self) -> None:
        super().__init__("", f"ended {MAX_TRIES} processes that handled it, and was put aside")


class Note:
    """The note of one process.

    Args:
        serial: of the last message in the journal.

    Attributes:
        careful: true if small messages are noted, too; then they are handled one by one.
        apply_each: true if the last process ended while it applied messages of the journal.
    """

    def __init__(self, directory: Path, serial: int) -> None:
        self._file = filesystem.KeptFile(directory / FILE, _log_unwritable)
        self._key, self._tries, self._ends = _NONE, 0, 0
        self.apply_each = False
        found = self._file.read(_LAYOUT.size)
        if len(found) == _LAYOUT.size and found.startswith(_MAGIC):
            _, busy, ends, self._tries, noted, self._key = _LAYOUT.unpack(found)
            if busy == _BATCH:
                self._ends = min(255, ends + 1) if noted == serial else 1
            elif busy == _MESSAGE:
                self._ends = ends  # one that was careful ended at what it looked for
            self.apply_each = busy in (_APPLYING, _APPLYING_ONE)
        self.careful = self._ends >= MAX_ENDS
        self._left = CAREFUL_MESSAGES if self.careful else 0
        self._suspect = self._key if self._tries else _NONE
        self._suspect_tries = self._tries
        self._handling = False
        self._serial = serial
        if self.careful or self._suspect_tries >= MAX_TRIES:
            log.error(
                "the last processes ended while they handled messages: %s",
                "the message that caused it is put aside"
                if self._suspect_tries >= MAX_TRIES
                else "messages are handled one by one",
                extra=event("handled-with-care"),
            )
        self._write(_IDLE)

    def _write(self, busy: int) -> None:
        self._file.write(
            _LAYOUT.pack(_MAGIC, busy, self._ends, self._tries, self._serial, self._key)
        )

    def begin(self, serial: int) -> None:
        """Note that a batch begins after this serial."""
        if serial != self._serial:
            self._serial = serial
            if not self.careful:
                self._ends = 0
        self._write(_BATCH)

    def applying(self) -> None:
        """Note that messages of the journal are about to be applied."""
        self._write(_APPLYING)

    def refuses_to_apply(self, serial: int) -> bool:
        """Note that one message is about to be applied; true if it must be put aside instead."""
        return self._refuses(b"serial %d" % serial, _APPLYING_ONE)

    def refuses(self, payload: bytes) -> bool:
        """Note that a message is about to be handled; true if it must be put aside instead."""
        return self._refuses(payload, _MESSAGE)

    def _refuses(self, payload: bytes, kind: int) -> bool:
        key = hashlib.sha256(payload).digest()
        before = self._suspect_tries if key == self._suspect else 0
        self._handling, self._key, self._tries = True, key, before
        if before >= MAX_TRIES:
            return True
        self._tries = before + 1
        self._write(kind)
        return False

    def wants(self, size: int) -> bool:
        """Whether a message of this size has to be noted."""
        return size > MAX_UNCOUNTED or self.careful

    def end(self) -> None:
        """Note that the batch is journaled and applied."""
        if self._handling:
            self._handling = False
            if self._key == self._suspect:
                self._suspect, self._suspect_tries = _NONE, 0
            self._key, self._tries = self._suspect, self._suspect_tries
            self._left -= 1
            self.careful = self._left > 0
        self._write(_IDLE)

    def close(self) -> None:
        """Note a clean end, and close the note."""
        self._file.close()


def _log_unwritable(error: OSError) -> None:
    log.warning(
        "cannot write the file %s of the state directory: %s\n  what happens: a message that"
        " ends this process could not be identified",
        FILE,
        error.strerror or error,
        extra=event("handling-not-noted"),
    )
