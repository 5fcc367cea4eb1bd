"""What a check is about: the two ends of a tunnel, and what stands between them.

A check takes `Ends` and asks for the ways between them, for what may be seen on the WAN, for what
to stop and start; so one list of checks proves the same of two sites (`Sites`, here) and of
machines that have no site behind them (`lone.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from lab.bringup import wait_healthy
from lab.checks.base import TTL, Direction, between, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.engines.base import Engine
    from lab.topology import Node, Topology


class Outage(NamedTuple):
    """Something that breaks the tunnel, and its mend."""

    what: str
    stop: Callable[[], None]
    start: Callable[[], None]


class Reach(NamedTuple):
    """A path that needs no tunnel: from a node to an address, whose it is, and the TTL there."""

    source: str
    address: str
    what: str
    ttl: int


class Ends(ABC):
    """Two ends of a tunnel in a lab that is up."""

    hops: ClassVar[int]
    """How many nodes forward a packet from one end to the other: by so much its TTL drops."""

    side_by_side: ClassVar[bool] = True
    """Whether checks that only need the tunnel may run at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Hold what the ends need beside the lab itself, and leave nothing of it."""
        yield

    @property
    def topology(self) -> Topology:
        """The lab's."""
        return self.engine.topology

    @abstractmethod
    def ways(self, *versions: int) -> list[Direction]:
        """Return every direction in which one end may begin to talk to the other."""

    @property
    def sources(self) -> list[str]:
        """The nodes that begin."""
        return list(dict.fromkeys(way.source.name for way in self.ways(4, 6)))

    @property
    def targets(self) -> list[str]:
        """The nodes that answer."""
        return list(dict.fromkeys(way.target.name for way in self.ways(4, 6)))

    # ---- what stands between them

    @abstractmethod
    def nobody(self, way: Direction) -> str:
        """Return an address at the far end of a way that nobody has."""

    @abstractmethod
    def segment(self) -> Reach:
        """Return a path beside the tunnel whose TTL is known: the control of those inside it."""

    @abstractmethod
    def near(self) -> list[Reach]:
        """Return what is reachable without the tunnel."""

    @abstractmethod
    def dialling(self) -> list[tuple[Node, Node]]:
        """Return the two nodes that hold the tunnel, the first of which connects to the second."""

    def outside(self) -> tuple[Node, Node]:
        """Return who can send a packet beside the tunnel, over the WAN, and to whom."""
        ((connecting, listening), *_) = self.dialling()
        return listening, connecting

    def tunnels(self) -> set[frozenset[str]]:
        """Return the pairs of addresses on the WAN between which there may be a tunnel."""
        topology = self.topology
        pairs = [(one, other) for one in topology.gateways for other in topology.peers(one)]
        return {
            frozenset(topology.public_address(node, version) for node in pair)
            for pair in (*pairs, *self.dialling())
            for version in (4, 6)
        }

    # ---- what may be done to it

    def disconnect(self) -> None:
        """Take the tunnel down by command, at the side that connects; its process goes on."""
        for connecting, listening in self.dialling():
            command(self.engine, connecting.name, "disconnect", self.peer_name(listening))

    def connect(self) -> None:
        """Let the tunnel come up again; returns before it is there."""
        for connecting, listening in self.dialling():
            command(self.engine, connecting.name, "connect", self.peer_name(listening))

    def peer_name(self, node: Node) -> str:
        """Return what the connecting side calls the listening one."""
        return node.name

    @abstractmethod
    def settle(self, timeout: float) -> None:
        """Wait until pings cross every way; NotHealthyError after `timeout` s."""

    @abstractmethod
    def outages(self) -> list[Outage]:
        """Return what is to be stopped, each by itself, without a leak."""

    @abstractmethod
    def barrier(self, way: Direction) -> str:
        """Return the node whose routes keep a way's packets from leaving in the clear."""


class Sites(Ends):
    """The hosts of the first two sites: however many there are, checks 1 to 7 are about these."""

    hops: ClassVar[int] = 2

    @property
    def gateways(self) -> tuple[Node, ...]:
        """Their gateways."""
        return self.topology.gateways[:2]

    @property
    def hosts(self) -> tuple[Node, ...]:
        """Their hosts."""
        served = [gateway.site for gateway in self.gateways]
        return tuple(host for host in self.topology.hosts if host.site in served)

    def ways(self, *versions: int) -> list[Direction]:
        """Both, for each version of IP."""
        return between(self.hosts, *versions)

    def nobody(self, way: Direction) -> str:
        """The far site's .200."""
        return str(self.topology.networks[way.target.site or ""].prefixes[0][200])

    def segment(self) -> Reach:
        """From a host to its own gateway."""
        return self.near()[0]

    def near(self) -> list[Reach]:
        """Each host's own gateway; and, over the WANs, each gateway's other one."""
        found = []
        for host in self.hosts:
            gateway = self.topology.gateway_of(host.site or "")
            found.append(Reach(host.name, gateway.address_on(host.site or ""), gateway.name, TTL))
        for gateway in self.gateways:
            for other in self.gateways:
                if other is not gateway:
                    address = self.topology.public_address(other)
                    what = f"{other.name} over {self.topology.router.name}"
                    found.append(Reach(gateway.name, address, what, TTL - 1))
        return found

    def dialling(self) -> list[tuple[Node, Node]]:
        """Who connects to whom, of the two gateways."""
        pair = self.gateways
        return [(one, peer) for one in pair for peer in pair if peer.name in one.connects]

    def settle(self, timeout: float) -> None:
        """Wait for the lab's health."""
        wait_healthy(self.engine, timeout)

    def outages(self) -> list[Outage]:
        """The machine of the connecting gateway; the process of the listening one, in two ways."""
        engine = self.engine
        connecting = next(g.name for g in self.gateways if g.connects)
        listening = next(g.name for g in self.gateways if g.listens)
        return [
            Outage(
                f"{connecting} stopped",
                lambda: engine.stop(connecting),
                lambda: engine.start(connecting),
            ),
            Outage(
                f"gateway process of {listening} stopped",
                lambda: engine.stop_gateway(listening),
                lambda: engine.start_gateway(listening),
            ),
            Outage(
                f"gateway process of {listening} killed",
                lambda: engine.stop_gateway(listening, kill=True),
                lambda: engine.start_gateway(listening),
            ),
        ]

    def barrier(self, way: Direction) -> str:
        """The gateway of the host that begins."""
        return self.topology.gateway_of(way.source.site or "").name
