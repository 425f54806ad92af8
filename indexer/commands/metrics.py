"""`piw-indexer metrics`: how it stands, for Prometheus."""

from __future__ import annotations

import signal
from pathlib import Path

import click
from prometheus_client import start_http_server

from .. import config
from .. import metrics as exposed
from ..errors import UsageError

_STOP = (signal.SIGINT, signal.SIGTERM)


@click.command()
@config.configuration_to_look
@config.option("state-dir")
@config.option("textfile")
@config.option("listen")
def metrics(state_dir: Path, textfile: Path | None, listen: tuple[str, int] | None) -> None:
    """How it stands, for Prometheus.

    Prints the metrics, or writes them to --textfile, for node_exporter: run it from a timer then.
    With --listen it serves them at /metrics until it is stopped. It works without the daemon,
    too: piw_indexer_up is 0 then.
    """
    if listen is not None:
        if textfile is not None:
            raise UsageError("show the metrics", "--textfile and --listen are given", "give one")
        _serve(state_dir, *listen)
    elif textfile is not None:
        exposed.write(textfile, state_dir)
    else:
        click.echo(exposed.exposition(state_dir), nl=False)


def _serve(state_dir: Path, host: str, port: int) -> None:
    # Before there are threads: all of them leave the signals to this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        server, thread = start_http_server(port, host, exposed.registry(state_dir))
    except OSError as error:
        raise UsageError(
            f"serve the metrics at {host}:{port}",
            error.strerror or error,
            "choose another address for --listen",
        ) from error
    signal.sigwait(_STOP)
    server.shutdown()
    thread.join()
