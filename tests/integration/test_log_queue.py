"""The relay of log entries between piw-logger and a master that comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from indexer.base import clock
from indexer.daemon.source import DaemonContext
from indexer.feed.security import LOCAL_BINDING, LOCAL_CONNECTING
from indexer.feed.sockets import bound
from indexer.piwheels.queues.log_queue import MAX_FRAME, LogRelay

from ..support import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_a_relay_rests_while_its_master_is_away(sockets: Path, context: zmq.Context[Any]) -> None:
    """Its thread once polled the standard input instead of a closed socket."""
    logger, address = f"ipc://{sockets}/logger", f"ipc://{sockets}/master"
    tools: Any = DaemonContext(context, None, None, lambda: None)  # type: ignore[arg-type]
    relay = LogRelay(tools, logger, address, LOCAL_BINDING, LOCAL_CONNECTING, clock.now)
    forward = relay._forward
    assert forward is not None
    master, listener = bound(context, zmq.PULL, address, high_water=1, max_frame=MAX_FRAME)
    assert listener is not None
    push = context.socket(zmq.PUSH)
    push.connect(logger)
    for _ in range(50):
        push.send(bytes(MAX_FRAME))
    eventually(lambda: forward.forwarded > 0 and len(relay._ours) == 50)
    assert forward.behind, "the master does not read"
    before = forward.peer.socket
    master.close(linger=0)
    listener.remove()
    eventually(lambda: forward.peer.socket is not before)
    assert forward.behind
    assert relay._poller().poll(0) == []
    push.close()
    relay.close()
