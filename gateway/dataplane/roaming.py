"""A peer that turns up elsewhere: when its session follows it, and how far it is trusted there.

    a record of one datagram opened, from elsewhere
      -> counter the highest so far? -> session in use, or newer? -> no move within a second?
      -> not behind our own tunnel? -> the endpoint is there now

So what was recorded and sent again moves nothing. What was held back and sent from elsewhere does,
until the peer's next record: three times its bytes go there (of 1,200 at least), and no more.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from gateway.dataplane.udp import plain

if TYPE_CHECKING:
    from gateway.dataplane.sessions import Directory, Session
    from gateway.dataplane.udp import Address

MOVE_EVERY: Final = 1.0  # seconds
TRUST: Final = 3
"""Bytes sent to an endpoint for each that came from it, until it proved itself (RFC 9000, 8)."""
PADDED: Final = 1200
"""Bytes that a datagram counts for at least (RFC 9000, 14.1: what QUIC pads to). Without, a peer
that moved with an empty record could be sent no packet that it would answer."""


def follow(  # noqa: PLR0917 - what is known of one record
    directory: Directory, session: Session, counter: int, size: int, address: Address, now: float
) -> bool:
    """Move a session's endpoint to where a record of so many bytes came from, if that may be.

    The highest counter is that of a record that opened: one that did not open moves nothing.
    """
    sending = session.peer.sending
    if session.window.highest != counter or now - session.moved_at < MOVE_EVERY:
        return False
    if sending is not None and session.number < sending.number:
        return False
    if _unusable(directory, address):
        return False
    session.endpoint, session.moved_at = address, now
    session.doubt(TRUST * max(size, PADDED))
    if session is sending:
        session.peer.try_anew()
    return True


def _unusable(directory: Directory, address: Address) -> bool:
    """Whether nothing can be sent there: port 0, or our own routes lead it into the tunnel."""
    host, port = plain(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host.partition("%")[0])
    return not port or directory.routes.lookup(packed) is not None
