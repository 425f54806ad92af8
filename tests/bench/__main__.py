"""`make bench`: the speeds that the design promises, measured on real processes.

Prints a row for each, and writes them to build/bench.json with a description of the machine.
Every figure is the median of several runs; the least and the greatest stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import zmq
from rich.console import Console
from rich.table import Table

from indexer.base import clock
from indexer.demo.simulation import Farm
from indexer.feed.publisher import FeedPublisher
from indexer.journal.reader import JournalReader
from indexer.messages import decode
from indexer.messages.entries import Accepted
from indexer.messages.types import Position
from indexer.reasons import build_log
from indexer.state import state

COMMAND = str(Path(sys.executable).with_name("piw-indexer"))
DEADLINE = 600


class Figure(NamedTuple):
    """A promised speed and how to measure it; `least` is false where less is better."""

    name: str
    promised: float
    unit: str
    least: bool
    measure: Callable[[Path, float], float]


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the installed command to its end."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, **options
    )


def write_lines(path: Path, messages: Iterable[dict[str, Any]]) -> int:
    """Write messages as JSON lines; how many they are."""
    count = 0
    with path.open("wb") as file:
        for message in messages:
            file.write(orjson.dumps(message) + b"\n")
            count += 1
    return count


@contextmanager
def daemon(folder: Path, *options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A running daemon with its sockets in `folder`, ready."""
    process = subprocess.Popen(
        [
            COMMAND,
            "run",
            *("--state-dir", folder / "state"),
            *("--output-path", folder / "www"),
            *("--changes-queue", f"ipc://{folder}/changes"),
            *("--replay-queue", f"ipc://{folder}/replay"),
            *map(str, options),
        ]
    )
    try:
        wait_for(lambda: (folder / "state" / "daemon.json").exists(), process)
        yield process
    finally:
        process.terminate()
        process.wait()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is so, as long as the process lives."""
    until = time.monotonic() + DEADLINE
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit("the daemon did not get there")
        time.sleep(0.01)


def applied(folder: Path) -> Callable[[], int]:
    """Asks how far the index is."""
    connection = sqlite3.connect(f"file:{folder}/state/index.db?mode=ro", uri=True)
    query = "SELECT value FROM state WHERE key = 'applied_serial'"
    return lambda: int((connection.execute(query).fetchone() or [0])[0])


def live(
    folder: Path, population: Iterable[dict[str, Any]], messages: Iterable[dict[str, Any]]
) -> float:
    """Messages a second from a publisher's file through sockets and journal into the index."""
    write_lines(folder / "population.jsonl", population)
    count = write_lines(folder / "messages.jsonl", messages)
    run("ingest", folder / "population.jsonl", "--state-dir", folder / "state")
    with daemon(folder) as process:
        serial = applied(folder)
        before = serial()
        publisher = subprocess.Popen(
            [
                COMMAND,
                "publish",
                folder / "messages.jsonl",
                *("--state-dir", folder / "publisher"),
                *("--changes-queue", f"ipc://{folder}/changes"),
                *("--replay-queue", f"ipc://{folder}/replay"),
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(lambda: serial() > before, process)
            began, first = time.monotonic(), serial()
            wait_for(lambda: serial() == before + count, process)
            return (before + count - first) / (time.monotonic() - began)
        finally:
            publisher.terminate()
            publisher.wait()


def live_downloads(folder: Path, scale: float) -> float:
    farm = Farm(packages=2000)
    return live(folder, farm.population(), farm.download_messages(int(400_000 * scale)))


def live_builds(folder: Path, scale: float) -> float:
    farm = Farm(packages=20_000)
    return live(folder, [], farm.build_messages(int(40_000 * scale)))


def latencies(folder: Path, scale: float) -> list[float]:
    """Milliseconds from sending a message to its document's rename, at 200 messages a second."""
    count = int(2000 * scale)
    packages = [f"package-{number}" for number in range(count)]
    at = "2026-11-22T14:00:00+00:00"
    write_lines(
        folder / "population.jsonl",
        chain(
            Farm(packages=200).population(),
            ({"msg": "NEWPKG", "at": at, "data": {"package": name}} for name in packages),
        ),
    )
    run(
        *("ingest", folder / "population.jsonl", "--write"),
        *("--state-dir", folder / "state", "--output-path", folder / "www"),
    )
    publisher = FeedPublisher(
        folder / "spool",
        "bench",
        f"ipc://{folder}/changes",
        f"ipc://{folder}/replay",
        clock.now,
    )
    sent: dict[str, float] = {}
    serial = 0

    def send(name: str, description: str) -> None:
        nonlocal serial
        serial += 1
        line = {"msg": "SETDESC", "data": {"package": name, "description": description}}
        message = decode.from_json(orjson.dumps(line), clock.now())
        sent[name] = time.time()
        publisher.publish([Accepted(Position("bench", 0, serial), message)])

    try:
        with daemon(folder, "--settle", 0):
            while not publisher.subscribers:
                publisher.serve(0.01)
            began = time.monotonic()
            for number, name in enumerate(packages):
                while time.monotonic() < began + number / 200:
                    publisher.serve(0.001)
                send(name, f"sent as number {number}")
            until = time.monotonic() + 3
            while time.monotonic() < until:
                publisher.serve(0.1)
    finally:
        publisher.close()
    found = []
    for number, name in enumerate(packages):
        path = folder / "www" / "project" / name / "json" / "index.json"
        assert f'sent as number {number}"' in path.read_text(), f"{name} was not written"
        # A rename changes the inode's ctime.
        found.append((path.stat().st_ctime - sent[name]) * 1000)
    return sorted(found)


_latencies: list[list[float]] = []


def latency_p50(folder: Path, scale: float) -> float:
    _latencies.append(latencies(folder, scale))
    return statistics.median(_latencies[-1])


def latency_p99(folder: Path, scale: float) -> float:
    found = _latencies.pop(0) if _latencies else latencies(folder, scale)
    return found[int(len(found) * 0.99)]


def replay(folder: Path, messages: Iterable[dict[str, Any]], before: int = 0) -> float:
    """Messages a second from the journal into a fresh index, of one process.

    Args:
        folder: to work in.
        messages: what the journal holds.
        before: how many of them prepare the others and do not count.
    """
    write_lines(folder / "messages.jsonl", messages)
    run("ingest", folder / "messages.jsonl", "--state-dir", folder / "state")
    reader = JournalReader(folder / "state" / "journal")
    last = reader.last_serial()
    marks: list[tuple[int, float]] = []
    connection = state.replay(
        reader,
        folder / "index.db",
        last,
        lambda done, total: marks.append((done, time.monotonic())),
    )
    connection.close()
    reader.close()
    first = next(mark for mark in marks if mark[0] >= before)
    return (last - first[0]) / (marks[-1][1] - first[1])


def replay_downloads(folder: Path, scale: float) -> float:
    farm = Farm(packages=2000)
    population = list(farm.population())
    downloads = farm.download_messages(int(600_000 * scale))
    return replay(folder, chain(population, downloads), len(population))


def replay_builds(folder: Path, scale: float) -> float:
    return replay(folder, Farm(packages=20_000).build_messages(int(60_000 * scale)), 1)


def write_everything(folder: Path, scale: float) -> float:
    """Documents a second, of an output tree that is empty."""
    packages = int(100_000 * scale)
    write_lines(folder / "population.jsonl", Farm(packages=packages).population())
    run("ingest", folder / "population.jsonl", "--state-dir", folder / "state")
    os.sync()
    began = time.monotonic()
    run("write", "--state-dir", folder / "state", "--output-path", folder / "www")
    return packages / (time.monotonic() - began)


def many_packages(folder: Path, scale: float) -> int:
    """A state of 600,000 packages with some downloads, published but for the documents."""
    packages = int(600_000 * scale)
    at = "2026-11-22T14:00:00+00:00"
    farm = Farm(packages=2000)
    write_lines(
        folder / "population.jsonl",
        chain(
            farm.population(),
            (
                {"msg": "NEWPKG", "at": at, "data": {"package": f"simulated-{number}"}}
                for number in range(packages - 2000)
            ),
            (
                download(f"simulated_{number}-1.0-py3-none-any.whl")
                for number in range(0, packages - 2000, 7)
            ),
            farm.download_messages(int(100_000 * scale)),
        ),
    )
    run("ingest", folder / "population.jsonl", "--state-dir", folder / "state")
    with sqlite3.connect(folder / "state" / "index.db") as connection:
        connection.execute("DELETE FROM rewrites_pending")
    run("write", "--state-dir", folder / "state", "--output-path", folder / "www")
    return packages


def download(filename: str) -> dict[str, Any]:
    """A download of a file, now."""
    nothing = dict.fromkeys(
        "arch distro_name distro_version os_name os_version py_name py_version installer_name"
        " installer_version setuptools_version".split()
    )
    accessed_at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    return {
        "msg": "LOGDOWNLOAD",
        "data": {"filename": filename, "accessed_at": accessed_at, **nothing},
    }


def counters(folder: Path, scale: float) -> float:
    """Seconds of CPU to apply 1,000 downloads and to write packages.json, in one process."""
    many_packages(folder, scale)
    write_lines(
        folder / "changes.jsonl",
        (download(f"simulated_{number * 7}-1.0-py3-none-any.whl") for number in range(1000)),
    )
    run("ingest", folder / "changes.jsonl", "--state-dir", folder / "state")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("write", "--state-dir", folder / "state", "--output-path", folder / "www")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def memory(folder: Path, scale: float) -> float:
    """MiB resident of the daemon and its writer, after messages and a packages.json."""
    many_packages(folder, scale)
    write_lines(
        folder / "changes.jsonl",
        chain(
            Farm(packages=2000).build_messages(5000),
            Farm(packages=2000).download_messages(100_000),
        ),
    )
    with daemon(folder, "--settle", 0, "--counters-interval", 2) as process:
        serial = applied(folder)
        before = serial()
        run(
            *("publish", folder / "changes.jsonl", "--exit", "--state-dir", folder / "publisher"),
            *("--changes-queue", f"ipc://{folder}/changes"),
            *("--replay-queue", f"ipc://{folder}/replay"),
        )
        wait_for(lambda: serial() == before + 105_000, process)
        time.sleep(8)
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return sum(resident(pid) for pid in (process.pid, *children)) / 1024


def resident(pid: object) -> float:
    """KiB of a process, what it shares with others counted in proportion."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return float(line.split()[1])
    return 0.0


def read_logs(folder: Path, scale: float) -> float:
    """MB in a second of CPU of a build's log of 50 MB, whose reason is at its end."""
    lines = b"".join(
        b"2026-11-28T04:00:%02d,%03d   arm-linux-gnueabihf-gcc -DNDEBUG -g -O2 -Wall -fPIC"
        b" -Werror=format-security -I/usr/include/python3.11 -c src/part%d.c -o build/part%d.o\n"
        b"2026-11-28T04:00:%02d,%03d   src/part%d.c:7:9: warning: unused variable [-Wunused]\n"
        b"2026-11-28T04:00:%02d,%03d   copying package/errors%d.py -> build/lib/package\n"
        % (n % 60, n % 1000, n, n, n % 60, n % 1000, n, n % 60, n % 1000, n)
        for n in range(2000)
    )
    path = folder / "log.txt"
    with path.open("wb") as file:
        for _ in range(max(1, int(50_000_000 * scale) // len(lines))):
            file.write(lines)
        file.write(b"  src/last.c:3:10: fatal error: ffi.h: No such file or directory\n")
    began = time.process_time()
    with path.open("rb") as file:
        found = build_log.read(file)
    took = time.process_time() - began
    assert found == ("missing-header", "ffi.h")
    return path.stat().st_size / 1e6 / took


FIGURES = [
    Figure("live feed, LOGDOWNLOAD", 20_000, "messages/s", True, live_downloads),
    Figure("live feed, LOGBUILD with 3 files", 2_000, "messages/s", True, live_builds),
    Figure("message to document, 200/s, p50", 50, "ms", False, latency_p50),
    Figure("message to document, 200/s, p99", 250, "ms", False, latency_p99),
    Figure("rebuild, LOGDOWNLOAD", 100_000, "messages/s", True, replay_downloads),
    Figure("rebuild, LOGBUILD with 3 files", 10_000, "messages/s", True, replay_builds),
    Figure("write everything", 2_000, "documents/s", True, write_everything),
    Figure("packages.json of 600,000 packages", 1, "s of CPU", False, counters),
    Figure("memory at 600,000 packages", 200, "MiB", False, memory),
    Figure("reason from a build's log", 50, "MB/s of CPU", True, read_logs),
]


def machine() -> dict[str, Any]:
    """What was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    with tempfile.TemporaryFile() as file:
        began = time.monotonic()
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        sync = (time.monotonic() - began) / 50
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "fsync_ms": round(sync * 1000, 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "zeromq": zmq.zmq_version(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each figure")
    parser.add_argument("--scale", type=float, default=1.0, help="of the amounts of data")
    parser.add_argument("--only", default="", help="figures whose name holds this text")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    arguments = parser.parse_args()
    console = Console()
    described = machine()
    console.print(" ".join(f"{key}: {value}," for key, value in described.items()).rstrip(","))
    table = Table("figure", "promised", "median", "least", "greatest", "unit", "met", box=None)
    rows: list[dict[str, Any]] = []
    base = Path(tempfile.mkdtemp(prefix="piw-bench-"))
    try:
        for figure in FIGURES:
            if arguments.only not in figure.name:
                continue
            found = []
            for number in range(arguments.runs):
                # Removing the last one's files would cost the next one time: all go at the end.
                folder = base / f"{len(rows)}-{number}"
                folder.mkdir(parents=True)
                found.append(figure.measure(folder, arguments.scale))
                console.print(f"{figure.name}: {found[-1]:,.2f} {figure.unit}", style="dim")
            median = statistics.median(found)
            met = median >= figure.promised if figure.least else median <= figure.promised
            rows.append(
                {
                    "figure": figure.name,
                    "promised": figure.promised,
                    "median": round(median, 2),
                    "runs": [round(one, 2) for one in found],
                    "unit": figure.unit,
                    "met": met,
                }
            )
            table.add_row(
                figure.name,
                f"{'≥' if figure.least else '≤'} {figure.promised:,}",
                *(f"{one:,.1f}" for one in (median, min(found), max(found))),
                figure.unit,
                "yes" if met else "NO",
            )
    finally:
        shutil.rmtree(base, ignore_errors=True)
    console.print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"machine": described, "figures": rows}, indent=2))
    console.print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
