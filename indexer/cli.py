"""The command `piw-indexer`: what a user can type, and how it ends.

Results go to stdout, diagnostics to stderr. Exit status: 0 done, 1 `check` or `reconcile` found
differences, 2 usage or configuration, 3 the state is locked or unusable, 4 a peer did not answer,
or stdout could not be written.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import click

from . import __version__
from .base import log as journal_log
from .base import options, output, printable
from .base.errors import MAX_PART, IndexerError, OutputError

log = logging.getLogger(__name__)


SECTIONS: dict[str, dict[str, str]] = {
    "Run": {
        "run": "Run the daemon, which follows change feeds or a master and publishes.",
        "ingest": "Accept messages from JSON-lines files.",
        "write": "Publish the documents that wait to be written.",
        "demo": "Show a simulated farm and the daemon at work.",
    },
    "Look": {
        "status": "Say whether all is well, and if not, what to do.",
        "top": "Show the status on a live screen.",
        "farm": "Show what every build slave is doing, on a live screen.",
        "show": "Show the builds and files of a package or of one version.",
        "history": "Show what happened to a package and when.",
        "explain": "Explain why a package's document is as it is, and what to do if it is wrong.",
        "metrics": "Print, write or serve metrics for Prometheus.",
    },
    "Repair": {
        "check": "Compare journal, index and documents; --fix repairs them.",
        "rebuild": "Rebuild the index from the journal, then write the documents that differ.",
        "quarantine": "List, show, retry or dismiss refused messages.",
        "reconcile": "Compare the index with a running master; --fix accepts the master's answers.",
        "backup": "Copy the state to another directory while the daemon runs.",
        "checkpoint": "Make a verified copy of the index, so that old months can be archived.",
    },
    "Fill": {
        "backfill": "Fetch all packages and download counters from a master or its database.",
        "import-site": "Import packages and counters from the documents of a site.",
        "classify": "Find out from the logs of a master why builds failed.",
    },
    "Publish": {
        "publish": "Publish the messages of a file on a change feed.",
        "bridge": "Run the installed piwheels master, and publish its changes.",
    },
    "Set up": {
        "install": "Write systemd units and a configuration for this machine.",
        "keys": "Make a pair of keys for CURVE, or show its public key.",
    },
}
"""The commands in the order of the help."""

_SENTENCES = {name: sentence for section in SECTIONS.values() for name, sentence in section.items()}


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name; each is imported when it is called.

    Importing all of them takes half a second on a fast machine, and monitoring calls `status` every
    minute on a Raspberry Pi.
    """

    def __getitem__(self, name: str) -> click.Command:
        if name not in _SENTENCES:
            raise KeyError(name)
        attribute = name.replace("-", "_")
        command = getattr(import_module(f".commands.{attribute}", __package__), attribute)
        assert isinstance(command, click.Command)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_SENTENCES)

    def __len__(self) -> int:
        return len(_SENTENCES)

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError("the commands are fixed")

    def __delitem__(self, name: str) -> None:
        raise TypeError("the commands are fixed")


class _Group(click.Group):
    """The commands, in the help by section."""

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, _SENTENCES))
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])


@click.group(
    cls=_Group,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="piw-indexer")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option("-q", "--quiet", is_flag=True, help="Log only errors.")
def piw_indexer(verbose: bool, quiet: bool) -> None:
    """piwheels' JSON API, kept current by messages instead of queries.

    Every option can also be set in the environment (PIW_INDEXER_<OPTION>) and in the section
    [indexer] of piwheels' configuration files.
    """
    # Everybody may read documents, whatever the umask of the caller.
    click.get_current_context().meta[options.UMASK] = os.umask(0o022)
    journal_log.set_up(logging.ERROR if quiet else logging.DEBUG if verbose else None)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line, and exit."""
    output.guard()
    try:
        result = piw_indexer.main(arguments, prog_name="piw-indexer", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        if not isinstance(error, click.exceptions.NoArgsIsHelpError):  # its message is the help
            # It repeats arguments, and click does not allow assigning to it.
            vars(error)["message"] = printable.sentence(error.message, MAX_PART)
        said = io.StringIO()
        error.show(said)
        printable.echo(said.getvalue(), err=True, nl=False)
        sys.exit(error.exit_code)
    except IndexerError as error:
        if isinstance(error, OutputError):
            output.give_up_stdout()
        if journal_log.logs_to_journal():
            log.critical("%s", error, extra=journal_log.event("failed", status=error.exit_status))
        else:
            printable.warn(error)
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        printable.warn("interrupted")
        sys.exit(130)
    except output.ReaderLeftError:
        output.give_up_stdout()
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
