"""One control channel: a TLS 1.3 connection that carries whole frames.

Here: bytes and deadlines. Not here: what the frames mean (protocol/messages.py), who the peer is
(identity.py).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from gateway.protocol import messages

if TYPE_CHECKING:
    import socket
    import ssl

LINGER: Final = 1.0  # seconds for the last frame and TLS's goodbye
READ_BUFFER: Final = 4096 * 4  # bytes; asyncio stops reading past twice this


class Channel:
    """A connection after its TLS handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.tls = cast("ssl.SSLObject", writer.get_extra_info("ssl_object"))
        self.remote = host_of(writer.get_extra_info("peername"))
        self.local = host_of(writer.get_extra_info("sockname"))

    @classmethod
    async def accept(cls, sock: socket.socket, context: ssl.SSLContext, deadline: float) -> Channel:
        """TLS as the server on an accepted socket.

        Raises ssl.SSLError or OSError when it fails: with `asyncio.start_server` a failed handshake
        would never reach us. `deadline` is in seconds.
        """
        loop = asyncio.get_running_loop()
        reader, protocol = _stream(loop)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            sock,
            ssl=context,
            ssl_handshake_timeout=deadline,
            ssl_shutdown_timeout=LINGER,
        )
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    @classmethod
    async def connect(
        cls, sock: socket.socket, context: ssl.SSLContext, deadline: float
    ) -> Channel:
        """TLS as the client on a connected socket. Raises ssl.SSLError or OSError."""
        loop = asyncio.get_running_loop()
        reader, protocol = _stream(loop)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            sock=sock,
            ssl=context,
            server_hostname="",
            ssl_handshake_timeout=deadline,
            ssl_shutdown_timeout=LINGER,
        )
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    async def read(self) -> bytes:
        """The next frame, prefix included.

        Raises EOFError at the end, MalformedError for a bad length, and what TLS and the socket
        raise. The caller sets the deadline.
        """
        prefix = await self._reader.readexactly(messages.PREFIX)
        return prefix + await self._reader.readexactly(messages.body_length(prefix))

    async def write(self, frame: bytes) -> None:
        """Send one frame, and wait while the peer takes none."""
        self._writer.write(frame)
        await self._writer.drain()

    async def send(self, message: messages.AnyMessage) -> None:
        """Send one message."""
        await self.write(messages.encode(message))

    async def close(self) -> None:
        """Say TLS's goodbye, and wait a moment for the peer's. Never raises for the network."""
        self._writer.close()
        try:
            async with asyncio.timeout(LINGER):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()

    def abort(self) -> None:
        """Drop the connection now."""
        self._writer.transport.abort()


def host_of(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """The numeric host of a socket address; IPv4-mapped ones as IPv4."""
    return address[0].removeprefix("::ffff:") if "." in address[0] else address[0]


def _stream(
    loop: asyncio.AbstractEventLoop,
) -> tuple[asyncio.StreamReader, asyncio.StreamReaderProtocol]:
    reader = asyncio.StreamReader(limit=READ_BUFFER, loop=loop)
    return reader, asyncio.StreamReaderProtocol(reader, loop=loop)
