"""One control channel: a TLS 1.3 connection that carries whole frames.

Here: bytes between the socket and TLS. Not here: deadlines (the caller's), what the frames mean
(protocol/messages.py), who the peer is (identity.py).

TLS runs over memory, not inside asyncio: asyncio drops a refused handshake's alert, and the alert
is the one thing that tells the other side why. And a connection that ends lets the peer read what
was sent last: closing with unread bytes would reset it, and the reset overtakes the alert.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Final

from gateway.protocol import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

LINGER: Final = 1.0  # seconds for the peer to read our last bytes and leave
SEND_WITHIN: Final = 5.0  # seconds; a peer that reads nothing for so long is gone
CHUNK: Final = 16_384  # bytes; the most that one TLS record carries (RFC 8446, section 5.1)


class Channel:
    """A connection after its TLS handshake. One task reads; any may write."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Take over a connected socket. Use `open` instead."""
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.protocol == ssl.PROTOCOL_TLS_SERVER
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self.remote = host_of(sock.getpeername())
        self._plain = bytearray()
        self._sending = asyncio.Lock()
        self._users = 0  # calls that wait on the socket now
        self._reading = False
        self._left = asyncio.Event()  # the peer sent its last byte
        self._closed = False
        self._refused = False

    @classmethod
    async def open(cls, sock: socket.socket, context: ssl.SSLContext) -> Channel:
        """TLS on a connected socket; the context says which side we are.

        Raises ssl.SSLError, EOFError or OSError. Then the peer has our alert, and the socket is
        closed.
        """
        sock.setblocking(False)
        try:
            channel = cls(sock, context)
        except OSError:  # it left already: no peer name
            sock.close()
            raise
        try:
            await channel._handshake()
        except ssl.SSLError:
            channel._refused = True
            await channel.close()
            raise
        except BaseException:
            channel.abort()
            raise
        return channel

    async def read(self) -> bytes:
        """The next frame, prefix included.

        Raises EOFError at the end, MalformedError for a bad length, and what TLS and the socket
        raise.
        """
        prefix = await self._exactly(messages.PREFIX)
        return prefix + await self._exactly(messages.body_length(prefix))

    async def write(self, frame: bytes) -> None:
        """Send one frame. Raises OSError, ssl.SSLError; TimeoutError when the peer takes none."""
        if self._closed:
            raise BrokenPipeError
        self.tls.write(frame)
        async with asyncio.timeout(SEND_WITHIN):
            await self._flush()

    async def send(self, message: messages.AnyMessage) -> None:
        """Send one message."""
        await self.write(messages.encode(message))

    async def close(self) -> None:
        """Send what is left and TLS's goodbye, and let the peer read it. Never raises for it."""
        with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
            async with asyncio.timeout(LINGER):
                if not self._refused:  # the alert was the goodbye
                    with contextlib.suppress(ssl.SSLError):
                        self.tls.unwrap()
                await self._flush()
                self._sock.shutdown(socket.SHUT_WR)
                if self._reading:
                    await self._left.wait()
                else:
                    with self._in_use():
                        loop = asyncio.get_running_loop()
                        while True:
                            if not await loop.sock_recv(self._sock, CHUNK):
                                break
                            await asyncio.sleep(0)  # or a flood would outlast the deadline
        self.abort()

    def abort(self) -> None:
        """Drop the connection now. A task that reads sees the end."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._close_if_aborted()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Keep the descriptor while a call waits on it: its number would soon be another's."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._close_if_aborted()

    def _close_if_aborted(self) -> None:
        if self._closed and not self._users:
            self._sock.close()

    async def _handshake(self) -> None:
        try:
            while True:
                try:
                    self.tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._feed()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    raise EOFError from None
                else:
                    return
        finally:
            with contextlib.suppress(OSError):
                await self._flush()

    async def _exactly(self, count: int) -> bytes:
        while len(self._plain) < count:
            try:
                data = self.tls.read(CHUNK)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._feed()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                raise EOFError
            self._plain += data
        taken = bytes(self._plain[:count])
        del self._plain[:count]
        return taken

    async def _feed(self) -> None:
        """Give TLS what the socket has, or the end of it."""
        # sock_recv returns at once while there is data: a flood must not hold the loop.
        await asyncio.sleep(0)
        if self._closed:
            raise EOFError
        with self._in_use():
            self._reading = True
            try:
                data = await asyncio.get_running_loop().sock_recv(self._sock, CHUNK)
            finally:
                self._reading = False
        if data:
            self._incoming.write(data)
        else:
            self._left.set()
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Send what TLS has for the peer."""
        async with self._sending:
            while data := self._outgoing.read():
                if self._closed:
                    raise BrokenPipeError
                with self._in_use():
                    await asyncio.get_running_loop().sock_sendall(self._sock, data)


def host_of(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """The numeric host of a socket address: IPv4-mapped as IPv4, link-local with its link.

    The link by its number: the data plane must not open the socket that a look-up needs.
    """
    host = address[0]
    if "." in host:
        return host.removeprefix("::ffff:")
    if len(address) == 4 and address[3] and "%" not in host:
        return f"{host}%{address[3]}"
    return host
