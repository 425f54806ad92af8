"""Documents into the output tree: atomic, durable, and only when their bytes differ.

Nothing is ever written outside `<output-path>/project/<name>` and `<output-path>/packages.json*`;
what is not ours there is left alone. No SQL here.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import stat
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from . import directories, disk, lock, names
from .errors import PublishError

_TEMPORARY = ".{}.piw-indexer"
_DOCUMENT = "index.json"
_GZIP_LEVEL = 6


class Document(NamedTuple):
    """What a package has in the output tree: its document's bytes, and its name's spellings."""

    package: str
    content: bytes
    aliases: list[str]


WAIT = 10.0
"""Seconds that another process has to leave an output tree."""


def refuse_unwritable(output_path: Path) -> None:
    """Only look whether documents can be written there, or what is missing above them be made.

    Raises:
        PublishError: if not.
    """
    projects = output_path / "project"
    there = projects.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise PublishError(
            f"write to the output directory {projects}",
            f"{there} is no directory",
            "move it away, or give another --output-path",
        )
    _refuse_closed(there, str(projects))


def _refuse_closed(directory: Path, shown: str) -> None:
    if os.access(directory, os.W_OK | os.X_OK):
        return
    operation = f"write to the output directory {shown}"
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise PublishError(
            operation,
            f"{directory} is read-only for this process",
            "where the unit lets the daemon write is said by `piw-indexer install`, and holds after"
            " systemctl daemon-reload and systemctl restart piw-indexer",
        )
    raise PublishError(
        operation,
        "permission denied",
        "check --output-path, and that it belongs to the user that runs piw-indexer",
    )


class Publisher:
    """Puts documents into an output tree; several threads may, for different names.

    What it says it did is durable once `sync` has returned, too: that makes the entries of
    `project/` so, once for many names.

    Args:
        output_path: the root of the site; made if it is not there.
        thorough: read all of `packages.json.gz` before it is taken for right, not its end only.

    Raises:
        PublishError: if it cannot be made or written.
    """

    def __init__(self, output_path: Path, *, thorough: bool = False) -> None:
        self.output_path = output_path
        self._thorough = thorough
        self._projects = str(output_path / "project")
        self._linking = threading.Lock()
        self._unsynced = True
        self._unsynced_files = False
        try:
            directories.make(output_path)
            directories.make(output_path / "project")
        except OSError as error:
            raise _failed("make the output directory", self._projects, error) from error
        _refuse_closed(Path(self._projects), self._projects)
        self.takes_many = directories.syncs_whole(output_path)
        """Whether `projects` may be called."""
        self._held = -1

    def hold(self) -> None:
        """Keep other processes from publishing there, until this one closes it or ends.

        Raises:
            PublishError: if another one holds it.
        """
        if self._held >= 0:
            return
        descriptor = os.open(self._projects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # One that was killed a moment ago may still be renaming a last document.
        if not lock.take(descriptor, WAIT):
            os.close(descriptor)
            raise PublishError(
                f"publish in {self._projects}",
                "another process publishes there",
                "stop that one, or choose another --output-path",
            )
        self._held = descriptor

    def close(self) -> None:
        """Let others publish."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def document_path(self, package: str) -> str:
        """Where the document of a package is."""
        return f"{self._projects}/{package}/json/{_DOCUMENT}"

    def sync(self) -> None:
        """Make durable which names there are.

        Raises:
            PublishError: if that fails.
        """
        if not self._unsynced:
            return
        self._unsynced = False
        try:
            self._sync(self._unsynced_files)
            self._unsynced_files = False
        except OSError as error:
            self._unsynced = True
            raise _failed("publish in", self._projects, error) from error

    def _sync(self, with_files: bool) -> None:
        """Make durable which names there are in `project/`, or everything that is in them."""
        with _directory(self._projects) as projects:
            if with_files:
                directories.sync_file_system(projects)
            else:
                os.fsync(projects)

    def project(self, package: str, document: bytes, aliases: list[str]) -> bool:
        """Publish a package's document and the links of its aliases.

        Args:
            package: canonical name; its directory takes the place of an alias's link.
            document: the bytes.
            aliases: other spellings, none of them a package's own name.

        Returns:
            True if anything was written.

        Raises:
            PublishError: if it could not be.
        """
        _refuse(package)
        try:
            with (
                _own_directory(f"{self._projects}/{package}") as parent,
                _own_directory("json", parent) as directory,
            ):
                outcome = _replace(directory, _DOCUMENT, document)
                # Its directories may be new, from just before a crash even; if they are not,
                # that costs next to nothing.
                os.fsync(parent)
                self._unsynced = True
        except OSError as error:
            raise _failed("publish", self.document_path(package), error) from error
        changed = outcome is not _Outcome.SAME
        for alias in aliases:
            changed |= self.link(alias, package)
        return changed

    def projects(self, documents: Sequence[Document]) -> list[bool | PublishError]:
        """Publish many documents with one sync for all; see `project`.

        Each is on the disk before it gets its name, and all of it durable once `sync` has
        returned.

        Returns:
            For each whether anything was written, or why it could not be.
        """
        outcomes: list[_Outcome | PublishError] = []
        for document in documents:
            try:
                outcomes.append(self._stage(document))
            except PublishError as error:
                outcomes.append(error)
        if any(isinstance(one, _Outcome) and one is not _Outcome.SAME for one in outcomes):
            try:
                self._sync(with_files=True)
            except OSError as error:
                failure = _failed("publish in", self._projects, error)
                return [one if isinstance(one, PublishError) else failure for one in outcomes]
        found: list[bool | PublishError] = []
        for document, outcome in zip(documents, outcomes, strict=True):
            if isinstance(outcome, PublishError):
                found.append(outcome)
                continue
            try:
                found.append(self._put(document, outcome))
            except PublishError as error:
                found.append(error)
        return found

    def _stage(self, document: Document) -> _Outcome:
        """Write a document beside the one that it will replace."""
        _refuse(document.package)
        try:
            with self._own(document.package) as directory:
                outcome = _compared(directory, _DOCUMENT, document.content)
                if outcome is not _Outcome.SAME:
                    _write(directory, _DOCUMENT, document.content, durable=False)
                return outcome
        except OSError as error:
            raise _failed("publish", self.document_path(document.package), error) from error

    def _put(self, document: Document, outcome: _Outcome) -> bool:
        """Give a staged document its name, and make its links."""
        # The same bytes may have been renamed just before a crash: they are synced, too.
        self._unsynced = self._unsynced_files = True
        changed = outcome is not _Outcome.SAME
        if changed:
            try:
                with self._own(document.package) as directory:
                    _rename(directory, _DOCUMENT)
            except OSError as error:
                raise _failed("publish", self.document_path(document.package), error) from error
        for alias in document.aliases:
            changed |= self.link(alias, document.package)
        return changed

    @contextmanager
    def _own(self, package: str) -> Iterator[int]:
        """The directory of a package's document, made if it is not there."""
        with (
            _own_directory(f"{self._projects}/{package}") as parent,
            _own_directory("json", parent) as directory,
        ):
            yield directory

    def links_to(self, alias: str) -> str | None:
        """What `project/<alias>` is a link to, '' if it is not there; None if it is no link."""
        try:
            return os.readlink(f"{self._projects}/{alias}")
        except FileNotFoundError:
            return ""
        except OSError:
            return None

    def link(self, alias: str, package: str) -> bool:
        """Make `project/<alias>` a link to `package`, unless something that is no link is there.

        Returns:
            True if it was not so before.

        Raises:
            PublishError: if it cannot be made.
        """
        _refuse(package)
        _refuse(alias)
        if len(os.fsencode(alias)) > names.MAX_COMPONENT_BYTES:
            return False  # no file system could hold it
        self._unsynced = True
        if self.links_to(alias) in (package, None):
            return False  # so already, or a file or directory of somebody else
        path = f"{self._projects}/{alias}"
        # Of a fixed length, as the alias may be as long as a name can be.
        digest = hashlib.sha256(os.fsencode(alias)).hexdigest()[:16]
        temporary = f"{self._projects}/{_TEMPORARY.format(digest)}"
        try:
            with self._linking:  # a package and its alias may be written at once
                if self.links_to(alias) not in (package, None):
                    _unlink(temporary)
                    os.symlink(package, temporary)
                    os.rename(temporary, path)
        except OSError as error:
            raise _failed("link", path, error) from error
        return True

    def give_way(self, name: str) -> bool:
        """Remove what is left of a package, but no link; see `remove`."""
        return self.links_to(name) is None and self.remove(name)

    def remove(self, name: str) -> bool:
        """Remove what is ours of a name that is neither a package nor an alias (any more).

        Files of others in its directory stay, and so does the directory then.

        Returns:
            True if anything was removed.

        Raises:
            PublishError: if it cannot be removed.
        """
        _refuse(name)
        if len(os.fsencode(name)) > names.MAX_COMPONENT_BYTES:
            return False
        path = f"{self._projects}/{name}"
        self._unsynced = True
        try:
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                return False
            if stat.S_ISLNK(mode):
                # Ours point to a package beside them, and nowhere else.
                return names.is_canonical(os.readlink(path)) and _unlink(path)
            # Only packages have a directory of ours, never other spellings.
            if not stat.S_ISDIR(mode) or not names.is_canonical(name):
                return False
            if os.path.islink(f"{path}/json"):
                return False
            return self._remove_document(path)
        except OSError as error:
            raise _failed("remove", path, error) from error

    def _remove_document(self, path: str) -> bool:
        removed = _unlink(f"{path}/json/{_DOCUMENT}")
        _unlink(f"{path}/json/{_TEMPORARY.format(_DOCUMENT)}")
        for directory in (f"{path}/json", path):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:  # files of others are in it
                with _directory(directory) as opened:
                    os.fsync(opened)
                break
        return removed

    def counters_paths(self) -> tuple[str, str]:
        """Where `packages.json` and its compressed copy are."""
        path = f"{self.output_path}/packages.json"
        return path, f"{path}.gz"

    def has_packages(self, document: bytes) -> bool:
        """True if `packages.json` has these bytes, and its compressed copy ends as theirs does.

        A thorough publisher wants all of the copy to be right: a damaged disk spares its end.

        Source of the trailer: RFC 1952, https://www.rfc-editor.org/rfc/rfc1952#section-2.3
        """
        path = self.output_path / "packages.json"
        trailer = struct.pack("<II", zlib.crc32(document), len(document) & 0xFFFFFFFF)
        try:
            if path.read_bytes() != document:
                return False
            with open(f"{path}.gz", "rb") as file:
                if self._thorough:
                    return file.read() == compressed(document)
                file.seek(-8, os.SEEK_END)
                return file.read() == trailer
        except OSError:
            return False

    def packages(self, document: bytes) -> bool:
        """Publish `packages.json` and, compressed, `packages.json.gz`; durable on return.

        Returns:
            True if anything was written.

        Raises:
            PublishError: if they could not be.
        """
        name = "packages.json"
        try:
            with _directory(str(self.output_path)) as directory:
                changed = not self.has_packages(document)
                if changed:
                    # The compressed one first: what a crash leaves between them is then seen.
                    _replace(directory, f"{name}.gz", compressed(document))
                    _replace(directory, name, document)
                else:
                    os.fsync(directory)  # the same bytes may have been renamed before a crash
                return changed
        except OSError as error:
            raise _failed("publish", f"{self.output_path}/{name}", error) from error


def compressed(document: bytes) -> bytes:
    """A document as gzip; without a time or a name, so the same bytes give the same."""
    return gzip.compress(document, _GZIP_LEVEL, mtime=0)


@contextmanager
def _directory(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _own_directory(path: str, parent: int | None = None) -> Iterator[int]:
    """A directory of ours, made if it is not there; a link in its place gives way.

    Writing through a link could end up anywhere.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if error.errno != errno.ENOENT:
            if not stat.S_ISLNK(os.stat(path, dir_fd=parent, follow_symlinks=False).st_mode):
                raise
            os.unlink(path, dir_fd=parent)
        os.mkdir(path, 0o755, dir_fd=parent)
        descriptor = os.open(path, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _Outcome(Enum):
    """What became of a file."""

    NEW = auto()
    REPLACED = auto()
    SAME = auto()


def _replace(directory: int, name: str, content: bytes) -> _Outcome:
    """Replace a file in an open directory by one with `content`, unless it has it already."""
    outcome = _compared(directory, name, content)
    if outcome is not _Outcome.SAME:
        _write(directory, name, content, durable=True)
        _rename(directory, name)
    # The same bytes may have been renamed just before a crash.
    os.fsync(directory)
    return outcome


def _compared(directory: int, name: str, content: bytes) -> _Outcome:
    """What would become of a file with `content`."""
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb", 0) as file:
            return _Outcome.SAME if file.readall() == content else _Outcome.REPLACED
    except FileNotFoundError:
        return _Outcome.NEW
    except OSError:
        return _Outcome.REPLACED  # not readable, or no file: something else takes its place


def _write(directory: int, name: str, content: bytes, *, durable: bool) -> None:
    """Write `content` beside the file that it will replace."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    temporary = os.open(_TEMPORARY.format(name), flags, 0o644, dir_fd=directory)
    with open(temporary, "wb", 0) as file:
        os.fchmod(file.fileno(), 0o644)
        written = file.write(content)
        if written != len(content):  # the disk is all but full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(file.fileno())


def _rename(directory: int, name: str) -> None:
    """Put what was written beside a file in its place."""
    os.rename(_TEMPORARY.format(name), name, src_dir_fd=directory, dst_dir_fd=directory)


def _unlink(path: str) -> bool:
    """Remove a file; false if it is not there."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _refuse(name: str) -> None:
    """The last line of defence: decoding has refused such names already."""
    fault = names.unsafe(name, names.MAX_NAME)
    if fault:
        raise PublishError(f"publish {name!r}", f"the name {fault}", "please report this")


_GENERAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)


def _failed(doing: str, path: str, error: OSError) -> PublishError:
    cause = error.strerror or str(error)
    remedy = disk.remedy(error.errno or 0)
    if remedy:
        remedy += "; it is tried again by itself"
    elif error.errno in (errno.EPERM, errno.EACCES):
        remedy = "check that the output path is writable for the user that runs piw-indexer"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        remedy = "move away what is there; it is tried again by itself"
    else:
        remedy = "look at the file system there; it is tried again by itself"
    return PublishError(f"{doing} {path}", cause, remedy, general=error.errno in _GENERAL)
