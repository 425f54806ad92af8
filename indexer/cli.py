"""The command `piw-indexer`: what a user can type, and how it ends.

Results go to stdout, diagnostics to stderr. Exit status: 0 done, 1 `check` or `reconcile` found
differences, 2 usage or configuration, 3 the state is locked or unusable, 4 a peer did not answer.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from . import __version__, config, journal_log
from .commands import (
    backfill,
    backup,
    bridge,
    check,
    checkpoint,
    demo,
    explain,
    farm,
    history,
    import_site,
    ingest,
    install,
    keys,
    metrics,
    publish,
    quarantine,
    rebuild,
    reconcile,
    run,
    show,
    status,
    top,
    write,
)
from .errors import IndexerError

log = logging.getLogger(__name__)


class _ReaderLeftError(Exception):
    """Whoever read our results has seen enough, as `| head` does."""


class _Group(click.Group):
    """Commands whose stdout may be closed before they have said everything."""

    def invoke(self, context: click.Context) -> Any:
        try:
            result = super().invoke(context)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise _ReaderLeftError from error  # click would end with 1
        return result


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="piw-indexer")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what is wrong on stderr.")
def piw_indexer(verbose: bool, quiet: bool) -> None:
    """piwheels' JSON API, kept current by messages instead of queries.

    Every option can also be set in the environment (PIW_INDEXER_<OPTION>) and in the section
    [indexer] of piwheels' configuration files.
    """
    # Documents are there to be read.
    click.get_current_context().meta[config.UMASK] = os.umask(0o022)
    journal_log.set_up(logging.ERROR if quiet else logging.DEBUG if verbose else None)


for _command in (
    run.run,
    ingest.ingest,
    write.write,
    publish.publish,
    bridge.bridge,
    rebuild.rebuild,
    check.check,
    checkpoint.make_checkpoint,
    backup.backup,
    backfill.backfill,
    reconcile.reconcile,
    import_site.import_site,
    status.status,
    top.top,
    farm.farm,
    metrics.metrics,
    show.show,
    history.history,
    explain.explain,
    quarantine.quarantine,
    keys.keys,
    install.install,
    demo.demo,
):
    piw_indexer.add_command(_command)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; never returns, but for the tests that give `arguments`."""
    try:
        result = piw_indexer.main(arguments, prog_name="piw-indexer", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except IndexerError as error:
        if journal_log.logs_to_journal():
            log.critical("%s", error, extra=journal_log.event("failed", status=error.exit_status))
        else:
            click.echo(f"piw-indexer: {error}", err=True)
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        click.echo("piw-indexer: interrupted", err=True)
        sys.exit(130)
    except _ReaderLeftError:
        # What is still in the buffer cannot be told to anybody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
