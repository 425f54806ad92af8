"""Compares an index with a running master, package by package, or its files with a database."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from ...base import printable
from ...base.errors import DecodeError
from ...base.progress import Progress
from ...messages.entries import Accepted, Entry, Refused
from .. import compare, translate
from .asker import Asker, NoAnswer
from .postgres import Source, refusal

FILES = 5000
"""Files whose locations are compared together; some more, so that packages stay whole."""


class Difference(NamedTuple):
    """What the index has differently of a package.

    Attributes:
        package: empty for the build ABIs.
        what: in words.
        fix: makes the index equal to the master; None if that is not known.
    """

    package: str
    what: list[str]
    fix: Entry | None


def differences(
    connection: Any, asker: Asker, packages: list[str], progress: Progress
) -> Iterator[Difference]:
    """Compare an index with a master.

    Args:
        connection: reads the index; a daemon may write it meanwhile.
        asker: the master.
        packages: empty for all that either has.
        progress: is called with how far it is.

    Raises:
        PeerError: if the master does not answer.
    """
    abis = compare.set_abis(connection)
    there = asker.abis(abis)
    if abis != there.data:
        yield Difference("", ["the build ABIs differ"], Accepted(None, there))
    if not packages:
        here = [row[0] for row in connection.execute("SELECT package FROM packages")]
        packages = sorted({*asker.packages(), *here})
    comparer = compare.Comparer(connection)
    for number, package in enumerate(packages, 1):
        answer = asker.package(package)
        if isinstance(answer, NoAnswer):
            yield Difference(package, [f"the master cannot describe it: {answer.why}"], None)
        elif isinstance(answer, Refused):
            yield Difference(package, [f"the master's answer is unusable: {answer.error}"], answer)
        elif answer is None:
            if connection.execute(
                "SELECT 1 FROM packages WHERE package = ?", (package,)
            ).fetchone():
                gone = translate.delete_package(package, asker.clock())
                yield Difference(package, ["the master does not have it"], Accepted(None, gone))
            else:
                yield Difference(package, ["neither the master nor the index has it"], None)
        else:
            what = comparer.differences(answer)
            if what:
                yield Difference(package, what, Accepted(None, answer))
        progress(number, len(packages))
    comparer.close()


def locations(
    connection: Any, source: Source, packages: list[str], progress: Progress
) -> Iterator[Difference]:
    """Compare where the files that both have are served from.

    Args:
        connection: reads the index; a daemon may write it meanwhile.
        source: the master's database.
        packages: empty for all.
        progress: is called with how far it is.

    Raises:
        UsageError, PeerError: if the database has no locations, or does not answer.
    """
    total = source.count()
    after = ""
    there: dict[tuple[str, str], str] = {}
    for done, (package, rows) in enumerate(groupby(source.locations(), itemgetter(0)), 1):
        if not packages or package in packages:
            there.update(((package, filename), location) for _, filename, location in rows)
        if len(there) >= FILES:
            yield from _moved(connection, source, after, there)
            after, there = package, {}
            progress(done, total)
    yield from _moved(connection, source, after, there)
    progress(total, total)


def _moved(
    connection: Any, source: Source, after: str, there: dict[tuple[str, str], str]
) -> Iterator[Difference]:
    """The packages after a name with files that are served from elsewhere."""
    moved: dict[str, list[tuple[str, str, str]]] = {}
    for package, filename, location in connection.execute(
        "SELECT b.package, f.filename, f.location FROM builds b JOIN files f USING (build_id)"
        " WHERE b.package > ? AND b.package <= ? ORDER BY b.package",
        (after, max(there, default=("",))[0]),
    ):
        elsewhere = there.get((package, filename), location)
        if elsewhere != location:
            moved.setdefault(package, []).append((filename, location, elsewhere))
    for package, files in moved.items():
        filename, before, now = min(files)
        what = [
            f"{printable.many(len(files), 'file')} served from elsewhere, such as {filename}:"
            f" {before!r} in the index, {now!r} at the master"
        ]
        data = {"package": package, "files": {name: now for name, _, now in files}}
        try:
            fix: Entry = Accepted(None, translate.message("MOVEFILES", source.at, data))
        except DecodeError as error:
            what.append(f"what the master has is not valid: {error}")
            fix = refusal("MOVEFILES", source.at, data, error)
        yield Difference(package, what, fix)
