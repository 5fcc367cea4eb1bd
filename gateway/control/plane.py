"""The control plane put together: what it owns, how it starts, how it ends.

It starts as root with descriptors from the supervisor, reads the key, drops to its own uid with
NET_ADMIN alone, and only then talks to anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from functools import partial
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway import __version__, link
from gateway.access.pool import Pool
from gateway.control import admin
from gateway.control.certificates import Certificates
from gateway.control.client import ClientSide, LoginRefusedError
from gateway.control.dataplane import DataPlane, DataPlaneError
from gateway.control.dialling import Dialling
from gateway.control.enforcement import Enforcement
from gateway.control.events import Events, Kind
from gateway.control.peer import Device, seconds_left
from gateway.control.peers import Peers
from gateway.control.reload import Reload
from gateway.control.server import Server
from gateway.control.watchers import Watchers
from gateway.errors import GatewayError
from gateway.identity import uri
from gateway.protocol.suites import insecure
from gateway.system.netlink import Kernel

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine
    from collections.abc import Set as AbstractSet

    from gateway.client.vault import Vault
    from gateway.config import Config, Tun
    from gateway.control.peer import Peer
    from gateway.credentials import Credentials

log = logging.getLogger(__name__)

LIFE_WITHIN: Final = 5.0
"""Seconds without counters, which come each second: then the data plane hangs."""


ANSWERED_WITHIN: Final = 0.2  # seconds that the answer to a command needs on the admin socket


class LinkBrokenError(Exception):
    """We dropped the link; the supervisor makes a new one when this process ends."""


class ControlPlane:
    """Owns the peers, their channels, the kernel's routes and the admin socket."""

    def __init__(
        self,
        config: Config,
        credentials: Credentials,
        leash: socket.socket,
        vault: Vault | None = None,
    ) -> None:
        """`vault`: what we log in with, if we are a client."""
        self._kernel = Kernel(config.tun.name)
        self._client: ClientSide | None = None
        if vault is not None:
            tell = partial(link.say_resolvers, leash)
            self._client = ClientSide(config, vault, self._kernel, tell)
            config = self._client.config
        self._config = config
        self._credentials = credentials
        self._leash = leash
        self._started = self._counted_at = time.monotonic()
        self._stopping = asyncio.Event()
        self._first_data_plane = asyncio.Event()
        self._clean = False
        self._renewed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._events = Events()
        self._watchers = Watchers(self._events)
        self._dataplane = DataPlane(
            config.peers.keys(),
            ready=self._data_plane_ready,
            heard=self._heard,
            counted=self._counted,
            moved=self._moved,
            expired=self._expired,
            broken=self._link_broken,
        )
        self._tun = tun_of(config)
        self._enforcement = Enforcement(config, config.tun.name, self._kernel.site_networks)
        self._peers = Peers(config, credentials.trusts, self._dataplane, self._kernel, self._events)
        self._dialling = Dialling(
            credentials, self._dataplane, self._peers, self._background, self._client
        )
        self._certificates = Certificates(credentials, self._peers, self._events)
        self._reload = Reload(
            self._peers,
            self._kernel,
            self._enforcement,
            credentials,
            self._dialling,
            certificates=self._certificates,
        )
        self._reloading = asyncio.Lock()
        self._server = Server(
            config,
            credentials.identity,
            credentials.server,
            self._dataplane,
            self._peers,
            events=self._events,
        )

    async def run(self, listening: socket.socket | None, admin_socket: socket.socket) -> int:
        """Work until the supervisor says stop (0) or is gone (0, at once). Raises GatewayError.

        `START_ANEW`: until we have a new certificate, whose key only a new process can read.
        """
        if self._config.metrics is not None:
            from gateway.control.metrics import Metrics  # noqa: PLC0415 - loaded before the drop

            Metrics(self._config, self._status, self._events)
        pools = () if self._config.users is None else self._config.users.pool
        if self._config.users is not None:
            from gateway.control.people import People  # noqa: PLC0415 - loaded before the drop

            users = self._credentials.authority
            self._peers.people = People.open(self._peers, users, self._enforcement)
            self._background(self._peers.people.follow())
        peers = self._config.peers.values()
        prefixes = [prefix for peer in peers for prefix in peer.prefixes]
        if self._client is not None:
            prefixes += self._client.closed
        login_at = None if self._client is None else self._client.login_at
        await self._kernel.start(self._tun, prefixes, pools, login_at)
        if self._client is not None:
            await self._client.start(self._peers)
        await self._enforcement.start()  # before anybody has a session, and so a route
        self._leash.setblocking(False)
        asyncio.get_running_loop().add_reader(self._leash, self._order)
        self._background(admin.serve(admin_socket, self._answer, self._watchers))
        self._background(self._say_ready())
        self._background(self._certificates.run())
        if listening is not None:
            self._background(self._receive(listening))
        for peer in tuple(self._peers.all.values()):
            self._dialling.start(peer)
        self._warn_about_our_name()
        self._warn_about_insecure_peers()
        log.info("control plane ready, pid %d, uid %d", os.getpid(), os.getuid())
        await self._stopping.wait()
        if isinstance(self._failure, LoginRefusedError):
            await self._stop()
        if self._failure is not None:
            raise self._failure
        if self._clean:
            await self._stop()
            return 0
        return link.START_ANEW if self._renewed else 0

    async def _receive(self, listening: socket.socket) -> None:
        """Serve callers from the first data plane on; the kernel keeps who comes before it."""
        await self._first_data_plane.wait()
        await self._server.run(listening)

    def _warn_about_our_name(self) -> None:
        if self._client is not None:
            return  # a user; the gateway says whether it wants a certificate at all
        ours = uri("gateway", self._config.name)
        if (uris := self._credentials.identity.uris) and ours not in uris:
            log.warning(
                "our certificate names %s: peers that trust the CA will refuse %s",
                ", ".join(uris),
                self._config.name,
            )

    def _warn_about_insecure_peers(self) -> None:
        for peer in self._config.peers.values():
            if weak := insecure(peer.suites):
                log.warning(
                    "peer %s: INSECURE: its configuration allows %s, which anybody on the way can"
                    " read or write to",
                    peer.name,
                    " and ".join(weak),
                )

    async def _stop(self) -> None:
        """Goodbye to the peers, then routes and addresses, the data plane, and the policy.

        Nobody is waited for longer than `LINGER`: not a peer that does not read, not a data plane
        that hangs. Its end destroys the sessions. The policy goes when it is gone: what users send
        is judged as long as there is a session. What fails keeps nothing from what follows it.
        """
        async with contextlib.AsyncExitStack() as then:  # from the last to the first
            then.push_async_callback(self._watchers.close, f"gateway {self._config.name} stopped")
            then.push_async_callback(self._enforcement.clean)
            then.push_async_callback(self._dataplane.stop)
            if self._client is not None:
                then.push_async_callback(self._client.clean, refused=self._failure is not None)
            then.push_async_callback(self._kernel.clean)
            await self._peers.goodbye_all(f"{self._config.name} stops")

    async def _start_anew(self) -> None:
        """End, once the command has its answer. The data plane goes on; no peer hears goodbye."""
        await self._watchers.close("the control plane starts anew with its new certificate")
        await asyncio.sleep(ANSWERED_WITHIN)
        self._renewed = True
        self._stopping.set()

    def _order(self) -> None:
        try:
            order, end = link.receive_order(self._leash)
        except BlockingIOError:
            return
        except OSError:
            order, end = "gone", None
        if end is not None:
            if self._resuming is not None:
                self._resuming.cancel()
            self._dataplane.attach(end)
            return
        # Without the supervisor nothing is cleaned: the barriers keep packets from leaking.
        self._clean = order == "stop"
        asyncio.get_running_loop().remove_reader(self._leash)
        self._stopping.set()

    def _data_plane_ready(self, ready: link.Ready) -> None:
        self._resuming = self._background(
            self._resume(self._peers.forwarding.take_over(ready), ready.pid)
        )

    async def _resume(self, work: Coroutine[Any, Any, None], pid: int) -> None:
        try:
            await work
        except (DataPlaneError, GatewayError) as error:
            log.error("not ready: %s", error)
            return
        self._dataplane.in_service = True
        self._first_data_plane.set()
        self._counted_at = time.monotonic()
        link.say_ready(self._leash)
        self._events.emit(Kind.DATA_PLANE, f"data plane ready, pid {pid}", pid=pid)
        for peer in self._peers.all.values():
            peer.changed.set()  # whoever dials it waited for this

    async def _say_ready(self) -> None:
        """Each second, as long as the data plane shows life: the supervisor passes it on."""
        while True:
            if self._dataplane.ready and time.monotonic() - self._counted_at < LIFE_WITHIN:
                link.say_ready(self._leash)
            await asyncio.sleep(1)

    def _link_broken(self) -> None:
        """Only the supervisor makes links, and it does when one of us ends."""
        self._failure = LinkBrokenError("the link to the data plane is of no use any more")
        self._stopping.set()

    # The peers are made after the data plane, since they need it.

    def _heard(self, index: int) -> None:
        self._peers.heard(index)

    def _counted(self, names: AbstractSet[str]) -> None:
        self._counted_at = time.monotonic()
        self._peers.counted(names)

    def _moved(self, index: int, endpoint: link.Endpoint) -> None:
        self._peers.moved(index, endpoint)

    def _expired(self, index: int) -> None:
        self._peers.expired(index)

    async def _answer(self, request: admin.AnyRequest) -> dict[str, Any]:
        match request:
            case admin.Status():
                return await self._status()
            case admin.Policy():
                return {"policy": await self._policy()}
            case admin.Health():
                return {"ready": self._dataplane.ready}
            case admin.Connect(name):
                peer = self._peer(name)
                if isinstance(peer, Device):
                    raise GatewayError(f"{name} logs in by itself; there is nothing to dial")
                await self._peers.connect(peer)
            case admin.Disconnect(name):
                peer = self._peer(name)
                if isinstance(peer, Device):  # who may log in may do so again
                    await self._peers.part(peer, "by command")
                else:
                    await self._peers.disconnect(peer)
            case admin.Rekey(name, suite):
                suites = (suite,) if suite is not None else ()
                return dict(await self._peers.rekey(self._peer(name), suites))
            case admin.Reload() if self._client is not None:
                raise GatewayError("a client reads its file when it starts; stop and start it")
            case admin.Reload(text, files, others):
                async with self._reloading:
                    changes = await self._reload.apply(text, files, frozenset(others))
                if changes.certificate:
                    self._background(self._start_anew())
                return {"changes": str(changes)}
            case admin.Watch(names):
                return {"peers": [self._peer(name).name for name in names]}
        return {}

    def _peer(self, name: str) -> Peer:
        peer = self._peers.get(name)
        if peer is None:
            known = ", ".join(self._peers.all) or "none is configured"
            raise GatewayError(f"no peer {name!r}; known: {known}")
        return peer

    async def _policy(self) -> dict[str, Any] | None:
        """Raises GatewayError: `nft` may be gone by now."""
        names = {
            prefix.network_address: peer.config.name
            for peer in self._peers.all.values()
            for prefix in peer.config.prefixes
            if prefix.num_addresses == 1
        }
        return await self._enforcement.status(names)

    async def _status(self) -> dict[str, Any]:
        peers = await self._peers.status()
        try:
            policy = await self._policy()
        except GatewayError as error:  # all the rest is worth showing
            policy = {"error": str(error)}
        tun = tun_of(self._peers.config)
        return {
            "name": self._config.name,
            "version": __version__,
            "ready": self._dataplane.ready,
            "config": str(self._config.path),
            "uptime": round(time.monotonic() - self._started, 1),
            "planes": {
                "control": {"pid": os.getpid(), "ready": True},
                "data": {"pid": self._dataplane.pid, "ready": self._dataplane.ready},
            },
            "certificate_expires": seconds_left(self._credentials.identity.expires),
            "listen": str(self._config.listen),
            "tun": {
                "name": tun.name,
                "mtu": tun.mtu,
                "addresses": [str(address) for address in tun.addresses],
            },
            "peers": peers,
            "client": None if self._client is None else await self._client.status(),
            "drops": dict(self._dataplane.drops),
            "handshakes": dict(self._server.outcomes),
            "users": None if self._peers.people is None else self._peers.people.status(),
            "policy": policy,
        }

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run beside the rest; its failure is ours."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._stopping.set()


def tun_of(config: Config) -> Tun:
    """The TUN as it must be: with our own address of each pool, alone, so that no route comes."""
    users, tun = config.users, config.tun
    if users is None:
        return tun
    known = {address.ip for address in tun.addresses}
    own = [ip_interface(one) for one in Pool(users.pool).own if one not in known]
    return msgspec.structs.replace(tun, addresses=(*tun.addresses, *own))
