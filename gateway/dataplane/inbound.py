"""UDP -> assemble -> replay -> open -> frames -> offload -> source check -> TUN, in that order.

The order is the point: what costs little and needs no key comes first, nothing moves the replay
window before the record opened, and nothing reaches the TUN before its source address was checked.
Buffers are made once; the datagram's is valid until the next receive, the plain one until the next
record. Whatever is wrong with what a peer or a stranger sent is a counted drop.
"""

from __future__ import annotations

import errno
from struct import Struct
from typing import TYPE_CHECKING, Final

from gateway.dataplane.offload import rebuild
from gateway.protocol.drops import Drop
from gateway.protocol.reassembly import Reassembly
from gateway.protocol.suites import Forged
from gateway.protocol.wire import (
    HEADER_SIZE,
    MAX_RECORD,
    VNET_HEADER_SIZE,
    associated_data,
    nonce,
    parse_frames,
    parse_header,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.dataplane.sessions import Directory, Peer, Session
    from gateway.dataplane.tun import Tun
    from gateway.dataplane.udp import Address, Udp

BURST: Final = 64  # datagrams before the other direction has its turn: less than 1 ms

_IPV4_ADDRESSES: Final = Struct("12x4s4s")  # source and destination: RFC 791 3.1
_IPV6_ADDRESSES: Final = Struct("8x16s16s")  # RFC 8200 3
_IPV6_FRAME: Final = VNET_HEADER_SIZE + 40
_LOW_IPV6: Final = bytes(10)  # ::, ::1, IPv4-compatible and IPv4-mapped (RFC 4291 2.5)

WRITE_FAILURES: Final = {errno.EIO: Drop.TUN_DOWN, errno.EINVAL: Drop.TUN_REFUSED}


class Inbound:
    """The way of datagrams to the TUN."""

    def __init__(
        self, tun: Tun, udp: Udp, directory: Directory, heard: Callable[[Session], None]
    ) -> None:
        """`heard` is called for a session's first record."""
        self._tun = tun
        self._udp = udp
        self._directory = directory
        self._heard = heard
        self.reassembly = Reassembly(self._incomplete)
        self._datagram = memoryview(bytearray(65536))
        self._plain = memoryview(bytearray(MAX_RECORD))

    def drain(self, now: float) -> None:
        """Take what waits in the socket, at most `BURST` datagrams. `now`: CLOCK_BOOTTIME."""
        receive, into = self._udp.receive, (self._datagram,)
        for _ in range(BURST):
            try:
                length, address = receive(into)
            except BlockingIOError:
                return
            except OSError:
                self._directory.drop(Drop.RECEIVE_FAILED)
                return
            self.take(self._datagram[:length], address, now)

    def take(self, datagram: memoryview, address: Address, now: float) -> None:
        """Find the datagram's session and record; open the record once it is complete."""
        directory = self._directory
        header = parse_header(datagram)
        if header is None:
            directory.drop(Drop.MALFORMED)
            return
        fragment, fragments, index, counter = header
        session = directory.sessions.get(index)
        if session is None:
            directory.drop(Drop.UNKNOWN_SESSION)
            return
        if address != session.endpoint:
            session.peer.drop(Drop.WRONG_ENDPOINT)
            return
        old = session.window.check(counter)
        if old is not None:
            session.peer.drop(old)
            return
        sealed = datagram[HEADER_SIZE:]
        if fragments > 1:
            whole = self.reassembly.add(index, counter, fragment, fragments, sealed, now)
            if whole is None:
                return
            if isinstance(whole, Drop):
                session.peer.drop(whole)
                return
            sealed = whole
        # The design asks the window again here. The fragment that completed the record was asked
        # about above, in this very call, so the answer is that one.
        self._open(session, fragments, counter, sealed, now)

    def _incomplete(self, index: int, reason: Drop, datagrams: int) -> None:
        """Count the fragments of a record that will not be complete."""
        session = self._directory.sessions.get(index)
        (session.peer if session else self._directory).drop(reason, datagrams)

    def _open(
        self, session: Session, fragments: int, counter: int, sealed: memoryview, now: float
    ) -> None:
        """Open a whole record, then let the window know, then take its frames."""
        peer = session.peer
        size = len(sealed) - session.overhead
        plain = self._plain[: max(size, 0)]
        try:
            session.open(
                nonce(counter), sealed, associated_data(fragments, session.index, counter), plain
            )
        except Forged:
            peer.drop(Drop.FORGED, fragments)
            return
        session.window.commit(counter)
        peer.rx_records += 1
        peer.heard = now
        if not session.heard:
            session.heard = True
            self._heard(session)
        frames = parse_frames(plain)
        if frames is None:
            peer.drop(Drop.BAD_FRAME)
            return
        for frame in frames:
            self._deliver(frame, peer)

    def _deliver(self, frame: memoryview, peer: Peer) -> None:
        """Check one frame and write it to the TUN."""
        version = frame[VNET_HEADER_SIZE] >> 4
        if version == 4:
            source, destination = _IPV4_ADDRESSES.unpack_from(frame, VNET_HEADER_SIZE)
            sound = 0 < destination[0] < 240 and destination[0] != 127
        elif version == 6 and len(frame) >= _IPV6_FRAME:
            source, destination = _IPV6_ADDRESSES.unpack_from(frame, VNET_HEADER_SIZE)
            sound = not destination.startswith(_LOW_IPV6)
        else:
            peer.drop(Drop.NOT_IP)
            return
        if not rebuild(frame):
            peer.drop(Drop.BAD_OFFLOAD)
            return
        if self._directory.routes.lookup(source) is not peer:
            peer.drop(Drop.WRONG_SOURCE)
            return
        if not sound:
            peer.drop(Drop.BAD_DESTINATION)
            return
        try:
            self._tun.write(frame)
        except OSError as error:
            peer.drop(WRITE_FAILURES.get(error.errno or 0, Drop.TUN_FAILED))
            return
        peer.rx_packets += 1
        peer.rx_bytes += len(frame) - VNET_HEADER_SIZE
