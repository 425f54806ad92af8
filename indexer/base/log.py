"""What is logged, and where to: plain lines, or entries of systemd's journal with fields.

Every call names its event (`extra=event(...)`), which the journal can be filtered by; one entry
an event. docs/logs.md lists them all.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from logging_journald import JournaldTransport, check_journal_stream

from . import printable

NOTICE = 25
"""Between INFO and WARNING: normal, but worth to be seen on a terminal, too."""

_SOCKET = "PIW_INDEXER_JOURNAL_SOCKET"
"""In the environment: a socket in place of the journal's, for tests."""

MAX_ENTRY = 8000
"""Characters of an entry, before what follows its first line is indented."""

_FORMAT = "piw-indexer: %(message)s"


def event(name: str, /, **fields: object) -> dict[str, Any]:
    """What a log call gives as `extra`: the event's lasting name, and what it is about.

    Args:
        name: in kebab-case; becomes PIW_EVENT.
        fields: become PIW_<FIELD>; those that are None are left out.
    """
    return {"piw_event": name, "piw_fields": fields}


def set_up(level: int | None) -> None:
    """Log to systemd's journal if stderr goes there, else as plain lines to stderr.

    Args:
        level: the lowest that is logged; None for the normal one, with which the journal tells
            the life of the daemon, and a terminal what one should know.
    """
    logging.addLevelName(NOTICE, "NOTICE")
    in_journal = goes_to_journal()
    if level is None:
        level = logging.INFO if in_journal else NOTICE
    handlers: list[logging.Handler] | None = None
    if in_journal:
        try:
            handlers = [JournalHandler()]
        except OSError:
            pass  # no such socket: its stream takes plain lines
    if handlers is None:
        plain = logging.StreamHandler(sys.stderr)
        plain.setFormatter(Formatter(_FORMAT))
        handlers = [plain]
    logging.basicConfig(level=level, handlers=handlers)


def goes_to_journal() -> bool:
    """True if stderr is systemd's journal.

    Source: systemd.exec(5), JOURNAL_STREAM,
    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html
    """
    try:
        return bool(check_journal_stream())
    except (OSError, ValueError):
        return False  # stderr is closed, or somebody else set the variable


def logs_to_journal() -> bool:
    """True if `set_up` chose the journal."""
    loggers = logging.getLogger(), logging.getLogger("indexer")  # the bridge has them apart
    return any(isinstance(handler, JournalHandler) for it in loggers for handler in it.handlers)


class Formatter(logging.Formatter):
    """Entries that are printable and bounded; what follows a first line is indented.

    A name with a newline in it cannot pass for an entry of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        first, *others = printable.text(super().format(record), MAX_ENTRY).split("\n")
        return "\n".join([first, *(line if line[:2] == "  " else f"  {line}" for line in others)])


class JournalHandler(logging.Handler):
    """Sends records to systemd's journal, with their fields.

    Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/

    Raises:
        OSError: if there is no journal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(Formatter("%(message)s"))
        path = os.environ.get(_SOCKET) or str(JournaldTransport.SOCKET_PATH)
        os.stat(path)
        # The journal may be restarted: its socket is looked up for every entry.
        self._transport = JournaldTransport(path, connected=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry; a line on stderr, which is the journal's, if that fails."""
        try:
            message = self.format(record)
            try:
                self._transport.send(_fields(record, message).items())
            except OSError:
                sys.stderr.write(f"{message}\n")
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)


def _fields(record: logging.LogRecord, message: str) -> dict[str, object]:
    fields: dict[str, object] = {
        "MESSAGE": message,
        "PRIORITY": _priority(record.levelno),
        "SYSLOG_IDENTIFIER": "piw-indexer",
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
        "LOGGER": record.name,
    }
    if hasattr(record, "piw_event"):
        fields["PIW_EVENT"] = record.piw_event
    for name, value in getattr(record, "piw_fields", {}).items():
        if value is not None:
            fields[f"PIW_{name.upper()}"] = (
                value if isinstance(value, int) else printable.line(str(value))
            )
    return fields


def _priority(level: int) -> int:
    """syslog's number of a level; source: syslog(3)."""
    for least, priority in (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (NOTICE, 5),
        (logging.INFO, 6),
    ):
        if level >= least:
            return priority
    return 7
