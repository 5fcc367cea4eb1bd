"""What many peers cost a hub, and what many prefixes: the figures of docs/performance.md.

    python -m tests.netns.gateway.hub_figures [--peers 200] [--rounds 5] [--seconds 4]
    python -m tests.netns.gateway.hub_figures --prefixes 100000

As root, with iperf3. Each round measures the busy peer alone and beside all the others, in turn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from gateway import config as configuration
from tests.netns.gateway.hub import Hub, hub_with
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST: Final = 90.0  # seconds to wait for a session
SETTLED: Final = 2.0  # seconds after the last handshake


@contextmanager
def _iperf3(site: Hub) -> Iterator[None]:
    server = subprocess.Popen(
        ["ip", "netns", "exec", site.hub.namespace, "iperf3", "-s", "-B", site.hub.tunnel],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        server.kill()
        server.wait()


def _throughput(site: Hub, seconds: int, *, out: bool) -> tuple[float, float]:
    """Gb/s of one TCP stream between the busy peer and the hub; its data plane's CPU, in s/GB."""
    before = site.cpu()["data"]
    done = site.busy.inside(
        "iperf3", "-J", "-c", site.hub.tunnel, "-t", str(seconds), *(["-R"] if out else [])
    )
    spent = site.cpu()["data"] - before
    came = json.loads(done.stdout)["end"]["sum_received"]
    return came["bits_per_second"] / 1e9, spent / came["bytes"] * 1e9


def _of_peers(count: int, rounds: int, seconds: int) -> None:
    alone: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    beside: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    rates, idle, quiet, memory = [], [], [], []
    with tempfile.TemporaryDirectory() as place, hub_with(count, Path(place)) as site:
        site.hub.start()
        before = site.memory()
        with site.swarm() as others:  # the first time: what memory it takes, from nothing
            site.wait_for(count)
            time.sleep(SETTLED)
            grown = {name: (size - before[name]) / count for name, size in site.memory().items()}
            rates.append(count / others.setup["seconds"])
        site.busy.start()
        site.wait_for(1)
        with _iperf3(site):
            for _ in range(rounds):
                for out in (False, True):
                    alone[out].append(_throughput(site, seconds, out=out))
                quiet.append(_busy_share(site, seconds))
                with site.swarm() as others:
                    site.wait_for(count + 1)
                    rates.append(count / others.setup["seconds"])
                    time.sleep(SETTLED)
                    for out in (False, True):
                        beside[out].append(_throughput(site, seconds, out=out))
                    idle.append(_busy_share(site, seconds))
                    memory.append(sum(site.memory().values()) - sum(before.values()))
                    assert others.ask()["connected"] == count
                site.wait_for(1)
    print(f"set-up: {_shown(rates)} handshakes a second")
    print("memory a peer, kB:", {name: round(size / 1000, 1) for name, size in grown.items()})
    print(f"memory of all after each round, MB: {_shown([size / 1e6 for size in memory])}")
    for out, way in ((False, "busy peer to hub"), (True, "hub to busy peer")):
        for number, unit in enumerate(("Gb/s", "s of the data plane's CPU a GB")):
            one, many = ([run[number] for run in runs[out]] for runs in (alone, beside))
            ratio = median(many) / median(one)
            print(f"{way}, {unit}: alone {_shown(one)}, beside {_shown(many)}: {ratio:.1%}")
    print(f"CPU with nobody but the busy peer, idle: {_shown(quiet)} %; with all: {_shown(idle)} %")


def _busy_share(site: Hub, seconds: int) -> float:
    """Percent of one core that the hub takes while nobody sends anything."""
    before = sum(site.cpu().values())
    time.sleep(seconds)
    return 100 * (sum(site.cpu().values()) - before) / seconds


def _of_prefixes(count: int) -> None:
    with tempfile.TemporaryDirectory() as place, hub_with(0, Path(place)) as site:
        prefixes = [f"10.{128 + n // 65536}.{n // 256 % 256}.{n % 256}/32" for n in range(count)]
        site.hub.config = site.hub.config.replace(
            '"10.0.4.2/32"', ", ".join(f'"{prefix}"' for prefix in ["10.0.4.2/32", *prefixes])
        )
        for side in (site.hub, site.busy):  # the routes are set within it
            side.config = side.config.replace("[tun]", "[handshake]\ndeadline = 60\n[tun]")
        site.hub.file.write_text(site.hub.config)
        started = time.monotonic()
        configuration.load(site.hub.file)
        print(f"load: {time.monotonic() - started:.1f} s")
        started = time.monotonic()
        site.hub.launch()
        wait_until(site.hub.healthy, "the hub is ready", within=600)
        print(
            f"ready: {time.monotonic() - started:.1f} s; CPU {site.cpu()}; memory {site.memory()}"
        )
        started = time.monotonic()
        site.busy.launch()
        with suppress(AssertionError):
            wait_until(lambda: site.established() == 1, "a session", within=LONGEST)
        print(f"session: {site.hub.peer()['state']}, after {time.monotonic() - started:.1f} s")
        print(f"handshakes: {site.hub.status()['handshakes']}", site.busy.log()[-500:], sep="\n")
        started = time.monotonic()
        site.hub.gateway("status", "--format", "json")
        print(f"status: {time.monotonic() - started:.1f} s")
        started = time.monotonic()
        assert site.hub.process is not None
        site.hub.process.terminate()
        print(f"stopped: status {site.hub.process.wait(600)}, {time.monotonic() - started:.1f} s")
        site.hub.process = None


def _shown(figures: list[float]) -> str:
    return f"{median(figures):.3g} ({min(figures):.3g} to {max(figures):.3g})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--prefixes", type=int)
    given = parser.parse_args()
    if given.prefixes is not None:
        _of_prefixes(given.prefixes)
    else:
        _of_peers(given.peers, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
