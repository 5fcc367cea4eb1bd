"""Two control planes in one process, over loopback TLS, with data plane and kernel recorded."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from gateway import config as configuration
from gateway import link, pki
from gateway.access.logins import Logins
from gateway.access.passwords import Cost
from gateway.access.pool import Pool
from gateway.access.users import Users
from gateway.control.channel import Channel
from gateway.control.connector import Connector
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Events
from gateway.control.peer import Device
from gateway.control.peers import Peers
from gateway.control.people import People
from gateway.control.server import Server
from gateway.credentials import Credentials
from gateway.errors import GatewayError
from gateway.protocol.handshake import Initiator, Party
from gateway.protocol.machine import Install, Send

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from gateway.config import Config
    from tests.planes import Plane

CHEAP = Cost(memory=8, passes=1, lanes=1)
"""Passwords that take no time."""


@dataclass
class RecordedDataPlane:
    """Says yes to everything, unless told otherwise, and remembers the order."""

    events: list[tuple[str, Any]] = field(default_factory=list)
    said: list[link.Options] = field(default_factory=list)
    shapes: list[link.Shape] = field(default_factory=list)
    live: dict[int, dict[str, Any]] = field(default_factory=dict)
    refuse: str | None = None
    ready: bool = True
    names: AbstractSet[str] = frozenset()
    on_install: Callable[[], None] = lambda: None
    counters: dict[str, link.PeerCounters] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)

    async def install(self, **session: Any) -> None:
        if self.refuse == "install":
            raise DataPlaneError("refused by the test")
        assert session["index"] not in self.live
        self.live[session["index"]] = session
        self.events.append(("install", session["index"]))
        self.on_install()

    async def activate(self, index: int) -> None:
        assert index in self.live
        self.events.append(("activate", index))

    async def retire(self, index: int) -> None:
        self.live.pop(index, None)
        self.events.append(("retire", index))

    async def set_routes(self, entries: Iterable[tuple[str, str | None]]) -> None:
        if self.refuse == "routes":
            raise DataPlaneError("refused by the test")
        self.events.append(("routes", sorted(entries, key=str)))

    def shape(self, shape: link.Shape) -> None:
        self.shapes.append(shape)

    def options(self, options: link.Options) -> None:
        self.said.append(options)

    async def forget(self, peer: str) -> None:
        self.live = {i: one for i, one in self.live.items() if one["peer"] != peer}
        self.events.append(("forget", peer))

    async def report(self) -> None:
        pass


class Carrying(RecordedDataPlane):
    """Records its orders, and has them carried out by a data plane on fakes."""

    def __init__(self, plane: Plane, towards: Plane, prefixes: dict[str, list[str]]) -> None:
        super().__init__()
        self.plane = plane
        self._towards = towards
        plane.route(prefixes)

    async def install(self, **session: Any) -> None:
        await super().install(**session)
        session["endpoint"] = self._towards.endpoint  # both sides are the loopback's to TLS
        assert self.plane.order(link.Install, **session) is None

    async def activate(self, index: int) -> None:
        await super().activate(index)
        assert self.plane.order(link.Activate, index=index) is None

    async def retire(self, index: int) -> None:
        await super().retire(index)
        assert self.plane.order(link.Retire, index=index) is None


@dataclass
class RecordedKernel:
    """Routes as they would stand."""

    routes: set[str] = field(default_factory=set)
    covered: set[str] = field(default_factory=set)
    own: set[Any] = field(default_factory=set)
    pools: tuple[Any, ...] = ()
    refuse: bool = False

    async def add_routes(self, prefixes: Iterable[Any]) -> None:
        if self.refuse:
            raise GatewayError("refused by the test")
        self.routes |= {str(prefix) for prefix in prefixes}

    async def remove_routes(self, prefixes: Iterable[Any]) -> None:
        if self.refuse:
            raise GatewayError("refused by the test")
        self.routes -= {str(prefix) for prefix in prefixes}

    async def own_networks(self) -> set[Any]:
        return self.own

    async def cover(self, prefixes: Iterable[Any]) -> None:
        wanted = {str(prefix) for prefix in prefixes}
        if self.refuse and wanted - self.covered:
            raise GatewayError("refused by the test")
        self.covered = wanted
        pooled = {
            route
            for route in self.routes
            for pool in self.pools
            if ip_network(route).network_address in pool
        }
        self.routes &= wanted | pooled

    async def set_routes(self, prefixes: Iterable[Any]) -> None:
        self.routes = {str(prefix) for prefix in prefixes}


@dataclass
class RecordedEnforcement:
    """Rights as they would stand."""

    rights: dict[str, tuple[str, ...]] = field(default_factory=dict)
    configs: list[Config] = field(default_factory=list)
    refuse: bool = False

    async def admit(self, addresses: Iterable[Any], groups: Iterable[str]) -> None:
        if self.refuse:
            raise GatewayError("refused by the test")
        self.rights.update(dict.fromkeys(map(str, addresses), tuple(groups)))

    async def leave(self, addresses: Iterable[Any]) -> None:
        for address in addresses:
            self.rights.pop(str(address), None)

    async def retain(self, addresses: Collection[Any]) -> None:
        kept = set(map(str, addresses))
        self.rights = {one: groups for one, groups in self.rights.items() if one in kept}

    async def change(self, config: Config) -> None:
        self.configs.append(config)
        if self.refuse:
            self.refuse = False  # back to the old ones, it works again
            raise GatewayError("refused by the test")


class Side:
    """One control plane without its process."""

    def __init__(self, file: Path, port: int) -> None:
        self.config = configuration.load(file)
        self.credentials = Credentials(self.config)
        self.dataplane, self.kernel = RecordedDataPlane(), RecordedKernel()
        self.events = Events()
        self.peers = Peers(
            self.config,
            self.credentials.trusts,
            self.dataplane,  # type: ignore[arg-type]
            self.kernel,  # type: ignore[arg-type]
            self.events,
        )
        self.server = Server(
            self.config,
            self.credentials.identity,
            self.credentials.server,
            self.dataplane,  # type: ignore[arg-type]
            self.peers,
            events=self.events,
        )
        (self.peer,) = self.peers.all.values()
        self.port = port
        self.enforcement = RecordedEnforcement()
        if (settings := self.config.users) is not None:
            self.kernel.pools = settings.pool
            self.users = Users.open(settings.database, create=True, cost=CHEAP)
            self.logins = Logins(self.users, remember=settings.remember, limits=self.config.bans)
            self.peers.people = People(
                self.peers,
                self.credentials.authority,
                users=self.users,
                logins=self.logins,
                pool=Pool(settings.pool),
                enforcement=self.enforcement,  # type: ignore[arg-type]
            )

    @property
    def people(self) -> People:
        """Who may log in here."""
        assert self.peers.people is not None
        return self.peers.people

    def use(self, dataplane: RecordedDataPlane) -> None:
        """Have another data plane, before anything is installed."""
        self.dataplane = dataplane
        self.peers.dataplane = self.server._dataplane = dataplane  # type: ignore[assignment]

    def connector(self, to: Side) -> Connector:
        return Connector(
            self.peer,
            configuration.Address("127.0.0.1", to.port),
            self.credentials.client(self.peer.trust),
            identity=self.credentials.identity,
            dataplane=self.dataplane,  # type: ignore[arg-type]
            peers=self.peers,
        )


@asynccontextmanager
async def two_sides(folder: Path, more: str = "") -> AsyncIterator[tuple[Side, Side]]:
    """gw-a and gw-b, each able to dial the other; both servers run.

    `more`: the rest of gw-a's config; with `[users]`, people may log in.
    """
    pki.init(folder / "pki")
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    sides = []
    for own, other, sock in zip(("gw-a", "gw-b"), ("gw-b", "gw-a"), listening, strict=True):
        pki.issue(own, folder / "pki")
        file = folder / "pki" / f"{own}.toml"
        file.write_text(
            f'name = "{own}"\n'
            f'[identity]\ncertificate = "{own}.crt"\nkey = "{own}.key"\nca = "ca.crt"\n'
            f'[listen]\naddress = "127.0.0.1"\n'
            f'[tun]\naddresses = ["10.0.4.{1 if own == "gw-a" else 2}/32"]\n'
            f'[peers.{other}]\nconnect = "127.0.0.1"\n'
            f'prefixes = ["10.0.4.{2 if own == "gw-a" else 1}/32"]\n'
            + (more if own == "gw-a" else "")
        )
        sides.append(Side(file, sock.getsockname()[1]))
    tasks = [
        asyncio.create_task(side.server.run(sock))
        for side, sock in zip(sides, listening, strict=True)
    ]
    tasks += [asyncio.create_task(one.people.follow()) for one in sides if one.peers.people]
    try:
        yield sides[0], sides[1]
    finally:
        for side in sides:
            await side.peers.goodbye_all("the test ends")
            for peer in tuple(side.peers.all.values()):
                if isinstance(peer, Device):  # else each waits for its keys' end
                    await side.peers.end_session(peer, "the test ends")
        # Each connection's task ends by itself now; then nothing of them is left.
        await until(lambda: len(asyncio.all_tasks()) <= 1 + len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for side in sides:
            if side.peers.people is not None:
                side.logins.close()
                side.users.close()
        for sock in listening:
            sock.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


def play(story: Callable[[Side, Side], Awaitable[None]], folder: Path, more: str = "") -> None:
    async def run() -> None:
        async with two_sides(folder, more) as (a, b):
            await story(a, b)

    asyncio.run(run())


async def meet(dialler: Side, listener: Side) -> None:
    """One dial, up to a session on both sides."""
    before = listener.peer.session
    spoken = (None, dialler.peer.conversation, listener.peer.conversation)
    channel = await dialler.connector(listener)._dial()
    task = asyncio.create_task(dialler.peers.serve(dialler.peer, channel, dialled=True))
    background.add(task)
    task.add_done_callback(background.discard)
    await until(lambda: listener.peer.session not in (None, before))
    await until(lambda: all(side.peer.conversation not in spoken for side in (dialler, listener)))


background: set[asyncio.Task[None]] = set()


async def trusted(side: Side, to: Side) -> Channel:
    """A channel of a peer whose certificate is good, and whose program is not ours."""
    sock = socket.create_connection(("127.0.0.1", to.port))
    return await Channel.open(sock, side.credentials.client(side.peer.trust))


async def shake_hands(b: Side, a: Side) -> Channel:
    """What b's own program does, without what follows."""
    channel = await trusted(b, a)
    own = Party("gw-b", b.credentials.identity.sha256, 1, 2)
    machine = Initiator(own, "gw-a", a.credentials.identity.sha256, ["aes-256-gcm"])
    events = list(machine.start())
    while not machine.done:
        for event in events:
            if isinstance(event, Send):
                await channel.write(event.frame)
            if isinstance(event, Install):
                events = list(machine.installed())
                break
        else:
            events = list(machine.receive(await channel.read()))
    return channel
