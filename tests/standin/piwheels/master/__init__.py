"""The master: parses its arguments, runs its threads, and ends when it is told to."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

from .. import __version__
from .db import Database
from .the_oracle import TheOracle


class PiWheelsMaster:
    """What `piw-master` calls."""

    @staticmethod
    def configure_parser() -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description="A stand-in for piw-master.")
        parser.add_argument("--version", action="version", version=__version__)
        parser.add_argument("-d", "--dsn", required=True)
        parser.add_argument("--requests", type=Path, action="append", default=[])
        parser.add_argument("--dawdle", type=float, default=0.0)
        parser.add_argument("--stay", action="store_true", help="until SIGTERM")
        parser.add_argument("--fail", type=int, default=0, help="end with this status")
        return parser

    def __call__(self, args: list[str] | None = None) -> int | None:
        config = self.configure_parser().parse_args(args)
        logging.getLogger().addHandler(logging.StreamHandler())
        logging.getLogger().setLevel(logging.INFO)
        Database.dawdle = config.dawdle
        tasks = [TheOracle(config.dsn, requests) for requests in config.requests]
        Database(config.dsn).close()
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        try:
            for task in tasks:
                task.start()
            logging.getLogger("master").info("all tasks ready, umask %o", _umask())
            while config.stay:
                time.sleep(0.05)
        except SystemExit:
            logging.getLogger("master").warning("shutting down on SIGTERM")
        finally:
            for task in tasks:
                task.join()
        return config.fail or None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


main = PiWheelsMaster()
