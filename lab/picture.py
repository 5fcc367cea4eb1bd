"""The lab in 80 columns: nodes, wires, addresses, and the tunnel over them. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lab.topology import Node, Topology

_WIRE: Final = 13  # characters between two nodes


def draw(topology: Topology, tunnel: str) -> str:
    """Draw two sites with a host each as one line, any other lab as a list of its nodes.

    `tunnel` is what to say of the tunnel between the gateways.
    """
    chain = _chain(topology)
    if chain is None:
        return _listing(topology, tunnel)
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


def _listing(topology: Topology, tunnel: str) -> str:
    lines = [f"tunnel: {tunnel}"]
    for node in topology.nodes.values():
        addresses = ", ".join(str(a) for port in node.ports for a in port.addresses)
        lines.append(f"{node.name:<15} {node.role:<8} {addresses}")
    return "\n".join(lines)
