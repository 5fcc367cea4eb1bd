"""Topology -> the routes that each node must have (report, section 4.5), and who is where. Pure.

  host      the other sites' prefixes, through its own gateway; no default route
  gateway   default through the router of its WAN, or the NAT that it is behind, and a `blackhole`
            of the worst metric for what is behind each peer: when the tunnel's own route goes,
            packets die instead of leaking. A hub also has those of its spokes: what nobody has must
            not leave by its default
  router    nothing: it is attached to every WAN and knows no site, as the Internet does
  others    clients, servers and a NAT: default through the router of their WAN

While a client is awake, users have addresses of a pool behind their gateway: the hosts of its site
have a route to it, the gateway itself a blackhole.

Behind a peer is its site. Behind a hub (`transit`) are its other spokes too: as one wide prefix
where that has nothing else in it but sites that the gateway meets itself. These have a longer
prefix, and the longest wins. Never its own site: a gateway takes what is for a prefix of a peer for
that peer's, whoever sent it, and drops it as `no-transit`.

Routes of the tunnel itself are the gateway's own; it sets them while it has a session.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from lab.topology import Node, Prefix, Role, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        pool = gateway.people.pool if gateway.people else ()
        return tuple(
            Route(prefix, vias[prefix.version])
            for prefix in (*remote_prefixes(topology, node), *pool)
            if prefix.version in vias
        )
    if node.role is Role.ROUTER:
        return ()
    hops = ((version, topology.next_hop(node, version)) for version in _DEFAULTS)
    defaults = tuple(Route(_DEFAULTS[version], hop) for version, hop in hops if hop is not None)
    if node.role is Role.GATEWAY:
        peers = topology.peers(node)
        guarded = [prefix for peer in peers for prefix in behind(topology, node, peer)]
        guarded += [prefix for peer in peers for prefix in behind(topology, peer, node)]
        guarded += node.people.pool if node.people else ()
        own = _site(topology, node)
        blackholes = tuple(
            Route(prefix, metric=BLACKHOLE_METRIC)
            for prefix in dict.fromkeys(guarded)
            if prefix not in own
        )
        return blackholes + defaults  # in this order they are set: never a default alone
    return defaults


def remote_prefixes(topology: Topology, node: Node) -> tuple[Prefix, ...]:
    """Return the prefixes of every site but the node's own: what the tunnels carry."""
    return tuple(
        prefix
        for gateway in topology.gateways
        if gateway.site != node.site
        for prefix in _site(topology, gateway)
    )


# ---- who is where


def behind(topology: Topology, gateway: Node, peer: Node) -> tuple[Prefix, ...]:
    """Return the prefixes of sites that a gateway reaches through a peer."""
    beyond = _beyond(topology, gateway, peer)
    listed = [p for node in (peer, *beyond) for p in _site(topology, node)]
    met = [node for node in topology.peers(gateway) if node in topology.peers(peer)]
    if not beyond or not met:
        return tuple(listed)
    all_of_it = listed + [p for node in met for p in _site(topology, node)]
    wans = [p for net in topology.networks.values() if net.kind != "lan" for p in net.prefixes]
    tunnels = [address.network for node in topology.gateways for address in node.tunnel]
    pools = [p for node in topology.gateways if node.people for p in node.people.pool]
    strange = [*_site(topology, gateway), *wans, *tunnels, *pools]
    found: list[Prefix] = []
    for version in (4, 6):
        wide = _cover([prefix for prefix in all_of_it if prefix.version == version])
        if wide is None or any(p.version == version and p.overlaps(wide) for p in strange):
            found += [prefix for prefix in listed if prefix.version == version]
        else:
            found.append(wide)
    return tuple(found)


def _beyond(topology: Topology, gateway: Node, peer: Node) -> tuple[Node, ...]:
    """Return the gateways that one reaches through a peer, if that is a hub."""
    nearer = {gateway.name, *(node.name for node in topology.peers(gateway))}
    onward = topology.peers(peer) if peer.transit else ()
    return tuple(node for node in onward if node.name not in nearer)


def leads_on(topology: Topology, gateway: Node) -> bool:
    """Say whether a gateway is a hub: it passes packets between peers, and has several."""
    return gateway.transit and len(topology.peers(gateway)) > 1


def tunnel_prefixes(topology: Topology, gateway: Node, peer: Node) -> tuple[Prefix, ...]:
    """Return the tunnel addresses that a gateway reaches through a peer, and its users'.

    A gateway has an address of its users' pool itself. Over IPv6 the kernel may complain from that
    one: of two on one device it takes the one that is more like the receiver's (RFC 6724, rule 8).
    """
    nodes = (peer, *_beyond(topology, gateway, peer))
    own = tuple(ip_network(address.ip) for node in nodes for address in node.tunnel)
    return own + tuple(pool for node in nodes if node.people for pool in node.people.pool)


def path(topology: Topology, source: Node, target: Node) -> tuple[Node, ...]:
    """Return the gateways that a packet between two hosts meets, by the longest prefix at each.

    It ends early where a gateway has no peer to send it to.
    """
    address = next(a.ip for a in target.port_on(target.site or "").addresses)
    here: Node | None = topology.gateway_of(source.site or "")
    met: list[Node] = []
    while here is not None and here not in met:
        met.append(here)
        if here.site == target.site:
            break
        here = _next(topology, here, address)
    return tuple(met)


def _next(topology: Topology, gateway: Node, address: Address) -> Node | None:
    """Return the peer with the longest prefix that has the address."""
    found = [
        (prefix.prefixlen, peer)
        for peer in topology.peers(gateway)
        for prefix in behind(topology, gateway, peer)
        if address in prefix
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def _site(topology: Topology, gateway: Node) -> tuple[Prefix, ...]:
    return topology.networks[gateway.site or ""].prefixes


def _cover(prefixes: Sequence[Prefix]) -> Prefix | None:
    """Return the longest prefix that has all of these, of one version, in it."""
    if not prefixes:
        return None
    found: Any = prefixes[0]
    while not all(prefix.subnet_of(found) for prefix in prefixes):
        found = found.supernet()
    return cast("Prefix", found)
