"""`piw-indexer reconcile`: the index against a running master, or against its database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import click

from ..base import clock, lock, names, options, printable
from ..base.bar import bar
from ..base.directories import JOURNAL, refuse_missing
from ..base.privileges import as_owner
from ..index import queries
from ..messages.entries import Entry
from ..piwheels.backfill.from_database import Beside, Taker
from ..piwheels.backfill.postgres import Source
from ..piwheels.backfill.reconcile import Difference, differences, locations
from ..state.state import State
from .master_options import Asking

AT_ONCE = 500
"""Packages whose files are moved together."""


@click.command()
@click.argument("packages", metavar="[PACKAGE]...", nargs=-1)
@options.configuration
@options.state_to_write
@options.grouped(Asking)
@options.flag("fix", "Accept the master's answers where they differ.")
@as_owner
def reconcile(
    packages: tuple[str, ...],
    state_dir: Path,
    asking: Asking,
    fix: bool,
) -> int:
    """Compare packages, or all packages, with a running master; exit status 1 if any differs.

    With --db-queue, the master is asked for one package at a time. With --dsn, only where files are
    served from is compared, in one query; `backfill --dsn` compares all that a database has.

    With --fix, the master's answers are accepted. The daemon must be stopped for that with
    --db-queue; with --dsn, it is handed them. Download counters and what a master does not report
    (such as durations) are not compared.
    """
    refuse_missing(state_dir, JOURNAL)
    dsn = asking.database("reconcile")
    wanted = [names.canonical(package) for package in packages]
    protection = asking.protection() if dsn is None else None
    different = fixed = 0
    with ExitStack() as opened:
        taker = opened.enter_context(_taker(state_dir, beside=dsn is not None)) if fix else None
        connection: sqlite3.Connection = (
            taker.connection
            if taker is not None
            else opened.enter_context(closing(queries.open_reader(state_dir / queries.FILE)))
        )
        progress = opened.enter_context(bar("packages"))
        found: Iterator[Difference]
        if protection is None:
            assert dsn is not None
            source = opened.enter_context(closing(Source(dsn, clock.now)))
            found = locations(connection, source, wanted, progress)
        else:
            asker = opened.enter_context(asking.asker(protection))
            found = differences(connection, asker, wanted, progress)
        fixes: list[Entry] = []
        for difference in found:
            different += 1
            _print(difference)
            if taker is not None and difference.fix is not None:
                fixes.append(difference.fix)
                if protection is not None or len(fixes) == AT_ONCE:
                    fixed += len(taker.take(fixes))
                    fixes = []
        if taker is not None and fixes:
            fixed += len(taker.take(fixes))
    if not different:
        printable.echo("No differences.")
    elif taker is not None:
        beside, left = isinstance(taker, Beside), isinstance(taker, Beside) and taker.left
        publishes = "" if beside else " `piw-indexer write` publishes them."
        printable.echo(f"Taken from the master: {fixed}.{publishes}")
        if fixed < different:
            again = " Of some of them the daemon has just heard: run it again." if left else ""
            printable.echo(f"Not repaired: {different - fixed}.{again}")
    return 1 if different > fixed else 0


@contextmanager
def _taker(state_dir: Path, beside: bool) -> Iterator[Taker]:
    """What takes the master's answers: the state, or a running daemon if that is possible."""
    taker: State | Beside
    if beside and lock.holder(state_dir).startswith("piw-indexer run "):
        taker = Beside(state_dir)
    else:
        taker = State(state_dir, "reconcile", clock.now)
    with closing(taker):
        yield taker


def _print(difference: Difference) -> None:
    for what in difference.what:
        said = f"{difference.package}: {what}" if difference.package else what
        printable.echo(printable.whole_line(said))
