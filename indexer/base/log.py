"""Logging, as plain lines or as entries of systemd's journal with fields.

Every call names its event (`extra=event(...)`), by which the journal can be filtered. docs/logs.md
lists all events.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from . import printable

NOTICE = 25
"""Between INFO and WARNING: normal, but shown on a terminal, too."""

_SOCKET = "PIW_INDEXER_JOURNAL_SOCKET"
"""In the environment of tests: a socket in place of the journal's."""

MAX_ENTRY = 8000
"""Characters of an entry, before what follows its first line is indented."""

_FORMAT = "piw-indexer: %(message)s"


def event(name: str, /, **fields: object) -> dict[str, Any]:
    """The `extra` of a log call: the name of the event, which never changes, and its fields.

    Args:
        name: in kebab-case; becomes PIW_EVENT.
        fields: become PIW_<FIELD>, except those that are None.
    """
    return {"piw_event": name, "piw_fields": fields}


def set_up(level: int | None) -> None:
    """Log to systemd's journal if stderr goes there, else as plain lines to stderr.

    Args:
        level: the lowest that is logged; None for INFO in the journal and NOTICE elsewhere.
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
            pass  # there is no such socket, but stderr still goes to the journal
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
    if "JOURNAL_STREAM" not in os.environ:
        return False
    from logging_journald import check_journal_stream  # it takes longer than all else of `status`

    try:
        return bool(check_journal_stream())
    except (OSError, ValueError):
        return False  # stderr is closed, or another program set the variable


def logs_to_journal() -> bool:
    """True if `set_up` chose the journal."""
    loggers = logging.getLogger(), logging.getLogger("indexer")  # the bridge has them apart
    return any(isinstance(handler, JournalHandler) for it in loggers for handler in it.handlers)


class Formatter(logging.Formatter):
    """Makes entries printable and limits their length; later lines are indented.

    So a name that contains a newline cannot forge an entry.
    """

    def format(self, record: logging.LogRecord) -> str:
        first, *others = printable.text(super().format(record), MAX_ENTRY).split("\n")
        return "\n".join([first, *(line if line[:2] == "  " else f"  {line}" for line in others)])


class JournalHandler(logging.Handler):
    """Sends records to systemd's journal, with their fields.

    Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/

    Raises OSError if there is no journal.
    """

    def __init__(self) -> None:
        from logging_journald import JournaldTransport

        super().__init__()
        self.setFormatter(Formatter("%(message)s"))
        path = os.environ.get(_SOCKET) or str(JournaldTransport.SOCKET_PATH)
        os.stat(path)
        # Not connected, because the journal may be restarted.
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
