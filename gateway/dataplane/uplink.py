"""Our end of the link to control: messages down, and messages up in order.

Control may be slow or dead; packets must not wait for it. So nothing here blocks: what cannot leave
is queued, and while something is queued nothing is read, so that the queue stays short.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from gateway import link

if TYPE_CHECKING:
    import socket

LONGEST_QUEUE: Final = 4096  # messages; only what sessions tell can pile up


class LinkGoneError(Exception):
    """Control closed the link, or sent what is none of its messages."""


class Uplink:
    """One link, until it is gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._unsent: deque[bytes] = deque()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def stuck(self) -> bool:
        """Whether something waits to be sent: then wait until the socket is writable."""
        return bool(self._unsent)

    def receive(self) -> link.Down | None:
        """Take the next message, or None when there is none yet. Raises LinkGoneError."""
        try:
            data = self._recv()
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkGoneError(error.strerror) from None
        if not data:
            raise LinkGoneError("control closed it")
        try:
            return link.decode_down(data)
        except link.LinkError as error:
            raise LinkGoneError(f"not one of our messages: {error}") from None

    def _recv(self) -> bytes:
        try:
            return self._socket.recv(link.MAX_MESSAGE + 1)
        except ConnectionResetError:
            # Control closed it without reading all that we sent. Reported once, and before what it
            # sent last, which may be `Stop`.
            return self._socket.recv(link.MAX_MESSAGE + 1)

    def send(self, message: link.Up) -> None:
        """Send a message, or queue it. Raises LinkGoneError."""
        self._unsent.append(link.encode(message))
        if len(self._unsent) > LONGEST_QUEUE:
            raise LinkGoneError("control does not read")
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as it goes."""
        while self._unsent:
            try:
                self._socket.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()  # nobody reads any more; reading comes upon the end of file
                return
            self._unsent.popleft()

    def close(self) -> None:
        """Close it; what was queued, and what control still sent, is void."""
        self._unsent.clear()
        self._socket.close()
