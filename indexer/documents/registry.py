"""The kinds of documents that there are, in the order in which they are written.

A kind that speaks of what other documents say comes after those.
"""

from __future__ import annotations

from .counters import Counters
from .failures import Failures
from .kind import Kind, PackageDocument, PeriodicKind, TreeDocument
from .project import Project
from .status import Status

KINDS: tuple[Kind, ...] = (Project(), Counters(), Failures(), Status())
"""Every kind."""


def of_packages() -> list[PackageDocument]:
    """The kinds that have a document for each package."""
    return [kind for kind in KINDS if isinstance(kind, PackageDocument)]


def marked() -> list[PackageDocument]:
    """Those of them that are written when a package is marked."""
    return [kind for kind in of_packages() if not isinstance(kind, PeriodicKind)]


def periodic() -> list[PeriodicKind]:
    """The kinds that are written when their version has changed."""
    return [kind for kind in KINDS if isinstance(kind, PeriodicKind)]


def of_trees() -> list[TreeDocument]:
    """The kinds whose files speak of more than one package."""
    return [kind for kind in KINDS if isinstance(kind, TreeDocument)]


def roots() -> list[str]:
    """The directories of the output tree that have a directory for each package."""
    return list(dict.fromkeys(kind.root for kind in of_packages()))


def linked_roots() -> list[str]:
    """Those of them where other spellings of a package's name are links."""
    return list(dict.fromkeys(kind.root for kind in of_packages() if kind.linked))
