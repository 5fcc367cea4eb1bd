"""Joining packets of one flow, so that one write to the TUN carries many of them.

The opposite of `split`. What stands side by side after records were opened, datagrams of one length
from one port to one port, or TCP segments of which each goes on where the last one ended, becomes
one superpacket (USO, TSO). The kernel routes it once, and cuts it again where it is delivered or
leaves the machine. The rules are those of Linux's own GRO (`tcp_gro_receive`, `udp_gro_receive`):
all headers alike but for lengths and what counts up, only the last one shorter, none after a PSH.

Only with an open checksum (NEEDS_CSUM): a finished one might be wrong, and would come out right.
Only without IP options and extension headers, and only where "don't fragment" is set: then the
identification, which gets lost, says nothing (RFC 6864).

A frame's first bytes, as in `wire.py`:

    | length 2 | virtio-net 10 | IPv4 20 or IPv6 40 | UDP 8 or TCP 20 to 60 | payload
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.dataplane.offload import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    HEADER,
    NEEDS_CSUM,
    TCP,
    UDP,
)
from gateway.protocol.wire import FRAME_HEADER_SIZE, FRAME_LENGTH, MAX_FRAGMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST: Final = MAX_FRAGMENTS  # UDP_MAX_SEGMENTS of Linux before 6.9
HEADERS: Final = FRAME_HEADER_SIZE + 40 + 60
"""Bytes of a frame that `join` may write over, at most."""

_VNET: Final = FRAME_LENGTH.size
_IP: Final = FRAME_HEADER_SIZE
_UINT16: Final = Struct(">H")
_UINT32: Final = Struct(">I")
_MAX_PACKET: Final = 65535
_PIECES: Final = 1024  # UIO_MAXIOV, linux/uio.h: of what one write is made
_LEAST_SEGMENT: Final = 8  # bytes of TCP: what `rebuild` takes

# Where things are in their headers: RFC 791 3.1, RFC 8200 3, RFC 9293 3.1, RFC 768.
_IPV4_PLAIN: Final = 0x45  # version, and a header of 20 bytes
_IPV4_FRAGMENT: Final = 6
_DONT_FRAGMENT: Final = 0x40
_IPV4_PROTOCOL: Final = 9
_IPV6_PROTOCOL: Final = 6
_TCP_SEQUENCE: Final = 4
_UDP_LENGTH: Final = 4
_TCP_OFFSET: Final = 12
_TCP_FLAGS: Final = 13
_ACK: Final = 0x10
_PSH: Final = 0x08


class Flow(NamedTuple):
    """What the packets behind a first one must be like."""

    kind: int
    """Of superpacket: a GSO type."""
    transport: int
    """Where UDP or TCP begins, from the frame's start."""
    headers: int
    """Bytes, frame header included."""
    length_at: int
    """Of the IP header's own length, from the frame's start."""
    length_less: int
    """What that length leaves out of the packet."""
    same: list[tuple[int, int, bytes]]
    """From, to, what: bytes that they share."""
    checksum: int
    """Where the sum of the pseudo-header is, from the frame's start."""
    sum: int
    """That of the first one."""
    sequence: int
    """Of TCP: where the first one begins."""


def flow(plain: memoryview, start: int, end: int) -> Flow | None:
    """Tell the flow of the frame at plain[start:end]; None: nothing can be joined to it.

    `rebuild` wrote its virtio-net header.
    """
    at = start + _IP
    version = plain[at] >> 4
    if version == 4:
        protocol, transport = plain[at + _IPV4_PROTOCOL], _IP + 20
        whole = plain[at] == _IPV4_PLAIN and plain[at + _IPV4_FRAGMENT] == _DONT_FRAGMENT
        same = [(_VNET, _IP + 2), (_IP + 6, _IP + 10), (_IP + 12, transport + 4)]
    else:
        protocol, transport = plain[at + _IPV6_PROTOCOL], _IP + 40
        whole = True
        same = [(_VNET, _IP + 4), (_IP + 6, transport + 4)]
    checksum = 6 if protocol == UDP else 16
    untouched = HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, transport - _IP, checksum)
    if not whole or protocol not in {TCP, UDP} or plain[start + _VNET : at] != untouched:
        return None
    lengths = (_IP + 2, 0) if version == 4 else (_IP + 4, 40)
    sums = transport + checksum, _UINT16.unpack_from(plain, start + transport + checksum)[0]
    if protocol == UDP:
        shared = _taken(plain, start, same)
        return Flow(GSO_UDP_L4, transport, transport + 8, *lengths, shared, *sums, 0)
    tcp = start + transport
    if plain[tcp + _TCP_FLAGS] != _ACK:
        return None
    headers = transport + (plain[tcp + _TCP_OFFSET] >> 4) * 4
    if end - start < headers + _LEAST_SEGMENT:
        return None
    same += [(transport + 8, transport + _TCP_FLAGS), (transport + 14, transport + 16)]
    same.append((transport + 18, headers))
    (sequence,) = _UINT32.unpack_from(plain, tcp + _TCP_SEQUENCE)
    kind = GSO_TCPV4 if version == 4 else GSO_TCPV6
    return Flow(kind, transport, headers, *lengths, _taken(plain, start, same), *sums, sequence)


def _taken(
    plain: memoryview, start: int, same: list[tuple[int, int]]
) -> list[tuple[int, int, bytes]]:
    return [(a, b, bytes(plain[start + a : start + b])) for a, b in same]


def joinable(plain: memoryview, frames: Sequence[tuple[int, int]], first: int, like: Flow) -> int:
    """Return how many frames from `first` on can be one: 1 is that one alone."""
    start, end = frames[first]
    size, tcp = end - start, like.kind != GSO_UDP_L4
    payload = size - like.headers
    if payload <= 0:
        return 1
    room = _MAX_PACKET + _IP - size
    most = min(len(frames), first + (_PIECES if tcp else MOST))
    for number in range(first + 1, most):
        start, end = frames[number]
        length = end - start
        room -= length - like.headers
        if length > size or length <= like.headers or room < 0:
            return number - first
        for a, b, what in like.same:
            if plain[start + a : start + b] != what:
                return number - first
        stated = length - _IP - like.length_less
        if _UINT16.unpack_from(plain, start + like.length_at)[0] != stated:
            return number - first
        (found,) = _UINT16.unpack_from(plain, start + like.checksum)
        if (found - like.sum - length + size) % 0xFFFF:  # it has the length in it
            return number - first
        at = start + like.transport
        last = length < size
        if tcp:
            flags = plain[at + _TCP_FLAGS]
            sequence = (like.sequence + (number - first) * payload) & 0xFFFFFFFF
            if (
                flags & ~_PSH != _ACK
                or _UINT32.unpack_from(plain, at + _TCP_SEQUENCE)[0] != sequence
            ):
                return number - first
            last = last or flags & _PSH != 0
        elif _UINT16.unpack_from(plain, at + _UDP_LENGTH)[0] != length - like.transport:
            return number - first
        if last:
            return number - first + 1
    return most - first


def join(plain: memoryview, frames: Sequence[tuple[int, int]], like: Flow) -> list[memoryview]:
    """Make one frame of these: what one write takes. The headers of the first are written over."""
    start, end = frames[0]
    payloads = [plain[a + like.headers : b] for a, b in frames[1:]]
    more = sum(map(len, payloads))
    _, _, _, _, transport, checksum = HEADER.unpack_from(plain, start + _VNET)
    HEADER.pack_into(
        plain,
        start + _VNET,
        NEEDS_CSUM,
        like.kind,
        like.headers - _IP,
        end - start - like.headers,
        transport,
        checksum,
    )
    at = start + _IP
    _add(plain, start + like.length_at, more)
    if plain[at] >> 4 == 4:
        _add(plain, at + 10, -more)  # the header's checksum: it is the complement of a sum
    at += transport
    _add(plain, at + checksum, more)  # the sum of the pseudo-header, which has the length
    if like.kind == GSO_UDP_L4:
        _add(plain, at + _UDP_LENGTH, more)
    else:
        last, _ = frames[-1]
        plain[at + _TCP_FLAGS] = plain[last + _IP + transport + _TCP_FLAGS]
    return [plain[start + _VNET : end], *payloads]


def _add(plain: memoryview, at: int, amount: int) -> None:
    """Add to 16 bits of a ones' complement sum (RFC 1071), or to a length that stays below it."""
    (value,) = _UINT16.unpack_from(plain, at)
    _UINT16.pack_into(plain, at, (value + amount - 1) % 0xFFFF + 1)
