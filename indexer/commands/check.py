"""`piw-indexer check`: journal, index and documents against each other."""

from __future__ import annotations

import io
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import click
import orjson

from ..base import clock, options, printable, times
from ..base.directories import JOURNAL, refuse_missing
from ..base.errors import IndexerError, PublishError, StateError
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..base.progress import bar
from ..base.systemd import Notifier
from ..check import check as checks
from ..check.differences import Difference
from ..check.resume import Run
from ..documents.publish import Publisher
from ..index import queries
from ..journal import reader as journal_reader
from ..state.state import State
from .write import publish_all

_NAMED = 20
"""Differences of one kind that are named."""


@click.command()
@options.configuration
@options.option("state-dir")
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
    publisher = Publisher(output_path, thorough=fix)
    site_url = site_url.rstrip("/")
    against = [_journal_id(state_dir), str(output_path.resolve()), site_url]
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
            damaged = report.take(checks.check_journal(state_dir, run, progress))
        if damaged:
            raise StateError(
                f"check the rest of {state_dir}",
                "the journal is damaged",
                "restore it from a backup; the index and the documents can wait. Without one,"
                " `piw-indexer rebuild --salvage` goes on with what can be read",
            )
        unusable = report.take(checks.check_checkpoints(state_dir))
        differing = 0
        if run.index is None:
            with _watched("index", interruption) as progress:
                differing = report.take(checks.check_index(state_dir, run, progress))
            if not differing:
                run.index = report.serial(state_dir)
                run.save(now=True)
        if differing and state is not None:
            state.close()
            state = None
            with bar("rebuilding") as advance:
                state = State(state_dir, "check", clock.now, advance, rebuild=True)
            report.fixed += differing
            report.say(f"index: made anew from the journal; {differing} rows or faults differed")
        if differing and state is None:
            report.say("The documents were not compared with an index that differs.")
            report.say("What to do: stop the daemon, and run `piw-indexer check --fix`.")
            return 1
        with _watched("documents", interruption) as progress:
            wrong = report.take_documents(
                checks.check_documents(state_dir, publisher, site_url, run, progress)
            )
        left = []
        if state is not None:
            left = _repair(state, publisher, site_url, report, wrong)
        if unusable:
            report.say("Restore the checkpoints from a backup, or make a new one and remove them.")
            return 1
        if left:
            report.say("What to do: see what stands in the way (ls -l), then run it again.")
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
    modes = [one for one in wrong if one.kind.endswith("mode")]
    for one in modes:
        try:
            publisher.set_mode(one.package)
        except PublishError as error:
            report.say(f"not repaired: {error}")
    touched = [one.package for one in wrong if one.package and one.kind != "mode"]
    counters = any(not one.package for one in wrong if one not in modes)
    checks.mark_for_repair(state.connection, touched, counters)
    with redirect_stdout(io.StringIO()) if report.as_json else nullcontext():
        publish_all(state, publisher, site_url, None)
    left = list(checks.look_again(state.directory, publisher, site_url, wrong))
    done = Counter(one.kind for one in wrong) - Counter(one.kind for one in left)
    modes_set = sum(count for kind, count in done.items() if kind.endswith("mode"))
    for count, what in (
        (done["document"], "documents written"),
        (done["link"], "aliases linked"),
        (done["stray"], "strays removed"),
        (modes_set, "modes set"),
    ):
        if count:
            report.say(f"documents: {count} {what}")
    if done["packages.json: document"]:
        report.say("documents: packages.json and packages.json.gz written")
    report.fixed += done.total()
    for one in left:
        report.say(f"not repaired: {one}")
    return left


def _journal_id(state_dir: Path) -> str:
    try:
        reader = journal_reader.JournalReader(state_dir / JOURNAL)
    except IndexerError:
        return ""  # what is wrong with it, the check will say
    try:
        return reader.journal_id
    finally:
        reader.close()


@contextmanager
def _watched(description: str, interruption: Interruption) -> Iterator[checks.Progress]:
    """A bar on a terminal for each thing that is done, and a line for systemd."""
    notifier = Notifier()
    told = -1.0
    with bar(description) as advance:

        def progress(what: str, done: int, total: int) -> None:
            nonlocal told
            interruption.obey()
            advance(done, total)
            if clock.monotonic() - told >= 1.0:
                told = clock.monotonic()
                notifier.notify(STATUS=f"checking, {what}: {done} of {total}")

        yield progress


class _Report:
    """What is printed, and counted.

    Args:
        run: the check.
        as_json: print one JSON document at the end, nothing before.
    """

    def __init__(self, run: Run, as_json: bool) -> None:
        self._run = run
        self.as_json = as_json
        self._counts: Counter[tuple[str, str]] = Counter()
        self._named: list[Difference] = []
        self._said: list[str] = []
        self.fixed = 0

    def say(self, line: str) -> None:
        """Print a line; with --json it is one of the document's."""
        self._said.append(line)
        if not self.as_json:
            printable.echo(line)

    def take(self, found: Iterable[Difference]) -> int:
        """Print differences, not too many of a kind; how many there are."""
        before = self._counts.copy()
        for one in found:
            self._name(one)
        new = self._counts - before
        for (part, kind), count in new.items():
            if count > _NAMED:
                self.say(f"{part}: {kind}: {count - _NAMED} more, {count} in all")
        return new.total()

    def take_documents(self, found: Iterable[Difference]) -> list[Difference]:
        """Likewise, with those of before an interruption; all of them."""
        every = list(self._run.found)

        def remembered() -> Iterator[Difference]:
            yield from list(every)
            for one in found:
                every.append(one)
                self._run.found.append(one)
                yield one

        self.take(remembered())
        return every

    def _name(self, one: Difference) -> None:
        key = one.part, one.kind
        self._counts[key] += 1
        if self._counts[key] <= _NAMED:
            self._named.append(one)
            if not self.as_json:
                printable.echo(str(one))

    def serial(self, state_dir: Path) -> int:
        """How far the index is."""
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
        result: dict[str, Any] = {
            "at": times.to_rfc3339(clock.now()),
            "started": times.to_rfc3339(self._run.started),
            "finished": finished,
            "serial": self._run.index or self.serial(state_dir),
            "differences": self._counts.total(),
            "fixed": self.fixed,
        }
        self._run.finish(result)
        if self.as_json:
            result["counts"] = {
                f"{part}: {kind}" if kind else part: count
                for (part, kind), count in sorted(self._counts.items())
            }
            result["found"] = [one._asdict() for one in self._named]
            result["said"] = self._said
            printable.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2))
