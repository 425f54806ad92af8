"""What the index knows of a package, what is published of it, what is pending, and why.

It knows all kinds of documents by their interface only. Nothing is made in the state directory or
in the output tree.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

from ..base import database, filesystem, lock, names, printable, times
from ..base.directories import JOURNAL
from ..base.errors import JournalError, Problem
from ..base.progress import Progress
from ..check import differences
from ..documents import project, registry
from ..documents.kind import Moment, PeriodicKind, TreeDocument
from ..documents.publish import in_the_way, target_of, too_long
from ..index import pending, queries
from ..journal.reader import JournalReader
from ..messages.types import Failure
from . import lookup
from .history import Event, events, origin, refused


def explain(
    state_dir: Path,
    output_path: Path,
    site_url: str,
    given: str,
    now: times.Time,
    progress: Progress,
) -> dict[str, Any]:
    """All that can be said of a package.

    Args:
        site_url: without a slash at its end.
        given: any spelling of its name.
        now: for ages.
        progress: is called with how much of the journal was read.

    Returns:
        package, given, known, aliases, counts, last_failure, last_message, pending, document,
        documents, links, counters, refused, close, verdict and remedy; what does not apply is null
        or empty.
        `document` is that of the first kind, `documents` are those of the others; what a document
        about all packages says of this one has the name of its kind, as `counters`.

    Raises StateError if there is no index, or it cannot be read.
    """
    with closing(queries.open_reader(state_dir / queries.FILE)) as connection:
        package = lookup.package_of(connection, given) or names.canonical(given)
        with database.snapshot(connection):
            moment = Moment(connection, site_url, now)
            found_package = moment.package(package)
            rows = None if found_package is None else found_package.rows
            expected = [
                (kind, None if found_package is None else kind.render(found_package))
                for kind in registry.of_packages()
                if not (isinstance(kind, PeriodicKind) and kind.due(moment))
            ]
            mentioned = [
                (kind, indexed)
                for kind in registry.of_trees()
                if (indexed := kind.indexed(moment, package)) is not None
            ]
            serial = pending.serial(connection, package)
            downloads = queries.downloads(connection, package)
            applied = queries.applied_serial(connection)
        close = [] if rows is not None else lookup.close_to(connection, given)
    documents = [
        {"kind": kind.name, **_document(output_path, kind.path(package), content)}
        for kind, content in expected
        if names.is_canonical(package)
    ]
    links = _links(output_path, package, rows.aliases if rows else [])
    found: dict[str, Any] = {
        "given": given,
        "package": package,
        "known": rows is not None,
        "name": rows.name if rows else None,
        "skip": rows.skip if rows else None,
        "aliases": rows.aliases if rows else [],
        "counts": _counts(rows) if rows else {},
        "last_failure": _last_failure(rows) if rows else None,
        "downloads": list(downloads),
        "last_message": None,
        "deleted": None,
        "refused": [refusal.words for refusal in refused(state_dir / JOURNAL, package)],
        "pending": None,
        "document": documents[0] if documents else None,
        "documents": documents[1:],
        "links": {alias: problem.what for alias, problem in links.items()},
        **{kind.name: _mention(output_path, kind, package) for kind, _ in mentioned},
        "close": close,
        "held_by": lock.holder(state_dir),
    }
    builds = [build[0] for build in rows.builds] if rows else []
    _from_the_journal(state_dir, package, applied, builds, found, progress)
    if serial is not None:
        found["pending"] = _mark(state_dir, serial, found["held_by"], now)
    found["verdict"], found["remedy"] = _verdict(found, documents, links, mentioned)
    return found


def _counts(rows: queries.Project) -> dict[str, int]:
    return {
        "versions": len(rows.versions),
        "builds": len(rows.builds),
        "files": len(rows.files),
        "earlier_contents": len(rows.contents),
    }


def _last_failure(rows: queries.Project) -> dict[str, Any] | None:
    """The last build that failed, why, and the one that has succeeded since; None: none failed."""
    failed = [build for build in rows.builds if build[0] > 0 and not build[3]]
    if not failed:
        return None
    build_id, version, abi_tag, _, _, built_at, _, category, detail = max(failed)
    later = [build[0] for build in rows.builds if build[1:3] == (version, abi_tag) and build[3]]
    return {
        "build_id": build_id,
        "version": version,
        "abi_tag": abi_tag,
        "built_at": built_at,
        "reason": category and str(Failure(category, detail)),
        "log_url": project.log_url(build_id),
        "succeeded": max((number for number in later if number > build_id), default=None),
    }


def _from_the_journal(
    state_dir: Path,
    package: str,
    applied: int,
    builds: list[int],
    found: dict[str, Any],
    progress: Progress,
) -> None:
    last: Event | None = None
    named = None
    for event in events(state_dir / JOURNAL, package, None, progress, builds):
        if event.serial is not None and event.serial <= applied:
            last = event
            named = event if event.what != "SETABIS" else named
    if last is not None and (found["known"] or named is not None):
        found["last_message"] = _message(last)
    if named is not None and named.what == "DELPKG" and not found["known"]:
        found["deleted"] = _message(named)


def _message(event: Event) -> dict[str, Any]:
    return {
        "serial": event.serial,
        "at": times.to_sql(event.at),
        "msg": event.what,
        "words": event.words,
        "origin": origin(event),
    }


def _mark(state_dir: Path, serial: int, held_by: str, now: times.Time) -> dict[str, Any]:
    """The mark of a package, since when, and what it waits for."""
    reader = JournalReader(state_dir / JOURNAL)
    try:
        rows = reader.read(serial - 1, 1)
    except JournalError:
        rows = []  # archived
    finally:
        reader.close()
    at = rows[0].message.at if rows and rows[0].serial == serial else None
    if held_by:
        waits = (
            "for the daemon, which writes it when it was quiet for --settle seconds, after"
            " --max-delay at the latest, and tries again where that failed"
        )
    else:
        waits = "for somebody to write it: no daemon runs"
    return {
        "serial": serial,
        "since": None if at is None else times.to_sql(at),
        "seconds": None if at is None else round((now - at) / times.SECOND, 1),
        "waits": waits,
    }


def _document(output_path: Path, document: str, expected: bytes | None) -> dict[str, Any]:
    """A published document, and how it differs from what the index says."""
    path = f"{output_path}/{document}"
    found: dict[str, Any] = {
        "path": printable.utf8(path),
        "exists": False,
        "modified": None,
        "size": None,
    }
    try:
        with open(filesystem.open_regular(path, os.O_RDONLY), "rb") as file:
            content = file.read(filesystem.MAX_DOCUMENT)
            status = os.fstat(file.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return {**found, "difference": "" if expected is None else "it is not there"}
    except OSError as error:
        return {**found, "exists": True, "difference": f"it cannot be read: {error.strerror}"}
    found |= {
        "exists": True,
        "modified": times.to_sql(status.st_mtime_ns // 1000),
        "size": status.st_size,
    }
    if expected is None:
        return {**found, "difference": "it should not be there"}
    if content == expected:
        return {**found, "difference": ""}
    return {**found, "difference": f"it {differences.content(content, expected)}"}


def _links(output_path: Path, package: str, aliases: list[str]) -> dict[str, Problem]:
    """What is wrong with each alias; an empty problem if nothing is."""
    fix = "stop the daemon and run `piw-indexer check --fix`"
    found = {}
    for alias in aliases:
        path = output_path / "project" / alias
        if too_long(alias):
            found[alias] = Problem("no file can have so long a name")
            continue
        try:
            target = target_of(os.readlink(path))
        except FileNotFoundError:
            found[alias] = Problem("it is not there", fix)
            continue
        except OSError:
            target = None
        if target == package:
            found[alias] = Problem("")
        elif target is not None:
            found[alias] = Problem(f"it leads to {target}", fix)
        else:
            move = f"move {path} away, if nobody needs it; then {fix}"
            found[alias] = Problem(in_the_way(str(path)), move)
    return found


def _mention(output_path: Path, kind: TreeDocument, package: str) -> Any:
    """What a published document about all packages says of one; None if it says nothing."""
    try:
        content = filesystem.read(output_path / kind.path, filesystem.MAX_DOCUMENT)
    except OSError:
        return None
    return kind.published(content, package)


def _verdict(
    found: dict[str, Any],
    documents: list[dict[str, Any]],
    links: dict[str, Problem],
    mentioned: list[tuple[TreeDocument, Any]],
) -> tuple[str, str]:
    """The state in a sentence, and what to do."""
    package, mark = found["package"], found["pending"]
    write = "" if found["held_by"] else "start the daemon, or run `piw-indexer write`"
    if not found["known"]:
        if mark is not None:
            return f"{package} is gone, and what is published of it will go, too.", write
        if any(document["exists"] for document in documents):
            return (
                f"{package} is not a package, but has a document.",
                "stop the daemon and run `piw-indexer check --fix`, which removes it",
            )
        if found["deleted"] is not None:
            return (
                f"{package} was deleted {found['deleted']['at']}"
                f" ({found['deleted']['origin']}), and nothing of it is published.",
                "",
            )
        if found["refused"]:
            return (
                f"No message about {package} was accepted: {len(found['refused'])} wait in the"
                " quarantine.",
                "look at them with `piw-indexer quarantine`",
            )
        meant = f"did you mean {' or '.join(found['close'])}?" if found["close"] else ""
        return f"{package} was never seen here.", meant or "see whether the publisher sends it"
    if mark is not None:
        return f"{package} will be written again; what is published may be old.", write
    for document in documents:
        if not document["difference"]:
            continue
        return (
            f"{package} is published wrongly: {document['difference']}.",
            f"is {document['path']} on the right --output-path, and --site-url the daemon's?"
            " If so, stop the daemon and run `piw-indexer check --fix`",
        )
    for alias, problem in links.items():
        if problem.remedy:
            what = f"{package} is published, but for its alias {alias}: {problem.what}."
            return what, problem.remedy
    for kind, indexed in mentioned:
        if found[kind.name] != indexed:
            return (
                f"{package} is published as the index has it; {kind.path} has other {kind.name}.",
                f"the daemon writes them {kind.when}"
                if found["held_by"]
                else "run `piw-indexer write`",
            )
    return f"{package} is published as the index has it.", ""
