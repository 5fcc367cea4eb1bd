"""IP packets and TUN frames for tests, built by hand: not with the code under test."""

from __future__ import annotations

import ipaddress
import struct

TCP, UDP, ICMP = 6, 17, 1
NO_OFFLOAD = bytes(10)


def ipv4(
    source: str, destination: str, payload: bytes = b"", protocol: int = UDP, fragment: int = 0
) -> bytes:
    """Build an IPv4 packet; its header checksum is left out, since nobody here looks at it."""
    return (
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, fragment, 64, protocol, 0)
        + ipaddress.IPv4Address(source).packed
        + ipaddress.IPv4Address(destination).packed
        + payload
    )


def ipv6(source: str, destination: str, payload: bytes = b"", protocol: int = UDP) -> bytes:
    """Build an IPv6 packet."""
    return (
        struct.pack(">IHBB", 0x60000000, len(payload), protocol, 64)
        + ipaddress.IPv6Address(source).packed
        + ipaddress.IPv6Address(destination).packed
        + payload
    )


def udp(payload: bytes = b"") -> bytes:
    """Build a UDP datagram from port 1000 to 2000."""
    return struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload


def tcp(payload: bytes = b"", header_size: int = 20) -> bytes:
    """Build a TCP segment from port 1000 to 2000."""
    header = struct.pack(">HHIIBBHHH", 1000, 2000, 1, 1, header_size // 4 << 4, 0x10, 100, 0, 0)
    return header + bytes(max(header_size - 20, 0)) + payload


def virtio(
    flags: int = 0,
    gso: int = 0,
    *,
    length: int = 0,
    size: int = 0,
    start: int = 0,
    offset: int = 0,
) -> bytes:
    """Build a virtio-net header."""
    return struct.pack("<BBHHHH", flags, gso, length, size, start, offset)


def frame(packet: bytes, header: bytes = NO_OFFLOAD) -> bytes:
    """Build what one read or write of the TUN carries."""
    return header + packet


def record(*frames: bytes) -> bytes:
    """Build what a record of these frames has inside."""
    return b"".join(struct.pack(">H", len(one) - 10) + one for one in frames)
