"""How old a master's answers get, and how late the sweep sees a change, by --sweep-pause.

The real agenda asks a simulated master in virtual time. `--scale 0.002` takes one in 500 of 750,000
packages, and each step stands for 500. Packages differ in how often they are released, as
those of PyPI do: 20,000 releases a day in all, the most by few. Releases are known from their
builds. What only the sweep sees comes after one release in ten, within some days, and to any
package, 200 times a day. At the end the daemon is down for a day, and afterwards knows of nothing
that happened meanwhile.
"""

from __future__ import annotations

import argparse
import random
import statistics
from heapq import heapify, heappop, heappush, heapreplace

from rich.console import Console
from rich.table import Table

from indexer.base.times import DAY, SECOND, Time, to_sql
from indexer.index import queries
from indexer.piwheels.queues import agenda

PACKAGES = 750_000
RELEASES = 20_000
"""A day, of all packages."""

OTHERS = 200
"""Changes of packages without a release, a day."""

DOWNLOADED = 0.3
"""Of the packages; those that are released most often."""

START: Time = 20_000 * DAY


class Found:
    """What was seen, in hours.

    Attributes:
        late: until a change was seen.
        closed: until a change was seen, since the daemon was back, if it happened meanwhile.
        oldest: the oldest answer, several times a day.
        median: likewise the median one.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.closed: list[float] = []
        self.oldest: list[float] = []
        self.median: list[float] = []


def simulate(pause: float, days: float, scale: float, seed: int = 1) -> Found:
    """Let the agenda ask for `days`, of which the second half counts, and then close a gap."""
    chance = random.Random(seed)
    count = int(PACKAGES * scale)
    agenda.MAX_LIKELY = int(10_000 * scale)
    connection = queries.open_in_memory()
    weights = [1 / (rank + count / 200) for rank in range(count)]
    share = RELEASES * scale / sum(weights) / DAY
    rates = [weight * share for weight in weights]
    now = START

    def ago(rate: float) -> Time:
        return int(min(chance.expovariate(rate), 4000 * DAY))

    def released(package: str, at: Time) -> None:
        connection.execute(
            "UPDATE versions SET released = ? WHERE package = ?", (to_sql(at), package)
        )

    connection.executemany(
        "INSERT INTO packages VALUES (?, '', '')", ((f"p{n}",) for n in range(count))
    )
    connection.executemany(
        "INSERT INTO versions (package, version, released) VALUES (?, '1', ?)",
        ((f"p{n}", to_sql(now - ago(rate))) for n, rate in enumerate(rates)),
    )
    connection.executemany(
        "INSERT INTO download_counts (package, counter_id, downloads_recent) VALUES (?, ?, 1)",
        ((f"p{n}", n) for n in range(int(count * DOWNLOADED))),
    )
    agenda.all_answered(connection, now)
    asked = agenda.Agenda(connection, lambda: now)
    releases = [(now + int(chance.expovariate(rate)), n) for n, rate in enumerate(rates)]
    heapify(releases)
    others: list[tuple[Time, int]] = []
    other = now
    waiting: dict[str, Time] = {}
    found = Found()
    step = int(pause / scale * SECOND)
    end = now + int(days * DAY)
    middle = now + int(days * DAY / 2)
    back = end + DAY
    next_look = middle
    gap: set[str] = set()
    while now < back or gap:
        now += step
        down = end <= now < back
        while releases[0][0] <= now:
            at, n = releases[0]
            heapreplace(releases, (at + int(chance.expovariate(rates[n])), n))
            if down:
                waiting.setdefault(f"p{n}", at)
                gap.add(f"p{n}")
            else:
                released(f"p{n}", at)
                asked.answered(f"p{n}", [], differed=True)
                waiting.pop(f"p{n}", None)
                if f"p{n}" in gap:
                    gap.discard(f"p{n}")
                    found.closed.append((at - back) / SECOND / 3600)
            if chance.random() < 0.1:
                heappush(others, (at + int(chance.expovariate(1 / (2 * DAY))), n))
        while other <= now:
            heappush(others, (other, chance.randrange(count)))
            other += int(chance.expovariate(OTHERS * scale / DAY))
        while others and others[0][0] <= now:
            at, n = heappop(others)
            waiting.setdefault(f"p{n}", at)
            if down:
                gap.add(f"p{n}")
        package = None if down else asked.next(now)
        if package is not None:
            changed = waiting.pop(package, None)
            if package in gap:
                released(package, changed or now)
                gap.discard(package)
                found.closed.append((now - back) / SECOND / 3600)
            elif changed is not None and middle < now < end:
                found.late.append((now - changed) / SECOND / 3600)
            asked.answered(package, [], differed=changed is not None)
        if next_look < now < end:
            next_look += DAY // 4
            ages = asked.ages()
            found.oldest.append((ages.oldest or 0) / 3600)
            found.median.append((ages.median or 0) / 3600)
    connection.close()
    return found


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sweep", description=__doc__)
    parser.add_argument("--scale", type=float, default=0.002)
    parser.add_argument("--pause", type=float, nargs="+", default=[1, 0.5, 0.2, 0.1])
    arguments = parser.parse_args()
    table = Table(
        *("--sweep-pause", "oldest answer", "median", "a change is seen after", "90 %"),
        *("a gap of a day is half closed after", "90 %", "all"),
    )
    for pause in arguments.pause:
        found = simulate(pause, max(8, 80 * pause), arguments.scale)
        late = statistics.quantiles(found.late, n=10)
        closed = statistics.quantiles(found.closed, n=10)
        table.add_row(
            f"{pause} s",
            *(
                f"{hours / 24:.1f} days" if hours > 48 else f"{hours:.1f} h"
                for hours in (
                    statistics.median(found.oldest),
                    statistics.median(found.median),
                    late[4],
                    late[8],
                    closed[4],
                    closed[8],
                    max(found.closed),
                )
            ),
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
