"""A disk that forgets: what is left of recorded operations when the power goes.

Only what was synced must be there. Of a file, the bytes at its last fsync, and any of the writes
since, the last one perhaps torn; of a directory, its entries at its last fsync, and the changes
since up to some point, in order. A file's fsync says nothing of the entry that leads to it.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .injection import KINDS

_RECORD = struct.Struct("=QQQqIIIIQ")
_SECTOR = 512

Identity = tuple[int, int]  # of a device, of an inode on it


class Operation(NamedTuple):
    """A call that succeeded."""

    at: int  # nanoseconds, on the monotonic clock of all processes
    kind: str
    identity: Identity
    path: str
    other: str  # of a rename: to where; of a symlink: its target
    made: int  # of an open: 1 if it made the file, 2 if it emptied it
    offset: int  # of a write: where; of an ftruncate: the size
    data: bytes


def recorded(directory: Path) -> list[Operation]:
    """What all processes that logged into a directory did, in order."""
    found = []
    for path in directory.iterdir():
        content = path.read_bytes()
        start = 0
        while start + _RECORD.size <= len(content):
            at, inode, device, offset, kind, made, size, other_size, data_size = (
                _RECORD.unpack_from(content, start)
            )
            start += _RECORD.size
            end = start + size + other_size + data_size
            if end > len(content):
                break  # it was killed in the middle of its own log
            name = os.fsdecode(content[start : start + size])
            other = os.fsdecode(content[start + size : start + size + other_size])
            data = content[start + size + other_size : end]
            start = end
            found.append(
                Operation(at, KINDS[kind], (device, inode), name, other, made, offset, data)
            )
    return sorted(found, key=lambda operation: operation.at)


class Write(NamedTuple):
    """A change of a file's bytes, or without data of its size."""

    offset: int
    data: bytes | None

    def apply(self, content: bytearray) -> None:
        if self.data is None:
            del content[self.offset :]
            content.extend(bytes(self.offset - len(content)))
            return
        content.extend(bytes(max(0, self.offset - len(content))))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(eq=False)
class File:
    """A file: its bytes on the disk, and the changes since they were synced."""

    durable: bytes = b""
    pending: list[Write] = field(default_factory=list)

    def sync(self) -> None:
        content = bytearray(self.durable)
        for write in self.pending:
            write.apply(content)
        self.durable = bytes(content)
        self.pending.clear()


@dataclass(eq=False)
class Link:
    """A symbolic link; if it exists, it is complete."""

    target: str


class Change(NamedTuple):
    """A change of a directory: names that are set or removed in one step."""

    names: dict[str, File | Link | Directory | None]

    def apply(self, entries: Entries) -> None:
        for name, meaning in self.names.items():
            if meaning is None:
                entries.pop(name, None)
            else:
                entries[name] = meaning


@dataclass(eq=False)
class Directory:
    """A directory: its entries now and on the disk, and the changes between them."""

    entries: Entries = field(default_factory=dict)
    durable: Entries = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, **names: File | Link | Directory | None) -> None:
        change = Change(names)
        change.apply(self.entries)
        self.pending.append(change)

    def sync(self) -> None:
        self.durable = dict(self.entries)
        self.pending.clear()


Entries = dict[str, File | Link | Directory]


class Loss(NamedTuple):
    """What a power cut does.

    Attributes:
        name: for whoever reads of it.
        writes: the pending writes of a file that reach the disk.
        changes: how many of the pending changes of a directory do.
    """

    name: str
    writes: Callable[[Sequence[Write]], Sequence[Write]]
    changes: Callable[[int], int]


def losses(chance: random.Random) -> list[Loss]:
    """The extremes, and a random one."""

    def some(writes: Sequence[Write]) -> list[Write]:
        if chance.random() < 0.5:  # in order, as many file systems do
            kept = list(writes[: chance.randint(0, len(writes))])
        else:
            kept = [write for write in writes if chance.random() < 0.7]
        if kept and kept[-1].data and chance.random() < 0.5:
            last = kept.pop()
            assert last.data is not None
            sectors = len(last.data) // _SECTOR
            kept.append(Write(last.offset, last.data[: chance.randint(0, sectors) * _SECTOR]))
        return kept

    return [
        Loss("nothing that was not synced", lambda writes: [], lambda count: 0),
        Loss("names without data", lambda writes: [], lambda count: count),
        Loss("data without names", lambda writes: writes, lambda count: 0),
        Loss("everything", lambda writes: writes, lambda count: count),
        Loss("by chance", some, lambda count: chance.randint(0, count)),
    ]


EVERYTHING = Loss("everything", lambda writes: writes, lambda count: count)


class Disk:
    """A directory on which operations are replayed.

    Args:
        root: the directory; its present content counts as synced.
    """

    def __init__(self, root: Path) -> None:
        self._root_path = os.fspath(root)
        self._known: dict[Identity, File | Directory] = {}
        self._root = self._scan(root)

    def _scan(self, path: Path) -> Directory:
        directory = Directory()
        status = path.stat()
        self._known[status.st_dev, status.st_ino] = directory
        for entry in os.scandir(path):
            if entry.is_symlink():
                directory.entries[entry.name] = Link(os.readlink(entry.path))
            elif entry.is_dir():
                directory.entries[entry.name] = self._scan(Path(entry.path))
            else:
                file = File(Path(entry.path).read_bytes())
                status = entry.stat()
                self._known[status.st_dev, status.st_ino] = file
                directory.entries[entry.name] = file
        directory.sync()
        return directory

    def _place(self, path: str) -> tuple[Directory, str]:
        """The directory of a path, and its name there."""
        *above, name = os.path.relpath(path, self._root_path).split("/")
        directory = self._root
        for part in above:
            found = directory.entries[part]
            assert isinstance(found, Directory)
            directory = found
        return directory, name

    def play(self, operation: Operation) -> None:
        """Replay an operation."""
        kind = operation.kind
        if kind in ("write", "ftruncate", "fsync"):
            found = self._known.get(operation.identity)
            if found is None:  # its name is of before; it has none any more
                return
            if kind == "fsync" and operation.other == "whole":
                for one in self._known.values():
                    one.sync()
            elif kind == "fsync":
                found.sync()
            else:
                assert isinstance(found, File)
                data = operation.data if kind == "write" else None
                found.pending.append(Write(operation.offset, data))
            return
        directory, name = self._place(operation.path)
        known = self._known.get(operation.identity)
        there = known is not None and known is directory.entries.get(name)
        if kind == "open" and operation.made != 1 and there:
            assert isinstance(known, File)
            if operation.made == 2:
                known.pending.append(Write(0, None))
        elif kind in ("open", "mkdir"):
            # One that was there, but is not known, was made by somebody who is not watched: who
            # reads a database makes its empty log.
            made = File() if kind == "open" else Directory()
            self._known[operation.identity] = made
            directory.change(**{name: made})
        elif kind == "symlink":
            directory.change(**{name: Link(operation.other)})
        elif kind in ("unlink", "rmdir"):
            directory.change(**{name: None})
        elif kind == "rename":
            target, new = self._place(operation.other)
            assert target is directory, "a rename to another directory would be two changes"
            directory.change(**{name: None, new: directory.entries[name]})

    def leave(self, to: Path, loss: Loss) -> None:
        """Write into an empty directory what a power cut now would leave."""
        _leave(self._root, to, loss)


def _leave(directory: Directory, to: Path, loss: Loss) -> None:
    entries = dict(directory.durable)
    for change in directory.pending[: loss.changes(len(directory.pending))]:
        change.apply(entries)
    for name, found in entries.items():
        path = to / name
        if isinstance(found, Directory):
            path.mkdir()
            _leave(found, path, loss)
        elif isinstance(found, Link):
            path.symlink_to(found.target)
        elif not name.endswith("-shm"):  # shared memory: its writes are not seen, nor needed
            content = bytearray(found.durable)
            for write in loss.writes(found.pending):
                write.apply(content)
            path.write_bytes(content)
            path.chmod(0o644)


def cuts(operations: Sequence[Operation], chance: random.Random, count: int) -> Iterator[int]:
    """Where to cut the power: at each kind of rename and sync in each place, and at random."""

    def beside(*places: str) -> list[int]:
        return [
            number + after
            for number, (_, kind, _, path, *_) in enumerate(operations)
            if kind != "write" and not (kind == "fsync" and path.endswith("-wal"))
            if any(place in path for place in places)
            for after in (0, 1)
        ]

    everywhere = list(range(len(operations) + 1))
    groups = [beside("/journal", "/spool"), beside("/output"), everywhere, beside("/index.db")]
    chosen = {len(operations)}
    for number in range(count):
        places = groups[number % len(groups)] or everywhere
        chosen.add(chance.choice(places))
    return iter(sorted(chosen))
