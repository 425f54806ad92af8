"""`piw-indexer publish`: a publisher of a change feed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import click

from ..base import clock, database, directories, filesystem, network, options, printable
from ..base.directories import SPOOL
from ..base.interruption import Interruption
from ..base.privileges import as_owner
from ..feed.keys import KeyList
from ..feed.publisher import FeedPublisher
from ..feed.sockets import MAX_MESSAGE
from ..messages.entries import Accepted
from ..messages.jsonl import MessageFile
from .publisher_options import Publishing

_BATCH = 500
_SLICE = 0.01
"""Seconds between batches, if there is a --rate."""

_WAIT_FOR_SUBSCRIBERS = 2.0
_WAIT_FOR_REQUESTS = 1.0


@click.command()
@click.argument("file", required=False)
@options.configuration
@options.state_to_write
@options.grouped(Publishing)
@options.option("rate")
@options.flag("exit")
@as_owner
def publish(
    file: str | None,
    state_dir: Path,
    publishing: Publishing,
    rate: float | None,
    leave: bool,
) -> None:
    """Publish the messages of a JSON-lines file on a change feed; - is the standard input.

    The spool is STATE_DIR/spool. A file that was sent in part, or has grown since, continues where
    it stopped. Without a file, only requests for missed messages are answered. Runs until it is
    interrupted.
    """
    queues, protection = publishing.checked("publish")
    network.refuse(state_dir)
    with database.wrap_errors(f"make the state directory {state_dir}"):
        directories.make(state_dir, filesystem.STATE_DIRECTORY)
    # A larger message would disconnect the subscribers.
    messages = MessageFile(file, clock.now, MAX_MESSAGE // 2) if file is not None else None
    keys = protection.allowed if isinstance(protection.allowed, KeyList) else None
    meanwhile = [] if keys is None else [signal.SIGHUP]
    with Interruption(signal.SIGTERM, signal.SIGINT, meanwhile=meanwhile) as interruption:
        publisher = FeedPublisher(
            state_dir / SPOOL,
            publishing.name,
            *queues,
            clock.now,
            protection,
        )
        serve = partial(_serve, publisher, keys, interruption)
        try:
            if messages is not None:
                if leave:
                    _await_subscriber(publisher, serve, interruption)
                _send(publisher, messages, rate, serve, interruption)
                publisher.heartbeat()
            if leave:
                _finish(publisher, serve, interruption)
            else:
                while not interruption.wished:
                    serve(1.0)
        finally:
            publisher.close(linger=2.0)


_Serve = Callable[[float], None]
"""Serves subscribers for so many seconds, or until a signal comes."""


def _serve(
    publisher: FeedPublisher, keys: KeyList | None, interruption: Interruption, seconds: float
) -> None:
    publisher.serve(seconds, interruption.bell)
    # The keys are read again at every connection, but an administrator wants to know now.
    if keys is not None and interruption.asked(signal.SIGHUP):
        keys.refresh()


def _await_subscriber(publisher: FeedPublisher, serve: _Serve, interruption: Interruption) -> None:
    """Give subscribers a moment to connect: without any, messages go only into the spool."""
    until = clock.monotonic() + _WAIT_FOR_SUBSCRIBERS
    while not publisher.subscribers and clock.monotonic() < until and not interruption.wished:
        serve(0.05)


def _send(
    publisher: FeedPublisher,
    messages: MessageFile,
    rate: float | None,
    serve: _Serve,
    interruption: Interruption,
) -> None:
    """Publish the rest of a file, at `rate` messages a second, until interrupted."""
    entries = (entry for entry, _ in messages.entries(messages.known(publisher.spool.position)))
    sent = refused = taken = 0
    began = clock.monotonic()
    while True:
        if interruption.wished:
            return
        size = _BATCH
        if rate is not None:
            elapsed = clock.monotonic() - began
            size = min(_BATCH, int(elapsed * rate) - taken)
            if size < 1:
                serve(max(0.0, min(_SLICE, (taken + 1) / rate - elapsed)))
                continue
        batch = list(islice(entries, size))
        if not batch:
            break
        taken += len(batch)
        sent += len(publisher.publish(batch))
        refused += sum(not isinstance(entry, Accepted) for entry in batch)
        serve(0.0)
    elapsed = clock.monotonic() - began
    name = printable.line(messages.name)
    printable.echo(f"{name}: {printable.many(sent, 'message')} sent in {elapsed:.1f} s")
    if refused:
        lines = printable.many(refused, "line")
        printable.warn(
            f"not sent, because not valid: {lines} of {name};"
            " `piw-indexer quarantine --spool` shows why"
        )
    messages.close()


def _finish(publisher: FeedPublisher, serve: _Serve, interruption: Interruption) -> None:
    """Serve until there were no requests for a while."""
    until = clock.monotonic() + _WAIT_FOR_REQUESTS
    asked = publisher.last_request
    publisher.heartbeat()
    while clock.monotonic() < until:
        serve(0.1)
        if interruption.wished:
            return
        if publisher.last_request != asked:
            asked = publisher.last_request
            until = clock.monotonic() + _WAIT_FOR_REQUESTS
    if not publisher.subscribers:
        printable.warn(
            "nobody was listening; the messages are in the spool, and the next"
            " `piw-indexer publish` serves them"
        )
