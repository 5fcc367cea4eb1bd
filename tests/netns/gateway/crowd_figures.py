"""What it costs when many users log in at once: the figures of docs/performance.md.

    python -m tests.netns.gateway.crowd_figures [--users 50] [--rounds 3]

As root. Each round takes the round trips of a busy peer's tunnel alone, and while all log in.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

from tests.netns.gateway.crowd import crowd_at, logging_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.hub import Hub

ALONE: Final = 6.0  # seconds
EACH: Final = 0.01  # seconds between pings


@contextmanager
def round_trips(site: Hub) -> Iterator[list[float]]:
    """Ping through the busy peer's tunnel meanwhile; at the end, milliseconds of each."""
    found: list[float] = []
    with tempfile.TemporaryFile("w+") as output:
        ping = subprocess.Popen(
            ["ip", "netns", "exec", site.busy.namespace,
             "ping", "-n", "-i", str(EACH), site.hub.tunnel],
            stdout=output,
        )  # fmt: skip
        try:
            yield found
        finally:
            ping.terminate()
            ping.wait(10)
        output.seek(0)
        found += map(float, re.findall(r"time=(\S+)", output.read()))


def p99(round_trips: list[float]) -> float:
    return quantiles(round_trips, n=100)[98]


def measure(site: Hub, users: int) -> tuple[float, list[float], list[float]]:
    """Seconds until all are in; round trips alone, and meanwhile, in milliseconds."""
    with round_trips(site) as alone:
        time.sleep(ALONE)
    with ExitStack() as stay:
        with round_trips(site) as beside:
            crowd = stay.enter_context(logging_in(site, users))
        assert len(set(crowd.setup["addresses"])) == users
        site.wait_for(users + 1)
        seconds = crowd.setup["seconds"]
    site.wait_for(1)
    return seconds, alone, beside


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, crowd_at(given.users, Path(place)) as site:
        site.hub.start()
        site.busy.start()
        site.wait_for(1)
        rounds = [measure(site, given.users) for _ in range(given.rounds)]
        print("logins:", site.hub.status()["users"]["logins"])
    for seconds, alone, beside in rounds:
        print(
            f"all {given.users} in after {seconds:.1f} s; RTT alone median {median(alone):.2f} ms,"
            f" p99 {p99(alone):.2f} ms; meanwhile {median(beside):.2f} ms, {p99(beside):.2f} ms"
            f" ({len(beside)} pings): {p99(beside) / p99(alone):.2f} times"
        )


if __name__ == "__main__":
    main()
