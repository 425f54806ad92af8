"""What may be wrong, and what to do about it: everything that `status` can say.

`KINDS` is the one place: `status`, `top`, `metrics` and the documents name these ids.
"""

from __future__ import annotations

from typing import NamedTuple

from ..base import printable
from ..base.errors import Problem

CRITICAL = "critical"
"""Documents do not follow what happens, or messages are lost."""

WARNING = "warning"
"""It works, but somebody should look at it."""

NOTICE = "notice"
"""Good to know; nothing is wrong."""


class Kind(NamedTuple):
    """A kind of problem.

    Attributes:
        id: stable; what monitoring may hold on to.
        severity: `CRITICAL`, `WARNING` or `NOTICE`.
        means: in a sentence.
        remedy: what to do, where the case itself does not tell better.
    """

    id: str
    severity: str
    means: str
    remedy: str


class Alert(NamedTuple):
    """A problem that there is: the id and severity of its kind, what is wrong, and what to do."""

    id: str
    severity: str
    what: str
    remedy: str


KINDS = {
    kind.id: kind
    for kind in (
        Kind(
            "state-unreadable",
            CRITICAL,
            "The state directory, its journal or its index cannot be read.",
            "see what `piw-indexer check` says of it, and that --state-dir is right",
        ),
        Kind(
            "database-newer",
            CRITICAL,
            "A newer version of piw-indexer has written the state.",
            "install that version again, or go back to a backup of before (docs/operating.md)",
        ),
        Kind(
            "daemon-not-running",
            CRITICAL,
            "No daemon holds the state: nothing is taken and nothing is published.",
            "systemctl start piw-indexer; why it ended: journalctl -u piw-indexer",
        ),
        Kind(
            "daemon-starting",
            WARNING,
            "The daemon has started, and is catching up with the journal.",
            "wait; systemctl status piw-indexer shows how far it is",
        ),
        Kind(
            "daemon-silent",
            CRITICAL,
            "The daemon runs, but has not reported its state for some time.",
            "look at its messages (journalctl -u piw-indexer), and whether the disk is full"
            " (df -h); systemctl restart piw-indexer loses nothing",
        ),
        Kind(
            "note-unreadable",
            WARNING,
            "What the daemon, a check or a backup left for `status` is damaged; it is passed over.",
            "see who wrote it (ls -l); the daemon writes its own again every second, `piw-indexer"
            " check` and `piw-indexer backup` write theirs when they are run next",
        ),
        Kind(
            "reload-refused",
            WARNING,
            "A changed configuration has a mistake: the daemon goes on with the one before.",
            "mend it, then systemctl reload piw-indexer; piw-indexer run --validate only looks",
        ),
        Kind(
            "disk-full",
            CRITICAL,
            "The file system of the state has less than 1 MiB left: nothing is taken any more.",
            "free some disk space (df -h)",
        ),
        Kind(
            "intake-waiting",
            CRITICAL,
            "The journal or the index cannot be written: intake waits, and tries again by itself.",
            "look at the disk (df -h, dmesg)",
        ),
        Kind(
            "index-failing",
            CRITICAL,
            "The daemon cannot read the index, or note in it what was published.",
            "look at the disk (df -h, dmesg)",
        ),
        Kind(
            "writer-failing",
            CRITICAL,
            "Documents cannot be written; the writer tries again by itself.",
            "look at the disk and the owner of the output path (df -h, ls -ld)",
        ),
        Kind(
            "writer-stuck",
            WARNING,
            "A document has been waiting to be written for more than five minutes.",
            "look for the writer's messages (journalctl -u piw-indexer)",
        ),
        Kind(
            "feed-broken",
            CRITICAL,
            "The publisher no longer has messages that were missed: something is lost.",
            "take it from the master again: systemctl stop piw-indexer, then piw-indexer backfill"
            " --db-queue ADDRESS (or --dsn), then systemctl start piw-indexer",
        ),
        Kind(
            "feed-refused",
            CRITICAL,
            "The publisher does not let us in, or is not the one whose key we know.",
            "compare the keys on both sides (piw-indexer keys FILE --show)",
        ),
        Kind(
            "peer-not-believed",
            CRITICAL,
            "A socket that we should connect to belongs to somebody whom nobody has named.",
            "see who it is (ss -xlp); if it is the user of the peer, name it with --ipc-peer",
        ),
        Kind(
            "feed-name-taken",
            CRITICAL,
            "Somebody spoke for a feed that belongs to another address; it was not taken.",
            "give each publisher another name with its --feed; if the feed has moved, take its old"
            " address out of --changes-queue; systemctl reload piw-indexer",
        ),
        Kind(
            "feed-never-heard",
            WARNING,
            "No publisher was heard on a change feed since the daemon started.",
            "see that the publisher runs, and that --changes-queue is its address",
        ),
        Kind(
            "feed-silent",
            WARNING,
            "Not even a heartbeat came from a publisher for more than ten seconds.",
            "see that the publisher runs, and that --changes-queue is its address",
        ),
        Kind(
            "feed-behind",
            WARNING,
            "A publisher's messages have been waiting to be accepted for more than a minute.",
            "see what else the machine does (top); what was missed is asked for on --replay-queue",
        ),
        Kind(
            "feed-filling",
            WARNING,
            "A hole in a feed is being filled, for more than ten seconds now.",
            "wait; if it goes on, see that --replay-queue is the publisher's address",
        ),
        Kind(
            "source-failing",
            WARNING,
            "The piwheels master that is followed is away or silent, or entries of its log are"
            " lost.",
            "see that piw-master runs, and that --status-queue, --db-queue, --log-queue and"
            " --log-forward are its addresses; where no master runs, take them out of"
            " /etc/piw-indexer.conf",
        ),
        Kind(
            "index-behind",
            WARNING,
            "Messages of the journal are not in the index.",
            "the daemon catches up when it starts; without one: piw-indexer write",
        ),
        Kind(
            "quarantine",
            WARNING,
            "Messages were refused, and wait to be looked at.",
            "piw-indexer quarantine lists them; what was looked at: piw-indexer quarantine ID"
            " --dismiss, with the daemon stopped",
        ),
        Kind(
            "check-differences",
            WARNING,
            "The last check found differences.",
            "systemctl stop piw-indexer, then piw-indexer check --fix, then systemctl start"
            " piw-indexer",
        ),
        Kind(
            "state-disk-low",
            WARNING,
            "The file system of the state has less than 1 GiB left, or less than the journal grows"
            " in two months.",
            "make room, or archive the months that are over: piw-indexer checkpoint",
        ),
        Kind(
            "output-disk-low",
            WARNING,
            "The file system of the documents has less than 1 GiB left.",
            "make room there (df -h)",
        ),
        Kind(
            "clock-jump",
            WARNING,
            "What the daemon wrote last is of the future: the clock was set back.",
            "see that the clock is right (timedatectl); ages are wrong until it has caught up",
        ),
        Kind(
            "sqlite-wal-reset",
            NOTICE,
            "This SQLite can corrupt a database that two connections write or checkpoint at once.",
            "the daemon is the only writer: only look, with sqlite3 -readonly",
        ),
    )
}
"""Every kind of problem, by its id."""

_NOT_IN_SENTENCES = ("daemon-not-running", "daemon-starting", "state-disk-low", "output-disk-low")


def alert(kind: str, what: str, remedy: str = "") -> Alert:
    """A problem of the kind with that id, with its usual remedy if there is no better one.

    Both texts become printable lines: they name feeds, paths and what peers say.
    """
    usual = KINDS[kind].remedy
    return Alert(
        kind, KINDS[kind].severity, printable.sentence(what), printable.sentence(remedy) or usual
    )


def is_healthy(alerts: list[Alert]) -> bool:
    """Whether nothing is wrong; notices do not count."""
    return not worst(alerts)


def worst(alerts: list[Alert]) -> str:
    """The worst severity but a notice; empty if nothing is wrong."""
    severities = {alert.severity for alert in alerts}
    return next((severity for severity in (CRITICAL, WARNING) if severity in severities), "")


def sentences(alerts: list[Alert]) -> list[str]:
    """What is wrong, for those who have read `problems` since before there were alerts.

    That no daemon runs, and that a disk becomes full, they see elsewhere.
    """
    return [
        str(Problem(alert.what, alert.remedy))
        for alert in alerts
        if alert.severity != NOTICE and alert.id not in _NOT_IN_SENTENCES
    ]
