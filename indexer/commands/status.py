"""`piw-indexer status`: how it stands, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table
from rich.text import Text

from .. import clock, config, farm_screen
from ..progress import console
from ..status import gather


@click.command()
@config.configuration
@config.option("state-dir")
@config.flag("json")
def status(state_dir: Path, as_json: bool) -> None:
    """How it stands: serials, feeds, what is pending, what was refused."""
    found = gather(state_dir, clock.now())
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    screen = console()
    screen.print(_summary(found))
    if found["feeds"]:
        screen.print(_feeds(found["feeds"]))
    if found["farm"] is not None and found["farm"]["slaves"]:
        screen.print(farm_screen.slaves(found["farm"], screen.width if screen.is_terminal else 100))
    for problem in found["problems"]:
        screen.print(Text(f"! {problem}", style="red"))
    if not found["problems"]:
        screen.print(Text("All is well.", style="green"))


def _summary(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    live = found["daemon"]

    def row(name: str, value: object) -> None:
        table.add_row(Text(name, style="bold"), Text(str(value)))

    row("state", found["state_dir"])
    row("held by", found["held_by"] or "nobody: no daemon runs")
    row("serial", f"{found['serial']:,} journaled, {found['applied_serial']:,} applied")
    row("pending", f"{found['pending']:,} documents to write")
    if live:
        row("rate", f"{live['rate']:,.0f} messages/s")
        row("published", f"{live['written']:,} documents, last at {live['last_published']}")
        row("packages.json", f"last written at {live['counters_published']}")
        if "db_queue" in live:
            asking = live["db_queue"]
            row(
                "master",
                f"{asking['asked']:,} packages asked for, {asking['taken']:,} were different,"
                f" {asking['due']:,} waiting",
            )
        if "log_queue" in live:
            logs = live["log_queue"]
            passed = f", {logs['forwarded']:,} passed on" if logs["forward"] else ""
            row(
                "log queue",
                f"{sum(logs['counted'].values()):,} entries{passed},"
                f" {logs['waiting_for_master']:,} waiting for the master",
            )
    row("quarantined", f"{found['quarantined']:,}")
    counts = found["counts"]
    names = {"download_counts": "packages with downloads"}
    row("index", ", ".join(f"{n:,} {names.get(table, table)}" for table, n in counts.items()))
    row(
        "downloads",
        f"{found.get('downloads', 0):,} counted, {found['not_a_wheel']:,} of what is no wheel",
    )
    if found["farm"] is not None:
        row("farm", farm_screen.summary(found["farm"]))
    row("journal", f"{found['journal_bytes'] / 2**20:,.1f} MiB")
    return table


def _feeds(feeds: list[dict[str, Any]]) -> Table:
    table = Table(title="feeds", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("feed", "epoch", "accepted", "behind", "silent for", "state"):
        table.add_column(column, justify="left" if column in ("feed", "state") else "right")
    for feed in feeds:
        lag, silent = feed["lag"], feed["silent_seconds"]
        table.add_row(
            feed["feed"],
            str(feed["epoch"]),
            f"{feed['serial']:,}",
            "?" if lag is None else f"{lag:,}",
            "?" if silent is None else f"{silent:.0f} s",
            Text("broken", style="red") if feed["broken"] else "ok",
        )
    return table
