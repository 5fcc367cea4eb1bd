"""The control plane put together: what it owns, how it starts, how it ends.

It starts as root with descriptors from the supervisor, reads the key, drops to its own uid with
NET_ADMIN alone, and only then talks to anybody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from gateway import __version__, link
from gateway.control import admin
from gateway.control.dataplane import DataPlane, DataPlaneError
from gateway.control.dialling import Dialling
from gateway.control.events import Events, Kind
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

    from gateway.config import Config
    from gateway.control.peer import Peer
    from gateway.credentials import Credentials

log = logging.getLogger(__name__)

LIFE_WITHIN: Final = 5.0
"""Seconds without counters, which come each second: then the data plane hangs."""


class LinkBrokenError(Exception):
    """We dropped the link; the supervisor makes a new one when this process ends."""


class ControlPlane:
    """Owns the peers, their channels, the kernel's routes and the admin socket."""

    def __init__(self, config: Config, credentials: Credentials, leash: socket.socket) -> None:
        self._config = config
        self._credentials = credentials
        self._leash = leash
        self._started = self._counted_at = time.monotonic()
        self._stopping = asyncio.Event()
        self._clean = False
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
        self._kernel = Kernel(config.tun.name)
        self._peers = Peers(config, credentials.trusts, self._dataplane, self._kernel, self._events)
        self._dialling = Dialling(credentials, self._dataplane, self._peers, self._background)
        self._reload = Reload(self._peers, self._kernel, credentials, self._dialling)
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
        """Work until the supervisor says stop (0) or is gone (0, at once). Raises GatewayError."""
        if self._config.metrics is not None:
            from gateway.control.metrics import Metrics  # noqa: PLC0415 - loaded before the drop

            Metrics(self._config, self._status, self._events)
        peers = self._config.peers.values()
        await self._kernel.start(
            self._config.tun, [prefix for peer in peers for prefix in peer.prefixes]
        )
        self._leash.setblocking(False)
        asyncio.get_running_loop().add_reader(self._leash, self._order)
        self._background(admin.serve(admin_socket, self._answer, self._watchers))
        self._background(self._say_ready())
        if listening is not None:
            self._background(self._server.run(listening))
        for peer in self._peers.all.values():
            self._dialling.start(peer)
        self._warn_about_our_name()
        self._warn_about_insecure_peers()
        log.info("control plane ready, pid %d, uid %d", os.getpid(), os.getuid())
        await self._stopping.wait()
        if self._failure is not None:
            raise self._failure
        if self._clean:
            await self._stop()
        return 0

    def _warn_about_our_name(self) -> None:
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
        """Goodbye to the peers, then routes and addresses, then the data plane.

        Nobody is waited for longer than `LINGER`: not a peer that does not read, not a data plane
        that hangs. Its end destroys the sessions.
        """
        try:
            await self._peers.goodbye_all(f"{self._config.name} stops")
        finally:
            try:
                await self._kernel.clean()
            finally:
                self._dataplane.stop()
                await self._watchers.close(f"gateway {self._config.name} stopped")

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
        self._resuming = self._background(self._resume(self._peers.take_over(ready), ready.pid))

    async def _resume(self, work: Coroutine[Any, Any, None], pid: int) -> None:
        try:
            await work
        except (DataPlaneError, GatewayError) as error:
            log.error("not ready: %s", error)
            return
        self._dataplane.in_service = True
        self._counted_at = time.monotonic()
        link.say_ready(self._leash)
        self._events.emit(Kind.DATA_PLANE, f"data plane ready, pid {pid}", pid=pid)

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
            case admin.Health():
                return {"ready": self._dataplane.ready}
            case admin.Connect(name):
                await self._peers.connect(self._peer(name))
            case admin.Disconnect(name):
                await self._peers.disconnect(self._peer(name))
            case admin.Rekey(name, suite):
                suites = (suite,) if suite is not None else ()
                return dict(await self._peers.rekey(self._peer(name), suites))
            case admin.Reload(text, files, others):
                async with self._reloading:
                    changes = await self._reload.apply(text, files, frozenset(others))
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

    async def _status(self) -> dict[str, Any]:
        peers = await self._peers.status()
        tun = self._config.tun
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
            "listen": str(self._config.listen),
            "tun": {
                "name": tun.name,
                "mtu": tun.mtu,
                "addresses": [str(address) for address in tun.addresses],
            },
            "peers": peers,
            "drops": dict(self._dataplane.drops),
            "handshakes": dict(self._server.outcomes),
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
