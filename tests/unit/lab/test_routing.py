"""The routes of the report's section 4.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.routing import BLACKHOLE_METRIC, routes

if TYPE_CHECKING:
    from lab.topology import Topology


def words(topology: Topology, node: str) -> list[str]:
    return [" ".join(route.arguments()) for route in routes(topology)[node]]


def test_a_host_knows_the_other_site_and_nothing_else(topology: Topology) -> None:
    assert words(topology, "host-a") == ["10.10.9.0/24 via 10.10.10.2", "fd00:b::/64 via fd00:a::2"]
    assert words(topology, "host-b") == ["10.10.10.0/24 via 10.10.9.2", "fd00:a::/64 via fd00:b::2"]


def test_a_gateway_s_blackholes_come_before_its_default(topology: Topology) -> None:
    assert words(topology, "gw-a") == [
        "blackhole 10.10.9.0/24 metric 4294967295",
        "blackhole fd00:b::/64 metric 4294967295",
        "0.0.0.0/0 via 203.0.113.1",
        "::/0 via 2001:db8:a::1",
    ]


def test_the_router_knows_no_site(topology: Topology) -> None:
    assert words(topology, "internet") == []


def test_a_blackhole_has_the_worst_metric_there_is(topology: Topology) -> None:
    assert BLACKHOLE_METRIC == 2**32 - 1
    for route in routes(topology)["gw-b"]:
        assert route.blackhole == (route.metric == BLACKHOLE_METRIC)
