"""Documents into the output tree: atomic, durable, and only when their bytes differ.

Nothing is written outside the paths that the kinds of documents have, whatever links, FIFOs and
files of others appear there meanwhile. What is not ours is left alone. `.piw-indexer`, an empty
directory of ours in the output tree, is locked by the process that publishes. No SQL here.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..base import directories, disk, filesystem, lock, names
from ..base.errors import PublishError
from ..base.log import event
from ..base.once_per import LimitedLog
from . import atomic, registry
from .kind import Document

log = logging.getLogger(__name__)

LOCK = ".piw-indexer"
"""The name of the directory whose lock says that a process publishes."""

LOCK_TIMEOUT = 10.0
"""Seconds that another process has to leave an output tree."""


class Link(NamedTuple):
    """A spelling of a package's name.

    Attributes:
        root: the directory that the link is in.
        alias: its name.
        package: what it leads to; None: there must be no link of ours.
    """

    root: str
    alias: str
    package: str | None


class Output(NamedTuple):
    """All that belongs to a name in the output tree."""

    name: str
    documents: Sequence[Document]
    links: Sequence[Link]


def refuse_unwritable(output_path: Path) -> None:
    """Check that documents can be written there, or that what is missing above them can be made.

    Nothing is made.

    Raises:
        PublishError: if not.
    """
    for root in registry.roots():
        wanted = output_path / root
        existing = wanted.absolute()
        while not os.path.lexists(existing):
            existing = existing.parent
        if not existing.is_dir():
            raise PublishError(
                f"write to the output directory {wanted}",
                f"{existing} is not a directory",
                "move it away, or give another --output-path",
            )
        _refuse_closed(existing, str(wanted))


def refuse_others(output_path: Path) -> None:
    """Refuse a tree in which another program has published documents with the names of ours.

    Raises:
        PublishError: if so.
    """
    mark = output_path / LOCK
    if os.path.lexists(mark):
        return
    names = [f"{kind.root}/*/{kind.file}" for kind in registry.of_packages()]
    names += [kind.path for kind in registry.of_trees()]
    found = next((path for name in names for path in output_path.glob(name)), None)
    if found is not None:
        raise PublishError(
            f"publish to {output_path}",
            f"another program has written {found}: {LOCK}, which is in every output directory of"
            " ours, is missing",
            "give another --output-path; or, if everything there may be replaced, make it as the"
            f" user that runs piw-indexer (mkdir {mark})",
        )


def _refuse_closed(directory: Path, shown: str) -> None:
    if os.access(directory, os.W_OK | os.X_OK):
        return
    operation = f"write to the output directory {shown}"
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise PublishError(
            operation,
            f"{directory} is read-only for this process",
            "`piw-indexer install` writes the output directory into the unit, which counts after"
            " systemctl daemon-reload and systemctl restart piw-indexer",
        )
    raise PublishError(
        operation,
        "permission denied",
        "check --output-path, and that it belongs to the user that runs piw-indexer",
    )


class Publisher:
    """Puts documents into an output tree. Several threads may, for different names.

    A document never exists in part: it is on the disk before it gets its name. Which names there
    are is durable only after `sync`, once for all that was published since the last call.

    Args:
        output_path: the root of the site; made if it is not there.

    Raises:
        PublishError: if the directories cannot be made or written.
    """

    def __init__(self, output_path: Path) -> None:
        self.output_path = output_path
        self._roots: dict[str, str] = {}  # where they are, by name
        self._linking = threading.Lock()
        self._syncing = threading.Lock()
        self._unsynced: set[str] = set()  # roots with names that may not be durable
        self._unsynced_files: set[str] = set()  # and those of which nothing may be
        self._held = -1
        self._log = LimitedLog(log)
        self.package_lock = threading.Lock()
        """Held by a thread from the moment at which it looks whether a package exists until it
        has published or removed that package's documents."""
        for root in registry.roots():
            try:
                where = self._root(root)
            except OSError as error:
                raise _failed(
                    "make the output directory", f"{output_path}/{root}", error
                ) from error
            _refuse_closed(Path(where), where)
        self._unsynced.update(self._roots)
        self.takes_many = all(directories.syncs_whole(Path(at)) for at in self._roots.values())
        """Whether `publish_names` may be called."""

    def _root(self, name: str) -> str:
        """The path of a directory right below the output tree, made if it is not there.

        A link of ours or of root's is followed now, and never again.

        Raises:
            OSError: if it cannot be made, or is a link of another user.
        """
        path = self._roots.get(name)
        if path is None:
            path = f"{self.output_path}/{name}"
            directories.make(self.output_path)
            directories.make(Path(path))
            path = self._roots[name] = _followed(path)
        return path

    def hold(self) -> None:
        """Keep other processes from publishing there, until `close` or the end of this process.

        Raises:
            PublishError: if another process holds it, or another program has published there.
        """
        if self._held >= 0:
            return
        try:
            descriptor = self._open_lock()
        except OSError as error:
            raise _failed("lock", f"{self.output_path}/{LOCK}", error) from error
        # A process that was killed a moment ago may still be renaming a last document.
        if not lock.take(descriptor, LOCK_TIMEOUT):
            os.close(descriptor)
            raise PublishError(
                f"publish in {self.output_path}",
                "another process publishes there",
                "stop that one, or choose another --output-path",
            )
        self._held = descriptor

    def _open_lock(self) -> int:
        """Open the directory to lock. Only we may open it: whoever can open a directory can lock
        it, and everybody can open those that are published.
        """
        path = f"{self.output_path}/{LOCK}"
        refuse_others(self.output_path)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        # Without the mark, what is published from now on would be another program's.
        directories.sync(self.output_path)
        descriptor = os.open(path, atomic.DIRECTORY | os.O_CLOEXEC)
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
        """Let other processes publish."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def path(self, document: str) -> str:
        """Where a document is, whose path below the output tree this is."""
        root, slash, rest = document.partition("/")
        if not slash:
            return f"{self.output_path}/{document}"
        return f"{self._roots.get(root, f'{self.output_path}/{root}')}/{rest}"

    # Documents

    def publish(self, document: Document) -> bool:
        """Publish one document, or remove it.

        Returns:
            True if anything was written or removed.

        Raises:
            PublishError: if it could not be.
        """
        path, content = document
        if content is None:
            return self.remove(path)
        with self._opened("publish", path) as (opened, name):
            changed = atomic.replace(opened[-1], name, content)
            # Its directories may be new, from just before a crash even; if they are not, that
            # costs next to nothing.
            for directory in opened[1:-1]:
                os.fsync(directory)
        self._note_unsynced(path)
        return changed

    def publish_name(self, output: Output) -> bool:
        """Publish all that belongs to a name: first its documents, then its links.

        Returns:
            True if anything was written or removed.

        Raises:
            PublishError: if something could not be.
        """
        _refuse(output.name)
        changed = False
        for document in output.documents:
            changed |= self.publish(document)
        for link in output.links:
            changed |= self.link(link)
        return changed

    def publish_names(self, outputs: Sequence[Output]) -> list[bool | PublishError]:
        """Publish all that belongs to many names, with one sync for all; see `publish_name`.

        Returns:
            For each name whether anything was written or removed, or why it could not be.
        """
        staged: list[list[str] | PublishError] = []
        for output in outputs:
            try:
                staged.append(self._stage(output))
            except PublishError as error:
                staged.append(error)
        roots = {path.partition("/")[0] for paths in staged if isinstance(paths, list)
                 for path in paths}  # fmt: skip
        for root in sorted(roots):
            try:
                self._sync(root, with_files=True)
            except OSError as error:
                failure = _failed("publish in", self._roots[root], error)
                return [paths if isinstance(paths, PublishError) else failure for paths in staged]
        outcomes: list[bool | PublishError] = []
        for output, paths in zip(outputs, staged, strict=True):
            if isinstance(paths, PublishError):
                outcomes.append(paths)
                continue
            try:
                outcomes.append(self._put(output, paths))
            except PublishError as error:
                outcomes.append(error)
        return outcomes

    def _stage(self, output: Output) -> list[str]:
        """Write the documents that differ beside those that they will replace; their paths."""
        _refuse(output.name)
        staged = []
        for path, content in output.documents:
            if content is not None:
                with self._opened("publish", path) as (opened, name):
                    if atomic.differs(opened[-1], name, content):
                        filesystem.stage(opened[-1], name, content, filesystem.DOCUMENT)
                        staged.append(path)
        return staged

    def _put(self, output: Output, staged: list[str]) -> bool:
        """Give staged documents their names; remove what must go, and make the links."""
        changed = bool(staged)
        for path in staged:
            with self._opened("publish", path) as (opened, name):
                filesystem.put(opened[-1], name)
        for path, content in output.documents:
            if content is None:
                changed |= self.remove(path)
            else:
                # The same bytes may have been renamed just before a crash: they are synced, too.
                self._note_unsynced(path, with_files=True)
        for link in output.links:
            changed |= self.link(link)
        return changed

    @contextmanager
    def _opened(self, doing: str, path: str) -> Iterator[tuple[list[int], str]]:
        """The directories that a document lies in, open, the outermost first; and its name there.

        They are made if they are missing.

        Raises:
            PublishError: if they cannot be opened, or if `doing` fails inside.
        """
        parts = _parts(path)
        opened: list[int] = []
        try:
            opened.append(self._open_top(parts))
            for part in parts[1:-1]:
                opened.append(atomic.open_own(part, opened[-1]))
            yield opened, parts[-1]
        except OSError as error:
            raise _failed(doing, self.path(path), error) from error
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _open_top(self, parts: list[str]) -> int:
        """Open the directory that is right below the output tree, or the output tree itself."""
        if len(parts) == 1:
            return os.open(self.output_path, os.O_RDONLY | os.O_DIRECTORY)
        return os.open(self._root(parts[0]), atomic.DIRECTORY)

    def remove(self, path: str) -> bool:
        """Remove a document, and the directories around it that are empty then.

        Files of others stay, and so do the directories that they are in.

        Returns:
            True if it was there.

        Raises:
            PublishError: if it cannot be removed.
        """
        parts = _parts(path)
        opened: list[int] = []
        removed = False
        try:
            opened.append(self._open_top(parts))
            try:
                for part in parts[1:-1]:
                    opened.append(os.open(part, atomic.DIRECTORY, dir_fd=opened[-1]))
                removed = atomic.remove(opened[-1], parts[-1])
            except FileNotFoundError:
                pass  # a crash may have left some of its directories
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                return False  # a link or a file is in its way: nothing below that is ours
            while len(opened) > 1:
                if not atomic.remove_directory(opened[-2], parts[len(opened) - 1]):
                    break
                os.close(opened.pop())
            if len(opened) > 1 or len(parts) == 1:
                os.fsync(opened[-1])
        except OSError as error:
            raise _failed("remove", self.path(path), error) from error
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self._note_unsynced(path)
        return removed

    def set_mode(self, path: str) -> None:
        """Give a document that is there the mode that it should have.

        A document that is not ours alone is removed, to be written again: it may be another user's,
        or have another name somewhere else.

        Raises:
            PublishError: if that fails.
        """
        with self._opened("set the mode of", path) as (opened, name):
            atomic.set_mode(opened[-1], name)

    # Links

    def links_to(self, root: str, alias: str) -> str | None:
        """What a link of ours leads to; '' if nothing is there, None if something else is."""
        try:
            return target_of(os.readlink(self.path(f"{root}/{alias}")))
        except FileNotFoundError:
            return ""
        except OSError:
            return None

    def link(self, link: Link) -> bool:
        """Make a link, unless something that is not ours is there; or remove a link of ours.

        Returns:
            True if it was not so before.

        Raises:
            PublishError: if that fails.
        """
        root, alias, package = link
        _refuse(alias)
        if too_long(alias):
            return False
        try:
            changed = (
                self._unlink(root, alias) if package is None else self._link(root, alias, package)
            )
        except OSError as error:
            doing = "remove" if package is None else "link"
            raise _failed(doing, self.path(f"{root}/{alias}"), error) from error
        self._note_unsynced(f"{root}/{alias}")
        return changed

    def _link(self, root: str, alias: str, package: str) -> bool:
        _refuse(package)
        target = self.links_to(root, alias)
        if target == package:
            return False
        if target is None:
            path = self.path(f"{root}/{alias}")
            self._log.warning(
                "cannot link %s to %s: %s\n  what to do: move that away, if nobody needs it, and"
                " run `piw-indexer check --fix` with the daemon stopped",
                path,
                package,
                in_the_way(path),
                extra=event("alias-blocked", path=path),
                of=path,
            )
            return False
        # Of a fixed length, because the alias may be as long as a name can be.
        digest = hashlib.sha256(os.fsencode(alias)).hexdigest()[:16]
        temporary = filesystem.TEMPORARY.format(digest)
        # A package and its alias may be written at once.
        with self._linking, filesystem.directory(self._root(root)) as within:
            if self.links_to(root, alias) not in (package, None):
                atomic.unlink(within, temporary)
                os.symlink(package, temporary, dir_fd=within)
                os.rename(temporary, alias, src_dir_fd=within, dst_dir_fd=within)
        return True

    def _unlink(self, root: str, alias: str) -> bool:
        with filesystem.directory(self._root(root)) as within:
            try:
                target = os.readlink(alias, dir_fd=within)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
                return False  # it is not there, or is not a link
            return target_of(target) is not None and atomic.unlink(within, alias)

    # Durability

    def sync(self) -> None:
        """Make durable which names there are.

        Raises:
            PublishError: if that fails.
        """
        with self._syncing:
            for root in sorted(self._unsynced | self._unsynced_files):
                with_files = root in self._unsynced_files
                # Taken off first: what another thread publishes meanwhile is noted again.
                self._unsynced.discard(root)
                self._unsynced_files.discard(root)
                try:
                    self._sync(root, with_files)
                except OSError as error:
                    self._note_unsynced(f"{root}/", with_files=with_files)
                    raise _failed("publish in", self._roots[root], error) from error

    def _note_unsynced(self, path: str, *, with_files: bool = False) -> None:
        root, slash, _ = path.partition("/")
        if slash:
            (self._unsynced_files if with_files else self._unsynced).add(root)

    def _sync(self, root: str, with_files: bool) -> None:
        """Make durable which names there are in a root, or everything that is in them."""
        with filesystem.directory(self._root(root)) as within:
            if with_files:
                directories.sync_file_system(within)
            else:
                os.fsync(within)


def _followed(path: str) -> str:
    """Where a directory is, if a link of ours or of root's is in its place.

    Another link may come while we look. Only the one that was opened counts.

    Raises:
        OSError: if it is a link of another user.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISLNK(status.st_mode):
            return path
        if status.st_uid not in (0, os.geteuid()):
            raise OSError(errno.EEXIST, "it is a symbolic link of another user")
        target = os.readlink("", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return os.path.realpath(os.path.join(os.path.dirname(path), target))


def target_of(link: str) -> str | None:
    """What a link leads to, if it is one of ours: to a package beside it, and nowhere else."""
    return link if names.is_canonical(link) else None


def too_long(alias: str) -> bool:
    """Whether no file system can hold the link of an alias: 200 characters may have 800 bytes."""
    return len(os.fsencode(alias)) > names.MAX_COMPONENT_BYTES


def in_the_way(path: str) -> str:
    """What is in the place of a link, as in "a directory that is not ours is in its place"."""
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        return error.strerror or str(error)
    what = "directory" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file"
    return f"a {what} that is not ours is in its place"


def _parts(path: str) -> list[str]:
    """The names that a path consists of; none of them leads out of the output tree."""
    within = f"/{path}/"
    if "//" in within or "/." in within or "\0" in within:
        raise PublishError(f"publish {path!r}", "it is not a safe path", "please report this")
    return path.split("/")


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
        remedy += "; the daemon tries again by itself"
    elif error.errno in (errno.EPERM, errno.EACCES):
        remedy = "check that the output path is writable for the user that runs piw-indexer"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
        remedy = "move away what is there; the daemon tries again by itself"
    else:
        remedy = "look at the file system there; the daemon tries again by itself"
    return PublishError(f"{doing} {path}", cause, remedy, general=error.errno in _GENERAL)
