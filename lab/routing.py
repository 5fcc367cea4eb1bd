"""Topology -> the routes that each node must have (report, section 4.5). Pure.

  host      the other sites' prefixes, through its own gateway; no default route
  gateway   default through the router of its WAN, and a `blackhole` of the worst metric for each
            remote site: when the tunnel's own route goes, packets die instead of leaking
  router    nothing: it is attached to both WANs and knows no site, as the Internet does

Routes of the tunnel itself are the gateway's own; it sets them while it has a session.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

from lab.topology import Node, Prefix, Role, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping

Address: TypeAlias = IPv4Address | IPv6Address

BLACKHOLE_METRIC: Final = 4_294_967_295  # the worst a 32-bit metric can be
_DEFAULTS: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class Route:
    """One route, in words that netlink and `ip route` share. A blackhole has no `via`.

    No device: the kernel finds it from `via`, and Docker may name interfaces otherwise.
    """

    destination: Prefix
    via: Address | None = None
    metric: int | None = None

    @property
    def blackhole(self) -> bool:
        """Whether packets that match it die here."""
        return self.via is None

    def arguments(self) -> list[str]:
        """Return what follows `ip -4|-6 route replace` (or `del`) for this route."""
        words = (
            ["blackhole", str(self.destination)] if self.via is None else [str(self.destination)]
        )
        if self.via is not None:
            words += ["via", str(self.via)]
        if self.metric is not None:
            words += ["metric", str(self.metric)]
        return words


def routes(topology: Topology) -> Mapping[str, tuple[Route, ...]]:
    """Return the routes of every node, by node name."""
    return {node.name: routes_of(topology, node) for node in topology.nodes.values()}


def routes_of(topology: Topology, node: Node) -> tuple[Route, ...]:
    """Return the routes that one node must have beside those of its own networks."""
    if node.role is Role.HOST:
        gateway = topology.gateway_of(node.site or "")
        vias = {a.version: a.ip for a in gateway.port_on(node.site or "").addresses}
        return tuple(
            Route(prefix, vias[prefix.version])
            for prefix in remote_prefixes(topology, node)
            if prefix.version in vias
        )
    if node.role is Role.GATEWAY:
        wan = topology.wan_of(node).name
        defaults = tuple(
            Route(_DEFAULTS[address.version], address.ip)
            for address in topology.router.port_on(wan).addresses
        )
        blackholes = tuple(
            Route(prefix, metric=BLACKHOLE_METRIC) for prefix in remote_prefixes(topology, node)
        )
        return blackholes + defaults  # in this order they are set: never a default alone
    return ()


def remote_prefixes(topology: Topology, node: Node) -> tuple[Prefix, ...]:
    """Return the prefixes of every site but the node's own: what the tunnel carries."""
    return tuple(
        prefix
        for gateway in topology.gateways
        if gateway.site != node.site
        for prefix in topology.networks[gateway.site or ""].prefixes
    )
