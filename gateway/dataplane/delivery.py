"""Frames of an opened record -> offload -> source -> transit -> TUN, in that order.

Nothing reaches the TUN before its source address was checked, and no virtio-net header but one of
our own. Datagrams of one flow go together, where the kernel takes superpackets.
"""

from __future__ import annotations

import errno
import logging
from struct import Struct
from typing import TYPE_CHECKING, Final

from gateway.dataplane import join
from gateway.dataplane.offload import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    is_superpacket,
    rebuild,
    segment_size,
)
from gateway.dataplane.split import split
from gateway.protocol.drops import Drop
from gateway.protocol.wire import FRAME_HEADER_SIZE, FRAME_LENGTH, VNET_HEADER_SIZE

if TYPE_CHECKING:
    from gateway.dataplane.sessions import Directory, Peer
    from gateway.dataplane.tun import Tun

log = logging.getLogger(__name__)

_IPV4_ADDRESSES: Final = Struct("12x8s")  # source and destination: RFC 791 3.1
_IPV6_ADDRESSES: Final = Struct("8x32s")  # RFC 8200 3
_IPV6_FRAME: Final = VNET_HEADER_SIZE + 40
_LOW_IPV6: Final = bytes(10)  # ::, ::1, IPv4-compatible and IPv4-mapped (RFC 4291 2.5)

WRITE_FAILURES: Final = {errno.EIO: Drop.TUN_DOWN, errno.EINVAL: Drop.TUN_REFUSED}


class Delivery:
    """The last part of the way in."""

    def __init__(self, tun: Tun, directory: Directory, *, offload: bool) -> None:
        """`offload`: let the kernel cut superpackets."""
        self._tun = tun
        self._directory = directory
        self._taken = {GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4} if offload else set[int]()
        # The kinds that the kernel takes; one that it refuses leaves the set.

    def deliver(self, plain: memoryview, frames: list[tuple[int, int]], peer: Peer) -> None:
        """Write these (start, end) of an opened record to the TUN."""
        first = 0
        while first < len(frames):
            first += self._take(plain, frames, first, peer)

    def _take(
        self, plain: memoryview, frames: list[tuple[int, int]], first: int, peer: Peer
    ) -> int:
        """Check this frame and write it to the TUN.

        With it go those behind it that differ in nothing that is checked; return how many it was.
        """
        start, end = frames[first]
        frame = plain[start + FRAME_LENGTH.size : end]
        version = frame[VNET_HEADER_SIZE] >> 4
        if version == 4:
            (addresses,) = _IPV4_ADDRESSES.unpack_from(frame, VNET_HEADER_SIZE)
            sound = 0 < addresses[4] < 240 and addresses[4] != 127
        elif version == 6 and len(frame) >= _IPV6_FRAME:
            (addresses,) = _IPV6_ADDRESSES.unpack_from(frame, VNET_HEADER_SIZE)
            sound = not addresses.startswith(_LOW_IPV6, 16)
        else:
            peer.drop(Drop.NOT_IP)
            return 1
        if not rebuild(frame):
            peer.drop(Drop.BAD_OFFLOAD)
            return 1
        count, like = 1, None
        if len(frames) - first > 1 and self._taken:
            like = join.flow(plain, start, end)
            if like is not None and like.kind in self._taken:
                count = join.joinable(plain, frames, first, like)
        source, to = self._directory.routes.lookup_pair(addresses)
        if source is not peer:
            peer.drop(Drop.WRONG_SOURCE, count)
        elif to is not None and to is not peer and not peer.transit:
            peer.drop(Drop.NO_TRANSIT, count)
        elif not sound:
            peer.drop(Drop.BAD_DESTINATION, count)
        else:
            try:
                if like is not None and count > 1:
                    self._write_joined(plain, frames[first : first + count], like)
                elif is_superpacket(frame):
                    self._write_superpacket(plain, start, end)
                else:
                    self._tun.write(frame)
            except OSError as error:
                peer.drop(WRITE_FAILURES.get(error.errno or 0, Drop.TUN_FAILED), count)
            else:
                peer.rx_packets += count
                last = frames[first + count - 1][1]
                peer.rx_bytes += last - start - count * FRAME_HEADER_SIZE
        return count

    def _write_joined(
        self, plain: memoryview, frames: list[tuple[int, int]], like: join.Flow
    ) -> None:
        """Write them as one superpacket, or one by one where the kernel takes none."""
        start, end = frames[0]
        before = bytes(plain[start:end][: join.HEADERS])
        try:
            self._tun.write_parts(join.join(plain, frames, like))
        except OSError as error:
            self._refused(like.kind, error)
            plain[start : start + len(before)] = before
            for start, end in frames:
                self._tun.write(plain[start + FRAME_LENGTH.size : end])

    def _write_superpacket(self, plain: memoryview, start: int, end: int) -> None:
        """Write it whole, or cut where the kernel takes none. Raises OSError."""
        frame = plain[start + FRAME_LENGTH.size : end]
        kind = frame[1]
        size = segment_size(frame)
        # Kernels before 6.9 take 64 datagrams at once, later ones 128.
        if kind in self._taken and (kind != GSO_UDP_L4 or len(frame) <= join.MOST * size):
            try:
                self._tun.write(frame)
            except OSError as error:
                self._refused(kind, error)
            else:
                return
        for at, length in split(plain, start, end - start, FRAME_LENGTH.size + size):
            self._tun.write(plain[at + FRAME_LENGTH.size : at + length])

    def _refused(self, kind: int, error: OSError) -> None:
        """Take no such superpacket to the kernel again, if this is its no; else raise the error."""
        if error.errno != errno.EINVAL:
            raise error
        self._taken.discard(kind)
        name = "UDP" if kind == GSO_UDP_L4 else "TCP"
        log.warning("the kernel refused a %s superpacket (EINVAL); they are cut here now", name)
