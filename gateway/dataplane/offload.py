"""The virtio-net header before each packet: what ours may say, and what a peer's is worth.

The header tells the kernel where to put a checksum and how to cut a superpacket. A hostile one
makes the kernel rewrite bytes of a packet that a firewall has already let pass. So a peer's header
is only a wish: `rebuild` reads the packet itself, writes a header of its own, and refuses the frame
when the wish is not what that packet can need.

     0       1          2         4          6            8             10    little-endian
    | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |      VIRTIO 1.2, 5.1.6

With NEEDS_CSUM the checksum field holds the sum of the pseudo-header and whoever sends the packet
on finishes it, from `csum_start` to the end, at `csum_start + csum_offset`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from gateway.protocol.wire import VNET_HEADER_SIZE

HEADER: Final = Struct("<BBHHHH")
PLAIN: Final = bytes(VNET_HEADER_SIZE)
"""No offload: the packet is complete."""

NEEDS_CSUM: Final = 1
GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5

TCP: Final = 6
UDP: Final = 17
_CSUM_OFFSET: Final = {TCP: 16, UDP: 6}  # RFC 9293 3.1, RFC 768
_GSO_PROTOCOL: Final = {GSO_TCPV4: (4, TCP), GSO_TCPV6: (6, TCP)}
_MIN_GSO_SIZE: Final = 8  # TCP_MIN_SND_MSS of Linux (48) less its longest options (40)
_MAX_UDP_SEGMENTS: Final = 128  # UDP_MAX_SEGMENTS of Linux 6.9 and later
_MAX_CUT: Final = 4 * 65535
"""Bytes that a superpacket may become when it is cut, since each segment repeats the headers. With
16 kB of extension headers and segments of 8 bytes 64 kB became 100 MB, in one write of 255 ms."""
_UDP_HEADER_SIZE: Final = 8
_MIN_TCP_HEADER: Final = 20

# IPv6 extension headers that may stand before TCP or UDP (RFC 8200 4.1): 8 bytes each and more.
_HOP_BY_HOP: Final = 0
_ROUTING: Final = 43
_DESTINATION: Final = 60
_SKIPPED: Final = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION})
_MAX_EXTENSIONS: Final = 8  # more than anybody sends


def clean_own(frame: memoryview) -> None:
    """Of what our own kernel says about this frame, keep what concerns others.

    DATA_VALID ("I verified the sum") is our kernel's own affair. An open checksum that is not the
    packet's own but that of a packet inside (VXLAN of a neighbour in a namespace or VM) is one
    that a peer must refuse: it is finished here.
    """
    flags, gso_type, _hdr_len, _gso_size, start, offset = HEADER.unpack_from(frame)
    frame[0] = flags & NEEDS_CSUM
    if not flags & NEEDS_CSUM or gso_type != GSO_NONE:
        return  # of tunnels, the TUN has no superpackets
    first = frame[VNET_HEADER_SIZE]
    if start == ((first & 0x0F) * 4 if first >> 4 == 4 else 40):
        return  # right behind the IP header: nearly always
    packet = frame[VNET_HEADER_SIZE:]
    transport = find_transport(packet)
    if transport is None or transport[1] != start:
        finish_checksum(packet, start, offset)
        frame[:VNET_HEADER_SIZE] = PLAIN


def finish_checksum(packet: memoryview, start: int, offset: int) -> None:
    """Do what NEEDS_CSUM asks for (RFC 1071: a sum modulo 65,535), as `skb_checksum_help` does."""
    words = int.from_bytes(packet[start:]) << 8 * ((len(packet) - start) % 2)
    checksum = -words % 0xFFFF or 0xFFFF  # 0 would say "none" in UDP
    packet[start + offset : start + offset + 2] = checksum.to_bytes(2)


def rebuild(frame: memoryview) -> bool:
    """Replace the peer's header of this frame by one of our own; False: drop as `bad-offload`."""
    flags, gso_type, _hdr_len, gso_size, csum_start, csum_offset = HEADER.unpack_from(frame)
    if not flags and gso_type == GSO_NONE:
        frame[:VNET_HEADER_SIZE] = PLAIN
        return True
    if flags != NEEDS_CSUM:
        return False
    packet = frame[VNET_HEADER_SIZE:]
    transport = find_transport(packet)
    if transport is None:
        return False
    protocol, start = transport
    if csum_start != start or csum_offset != _CSUM_OFFSET[protocol]:
        return False  # of an inner packet, say: our outer one would not be repaired by it
    header_end = _transport_end(packet, protocol, start)
    if header_end is None:
        return False
    if gso_type != GSO_NONE:
        payload = len(packet) - header_end
        if not _can_be_cut(gso_type, packet[0] >> 4, protocol, gso_size, payload):
            return False
        if payload + -(-payload // gso_size) * header_end > _MAX_CUT:
            return False
        if payload <= gso_size:
            gso_type = GSO_NONE  # one segment is no superpacket
    if gso_type == GSO_NONE:
        header_end = gso_size = 0
    HEADER.pack_into(frame, 0, NEEDS_CSUM, gso_type, header_end, gso_size, start, csum_offset)
    return True


def is_superpacket(frame: memoryview) -> bool:
    """Whether somebody has yet to cut a frame whose header is ours."""
    return frame[1] != GSO_NONE


def segment_size(frame: memoryview) -> int:
    """Bytes of one segment of such a frame, with all headers."""
    _flags, _gso_type, header_end, gso_size, _start, _offset = HEADER.unpack_from(frame)
    size: int = VNET_HEADER_SIZE + header_end + gso_size
    return size


def find_transport(packet: memoryview) -> tuple[int, int] | None:
    """Find TCP or UDP in a packet: which, and at what offset.

    None when there is neither, when the packet is a fragment (its transport header, if any, covers
    more than this packet), or when its own length is not the one that it states.
    """
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return _find_in_ipv4(packet)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return _find_in_ipv6(packet)
    return None


def _find_in_ipv4(packet: memoryview) -> tuple[int, int] | None:
    header_size = (packet[0] & 0x0F) * 4
    length = int.from_bytes(packet[2:4])
    fragment = int.from_bytes(packet[6:8]) & 0x3FFF  # more fragments, or an offset
    if header_size < 20 or length != len(packet) or fragment or packet[9] not in _CSUM_OFFSET:
        return None
    return packet[9], header_size


def _find_in_ipv6(packet: memoryview) -> tuple[int, int] | None:
    if int.from_bytes(packet[4:6]) + 40 != len(packet):
        return None
    protocol, offset = packet[6], 40
    for _ in range(_MAX_EXTENSIONS):
        if protocol not in _SKIPPED:
            break
        if offset + 8 > len(packet):
            return None
        protocol, size = packet[offset], packet[offset + 1] * 8 + 8
        offset += size
    return (protocol, offset) if protocol in _CSUM_OFFSET else None


def _transport_end(packet: memoryview, protocol: int, start: int) -> int | None:
    """Where the transport header ends, or None when the packet has not all of it.

    UDP states its own length: where that is another, the kernel would write over it as it cuts.
    """
    if protocol == UDP:
        end = start + _UDP_HEADER_SIZE
        if int.from_bytes(packet[start + 4 : start + 6]) != len(packet) - start:
            return None
    elif len(packet) < start + _MIN_TCP_HEADER:
        return None
    else:
        size = (packet[start + 12] >> 4) * 4
        if size < _MIN_TCP_HEADER:
            return None
        end = start + size
    return end if end <= len(packet) else None


def _can_be_cut(gso_type: int, version: int, protocol: int, gso_size: int, payload: int) -> bool:
    if gso_type == GSO_UDP_L4:
        return protocol == UDP and gso_size > 0 and payload <= gso_size * _MAX_UDP_SEGMENTS
    return _GSO_PROTOCOL.get(gso_type) == (version, protocol) and gso_size >= _MIN_GSO_SIZE
