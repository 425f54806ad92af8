"""`piw-indexer run`: the daemon."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from ..base import clock, options
from ..base.errors import UsageError
from ..base.log import event
from ..base.privileges import as_owner
from ..daemon import reload
from ..daemon.daemon import Daemon, Options
from ..daemon.source import DaemonContext, OpenSource, Source
from ..daemon.writer import Options as WriterOptions
from ..documents.publish import Publisher, refuse_unwritable
from ..feed import ipc, security
from ..index.queries import FILE
from ..piwheels.farm.status_queue import StatusFeed, forget_farm
from ..piwheels.queues.log_queue import LogRelay
from ..piwheels.queues.snapshots import Snapshots

log = logging.getLogger(__name__)


@click.command()
@options.configuration
@options.option("state-dir")
@options.option("output-path")
@options.option("site-url")
@options.option("changes-queue")
@options.option("replay-queue")
@options.option("curve-key")
@options.option("curve-server-key")
@options.flag("allow-insecure-tcp")
@options.option("status-queue")
@options.option("control-queue")
@options.option("db-queue")
@options.option("sweep-pause")
@options.option("log-queue")
@options.option("log-forward")
@options.option("ipc-peer")
@options.option("ipc-mode")
@options.option("ipc-group")
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
    status_queue: str | None,
    control_queue: str | None,
    db_queue: str | None,
    sweep_pause: float,
    log_queue: str | None,
    log_forward: str | None,
    ipc_peer: tuple[str, ...],
    ipc_mode: int,
    ipc_group: str | None,
    settle: float,
    max_delay: float,
    counters_interval: float,
    validate: bool,
) -> None:
    """The daemon: follow change feeds, or a piwheels master, and publish what they change.

    To follow an unmodified master: --status-queue shows which builds finished and keeps the farm
    view live; --db-queue fetches each built package and slowly re-checks the rest; --log-queue and
    --log-forward sit between piw-logger and the master.

    Stops on SIGTERM or Ctrl-C, after publishing what is pending. On SIGHUP it checks the
    configuration, as --validate does, and begins anew with it, if it is valid.
    """
    feeds = options.feeds("run", changes_queue, replay_queue)
    if not (feeds or status_queue or db_queue or log_queue or control_queue or log_forward):
        raise UsageError(
            "run",
            "there is nothing to follow",
            "give --changes-queue and --replay-queue of a publisher, or of a piwheels master its"
            " --status-queue, --db-queue or --log-queue; `piw-indexer install` writes them into"
            f" {options.OURS}",
        )
    peers = ipc.user_ids(ipc_peer)
    protections = security.for_subscribers(
        feeds, curve_key, curve_server_key, allow_insecure_tcp, peers
    )
    plain = security.Connecting(insecure=allow_insecure_tcp, peers=peers)  # piwheels has no CURVE
    for queue in filter(None, (status_queue, control_queue, db_queue, log_forward)):
        security.endpoint("connect to", queue, plain)
    sources: list[OpenSource] = []
    asking: list[Snapshots] = []
    relays: list[LogRelay] = []
    waiting = [] if validate else reload.inherited_frames()

    def open_snapshots(tools: DaemonContext) -> Source:
        assert db_queue is not None
        asking.append(Snapshots(tools, db_queue, sweep_pause, clock.now, clock.monotonic, plain))
        return asking[-1]

    def open_relay(tools: DaemonContext) -> Source:
        assert log_queue is not None
        nonlocal waiting
        relays.append(LogRelay(tools, log_queue, log_forward, binding, plain, clock.now, waiting))
        waiting = []
        return relays[-1]

    def ask_for(package: str, version: str) -> None:
        for one in asking:
            one.finished(package, version)

    if db_queue is not None:
        sources.append(open_snapshots)
    if status_queue is not None:
        sources.append(
            lambda tools: StatusFeed(
                tools, status_queue, control_queue, clock.now, clock.monotonic, ask_for, plain
            )
        )
    elif control_queue is not None:
        raise UsageError(
            "run", "what --control-queue asks for comes on --status-queue", "give both"
        )
    else:
        sources.append(forget_farm)
    if log_queue is not None:
        binding = security.for_publisher([log_queue], None, None, False, ipc_mode, ipc_group)
        ipc.refuse_unbindable(log_queue)
        sources.append(open_relay)
    elif log_forward is not None:
        raise UsageError("run", "--log-forward passes on what --log-queue takes", "give both")
    if log_queue is None or log_forward is None:
        _confess(waiting, None)
        waiting = []
    if validate:
        refuse_unwritable(output_path)
        return
    Publisher(output_path)  # refuses an output path that cannot be written, before any socket
    daemon = Daemon(
        Options(
            state_dir,
            feeds,
            protections,
            WriterOptions(
                state_dir / FILE,
                output_path,
                site_url.rstrip("/"),
                settle,
                max_delay,
                counters_interval,
                logging.getLogger().level,
            ),
            sources,
        )
    )

    def left() -> list[list[bytes]]:
        return [*waiting, *(frames for relay in relays for frames in relay.left())]

    try:
        daemon.run()
    except BaseException:
        _confess(left(), log_forward)
        raise
    if daemon.again:
        reload.again(left(), click.get_current_context().meta[options.UMASK])
    _confess(left(), log_forward)


def _confess(lost: list[list[bytes]], log_forward: str | None) -> None:
    """Say what the master will never get."""
    if lost:
        log.error(
            "%d log entries have not reached the master%s, which did not take them in time: its own"
            " counters lack them",
            len(lost),
            f" at {log_forward}" if log_forward else "",
            extra=event("logs-not-forwarded", messages=len(lost)),
        )
