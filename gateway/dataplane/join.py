"""Joining datagrams of one flow, so that one write to the TUN carries many of them.

The opposite of `split`, for UDP alone: datagrams of one length that stand one after the other in a
record, from one port to one port, become one superpacket (USO). The kernel routes it once and cuts
it again where it is delivered. Only with an open checksum (NEEDS_CSUM): a finished one might be
wrong, and would come out right. Only without IP fragments, options and extension headers.

A frame's first bytes, as in `wire.py`; what may differ from one to the next is the IPv4 header's
identification (which says nothing where "don't fragment" is set, RFC 6864) and its checksum:

    | length 2 | virtio-net 10 | IPv4 20 or IPv6 40 | UDP 8 | payload
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from gateway.dataplane.offload import GSO_NONE, GSO_UDP_L4, HEADER, NEEDS_CSUM, UDP
from gateway.protocol.wire import FRAME_HEADER_SIZE, FRAME_LENGTH, MAX_FRAGMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST: Final = MAX_FRAGMENTS  # UDP_MAX_SEGMENTS of Linux before 6.9
_IP: Final = FRAME_HEADER_SIZE
_VNET: Final = FRAME_LENGTH.size
_UINT16: Final = Struct(">H")
_UDP_SIZE: Final = 8
_CSUM_OFFSET: Final = 6
_IPV4_SIZE: Final = 20
_IPV6_SIZE: Final = 40
HEADERS: Final = _IP + _IPV6_SIZE + _UDP_SIZE
"""Bytes of a frame that `join` may write over, at most."""

_OPEN_IPV4: Final = HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, _IPV4_SIZE, _CSUM_OFFSET)
_OPEN_IPV6: Final = HEADER.pack(NEEDS_CSUM, GSO_NONE, 0, 0, _IPV6_SIZE, _CSUM_OFFSET)
_NO_OPTIONS: Final = 0x45  # first byte of an IPv4 header of 20 bytes
_DONT_FRAGMENT: Final = 0x40
_MAX_PACKET: Final = 65535


def joinable(plain: memoryview, frames: Sequence[tuple[int, int]], first: int) -> int:
    """Return how many frames from `first` on can be one: 1 is that one alone.

    `rebuild` wrote the virtio-net header of the first; the others' must be the same.
    """
    start, end = frames[first]
    size, at = end - start, start + _IP
    offload = bytes(plain[start + _VNET : at])
    if offload == _OPEN_IPV4 and plain[at] == _NO_OPTIONS:
        if plain[at + 6] != _DONT_FRAGMENT or plain[at + 9] != UDP:
            return 1
        headers = _IP + _IPV4_SIZE + _UDP_SIZE
        same = [(0, _IP + 4), (_IP + 6, _IP + 10), (_IP + 12, headers)]
    elif offload == _OPEN_IPV6 and plain[at] >> 4 == 6 and plain[at + 6] == UDP:
        headers = _IP + _IPV6_SIZE + _UDP_SIZE
        same = [(0, headers)]
    else:
        return 1
    payload = size - headers
    if payload <= 0:
        return 1
    alike = [(a, b, bytes(plain[start + a : start + b])) for a, b in same]
    most = min(MOST, (_MAX_PACKET + _IP - headers) // payload, len(frames) - first)
    for count in range(1, most):
        start, end = frames[first + count]
        if end - start != size:
            return count
        for a, b, what in alike:
            if plain[start + a : start + b] != what:
                return count
    return most


def join(plain: memoryview, frames: Sequence[tuple[int, int]]) -> list[memoryview]:
    """Make one frame of these: what one write takes. The headers of the first are written over."""
    start, end = frames[0]
    at = start + _IP
    version = plain[at] >> 4
    header = _IPV4_SIZE if version == 4 else _IPV6_SIZE
    udp = at + header
    payload = end - udp - _UDP_SIZE
    more = (len(frames) - 1) * payload
    HEADER.pack_into(
        plain,
        start + _VNET,
        NEEDS_CSUM,
        GSO_UDP_L4,
        header + _UDP_SIZE,
        payload,
        header,
        _CSUM_OFFSET,
    )
    if version == 4:
        _add(plain, at + 2, more)
        _add(plain, at + 10, -more)  # the header's checksum: it is the complement of a sum
    else:
        _add(plain, at + 4, more)
    _add(plain, udp + 4, more)
    _add(plain, udp + _CSUM_OFFSET, more)  # the sum of the pseudo-header, which has the length
    skipped = end - start - payload
    return [plain[start + _VNET : end], *(plain[a + skipped : b] for a, b in frames[1:])]


def _add(plain: memoryview, at: int, amount: int) -> None:
    """Add to 16 bits of a ones' complement sum (RFC 1071), or to a length that stays below it."""
    (value,) = _UINT16.unpack_from(plain, at)
    _UINT16.pack_into(plain, at, (value + amount - 1) % 0xFFFF + 1)
