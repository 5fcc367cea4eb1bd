"""Connections that come to us: TLS, who is it, handshake, all within a deadline.

A stranger can open a socket and be forgotten: at most `HALF_OPEN` connections are before their
`ready`, `HALF_OPEN_EACH` from one source, each for at most `HANDSHAKE_WITHIN` seconds. Every
refusal is counted by its code and said in one line, at most `LINES` in `LINES_WITHIN` seconds.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from gateway.control.channel import Channel, host_of
from gateway.control.dataplane import DataPlaneError
from gateway.control.sessions import HandshakeError, negotiate
from gateway.identity import Refused, authenticate, explain
from gateway.protocol import messages
from gateway.protocol.handshake import Party, Responder
from gateway.protocol.messages import Hello, MalformedError, Reject

if TYPE_CHECKING:
    import socket

    from gateway.config import Config
    from gateway.control.dataplane import DataPlane
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.identity import Identity

log = logging.getLogger(__name__)

HANDSHAKE_WITHIN: Final = 10.0  # seconds from accept to ready
HALF_OPEN: Final = 64  # connections
HALF_OPEN_EACH: Final = 16  # of one source: an IPv4 address, an IPv6 /64
LINES: Final = 20
LINES_WITHIN: Final = 10.0  # seconds


class Server:
    """Accepts control connections and serves those that became sessions."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        context: ssl.SSLContext,
        dataplane: DataPlane,
        peers: Peers,
    ) -> None:
        self._config = config
        self._identity = identity
        self._context = context
        self._dataplane = dataplane
        self._peers = peers
        self._half_open: Counter[str] = Counter()  # by source
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines = _Allowance()
        self.outcomes: Counter[str] = Counter()

    async def run(self, listening: socket.socket) -> None:
        """Accept for ever."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:
                # Out of descriptors or memory, or the caller left the queue: it passes.
                self._refused("a caller", "not-accepted", str(error.strerror))
                await asyncio.sleep(0.5)
                continue
            host = host_of(address)
            source = _source(host)
            if self._half_open.total() >= HALF_OPEN or self._half_open[source] >= HALF_OPEN_EACH:
                sock.close()
                self._refused(host, "busy", "too many handshakes are under way")
            else:
                self._half_open[source] += 1  # here, not in the task: it begins after the next
                task = asyncio.create_task(self._converse(sock, host, source))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0)  # sock_accept returns at once while callers wait

    async def _converse(self, sock: socket.socket, host: str, source: str) -> None:
        """One caller, from TLS to the end of its connection."""
        try:
            served = await self._receive(sock, host)
        except Exception:
            log.exception("a connection failed; this is a bug")
            self._refused(host, "bug", "see the lines above")
            return
        finally:
            self._half_open[source] -= 1
            if not self._half_open[source]:
                del self._half_open[source]
        if served is not None:
            peer, channel = served
            self.outcomes["established"] += 1
            why = await self._peers.serve(peer, channel)
            log.info("peer %s: control connection ended: %s", peer.name, why)

    async def _receive(self, sock: socket.socket, host: str) -> tuple[Peer, Channel] | None:
        """Until there is a session, or a refusal that was said to both sides."""
        channel: Channel | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_WITHIN):
                channel = await Channel.open(sock, self._context)
                return await self._greet(channel), channel
        except HandshakeError as error:
            # A peer's own code would let it choose what we count.
            code = "rejected-by-peer" if error.by_peer else error.code
            self._refused(host, code, error.message)
        except Refused as error:
            self._refused(host, error.code, error.message)
        except MalformedError as error:
            self._refused(host, "malformed", str(error))
        except TimeoutError:
            self._refused(host, "timeout", f"no handshake within {HANDSHAKE_WITHIN:.0f} s")
        except DataPlaneError as error:
            self._refused(host, "not-ready", f"our data plane: {error}")
        except ssl.SSLError as error:
            self._refused(host, "tls", explain(error))
        except (OSError, EOFError):
            where = "during TLS" if channel is None else "before a session; maybe it distrusts us"
            self._refused(host, "closed", f"the caller left {where}")
        if channel is not None:
            self._peers.lost(channel)
            await channel.close()
        return None

    async def _greet(self, channel: Channel) -> Peer:
        """From the first frame to a session."""
        try:
            frame = await channel.read()
            hello = messages.decode(frame)
            if not isinstance(hello, Hello):
                raise MalformedError(f"{type(hello).__name__.lower()} where a hello comes first")
            peer, certificate = self._admit(hello, channel)
        except (Refused, MalformedError) as refused:
            code = refused.code if isinstance(refused, Refused) else "malformed"
            await channel.send(Reject(code=code, message=messages.printable(str(refused))))
            raise
        own = Party(
            self._config.name,
            self._identity.sha256,
            self._peers.new_index(),
            self._config.listen.port,
        )
        machine = Responder(own, peer.name, certificate, peer.config.suites)
        try:
            await negotiate(
                channel,
                machine,
                machine.receive(frame),
                self._dataplane,
                peer=peer.name,
                establish=lambda session: self._peers.establish(peer, channel, session),
            )
        finally:
            self._peers.forget_index(own.index)
        return peer

    def _admit(self, hello: Hello, channel: Channel) -> tuple[Peer, bytes]:
        """The peer that the hello names, and its certificate's SHA-256. Raises Refused."""
        peer = self._peers.get(hello.name)
        if peer is None:
            raise Refused("name", f"{hello.name} is no peer of {self._config.name}")
        certificate = authenticate(peer.name, peer.trust, channel.tls, datetime.now(UTC))
        if not self._dataplane.ready:
            raise Refused("not-ready", f"{self._config.name} is starting its data plane")
        if not peer.wanted:
            raise Refused("disconnected", f"{self._config.name} was told to disconnect")
        if peer.greeting and self._identity.sha256 < certificate:
            # Both dialled at once: the smaller fingerprint's connection wins, on both sides.
            raise Refused("crossed", "our own connection to you goes first")
        return peer, certificate

    def _refused(self, host: str, code: str, message: str) -> None:
        self.outcomes[code] += 1
        if (silent := self._lines.take()) is not None:
            more = f" ({silent} lines like this left out)" if silent else ""
            log.warning("refused %s: %s [%s]%s", host, message, code, more)


def _source(host: str) -> str:
    """What one stranger holds: an IPv4 address, a /64 of IPv6."""
    plain = host.partition("%")[0]  # a link-local caller comes with the name of its link
    if ipaddress.ip_address(plain).version == 4:
        return plain
    return str(ipaddress.ip_network((plain, 64), strict=False))


class _Allowance:
    """So many lines a while: a storm of strangers must not fill the disk."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._said = 0
        self._silent = 0

    def take(self) -> int | None:
        """How many lines were left out since the last one; None leaves this one out, too."""
        if time.monotonic() - self._since > LINES_WITHIN:
            self._since, self._said = time.monotonic(), 0
        if self._said >= LINES:
            self._silent += 1
            return None
        self._said += 1
        silent, self._silent = self._silent, 0
        return silent
