"""Talk to systemd, if it started us.

Source: sd_notify(3), https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket

from . import printable


class Notifier:
    """Reports the state of the service to systemd; does nothing without systemd."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]

    def notify(self, **state: object) -> None:
        """Send `READY=1`, `STATUS=...`, `WATCHDOG=1`, `STOPPING=1`..."""
        if not self._address:
            return
        message = "\n".join(f"{key}={printable.line(str(value))}" for key, value in state.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            try:
                notify.sendto(message.encode(), self._address)
            except OSError:
                pass  # systemd is restarting; the next message will reach it
