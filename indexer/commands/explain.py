"""`piw-indexer explain`: the state of a package, whether it is right, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.table import Table
from rich.text import Text

from ..ask.explain import explain as gather
from ..base import clock, options, printable
from ..base.bar import bar
from ..base.console import console
from ..base.directories import JOURNAL, refuse_missing
from ..base.privileges import as_owner


@click.command()
@click.argument("package")
@options.configuration_to_look
@options.option("state-dir")
@options.option("output-path")
@options.option("site-url")
@options.flag("json")
@as_owner
def explain(package: str, state_dir: Path, output_path: Path, site_url: str, as_json: bool) -> None:
    """Explain what the index knows about a package, what is published and what is pending.

    Ends with a verdict, and what to do.
    """
    refuse_missing(state_dir, JOURNAL)
    with bar("reading the journal") as progress:
        found = gather(state_dir, output_path, site_url.rstrip("/"), package, clock.now(), progress)
    if as_json:
        printable.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    screen = console()
    found = printable.facts(found)
    screen.print(_facts(found))
    well = found["known"] and found["pending"] is None and not found["remedy"]
    screen.print(Text(f"\n{found['verdict']}", style="bold green" if well else "bold yellow"))
    if found["remedy"]:
        screen.print(Text(f"  what to do: {found['remedy']}"))


def _facts(found: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))

    def row(name: str, value: object) -> None:
        table.add_row(Text(name, style="bold"), Text(str(value), overflow="fold"))

    row("package", found["package"])
    if found["known"]:
        row("shown as", found["name"])
        if found["skip"]:
            row("skipped", found["skip"])
        counts = found["counts"]
        has = (
            printable.many(number, part.removesuffix("s").replace("_", " "))
            for part, number in counts.items()
        )
        row("index has", ", ".join(has))
        failure = found["last_failure"]
        if failure is not None:
            place = f"build {failure['build_id']} of {failure['version']} on {failure['abi_tag']}"
            row("last failure", f"{place}: {failure['reason'] or 'the reason is not known'}")
            row("", f"its log is {failure['log_url']}")
            if failure["succeeded"]:
                row("", f"build {failure['succeeded']} has succeeded there since")
        for alias, wrong in found["links"].items():
            row("alias", f"{alias}, {wrong or 'its link is right'}")
    else:
        row("index has", "no such package")
    last = found["last_message"]
    if last is not None:
        row("last message", f"{last['at']}  {last['words']}  ({last['origin']})")
    for words in found["refused"]:
        row("quarantine", words)
    pending = found["pending"]
    if pending is None:
        row("pending", "nothing")
    else:
        since = f" since {pending['since']}" if pending["since"] else ""
        row("pending", f"serial {pending['serial']}{since}; it waits {pending['waits']}")
    for document in filter(None, [found["document"], *found["documents"]]):
        row("document", document["path"])
        if document["exists"] and document["modified"]:
            row("", f"{document['size']:,} bytes, written {document['modified']}")
        if found["known"] or document["exists"]:
            row("", document["difference"] or "as the index has it")
        else:
            row("", "it is not there")
    recent, ever = found["downloads"]
    row("downloads", f"{recent:,} in the last 30 days, {ever:,} ever")
    if found["counters"] is not None and found["counters"] != found["downloads"]:
        row("", "{:,} and {:,} in packages.json".format(*found["counters"]))
    return table
