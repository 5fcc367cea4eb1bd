"""Ends that are single machines: two clients (report, 3.1), or one and a host of a site (3.2).

Their tunnel stands only while checks run: `standing` starts what a person would, and ends it.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_interface
from typing import TYPE_CHECKING, ClassVar, Final

from lab.accounts import accounts
from lab.checks.base import RECOVERY, TTL, Direction, ping
from lab.checks.ends import Ends, Outage, Reach
from lab.errors import LabError, NotHealthyError
from lab.topology import Role
from lab.users.laptop import LOGIN, Laptop, Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.engines.base import Engine
    from lab.topology import Node, Topology

_PAUSE: Final = 0.1  # s between two looks
_TICKET: Final = "/run/direct.ticket"


def choose(engine: Engine, names: Sequence[str]) -> Ends:
    """Return the ends that `--between` names."""
    topology = engine.topology
    nodes = [_node(topology, name) for name in names]
    roles = sorted(node.role for node in nodes)
    if roles == [Role.CLIENT, Role.CLIENT] and len({*names}) > 1:
        return Direct(engine, *nodes)
    if roles == [Role.CLIENT, Role.HOST]:
        client, host = sorted(nodes, key=lambda node: node.role)
        gateway = topology.gateway_of(host.site or "")
        if gateway.people is None:
            raise LabError(f"--between: {gateway.name} lets no user in to {host.name}")
        return Guest(engine, client, host, gateway)
    raise LabError(
        f"--between: no tunnel has the ends {', '.join(names)}; name a client and a host, as"
        " roadwarrior,host-a, or two clients"
    )


def _node(topology: Topology, name: str) -> Node:
    if name in topology.dormant:
        extra = topology.dormant[name].profiles[0]
        raise LabError(f"--between: {name} is not awake; add --with {extra}")
    if name not in topology.nodes:
        raise LabError(f"--between: no node is called {name!r}; one of {', '.join(topology.nodes)}")
    return topology.nodes[name]


class Lone(Ends):
    """Ends that pings tell the health of."""

    def settle(self, timeout: float) -> None:
        """Ping every way until all are answered."""
        deadline = time.monotonic() + timeout
        while True:
            ways = self.ways(4, 6)
            with ThreadPoolExecutor(len(ways)) as pool:
                seen = pool.map(lambda w: ping(self.engine, w.source.name, w.address, 1), ways)
            mute = [str(way) for way, one in zip(ways, seen, strict=True) if not one.received]
            if not mute:
                return
            if time.monotonic() >= deadline:
                raise NotHealthyError(f"no ping after {timeout:g} s: {', '.join(mute)}")
            time.sleep(_PAUSE)

    def _over_the_wan(self, source: Node, target: Node) -> Reach:
        """Return the path from one node to another's public address."""
        what = f"{target.name} over {self.topology.router.name}"
        return Reach(source.name, self.topology.public_address(target), what, TTL - 1)


class Guest(Lone):
    """A user on a client, logged in to a gateway, and a host of the gateway's site.

    Only the user may begin: whoever is behind the gateway answers.
    """

    hops: ClassVar[int] = 1

    def __init__(self, engine: Engine, client: Node, host: Node, gateway: Node) -> None:
        super().__init__(engine)
        self._client, self._host, self._gateway = client, host, gateway
        address = self.topology.public_address(gateway)
        self._laptop = Laptop(engine, client, address)
        self._session: Session | None = None
        self._addresses: dict[int, str] = {}

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Log in as the first user of the lab; log out at the end."""
        self._log_in()
        try:
            self.settle(RECOVERY)
            yield
        finally:
            if self._session is not None:
                self._session.end()

    def _log_in(self) -> None:
        account = accounts(self.engine, self._gateway.name)[0]
        argv = self._laptop.dial(account.name, "--name", self._gateway.name)
        self._session = self._laptop.login(argv, account.password)
        self._addresses = self._laptop.addresses()

    def _kill(self) -> None:
        if self._session is not None:
            self._session.kill()

    def ways(self, *versions: int) -> list[Direction]:
        """From the client to the host."""
        site = self._host.site or ""
        return [
            Direction(
                self._client,
                self._host,
                version,
                self._addresses[version],
                self._host.address_on(site, version),
            )
            for version in versions
        ]

    def nobody(self, way: Direction) -> str:
        """The far site's .200."""
        return str(self.topology.networks[way.target.site or ""].prefixes[0][200])

    def segment(self) -> Reach:
        """From the host to its own gateway."""
        address = self._gateway.address_on(self._host.site or "")
        return Reach(self._host.name, address, self._gateway.name, TTL)

    def near(self) -> list[Reach]:
        """The host's gateway, from both."""
        return [self.segment(), self._over_the_wan(self._client, self._gateway)]

    def dialling(self) -> list[tuple[Node, Node]]:
        """The client connects to the gateway."""
        return [(self._client, self._gateway)]

    def outages(self) -> list[Outage]:
        """The client killed (after a clean stop it promises nothing); the gateway, in two ways."""
        gateway = self._gateway.name
        return [
            Outage(f"client on {self._client.name} killed", self._kill, self._log_in),
            Outage(
                f"gateway process of {gateway} stopped",
                lambda: self.engine.stop_gateway(gateway),
                lambda: self.engine.start_gateway(gateway),
            ),
            Outage(
                f"gateway process of {gateway} killed",
                lambda: self.engine.stop_gateway(gateway, kill=True),
                lambda: self.engine.start_gateway(gateway),
            ),
        ]

    def barrier(self, way: Direction) -> str:
        """The client itself."""
        return way.source.name


class Direct(Lone):
    """Two machines with nothing behind them, joined by one command on each: `gateway direct`."""

    hops: ClassVar[int] = 0
    side_by_side: ClassVar[bool] = False  # one's control crosses the WAN, which another watches

    def __init__(self, engine: Engine, dialling: Node, listening: Node) -> None:
        super().__init__(engine)
        self._nodes = (dialling, listening)
        address = self.topology.public_address(listening)
        self._laptops = [Laptop(engine, node, address) for node in self._nodes]
        self._sessions: list[Session] = []
        self._ticket = ""

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Run both commands; end the one that dials first, so that it need not wonder."""
        try:
            self._join()
            self.settle(RECOVERY)
            yield
        finally:
            for session in reversed(self._sessions):
                session.end()

    def _listen(self) -> None:
        """Run the command that makes the ticket, and take that."""
        listening = self._laptops[1]
        argv = ["gateway", "direct", "--listen", "--ticket-file", _TICKET]
        self.engine.run(listening.name, ["rm", "-f", _TICKET])
        session = Session(listening, argv, ())
        self._sessions = [session, *self._sessions[1:]]
        deadline = time.monotonic() + LOGIN
        while True:
            done = self.engine.run(listening.name, ["cat", _TICKET])
            if done.ok and done.stdout.endswith("\n"):
                self._ticket = done.stdout.strip()
                return
            if time.monotonic() >= deadline:
                raise LabError(f"{listening.name}: gateway direct: no ticket: {session.last()}")
            time.sleep(_PAUSE)

    def _dial(self) -> None:
        """Run the command that takes the ticket, and wait for the session."""
        argv = ["gateway", "direct", self._laptops[0].gateway]
        session = self._laptops[0].login(argv, self._ticket)
        self._sessions = [self._sessions[0], session]

    def _kill(self, *places: int) -> None:
        for place in places:
            self._sessions[place].kill()

    def _join(self) -> None:
        """Run both commands."""
        self._listen()
        self._dial()

    def ways(self, *versions: int) -> list[Direction]:
        """Both, for each version of IP."""
        inside = [laptop.addresses() for laptop in self._laptops]
        one, other = zip(self._nodes, inside, strict=True)
        return [
            Direction(source, target, version, own[version], far[version])
            for version in versions
            for (source, own), (target, far) in ((one, other), (other, one))
        ]

    def nobody(self, way: Direction) -> str:
        """The last address of the tunnel's four."""
        return str(ip_interface(f"{way.address}/30").network[3])

    def segment(self) -> Reach:
        """Over the router: the one way on which there is one."""
        return self.near()[0]

    def near(self) -> list[Reach]:
        """Each other, by the addresses that the WAN knows."""
        one, other = self._nodes
        return [self._over_the_wan(one, other), self._over_the_wan(other, one)]

    def dialling(self) -> list[tuple[Node, Node]]:
        """The first connects to the second."""
        return [self._nodes]

    def peer_name(self, node: Node) -> str:
        """Whatever it is called where no name was given."""
        status = self._laptops[0].status() or {"peers": [{"name": node.name}]}
        return str(status["peers"][0]["name"])

    def outages(self) -> list[Outage]:
        """One killed, then both: of a new listener the other one needs the new ticket.

        After a clean stop neither promises anything.
        """
        one, other = (node.name for node in self._nodes)
        both = f"gateway direct on {one} and {other} killed"
        return [
            Outage(f"gateway direct on {one} killed", lambda: self._kill(1), self._dial),
            Outage(both, lambda: self._kill(0, 1), self._join),
        ]

    def barrier(self, way: Direction) -> str:
        """The machine that begins."""
        return way.source.name
