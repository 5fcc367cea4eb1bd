"""Whole IP packets for a real kernel, which looks at their checksums: built by hand."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address

DESTINATION_OPTIONS = 60  # RFC 8200 4.6


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data)) if len(data) % 2 == 0 else 0
    assert len(data) % 2 == 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: Address, destination: Address, protocol: int, body: bytes, *, ident: int,
    fragment: int = 0,
) -> bytes:  # fmt: skip
    """Build one; `fragment`: the offset in units of 8 bytes, and 0x2000 where more follow."""
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), ident, fragment, 64, protocol, 0) + (
        source.packed + destination.packed
    )
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def ipv6(
    source: Address, destination: Address, protocol: int, body: bytes, *, label: int,
    options: bool = False,
) -> bytes:  # fmt: skip
    """Build one; `options`: with a header before the protocol's, which says nothing."""
    if options:
        body = bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + body  # PadN of 6
        protocol = DESTINATION_OPTIONS
    return (
        struct.pack(">IHBB", 0x6000_0000 | label, len(body), protocol, 64)
        + source.packed
        + destination.packed
        + body
    )
