"""TUN -> route -> bundle -> split -> `sender.py`, the functions in the packet's order.

What waits in the TUN for one peer leaves as one record, as far as it fits: a packet that comes
alone leaves alone and at once. A superpacket that does not fit is split.

The buffer is made once, and valid until the next read. A packet is sealed where it was read.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Final

from gateway.dataplane.offload import clean_own
from gateway.dataplane.sender import Sender
from gateway.dataplane.split import split
from gateway.dataplane.tun import TunGoneError
from gateway.protocol.drops import Drop
from gateway.protocol.wire import (
    FRAME_HEADER_SIZE,
    FRAME_LENGTH,
    MAX_RECORD,
    MIN_PACKET,
    emit_frame,
)

if TYPE_CHECKING:
    from gateway.dataplane.sessions import Directory, Session
    from gateway.dataplane.tun import Tun
    from gateway.dataplane.udp import Udp

BURST_BYTES: Final = 4 << 16  # before the other direction has its turn: about 0.3 ms

_IPV4_DESTINATION: Final = Struct("16x4s")  # RFC 791 3.1
_IPV6_DESTINATION: Final = Struct("24x16s")  # RFC 8200 3
_IPV6_HEADER_SIZE: Final = 40
_MAX_FRAME: Final = FRAME_HEADER_SIZE + 65535
_LEAST_ROOM: Final = 2048  # bytes left in a record that are worth waiting for another packet


class Outbound:
    """The way of packets to the peers."""

    def __init__(self, tun: Tun, udp: Udp, directory: Directory, *, gso: bool) -> None:
        """`gso`: let the kernel cut records into datagrams."""
        self._tun = tun
        self._directory = directory
        self._sender = Sender(udp, gso=gso)
        self._plain = memoryview(bytearray(MAX_RECORD + _MAX_FRAME))

    def drain(self, most: int) -> None:
        """Send what waits in the TUN, at most so many packets. Raises TunGoneError."""
        read, plain, sender = self._tun.read, self._plain, self._sender
        session: Session | None = None  # whose record is being gathered, in plain[:end]
        end = packets = taken = 0
        for _ in range(most):
            try:
                length = read((plain[end + FRAME_LENGTH.size :],)) + FRAME_LENGTH.size
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EBADFD:
                    raise TunGoneError from None
                break  # it is down; it wakes us when it has packets again
            taken += length
            to = self._route(end, length)
            if to is not None:
                start, limit = end, to.peer.limit - to.overhead
                if session is not None and (session is not to or end + length > limit):
                    sender.send_record(session, plain[:end], packets)
                    session = None
                if session is not None:
                    end, packets = end + length, packets + 1
                elif length > limit:
                    sender.send_train(to, plain, split(plain, start, length, limit))
                    end = 0
                elif start and length > _LEAST_ROOM:  # not worth the copy
                    sender.send_record(to, plain[start : start + length], 1)
                    end = 0
                else:
                    if start:
                        plain[:length] = plain[start : start + length]
                    session, end, packets = to, length, 1
                if session is not None and end > limit - _LEAST_ROOM:
                    sender.send_record(session, plain[:end], packets)
                    session, end = None, 0
            if taken >= BURST_BYTES:
                break
        if session is not None:
            sender.send_record(session, plain[:end], packets)

    def _route(self, start: int, length: int) -> Session | None:
        """Find the session for the frame just read; None: dropped."""
        plain, directory = self._plain, self._directory
        at = start + FRAME_HEADER_SIZE
        length -= FRAME_HEADER_SIZE
        version = plain[at] >> 4
        if version == 4 and length >= MIN_PACKET:
            (destination,) = _IPV4_DESTINATION.unpack_from(plain, at)
        elif version == 6 and length >= _IPV6_HEADER_SIZE:
            (destination,) = _IPV6_DESTINATION.unpack_from(plain, at)
        else:
            directory.drop(Drop.NOT_IP)
            return None
        peer = directory.routes.lookup(destination)
        if peer is None:
            directory.drop(Drop.NO_ROUTE)
            return None
        session: Session | None = peer.sending
        if session is None:
            peer.drop(Drop.NO_SESSION)
            return None
        if plain[start + FRAME_LENGTH.size]:  # flags
            clean_own(plain[start + FRAME_LENGTH.size : at + length])
        emit_frame(plain, start, length)
        return session

    def send_empty(self, session: Session) -> None:
        """Send a record without a frame: it tells the peer that we have the keys."""
        self._sender.send_record(session, self._plain[:0], 0)
