"""The state of the indexer, for Prometheus: every metric that there is, and its exposition.

`METRICS` is the one place: what is exposed, and what docs/watching.md lists. Names follow
Prometheus' conventions (https://prometheus.io/docs/practices/naming/): base units, `_total` for
counters only. Reading the state takes what `status` takes, and never holds up the daemon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ..base import clock, filesystem, printable, times
from ..base.errors import StateError, UsageError
from .alerts import KINDS
from .status import STALE, gather, unreadable

COUNT_INTERVAL = 600.0
"""Seconds between two counts of the index's rows: that reads much of a large one."""

MAX_LABEL = 200

Found = dict[str, Any]
Samples = Iterator[tuple[tuple[str, ...], float | None]]
"""Values of labels, and the value; None: not known, and not exposed."""


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: of it.
        help: what it is.
        samples: what it is at present.
        labels: their names.
        counter: whether it only grows.
    """

    name: str
    help: str
    samples: Callable[[Found], Samples]
    labels: tuple[str, ...] = ()
    counter: bool = False


def _one(value: Callable[[Found], Any]) -> Callable[[Found], Samples]:
    def samples(found: Found) -> Samples:
        try:
            yield (), value(found)
        except (KeyError, TypeError):
            pass  # no daemon, no index, or never

    return samples


def _at(text: Any) -> float | None:
    """Seconds since 1970."""
    try:
        return times.parse_rfc3339(text) / times.SECOND
    except (TypeError, ValueError, AttributeError):
        return None


def _feeds(key: str) -> Callable[[Found], Samples]:
    def samples(found: Found) -> Samples:
        for feed in found["feeds"]:
            yield (feed["feed"],), feed[key]

    return samples


def _broken(found: Found) -> Samples:
    for feed in found["feeds"]:
        yield (feed["feed"],), float(feed["broken"] is not None)


def _problems(found: Found) -> Samples:
    there = {one["id"] for one in found["alerts"]}
    for kind in KINDS.values():
        yield (kind.id, kind.severity), float(kind.id in there)


def _disks(key: str) -> Callable[[Found], Samples]:
    def samples(found: Found) -> Samples:
        yield ("state",), found[f"disk_{key}"]
        yield ("output",), found[f"output_disk_{key}"]

    return samples


def _rows(found: Found) -> Samples:
    for table, rows in found["counts"].items():
        yield (table,), rows


def _kinds(found: Found) -> Samples:
    if found["daemon"] is not None:
        for kind, at in found["daemon"].get("kinds_published", {}).items():
            yield (kind,), _at(at)


def _slaves(found: Found) -> Samples:
    if found["farm"] is not None:
        counts: dict[str, int] = {}
        for slave in found["farm"]["slaves"]:
            counts[slave["doing"] or "unknown"] = counts.get(slave["doing"] or "unknown", 0) + 1
        for doing, number in sorted(counts.items()):
            yield (doing,), number


def _up(found: Found) -> float:
    live = found["daemon"]
    return float(live is not None and live["age_seconds"] <= STALE)


def _info(found: Found) -> Samples:
    yield (found["version"], found["sqlite_version"]), 1.0


READABLE = Metric(
    "piw_indexer_state_readable",
    "1 if the state directory could be read; if not, all but this, up and problem is missing.",
    _one(lambda found: 1.0),
)
UP = Metric(
    "piw_indexer_up",
    "1 if a daemon runs, and has reported its state in the last ten seconds.",
    _one(_up),
)
PROBLEM = Metric(
    "piw_indexer_problem",
    "1 if there is a problem of that kind; see the list in docs/watching.md.",
    _problems,
    ("id", "severity"),
)

METRICS = (
    READABLE,
    UP,
    PROBLEM,
    Metric(
        "piw_indexer_well",
        "1 if nothing is wrong: no problem but notices.",
        _one(lambda found: float(found["well"])),
    ),
    Metric(
        "piw_indexer_build_info",
        "1; the versions of piw-indexer and of its SQLite are the labels.",
        _info,
        ("version", "sqlite_version"),
    ),
    Metric(
        "piw_indexer_start_time_seconds",
        "When the daemon started, since 1970.",
        _one(lambda found: _at(found["daemon"]["started"])),
    ),
    Metric(
        "piw_indexer_journal_serial",
        "The last message of the journal.",
        _one(lambda found: found["serial"]),
    ),
    Metric(
        "piw_indexer_applied_serial",
        "The last message that is in the index.",
        _one(lambda found: found["applied_serial"]),
    ),
    Metric(
        "piw_indexer_accepted_messages_total",
        "Messages accepted since the daemon started.",
        _one(lambda found: found["daemon"]["accepted"]),
        counter=True,
    ),
    Metric(
        "piw_indexer_published_documents_total",
        "Documents published since the daemon started.",
        _one(lambda found: found["daemon"]["written"]),
        counter=True,
    ),
    Metric(
        "piw_indexer_last_published_timestamp_seconds",
        "When the last document was published, since 1970.",
        _one(lambda found: _at(found["daemon"]["last_published"])),
    ),
    Metric(
        "piw_indexer_counters_published_timestamp_seconds",
        "When packages.json was published last, since 1970.",
        _one(lambda found: _at(found["daemon"]["counters_published"])),
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
        _one(lambda found: found["pending"]),
    ),
    Metric(
        "piw_indexer_oldest_pending_seconds",
        "For how long the oldest of them has been waiting.",
        _one(lambda found: found["oldest_pending_seconds"]),
    ),
    Metric(
        "piw_indexer_quarantined_messages",
        "Refused messages that wait to be looked at.",
        _one(lambda found: found["quarantined"]),
    ),
    Metric(
        "piw_indexer_feed_serial",
        "The last message that was accepted of a feed.",
        _feeds("serial"),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_lag_messages",
        "Messages that a feed has published and that are not accepted.",
        _feeds("lag"),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_lag_seconds",
        "For how long the oldest of them has been waiting.",
        _feeds("lag_seconds"),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_silent_seconds",
        "Since a feed said anything, a heartbeat included.",
        _feeds("silent_seconds"),
        ("feed",),
    ),
    Metric(
        "piw_indexer_feed_broken",
        "1 if messages of a feed are lost.",
        _broken,
        ("feed",),
    ),
    Metric(
        "piw_indexer_journal_size_bytes",
        "The size of the journal.",
        _one(lambda found: found["journal_bytes"]),
    ),
    Metric(
        "piw_indexer_disk_free_bytes",
        "Room on the file system of the state, and of the documents (output).",
        _disks("free_bytes"),
        ("of",),
    ),
    Metric(
        "piw_indexer_disk_size_bytes",
        "The size of these file systems.",
        _disks("bytes"),
        ("of",),
    ),
    Metric(
        "piw_indexer_rows",
        "Rows of the index, counted every ten minutes at most.",
        _rows,
        ("table",),
    ),
    Metric(
        "piw_indexer_downloads_total",
        "Downloads that were counted.",
        _one(lambda found: found["downloads"]),
        counter=True,
    ),
    Metric(
        "piw_indexer_last_check_timestamp_seconds",
        "When `check` was run last, since 1970.",
        _one(lambda found: _at(found["last_check"]["at"])),
    ),
    Metric(
        "piw_indexer_last_check_differences",
        "How many differences it found.",
        _one(lambda found: found["last_check"]["differences"]),
    ),
    Metric(
        "piw_indexer_last_backup_timestamp_seconds",
        "When `backup` was run last, since 1970.",
        _one(lambda found: _at(found["last_backup"]["at"])),
    ),
    Metric(
        "piw_indexer_slaves",
        "Build slaves, by what they do; with --status-queue.",
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
        self._counted: Found = {}
        self._count_at = 0.0

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Every metric, as it is now."""
        with self._lock:  # two at once would count twice
            found = self._gather()
        for metric in METRICS:
            if "well" not in found and metric not in (READABLE, UP, PROBLEM):
                continue
            kind = CounterMetricFamily if metric.counter else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.samples(found):
                if isinstance(value, int | float):
                    family.add_metric([printable.line(one, MAX_LABEL) for one in labels], value)
            if metric is READABLE and "well" not in found:
                family = kind(metric.name, metric.help, value=0.0)
            if family.samples:
                yield family

    def _gather(self) -> Found:
        counting = not self._counted or clock.monotonic() >= self._count_at
        try:
            found = gather(self._directory, clock.now(), counting=counting)
        except StateError as error:
            return {"daemon": None, "alerts": [unreadable(error).as_data()]}
        if counting:
            self._count_at = clock.monotonic() + COUNT_INTERVAL
            self._counted = {key: found[key] for key in ("counts", "downloads") if key in found}
        return {**found, **self._counted}


def registry(directory: Path) -> CollectorRegistry:
    """What knows all metrics of a state directory, and no other."""
    found = CollectorRegistry()
    found.register(StateCollector(directory))
    return found


def exposition(directory: Path) -> bytes:
    """The metrics of a state directory in Prometheus' text format."""
    return generate_latest(registry(directory))


def write(path: Path, content: bytes) -> None:
    """Put an exposition in its place, whole: node_exporter may read it at any moment.

    Raises:
        UsageError: if it cannot be written.
    """
    try:
        filesystem.write(path, content, filesystem.DOCUMENT)
    except OSError as error:
        raise UsageError(
            f"write the metrics to {path}",
            error.strerror or error,
            "name a file in the directory that node_exporter's --collector.textfile.directory"
            " names, where you may write",
        ) from error
