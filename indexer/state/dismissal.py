"""Refused messages that an administrator puts aside while the daemon runs.

The command leaves a request for the daemon, which acts on it within about a second.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import orjson

from ..base import clock, filesystem
from ..base.errors import StateError
from ..base.log import event
from ..journal import quarantine
from ..journal.journal import Journal
from ..journal.reader import JournalReader
from .request import leave, remove

log = logging.getLogger(__name__)

FILE = "dismiss.json"
"""Its name in the state directory: a list of numbers of the quarantine."""

MAX_REQUEST = 16 * 1024 * 1024
"""Bytes of a request: a million numbers."""

ANSWER_TIMEOUT = 30.0
"""Seconds in which the daemon has to act on a request."""


def request(directory: Path, journal: Path, ids: Collection[int]) -> None:
    """Have the daemon put messages aside; returns when that is durable.

    Raises StateError if the daemon does not do it.
    """
    path = directory / FILE
    until = clock.monotonic() + ANSWER_TIMEOUT
    while True:
        if not path.exists():
            reader = JournalReader(journal)
            left = sorted(quarantine.waiting_ids(reader).intersection(ids))
            reader.close()
            if not left:
                return
            # Another request may have replaced ours.
            leave(path, orjson.dumps(left))
        if clock.monotonic() > until:
            path.unlink(missing_ok=True)
            raise StateError(
                "put messages aside",
                f"the daemon has not done it within {ANSWER_TIMEOUT:.0f} s",
                "see `piw-indexer status`; a daemon of an earlier version has to be restarted",
            )
        clock.sleep(0.05)


def fulfil(directory: Path, journal: Journal) -> None:
    """Put the messages of a request aside, if there is one; the request is gone then.

    Raises StateError if the journal cannot be written; the request stays.
    """
    path = directory / FILE
    try:
        asked = orjson.loads(filesystem.read(path, MAX_REQUEST))
        if type(asked) is not list or not all(type(number) is int for number in asked):
            raise ValueError("it is not a list of numbers")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        log.warning(
            "ignored the request %s: %s", path, error, extra=event("dismissal-ignored", path=path)
        )
    else:
        ids = sorted(quarantine.waiting_ids(journal.reader).intersection(asked))
        journal.dismiss(ids)
    remove(path)
