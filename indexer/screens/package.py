"""A package on a terminal: its build matrix, with why it fails, or one version in detail.

Pure functions from what `lookup.document` returns to something that rich can print.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ..base import names
from ..base.printable import many
from ..messages.types import Failure

Document = dict[str, Any]

SIGNS = {
    "success": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "error": ("!", "bold magenta"),
    "pending": ("…", "yellow"),
    "skip": ("–", "dim"),
}
"""The status of a build, its sign and style."""

_NO_FILE = "it was built, but no file fits: see their tags and Requires-Python"
"""Why a version has the status `error`."""

FIRST = 20
"""Versions that a terminal shows without `--all`."""


def abi_order(abi_tags: Sequence[str]) -> list[str]:
    """ABIs by version number: cp39 before cp311."""
    return sorted(abi_tags, key=lambda tag: (names.abi_version(tag) or (0, 0, ""), tag))


def matrix(document: Document, limit: int | None, *, signs: bool) -> RenderableType:
    """All versions on all ABIs, the newest first.

    Args:
        document: what `lookup.document` returned.
        limit: how many versions to show at most; None for all.
        signs: show a status as a sign with a legend, not as a word.
    """
    releases = document["releases"]
    shown = list(releases)[:limit]
    parts: list[RenderableType] = [_title(document)]
    if not releases:
        parts.append(Text("It has no versions.", style="yellow"))
        return Group(*parts)
    abis = abi_order(next(iter(releases.values()))["abis"])
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    # A word that somebody may copy is never cut.
    table.add_column("version", overflow="fold")
    table.add_column("released", no_wrap=True)
    for abi in abis:
        table.add_column(abi, justify="center" if signs else "left", no_wrap=True)
    table.add_column("files", justify="right", no_wrap=True)
    notes = any(_notes(releases[version]) for version in shown)
    if notes:
        table.add_column("")
    for version in shown:
        release = releases[version]
        cells: list[Text] = [
            Text(version, style="dim strike" if release["yanked"] else ""),
            Text(release["released"][:10], style="dim"),
            *(_status(release["abis"][abi]["status"], signs=signs) for abi in abis),
            Text(str(len(release["files"])) if release["files"] else ""),
        ]
        table.add_row(*cells, *([Text(_notes(release), style="dim")] if notes else []))
    parts += [Text(), table]
    left = len(releases) - len(shown)
    if left:
        parts.append(Text(f"and {left:,} older versions: --all shows them", style="dim"))
    if not abis:
        parts.append(Text("There is no active build ABI.", style="yellow"))
    elif signs:
        parts += [Text(), _legend()]
    newest = next(filter(lambda one: _was_tried(releases[one]), releases), None)
    if newest is not None and (why := _why(releases[newest])):
        what = f"Why {newest} fails; piw-indexer show {document['package']} {newest} says more:"
        parts += [Text(), Text(what), why]
    return Group(*parts)


def _was_tried(release: dict[str, Any]) -> bool:
    """Whether anybody has tried to build a version, on an ABI where it is not skipped."""
    return any(decided["status"] not in ("skip", "pending") for decided in release["abis"].values())


def _why(release: dict[str, Any]) -> Table | None:
    """Why a version fails, and on which ABIs; None if it does not fail."""
    failures = {build["build_id"]: build["failure"] for build in release["builds"]}
    found: dict[str, tuple[list[str], str]] = {}
    for abi in abi_order(release["abis"]):
        decided = release["abis"][abi]
        if decided["status"] in ("fail", "error"):
            is_error = decided["status"] == "error"
            reason = _NO_FILE if is_error else _reason(failures.get(decided["build_id"]))
            found.setdefault(reason, ([], decided["log_url"] or ""))[0].append(abi)
    if not found:
        return None
    table = _table("abi", "why it failed", "log")
    for reason, (abis, log_url) in found.items():
        table.add_row(Text(" ".join(abis)), Text(reason), Text(log_url, style="dim"))
    return table


def _reason(failure: dict[str, str] | None) -> str:
    return str(Failure(**failure)) if failure else "not known"


def _title(document: Document) -> Text:
    title = Text(document["name"], style="bold")
    if document["summary"]:
        title.append(f"  {document['summary']}", style="not bold")
    title.append(
        f"\n{many(document['downloads_recent'], 'download')} in the last 30 days,"
        f" {document['downloads_all']:,} ever",
        style="not bold",
    )
    for url in (document["pypi_url"], document["piwheels_url"]):
        title.append(f"\n{url}", style="not bold cyan")
    if document["skip"]:
        title.append(f"\nskipped: {document['skip']}", style="not bold yellow")
    return title


def _status(status: str, *, signs: bool) -> Text:
    sign, style = SIGNS[status]
    return Text(sign if signs else status, style=style)


def _legend() -> Text:
    legend = Text()
    for status, (sign, style) in SIGNS.items():
        legend.append(sign, style=style)
        legend.append(f" {status}   ", style="dim")
    return legend


def _notes(release: dict[str, Any]) -> str:
    notes = [kind for kind in ("yanked", "prerelease") if release[kind]]
    if release["skip_reason"]:
        notes.append(f"skipped: {release['skip_reason']}")
    return ", ".join(notes)


def details(document: Document, version: str) -> RenderableType:
    """One version: its status on each ABI, every attempt and why it failed, and the files."""
    release = document["releases"][version]
    title = Text(f"{document['name']} {version}", style="bold")
    notes = _notes(release)
    title.append(f"\nreleased {release['released']}", style="not bold")
    if notes:
        title.append(f"  {notes}", style="not bold yellow")
    attempts = {build["build_id"]: build for build in release["builds"]}
    abis = release["abis"]
    table = _builds(
        (abi, abis[abi], attempts.get(abis[abi]["build_id"], {})) for abi in abi_order(abis)
    )
    parts: list[RenderableType] = [title, Text(), table]
    decisive = {build["build_id"] for build in release["abis"].values()}
    other = [build for build in release["builds"] if build["build_id"] not in decisive]
    if other:
        parts += [
            Text(),
            Text("Other attempts:"),
            _builds((build["abi"], build, build) for build in other),
        ]
    reasons = [
        *(
            (one["build_id"], abi, _NO_FILE)
            for abi, one in abis.items()
            if one["status"] == "error"
        ),
        *(
            (build["build_id"], build["abi"], _reason(build["failure"]))
            for build in release["builds"]
            if build["status"] == "fail"
        ),
    ]
    if reasons:
        parts += [Text(), _reasons(reasons)]
    if not release["files"]:
        parts += [Text(), Text("no files")]
    for filename, file in release["files"].items():
        parts += [Text(), _file(filename, file)]
    return Group(*parts)


def _table(*columns: str) -> Table:
    # So narrow that they fit into 80 columns.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        right = column in ("build", "took", "slave")
        table.add_column(
            column,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right or column == "when",
        )
    return table


def _builds(builds: Iterable[tuple[str, dict[str, Any], dict[str, Any]]]) -> Table:
    """Builds.

    Args:
        builds: of each the ABI, what is decided for that ABI, and the attempt.
    """
    table = _table("abi", "status", "build", "took", "slave", "when", "log")
    for abi, decided, build in builds:
        duration = decided["duration"]
        table.add_row(
            Text(abi),
            _status(decided["status"], signs=False),
            _known(decided["build_id"]),
            _known(None if duration is None else f"{duration:.0f} s"),
            _known(build.get("slave_id")),
            Text((build.get("built_at") or "")[:16], style="dim"),
            _known(decided["log_url"]),
        )
    return table


def _reasons(reasons: list[tuple[int | None, str, str]]) -> Table:
    table = _table("build", "abi", "why it failed")
    for build_id, abi, reason in reasons:
        table.add_row(_known(build_id), Text(abi), Text(reason))
    return table


def _known(value: object) -> Text:
    return Text("" if value is None else str(value))


def _file(filename: str, file: dict[str, Any]) -> Text:
    text = Text(filename, style="bold")

    def row(name: str, value: object) -> None:
        text.append(f"\n  {name:7} ", style="not bold dim")
        text.append(str(value), style="not bold")

    row("size", f"{decimal(file['filesize'])} ({file['filesize']:,} bytes)")
    row("sha256", file["filehash"])
    row("tags", f"{file['file_abi_tag']} {file['platform']}, built on {file['builder_abi']}")
    requires = file["requires_python"]
    row("python", "not said" if requires is None else requires or '""')
    row("apt", " ".join(file["apt_dependencies"]) or "nothing that is not preinstalled")
    if file["pip_dependencies"]:
        row("pip", " ".join(file["pip_dependencies"]))
    row("url", file["file_url"])
    row("built", _built(file))
    for content in file["earlier"]:
        row(
            "earlier",
            f"{_built(content)}, {content['filesize']:,} bytes\n{'':10}{content['filehash']}",
        )
    return text


def _built(content: dict[str, Any]) -> str:
    """By which build a content was made, and when, as far as that is known."""
    build = (
        "a build that is not known"
        if content["build_id"] is None
        else f"build {content['build_id']}"
    )
    return f"by {build}" + (f", {content['built_at']}" if content["built_at"] else "")
