"""Overlapping subnets are refused before anything starts, and the error names who has them."""

from __future__ import annotations

import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from lab.engines import subnets
from lab.engines.subnets import Taken
from lab.errors import EngineError

if TYPE_CHECKING:
    from lab.topology import Topology


def network(name: str, subnet: str, lab: str | None = None) -> dict[str, Any]:
    """Return a network as the engine's API lists it."""
    labels = {"lab": lab} if lab else None
    return {"Name": name, "Labels": labels, "IPAM": {"Config": [{"Subnet": subnet}]}}


def test_free_subnets_pass(topology: Topology) -> None:
    taken = subnets.of_networks([network("bridge", "172.17.0.0/16")], topology.name)
    subnets.check(topology, taken)


@pytest.mark.parametrize(
    ("subnet", "ours"),
    [
        ("10.10.10.128/25", "networks.site-a: 10.10.10.0/24"),
        ("10.0.0.0/8", "networks.site-a: 10.10.10.0/24"),
        ("198.51.100.0/24", "networks.wan-b: 198.51.100.0/24"),
        ("fd00:b::/48", "networks.site-b: fd00:b::/64"),
    ],
)
def test_an_overlap_names_both_sides(topology: Topology, subnet: str, ours: str) -> None:
    taken = subnets.of_networks([network("other_default", subnet)], topology.name)
    with pytest.raises(EngineError) as caught:
        subnets.check(topology, taken)
    text = str(caught.value)
    assert text.startswith(f"{ours} overlaps {subnet} of the Docker network other_default")
    assert "docker network rm other_default" in text


def test_another_lab_is_taken_down_by_its_name(topology: Topology) -> None:
    taken = subnets.of_networks([network("x_site-a", "10.10.10.0/24", "x")], topology.name)
    with pytest.raises(EngineError, match="make lab-down LAB_NAME=x"):
        subnets.check(topology, taken)


def test_the_labs_own_networks_do_not_count(topology: Topology) -> None:
    own = network(f"{topology.name}_site-a", "10.10.10.0/24", topology.name)
    assert list(subnets.of_networks([own], topology.name)) == []


def test_networks_without_subnets_do_not_count() -> None:
    hosts: list[dict[str, Any]] = [{"Name": "host", "Labels": {}, "IPAM": {"Config": None}}]
    hosts.append({"Name": "none"})
    assert list(subnets.of_networks(hosts, "twosite")) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads this machine's routes")
def test_this_machines_routes_have_an_owner() -> None:
    found = list(subnets.of_machine(bridges=()))
    assert all(isinstance(taken, Taken) and "interface" in taken.owner for taken in found)
    assert not [t for t in found if t.prefix in {ip_network("0.0.0.0/0"), ip_network("::/0")}]
