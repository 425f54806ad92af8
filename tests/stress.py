"""Run a pytest command again and again while every processor is busy, and list what failed.

    python -m tests.stress 10 python -m pytest -q

A test that fails once in ten runs shows a fault of the product or of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
"""A program that keeps one processor busy until the process that started it has ended."""


def main(count: int, command: list[str]) -> int:
    """Run `command` `count` times.

    Returns:
        1 if a run failed, else 0.
    """
    failures: Counter[str] = Counter()
    failed_runs = 0
    for _ in range(os.cpu_count() or 1):
        subprocess.Popen([sys.executable, "-c", BUSY])
    for number in range(1, count + 1):
        print(f"run {number} of {count}", flush=True)
        with tempfile.TemporaryDirectory(prefix="piw-stress-") as cache:
            status = subprocess.run([*command, "-o", f"cache_dir={cache}"], check=False).returncode
            found = Path(cache, "v", "cache", "lastfailed")
            failures.update(list(json.loads(found.read_text())) if found.exists() else ())
        failed_runs += status != 0
    print(f"{failed_runs} of {count} runs failed, {len(failures)} tests failed at least once")
    for test, times in failures.most_common():
        print(f"{times:4} {test}")
    return 1 if failed_runs else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
