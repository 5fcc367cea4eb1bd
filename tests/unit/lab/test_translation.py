"""The rules of a NAT. That they do what they say is proved in tests/netns/test_extras.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.translation import ruleset

if TYPE_CHECKING:
    from lab.topology import Topology


def test_one_port_goes_in_to_the_gateway_behind_it(crowd: Topology) -> None:
    rules = ruleset(crowd, crowd.nodes["nat"])
    asked = "iifname wan0 meta l4proto { tcp, udp } th dport 55555 dnat"
    assert f"{asked} ip to 192.168.55.2" in rules
    assert f"{asked} ip6 to fd00:55::2" in rules
    assert rules.count("dnat ip") == 2
    assert "policy drop" in rules


def test_what_comes_from_inside_leaves_with_its_address(crowd: Topology) -> None:
    assert "iifname dmz0 oifname wan0 masquerade" in ruleset(crowd, crowd.nodes["nat"])


def test_nobody_else_has_rules(crowd: Topology) -> None:
    others = [node for node in crowd.nodes.values() if node.name != "nat"]
    assert {ruleset(crowd, node) for node in others} == {""}
