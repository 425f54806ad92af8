"""`piw-indexer demo`: a simulated farm and the daemon."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from ..base import clock, database, places, printable, times
from ..base import options as config
from ..base.console import PrintableConsole
from ..base.directories import JOURNAL
from ..base.errors import UsageError
from ..base.interruption import Interruption
from ..base.privileges import become_owner
from ..demo.demo import LOG, Demo, Options, Seen
from ..demo.simulation import Farm
from ..index import queries
from ..screens import top as screen

DAYS = 35
"""Days of the farm's life: more than the 30-day window of the counters."""

FAILURES = 0.15
"""Share of the builds that fail, so that there are failures to look at."""

LIVE_SECONDS = 60.0
UNWATCHED_SECONDS = 6.0
LINE_INTERVAL = 1.0
SHOWN = 5
"""Rows of an answer that are printed."""

_DIRECTORY = config.PathType(file_okay=False)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Query(NamedTuple):
    """A question to the index."""

    title: str
    sql: str


QUERIES = (
    Query(
        "The status of numpy 2.2.6 on every ABI",
        "SELECT abi_tag, status, build_id FROM build_status"
        " WHERE package = 'numpy' AND version = '2.2.6'",
    ),
    Query(
        "What failed in the last 24 hours",
        "SELECT package, version, abi_tag, round(duration) AS seconds, log_url FROM build_failures"
        " WHERE built_at > datetime('now', '-1 day')",
    ),
    Query(
        "The 20 most downloaded packages",
        "SELECT * FROM top_downloads LIMIT 20",
    ),
)


def _option(name: str, **settings: Any) -> Callable[[_Function], _Function]:
    # Not an option of `config`: the configuration of a server must not apply to a simulation.
    return click.option(
        f"--{name}",
        envvar=config.PREFIX + name.upper().replace("-", "_"),
        show_envvar=True,
        **settings,
    )


def _require_empty(directory: Path, option: str) -> None:
    """Make a directory, or check that it is empty: simulated messages must not mix with real ones.

    Raises UsageError if it is not empty, or cannot be made.
    """
    operation = f"run the demo in {directory}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        entry = next(directory.iterdir(), None)
    except OSError as error:
        raise UsageError(operation, error.strerror or error, f"name another {option}") from error
    if entry is not None:
        raise UsageError(
            operation,
            f"it is not empty: there is {entry.name} in it",
            f"name an empty {option}, or leave it out",
        )


@click.command()
@_option("state-dir", type=_DIRECTORY, help="An empty directory. Default: a temporary one.")
@_option("output-path", type=_DIRECTORY, help="An empty directory. Default: a temporary one.")
@_option(
    "packages",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Number of packages.",
)
@_option(
    "downloads",
    type=click.IntRange(min=0),
    default=30_000,
    show_default=True,
    help="Number of downloads.",
)
@_option("seed", type=int, default=0, show_default=True, help="Another seed makes another farm.")
@_option(
    "rate",
    type=click.FloatRange(min=0, min_open=True),
    default=200.0,
    show_default=True,
    help="Messages a second of the live part, on average.",
)
@_option(
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help=f"How long the live part lasts at most. Default: {LIVE_SECONDS:g}, or"
    f" {UNWATCHED_SECONDS:g} if the output is not a terminal.",
)
def demo(
    state_dir: Path | None,
    output_path: Path | None,
    packages: int,
    downloads: int,
    seed: int,
    rate: float,
    seconds: float | None,
) -> None:
    """Run a simulated farm and the daemon, for a first look.

    The farm's history is sent as fast as possible, its last days at --rate. The demo ends by
    itself, or at Ctrl-C. It keeps its state and documents, by default in a temporary directory. It
    does not read configuration files.
    """
    console = PrintableConsole()
    watched = (
        sys.stdout.isatty()
        and not console.is_dumb_terminal
        and console.encoding.lower().startswith("utf")
    )
    if seconds is None:
        seconds = LIVE_SECONDS if watched else UNWATCHED_SECONDS
    if state_dir is not None:
        become_owner(state_dir)
    for directory, option in ((state_dir, "--state-dir"), (output_path, "--output-path")):
        if directory is not None:
            _require_empty(directory, option)
    if state_dir is not None and output_path is not None:
        places.refuse_overlap(state_dir, output_path)
    kept = None
    if state_dir is None or output_path is None:
        kept = Path(tempfile.mkdtemp(prefix="piw-demo-"))
        state_dir = state_dir or kept / "state"
        output_path = output_path or kept / "www"
    farm = Farm(
        seed=seed,
        packages=packages,
        failure_rate=FAILURES,
        downloads=downloads,
        days=DAYS,
        now=times.to_datetime(clock.now()),
    )
    options = Options(farm, rate, max(1, round(rate * seconds)), state_dir, output_path)
    title = f"a simulated farm of {packages:,} packages, seed {seed}"
    with Interruption(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as interruption:
        last = _play(options, interruption, console, watched, title)
    _report(options, last, kept)


def _play(
    options: Options,
    interruption: Interruption,
    console: PrintableConsole,
    watched: bool,
    title: str,
) -> Seen | None:
    """Play the demo; returns what it showed last."""
    last: list[Seen] = []
    with _view(console, watched) as view:

        def watch(seen: Seen) -> None:
            last[:] = [seen]
            view(seen)

        demo = Demo(options, title, watch, lambda: bool(interruption.wished))
        try:
            with demo:
                if not watched:
                    command = shlex.join(demo.command)
                    printable.echo(f"{title}; the daemon is: piw-indexer {command}")
                demo.play()
        finally:
            demo.kill()  # a second Ctrl-C may have come before the block could do it
    if watched and last:
        console.print(_frame(last[0], console))
    return last[0] if last else None


def _frame(seen: Seen, console: PrintableConsole) -> RenderableType:
    status = printable.facts(seen.status)
    return screen.frame(status, seen.rates, console.height, seen.story)


@contextmanager
def _view(console: PrintableConsole, watched: bool) -> Iterator[Callable[[Seen], None]]:
    """What shows the demo: the live screen, or one line a second."""
    if watched:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            yield lambda seen: live.update(_frame(seen, console), refresh=True)
        return
    next_line = 0.0

    def write(seen: Seen) -> None:
        nonlocal next_line
        if seen.story.elapsed >= next_line or seen.story.phase in ("done", "interrupted"):
            printable.echo(seen.line())
            sys.stdout.flush()
            next_line = seen.story.elapsed + LINE_INTERVAL

    yield write


def _report(options: Options, last: Seen | None, kept: Path | None) -> None:
    """Print where everything is, and what the index answers."""
    console = PrintableConsole(soft_wrap=True)

    def heading(text: str) -> None:
        console.print()
        console.print(Text(text, style="bold"))

    if last is not None:
        console.print()
        console.print(
            f"{last.status.applied_serial:,} messages in {last.story.elapsed:.0f} s,"
            f" {last.written:,} documents"
            " written. The daemon has stopped cleanly."
        )
    index_path = options.state_dir / queries.FILE
    output_path = options.output_path
    heading("Where it is")
    documents = (
        output_path / "project" / name / "json" / "index.json" for name in ("numpy", "gpiozero")
    )
    for name, path in (
        ("journal", next(iter(sorted((options.state_dir / JOURNAL).glob("*.db"))), None)),
        ("index", index_path),
        ("a document", next((path for path in documents if path.exists()), None)),
        ("downloads", output_path / "packages.json"),
        ("daemon's log", options.state_dir / LOG),
    ):
        if path is not None and path.exists():
            console.print(f"  {name:13} {path}")
    if not index_path.exists():
        return
    for query in QUERIES:
        heading(query.title)
        command = ["sqlite3", "-readonly", "-header", "-column", str(index_path)]
        console.print(Text(f'  $ {shlex.join(command)} "{query.sql}"', style="cyan"))
        names, *rows = _answer(command, query.sql)
        for row in (names, *rows[:SHOWN]):
            console.print(Text(f"  {row}"))
        if len(rows) > SHOWN:
            console.print(Text(f"  ... and {len(rows) - SHOWN} more", style="dim"))
    heading("Go on from here")
    program = sys.argv[0] if Path(sys.argv[0]).name == "piw-indexer" else "piw-indexer"
    places = f"--state-dir={shlex.quote(str(options.state_dir))}"
    console.print(f"  {program} status {places}")
    console.print(f"  {program} check {places} --output-path={shlex.quote(str(output_path))}")
    if kept is not None:
        console.print(f"  rm -r {shlex.quote(str(kept))}")


def _answer(command: list[str], sql: str) -> list[str]:
    """The lines of an answer; the first has the header and its rule."""
    if shutil.which(command[0]):
        done = subprocess.run(
            [*command, sql],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return _headed(done.stdout.splitlines())
    return _python_answer(Path(command[-1]), sql)


def _python_answer(path: Path, sql: str) -> list[str]:
    """Likewise, where the command `sqlite3` is missing or too old for the index."""
    with closing(database.open_reader(path)) as connection, database.wrap_errors(f"ask {path}"):
        cursor = connection.execute(sql)
        values = [["" if value is None else str(value) for value in row] for row in cursor]
        names = [column[0] for column in cursor.description]
    widths = [max(map(len, column)) for column in zip(names, *values, strict=True)]
    rule = ["-" * width for width in widths]
    table = [names, rule, *values] if values else []
    return _headed(["  ".join(map(str.ljust, row, widths)) for row in table])


def _headed(lines: list[str]) -> list[str]:
    """The lines of a table; the first has the header and its rule."""
    if not lines:
        return ["nothing"]
    lines = [line.rstrip() for line in lines]
    return ["\n  ".join(lines[:2]), *lines[2:]]
