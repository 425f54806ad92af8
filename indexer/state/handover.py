"""Messages that a command hands to the running daemon.

The command leaves them in a file, and the daemon takes them within about a second. It takes none
about a package of which it has heard since the command looked: what it heard is newer. So a file
that is taken twice changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path

import msgpack

from ..base import clock, filesystem
from ..base.errors import StateError
from ..base.log import event
from ..journal.reader import JournalReader
from ..messages import encode
from ..messages.entries import Accepted, Entry
from ..messages.types import Message, package_of
from .request import leave, remove

log = logging.getLogger(__name__)

FILE = "handed.msgpack"
"""Its name in the state directory: a serial of the journal, and messages as it stores them."""

MAX_BYTES = 12 * 1024 * 1024
"""Bytes of it, which take seven times as much memory when they are read: a package of 55,000 files,
more than twice as many as the largest has."""

_AROUND = 64
"""Bytes of a message besides what the journal stores of it; some fewer."""

ANSWER_TIMEOUT = 60.0
"""Seconds in which the daemon has to take it."""


class News:
    """What a journal has got since some moment.

    Args:
        serial: the last message before that moment.

    Attributes:
        serial: the last message that was looked at.
        downloads: whether there was a download.
    """

    def __init__(self, reader: JournalReader, serial: int) -> None:
        self._reader = reader
        self._packages: set[str | None] = set()
        self.serial = serial
        self.downloads = False

    def look(self) -> None:
        """Look at what came since the last look."""
        for rows in self._reader.batches(self.serial):
            for row in rows:
                if row.message.name == "LOGDOWNLOAD":
                    self.downloads = True
                else:
                    self._packages.add(package_of(row.message.data))
            self.serial = rows[-1].serial

    def names(self, message: Message) -> bool:
        """Whether a message about the same package has come, or this one."""
        return package_of(message.data) in self._packages

    def outdates(self, message: Message) -> bool:
        """Whether there is a newer message about the same."""
        if message.name == "DOWNLOADS":
            return self.downloads
        return self.names(message)


def hand(directory: Path, news: News, messages: Iterable[Message]) -> list[Message]:
    """Have the daemon take messages; those that are outdated are left out.

    Args:
        news: of its journal, since what the messages say was read.
        messages: all that concern a package must be there together.

    Returns:
        Those that it was given.

    Raises StateError if the daemon does not take them.
    """
    given: list[Message] = []
    for part in _parts(messages):
        news.look()  # it has waited for the parts before
        fresh = [(message, body) for message, body in part if not news.outdates(message)]
        if fresh:
            packed = [(message.name, message.at, body) for message, body in fresh]
            _leave(directory / FILE, msgpack.packb([news.serial, packed]))
        given += [message for message, _ in fresh]
    return given


_Packed = tuple[Message, bytes]


def _parts(messages: Iterable[Message]) -> Iterator[list[_Packed]]:
    """Messages for one file each, in their order; a package is in one of them, whole."""
    packages: dict[str | None, list[tuple[int, _Packed]]] = {}
    for number, message in enumerate(messages):
        packed = message, encode.to_journal(message)
        packages.setdefault(package_of(message.data), []).append((number, packed))
    part: list[tuple[int, _Packed]] = []
    size = _AROUND
    for package, some in packages.items():
        more = sum(len(body) + _AROUND for _, (_, body) in some)
        if more + _AROUND > MAX_BYTES:
            raise StateError(
                f"hand {package} to the daemon",
                f"it is larger than {MAX_BYTES >> 20} MiB",
                "stop the daemon, run this again, and start it again",
            )
        if size + more > MAX_BYTES:
            yield _in_order(part)
            part, size = [], _AROUND
        part += some
        size += more
    yield _in_order(part)


def _in_order(part: list[tuple[int, _Packed]]) -> list[_Packed]:
    # A name can go to another package only after the first one has let it go.
    return [packed for _, packed in sorted(part, key=itemgetter(0))]


def _leave(path: Path, content: bytes) -> None:
    """Leave messages for the daemon, and wait until it has taken them."""
    leave(path, content)
    until = clock.monotonic() + ANSWER_TIMEOUT
    while path.exists():
        if clock.monotonic() > until:
            path.unlink(missing_ok=True)
            raise StateError(
                "hand messages to the daemon",
                f"it has not taken them within {ANSWER_TIMEOUT:.0f} s",
                "see `piw-indexer status`, then run it again; a daemon of an earlier version has"
                " to be restarted",
            )
        clock.sleep(0.05)


def offered(directory: Path, reader: JournalReader) -> list[Entry] | None:
    """The messages that a command has left; None if there are none."""
    path = directory / FILE
    try:
        serial, packed = msgpack.unpackb(filesystem.read(path, MAX_BYTES), use_list=False)
        messages = [encode.from_journal(*message) for message in packed]
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the file
        log.warning("ignored %s: %s", path, error, extra=event("handed-ignored", path=path))
        return []
    news = News(reader, serial)
    news.look()
    return [Accepted(None, message) for message in messages if not news.outdates(message)]


def taken(directory: Path) -> None:
    """Remove the messages: they are in the journal; raises StateError if that fails."""
    remove(directory / FILE)
