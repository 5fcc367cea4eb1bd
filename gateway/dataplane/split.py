"""Cutting a superpacket into smaller frames, in its own buffer and without copying its payload.

The kernel hands out TCP and UDP in superpackets of up to 64 KB: one header, many segments. Where
the path loses datagrams, records must be smaller. Each chunk gets the superpacket's headers, made
to fit, right before its own part of the payload, and so over the end of the part before:

    | headers | payload 1       | payload 2       | payload 3 |
    | chunk 1 . . . . . . . . . |
                      | headers | chunk 2 . . . . |                once chunk 1 was used
                                        | headers | chunk 3 . |    once chunk 2 was used

What changes in them is what Linux changes when it segments (`tcp_gso_segment`, `__udp_gso_segment`,
`inet_gso_segment`, `ipv6_gso_segment`). The transport checksum stays open (NEEDS_CSUM): its field
holds the sum of the pseudo-header, of which a chunk changes the length alone. All sums are ones'
complement, so numbers modulo 65,535 (RFC 1071).
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from gateway.dataplane.offload import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER,
    NEEDS_CSUM,
    TCP,
    find_transport,
    rebuild,
)
from gateway.protocol.wire import FRAME_HEADER_SIZE, FRAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator

_VNET: Final = FRAME_LENGTH.size
_IP: Final = FRAME_HEADER_SIZE
_GSO_TYPE: Final = _VNET + 1

# Where things are in their headers: RFC 791 3.1, RFC 8200 3, RFC 9293 3.1, RFC 768.
_UINT16: Final = Struct(">H")
_UINT32: Final = Struct(">I")
_IPV4_LENGTH: Final = 2
_IPV4_ID: Final = 4
_IPV4_ID_TO_CHECKSUM: Final = Struct(">H4sH")
_IPV6_LENGTH: Final = 4
_IPV6_HEADER_SIZE: Final = 40
_TCP_SEQUENCE: Final = 4
_TCP_OFFSET: Final = 12
_TCP_FLAGS: Final = 13
_TCP_CHECKSUM: Final = 16
_UDP_LENGTH: Final = 4

_ALL: Final = 0xFF
_NOT_LAST: Final = _ALL & ~0x09  # FIN and PSH belong to the last segment
_WHOLE: Final = 0x26  # SYN, RST and URG: what they say is about the whole segment
_NOT_FIRST: Final = _ALL & ~0x80  # CWR belongs to the first (RFC 3168 6.1.2)


def split(plain: memoryview, start: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut the frame of `length` bytes at `start` into frames of at most `most` bytes.

    Yields start and length of each, in order, frame header included; each is valid until the next
    is asked for. It has as many whole segments as fit. Where not one fits, TCP is cut into shorter
    segments (a lone segment, too), and UDP into its datagrams, which are then longer than `most`.
    What is no superpacket, or none that a peer would take, comes out as it is. `clean_own` came
    before.
    """
    frame = plain[start : start + length]
    if length <= most or not _is_superpacket(frame):
        yield start, length
        return
    headers = _Headers(frame)
    head = headers.bytes
    size = len(head)
    room, segment = most - size, headers.segment
    if room < segment and headers.tcp:
        if room <= 0:
            yield start, length
            return
        headers.segment = segment = room
    chunk = max(room // segment, 1) * segment
    payload = length - size
    last = (payload - 1) // chunk * chunk
    headers.fit(chunk, _NOT_LAST)
    for before in range(0, payload, chunk):
        if before == last:
            chunk = payload - last
            headers.fit(chunk, _ALL)
        headers.move(before)
        at = start + before
        plain[at : at + size] = head
        yield at, size + chunk


def _is_superpacket(frame: memoryview) -> bool:
    """Tell a superpacket that a peer would take; its virtio-net header is `rebuild`'s then."""
    if not rebuild(frame[_VNET:]):
        return False
    return frame[_GSO_TYPE] != GSO_NONE or _is_long_segment(frame)


def _is_long_segment(frame: memoryview) -> bool:
    """Tell a lone TCP segment: shorter ones say the same. It looks like a superpacket then."""
    if frame[_VNET] != NEEDS_CSUM:
        return False
    packet = frame[_IP:]
    transport = find_transport(packet)
    if transport is None or transport[0] != TCP:
        return False
    start = transport[1]
    end = start + (packet[start + _TCP_OFFSET] >> 4) * 4
    if end >= len(packet) or packet[start + _TCP_FLAGS] & _WHOLE:
        return False
    kind = GSO_TCPV4 if packet[0] >> 4 == 4 else GSO_TCPV6
    HEADER.pack_into(frame, _VNET, NEEDS_CSUM, kind, end, len(packet) - end, start, _TCP_CHECKSUM)
    return True


class _Headers:
    """The headers of a superpacket, made to fit one chunk after the other."""

    __slots__ = (
        "_flags",
        "_id",
        "_ip_sum",
        "_ipv4",
        "_middle",
        "_offset",
        "_other_words",
        "_pseudo_sum",
        "_sequence",
        "_transport",
        "bytes",
        "segment",
        "tcp",
    )

    def __init__(self, frame: memoryview) -> None:
        _, gso_type, end, self.segment, self._transport, self._offset = HEADER.unpack_from(
            frame, _VNET
        )
        self.tcp = gso_type != GSO_UDP_L4
        packet = frame[_IP:]
        self.bytes = bytearray(frame[: _IP + end])
        self._ipv4 = packet[0] >> 4 == 4
        if self._ipv4:
            self._id, self._middle, checksum = _IPV4_ID_TO_CHECKSUM.unpack_from(packet, _IPV4_ID)
            words = int.from_bytes(packet[: self._transport])  # 65,536 is 1 modulo 65,535
            self._other_words = words - len(packet) - self._id - checksum
        if self.tcp:
            (self._sequence,) = _UINT32.unpack_from(packet, self._transport + _TCP_SEQUENCE)
            self._flags = packet[self._transport + _TCP_FLAGS]
        (pseudo_sum,) = _UINT16.unpack_from(packet, self._transport + self._offset)
        self._pseudo_sum = pseudo_sum - (len(packet) - self._transport)

    def fit(self, payload: int, flags: int) -> None:
        """Write what depends on the size of a chunk's payload; keep these of the TCP flags."""
        head, start = self.bytes, self._transport
        packet = len(head) - _IP + payload
        FRAME_LENGTH.pack_into(head, 0, packet)
        if payload <= self.segment:
            HEADER.pack_into(head, _VNET, NEEDS_CSUM, GSO_NONE, 0, 0, start, self._offset)
        if self._ipv4:
            _UINT16.pack_into(head, _IP + _IPV4_LENGTH, packet)
            self._ip_sum = self._other_words + packet
        else:
            _UINT16.pack_into(head, _IP + _IPV6_LENGTH, packet - _IPV6_HEADER_SIZE)
        if self.tcp:
            head[_IP + start + _TCP_FLAGS] = self._flags & flags
        else:
            _UINT16.pack_into(head, _IP + start + _UDP_LENGTH, packet - start)
        # 1 to 65,535, as the kernel has it: 0 would say "no checksum" in UDP.
        pseudo_sum = (self._pseudo_sum + packet - start - 1) % 0xFFFF + 1
        _UINT16.pack_into(head, _IP + start + self._offset, pseudo_sum)

    def move(self, before: int) -> None:
        """Write what depends on how much of the payload is in earlier chunks."""
        head = self.bytes
        if self._ipv4:
            number = (self._id + before // self.segment) & 0xFFFF
            checksum = -(self._ip_sum + number) % 0xFFFF
            _IPV4_ID_TO_CHECKSUM.pack_into(head, _IP + _IPV4_ID, number, self._middle, checksum)
        if before and self.tcp:
            tcp = _IP + self._transport
            _UINT32.pack_into(head, tcp + _TCP_SEQUENCE, (self._sequence + before) & 0xFFFFFFFF)
            head[tcp + _TCP_FLAGS] &= _NOT_FIRST
