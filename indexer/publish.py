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
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path

from . import names
from .errors import PublishError

_TEMPORARY = ".{}.piw-indexer"
_DOCUMENT = "index.json"
_GZIP_LEVEL = 6


class Publisher:
    """Puts documents into an output tree; several threads may, for different names.

    What it says it did is durable once `sync` has returned, too: that makes the entries of
    `project/` so, once for many names.

    Args:
        output_path: the root of the site; made if it is not there.

    Raises:
        PublishError: if it cannot be made or written.
    """

    def __init__(self, output_path: Path) -> None:
        self.output_path = output_path
        self._projects = str(output_path / "project")
        self._unsynced = True
        try:
            os.makedirs(self._projects, mode=0o755, exist_ok=True)
            with _directory(str(output_path)) as root:
                os.fsync(root)
        except OSError as error:
            raise _failed("make the output directory", self._projects, error) from error
        if not os.access(self._projects, os.W_OK | os.X_OK):
            raise PublishError(
                f"write to the output directory {self._projects}",
                "permission denied",
                "check --output-path, and that it belongs to the user that runs piw-indexer",
            )

    def document_path(self, package: str) -> str:
        """Where the document of a package is."""
        return f"{self._projects}/{package}/json/{_DOCUMENT}"

    def sync(self) -> None:
        """Make durable which names there are.

        Raises:
            PublishError: if that fails.
        """
        if self._unsynced:
            self._unsynced = False
            try:
                with _directory(self._projects) as projects:
                    os.fsync(projects)
            except OSError as error:
                self._unsynced = True
                raise _failed("publish in", self._projects, error) from error

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
                if outcome is not _Outcome.REPLACED:
                    # Its directories may be new, from just before a crash even.
                    os.fsync(parent)
                    self._unsynced = True
        except OSError as error:
            raise _failed("publish", self.document_path(package), error) from error
        changed = outcome is not _Outcome.SAME
        for alias in aliases:
            changed |= self.link(alias, package)
        return changed

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
            _unlink(temporary)
            os.symlink(package, temporary)
            os.rename(temporary, path)
        except OSError as error:
            raise _failed("link", path, error) from error
        return True

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
            if not stat.S_ISDIR(mode) or os.path.islink(f"{path}/json"):
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
                changed = _replace(directory, name, document) is not _Outcome.SAME
                if changed or not os.path.exists(self.output_path / f"{name}.gz"):
                    # No time and no name in it: the same rows, the same bytes.
                    compressed = gzip.compress(document, _GZIP_LEVEL, mtime=0)
                    changed |= _replace(directory, f"{name}.gz", compressed) is not _Outcome.SAME
                return changed
        except OSError as error:
            raise _failed("publish", f"{self.output_path}/{name}", error) from error


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
    try:
        with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory), "rb", 0) as file:
            outcome = _Outcome.SAME if file.readall() == content else _Outcome.REPLACED
    except FileNotFoundError:
        outcome = _Outcome.NEW
    except OSError:
        outcome = _Outcome.REPLACED  # not readable, or no file: something else takes its place
    if outcome is not _Outcome.SAME:
        temporary = _TEMPORARY.format(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o644, dir_fd=directory), "wb", 0) as file:
            os.fchmod(file.fileno(), 0o644)
            written = file.write(content)
            if written != len(content):  # the disk is all but full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    # The same bytes may have been renamed just before a crash.
    os.fsync(directory)
    return outcome


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
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space there; it is tried again by itself"
    elif error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        remedy = "check that the output path is writable for the user that runs piw-indexer"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        remedy = "move away what is there; it is tried again by itself"
    else:
        remedy = "look at the file system there; it is tried again by itself"
    return PublishError(f"{doing} {path}", cause, remedy, general=error.errno in _GENERAL)
