"""`piw-indexer metrics`: the state of the indexer, for Prometheus."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from ..base import options, printable, privileges
from ..base.errors import UsageError
from ..watch import prometheus as exposed

_STOP = (signal.SIGINT, signal.SIGTERM)

MAX_CONNECTIONS = 32
SILENCE_TIMEOUT = 5.0
"""Seconds after which a connection ends that neither sends nor reads anything."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one GET or HEAD of /metrics; the library bounds its lines and headers."""

    timeout = SILENCE_TIMEOUT
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        with self.server.collecting:
            body = generate_latest(self.server.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a stranger's request is not an event."""


class _Server(ThreadingHTTPServer):
    """Limits its connections: a new one ends the oldest, so that the server always answers.

    Raises OSError if the address cannot be bound.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        addresses = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        self.address_family = addresses[0][0]
        self.registry = registry
        self.collecting = threading.Lock()
        self._open: dict[socket.socket, None] = {}
        self._guard = threading.Lock()
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread, and end the oldest if there are too many."""
        with self._guard:
            self._open[request] = None
            if len(self._open) > MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                try:
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread wakes up and closes it
                except OSError:
                    pass  # the client has closed it already
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection before its descriptor can be reused."""
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about broken connections."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@click.command()
@options.configuration_to_look
@options.option("state-dir")
@options.option("textfile")
@options.option("listen")
def metrics(state_dir: Path, textfile: Path | None, listen: tuple[str, int] | None) -> None:
    """Print, write or serve metrics for Prometheus.

    With --textfile it writes them to a file for node_exporter; run it from a timer then. With
    --listen it serves them at /metrics until it is stopped. It also works without the daemon:
    piw_indexer_up is 0 then.
    """
    if listen is not None:
        if textfile is not None:
            raise UsageError(
                "show the metrics", "--textfile and --listen exclude each other", "give one"
            )
        privileges.become_owner(state_dir)
        _serve(state_dir, *listen)
    elif textfile is not None:
        # The state belongs to its owner, the file to the user who runs this.
        with privileges.looking_as_owner(state_dir):
            content = exposed.exposition(state_dir)
        exposed.write(textfile, content)
    else:
        privileges.become_owner(state_dir)
        printable.echo(exposed.exposition(state_dir), nl=False)


def _serve(state_dir: Path, host: str, port: int) -> None:
    # Threads inherit this mask, so it must be set before the first starts.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    try:
        server = _Server(host, port, exposed.registry(state_dir))
    except OSError as error:
        raise UsageError(
            f"serve the metrics at {host}:{port}",
            error.strerror or error,
            "choose another address for --listen",
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        signal.sigwait(_STOP)
        server.shutdown()
        thread.join()
