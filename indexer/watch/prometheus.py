"""The state of the indexer, for Prometheus.

`METRICS` lists every metric; docs/watching.md has the same list. Names follow Prometheus'
conventions (https://prometheus.io/docs/practices/naming/): base units, `_total` for counters only.
Reading the state costs as much as `status`, and never delays the daemon.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..base import clock, filesystem, printable, times
from ..base.errors import StateError, UsageError
from ..base.times import Time
from ..daemon.status_file import Live
from .alerts import KINDS, Alert
from .status import MAX_SILENCE, FeedStatus, Status, gather, unreadable

COUNT_INTERVAL = 600.0
"""Seconds between two counts of the index's rows, which read much of a large index."""

MAX_LABEL = 200

_BEGINNING = b"# HELP piw_indexer_"
"""Of every textfile."""

Samples = Iterator[tuple[tuple[str, ...], float | None]]
"""Values of labels, and the value; None: not known, and not exposed."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: its name.
        help: what it is.
        samples: returns its present values.
        labels: the names of its labels.
        counter: true if it only grows.
    """

    name: str
    help: str
    samples: Callable[[Status], Samples]
    labels: tuple[str, ...] = ()
    counter: bool = False


def _one(value: Callable[[Status], float | None]) -> Callable[[Status], Samples]:
    def samples(status: Status) -> Samples:
        yield (), value(status)

    return samples


def _of_daemon(value: Callable[[Live], float | None]) -> Callable[[Status], Samples]:
    return _one(lambda status: None if status.daemon is None else value(status.daemon.live))


def _seconds(at: Time | None) -> float | None:
    """Since 1970."""
    return None if at is None else at / times.SECOND


def _feeds(value: Callable[[FeedStatus], float | None]) -> Callable[[Status], Samples]:
    def samples(status: Status) -> Samples:
        for feed in status.feeds:
            yield (feed.feed,), value(feed)

    return samples


def _problems(alerts: list[Alert]) -> Samples:
    there = {alert.id for alert in alerts}
    for kind in KINDS.values():
        yield (kind.id, kind.severity), float(kind.id in there)


def _disk_free(status: Status) -> Samples:
    yield ("state",), status.disk_free_bytes
    yield ("output",), status.output_disk_free_bytes


def _disk_size(status: Status) -> Samples:
    yield ("state",), status.disk_bytes
    yield ("output",), status.output_disk_bytes


def _state_parts(status: Status) -> Samples:
    for part, size in (status.state_parts or {}).items():
        yield (part,), size


def _rows(status: Status) -> Samples:
    for table, rows in status.counts.items():
        yield (table,), rows


def _kinds(status: Status) -> Samples:
    if status.daemon is not None and status.daemon.live.kinds_published is not None:
        for kind, at in status.daemon.live.kinds_published.items():
            yield (kind,), _seconds(at)


def _slaves(status: Status) -> Samples:
    if status.farm is not None:
        doings = Counter(slave.doing or "unknown" for slave in status.farm.slaves)
        for doing, number in sorted(doings.items()):
            yield (doing,), number


def _up(status: Status) -> float:
    daemon = status.daemon
    return float(daemon is not None and daemon.age_seconds <= MAX_SILENCE)


def _info(status: Status) -> Samples:
    yield (status.version, status.sqlite_version), 1.0


READABLE = Metric(
    "piw_indexer_state_readable",
    "1 if the state directory could be read; if 0, there are only this, up and problem.",
    _one(lambda status: 1.0),
)
UP = Metric(
    "piw_indexer_up",
    "1 if a daemon runs and has reported its state in the last ten seconds.",
    _one(_up),
)
PROBLEM = Metric(
    "piw_indexer_problem",
    "1 if there is a problem of that kind; docs/watching.md lists them.",
    lambda status: _problems(status.alerts),
    ("id", "severity"),
)

METRICS = (
    READABLE,
    UP,
    PROBLEM,
    Metric(
        "piw_indexer_well",
        "1 if nothing is wrong, apart from notices.",
        _one(lambda status: float(status.well)),
    ),
    Metric(
        "piw_indexer_build_info",
        "Always 1; the labels are the versions of piw-indexer and of its SQLite.",
        _info,
        ("version", "sqlite_version"),
    ),
    Metric(
        "piw_indexer_start_time_seconds",
        "When the daemon started, since 1970.",
        _of_daemon(lambda live: _seconds(live.started)),
    ),
    Metric(
        "piw_indexer_journal_serial",
        "The last message of the journal.",
        _one(lambda status: status.serial),
    ),
    Metric(
        "piw_indexer_applied_serial",
        "The last message that is in the index.",
        _one(lambda status: status.applied_serial),
    ),
    Metric(
        "piw_indexer_accepted_messages_total",
        "Messages accepted since the daemon started.",
        _of_daemon(lambda live: live.accepted),
        counter=True,
    ),
    Metric(
        "piw_indexer_published_documents_total",
        "Documents published since the daemon started.",
        _of_daemon(lambda live: live.written),
        counter=True,
    ),
    Metric(
        "piw_indexer_last_published_timestamp_seconds",
        "When the last document was published, since 1970.",
        _of_daemon(lambda live: _seconds(live.last_published)),
    ),
    Metric(
        "piw_indexer_counters_published_timestamp_seconds",
        "When packages.json was published last, since 1970.",
        _of_daemon(lambda live: _seconds(live.counters_published)),
    ),
    Metric(
        "piw_indexer_kind_published_timestamp_seconds",
        "When documents of a kind were published last, since 1970.",
        _kinds,
        ("kind",),
    ),
    Metric(
        "piw_indexer_pending_documents",
        "Documents that wait to be written.",
        _one(lambda status: status.pending),
    ),
    Metric(
        "piw_indexer_oldest_pending_seconds",
        "How long the oldest of them has been waiting.",
        _one(lambda status: status.oldest_pending_seconds),
    ),
    Metric(
        "piw_indexer_quarantined_messages",
        "Refused messages that nobody has looked at yet.",
        _one(lambda status: status.quarantined),
    ),
    Metric(
        "piw_indexer_feed_serial",
        "The last message that was accepted from a feed.",
        _feeds(lambda feed: feed.serial),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_lag_messages",
        "Messages that a feed has sent and that are not accepted yet.",
        _feeds(lambda feed: feed.lag),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_lag_seconds",
        "How long the oldest of them has been waiting.",
        _feeds(lambda feed: feed.lag_seconds),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_silent_seconds",
        "Time since a feed sent anything, heartbeats included.",
        _feeds(lambda feed: feed.silent_seconds),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_broken",
        "1 if messages of a feed are lost.",
        _feeds(lambda feed: float(feed.broken is not None)),
        ("feed",),
    ),
    Metric(
        "piw_indexer_journal_size_bytes",
        "The size of the journal.",
        _one(lambda status: status.journal_bytes),
    ),
    Metric(
        "piw_indexer_disk_free_bytes",
        "Free space on the file system of the state, and of the documents (output).",
        _disk_free,
        ("of",),
    ),
    Metric(
        "piw_indexer_disk_size_bytes",
        "The size of these file systems.",
        _disk_size,
        ("of",),
    ),
    Metric(
        "piw_indexer_state_bytes",
        "The size of the parts of the state directory.",
        _state_parts,
        ("part",),
    ),
    Metric(
        "piw_indexer_rows",
        "Rows of the index, counted at most every ten minutes.",
        _rows,
        ("table",),
    ),
    Metric(
        "piw_indexer_downloads_total",
        "Downloads that were counted.",
        _one(lambda status: status.downloads),
        counter=True,
    ),
    Metric(
        "piw_indexer_last_check_timestamp_seconds",
        "When `check` ran last, since 1970.",
        _one(lambda status: status.last_check and _seconds(status.last_check.at)),
    ),
    Metric(
        "piw_indexer_last_check_differences",
        "How many differences that check found.",
        _one(lambda status: status.last_check and status.last_check.differences),
    ),
    Metric(
        "piw_indexer_last_backup_timestamp_seconds",
        "When `backup` ran last, since 1970.",
        _one(lambda status: status.last_backup and _seconds(status.last_backup.at)),
    ),
    Metric(
        "piw_indexer_slaves",
        "Build slaves by what they are doing; with --status-queue.",
        _slaves,
        ("doing",),
    ),
)
"""Every metric."""


class StateCollector(Collector):
    """Reads the state whenever somebody asks.

    Args:
        directory: of the state.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._counted: Status | None = None
        self._count_at = 0.0

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every metric, as it is now."""
        try:
            with self._lock:  # two at once would count twice
                status = self._gather()
        except StateError as error:
            yield _family(READABLE, [((), 0.0)])
            yield _family(UP, [((), 0.0)])
            yield _family(PROBLEM, _problems([unreadable(error)]))
            return
        for metric in METRICS:
            family = _family(metric, metric.samples(status))
            if family.samples:
                yield family

    def _gather(self) -> Status:
        counting = self._counted is None or clock.monotonic() >= self._count_at
        status = gather(self._directory, clock.now(), counting=counting)
        if counting:
            self._count_at = clock.monotonic() + COUNT_INTERVAL
            self._counted = status
        if self._counted is not None:
            status = status._replace(counts=self._counted.counts, downloads=self._counted.downloads)
        return status


def _family(
    metric: Metric, samples: Iterable[tuple[tuple[str, ...], float | None]]
) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if metric.counter else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        if value is not None:
            family.add_metric([printable.line(label, MAX_LABEL) for label in labels], value)
    return family


def registry(directory: Path) -> CollectorRegistry:
    """A registry with the metrics of a state directory only."""
    registry = CollectorRegistry()
    registry.register(StateCollector(directory))
    return registry


def exposition(directory: Path) -> bytes:
    """The metrics of a state directory in Prometheus' text format."""
    return generate_latest(registry(directory))


def write(path: Path, content: bytes) -> None:
    """Write a textfile atomically, because node_exporter may read it at any moment.

    Raises:
        UsageError: if it cannot be written, or there is a file that is not one of ours.
    """
    try:
        if os.path.lexists(path):
            before = filesystem.beginning(path, len(_BEGINNING))
            if before and before != _BEGINNING:
                raise OSError(errno.EEXIST, "a file is there that we have not written")
        filesystem.write(path, content, filesystem.DOCUMENT)
    except OSError as error:
        raise UsageError(
            f"write the metrics to {path}",
            error.strerror or error,
            "name a file in the directory that node_exporter's --collector.textfile.directory"
            " names, where you may write",
        ) from error
