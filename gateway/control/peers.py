"""The only hands on peers' sessions and routes: the steps from one state of a peer to another.

A session outlives its control channel: the data plane needs none to go on. It ends when the peer
says goodbye, when a command says so, when its keys expire, or when its data plane dies (its keys
die with it, and are never installed twice). One that new keys replaced *fades*: nothing is sent on
it any more, but the peer's records still open on it until `OVERLAP` after the first one that opened
on the new keys.

Not here: how a channel comes about (server.py, connector.py), what is said on one
(conversation.py), a peer's states (peer.py), what the kernel and a new data plane are told of
peers (forwarding.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from typing import TYPE_CHECKING, Any, Final

from gateway import link
from gateway.config import Address
from gateway.control.channel import LINGER
from gateway.control.conversation import Conversation
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Events, Kind
from gateway.control.forwarding import Forwarding
from gateway.control.paths import Paths
from gateway.control.peer import Device, Peer
from gateway.control.sessions import HandshakeError, boottime
from gateway.errors import GatewayError
from gateway.identity import shown
from gateway.protocol.epoch import Epoch
from gateway.protocol.messages import Disconnect
from gateway.protocol.suites import described

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from collections.abc import Set as AbstractSet

    from gateway.config import Config
    from gateway.control.channel import Channel
    from gateway.control.dataplane import DataPlane
    from gateway.control.people import People
    from gateway.control.sessions import Session
    from gateway.identity import Refused, Trust
    from gateway.system.netlink import Kernel

log = logging.getLogger(__name__)

OVERLAP: Final = 10.0
"""Seconds that a replaced session goes on receiving once a record opened on the new one: what was
sent on it is on its way."""
FADING: Final = 4
"""Replaced sessions that a peer may have; of more, the oldest ends at once."""


class Peers:
    """All peers."""

    def __init__(
        self,
        config: Config,
        trusts: dict[str, Trust],
        dataplane: DataPlane,
        kernel: Kernel,
        events: Events,
    ) -> None:
        self.config = config
        self.dataplane = dataplane
        self.events = events
        self._kernel = kernel
        self._heard: set[int] = set()  # sessions of which a record has opened
        self._under_way: set[int] = set()  # indices of handshakes and rekeys
        self._tasks: set[asyncio.Task[None]] = set()  # which nobody need wait for
        self.stopping = False
        self.paths = Paths(config.dataplane, dataplane, config.peers)
        self.all = {
            name: Peer(peer, trusts[name], config.timers) for name, peer in config.peers.items()
        }
        self.people: People | None = None
        """Of a gateway that users log in to."""
        self.forwarding = Forwarding(self, kernel)

    def get(self, name: str) -> Peer | None:
        """The peer of that name, if the configuration has one."""
        return self.all.get(name)

    def add(self, peer: Peer) -> None:
        """There is a new peer."""
        self.all[peer.name] = peer
        self.paths.add(peer.name)
        self.dataplane.names = frozenset(self.all)

    def remove(self, name: str) -> None:
        """There is this peer no more; the data plane may still have to forget it."""
        del self.all[name]
        self.paths.remove(name)
        self.dataplane.names = frozenset(self.all)
        self.dataplane.counters.pop(name, None)

    def new_index(self) -> int:
        """A random index that names no session of ours: live, left behind, or under way.

        `forget_index` gives it back when its handshake ended, either way.
        """
        used = self._under_way | {index for peer in self.all.values() for index in peer.indices}
        while (index := secrets.randbits(32)) in used:
            pass
        self._under_way.add(index)
        return index

    def forget_index(self, index: int) -> None:
        """The handshake of this index ended; its session, if any, is its peer's now."""
        self._under_way.discard(index)
        if self._owner(index) is None:
            self._heard.discard(index)

    def _owner(self, index: int) -> Peer | None:
        return next((peer for peer in self.all.values() if index in peer.indices), None)

    # --- What the data plane tells ---------------------------------------------------------------

    def heard(self, index: int) -> None:
        """A session's first record opened: the peer's datagrams get through."""
        owner = self._owner(index)
        if owner is None and index not in self._under_way:
            return
        self._heard.add(index)
        if owner is None:
            for peer in self.all.values():
                if peer.conversation is not None:
                    peer.conversation.heard(index)
        elif owner.session is not None and owner.session.index == index:
            self._let_fade(owner)
        elif owner.coming is not None and owner.coming.index == index:
            self.start(self._use_coming(owner, owner.coming))

    def moved(self, index: int, endpoint: link.Endpoint) -> None:
        """A peer sends from elsewhere; the data plane answers there by now."""
        owner = self._owner(index)
        if owner is None or owner.session is None or owner.session.index != index:
            return
        before, owner.session.endpoint = owner.session.endpoint, Address(*endpoint)
        owner.moves += 1
        self.paths.connected(owner.name, str(owner.session.endpoint))
        self.events.emit(
            Kind.MOVED, f"moved from {before} to {owner.session.endpoint}", peer=owner.name,
            endpoint=str(owner.session.endpoint),
        )  # fmt: skip

    def expired(self, index: int) -> None:
        """A session's keys reached the end of their life; the data plane destroyed them."""
        owner = self._owner(index)
        if owner is None:
            return
        self._heard.discard(index)
        owner.orphans = [one for one in owner.orphans if one != index]
        owner.fading.pop(index, None)
        if owner.coming is not None and owner.coming.index == index:
            owner.coming = None
        if owner.session is not None and owner.session.index == index:
            owner.session = None
            self.events.emit(
                Kind.EXPIRED, "its keys are too old and were destroyed; no traffic until there are"
                " new ones", peer=owner.name, warning=True,
            )  # fmt: skip
        if not owner.current:
            self.start(self._unroute(owner))
        owner.changed.set()

    def counted(self, names: AbstractSet[str]) -> None:
        """Our data plane's totals of these peers are new: who is there, and what gets through?"""
        self.paths.counted(names)
        now = boottime()
        for name in names & self.all.keys():
            peer, counters = self.all[name], self.dataplane.counters[name]
            if peer.liveness.judge(now, counters.tx_packets, counters.heard):
                self._alive_or_dead(peer)

    def _alive_or_dead(self, peer: Peer) -> None:
        if not peer.liveness.dead:
            self.events.emit(Kind.ALIVE, "heard again", peer=peer.name)
            return
        after = self.config.timers.dead_after
        self.events.emit(
            Kind.DEAD, f"dead: not heard for {after:g} s while we send; connecting anew",
            peer=peer.name, warning=True,
        )  # fmt: skip
        if peer.channel is not None:
            # The connection may stand all the same, through another hole: a new one finds out.
            peer.channel.abort()
        peer.changed.set()

    # --- From one session to the next ------------------------------------------------------------

    async def establish(
        self, peer: Peer, channel: Channel | None, session: Session, *, rekeyed: bool = False
    ) -> None:
        """New keys are proved: data goes over the new session; the peer's old ones fade.

        `channel` is the one that they came over; None: it has ended since. Raises HandshakeError or
        DataPlaneError; then the old ones are untouched.
        """
        async with peer.lock:
            if not peer.wanted:
                raise HandshakeError("disconnected", "told to disconnect")
            self._refuse_loop(session)
            lost = peer.session is None
            peer.routed = True  # said first: `_resume` may set all routes while we wait
            try:
                # Before packets: how they may be, and the way of the answers.
                if lost or not rekeyed:
                    self.paths.connected(peer.name, str(session.endpoint))
                if not rekeyed:
                    await self.forwarding.ready_for(peer)
                await self._kernel.add_routes(peer.config.prefixes)
                await self.dataplane.activate(session.index)
            except GatewayError as error:
                peer.routed = bool(peer.current)
                log.error("peer %s: %s", peer.name, error)
                raise HandshakeError("not-ready", "cannot set its routes") from None
            except BaseException:
                peer.routed = bool(peer.current)
                raise
            replaced = peer.channel
            ended = self._fade(peer)
            sent = self.dataplane.counters.get(peer.name, link.PeerCounters())
            session.epoch = Epoch(boottime(), sent.tx_records, sent.tx_bytes)
            peer.session, peer.orphans, peer.coming, peer.error = session, [], None, None
            if channel is not None:
                peer.channel, peer.certificate = channel, shown(channel.tls)
            if session.index in self._heard:
                self._let_fade(peer)
            # Not waited for: from here on the session is the peer's, whatever ends the caller.
            self.start(self.retire(ended))
            if channel is not None and replaced is not None and replaced is not channel:
                replaced.abort()
            peer.rekeys += rekeyed
            peer.changed.set()
        how = "new keys" if rekeyed else f"established with {session.endpoint}"
        self.events.emit(
            Kind.REKEYED if rekeyed else Kind.ESTABLISHED,
            f"{how}, suite {described(session.suite)}, session {session.index:#010x}",
            peer=peer.name,
            warning=peer.insecure,
            endpoint=str(session.endpoint),
            suite=session.suite,
            session=f"{session.index:#010x}",
        )

    def _fade(self, peer: Peer) -> list[int]:
        """Let what stands now go on receiving; return what must end at once."""
        ended = [] if peer.coming is None else [peer.coming.index]
        for index in peer.current:
            peer.fading[index] = None
        while len(peer.fading) > FADING:
            oldest = next(iter(peer.fading))
            peer.fading.pop(oldest)
            ended.append(oldest)
        return ended

    def _let_fade(self, peer: Peer) -> None:
        """The peer has the new keys: what it sent on older ones arrives within `OVERLAP`."""

        def over(index: int, timer: object) -> None:
            if peer.fading.get(index) is timer:
                del peer.fading[index]
                self.start(self.retire([index]))
                peer.changed.set()

        for index, running in peer.fading.items():
            if running is None:
                timer = peer.fading[index] = object()
                asyncio.get_running_loop().call_later(OVERLAP, over, index, timer)

    def keep_coming(self, peer: Peer, session: Session) -> None:
        """The peer may send on these keys, but its word of it was lost with the connection."""
        peer.coming = session
        if session.index in self._heard:
            self.start(self._use_coming(peer, session))

    async def _use_coming(self, peer: Peer, session: Session) -> None:
        with contextlib.suppress(HandshakeError, DataPlaneError):
            if peer.coming is session:
                peer.coming = None
                await self.establish(peer, None, session, rekeyed=True)

    async def retire(self, indices: list[int]) -> None:
        """Destroy sessions that are nobody's any more."""
        self._heard.difference_update(indices)
        for index in indices:
            await self.dataplane.retire(index)

    def _refuse_loop(self, session: Session) -> None:
        """Datagrams to an endpoint behind the tunnel would be routed into it, for ever."""
        endpoint = session.endpoint.numeric
        if endpoint in {alone.network_address for alone in self.forwarding.excepted}:
            return
        for peer in self.all.values():
            for prefix in peer.config.prefixes:
                if endpoint is not None and endpoint in prefix:
                    raise HandshakeError(
                        "loop", f"the endpoint {endpoint} is inside {prefix}, behind {peer.name}"
                    )

    def lost(self, channel: Channel) -> None:
        """This connection is over, whosever it was."""
        for peer in self.all.values():
            if peer.channel is channel:
                peer.channel = None
                peer.changed.set()

    async def serve(self, peer: Peer, channel: Channel, *, dialled: bool) -> None:
        """Answer on an established channel until it ends. `dialled`: we opened it."""
        if peer.channel is not channel:
            return  # replaced or parted with meanwhile, and closed by whoever did that
        if peer.session is None:  # ended meanwhile
            channel.abort()
            self.lost(channel)
            return
        why = await Conversation(self, peer, channel, dialled=dialled).run()
        self.events.emit(Kind.CONTROL_LOST, f"control connection ended: {why}", peer=peer.name)

    # --- Commands --------------------------------------------------------------------------------

    async def connect(self, peer: Peer) -> None:
        """By command: want this peer again."""
        peer.wanted = True
        peer.changed.set()

    async def disconnect(self, peer: Peer, why: str = "by command") -> None:
        """End the session on both sides, and want none until `connect`."""
        peer.wanted = False
        await self.part(peer, why)

    async def part(self, peer: Peer, why: str) -> None:
        """End the session on both sides; the next one is welcome."""
        await self.end_session(peer, f"disconnected: {why}")
        await self.goodbye([peer], why)

    def refused(self, peer: Peer, refusal: Refused) -> None:
        """A certificate of the peer's own was refused.

        Sessions of a control plane before us may have been made with a revoked one: they end.
        """
        if refusal.code == "revoked" and peer.session is None and peer.orphans:
            self.start(self.end_session(peer, refusal.message))

    async def rekey(self, peer: Peer, suites: tuple[str, ...]) -> dict[str, str]:
        """By command: change keys now. Raises GatewayError."""
        allowed = peer.config.suites
        for suite in suites:
            if suite not in allowed:
                raise GatewayError(
                    f"{_table(peer)}.suites does not have {suite!r}; it has {', '.join(allowed)}"
                )
        if peer.conversation is None:
            raise GatewayError(
                f"no control connection to {peer.name} (state {peer.state}): keys change when it"
                " is back; see: gateway status"
            )
        try:
            await peer.conversation.rekey(suites)
        except HandshakeError as error:
            who = f"{peer.name} refuses" if error.by_peer else "no new keys"
            raise GatewayError(f"{who}: {error}") from None
        session = peer.session
        if session is None:
            raise GatewayError(f"{peer.name} was disconnected meanwhile")
        return {"suite": session.suite, "session": f"{session.index:#010x}"}

    async def goodbye_all(self, reason: str) -> None:
        """A clean stop: every peer hears it. The data plane's end destroys the sessions."""
        self.stopping = True
        for peer in self.all.values():
            peer.wanted = False
        await self.goodbye(self.all.values(), reason)

    # --- The end of sessions and connections ------------------------------------------------------

    def goodbye(self, peers: Iterable[Peer], reason: str) -> asyncio.Task[None]:
        """Part with these peers' connections now, and close them with a word.

        Now: a connection that comes while we wait is another, and stays.
        """
        parting = []
        for peer in peers:
            if peer.channel is not None:
                parting.append(peer.channel)
            peer.channel = None
            peer.changed.set()
        return self.start(_farewell(parting, reason))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what nobody need wait for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_session(self, peer: Peer, why: str) -> None:
        """Destroy the peer's sessions, and route nothing to it."""
        async with peer.lock:
            ended, had = peer.indices, peer.session is not None
            peer.session, peer.coming, peer.orphans, peer.fading = None, None, [], {}
            await self.retire(ended)
            await self._unroute_locked(peer)
            peer.changed.set()
        if had:
            self.events.emit(Kind.DISCONNECTED, why, peer=peer.name)

    async def _unroute(self, peer: Peer) -> None:
        async with peer.lock:
            if not peer.current:
                await self._unroute_locked(peer)

    async def _unroute_locked(self, peer: Peer) -> None:
        peer.routed = False
        try:
            await self._kernel.remove_routes(peer.config.prefixes)
        except GatewayError as error:
            # What still leads there dies in the data plane: no session.
            log.error("peer %s: %s", peer.name, error)

    async def status(self) -> list[dict[str, object]]:
        """One table a peer, as `gateway status` shows it."""
        with contextlib.suppress(DataPlaneError):  # `planes.data.ready` says so
            await self.dataplane.report()
        counters = self.dataplane.counters
        return [peer.row(counters.get(peer.name), self._heard) for peer in self.all.values()]


def _table(peer: Peer) -> str:
    return "users" if isinstance(peer, Device) else f"peers.{peer.name}"


async def _farewell(channels: list[Channel], reason: str) -> None:
    """Say goodbye and close, side by side; a peer that does not read is not waited for."""

    async def one(channel: Channel) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):  # TimeoutError is an OSError
            async with asyncio.timeout(LINGER):
                await channel.send(Disconnect(reason=reason))
        await channel.close()

    await asyncio.gather(*(one(channel) for channel in channels))
