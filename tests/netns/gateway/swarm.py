"""Many peers of one hub, in one process: each with its certificate, address, connection and keys.

What a peer does here is real: TCP and TLS 1.3 from its own address, the whole handshake, pongs, and
records sealed and opened with its own session's keys. It has no TUN: it answers pings that come
through its tunnel, by itself.

    peer 7      10.66.0.8 outside, TCP and UDP      10.77.0.8 in the tunnel      p0007

As a program it connects all of them, says so in a line of JSON, answers each line on its standard
input with a line about what came meanwhile, and says goodbye at the end of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import pki
from gateway.control.channel import Channel
from gateway.control.sessions import HandshakeError, negotiate
from gateway.identity import Authority, Identity, authenticate, client_context
from gateway.protocol import messages, wire
from gateway.protocol.handshake import Initiator, Party
from gateway.protocol.messages import Disconnect, Ping, Pong
from gateway.protocol.suites import SUITES, Forged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.protocol.login import Grant

HUB: Final = "hub"
PORT: Final = 55555
OUTSIDE: Final = "10.66.0.0/16"
AT_ONCE: Final = 32  # dials under way; real peers would come by themselves, with jitter
AGAIN_AFTER: Final = 0.5  # seconds, where the hub says that it is busy
TRIES: Final = 20
ECHO_REQUEST: Final = 8  # RFC 792


def name_of(number: int) -> str:
    return f"p{number:04d}"


def outside(number: int) -> str:
    return f"10.66.{number // 250}.{1 + number % 250}"


def inside(number: int) -> str:
    return f"10.77.{number // 250}.{1 + number % 250}"


def issue(count: int, folder: Path) -> None:
    """Certificates of all of them, by the CA that is there."""
    for number in range(count):
        pki.issue(name_of(number), folder)


def tables(count: int) -> str:
    """What the hub's config says of them."""
    return "".join(
        f'[peers.{name_of(number)}]\nprefixes = ["{inside(number)}/32"]\n'
        for number in range(count)
    )


class Peer(asyncio.DatagramProtocol):
    """One of them."""

    tries = TRIES

    def __init__(
        self, number: int, name: str, identity: Identity, hub: str, authority: Authority
    ) -> None:
        self.name, self.address = name, outside(number)
        self._hub = hub
        self._identity = identity
        self._authority = authority
        self._context = client_context(self._identity, authority)
        self._index = number + 1
        self._channel: Channel | None = None
        self._counter = 0
        self.opened = self.answered = self.forged = self.pongs = 0

    async def connect(self) -> None:
        """Dial until there is a session, and say hello in the data channel."""
        loop = asyncio.get_running_loop()
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((self.address, PORT))
        self._udp, _ = await loop.create_datagram_endpoint(lambda: self, sock=udp)
        for last in range(self.tries, 0, -1):
            try:
                channel = await self._dial()
            except (OSError, EOFError, HandshakeError, ssl.SSLError):
                if last == 1:
                    raise
                await asyncio.sleep(AGAIN_AFTER)
            else:
                break
        self._channel = channel
        self._task = asyncio.create_task(self._serve(channel))
        self._send(b"")

    async def _dial(self) -> Channel:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind((self.address, 0))
        try:
            await loop.sock_connect(sock, (self._hub, PORT))
        except OSError:
            sock.close()
            raise
        channel = await Channel.open(sock, self._context)
        try:
            certificate = authenticate(HUB, self._authority, channel.tls, datetime.now(UTC))
            own = Party(self.name, self._identity.sha256, self._index, PORT)
            machine = self._machine(own, certificate)
            await negotiate(
                channel,
                machine,
                machine.start(),
                self,  # type: ignore[arg-type]
                peer=HUB,
                lifetime=600,
                establish=self._established,
                granted=self._granted,
            )
        except BaseException:
            channel.abort()
            raise
        return channel

    async def install(self, **session: Any) -> None:
        """Take the keys, as a data plane does."""
        suite = SUITES[session["suite"]]
        self._overhead = suite.overhead
        self._seal, self._open = (
            suite.sealer(session["send_key"]),
            suite.opener(session["receive_key"]),
        )
        self._hubs_index, self._counter = session["peer_index"], 0

    async def retire(self, index: int) -> None:
        """A handshake came to nothing."""

    def _machine(self, own: Party, certificate: bytes) -> Initiator:
        return Initiator(own, HUB, certificate, ["aes-256-gcm"])

    async def _established(self, session: object) -> None:
        pass

    async def _granted(self, grant: Grant) -> None:
        pass

    async def _serve(self, channel: Channel) -> None:
        with suppress(OSError, EOFError, ssl.SSLError):
            while True:
                match messages.decode(await channel.read()):
                    case Ping(token):
                        await channel.send(Pong(token=token))
                        self.pongs += 1
                    case Disconnect():
                        break
        self._channel = None
        channel.abort()

    @property
    def connected(self) -> bool:
        """Whether its control connection stands."""
        return self._channel is not None

    async def leave(self) -> None:
        """Say goodbye."""
        if self._channel is not None:
            with suppress(OSError, ssl.SSLError):
                await self._channel.send(Disconnect(reason="the swarm ends"))
            self._channel.abort()
        await self._task
        self._udp.close()

    def datagram_received(self, data: bytes, _address: object) -> None:
        """Open a record of one datagram, and answer the pings in it."""
        header = wire.parse_header(data) if len(data) > wire.HEADER_SIZE else None
        if header is None or header[1] != 1:
            return
        plain = bytearray(len(data) - wire.HEADER_SIZE - self._overhead)
        sealed = memoryview(data)[wire.HEADER_SIZE :]
        try:
            self._open(wire.nonce(header[3]), sealed, data[: wire.HEADER_SIZE], plain)
        except Forged:
            self.forged += 1
            return
        self.opened += 1
        for start, stop in wire.parse_frames(memoryview(plain), 0, len(plain)) or ():
            packet = plain[start + wire.FRAME_HEADER_SIZE : stop]
            if (
                packet[0] == 0x45
                and packet[9] == socket.IPPROTO_ICMP
                and packet[20] == ECHO_REQUEST
            ):
                self._send(_frame(_echo_reply(packet)))
                self.answered += 1

    def _send(self, frames: bytes) -> None:
        header = wire.associated_data(1, self._hubs_index, self._counter)
        sealed = bytearray(len(frames) + self._overhead)
        self._seal(wire.nonce(self._counter), frames, header, sealed)
        self._counter += 1
        self._udp.sendto(header + sealed, (self._hub, PORT))


def _echo_reply(packet: bytearray) -> bytes:
    """The same with source and destination exchanged; the type goes from 8 to 0."""
    answer = packet[:12] + packet[16:20] + packet[12:16] + packet[20:]
    answer[20] = 0
    total = int.from_bytes(answer[22:24], "big") + (ECHO_REQUEST << 8)
    answer[22:24] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")  # RFC 1624
    return bytes(answer)


def _frame(packet: bytes) -> bytes:
    return wire.FRAME_LENGTH.pack(len(packet)) + bytes(wire.VNET_HEADER_SIZE) + packet


async def _run(folder: Path, hub: str, count: int) -> None:
    authority = Authority.load(folder / "ca.crt", datetime.now(UTC))
    peers = []
    for number in range(count):
        name = name_of(number)
        pair = folder / f"{name}.crt", folder / f"{name}.key"
        identity = Identity.load(*pair, datetime.now(UTC))
        peers.append(Peer(number, name, identity, hub, authority))
    room = asyncio.Semaphore(AT_ONCE)

    async def connect(peer: Peer) -> None:
        async with room:
            await peer.connect()

    started, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(connect(peer) for peer in peers))
    say(seconds=time.monotonic() - started, cpu=time.process_time() - cpu, established=count)
    await obey(peers)


async def obey(peers: Sequence[Peer]) -> None:
    """A line about them for each line that comes; goodbye at the end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while await reader.readline():
        say(
            connected=sum(peer.connected for peer in peers),
            heard=sum(peer.opened > 0 for peer in peers),
            answered=sum(peer.answered for peer in peers),
            forged=sum(peer.forged for peer in peers),
            pongs=sum(peer.pongs for peer in peers),
        )
    await asyncio.gather(*(peer.leave() for peer in peers))


def say(**figures: float | list[str]) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--hub", required=True)
    parser.add_argument("--peers", type=int, required=True)
    given = parser.parse_args()
    asyncio.run(_run(given.folder, given.hub, given.peers))
