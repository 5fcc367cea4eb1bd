"""Plaintext -> record -> seal -> fragments -> UDP, for one session at a time.

A record is sealed once, into one buffer, and the kernel cuts it: the buffers of a send are the
fragments' headers and bodies in turn, and UDP_SEGMENT says where each datagram ends. Where the
kernel cannot, each fragment is a send of its own.

A *train* is many records of one datagram each in one send: what a path that loses datagrams gets.

Buffers are made once; the sealed one is valid until the next record or train.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Final

from gateway.protocol.drops import Drop
from gateway.protocol.wire import (
    COUNTER_LIMIT,
    FRAME_HEADER_SIZE,
    HEADER_SIZE,
    MAX_DATAGRAM_SIZE,
    MAX_FRAGMENTS,
    MAX_RECORD,
    SMALL,
    associated_data,
    cut,
    nonce,
    number_fragments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.dataplane.sessions import Session
    from gateway.dataplane.udp import Address, Udp

log = logging.getLogger(__name__)

SHAPES_KEPT: Final = 8  # lists of slices, one a fragment size; 12 kB each

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

# What a send with UDP_SEGMENT fails with where the kernel or the way out cannot cut: no checksum
# offload, IPsec (EIO, udp_send_skb), or no such feature. EINVAL is also the answer of kernels
# before 6.10 to a segment larger than the path takes.
_CANNOT_CUT: Final = frozenset({errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT})


class Sender:
    """Seals records and sends them. All that fails is a counted drop."""

    def __init__(self, udp: Udp, *, gso: bool) -> None:
        self._udp = udp
        self.gso = gso
        """Whether the kernel cuts. Goes off by itself, once, when it refuses."""
        self._sealed = memoryview(bytearray(MAX_RECORD))
        self._headers = memoryview(bytearray(HEADER_SIZE * MAX_FRAGMENTS))
        self._shapes: dict[int, list[memoryview]] = {}

    def send_record(self, session: Session, plain: memoryview, packets: int) -> None:
        """Seal and send one record of so many frames."""
        peer, counter = session.peer, session.counter
        length = len(plain)
        length += session.overhead - length % session.block
        fragments, size = cut(length, peer.room)
        if length > MAX_RECORD or fragments > MAX_FRAGMENTS:
            peer.drop(Drop.TOO_LARGE, packets)
            return
        if counter >= session.ceiling and not _may_leave(
            session, length + fragments * HEADER_SIZE, packets or 1
        ):
            return
        # Consumed before sealing and never given back, whatever happens from here on: two records
        # sealed under one counter would share a nonce.
        session.counter = counter + 1
        header = associated_data(fragments, session.peer_index, counter)
        sealed = self._sealed[:length]
        session.seal(nonce(counter), plain, header, sealed)
        try:
            if fragments == 1:
                self._udp.send((header, sealed), session.endpoint)
            else:
                number_fragments(self._headers, header, fragments)
                tail = length - (fragments - 1) * size
                self._transmit(fragments, size, tail, session.endpoint)
        except OSError as error:
            peer.tx_unsent += 1
            session.wasted += length
            if error.errno == errno.EMSGSIZE and peer.shrink():
                self.send_record(session, plain, packets)  # sealed anew, under a new counter
            else:
                peer.drop(SEND_FAILURES.get(error.errno or 0, Drop.SEND_FAILED), packets or 1)
            return
        peer.tx_records += 1
        peer.tx_datagrams += fragments
        peer.tx_packets += packets
        peer.tx_bytes += len(plain) - packets * FRAME_HEADER_SIZE
        if size > SMALL:
            peer.tx_large += 1

    def send_train(
        self, session: Session, plain: memoryview, frames: Iterable[tuple[int, int]]
    ) -> None:
        """Seal each (start, length) of the plain buffer as a record of its own, and send them.

        Those of one datagram leave together. A frame is sealed before the next is asked for.
        """
        peer, block, overhead = session.peer, session.block, session.overhead
        count = size = tail = carried = 0
        for start, length in frames:
            sealed_length = length - length % block + overhead
            if sealed_length > peer.room:
                count = self._send_gathered(session, count, size, tail, carried)
                self.send_record(session, plain[start : start + length], 1)
                continue
            if count and (tail < size or sealed_length > size or count * size + size > MAX_RECORD):
                count = self._send_gathered(session, count, size, tail, carried)
            counter = session.counter
            if counter >= session.ceiling and not _may_leave(
                session, sealed_length + HEADER_SIZE, 1
            ):
                continue
            session.counter = counter + 1  # before sealing: see send_record
            if not count:
                size, carried = sealed_length, 0
            tail = sealed_length
            carried += length
            header = associated_data(1, session.peer_index, counter)
            at = count * size
            session.seal(
                nonce(counter), plain[start : start + length], header, self._sealed[at : at + tail]
            )
            self._headers[count * HEADER_SIZE : (count + 1) * HEADER_SIZE] = header
            count += 1
            if count == MAX_FRAGMENTS:
                count = self._send_gathered(session, count, size, tail, carried)
        self._send_gathered(session, count, size, tail, carried)

    def _send_gathered(
        self, session: Session, count: int, size: int, tail: int, carried: int
    ) -> int:
        """Send the train that stands in the buffers, of `carried` bytes before their seals.

        Return 0, the length of the next.
        """
        if not count:
            return 0
        peer = session.peer
        try:
            self._transmit(count, size, tail, session.endpoint)
        except OSError as error:
            peer.tx_unsent += count
            session.wasted += (count - 1) * size + tail
            if error.errno == errno.EMSGSIZE:
                peer.shrink()
            peer.drop(SEND_FAILURES.get(error.errno or 0, Drop.SEND_FAILED), count)
            return 0
        peer.tx_records += count
        peer.tx_packets += count
        peer.tx_datagrams += count
        peer.tx_bytes += carried - count * FRAME_HEADER_SIZE
        if size > SMALL:
            peer.tx_large += count - (tail <= SMALL)
        return 0

    def _transmit(self, count: int, size: int, tail: int, to: Address) -> None:
        """Send `count` datagrams: headers and bodies of `size` bytes each, the last of `tail`.

        Raises OSError: then some may have left.
        """
        send, start = self._udp.send, (count - 1) * size
        if count == 1:
            send((self._headers[:HEADER_SIZE], self._sealed[:tail]), to)
            return
        parts = self._parts(size)[: 2 * count - 1]
        parts.append(self._sealed[start : start + tail])
        refused: OSError | None = None
        if self.gso:
            segment = HEADER_SIZE + size
            at_once = 2 * (MAX_DATAGRAM_SIZE // segment)
            try:
                for at in range(0, 2 * count, at_once):
                    send(parts[at : at + at_once], to, segment)
            except OSError as error:
                if error.errno not in _CANNOT_CUT:
                    raise
                refused = error
            else:
                return
        for at in range(0, 2 * count, 2):
            send(parts[at : at + 2], to)
        if refused is not None:  # and it was not the size: they did leave one by one
            self.gso = False
            log.warning("UDP_SEGMENT: %s; each datagram is a send of its own", refused.strerror)

    def _parts(self, size: int) -> list[memoryview]:
        """Header and body of each datagram in turn, for bodies of this size."""
        parts = self._shapes.get(size)
        if parts is None:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
            parts = self._shapes[size] = []
            for i in range(min(MAX_FRAGMENTS, -(-MAX_RECORD // size))):
                parts.append(self._headers[i * HEADER_SIZE : (i + 1) * HEADER_SIZE])
                parts.append(self._sealed[i * size : (i + 1) * size])
        return parts


def _may_leave(session: Session, size: int, packets: int) -> bool:
    """Whether a record beyond the session's ceiling may be sealed and sent: `size` bytes of UDP."""
    if session.counter >= COUNTER_LIMIT:
        session.peer.drop(Drop.COUNTER_EXHAUSTED, packets)
        return False
    if size > session.allowance:
        session.peer.drop(Drop.UNPROVED_ENDPOINT, packets)
        return False
    session.allowance -= size
    return True
