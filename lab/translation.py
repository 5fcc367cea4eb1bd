"""Topology -> the nftables rules of a NAT: it lends its address, and forwards one port. Pure.

As the router between a virtual machine and the network did in the report (section 3.2): what comes
from inside leaves with the NAT's own address; of what comes from outside only the gateway's port,
UDP and TCP, goes in. IPv4 and IPv6 alike, though an IPv6 network seldom has a NAT: so a check that
crosses it over IPv6 proves the same as over IPv4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lab.engines.base import GATEWAY_PORT
from lab.topology import Role

if TYPE_CHECKING:
    from lab.topology import Node, Topology

_TABLE: Final = "inet nat"


def ruleset(topology: Topology, node: Node) -> str:
    """Return what `nft -f -` makes a node a NAT with, in one step; nothing for any other node.

    It may be loaded again: it replaces its own table, and connections that stand go on.
    """
    if node.role is not Role.NAT:
        return ""
    inside = node.port_on(node.inside or "").interface
    outside = topology.uplink(node).interface
    asked = f"iifname {outside} meta l4proto {{ tcp, udp }} th dport {GATEWAY_PORT}"
    forwards = [
        f"{asked} dnat {family} to {a.ip}"
        for gateway in topology.gateways
        if gateway.behind == node.name
        for a in gateway.port_on(node.inside or "").addresses
        for family in ("ip" if a.version == 4 else "ip6",)
    ]
    prerouting = "\n".join(f"    {line}" for line in forwards)
    return f"""\
table {_TABLE}
delete table {_TABLE}
table {_TABLE} {{
  chain prerouting {{
    type nat hook prerouting priority dstnat
{prerouting}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat
    iifname {inside} oifname {outside} masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    ct state invalid drop
    ct state established,related accept
    iifname {inside} oifname {outside} accept
    iifname {outside} oifname {inside} ct status dnat accept
  }}
}}
"""
