"""`piw-indexer run`: the daemon."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from .. import config
from ..daemon import Daemon, Options
from ..errors import UsageError
from ..feed import security
from ..index import FILE
from ..publish import Publisher
from ..writer_process import Options as WriterOptions


@click.command()
@config.configuration
@config.option("state-dir")
@config.option("output-path")
@config.option("site-url")
@config.option("changes-queue")
@config.option("replay-queue")
@config.option("curve-key")
@config.option("curve-server-key")
@config.flag("allow-insecure-tcp")
@config.option("settle")
@config.option("max-delay")
@config.option("counters-interval")
def run(
    state_dir: Path,
    output_path: Path,
    site_url: str,
    changes_queue: tuple[str, ...],
    replay_queue: tuple[str, ...],
    curve_key: Path | None,
    curve_server_key: tuple[str, ...],
    allow_insecure_tcp: bool,
    settle: float,
    max_delay: float,
    counters_interval: float,
) -> None:
    """The daemon: follow change feeds and publish what they change.

    Stops on SIGTERM or Ctrl-C, after publishing what is pending.
    """
    if len(changes_queue) != len(replay_queue):
        raise UsageError(
            "run",
            f"there are {len(changes_queue)} --changes-queue, but {len(replay_queue)}"
            " --replay-queue",
            "give one of each for every publisher",
        )
    feeds = list(zip(changes_queue, replay_queue, strict=True))
    protections = security.for_subscribers(feeds, curve_key, curve_server_key, allow_insecure_tcp)
    Publisher(output_path)  # refuses an output path that cannot be written, before any socket
    Daemon(
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
        )
    ).run()
