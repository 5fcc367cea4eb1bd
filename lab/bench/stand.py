"""Where contestants meet: four nodes in namespaces of their own, on direct cables.

    host-a ──lan── gw-a ──wan── gw-b ──lan── host-b        IPv4 alone; addresses as the lab's

No router and no switches: they would add the same to all and hide what differs. A stand is made
afresh for each measurement, so that no cached path MTU, no device and no window of an earlier one
is left.

It is the netns engine with other wiring: names, labels and folders are the lab's, so that
`lab down --name NAME` removes what a killed bench left.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Final

from pyroute2 import IPRoute

from lab import seeds
from lab.bringup import each
from lab.engines import namespaces, wiring
from lab.engines.netns import STATE, NetnsEngine
from lab.errors import LabError
from lab.routing import BLACKHOLE_METRIC, Route, remote_prefixes, routes_of
from lab.topology import Network, Node, Port, Role, Topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DETACHED: Final = 'setsid "$@" &'  # the shell ends, the node's first process inherits the rest
_STOPS: Final = {signal.SIGINT, signal.SIGTERM}


def topology(name: str) -> Topology:
    """Return the four nodes and three networks."""
    networks = [
        Network("site-a", "lan", (ip_network("10.10.10.0/24"),)),
        Network("wan", "wan", (ip_network("203.0.113.0/24"),)),
        Network("site-b", "lan", (ip_network("10.10.9.0/24"),)),
    ]

    def port(network: str, address: str) -> Port:
        kind = "wan" if network == "wan" else "lan"
        return Port(network, f"{kind}0", (ip_interface(f"{address}/24"),))

    near, far = Role.GATEWAY, Role.HOST
    nodes = [
        Node("host-a", far, "site-a", (port("site-a", "10.10.10.3"),)),
        Node(
            "gw-a",
            near,
            "site-a",
            (port("site-a", "10.10.10.2"), port("wan", "203.0.113.2")),
            tunnel=(ip_interface("10.0.4.1/30"),),
            listens=True,
        ),
        Node(
            "gw-b",
            near,
            "site-b",
            (port("site-b", "10.10.9.2"), port("wan", "203.0.113.3")),
            tunnel=(ip_interface("10.0.4.2/30"),),
            connects=("gw-a",),
        ),
        Node("host-b", far, "site-b", (port("site-b", "10.10.9.3"),)),
    ]
    return Topology(name, {n.name: n for n in networks}, {n.name: n for n in nodes}, "lab bench")


class Stand(NetnsEngine):
    """The four nodes; what runs on them is a contestant's."""

    def create(self) -> None:
        """Make the nodes, lay the cables, set addresses and routes. Nothing crosses yet."""
        nodes = self.topology.nodes
        for name in nodes:
            (STATE / self.topology.name / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, first in zip(nodes, each(self._make, list(nodes)), strict=True):
            namespaces.bind(f"/proc/{first.pid}/ns/net", self.topology.full_name(name))
        for network in self.topology.networks:
            near, far = (n for n in nodes.values() if any(p.network == network for p in n.ports))
            self._lay_cable(network, near, far)
        for node in nodes.values():
            self._wire(node)

    def launch(self, node: str, argv: Sequence[str]) -> None:
        """Start a program that stays; what it says goes to the node's log."""
        command = self.command(node, ["sh", "-c", _DETACHED, "sh", *argv])
        with (STATE / self.topology.name / node / "gateway.log").open("ab") as log:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                check=True,
            )

    def processes(self, node: str) -> list[namespaces.Process]:
        """Return what runs on a node."""
        first = self._first(node)
        return namespaces.members(first.pid) if first else []

    def address(self, node: str, network: str | None = None) -> str:
        """Return a node's address: on its site, or on `network`."""
        this = self.topology.nodes[node]
        return this.address_on(network or this.site or "")

    def prefix_behind(self, gateway: str) -> str:
        """Return the prefix of a gateway's site."""
        site = self.topology.nodes[gateway].site or ""
        return str(self.topology.networks[site].prefixes[0])

    def _lay_cable(self, network: str, near: Node, far: Node) -> None:
        def lay() -> None:
            path = namespaces.NAMES / self.topology.full_name(far.name)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with IPRoute() as netlink:
                    netlink.link(
                        "add",
                        ifname=near.port_on(network).interface,
                        kind="veth",
                        peer={
                            "ifname": far.port_on(network).interface,
                            "net_ns_fd": descriptor,
                        },
                    )
            finally:
                os.close(descriptor)

        self._inside(self.topology.full_name(near.name), lay)

    def _wire(self, node: Node) -> None:
        if node.role is Role.GATEWAY:  # no tunnel, no way: nothing may cross in the clear
            routes: Sequence[Route] = [
                Route(prefix, metric=BLACKHOLE_METRIC)
                for prefix in remote_prefixes(self.topology, node)
            ]
        else:
            routes = routes_of(self.topology, node)
        name = self.topology.full_name(node.name)
        self._inside(name, lambda: wiring.wire_node(node, {}, routes))


@contextmanager
def standing(name: str) -> Iterator[Stand]:
    """Make a stand; whatever happens, nothing of it is left."""
    stand = Stand(topology(name))
    try:
        stand.create()
        yield stand
    finally:
        clear(stand)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Hold the bench's name while it runs, and begin and end with nothing of it there."""
    stand = Stand(topology(name))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        try:
            lock.bind(f"\0twosite-bench-{name}")  # the kernel frees it, however we end
        except OSError:
            raise LabError(f"bench: one called {name} runs already; wait for its end") from None
        try:
            clear(stand)
            yield
        finally:
            clear(stand)


def clear(stand: Stand) -> None:
    """Remove all of a stand; a second Ctrl-C waits until that is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        seeds.clear(stand.topology)
        stand.down()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
