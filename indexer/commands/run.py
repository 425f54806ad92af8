"""`piw-indexer run`: the daemon."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..base import network, options, places
from ..base.errors import UsageError
from ..base.privileges import as_owner
from ..daemon import reload
from ..daemon.daemon import Daemon, Options
from ..daemon.writer_messages import Options as WriterOptions
from ..documents.counters import Counters
from ..documents.publish import Publisher, refuse_others, refuse_unwritable
from ..feed import ipc, security
from ..index.queries import FILE
from ..piwheels.sources import Queues, Sources, refuse_masters_tree


@click.command()
@options.configuration
@options.state_to_write
@options.option("output-path")
@options.option("site-url")
@options.option("changes-queue")
@options.option("replay-queue")
@options.option("curve-key")
@options.option("curve-server-key")
@options.flag("allow-insecure-tcp")
@options.grouped(Queues)
@options.option("settle")
@options.option("max-delay")
@options.option("counters-interval")
@options.flag("validate")
@as_owner
def run(
    state_dir: Path,
    output_path: Path,
    site_url: str,
    changes_queue: tuple[str, ...],
    replay_queue: tuple[str, ...],
    curve_key: Path | None,
    curve_server_key: tuple[str, ...],
    allow_insecure_tcp: bool,
    queues: Queues,
    settle: float,
    max_delay: float,
    counters_interval: float,
    validate: bool,
) -> None:
    """Run the daemon: follow change feeds or a piwheels master, and publish what changes.

    To follow an unmodified master: --status-queue shows which builds finished and keeps the farm
    view live; --db-queue fetches each built package and slowly re-checks the rest; --log-queue and
    --log-forward sit between piw-logger and the master.

    The daemon stops on SIGTERM or Ctrl-C, after publishing what is pending. On SIGHUP it checks
    the configuration, as --validate does, and starts again with it if it is valid.
    """
    feeds = options.feeds("run", changes_queue, replay_queue, queues.addresses)
    if not (feeds or queues.addresses):
        raise UsageError(
            "run",
            "there is nothing to follow",
            "give --changes-queue and --replay-queue of a publisher, or of a piwheels master its"
            " --status-queue, --db-queue or --log-queue; `piw-indexer install` writes them into"
            f" {options.OURS}",
        )
    peers = ipc.user_ids(queues.ipc_peer)
    protections = security.for_subscribers(
        feeds, curve_key, curve_server_key, allow_insecure_tcp, peers
    )
    sources = Sources(queues, allow_insecure_tcp)
    if queues.addresses:
        refuse_masters_tree(output_path)
    refuse_others(output_path)
    if validate:
        network.refuse(state_dir)
        places.refuse_others(state_dir)
        refuse_unwritable(output_path)
        return
    sources.inherit(reload.inherited_frames())
    Publisher(output_path)  # refuses an unwritable output path before any socket opens
    writer = WriterOptions(
        state_dir / FILE,
        output_path,
        site_url.rstrip("/"),
        settle,
        max_delay,
        {Counters.name: counters_interval},
        logging.getLogger().level,
    )
    daemon = Daemon(Options(state_dir, feeds, protections, writer, sources.open))
    try:
        daemon.run()
        if daemon.reexec:
            reload.reexec(sources.left(), click.get_current_context().meta[options.UMASK])
    finally:
        sources.report_lost()
