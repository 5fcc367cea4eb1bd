"""The routes of the report's section 4.5."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.routing import BLACKHOLE_METRIC, behind, path, routes, tunnel_prefixes
from lab.topology import parse

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


def test_who_is_on_a_wan_alone_has_its_default(crowd: Topology) -> None:
    assert words(crowd, "roadwarrior") == ["0.0.0.0/0 via 198.18.5.1", "::/0 via 2001:db8:e::1"]
    assert words(crowd, "web") == ["0.0.0.0/0 via 198.18.6.1", "::/0 via 2001:db8:f::1"]
    assert words(crowd, "nat") == ["0.0.0.0/0 via 203.0.113.1", "::/0 via 2001:db8:a::1"]


def test_behind_a_nat_that_is_the_way_out(crowd: Topology) -> None:
    assert words(crowd, "gw-a")[-2:] == ["0.0.0.0/0 via 192.168.55.1", "::/0 via fd00:55::1"]
    assert words(crowd, "internet") == []


def test_what_is_for_users_goes_to_their_gateway_and_no_further(crowd: Topology) -> None:
    assert "10.0.8.0/24 via 10.10.10.2" in words(crowd, "host-a")
    assert "blackhole fd00:8::/64 metric 4294967295" in words(crowd, "gw-a")
    assert not [word for word in words(crowd, "host-b") if "10.0.8.0" in word]


def test_a_blackhole_has_the_worst_metric_there_is(topology: Topology) -> None:
    assert BLACKHOLE_METRIC == 2**32 - 1
    for route in routes(topology)["gw-b"]:
        assert route.blackhole == (route.metric == BLACKHOLE_METRIC)


# ---- many sites


def names(topology: Topology, source: str, target: str) -> list[str]:
    return [g.name for g in path(topology, topology.nodes[source], topology.nodes[target])]


def prefixes(topology: Topology, gateway: str, peer: str) -> list[str]:
    ends = topology.nodes[gateway], topology.nodes[peer]
    return [str(p) for p in behind(topology, *ends) + tunnel_prefixes(topology, *ends)]


def test_behind_a_spoke_is_its_site_alone(four: Topology) -> None:
    site_c = ["10.10.8.0/24", "fd00:c::/64", "10.0.4.3/32", "fd00:4::3/128"]
    assert prefixes(four, "gw-d", "gw-c") == prefixes(four, "gw-a", "gw-c") == site_c


def test_behind_a_hub_are_those_that_a_gateway_meets_nowhere_else(four: Topology) -> None:
    assert [p for p in prefixes(four, "gw-b", "gw-a") if "." in p] == [
        *("10.10.10.0/24", "10.10.8.0/24", "10.10.7.0/24"),
        *("10.0.4.1/32", "10.0.4.3/32", "10.0.4.4/32"),
    ]
    assert [p for p in prefixes(four, "gw-c", "gw-a") if ":" in p] == [
        "fd00:a::/64", "fd00:b::/64", "fd00:4::1/128", "fd00:4::2/128",
    ]  # fmt: skip


def test_one_wide_prefix_where_only_a_neighbour_s_is_in_it_too(four: Topology) -> None:
    """gw-d meets gw-c itself, by a longer prefix than the hub's."""
    assert prefixes(four, "gw-d", "gw-a")[0] == "10.10.8.0/22"
    assert prefixes(four, "gw-d", "gw-c")[0] == "10.10.8.0/24"


def test_nobody_has_its_own_site_behind_a_peer(four: Topology) -> None:
    for gateway in four.gateways:
        own = four.networks[gateway.site or ""].prefixes
        for peer in four.peers(gateway):
            for prefix in behind(four, gateway, peer):
                assert not any(p.version == prefix.version and p.overlaps(prefix) for p in own)


def test_the_longest_prefix_makes_the_path(four: Topology) -> None:
    assert names(four, "host-c", "host-d") == ["gw-c", "gw-d"]
    assert names(four, "host-d", "host-c") == ["gw-d", "gw-c"]
    assert names(four, "host-b", "host-d") == ["gw-b", "gw-a", "gw-d"]
    assert names(four, "host-d", "host-b") == ["gw-d", "gw-a", "gw-b"]
    assert names(four, "host-a", "host-d") == ["gw-a", "gw-d"]


def test_without_a_hub_spokes_do_not_meet(compose_text: str) -> None:
    lone = parse(compose_text.replace("transit: true", "transit: false"), {}, "f", ["site-c"])
    assert names(lone, "host-b", "host-c") == ["gw-b"]
    assert prefixes(lone, "gw-b", "gw-a") == [
        "10.10.10.0/24", "fd00:a::/64", "10.0.4.1/32", "fd00:4::1/128",
    ]  # fmt: skip


def test_a_blackhole_is_never_longer_than_the_route_that_it_guards(four: Topology) -> None:
    """Else it would win over the route, and the tunnel would carry nothing."""
    assert [w for w in words(four, "gw-d") if "." in w] == [
        "blackhole 10.10.8.0/22 metric 4294967295",
        "blackhole 10.10.8.0/24 metric 4294967295",
        "0.0.0.0/0 via 198.18.4.1",
    ]


def test_what_nobody_has_dies_at_the_hub(four: Topology) -> None:
    """A spoke sends it the whole wide prefix; its default route would take the rest outside."""
    assert "blackhole 10.10.8.0/22 metric 4294967295" in words(four, "gw-a")
    assert not any("10.10.10.0/24" in word for word in words(four, "gw-a")), "its own site"


def test_hosts_know_every_other_site(four: Topology) -> None:
    assert [w for w in words(four, "host-c") if "." in w] == [
        "10.10.10.0/24 via 10.10.8.2",
        "10.10.9.0/24 via 10.10.8.2",
        "10.10.7.0/24 via 10.10.8.2",
    ]


def test_a_prefix_with_the_tunnel_s_net_in_it_is_none(compose_text: str) -> None:
    """Nor one with a WAN in it: the tunnel would lead into itself."""
    moved = parse(compose_text, {"LAN_A": "10.20.10"}, "f", ["site-c", "site-d"])
    assert prefixes(moved, "gw-d", "gw-a")[:2] == ["10.20.10.0/24", "10.10.9.0/24"]
    assert names(moved, "host-b", "host-d") == ["gw-b", "gw-a", "gw-d"]
