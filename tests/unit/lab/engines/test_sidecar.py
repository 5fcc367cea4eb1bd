"""The script that wires a node on Docker, and the rights that a sidecar has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.engines import sidecar

if TYPE_CHECKING:
    from lab.topology import Topology


def script(topology: Topology, node: str) -> list[str]:
    """Return the lines of a node's wiring script."""
    return sidecar.wiring_script(topology, topology.nodes[node]).splitlines()


def test_routes_stand_before_packets_are_forwarded(topology: Topology) -> None:
    lines = script(topology, "gw-a")
    last_route = max(i for i, line in enumerate(lines) if " route " in line)
    forwarding = [i for i, line in enumerate(lines) if "forward" in line and "echo 1" in line]
    assert len(forwarding) == 2  # IPv4 and IPv6
    assert last_route < min(forwarding)


def test_docker_s_default_route_goes_and_the_labs_stays(topology: Topology) -> None:
    lines = script(topology, "gw-a")
    assert "ip -4 route replace 0.0.0.0/0 via 203.0.113.1 proto static" in lines
    assert any("grep -Ev 'via 203.0.113.1 '" in line and "route del" in line for line in lines)
    assert any("grep -Ev '^$'" in line for line in script(topology, "host-a"))


def test_a_nat_s_rules_stand_before_packets_are_forwarded(crowd: Topology) -> None:
    lines = script(crowd, "nat")
    start = lines.index("nft -f - <<'END'")
    assert lines.index("END") > start
    forwarding = [i for i, line in enumerate(lines) if "forward; do echo 1" in line]
    assert lines.index("END") < min(forwarding)
    assert not [line for line in script(crowd, "gw-a") if "nft" in line]


def test_a_client_forwards_nothing_and_sends_real_datagrams(crowd: Topology) -> None:
    lines = script(crowd, "roadwarrior")
    assert not [line for line in lines if "forward" in line and "echo 1" in line]
    assert "to 198.18.5.2 " in lines[-2]
    assert lines[-1].startswith('ethtool -K "$wan" ')


def test_routes_of_sites_that_are_no_more_go(topology: Topology) -> None:
    (line,) = [one for one in script(topology, "host-a") if "-4 route show proto static" in one]
    assert "grep -Ev '^(blackhole )?(10.10.9.0/24) '" in line
    assert line.endswith("do ip -4 route del $route; done")


def test_a_host_forwards_nothing_and_takes_no_redirects(topology: Topology) -> None:
    lines = script(topology, "host-a")
    assert not [line for line in lines if "forward" in line and "echo 1" in line]
    assert [line for line in lines if "conf/*/accept_redirects" in line and "echo 0" in line]
    assert not [line for line in lines if "ethtool" in line]


def test_only_gateways_have_the_offloads_of_a_wire(topology: Topology) -> None:
    assert script(topology, "gw-b")[-1].startswith('ethtool -K "$wan" ')


def test_a_sidecar_has_the_rights_of_a_network_tool_and_no_more(topology: Topology) -> None:
    argv = sidecar.beside(topology, "gw-a", "abc", ["ip", "route"], ["--tty"])
    granted = {argv[i + 1] for i, word in enumerate(argv) if word == "--cap-add"}
    assert granted == {"NET_ADMIN", "NET_RAW", "SETUID", "SETGID"}
    assert "--privileged" not in argv
    assert "systempaths=unconfined" not in argv
    assert argv[-3:] == [f"{topology.name}-host", "ip", "route"]
    assert f"lab={topology.name}" in argv
