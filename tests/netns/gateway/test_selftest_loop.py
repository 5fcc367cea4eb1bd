"""netns.sh: a routing loop ends by itself, and costs next to nothing while it lasts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.netns.gateway.layouts import cpu_seconds, ip, ping, row, third_gateway
from tests.netns.gateway.two_gateways import wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Pair

pytestmark = pytest.mark.netns

MOST = 70_000  # bytes, as in netns.sh
LOOKED_AT = 1.0  # seconds


@pytest.mark.parametrize("place", ["the dialling side", "the listening side"])
def test_a_loop_is_bounded(pair: Pair, place: str) -> None:
    """Test that a routing loop ends (netns.sh: "set up a routing loop", `tx_bytes … < 70000`).

    Somebody routes the peer's endpoint into the tunnel, while it stands: its own datagrams come
    back to it, are nobody's there and die. No storm; once the route is gone all is well.
    """
    pair.start()
    here, there = (pair.b, pair.a) if place == "the dialling side" else (pair.a, pair.b)
    planes = here.planes()
    before = here.peer()
    used = sum(map(cpu_seconds, planes.values()))
    ip(here.namespace, f"route add {there.address} dev tun0")
    started = time.monotonic()
    assert ping(here.namespace, there.tunnel, "-c", "10", "-f")[0] == 0
    assert ping(there.namespace, here.tunnel, "-c", "10", "-f")[0] == 0
    wait_until(lambda: time.monotonic() - started > LOOKED_AT, "a second to look at")
    took = time.monotonic() - started
    after = here.peer()
    assert after["tx_bytes"] - before["tx_bytes"] < MOST
    assert here.drops()["no-route"] < 100
    assert sum(map(cpu_seconds, planes.values())) - used < 0.3 * took + 0.2
    assert here.planes() == planes

    ip(here.namespace, f"route del {there.address} dev tun0")
    wait_until(lambda: ping(here.namespace, there.tunnel, "-c", "1")[0], "a ping", within=10)
    assert ping(there.namespace, here.tunnel, "-c", "1")[0] == 1


def test_a_tunnel_in_a_tunnel_is_refused(pair: Pair) -> None:
    """Test that onion routing does not loop (netns.sh: `endpoint 192.168.242.2:5`).

    gw-c's endpoint is behind gw-b, by gw-a's config: WireGuard takes it and survives, we refuse it
    by one line, at the handshake, and gw-b's tunnel does not mind.
    """
    with third_gateway(pair) as c:
        pair.a.config = pair.a.config.replace('"10.0.4.2/32"', '"10.0.4.2/32", "198.51.0.0/16"')
        pair.a.start()
        pair.b.start()
        c.launch()
        wait_until(lambda: row(pair.a, "gw-b")["data"] == "up", "gw-b")
        wait_until(lambda: "198.51.0.0/16, behind gw-b" in c.log() + pair.a.log(), "the refusal")
        assert row(pair.a, "gw-c")["session"] is None
        assert ping(pair.a.namespace, pair.b.tunnel, "-c", "1")[0] == 1
