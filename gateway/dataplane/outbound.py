"""TUN -> route -> session -> seal -> fragments -> UDP, the functions in the packet's order.

Buffers are made once. The plain one is valid until the next read of the TUN, the sealed one until
the next record. Whatever fails is a counted drop.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Final

from gateway.dataplane.offload import clean_own
from gateway.dataplane.tun import TunGoneError
from gateway.protocol.drops import Drop
from gateway.protocol.wire import (
    COUNTER_LIMIT,
    DATAGRAM_SIZE,
    FRAME_HEADER_SIZE,
    FRAME_LENGTH,
    HEADER_SIZE,
    MAX_FRAGMENTS,
    MAX_RECORD,
    MIN_PACKET,
    VNET_HEADER_SIZE,
    cut,
    emit_frame,
    emit_header,
    nonce,
)

if TYPE_CHECKING:
    from gateway.dataplane.sessions import Directory, Session
    from gateway.dataplane.tun import Tun
    from gateway.dataplane.udp import Udp

BURST: Final = 64  # packets before the other direction has its turn: less than 1 ms

_IPV4_DESTINATION: Final = Struct("16x4s")  # RFC 791 3.1
_IPV6_DESTINATION: Final = Struct("24x16s")  # RFC 8200 3
_IPV6_HEADER_SIZE: Final = 40
_MAX_PACKET: Final = 65535

SEND_FAILURES: Final = {
    errno.EPERM: Drop.SEND_REFUSED,
    errno.EACCES: Drop.SEND_REFUSED,
    errno.ENETUNREACH: Drop.UNREACHABLE,
    errno.EHOSTUNREACH: Drop.UNREACHABLE,
    errno.ENETDOWN: Drop.UNREACHABLE,
    errno.EADDRNOTAVAIL: Drop.UNREACHABLE,
    errno.EMSGSIZE: Drop.DATAGRAM_TOO_LARGE,
    errno.EAGAIN: Drop.SEND_BUFFER_FULL,
    errno.ENOBUFS: Drop.SEND_BUFFER_FULL,
    errno.ENOMEM: Drop.SEND_BUFFER_FULL,
}


class Outbound:
    """The way of packets to the peers."""

    def __init__(
        self, tun: Tun, udp: Udp, directory: Directory, datagram_size: int = DATAGRAM_SIZE
    ) -> None:
        self._tun = tun
        self._udp = udp
        self._directory = directory
        self._room = datagram_size - HEADER_SIZE
        self._plain = memoryview(bytearray(FRAME_HEADER_SIZE + _MAX_PACKET))
        self._frame = self._plain[FRAME_LENGTH.size :]
        self._packet = self._plain[FRAME_HEADER_SIZE:]
        self._sealed = memoryview(bytearray(MAX_RECORD))
        self._header = bytearray(HEADER_SIZE)

    def drain(self) -> None:
        """Send what waits in the TUN, at most `BURST` packets. Raises TunGoneError."""
        read, into = self._tun.read, (self._frame,)
        for _ in range(BURST):
            try:
                length = read(into)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EBADFD:
                    raise TunGoneError from None
                return  # it is down; it wakes us when it has packets again
            self._route(length - VNET_HEADER_SIZE)

    def _route(self, length: int) -> None:
        """Find the peer of the packet just read, and send it."""
        packet, directory = self._packet, self._directory
        version = packet[0] >> 4
        if version == 4 and length >= MIN_PACKET:
            (destination,) = _IPV4_DESTINATION.unpack_from(packet)
        elif version == 6 and length >= _IPV6_HEADER_SIZE:
            (destination,) = _IPV6_DESTINATION.unpack_from(packet)
        else:
            directory.drop(Drop.NOT_IP)
            return
        peer = directory.routes.lookup(destination)
        if peer is None:
            directory.drop(Drop.NO_ROUTE)
            return
        session = peer.sending
        if session is None:
            peer.drop(Drop.NO_SESSION)
            return
        clean_own(self._frame)
        if self._send_record(session, emit_frame(self._plain, 0, length)):
            peer.tx_packets += 1
            peer.tx_bytes += length

    def send_empty(self, session: Session) -> None:
        """Send a record without a frame: it tells the peer that we have the keys."""
        self._send_record(session, 0)

    def _send_record(self, session: Session, length: int) -> bool:
        """Seal the first `length` bytes of the plain buffer and send them; False: dropped."""
        peer, counter = session.peer, session.counter
        sealed_length = length + session.overhead
        fragments, size = cut(sealed_length, self._room)
        if sealed_length > MAX_RECORD or fragments > MAX_FRAGMENTS:
            peer.drop(Drop.TOO_LARGE)
            return False
        if counter >= COUNTER_LIMIT:
            peer.drop(Drop.COUNTER_EXHAUSTED)
            return False
        # Consumed before sealing and never given back, whatever happens from here on: two records
        # sealed under one counter would share a nonce.
        session.counter = counter + 1
        header, sealed = self._header, self._sealed[:sealed_length]
        emit_header(header, (0, fragments, session.peer_index, counter))
        session.seal(nonce(counter), self._plain[:length], header, sealed)

        send, endpoint = self._udp.send, session.endpoint
        try:
            for fragment in range(fragments):
                header[1] = fragment
                send((header, sealed[fragment * size : (fragment + 1) * size]), endpoint)
        except OSError as error:
            peer.drop(SEND_FAILURES.get(error.errno or 0, Drop.SEND_FAILED))
            return False
        peer.tx_records += 1
        return True
