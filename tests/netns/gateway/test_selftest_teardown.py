"""netns.sh: "Objects that were created were also destroyed": nothing is left, and nothing hangs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.gateway.layouts import give_ipv6, ip, ping, time_bound
from tests.netns.gateway.two_gateways import run, wait_until

if TYPE_CHECKING:
    from tests.netns.gateway.two_gateways import Gateway, Pair

pytestmark = pytest.mark.netns

CYCLES = 4


def left(side: Gateway) -> dict[str, Any]:
    """All that a gateway could leave in its namespace, but for counters."""
    links = json.loads(ip(side.namespace, "-j -d addr show"))
    sockets = side.inside("ss", "-aunptlxH").stdout
    return {
        "links": {
            link["ifname"]: (
                sorted(set(link["flags"]) - {"LOWER_UP", "NO-CARRIER"}),
                link["mtu"],
                sorted((a["local"], a["prefixlen"]) for a in link["addr_info"]),
            )
            for link in links
        },
        "routes": [ip(side.namespace, f"{family} route show table all") for family in ("-4", "-6")],
        "rules": [ip(side.namespace, f"{family} rule") for family in ("-4", "-6")],
        "neighbours": ip(side.namespace, "neigh show dev tun0"),
        "sockets": [line for line in sockets.splitlines() if "TIME-WAIT" not in line],
        "processes": run("ip", "netns", "pids", side.namespace).stdout,
        "admin": Path(side.socket).exists(),
    }


def left_of_routes(side: Gateway) -> list[str]:
    return [ip(side.namespace, f"{family} route show table all") for family in ("-4", "-6")]


def test_cycles_leave_nothing(pair: Pair) -> None:
    """Test that what was created is destroyed (netns.sh: `alldeleted`), again and again.

    Routes, rules, addresses, links but for the persistent TUN, sockets, processes: after each stop
    as after the first. gw-b is killed each time, and leaves nothing after its next clean stop.
    """
    give_ipv6(pair)
    found = []
    for cycle in range(CYCLES):
        pair.start()
        assert ping(pair.b.namespace, pair.a.tunnel, "-c", "1")[0] == 1
        assert pair.a.stop() == 0
        if cycle < CYCLES - 1:
            pair.b.kill()
        else:
            assert pair.b.stop() == 0
        found.append(left(pair.a))
    assert all(one == found[0] for one in found)
    (first,) = {json.dumps(one, sort_keys=True) for one in found}
    assert "proto 155" not in first
    assert found[0]["processes"] == found[0]["neighbours"] == ""
    assert found[0]["sockets"] == []
    assert found[0]["links"]["tun0"][2] == []
    at_b = left(pair.b)
    assert "proto 155" not in str(at_b)
    assert at_b["processes"] == ""
    assert at_b["sockets"] == []


def test_a_namespace_is_deleted_under_a_gateway(pair: Pair) -> None:
    """Test that there are no circular references (netns.sh: `ip netns delete $netns1` under it).

    The name goes at once; the gateway keeps what it has and still ends cleanly, and then the other
    end of its wire is gone too: so its namespace is.
    """
    pair.start()
    with time_bound(5):
        run("ip", "netns", "delete", pair.b.namespace)
    assert ping(pair.a.namespace, pair.b.tunnel, "-c", "3", "-i", "0.01")[0] == 3
    with time_bound(6):
        assert pair.b.stop() == 0
    wait_until(lambda: "wan0" not in ip(pair.a.namespace, "link"), "its end of the wire gone")
    assert pair.a.stop() == 0


def test_the_device_goes_under_a_gateway(pair: Pair) -> None:
    """Test that the link may be deleted while it runs (netns.sh: `ip1 link del wg0`).

    It says so in one line and ends, and leaves nothing.
    """
    pair.start()
    ip(pair.b.namespace, "link del tun0")
    assert pair.b.process is not None
    assert pair.b.process.wait(10) == 2
    pair.b.process = None
    assert pair.b.lines("the TUN was deleted; start the gateway anew")
    assert "proto 155" not in str(left_of_routes(pair.b))
    assert run("ip", "netns", "pids", pair.b.namespace).stdout == ""
