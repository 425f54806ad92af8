"""Compares an index with a running master, package by package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ...base.progress import Progress
from ...messages.entries import Accepted, Entry, Refused
from .. import compare, translate
from .asker import Asker, NoAnswer


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
