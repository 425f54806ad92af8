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
from pathlib import Path

from . import names
from .database import sync_directory
from .errors import PublishError

_TEMPORARY = ".{}.piw-indexer"
_DOCUMENT = "index.json"
_GZIP_LEVEL = 6


class Publisher:
    """Puts documents into an output tree; one process at a time.

    Args:
        output_path: the root of the site; made if it is not there.

    Raises:
        PublishError: if it cannot be made or written.
    """

    def __init__(self, output_path: Path) -> None:
        self.output_path = output_path
        self._projects = str(output_path / "project")
        try:
            os.makedirs(self._projects, mode=0o755, exist_ok=True)
            sync_directory(output_path)
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

    def project(self, package: str, document: bytes, aliases: list[str]) -> bool:
        """Publish a package's document and the links of its aliases.

        Args:
            package: canonical name; its directory takes the place of an alias's link.
            document: the bytes.
            aliases: other spellings, none of them a package's own name.

        Returns:
            True if anything was written.

        Raises:
            PublishError: if it is not safe on the disk.
        """
        _refuse(package)
        directory = f"{self._projects}/{package}/json"
        path = f"{directory}/{_DOCUMENT}"
        try:
            changed = _replace(directory, _DOCUMENT, document)
        except (FileNotFoundError, NotADirectoryError, _LinkError):
            try:
                self._make_directories(package)
                changed = _replace(directory, _DOCUMENT, document)
            except OSError as error:
                raise _failed("publish", path, error) from error
        except OSError as error:
            raise _failed("publish", path, error) from error
        for alias in aliases:
            changed |= self.link(alias, package)
        return changed

    def _make_directories(self, package: str) -> None:
        """Make `project/<package>/json`, where a link (of an alias) may stand in the way."""
        for path, parent in (
            (f"{self._projects}/{package}", self._projects),
            (f"{self._projects}/{package}/json", f"{self._projects}/{package}"),
        ):
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    os.unlink(path)
            except FileNotFoundError:
                pass
            try:
                os.mkdir(path)
                os.chmod(path, 0o755)
            except FileExistsError:
                pass
            sync_directory(Path(parent))

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
        path = f"{self._projects}/{alias}"
        if self.links_to(alias) in (package, None):
            return False  # so already, or a file or directory of somebody else
        # Of a fixed length, as the alias may be as long as a name can be.
        digest = hashlib.sha256(os.fsencode(alias)).hexdigest()[:16]
        temporary = f"{self._projects}/{_TEMPORARY.format(digest)}"
        try:
            try:
                os.unlink(temporary)
            except FileNotFoundError:
                pass
            os.symlink(package, temporary)
            os.rename(temporary, path)
            sync_directory(Path(self._projects))
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
        path = f"{self._projects}/{name}"
        if len(os.fsencode(name)) > names.MAX_COMPONENT_BYTES:
            return False
        try:
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                return False
            if stat.S_ISLNK(mode):
                if not names.is_canonical(os.readlink(path)):
                    return False  # not one of ours
                os.unlink(path)
                sync_directory(Path(self._projects))
                return True
            if not stat.S_ISDIR(mode) or os.path.islink(f"{path}/json"):
                return False
            removed = False
            for file in (_DOCUMENT, _TEMPORARY.format(_DOCUMENT)):
                try:
                    os.unlink(f"{path}/json/{file}")
                    removed = True
                except (FileNotFoundError, NotADirectoryError):
                    pass
            for directory, parent in ((f"{path}/json", path), (path, self._projects)):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    continue
                except OSError:  # not empty: others' files are in it
                    sync_directory(Path(directory))
                    break
                sync_directory(Path(parent))
            return removed
        except OSError as error:
            raise _failed("remove", path, error) from error

    def packages(self, document: bytes) -> bool:
        """Publish `packages.json` and, compressed, `packages.json.gz`.

        Returns:
            True if anything was written.

        Raises:
            PublishError: if they are not safe on the disk.
        """
        directory = str(self.output_path)
        name = "packages.json"
        try:
            changed = _replace(directory, name, document)
            if changed or not os.path.exists(f"{directory}/{name}.gz"):
                # No time and no name in it: the same rows, the same bytes.
                compressed = gzip.compress(document, _GZIP_LEVEL, mtime=0)
                changed |= _replace(directory, f"{name}.gz", compressed)
            return changed
        except OSError as error:
            raise _failed("publish", f"{directory}/{name}", error) from error


class _LinkError(OSError):
    """A directory of ours is a link: writing through it could end up anywhere."""


def _replace(directory: str, name: str, content: bytes) -> bool:
    """Replace `directory/name` by a file with `content`, unless it has it already."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.path.islink(directory) or os.path.islink(os.path.dirname(directory)):
            # The site's root may be a link; project/<package> and below may not.
            if not name.startswith("packages.json"):
                raise _LinkError(f"{directory} is a link")
        try:
            with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=descriptor), "rb") as file:
                if file.read() == content:
                    # It may have been renamed just before a crash.
                    os.fsync(descriptor)
                    return False
        except OSError:
            pass  # not there, or not readable: written anew
        temporary = _TEMPORARY.format(name)
        try:
            os.unlink(temporary, dir_fd=descriptor)
        except FileNotFoundError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(temporary, flags, 0o644, dir_fd=descriptor), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        os.fsync(descriptor)
        return True
    finally:
        os.close(descriptor)


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
