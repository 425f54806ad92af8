"""`piw-indexer check`: journal, index and documents against each other."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click
import orjson

from ..base import clock, notes, options, printable, times
from ..base.bar import bar
from ..base.directories import CHECK, JOURNAL, refuse_missing
from ..base.errors import IndexerError, PublishError, StateError
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..base.systemd import Notifier
from ..check.differences import Difference, Part, Sort
from ..check.documents import Documents, mark_to_write
from ..check.index import check_index
from ..check.journal import check_checkpoints, check_journal
from ..check.resume import Run, StepProgress
from ..documents.publish import Publisher
from ..index import queries
from ..journal import reader as journal_reader
from ..state.state import State
from ..watch.notes import Check as CheckNote
from .write import publish, written

_MAX_NAMED = 20
"""Differences with one label that are named."""


@click.command()
@options.configuration
@options.state_to_write
@options.option("output-path")
@options.option("site-url")
@options.flag("fix")
@options.flag("fresh")
@options.flag("json")
@as_owner
def check(
    state_dir: Path, output_path: Path, site_url: str, fix: bool, fresh: bool, as_json: bool
) -> int:
    """Compare journal, index and documents, and report what differs."""
    refuse_missing(state_dir, JOURNAL)
    publisher = Publisher(output_path)
    site_url = site_url.rstrip("/")
    against = [_journal_id(state_dir), os.path.realpath(output_path), site_url]
    run = Run(state_dir, against, fresh)
    report = _Report(run, as_json)
    with Interruption(signal.SIGINT, signal.SIGTERM) as interruption:
        return _run(state_dir, publisher, site_url, run, report, fix, interruption)


def _run(
    state_dir: Path,
    publisher: Publisher,
    site_url: str,
    run: Run,
    report: _Report,
    fix: bool,
    interruption: Interruption,
) -> int:
    try:
        # Only one process may repair; State also brings the index up to date.
        state = State(state_dir, "check", clock.now) if fix else None
        if run.resumed:
            report.say(f"Going on with the check of {times.to_rfc3339(run.started)}.")
        status = _check(state_dir, publisher, site_url, run, report, state, interruption)
        report.end(state_dir)
        return status
    except BaseException:  # a signal, too: `status` must not show what an older check found
        report.end(state_dir, finished=False)
        raise
    finally:
        run.save(now=True)
        run.close()


def _check(
    state_dir: Path,
    publisher: Publisher,
    site_url: str,
    run: Run,
    report: _Report,
    state: State | None,
    interruption: Interruption,
) -> int:
    fix = state is not None
    try:
        with _watched("journal", interruption) as progress:
            damaged = report.take(check_journal(state_dir, run, progress))
        if damaged:
            raise StateError(
                f"check the rest of {state_dir}",
                "the journal is damaged",
                "restore it from a backup; the index and the documents can wait. Without one,"
                " `piw-indexer rebuild --salvage` continues with what can be read",
            )
        unusable = report.take(check_checkpoints(state_dir))
        differing = 0
        if run.index is None:
            with _watched("index", interruption) as progress:
                differing = report.take(check_index(state_dir, run, progress))
            if not differing:
                run.index = report.serial(state_dir)
                run.save(now=True)
        if differing and state is not None:
            state.close()
            state = None
            with bar("rebuilding") as advance:
                state = State(state_dir, "check", clock.now, advance, rebuild=True)
            report.fixed += differing
            report.say(f"index: rebuilt from the journal; {differing} rows or faults differed")
        if differing and state is None:
            report.say("The documents were not compared with an index that differs.")
            report.say("What to do: stop the daemon, and run `piw-indexer check --fix`.")
            return 1
        with _watched("documents", interruption) as progress:
            documents = Documents(state_dir, publisher, site_url)
            wrong = report.take_documents(documents.every(run, progress))
        left = []
        if state is not None:
            left = _repair(state, publisher, site_url, report, wrong)
        if unusable:
            report.say("Restore the checkpoints from a backup, or make a new one and remove them.")
            return 1
        if left:
            report.say("What to do: see what is in the way (ls -l), then run it again.")
            return 1
        if not wrong and not differing:
            report.say("No differences.")
            return 0
        if fix:
            report.say("Repaired.")
            return 0
        report.say("What to do: stop the daemon, and run `piw-indexer check --fix`.")
        return 1
    finally:
        if state is not None:
            state.close()


def _repair(
    state: State,
    publisher: Publisher,
    site_url: str,
    report: _Report,
    wrong: list[Difference],
) -> list[Difference]:
    """Write, link and remove what differs; what is right keeps even its time.

    Returns:
        What differs still.
    """
    mark_to_write(state.connection, wrong)
    for difference in wrong:
        if difference.sort is Sort.MODE:
            try:
                publisher.set_mode(difference.path)
            except PublishError as error:
                report.say(f"not repaired: {error}")
    changed = publish(state, publisher, site_url, None)
    if not report.as_json:
        printable.echo(written(publisher, changed))
    documents = Documents(state.directory, publisher, site_url, alone=True)
    left = list(documents.remaining(wrong))
    # By sort, and whether it is of a package.
    repaired, unrepaired = (
        Counter((difference.sort, difference.package != "") for difference in differences)
        for differences in (wrong, left)
    )
    repaired -= unrepaired
    done = {sort: repaired[sort, True] for sort in Sort}
    done[Sort.MODE] += repaired[Sort.MODE, False]
    for sort, noun, what in (
        (Sort.DOCUMENT, "document", "written"),
        (Sort.LINK, "link", "made"),
        (Sort.STRAY, "stray", "removed"),
        (Sort.MODE, "mode", "set"),
    ):
        if done[sort]:
            report.say(f"documents: {printable.many(done[sort], noun)} {what}")
    for line in _rewritten(publisher, wrong, left):
        report.say(f"documents: {line} written")
    report.fixed += repaired.total()
    for difference in left:
        report.say(f"not repaired: {difference}")
    return left


def _rewritten(
    publisher: Publisher, wrong: list[Difference], left: list[Difference]
) -> Iterator[str]:
    """The files that speak of more than one package and were written, with their copies."""
    files, unwritten = (
        {
            difference.path.removesuffix(".gz")
            for difference in some
            if difference.sort is Sort.DOCUMENT and not difference.package
        }
        for some in (wrong, left)
    )
    for path in sorted(files - unwritten):
        copied = os.path.lexists(publisher.path(f"{path}.gz"))
        yield f"{path} and {path}.gz" if copied else path


def _journal_id(state_dir: Path) -> str:
    try:
        reader = journal_reader.JournalReader(state_dir / JOURNAL)
    except IndexerError:
        return ""  # what is wrong with it, the check will say
    with closing(reader):
        return reader.journal_id


@contextmanager
def _watched(description: str, interruption: Interruption) -> Iterator[StepProgress]:
    """A bar on a terminal for each thing that is done, and a line for systemd."""
    notifier = Notifier()
    notified = -1.0
    with bar(description) as advance:

        def progress(what: str, done: int, total: int) -> None:
            nonlocal notified
            interruption.obey()
            advance(done, total)
            if clock.monotonic() - notified >= 1.0:
                notified = clock.monotonic()
                notifier.notify(STATUS=f"checking, {what}: {done} of {total}")

        yield progress


class _Report:
    """What is printed, and counted.

    Args:
        as_json: print one JSON document at the end, nothing before.
    """

    def __init__(self, run: Run, as_json: bool) -> None:
        self._run = run
        self.as_json = as_json
        self._counts: Counter[tuple[Part, str]] = Counter()  # by label
        self._named: list[Difference] = []
        self._said: list[str] = []
        self.fixed = 0

    def say(self, line: str) -> None:
        """Print a line; with --json it is one of the document's."""
        self._said.append(line)
        if not self.as_json:
            printable.echo(line)

    def take(self, found: Iterable[Difference]) -> int:
        """Print differences, not too many with one label; how many there are."""
        before = self._counts.copy()
        for difference in found:
            self._name(difference)
        new = self._counts - before
        for (part, label), count in new.items():
            if count > _MAX_NAMED:
                self.say(f"{part}: {label}: {count - _MAX_NAMED} more, {count} in all")
        return new.total()

    def take_documents(self, found: Iterable[Difference]) -> list[Difference]:
        """Likewise, with those from before an interruption; all of them."""

        def remembered() -> Iterator[Difference]:
            yield from list(self._run.found)
            for difference in found:
                self._run.found.append(difference)
                yield difference

        self.take(remembered())
        return list(self._run.found)

    def _name(self, difference: Difference) -> None:
        key = difference.part, difference.label
        self._counts[key] += 1
        if self._counts[key] <= _MAX_NAMED:
            self._named.append(difference)
            if not self.as_json:
                printable.echo(str(difference))

    def serial(self, state_dir: Path) -> int:
        try:
            connection = queries.open_reader(state_dir / queries.FILE)
        except IndexerError:
            return 0
        try:
            return queries.applied_serial(connection)
        except sqlite3.Error:
            return 0
        finally:
            connection.close()

    def end(self, state_dir: Path, *, finished: bool = True) -> None:
        """Leave the result for `status`, and print it if that is wanted."""
        note = CheckNote(
            at=clock.now(),
            finished=finished,
            serial=self._run.index or self.serial(state_dir),
            differences=self._counts.total(),
            started=self._run.started,
            fixed=self.fixed,
        )
        notes.leave(state_dir / CHECK, note)
        if finished:
            self._run.finish()
        if self.as_json:
            result = notes.plain(note)
            result["counts"] = {
                f"{part}: {label}" if label else str(part): count
                for (part, label), count in sorted(self._counts.items())
            }
            result["found"] = [difference.as_data() for difference in self._named]
            result["said"] = self._said
            printable.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2))
