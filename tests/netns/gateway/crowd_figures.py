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
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Final

from tests.netns.gateway.crowd import crowd_at, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.gateway.hub import Hub

ALONE: Final = 4.0  # seconds
EACH: Final = 0.005  # seconds between pings


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
    with waiting(site, users) as crowd:
        with round_trips(site) as beside:
            all_in = crowd.ask()
        assert len(set(all_in["addresses"])) == users
        site.wait_for(users + 1)
    site.wait_for(1)
    return all_in["seconds"], alone, beside


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
    every = [one for _, alone, _ in rounds for one in alone]
    meanwhile = [one for _, _, beside in rounds for one in beside]
    print(f"all {given.users} in after {', '.join(f'{seconds:.1f}' for seconds, *_ in rounds)} s")
    for what, found in (("alone", every), ("meanwhile", meanwhile)):
        print(f"RTT {what}: median {median(found):.2f} ms, p99 {p99(found):.2f} ms, {len(found)}")
    print(f"p99: {p99(meanwhile) / p99(every):.2f} times")


if __name__ == "__main__":
    main()
