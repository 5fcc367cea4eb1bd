"""netns.sh: large configurations load, start and stop in bounded time."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.netns.gateway.layouts import ip, ping
from tests.netns.gateway.two_gateways import GATEWAY, run, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

PEERS: Final = 1000
EACH: Final = 5  # prefixes
CHECKED_WITHIN: Final = 5.0  # seconds; stated on an idle machine: see the printed line
STARTED_WITHIN: Final = 30.0
STOPPED_WITHIN: Final = 10.0


def many_peers() -> str:
    """Tables of peers that never come, each with IPv4 and IPv6 prefixes."""
    tables = []
    for number in range(PEERS - 1):
        high, low = divmod(number, 250)
        prefixes = [f"10.{100 + high}.{low}.{16 * part}/28" for part in range(EACH - 2)]
        prefixes += [f"fd01:{number:x}::/64", f"fd02:{number:x}::1/128"]
        tables.append(f"[peers.site-{number}]\nprefixes = {json.dumps(prefixes)}\n")
    return "".join(tables)


def barriers(side: Gateway) -> int:
    shown = ip(side.namespace, "route show proto 155") + ip(
        side.namespace, "-6 route show proto 155"
    )
    return shown.count("unreachable ")


def test_a_thousand_peers(pair: Pair) -> None:
    """Test that large configs work (netns.sh: "things that usually cause split responses").

    1,000 peers with 5,000 prefixes: all are taken, and shown again; the one that comes gets a
    tunnel; a stop removes every route.
    """
    pair.a.config += many_peers()
    pair.a.file.write_text(pair.a.config)
    took = [time.monotonic()]
    done = run(*GATEWAY, "check", "-c", str(pair.a.file), check=False)
    took.append(time.monotonic())
    assert done.returncode == 0, done.stderr
    pair.a.launch()
    wait_until(pair.a.healthy, "ready", within=STARTED_WITHIN)
    took.append(time.monotonic())
    assert barriers(pair.a) == (PEERS - 1) * EACH + 1

    pair.b.start()
    wait_until(
        lambda: pair.b.peer()["data"] == "up", f"a tunnel; the logs:\n{pair.a.log()}{pair.b.log()}"
    )
    assert ping(pair.b.namespace, pair.a.tunnel, "-c", "3", "-i", "0.01")[0] == 3
    rows = {row["name"]: row for row in pair.a.status()["peers"]}
    assert len(rows) == PEERS
    assert sum(len(row["prefixes"]) for row in rows.values()) == (PEERS - 1) * EACH + 1
    assert rows["gw-b"]["state"] == "established"
    assert len(pair.a.gateway("status").stdout.splitlines()) > PEERS

    took.append(time.monotonic())
    assert pair.a.process is not None
    pair.a.process.terminate()
    assert pair.a.process.wait(30) == 0
    pair.a.process = None
    took.append(time.monotonic())
    assert barriers(pair.a) == 0
    seconds = [after - before for before, after in itertools.pairwise(took)]
    check, start, _, stop = seconds
    print(f"{PEERS} peers: check {check:.1f} s, start {start:.1f} s, stop {stop:.1f} s")
    assert check < CHECKED_WITHIN
    assert stop < STOPPED_WITHIN
