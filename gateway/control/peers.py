"""The only hands on peers' sessions and routes: the steps from one state of a peer to another.

A session outlives its control channel: the data plane needs none to go on. It ends when the peer
says goodbye, when a command says so, or when its data plane dies (its keys die with it, and are
never installed twice). One that a new handshake replaced *fades*: nothing is sent on it any more,
but the peer's records still open on it for `OVERLAP` seconds.

Not here: how a channel comes about (server.py, connector.py), a peer's states (peer.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from gateway.control.channel import LINGER
from gateway.control.dataplane import DataPlaneError
from gateway.control.paths import Paths
from gateway.control.peer import Peer
from gateway.control.sessions import HandshakeError, boottime
from gateway.errors import GatewayError
from gateway.identity import explain
from gateway.protocol import messages
from gateway.protocol.messages import Disconnect, MalformedError, PathReport, Ping, Pong

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from gateway import link
    from gateway.config import Config
    from gateway.control.channel import Channel
    from gateway.control.dataplane import DataPlane
    from gateway.control.sessions import Session
    from gateway.identity import Trust
    from gateway.system.netlink import Kernel

log = logging.getLogger(__name__)

PING_EVERY: Final = 3.0  # seconds
SILENCE: Final = 10.0  # seconds without a frame: the connection is dead; three pings went unheard
FRAMES: Final = 32
"""In `FRAMES_WITHIN` seconds. An honest peer sends a ping and a path report each second at most,
answers ours, and says goodbye."""
FRAMES_WITHIN: Final = 3.0
OVERLAP: Final = 10.0
"""Seconds that a replaced session goes on receiving: an initiator sends on it until our `ready`
reaches it, and what it sent is on its way."""


class Peers:
    """All peers."""

    def __init__(
        self, config: Config, trusts: dict[str, Trust], dataplane: DataPlane, kernel: Kernel
    ) -> None:
        self._dataplane = dataplane
        self._kernel = kernel
        self._heard: set[int] = set()  # sessions of which a record has opened
        self._under_way: set[int] = set()  # indices of handshakes
        self._tasks: set[asyncio.Task[None]] = set()  # which nobody need wait for
        self.paths = Paths(config, dataplane)
        self.all = {name: Peer(peer, trusts[name]) for name, peer in config.peers.items()}

    def get(self, name: str) -> Peer | None:
        """The peer of that name, if the configuration has one."""
        return self.all.get(name)

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
        if not self._is_somebodys(index):
            self._heard.discard(index)

    def heard(self, index: int) -> None:
        """A session's first record opened: the peer's datagrams get through."""
        if index in self._under_way or self._is_somebodys(index):
            self._heard.add(index)

    def _is_somebodys(self, index: int) -> bool:
        return any(index in peer.indices for peer in self.all.values())

    async def establish(self, peer: Peer, channel: Channel, session: Session) -> None:
        """A handshake is proved: data goes over the new session; the peer's old ones fade.

        Raises HandshakeError or DataPlaneError; then the old ones are untouched.
        """
        async with peer.lock:
            if not peer.wanted:
                raise HandshakeError("disconnected", "told to disconnect")
            self._refuse_loop(session)
            peer.routed = True  # said first: `_resume` may set all routes while we wait
            try:
                # Before packets: how they may be, and the way of the answers.
                self.paths.connected(peer.name, str(session.endpoint))
                await self._kernel.add_routes(peer.config.prefixes)
                await self._dataplane.activate(session.index)
            except GatewayError as error:
                peer.routed = bool(peer.current)
                log.error("peer %s: %s", peer.name, error)
                raise HandshakeError("not-ready", "cannot set its routes") from None
            except BaseException:
                peer.routed = bool(peer.current)
                raise
            faded, replaced = peer.fading, peer.channel
            self._fade(peer)
            peer.channel = channel
            peer.session, peer.orphans, peer.error = session, [], None
            await self._retire(faded)
            if replaced is not None:
                replaced.abort()
            peer.changed.set()
        log.info(
            "peer %s: established with %s, suite %s, session %#010x",
            peer.name,
            session.endpoint,
            session.suite,
            session.index,
        )

    def _fade(self, peer: Peer) -> None:
        """Let what stands now go on receiving for `OVERLAP`."""
        peer.fading = fading = peer.current

        def over() -> None:
            if peer.fading is fading:  # else others fade since, and these have ended
                peer.fading = []
                self._start(self._retire(fading))

        if fading:
            asyncio.get_running_loop().call_later(OVERLAP, over)

    async def _retire(self, indices: list[int]) -> None:
        """Destroy sessions that are nobody's any more."""
        self._heard.difference_update(indices)
        for index in indices:
            await self._dataplane.retire(index)

    def _refuse_loop(self, session: Session) -> None:
        """Datagrams to an endpoint behind the tunnel would be routed into it, for ever."""
        endpoint = session.endpoint.numeric
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

    async def serve(self, peer: Peer, channel: Channel) -> str:
        """Answer on an established channel until it ends; say why it did."""
        beside = [
            asyncio.create_task(_ping(channel)),
            asyncio.create_task(self.paths.report(peer.name, channel)),
        ]
        try:
            why = await self._listen(peer, channel)
        except EOFError:
            why = "closed by the peer"
        except (OSError, ssl.SSLError) as error:
            why = explain(error, established=True)
        except MalformedError as error:
            why = f"malformed frame: {error}"
        finally:
            for task in beside:
                task.cancel()
            ours = peer.channel is not channel  # a goodbye of ours, or a newer connection
            self.lost(channel)
            channel.abort()
        return "we closed it" if ours else why

    async def _listen(self, peer: Peer, channel: Channel) -> str:
        arrivals: deque[float] = deque(maxlen=FRAMES)
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    frame = await channel.read()
            except TimeoutError:
                return f"silent for {SILENCE:.0f} s"
            now = boottime()
            if len(arrivals) == FRAMES and now - arrivals[0] < FRAMES_WITHIN:
                return f"a flood: more than {FRAMES} frames in {FRAMES_WITHIN:.0f} s"
            arrivals.append(now)
            message = messages.decode(frame)
            if peer.channel is channel:  # an older connection tells of the past
                report = message if isinstance(message, PathReport) else None
                self.paths.heard(peer.name, report)
            match message:
                case Ping(token):
                    await channel.send(Pong(token=token))
                case Pong() | PathReport():
                    pass
                case Disconnect(reason):
                    if peer.channel is channel:  # an older connection's goodbye ends nothing
                        await self.end_session(peer)
                    return f"the peer said goodbye: {messages.printable(reason)}"
                case other:
                    raise MalformedError(f"{type(other).__name__.lower()} after the handshake")

    async def connect(self, peer: Peer) -> None:
        """By command: want this peer again."""
        peer.wanted = True
        peer.changed.set()

    async def disconnect(self, peer: Peer) -> None:
        """By command: end the session on both sides, and want none until `connect`."""
        peer.wanted = False
        await self.end_session(peer)
        await self._goodbye([peer], "by command")
        log.info("peer %s: disconnected by command", peer.name)

    async def goodbye_all(self, reason: str) -> None:
        """A clean stop: every peer hears it. The data plane's end destroys the sessions."""
        for peer in self.all.values():
            peer.wanted = False
        await self._goodbye(self.all.values(), reason)

    def take_over(self, ready: link.Ready) -> Coroutine[Any, Any, None]:
        """A data plane answered on a new link: bring both to one view.

        What it holds is compared now, before anything else can happen; the rest follows. Its
        sessions that we do not know were made by a control plane before us: they go on until a new
        handshake replaces them. Ours that it does not know died with their keys.
        """
        live = {session.index: session.peer for session in ready.sessions}
        lost = [p for p in self.all.values() if p.session and p.session.index not in live]
        for peer in lost:
            log.warning("peer %s: session lost with the data plane; new keys", peer.name)
            peer.session = None
            peer.routed = peer.lock.locked()  # unless another is being established just now
        for peer in self.all.values():
            peer.orphans = [index for index in peer.orphans if index in live]
            peer.fading[:] = [index for index in peer.fading if index in live]
        unknown = []
        for index, name in live.items():
            owner = self.all.get(name)
            if owner is not None and index in owner.indices:
                continue
            if owner is not None and owner.wanted:
                owner.orphans.append(index)
                owner.routed = True
            else:
                unknown.append(index)
        self._goodbye(lost, "the data plane was restarted")
        return self._resume(unknown)

    async def _resume(self, unknown: list[int]) -> None:
        await self._dataplane.set_routes(
            (prefix, peer.name) for peer in self.all.values() for prefix in peer.prefixes
        )
        self.paths.order_all()
        await self._retire(unknown)
        await self._kernel.set_routes(
            prefix for peer in self.all.values() if peer.routed for prefix in peer.config.prefixes
        )

    def _goodbye(self, peers: Iterable[Peer], reason: str) -> asyncio.Task[None]:
        """Part with these peers' connections now, and close them with a word.

        Now: a connection that comes while we wait is another, and stays.
        """
        parting = []
        for peer in peers:
            if peer.channel is not None:
                parting.append(peer.channel)
            peer.channel = None
            peer.changed.set()
        return self._start(_farewell(parting, reason))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def end_session(self, peer: Peer) -> None:
        """Destroy the peer's sessions, and route nothing to it."""
        async with peer.lock:
            ended = peer.indices
            peer.session, peer.orphans, peer.fading, peer.routed = None, [], [], False
            await self._retire(ended)
            try:
                await self._kernel.remove_routes(peer.config.prefixes)
            except GatewayError as error:
                # What still leads there dies in the data plane: no session.
                log.error("peer %s: %s", peer.name, error)

    async def status(self) -> list[dict[str, object]]:
        """One table a peer, as `gateway status` shows it."""
        with contextlib.suppress(DataPlaneError):  # `planes.data.ready` says so
            await self._dataplane.report()
        counters = self._dataplane.counters
        return [peer.row(counters.get(peer.name), self._heard) for peer in self.all.values()]


async def _ping(channel: Channel) -> None:
    """Keep the connection known to be alive, on both sides and in every NAT between."""
    try:
        while True:
            await asyncio.sleep(PING_EVERY)
            await channel.send(Ping(token=secrets.randbits(32)))
    except (OSError, ssl.SSLError):
        pass  # the reader sees the same end, and says so


async def _farewell(channels: list[Channel], reason: str) -> None:
    """Say goodbye and close, side by side; a peer that does not read is not waited for."""

    async def one(channel: Channel) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):  # TimeoutError is an OSError
            async with asyncio.timeout(LINGER):
                await channel.send(Disconnect(reason=reason))
        await channel.close()

    await asyncio.gather(*(one(channel) for channel in channels))
