"""Connections that we open: dial a peer, and dial again, for ever.

The name is resolved anew each time. A pause is a twentieth of how long the peer has been away, from
0.5 s to 30 s, with up to a fifth of jitter, so that many gateways do not come back in step: nobody
waits for more than a little of what the outage lasted anyway. A failure is told when it differs
from the last one: a peer that is down for a night is one line.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import ssl
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.control.channel import Channel, host_of
from gateway.control.dataplane import DataPlaneError
from gateway.control.events import Kind
from gateway.control.sessions import HandshakeError, boottime, negotiate
from gateway.identity import Authority, Refused, authenticate, explain
from gateway.protocol.handshake import Initiator, Party
from gateway.protocol.messages import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config import Address
    from gateway.control.client import ClientSide
    from gateway.control.dataplane import DataPlane
    from gateway.control.peer import Peer
    from gateway.control.peers import Peers
    from gateway.control.sessions import Session
    from gateway.identity import Identity

log = logging.getLogger(__name__)

DIAL_WITHIN: Final = 3.0  # seconds for TCP alone
SHORTEST_PAUSE: Final = 0.5  # seconds
LONGEST_PAUSE: Final = 30.0  # seconds
SHARE: Final = 0.05  # of the outage so far
JITTER: Final = 0.2  # of the pause


class Connector:
    """Dials one peer."""

    def __init__(
        self,
        peer: Peer,
        address: Address,
        context: ssl.SSLContext,
        *,
        identity: Identity,
        dataplane: DataPlane,
        peers: Peers,
        client: ClientSide | None = None,
    ) -> None:
        """`client`: we are one, and log in to the peer."""
        self._client = client
        self._peer = peer
        self._address = address
        self._context = context
        self._identity = identity
        self._dataplane = dataplane
        self._peers = peers

    async def run(self) -> None:
        """Keep the peer connected for as long as it is wanted."""
        away_since = boottime()
        while True:
            while not (self._peer.wanted and self._peer.channel is None and self._dataplane.ready):
                await self._change(pause=1.0)
                away_since = boottime()
            try:
                channel = await self._dial()
            except (HandshakeError, Refused, MalformedError, DataPlaneError) as error:
                self._failed(_line(error), error)
                if isinstance(error, Refused):
                    self._peers.refused(self._peer, error)
                if isinstance(error, HandshakeError) and error.code == "disconnected":
                    # It was told to; ours is void.
                    await self._peers.end_session(self._peer, "the peer was told to disconnect")
            except (OSError, EOFError, ssl.SSLError) as error:
                self._failed(explain(error), error)
            except Exception as error:
                log.exception("peer %s: a dial failed; this is a bug", self._peer.name)
                self._failed(f"a bug: {error!r}", error)
            else:
                await self._peers.serve(self._peer, channel, dialled=True)
                away_since = boottime()
            pause = pause_after(boottime() - away_since)
            await self._change(pause * (1 + random.random() * JITTER))  # noqa: S311 - no secret

    async def _change(self, pause: float) -> None:
        """Sleep, but not past a change of the peer."""
        self._peer.changed.clear()
        try:
            async with asyncio.timeout(pause):
                await self._peer.changed.wait()
        except TimeoutError:
            pass

    async def _dial(self) -> Channel:
        """TCP, TLS, who is it, handshake. Returns the channel of an established session."""
        sock = await self._tcp()
        channel: Channel | None = None
        try:
            async with asyncio.timeout(self._peers.config.handshake.deadline):
                channel = await Channel.open(sock, self._context)
                await self._greet(channel)
        except BaseException:
            if channel is not None:
                self._peers.lost(channel)
                await channel.close()
            raise
        return channel

    async def _tcp(self) -> socket.socket:
        """A connection to the first of the peer's addresses that answers."""
        if self._client is None:
            return await self._first([self._address.host])
        if self._client.known:
            try:
                return await self._first(self._client.known)
            except OSError:
                if not self._client.may_resolve:
                    raise
        return await self._first([self._address.host])

    async def _first(self, hosts: Iterable[str]) -> socket.socket:
        """The same, of these names or addresses."""
        loop = asyncio.get_running_loop()
        ours = ipaddress.ip_address(self._peers.config.listen.address)
        family = socket.AF_INET if ours.version == 4 else socket.AF_INET6
        if ours == ipaddress.IPv6Address("::"):
            family = socket.AF_UNSPEC
        found: list[Any] = []
        try:
            for host in hosts:
                found += await loop.getaddrinfo(
                    host, self._address.port, type=socket.SOCK_STREAM, family=family
                )
        except UnicodeError:  # config.py lets no such name through, but the resolver decides
            raise OSError(None, "the name cannot be looked up") from None
        if self._client is not None:
            await self._client.found(host_of(address) for *_, address in found)
        failure: OSError = OSError(None, "the name has no address")
        for family, kind, protocol, _name, address in found:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                if not ours.is_unspecified:
                    # The peer sends datagrams where this connection comes from.
                    sock.bind((str(ours), 0))
                async with asyncio.timeout(DIAL_WITHIN):
                    await loop.sock_connect(sock, address)
            except OSError as error:  # TimeoutError is one
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise failure

    async def _greet(self, channel: Channel) -> None:
        peer = self._peer
        # Before a byte is written: a stranger must not even read our hello.
        client, name = self._client, peer.name if self._names(peer) else None
        certificate = authenticate(name, peer.trust, channel.tls, datetime.now(UTC))
        own = Party(
            self._peers.config.name if client is None else client.user,
            self._identity.sha256,
            self._peers.new_index(),
            self._peers.config.listen.port,
        )
        login = None if client is None else client.login()
        machine = Initiator(own, name, certificate, peer.config.suites, login)
        peer.greeting = True
        try:
            await negotiate(
                channel,
                machine,
                machine.start(),
                self._dataplane,
                peer=peer.name,
                lifetime=self._peers.config.timers.lifetime,
                establish=lambda session: self._establish(channel, session),
                granted=None if client is None else partial(client.granted, remote=channel.remote),
            )
        finally:
            peer.greeting = False
            self._peers.forget_index(own.index)

    def _names(self, peer: Peer) -> bool:
        """Whether its name is more than what our file calls it: a client's pin says all."""
        return self._client is None or isinstance(peer.trust, Authority)

    async def _establish(self, channel: Channel, session: Session) -> None:
        if self._client is None:
            await self._peers.establish(self._peer, channel, session)
        else:
            await self._client.establish(self._peers, self._peer, channel, session)

    def _failed(self, why: str, error: Exception) -> None:
        if self._client is not None:
            self._client.failed(error, self._peers)
        if why != self._peer.error and self._peer.wanted:
            self._peers.events.emit(
                Kind.DIAL_FAILED, f"at {self._address}: {why}; trying again",
                peer=self._peer.name, warning=True, address=str(self._address),
            )  # fmt: skip
        self._peer.error = why


def pause_after(away: float) -> float:
    """Seconds to the next dial of a peer that has been away for so long."""
    return min(max(SHARE * away, SHORTEST_PAUSE), LONGEST_PAUSE)


def _line(error: Exception) -> str:
    if isinstance(error, HandshakeError):
        who = "the peer refused us" if error.by_peer else "we refuse the peer"
        return f"{who}: {error.message} [{error.code}]"
    if isinstance(error, Refused):
        return f"we refuse the peer: {error.message} [{error.code}]"
    if isinstance(error, MalformedError):
        return f"we refuse the peer: malformed frame: {error}"
    return f"our data plane: {error}"
