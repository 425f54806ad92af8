"""The bounds in docs/security.md against the code, and their sum against the unit's memory."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from importlib import resources
from pathlib import Path

import pytest

from indexer.feed import publisher, sockets, spool_server, subscriber
from indexer.messages import elements
from indexer.piwheels import compare
from indexer.piwheels.farm import status_queue
from indexer.piwheels.queues import log_forward, log_queue, oracle
from indexer.state import handover

pytestmark = pytest.mark.unit

TEXT = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
UNITS = {"": 1, " KiB": 2**10, " MiB": 2**20}
_BOUND = re.compile(r"\| [^|]+ \| ([0-9,]+)( KiB| MiB|) \| `([a-z_.]+)\.([A-Z_]+)` \|")
_SHARE = re.compile(r"^\| ([^|*]+) \| (\d+) \|$", re.MULTILINE)

SHORT_TEXT = 64 / 3
"""Memory for each byte of a message of many short texts: what is left of it when it was read."""

FULL_SIZE = 160 * 2**20
"""Of the daemon and its writer with 600,000 packages, see `make bench`."""


def unpacked(most: int) -> float:
    """Memory of one frame and of what it becomes."""
    return most + elements.MAX_ELEMENTS * elements.ELEMENT_BYTES + elements.TEXT_BYTES * most


def commit(most: int, frame: int) -> float:
    """Memory of the messages of one commit."""
    return (most + frame) * SHORT_TEXT


SHARES = {
    "the daemon and its writer, at full size": FULL_SIZE,
    "live messages that wait": sockets.MAX_CHANGES_WAITING * sockets.MAX_PUBLISHED,
    "answers that wait": sockets.MAX_REPLAY_WAITING * sockets.MAX_MESSAGE,
    "messages before their turn": subscriber.MAX_EARLY_BYTES,
    "one replayed message, unpacked and read": unpacked(sockets.MAX_MESSAGE),
    "the messages of a commit, read": commit(subscriber.MAX_BATCH_BYTES, sockets.MAX_PUBLISHED),
    "log entries that wait to be taken": log_queue.MAX_QUEUED * log_queue.MAX_FRAME,
    "log entries that wait for the journal and the master": log_queue.MAX_WAITING
    + log_forward.MAX_WAITING,
    "the log entries of a commit, read": commit(log_queue.MAX_BATCH_BYTES, log_queue.MAX_FRAME),
    "status messages that wait": status_queue.MAX_QUEUED * status_queue.MAX_FRAME,
    "one answer of the database queue, unpacked": unpacked(oracle.MAX_ANSWER),
    "comparing it with the index": 80 * 2**20,  # seen with 44,000 files
    "what a package was compared with": compare.MAX_SCRATCH,
    "messages that a command hands over, read": handover.MAX_BYTES * 8,  # seen with 44,000 files
}


def test_the_table_says_what_the_code_does() -> None:
    found = _BOUND.findall(TEXT)
    assert len(found) == len(re.findall(r"^\| .* \| `[a-z]", TEXT, re.MULTILINE)), (
        "a row is not read"
    )
    for number, unit, module, name in found:
        value = getattr(importlib.import_module(f"indexer.{module}"), name)
        assert value == int(number.replace(",", "")) * UNITS[unit], f"{module}.{name}"


_DEFINED = re.compile(r"^(?:MIN_\w+, )?(MAX_\w+) = ", re.MULTILINE)
NOT_OF_MEMORY = re.compile(
    r"(feed|messages|piwheels)\.\S*"
    r"MAX_(BEHIND|KEPT|TRIES|ENDS|UNCOUNTED|WAIT|LINKS|FAILURES|LOAD|TEMPERATURE|SKEW|AGE)"
    r"|\S+_DELAY|index\.fits\.MAX_PATCH|piwheels\.(cbor|farm\.messages)\.MAX_BYTES"
)
"""Of time, a number of small things, or defined elsewhere."""


def test_no_bound_is_forgotten() -> None:
    named = {f"{module}.{name}" for _, _, module, name in _BOUND.findall(TEXT)}
    for top in ("feed", "messages", "journal", "index", "piwheels", "state"):
        package = importlib.import_module(f"indexer.{top}")
        for module in pkgutil.walk_packages(package.__path__, f"{top}."):
            source = inspect.getsource(importlib.import_module(f"indexer.{module.name}"))
            own = {f"{module.name}.{name}" for name in _DEFINED.findall(source)}
            own = {name for name in own if not NOT_OF_MEMORY.fullmatch(name)}
            assert own <= named


def test_all_of_them_together_fit_into_the_unit() -> None:
    unit = (resources.files("indexer.systemd") / "piw-indexer.service").read_text()
    [mebibytes] = re.findall(r"^MemoryMax=(\d+)M$", unit, re.MULTILINE)
    together = sum(SHARES.values())
    assert together < int(mebibytes) * 2**20
    shares = {what: int(share) for what, share in _SHARE.findall(TEXT)}
    assert shares == {what: int(share / 2**20) for what, share in SHARES.items()}
    assert f"| **together** | {round(together / 2**20)} |" in TEXT


def test_the_server_of_a_bridge_has_room_for_its_own_bounds() -> None:
    connections = spool_server.MAX_DESCRIPTORS
    each = sockets.MAX_REQUESTS_WAITING * sockets.MAX_REQUEST + 2 * 8192
    memory = (
        60 * 2**20  # an interpreter with what it imports
        + connections * each
        + publisher.MAX_TOPICS * publisher.MAX_TOPIC * 32  # nodes of ZeroMQ's tree
        + publisher.MAX_UNREAD_BYTES + publisher.MAX_REPLAYED_BYTES + sockets.MAX_MESSAGE
        + publisher.MAX_UNREAD_BYTES  # for those who do not read; they share it
    )  # fmt: skip
    assert memory < spool_server.MAX_MEMORY
