"""compose.yaml -> Topology: what is read, and how every mistake is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import TopologyError
from lab.reader import interpolate
from lab.topology import Role, Topology, check_name, load, parse

if TYPE_CHECKING:
    from pathlib import Path


def test_reads_the_five_nodes(topology: Topology) -> None:
    assert topology.name == "twosite"
    assert {name: node.role for name, node in topology.nodes.items()} == {
        "host-a": Role.HOST,
        "gw-a": Role.GATEWAY,
        "internet": Role.ROUTER,
        "gw-b": Role.GATEWAY,
        "host-b": Role.HOST,
    }


def test_sites_wait_for_their_profiles(compose_text: str, topology: Topology) -> None:
    extras = {"nat", "roadwarrior", "roadwarrior-2", "web"}
    assert set(topology.dormant) - extras == {"gw-c", "host-c", "gw-d", "host-d"}
    assert set(topology.networks) == {"site-a", "site-b", "wan-a", "wan-b"}
    three = parse(compose_text, {}, profiles=["site-c"])
    assert list(three.nodes)[5:] == ["gw-c", "host-c"]
    assert set(three.networks) - set(topology.networks) == {"site-c", "wan-c"}
    assert [port.network for port in three.router.ports] == ["wan-a", "wan-b", "wan-c"]


def test_a_gateway_connects_to_those_that_are_there(compose_text: str, four: Topology) -> None:
    assert four.nodes["gw-d"].connects == ("gw-a", "gw-c")
    without_c = parse(compose_text, {}, profiles=["site-d"])
    assert without_c.nodes["gw-d"].connects == ("gw-a",)
    assert [g.name for g in without_c.peers(without_c.nodes["gw-a"])] == ["gw-b", "gw-d"]


def test_a_site_that_waits_is_in_nobody_s_way(compose_text: str) -> None:
    """Its subnets may be taken: by one of the others, say."""
    moved = parse(compose_text, {"LAN_A": "10.10.8"})
    assert str(moved.networks["site-a"].prefixes[0]) == "10.10.8.0/24"
    with pytest.raises(TopologyError, match=r"networks\.site-c: 10\.10\.8\.0/24 overlaps"):
        parse(compose_text, {"LAN_A": "10.10.8"}, profiles=["site-c"])


def test_reads_the_report_s_addresses(topology: Topology) -> None:
    gateway = topology.nodes["gw-a"]
    assert [(port.interface, [str(a) for a in port.addresses]) for port in gateway.ports] == [
        ("lan0", ["10.10.10.2/24", "fd00:a::2/64"]),
        ("wan0", ["203.0.113.2/24", "2001:db8:a::2/64"]),
    ]
    assert [str(a) for a in gateway.tunnel] == ["10.0.4.1/24", "fd00:4::1/64"]
    assert gateway.listens
    assert topology.nodes["gw-b"].connects == ("gw-a",)


def test_a_router_s_ports_are_numbered(topology: Topology) -> None:
    assert [port.interface for port in topology.router.ports] == ["wan0", "wan1"]


def test_finds_who_belongs_where(topology: Topology) -> None:
    assert topology.gateway_of("site-b").name == "gw-b"
    assert topology.wan_of(topology.nodes["gw-b"]).name == "wan-b"
    assert topology.nodes["host-b"].address_on("site-b", 6) == "fd00:b::3"
    assert topology.full_name("gw-a") == "twosite-gw-a"


def test_a_gateway_behind_a_nat_is_on_one_of_its_two_networks(
    topology: Topology, crowd: Topology
) -> None:
    def networks(of: Topology) -> list[str]:
        return [port.network for port in of.nodes["gw-a"].ports]

    assert networks(topology) == ["site-a", "wan-a"]
    assert networks(crowd) == ["site-a", "dmz-a"]
    assert "dmz-a" not in topology.networks
    assert "dmz-a" not in {port.network for port in crowd.router.ports}


def test_the_wan_knows_a_gateway_by_its_nat_s_address(topology: Topology, crowd: Topology) -> None:
    for of, address in ((topology, "203.0.113.2"), (crowd, "203.0.113.9")):
        assert of.public_address(of.nodes["gw-a"]) == address
        assert of.wan_of(of.nodes["gw-a"]).name == "wan-a"
        assert of.public_address(of.nodes["gw-b"], 6) == "2001:db8:b::2"
    assert crowd.public_address(crowd.nodes["roadwarrior"]) == "198.18.5.2"


def test_users_come_with_a_client_alone(compose_text: str, crowd: Topology) -> None:
    people = crowd.nodes["gw-a"].people
    assert people is not None
    assert people.members == {"alice": "staff", "bob": "guests"}
    assert [str(prefix) for prefix in people.pool] == ["10.0.8.0/24", "fd00:8::/64"]
    assert parse(compose_text, {}, profiles=["nat", "web"]).nodes["gw-a"].people is None
    assert [node.name for node in crowd.clients] == ["roadwarrior", "roadwarrior-2"]


def test_rules_follow_the_subnets(compose_text: str) -> None:
    moved = parse(compose_text, {"LAN_A": "10.50.0"}, profiles=["roadwarrior"])
    people = moved.nodes["gw-a"].people
    assert people is not None
    assert "10.50.0.3/32 icmp" in people.groups["guests"].allow
    assert people.dns == ("10.50.0.3",)


def test_variables_choose_other_subnets(compose_text: str) -> None:
    moved = parse(compose_text, {"LAN_A": "10.50.0", "LAB_NAME": "other"})
    assert moved.name == "other"
    assert str(moved.networks["site-a"].prefixes[0]) == "10.50.0.0/24"
    assert moved.nodes["host-a"].address_on("site-a") == "10.50.0.3"


SMALL = """
name: ${LAB_NAME:-small}
services:
  h: {x-lab: {role: host, site: s}, networks: {s: {ipv4_address: 10.1.0.3}}}
  g:
    x-lab: {role: gateway, site: s, tunnel: [10.9.0.1/24], listens: true}
    networks: {s: {ipv4_address: 10.1.0.2}, w: {ipv4_address: 10.2.0.2}}
  r: {x-lab: {role: router}, networks: {w: {ipv4_address: 10.2.0.1}}}
networks:
  s:
    driver_opts: {com.docker.network.container_iface_prefix: lan}
    ipam: {config: [{subnet: "${LAN:-10.1.0.0/24}"}]}
  w:
    driver_opts: {com.docker.network.container_iface_prefix: wan}
    ipam: {config: [{subnet: 10.2.0.0/24}]}
"""


def test_the_small_one_is_right() -> None:
    assert parse(SMALL, {}).name == "small"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("role: router", "role: switch", "services.r.x-lab.role: must be one of"),
        ("role: router", "roll: router", "services.r.x-lab.role: is missing"),
        ("x-lab: {role: router}, ", "", "services.r.x-lab: is missing"),
        ("x-lab: {role: router}", "x-lab: 3", "services.r.x-lab: must be a mapping"),
        ("w: {ipv4_address: 10.2.0.1}", "q: {}", "services.r.networks.q: no such network"),
        ("10.2.0.1}", "10.2.0}", "services.r.networks.w.ipv4_address: '10.2.0/24'"),
        ("10.2.0.1}", "10.3.0.1}", "services.r.networks.w.ipv4_address: 10.3.0.1 is not in w's"),
        ("10.2.0.1}", "10.2.0.2}", "services.r: 10.2.0.2 already belongs to g"),
        ("{ipv4_address: 10.2.0.1}", "{}", "services.r.networks.w.ipv4_address: is missing"),
        ("{ipv4_address: 10.2.0.1}", "{ipv6_address: '::1'}", "ipv6_address: w has no IPv6 subnet"),
        (
            "subnet: 10.2.0.0/24",
            "subnet: 10.2.0.1/24",
            "networks.w.ipam.config[0].subnet: 10.2.0.1/24",
        ),
        (
            "subnet: 10.2.0.0/24",
            "subnet: 10.0.0.0/8",
            "networks.w: 10.0.0.0/8 overlaps 10.1.0.0/24",
        ),
        ("{config: [{subnet: 10.2.0.0/24}]}", "{config: []}", "networks.w.ipam.config: must list"),
        ("iface_prefix: wan", "iface_prefix: eth", "must be lan, wan or dmz"),
        ("tunnel: [10.9.0.1/24]", "tunnel: [tun]", "services.g.x-lab.tunnel[0]: 'tun'"),
        ("tunnel: [10.9.0.1/24], ", "", "services.g.x-lab.tunnel: a gateway needs"),
        ("tunnel: [10.9.0.1/24]", "tunnel: 7", "services.g.x-lab.tunnel: must be a list"),
        ("listens: true", "listens: maybe", "services.g.x-lab.listens: must be true or false"),
        ("listens: true", "transit: 1", "services.g.x-lab.transit: must be true or false"),
        ("listens: true", "dataplane: udp_gso=no", "g.x-lab.dataplane: 'udp_gso=no' is no"),
        ("listens: true", "dataplane: udp_gso", "g.x-lab.dataplane: 'udp_gso' is no"),
        ("listens: true", "behind: r", "services.g.x-lab.behind: r is no NAT"),
        ("listens: true", "behind: q", "services.g.x-lab.behind: q is no NAT"),
        ("listens: true", "users: {pool: [x]}", "services.g.x-lab.users.pool[0]: 'x'"),
        ("listens: true", "users: {pool: []}", "services.g.x-lab.users.groups: is missing"),
        ("role: router}", "role: client}", "services: the lab needs exactly one router"),
        ("role: host, site: s", "role: nat, inside: s", "services.h.networks: a NAT has two"),
        ("role: router", "role: nat", "services.r.x-lab.inside: is missing"),
        ("role: router", "role: nat, inside: s", "services.r.networks: a NAT has two"),
        ("listens: true", "connects: [h]", "services.g.x-lab.connects: h is no gateway"),
        ("site: s, tunnel", "site: t, tunnel", "services.g.x-lab.site: t is none of its networks"),
        (", w: {ipv4_address: 10.2.0.2}}", "}", "services.g.networks: a gateway has two"),
        ("  r: {", "  a-name-too-long-for-linux: {", "longer than 15 characters"),
        ("  r: {", "  w: {", "services.w: a network has this name too"),
        ("role: router}", "role: host, site: w}", "services.r.x-lab.site: no gateway serves w"),
        ("  r: {x-lab", "  r: {profiles: q, x-lab", "services.r.profiles: must be a list"),
        ("${LAN:-10.1.0.0/24}", "${LAN", "networks.s.ipam.config[0].subnet: bad variable"),
        (
            "${LAN:-10.1.0.0/24}",
            "${LAN:?which}",
            "networks.s.ipam.config[0].subnet: LAN is not set",
        ),
        ("services:", "services: [", "line "),
        ("networks:\n  s:\n", "nets:\n  s:\n", "networks: is missing"),
    ],
)
def test_a_mistake_is_named_by_file_and_key(old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(TopologyError) as caught:
        parse(SMALL.replace(old, new), {}, "lab.yaml")
    message = str(caught.value)
    assert message.startswith("lab.yaml: ")
    assert said in message
    assert "\n" not in message


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff")
    with pytest.raises(TopologyError, match="not UTF-8 at byte 6"):
        load(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("${A:-d}", {}, "d"),
        ("${A:-d}", {"A": ""}, "d"),
        ("${A-d}", {"A": ""}, ""),
        ("${A-d}", {}, "d"),
        ("${A}", {}, ""),
        ("$A", {"A": "x"}, "x"),
        ("$$A", {"A": "x"}, "$A"),
        ("a${A}b${B:-c}", {"A": "1"}, "a1bc"),
    ],
)
def test_variables_are_read_as_compose_reads_them(
    text: str, environment: dict[str, str], expected: str
) -> None:
    assert interpolate({"k": [text, 7]}, environment, "f", "") == {"k": [expected, 7]}


@given(st.text(max_size=40))
def test_only_names_that_are_safe_as_file_names_pass(name: str) -> None:
    try:
        check_name(name)
    except TopologyError as error:
        assert "\n" not in str(error)
    else:
        assert name
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-_")
        assert name[0] not in "-_"
