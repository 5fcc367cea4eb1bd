"""The lab in 80 columns: nodes, wires, addresses, and the tunnels over them. Pure."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Final

from lab.routing import path
from lab.topology import Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.topology import Node, Topology

_WIRE: Final = 13  # characters between two nodes


def draw(topology: Topology, between: Callable[[str, str], str]) -> str:
    """Draw two sites with a host each as one line, more nodes as a row each, any other as a list.

    `between` is what to say of the tunnel between two gateways, given their names.
    """
    chain = _chain(topology)
    if chain is None:
        drawn = _rows(topology) if _is_star(topology) else _listing(topology)
        return "\n".join([*drawn, "", *tunnels(topology, between)])
    tunnel = between(chain[1].name, chain[-2].name)
    names, starts = "", []
    for index, node in enumerate(chain):
        names += f" {'─' * (_WIRE - 2)} " if index else ""
        starts.append(len(names))
        names += node.name
    prefixes, addresses, inner = _Row(), _Row(), _Row()
    for index, (left, right) in enumerate(pairwise(chain)):
        network = _shared(left, right) or ""
        start, end = starts[index] + len(left.name), starts[index + 1]
        subnet = str(topology.networks[network].prefixes[0])
        prefixes.put((start + end - len(subnet)) // 2, subnet)
        label = _label(right, network)
        addresses.put(start + 1, _label(left, network))
        addresses.put(end - 1 - len(label), label)
    first, last = chain[1], chain[-2]
    start, end = starts[1], starts[-2] + len(last.name)
    ends = f"{first.tunnel[0].ip} ", f" {last.tunnel[0].ip}"
    inner.put(start, ("═" * (end - start - len(ends[0]) - len(ends[1]))).join(ends))
    rows = [prefixes.text, names, addresses.text, inner.text, f"tunnel {tunnel}".center(len(names))]
    return "\n".join(row.rstrip() for row in rows)


class _Row:
    """A line of text that is written at columns."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, column: int, text: str) -> None:
        before = self.text.ljust(max(0, column))
        self.text = before[: max(0, column)] + text + before[max(0, column) + len(text) :]


def _chain(topology: Topology) -> list[Node] | None:
    """Return host, gateway, router, gateway, host where the lab is just that line."""
    if len(topology.nodes) != 5 or len(topology.gateways) != 2 or len(topology.hosts) != 2:
        return None
    first, last = topology.gateways
    hosts = {host.site: host for host in topology.hosts}
    chain = [hosts.get(first.site), first, topology.router, last, hosts.get(last.site)]
    whole = [node for node in chain if node is not None]
    if len(whole) != 5 or not all(map(_shared, whole, whole[1:])):
        return None
    return whole


def _shared(one: Node, other: Node) -> str | None:
    networks = {port.network for port in other.ports}
    return next((port.network for port in one.ports if port.network in networks), None)


def _label(node: Node, network: str) -> str:
    """Return the host's part of an address where that is clear (`.3` in a /24), else all of it."""
    address = node.port_on(network).addresses[0]
    if address.version == 4 and address.network.prefixlen == 24:
        return f".{address.packed[-1]}"
    return str(address.ip)


def tunnels(topology: Topology, between: Callable[[str, str], str]) -> list[str]:
    """Return a line for each tunnel, and one for each hub that others meet through."""
    lines = []
    through: dict[str, list[str]] = {}
    for one, other in combinations(topology.gateways, 2):
        if other in topology.peers(one):
            ends = f"{one.name} {one.tunnel[0].ip} ═══ {other.tunnel[0].ip} {other.name}"
            lines.append(f"{ends}  {between(one.name, other.name)}")
        for hub in _between(topology, one, other):
            through.setdefault(hub.name, []).append(f"{one.name} ═ {other.name}")
    heading = "tunnels"
    lines += [f"through {hub}: {', '.join(pairs)}" for hub, pairs in through.items()]
    return [f"{heading if i == 0 else '':{len(heading)}} {line}" for i, line in enumerate(lines)]


def _between(topology: Topology, one: Node, other: Node) -> tuple[Node, ...]:
    """Return the gateways that lead two others on to each other."""
    hosts = {host.site: host for host in topology.hosts}
    ends = hosts.get(one.site), hosts.get(other.site)
    if ends[0] is None or ends[1] is None:
        return ()
    return path(topology, ends[0], ends[1])[1:-1]


def _is_star(topology: Topology) -> bool:
    """Say whether there are several rows, one host a site, and each ends at the router."""
    sites = sorted(gateway.site or "" for gateway in topology.gateways)
    others = [node for node in topology.nodes.values() if node.role not in {Role.HOST, Role.ROUTER}]
    return (
        len(others) > 2
        and sorted(host.site or "" for host in topology.hosts) == sites
        and all(_shared(topology.front(node), topology.router) for node in others)
    )


def _rows(topology: Topology) -> list[str]:
    """Draw each site, and each node beside them, as a row that ends at the router.

    A gateway behind a NAT ends its row there, and the NAT has the next one.
    """
    router = topology.router
    chains: list[list[Node]] = []
    for gateway in topology.gateways:
        host = next(host for host in topology.hosts if host.site == gateway.site)
        front = topology.front(gateway)
        chains += [[host, gateway, router]] if front is gateway else [[host, gateway, front]]
        chains += [[front, router]] if front is not gateway else []
    drawn = {node.name for chain in chains for node in chain}
    chains += [[node, router] for node in topology.nodes.values() if node.name not in drawn]
    rows = [_row(topology, chain) for chain in chains]
    ending = [index for index, chain in enumerate(chains) if chain[-1] is router]
    width = max(len(rows[index]) for index in ending)
    corners = dict.fromkeys(ending, "┤") | {ending[0]: "┐", ending[-1]: "┘"}
    middle = ending[len(ending) // 2]
    return [
        f"{row:>{width}}{corners[index]}{f' {router.name}' if index == middle else ''}"
        if index in corners
        else f"{row}{chains[index][-1].name}"
        for index, row in enumerate(rows)
    ]


def _row(topology: Topology, chain: list[Node]) -> str:
    """Draw nodes and the wires between them; the last one's name is its reader's to add."""
    row = chain[0].name
    for left, right in pairwise(chain):
        network = _shared(left, right) or ""
        subnet = f" {topology.networks[network].prefixes[0]} "
        row += f" {_label(left, network)} {subnet:─^{_WIRE + 8}} {_label(right, network)} "
        row += right.name if right is not chain[-1] else ""
    return row


def _listing(topology: Topology) -> list[str]:
    lines = []
    for node in topology.nodes.values():
        addresses = ", ".join(str(a) for port in node.ports for a in port.addresses)
        lines.append(f"{node.name:<15} {node.role:<8} {addresses}")
    return lines
