"""Every problem that `status` can report, and what to do about it.

`KINDS` lists them; `status`, `top`, `metrics` and the docs use its ids.
"""

from __future__ import annotations

from typing import NamedTuple

from ..base import printable
from ..base.errors import Problem

CRITICAL = "critical"
"""Documents do not follow what happens, or something is lost."""

WARNING = "warning"
"""It works, but somebody should look at it."""

NOTICE = "notice"
"""Good to know; nothing is wrong."""


class Kind(NamedTuple):
    """A kind of problem.

    Attributes:
        id: never changes, so monitoring can rely on it.
        severity: `CRITICAL`, `WARNING` or `NOTICE`.
        means: what it means, in a sentence.
        remedy: what to do, unless the case at hand has a better remedy.
    """

    id: str
    severity: str
    means: str
    remedy: str


class Alert(NamedTuple):
    """A present problem: the id and severity of its kind, what is wrong, and what to do."""

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
            "install that version again, or restore an older backup (docs/operating.md)",
        ),
        Kind(
            "daemon-not-running",
            CRITICAL,
            "No daemon runs: no messages are accepted, and nothing is published.",
            "systemctl start piw-indexer; journalctl -u piw-indexer shows why it ended",
        ),
        Kind(
            "daemon-starting",
            WARNING,
            "The daemon has started, and is catching up with the journal.",
            "wait; systemctl status piw-indexer shows its progress",
        ),
        Kind(
            "daemon-silent",
            CRITICAL,
            "The daemon runs, but has not reported its state for some time.",
            "look at its log (journalctl -u piw-indexer), and whether the disk is full or fails"
            " (df -h, dmesg); systemctl restart piw-indexer loses nothing",
        ),
        Kind(
            "note-unreadable",
            WARNING,
            "A note of the daemon, a check or a backup for `status` is damaged, and ignored.",
            "see who wrote it (ls -l); the daemon writes its note every second, `piw-indexer"
            " check` and `piw-indexer backup` write theirs when they run next",
        ),
        Kind(
            "reload-refused",
            WARNING,
            "The changed configuration has a mistake; the daemon continues with the old one.",
            "correct it (piw-indexer run --validate checks it), then systemctl reload piw-indexer",
        ),
        Kind(
            "disk-full",
            CRITICAL,
            "The file system of the state has less than 1 MiB left: no messages are accepted.",
            "free some disk space (df -h)",
        ),
        Kind(
            "intake-waiting",
            CRITICAL,
            "The journal or the index cannot be written; intake waits, and tries again by itself.",
            "look at the disk (df -h, dmesg)",
        ),
        Kind(
            "index-failing",
            CRITICAL,
            "The daemon cannot read the index, or cannot record in it what was published.",
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
            "look for messages of the writer (journalctl -u piw-indexer)",
        ),
        Kind(
            "feed-broken",
            CRITICAL,
            "The publisher no longer has messages that were missed: something is lost.",
            "fetch it from the master again: systemctl stop piw-indexer, then piw-indexer backfill"
            " --db-queue ADDRESS (or --dsn), then systemctl start piw-indexer",
        ),
        Kind(
            "feed-refused",
            CRITICAL,
            "The publisher refuses our key, or has a key that we do not expect.",
            "compare the keys on both sides (piw-indexer keys FILE --show)",
        ),
        Kind(
            "peer-not-believed",
            CRITICAL,
            "A socket that we should connect to belongs to a user who is not trusted.",
            "see who it is (ss -xlp); if it is the user of the peer, name it with --ipc-peer",
        ),
        Kind(
            "feed-name-taken",
            CRITICAL,
            "A publisher used the name of a feed that belongs to another address, and was ignored.",
            "give each publisher another name with its --feed; if the feed has moved, take its old"
            " address out of --changes-queue; systemctl reload piw-indexer",
        ),
        Kind(
            "feed-never-heard",
            WARNING,
            "Nothing has come from a publisher since the daemon started.",
            "see that the publisher runs, and that --changes-queue is its address",
        ),
        Kind(
            "feed-silent",
            WARNING,
            "A publisher has sent nothing for more than ten seconds, not even a heartbeat.",
            "see that the publisher runs, and that --changes-queue is its address",
        ),
        Kind(
            "feed-behind",
            WARNING,
            "A publisher's messages have been waiting to be accepted for more than a minute.",
            "see what else the machine does (top), and that --replay-queue is the publisher's"
            " address",
        ),
        Kind(
            "feed-filling",
            WARNING,
            "The daemon has been fetching missing messages for more than ten seconds.",
            "wait; if the lag does not shrink, see that --replay-queue is the publisher's address",
        ),
        Kind(
            "source-failing",
            WARNING,
            "The piwheels master is away or silent, entries of its log were lost, or the logs of"
            " its builds cannot be read.",
            "see that piw-master runs, and that --status-queue, --db-queue, --log-queue and"
            " --log-forward are its addresses; if no master runs, remove them from"
            " /etc/piw-indexer.conf",
        ),
        Kind(
            "slave-ill",
            WARNING,
            "The failures, the speed or the platform tags of a build slave leave those of the"
            " others.",
            "look at its disk, memory, temperature and clock (piw-indexer farm), at the logs of its"
            " last builds, and at what was changed there; the alert ends by itself when its builds"
            " are like the others' again",
        ),
        Kind(
            "index-behind",
            WARNING,
            "The index lacks messages of the journal.",
            "start the daemon, which catches up, or type piw-indexer write",
        ),
        Kind(
            "quarantine",
            WARNING,
            "Messages were refused, and nobody has looked at them yet.",
            "piw-indexer quarantine lists them; piw-indexer quarantine ID --dismiss puts one aside",
        ),
        Kind(
            "check-differences",
            WARNING,
            "The last check found differences.",
            "systemctl stop piw-indexer, then piw-indexer check --fix, then systemctl start"
            " piw-indexer",
        ),
        Kind(
            "backup-failed",
            WARNING,
            "The last backup to a directory failed.",
            "see what it says, and type piw-indexer backup DIRECTORY; if that directory is not used"
            " any more, remove backup-failure.json from the state directory",
        ),
        Kind(
            "backup-old",
            WARNING,
            "The last backup is more than eight days old.",
            "type piw-indexer backup DIRECTORY, and see why it does not run by itself (systemctl"
            " list-timers, crontab -l)",
        ),
        Kind(
            "state-disk-low",
            WARNING,
            "The file system of the state has less than 1 GiB left, or less than the journal grows"
            " in two months.",
            "free some disk space, or archive old months (piw-indexer checkpoint)",
        ),
        Kind(
            "output-disk-low",
            WARNING,
            "The file system of the documents has less than 1 GiB left.",
            "free some disk space there (df -h)",
        ),
        Kind(
            "log-held",
            WARNING,
            "Somebody reads a database for so long that its write-ahead log cannot be merged.",
            "end that reader, such as a shell or a pager that was left open (fuser -v index.db)",
        ),
        Kind(
            "clock-jump",
            WARNING,
            "The clock was set back: the daemon's last note is from the future.",
            "see that the clock is right (timedatectl); ages are wrong until it has caught up",
        ),
        Kind(
            "rules-newer",
            NOTICE,
            "Logs of failed builds were read with older rules than this version has.",
            "systemctl stop piw-indexer, then piw-indexer classify --again DIRECTORY (the master's"
            " logs), then systemctl start piw-indexer",
        ),
        Kind(
            "sqlite-wal-reset",
            NOTICE,
            "This SQLite can corrupt a database that two connections write or checkpoint at once.",
            "open the databases with sqlite3 -readonly only: the daemon must be the only writer",
        ),
    )
}
"""Every kind of problem, by its id."""

_NOT_IN_SENTENCES = ("daemon-not-running", "daemon-starting", "state-disk-low", "output-disk-low")


def alert(kind: str, what: str, remedy: str = "") -> Alert:
    """An alert of the kind with that id, with the usual remedy unless a better one is given.

    Both texts become printable lines, because they repeat names, paths and what peers say.
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
    """The field `problems` of `status --json`, which is older than `alerts`.

    It never had that no daemon runs, or that a disk becomes full.
    """
    return [
        str(Problem(alert.what, alert.remedy))
        for alert in alerts
        if alert.severity != NOTICE and alert.id not in _NOT_IN_SENTENCES
    ]
