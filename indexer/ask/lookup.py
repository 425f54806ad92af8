"""A package by any spelling of its name, and its document as the index would publish it.

Read only; the document is made by the same code that makes the published one.
"""

from __future__ import annotations

import difflib
import sqlite3
from typing import Any

import orjson

from ..base import database, names
from ..base.errors import UsageError
from ..documents import project
from ..index import queries

_MATCHES = 3


def package_of(connection: sqlite3.Connection, given: str) -> str | None:
    """The package that is called `given`, in any spelling; None if there is none.

    The name of one package has precedence over a spelling of another package's name.
    """
    canonical = names.canonical(given)
    if queries.is_package(connection, canonical):
        return canonical
    return queries.alias_owner(connection, given) or queries.alias_owner(connection, canonical)


def close_to(connection: sqlite3.Connection, given: str) -> list[str]:
    """The packages whose names are most similar to `given`, the most similar first."""
    name = names.canonical(given)
    if not name:
        return []
    # Comparing is slow, so only names of similar length with the same beginning or end are tried.
    similar = connection.execute(
        "SELECT package FROM packages WHERE length(package) BETWEEN ? AND ?"
        " AND (substr(package, 1, 1) = ? OR substr(package, -2) = ?)",
        (len(name) - 2, len(name) + 2, name[0], name[-2:]),
    )
    return difflib.get_close_matches(name, [row[0] for row in similar], _MATCHES, 0.7)


def unknown(operation: str, given: str, close: list[str]) -> UsageError:
    """The error for a package that does not exist."""
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return UsageError(
        operation,
        f"the index has no package {given!r}",
        f"{meant}any spelling is accepted; `piw-indexer explain` says whether there ever was one",
    )


def unknown_version(package: str, given: str, versions: list[str]) -> UsageError:
    """The error for a version that the package does not have."""
    close = difflib.get_close_matches(given, versions, _MATCHES)
    latest = f"the newest is {versions[0]}" if versions else "it has none"
    return UsageError(
        f"show {package} {given}",
        "it has no such version",
        f"did you mean {' or '.join(close)}?"
        if close
        else f"{latest}; `piw-indexer show {package}`",
    )


def document(connection: sqlite3.Connection, package: str, site_url: str) -> dict[str, Any] | None:
    """The published document of a package, with more from the index.

    Args:
        package: canonical name.
        site_url: without a slash at the end.

    Returns:
        The document, with the fields downloads_recent, downloads_all, skip (of the package) and
        aliases. None if there is no such package.
    """
    with database.snapshot(connection):
        rows = queries.load_project(connection, package)
        if rows is None:
            return None
        document: dict[str, Any] = orjson.loads(
            project.render(rows, queries.load_abis(connection), site_url)
        )
        recent, ever = queries.downloads(connection, package)
    return {
        **document,
        "skip": rows.skip,
        "aliases": rows.aliases,
        "downloads_recent": recent,
        "downloads_all": ever,
    }


def version_of(versions: list[str], given: str) -> str | None:
    """The version with exactly this text, else the only version that PEP 440 calls equal to it."""
    if given in versions:
        return given
    same = [version for version in versions if project.same_version(version, given)]
    return same[0] if len(same) == 1 else None
