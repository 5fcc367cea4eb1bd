"""What a storm of strangers costs a tunnel: the table of docs/performance.md.

    python -m tests.netns.gateway.storm_figures [--rounds 5] [--nice N]

As root. Each round measures every kind of weather once, in turn. `--nice` gives gw-a's control
plane another priority than it has by itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.netns.gateway.hub import cpu_of
from tests.netns.gateway.storm import Strangers, outcomes, percentile, refusals, strangers
from tests.netns.gateway.two_gateways import two_namespaces, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.netns.gateway.storm import Weather

PINGS = 400
Kinds = dict[str, "Callable[[], AbstractContextManager[Weather | None]]"]


def _kinds(outside: Strangers) -> Kinds:
    return {
        "calm": nullcontext,
        "500 sources, a port of nobody": outside.dummy,
        "500 sources": lambda: outside.storm(sources=500),
        "one source": lambda: outside.storm(sources=1),
        "the peer's own address": outside.storm_from_home,
    }


def _measure(outside: Strangers, name: str, kinds: Kinds) -> dict[str, float]:
    a = outside.pair.a
    control = a.planes()["control"]
    before = outcomes(outside.pair)
    with kinds[name]() as weather:
        if weather is not None:
            weather.wait_until_it_blows()
        if weather is not None and "nobody" not in name:
            least = sum(before.values()) + 200
            wait_until(lambda: refusals(outside.pair) > least, "the storm arrives")
        spent, started = cpu_of(control), os.times().elapsed
        times = outside.round_trips(PINGS)
        share = (cpu_of(control) - spent) / (os.times().elapsed - started)
        back = outside.cut_and_come_back()
    found = {
        "rtt p50 ms": percentile(times, 50),
        "rtt p99 ms": percentile(times, 99),
        "control cpu %": 100 * share,
        "back s": back,
    }
    if weather is not None:
        after = outcomes(outside.pair)
        found["calls/s"] = weather.calls / weather.seconds
        for code in ("tls", "closed", "storm", "rate", "busy"):
            found[f"{code}/s"] = (after.get(code, 0) - before.get(code, 0)) / weather.seconds
    return found


def main() -> None:
    """Print medians and the worst of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nice", type=int)
    given = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (
        tempfile.TemporaryDirectory() as place,
        two_namespaces(Path(place)) as pair,
        strangers(pair, Path(place)) as outside,
    ):
        pair.start()
        if given.nice is not None:
            os.setpriority(os.PRIO_PROCESS, pair.a.planes()["control"], given.nice)
        kinds = _kinds(outside)
        for _ in range(given.rounds):
            for name in kinds:
                for key, value in _measure(outside, name, kinds).items():
                    figures[name][key].append(value)
    for name, row in figures.items():
        cells = (f"{key} {median(all_):.3g} (most {max(all_):.3g})" for key, all_ in row.items())
        print(f"{name}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
