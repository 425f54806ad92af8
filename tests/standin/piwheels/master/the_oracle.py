"""The threads that execute requests; they collect the methods of `Database` as piwheels does."""

from __future__ import annotations

import inspect
import json
import logging
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any

from .db import Database


class TheOracle(Thread):
    """Executes the requests of a file: one a line, [NAME, data], times as {"$datetime": text}."""

    def __init__(self, dsn: str, requests: Path) -> None:
        super().__init__()
        self.db = Database(dsn)
        self.handlers = {
            method.message: (getattr(self.db, name), method.data_to_args)
            for name, method in inspect.getmembers(Database)
            if hasattr(method, "message")
        }
        self._requests = requests

    def run(self) -> None:
        for line in self._requests.read_text().splitlines():
            name, data = json.loads(line, object_hook=_revived)
            handler, data_to_args = self.handlers[name]
            try:
                handler(*data_to_args(data))
            except Exception:  # noqa: BLE001 - as the real one does
                logging.getLogger("master").error("Error handling db request: %s", name)
        self.db.close()


def _revived(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value["$datetime"]) if "$datetime" in value else value
