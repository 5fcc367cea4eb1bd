"""What the kernel and the data plane know of the peers: routes, options, shapes; and who is new.

Not here: from one session of a peer to the next (peers.py), rtnetlink itself (system/netlink.py).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from gateway import link
from gateway.control.peer import Device

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from gateway.config import Config, Network
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.system.netlink import Kernel

log = logging.getLogger(__name__)


class Forwarding:
    """Brings kernel and data plane in line with the peers."""

    def __init__(self, peers: Peers, kernel: Kernel) -> None:
        self._peers = peers
        self._kernel = kernel
        self._own: set[Network] = set()  # networks that we are on, as the data plane knows them
        self._told: dict[Network, str | None] = {}  # its route table
        self._telling = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None  # tells it a table that is not read yet
        self.excepted: set[Network] = set()
        """What has a way of its own beside every tunnel: a client's gateway, host by host."""

    # --- A data plane comes or goes --------------------------------------------------------------

    def take_over(self, ready: link.Ready) -> Coroutine[Any, Any, None]:
        """A data plane answered on a new link: bring both to one view.

        What it holds is compared now, before anything else can happen; the rest follows. Its
        sessions that we do not know were made by a control plane before us: they go on until a new
        handshake replaces them. Ours that it does not know died with their keys: where the control
        connection stands, there are new ones at once.
        """
        live = {session.index: session.peer for session in ready.sessions}
        for peer in self._peers.all.values():
            peer.orphans = [index for index in peer.orphans if index in live]
            for index in [one for one in peer.fading if one not in live]:
                del peer.fading[index]
            if peer.coming is not None and peer.coming.index not in live:
                peer.coming = None
            if peer.session is not None and peer.session.index not in live:
                self._lost_session(peer)
            if not peer.current:
                peer.changed.set()
        unknown = []
        for index, name in live.items():
            owner = self._peers.get(name) or self._revive(name)
            if owner is not None and index in owner.indices:
                continue
            if owner is not None and owner.wanted:
                owner.orphans.append(index)
                owner.routed = True
            else:
                unknown.append(index)
        return self._resume(unknown)

    def _revive(self, name: str) -> Peer | None:
        """A user of a control plane before us."""
        return None if self._peers.people is None else self._peers.people.revive(name)

    def _lost_session(self, peer: Peer) -> None:
        log.warning("peer %s: session lost with the data plane; new keys", peer.name)
        peer.session = None
        # Its routes stay while new keys are a matter of milliseconds.
        peer.routed = peer.lock.locked() or peer.conversation is not None
        if peer.conversation is not None:
            peer.conversation.renew()
        else:
            self._peers.goodbye([peer], "the data plane was restarted")

    async def _resume(self, unknown: list[int]) -> None:
        if self._peers.people is not None:
            await self._peers.people.readmit()
        await self.tell_all()
        await self._peers.retire(unknown)
        await self.route_all()

    # --- What they are told ----------------------------------------------------------------------

    async def route_all(self) -> None:
        """Have the kernel's routes lead to the peers that have a session, and to no other."""
        await self._kernel.set_routes(
            prefix
            for peer in self._peers.all.values()
            if peer.routed
            for prefix in peer.config.prefixes
        )

    async def tell_all(self) -> None:
        """Give the data plane all that it should know of the peers but their keys."""
        for peer in self._peers.all.values():
            self.tell_options(peer)
        await self.tell_routes(self._peers.config)
        self._peers.paths.order_all()

    def tell_options(self, peer: Peer) -> None:
        """Give the data plane what the configuration says of one peer."""
        self._peers.dataplane.options(
            link.Options(
                peer=peer.name,
                roam=peer.config.roam,
                transit=peer.config.transit,
                keepalive=peer.config.keepalive,
                keepalive_after=self._peers.config.timers.keepalive_after,
            )
        )

    async def ready_for(self, peer: Peer) -> None:
        """Before a session of its own: an interface may have come, and a user may be new."""
        wanted = peer.config.prefixes if isinstance(peer, Device) else ()
        known = all(self._told.get(prefix) == peer.name for prefix in wanted)
        if not known or await self._kernel.own_networks() != self._own:
            await self.tell_routes_soon()

    async def tell_routes_soon(self) -> None:
        """Tell the route table as it is now; one telling does for all who ask meanwhile."""
        if self._next is None:
            self._next = self._peers.start(self._tell_next())
            # Whoever waits hears of a failure; perhaps nobody waits any more.
            self._next.add_done_callback(lambda told: told.cancelled() or told.exception())
        await asyncio.shield(self._next)

    async def _tell_next(self) -> None:
        async with self._telling:
            self._next = None  # who asks from here on may have changed what is read below
            await self._tell_routes(self._peers.config)

    async def tell_routes(self, config: Config) -> None:
        """Give the data plane the route table of a configuration, and of the users who are here."""
        async with self._telling:
            await self._tell_routes(config)

    async def _tell_routes(self, config: Config) -> None:
        table: dict[Network, str | None] = {
            prefix: peer.name for peer in config.peers.values() for prefix in peer.prefixes
        }
        own = await self._kernel.own_networks()
        for peer in self._peers.all.values():
            if isinstance(peer, Device):
                table.update(dict.fromkeys(peer.config.prefixes, peer.name))
        # Where a peer's prefix covers our own site, the longer prefix is ours.
        for ours in own - table.keys():
            if any(ours.version == prefix.version and _covers(prefix, ours) for prefix in table):
                table[ours] = None
        table |= dict.fromkeys(self.excepted)
        await self._peers.dataplane.set_routes(
            (str(prefix), name) for prefix, name in table.items()
        )
        self._own, self._told = own, table


def _covers(wider: Network, own: Network) -> bool:
    return wider.prefixlen < own.prefixlen and int(own.network_address) >> (
        own.max_prefixlen - wider.prefixlen
    ) == int(wider.network_address) >> (own.max_prefixlen - wider.prefixlen)
