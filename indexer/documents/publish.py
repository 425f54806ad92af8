"""Documents into the output tree: atomic, durable, and only when their bytes differ.

Nothing is ever written outside `<output-path>/project/<name>` and `<output-path>/packages.json*`,
whatever links, FIFOs and files of others come there meanwhile; what is not ours is left alone.
`.piw-indexer` beside them, an empty directory of ours, is locked by whoever publishes. No SQL here.
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

from ..base import directories, disk, filesystem, lock, names
from ..base.errors import PublishError

LOCK = ".piw-indexer"
"""The name of the directory whose lock says that somebody publishes."""

_DOCUMENT = "index.json"
_COUNTERS = "packages.json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
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
            f"{there} is not a directory",
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

    Results are durable only after `sync`, which fsyncs `project/` once for all names written since
    the last call.

    Args:
        output_path: the root of the site; made if it is not there.
        thorough: read all of `packages.json.gz` before it is taken for right, not its end only.

    Raises:
        PublishError: if it cannot be made or written.
    """

    def __init__(self, output_path: Path, *, thorough: bool = False) -> None:
        self.output_path = output_path
        self._thorough = thorough
        self._projects = f"{output_path}/project"
        self._linking = threading.Lock()
        self._unsynced = True
        self._unsynced_files = False
        try:
            directories.make(output_path)
            directories.make(output_path / "project")
            self._projects = _resolved(self._projects)
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
        try:
            descriptor = self._open_lock()
        except OSError as error:
            raise _failed("lock", f"{self.output_path}/{LOCK}", error) from error
        # One that was killed a moment ago may still be renaming a last document.
        if not lock.take(descriptor, WAIT):
            os.close(descriptor)
            raise PublishError(
                f"publish in {self._projects}",
                "another process publishes there",
                "stop that one, or choose another --output-path",
            )
        self._held = descriptor

    def _open_lock(self) -> int:
        """A directory that only we may open: whoever may open one may lock it, and everybody may
        open those that are published.
        """
        path = f"{self.output_path}/{LOCK}"
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        descriptor = os.open(path, _DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        try:
            if status.st_uid != os.geteuid():
                raise OSError(errno.EEXIST, "it belongs to another user")
            if stat.S_IMODE(status.st_mode) != 0o700:
                os.fchmod(descriptor, 0o700)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

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
        with filesystem.directory(self._projects) as projects:
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
            with self._own(package) as (parent, directory):
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
            with self._own(document.package) as (_, directory):
                outcome = _compared(directory, _DOCUMENT, document.content)
                if outcome is not _Outcome.SAME:
                    filesystem.stage(directory, _DOCUMENT, document.content, filesystem.DOCUMENT)
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
                with self._own(document.package) as (_, directory):
                    filesystem.put(directory, _DOCUMENT)
            except OSError as error:
                raise _failed("publish", self.document_path(document.package), error) from error
        for alias in document.aliases:
            changed |= self.link(alias, document.package)
        return changed

    @contextmanager
    def _own(self, package: str) -> Iterator[tuple[int, int]]:
        """The directory of a package, and that of its document in it; made if not there."""
        opened = []
        try:
            opened.append(os.open(self._projects, _DIRECTORY))
            for name in (package, "json"):
                opened.append(_open_own(name, opened[-1]))
            yield opened[1], opened[2]
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def links_to(self, alias: str) -> str | None:
        """What `project/<alias>` is a link to, '' if it is not there; None if it is not a link."""
        try:
            return os.readlink(f"{self._projects}/{alias}")
        except FileNotFoundError:
            return ""
        except OSError:
            return None

    def link(self, alias: str, package: str) -> bool:
        """Make `project/<alias>` a link to `package`, unless something that is not a link is there.

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
        temporary = filesystem.TEMPORARY.format(digest)
        try:
            # A package and its alias may be written at once.
            with self._linking, filesystem.directory(self._projects) as projects:
                if self.links_to(alias) not in (package, None):
                    _unlink(temporary, projects)
                    os.symlink(package, temporary, dir_fd=projects)
                    os.rename(temporary, alias, src_dir_fd=projects, dst_dir_fd=projects)
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
            with filesystem.directory(self._projects) as projects:
                try:
                    mode = os.stat(name, dir_fd=projects, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    return False
                if stat.S_ISLNK(mode):
                    # Ours point to a package beside them, and nowhere else.
                    target = os.readlink(name, dir_fd=projects)
                    return names.is_canonical(target) and _unlink(name, projects)
                # Only packages have a directory of ours, never other spellings.
                if not stat.S_ISDIR(mode) or not names.is_canonical(name):
                    return False
                return _remove_document(name, projects)
        except OSError as error:
            raise _failed("remove", path, error) from error

    def counters_paths(self) -> tuple[str, str]:
        """Where `packages.json` and its compressed copy are."""
        path = f"{self.output_path}/packages.json"
        return path, f"{path}.gz"

    def set_mode(self, package: str) -> None:
        """Give a document that is there the mode that it should have; or, for '', packages.json.

        One that is not ours alone is replaced: it may be another user's, or have another name
        somewhere else.

        Raises:
            PublishError: if that fails.
        """
        path = self.document_path(package) if package else f"{self.output_path}/{_COUNTERS}"
        try:
            if package:
                with self._own(package) as (_, directory):
                    _set_mode(directory, _DOCUMENT)
                return
            with filesystem.directory(self.output_path, follow=True) as directory:
                for name in (_COUNTERS, f"{_COUNTERS}.gz"):
                    _set_mode(directory, name)
        except OSError as error:
            raise _failed("set the mode of", path, error) from error

    def _has_packages(self, directory: int, document: bytes) -> bool:
        """True if `packages.json` has these bytes, and its compressed copy ends as theirs does.

        A thorough publisher wants all of the copy to be right: a damaged disk spares its end.

        Source of the trailer: RFC 1952, https://www.rfc-editor.org/rfc/rfc1952#section-2.3
        """
        trailer = struct.pack("<II", zlib.crc32(document), len(document) & 0xFFFFFFFF)
        try:
            if _compared(directory, _COUNTERS, document) is not _Outcome.SAME:
                return False
            name = f"{_COUNTERS}.gz"
            if self._thorough:
                return filesystem.holds(name, compressed(document), dir_fd=directory)
            copy = filesystem.open_regular(name, os.O_RDONLY, dir_fd=directory)
            with open(copy, "rb") as file:
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
        name = _COUNTERS
        try:
            with filesystem.directory(self.output_path, follow=True) as directory:
                changed = not self._has_packages(directory, document)
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


def _resolved(projects: str) -> str:
    """Where `project/` is; a link of ours or of root's is followed now, and never again.

    Raises:
        OSError: if it is somebody else's link.
    """
    status = os.lstat(projects)
    if not stat.S_ISLNK(status.st_mode):
        return projects
    if status.st_uid not in (0, os.geteuid()):
        raise OSError(errno.EEXIST, "it is a symbolic link of another user")
    return os.path.realpath(projects)


def _open_own(name: str, parent: int) -> int:
    """Open a directory of ours, made if it is not there; a link in its place gives way.

    Writing through a link could end up anywhere.
    """
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if error.errno != errno.ENOENT:
            if not stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise
            os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)


class _Outcome(Enum):
    """What became of a file."""

    NEW = auto()
    REPLACED = auto()
    SAME = auto()


def _replace(directory: int, name: str, content: bytes) -> _Outcome:
    """Replace a file in an open directory by one with `content`, unless it has it already."""
    outcome = _compared(directory, name, content)
    if outcome is not _Outcome.SAME:
        filesystem.stage(directory, name, content, filesystem.DOCUMENT, durable=True)
        filesystem.put(directory, name)
    # The same bytes may have been renamed just before a crash.
    os.fsync(directory)
    return outcome


def _compared(directory: int, name: str, content: bytes) -> _Outcome:
    """What would become of a file with `content`."""
    try:
        same = filesystem.holds(name, content, dir_fd=directory)
    except FileNotFoundError:
        return _Outcome.NEW
    except OSError:
        return _Outcome.REPLACED  # not readable, or no file: something else takes its place
    return _Outcome.SAME if same else _Outcome.REPLACED


def _set_mode(directory: int, name: str) -> None:
    """Give a document its mode, whatever comes into its place meanwhile; see `set_mode`."""
    descriptor = filesystem.open_regular(name, os.O_RDONLY, dir_fd=directory)
    with open(descriptor, "rb", 0) as file:
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_nlink == 1:
            os.fchmod(descriptor, filesystem.DOCUMENT)
            return
        filesystem.stage(directory, name, file.readall(), filesystem.DOCUMENT, durable=True)
    filesystem.put(directory, name)
    os.fsync(directory)


def _remove_document(name: str, projects: int) -> bool:
    """Remove the document of a package, and its directories, unless files of others are in them."""
    removed = False
    with filesystem.directory(name, dir_fd=projects) as package:
        try:
            with filesystem.directory("json", dir_fd=package) as directory:
                removed = _unlink(_DOCUMENT, directory)
                _unlink(filesystem.TEMPORARY.format(_DOCUMENT), directory)
                if not _remove_directory("json", package):
                    os.fsync(directory)
                    return removed
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            if error.errno != errno.ENOENT:
                return removed  # a link, or a file: nothing below it is ours
        if not _remove_directory(name, projects):
            os.fsync(package)
    return removed


def _remove_directory(name: str, within: int) -> bool:
    """Remove a directory; false if there is something in it."""
    try:
        os.rmdir(name, dir_fd=within)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _unlink(name: str, within: int) -> bool:
    """Remove a file of an open directory; false if it is not there."""
    try:
        os.unlink(name, dir_fd=within)
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
