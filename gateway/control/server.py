"""Connections that come to us: TLS, who is it, handshake, all within a deadline.

A stranger can open a socket and be forgotten: at most `HALF_OPEN` connections are before their
`ready`, each for at most `HANDSHAKE_WITHIN` seconds. Every refusal is counted by its code and said
in one line, at most `LINES` in `LINES_WITHIN` seconds.
"""

from __future__ import annotations

import asyncio
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
    from gateway.control.peers import Peer, Peers
    from gateway.control.sessions import Session
    from gateway.identity import Identity

log = logging.getLogger(__name__)

HANDSHAKE_WITHIN: Final = 10.0  # seconds from accept to ready
HALF_OPEN: Final = 64  # connections
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
        self._half_open = 0
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
                # Out of descriptors or memory, or the peer left the queue: it passes.
                log.warning("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(0.1)
                continue
            if self._half_open >= HALF_OPEN:
                sock.close()
                self._refused(host_of(address), "busy", f"{HALF_OPEN} handshakes are under way")
                continue
            task = asyncio.create_task(self._converse(sock, host_of(address)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _converse(self, sock: socket.socket, host: str) -> None:
        self._half_open += 1
        channel: Channel | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_WITHIN):
                channel = await Channel.open(sock, self._context)
                peer, session = await self._greet(channel)
            await self._peers.establish(peer, channel, session)
        except HandshakeError as error:
            # A peer's own code would let it choose what we count.
            code = "rejected-by-peer" if error.by_peer else error.code
            self._refused(host, code, error.message)
        except (Refused, MalformedError) as error:
            code = error.code if isinstance(error, Refused) else "malformed"
            self._refused(host, code, str(error))
        except TimeoutError:
            self._refused(host, "timeout", f"no handshake within {HANDSHAKE_WITHIN:.0f} s")
        except DataPlaneError as error:
            self._refused(host, "data-plane", f"our data plane: {error}")
        except ssl.SSLError as error:
            self._refused(host, "tls", explain(error))
        except (OSError, EOFError):
            where = "during TLS" if channel is None else "before a session; maybe it distrusts us"
            self._refused(host, "closed", f"the caller left {where}")
        else:
            self.outcomes["established"] += 1
            self._half_open -= 1
            why = await self._peers.serve(peer, channel)
            log.info("peer %s: control connection ended: %s", peer.name, why)
            return
        self._half_open -= 1
        if channel is not None:
            await channel.close()

    async def _greet(self, channel: Channel) -> tuple[Peer, Session]:
        """From the first frame to a session."""
        frame = await channel.read()
        hello = messages.decode(frame)
        if not isinstance(hello, Hello):
            raise MalformedError(f"{type(hello).__name__.lower()} where a hello comes first")
        peer = self._peers.get(hello.name)
        try:
            if peer is None:
                raise Refused("name", f"{hello.name} is no peer of {self._config.name}")
            certificate = authenticate(peer.name, peer.trust, channel.tls, datetime.now(UTC))
            if not peer.wanted:
                raise Refused("disconnected", f"{self._config.name} was told to disconnect")
            if peer.greeting and self._identity.sha256 < certificate:
                # Both dialled at once: the smaller fingerprint's connection wins, on both sides.
                raise Refused("crossed", "our own connection to you goes first")
        except Refused as refused:
            await channel.send(Reject(code=refused.code, message=refused.message))
            raise
        own = Party(
            self._config.name,
            self._identity.sha256,
            self._peers.new_index(),
            self._config.listen.port,
        )
        machine = Responder(own, peer.name, certificate, peer.config.suites)
        session = await negotiate(
            channel, machine, machine.receive(frame), self._dataplane, peer.name
        )
        return peer, session

    def _refused(self, host: str, code: str, message: str) -> None:
        self.outcomes[code] += 1
        if (silent := self._lines.take()) is not None:
            more = f" ({silent} lines like this left out)" if silent else ""
            log.warning("refused %s: %s [%s]%s", host, message, code, more)


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
