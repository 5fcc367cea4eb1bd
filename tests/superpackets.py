"""Superpackets for tests, and what any part of one must look like: built from scratch, by hand.

The transport checksum is open, as NEEDS_CSUM has it; `finished` does to it what the kernel does.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.packets import TCP, virtio

if TYPE_CHECKING:
    from collections.abc import Iterator

TSO4, TSO6, USO = 1, 4, 5
FIN, PSH, ACK, ECE, CWR = 0x01, 0x08, 0x10, 0x40, 0x80
FRAME_HEADER = 12
SOURCE = {4: "10.0.1.2", 6: "fd00:1::2"}
DESTINATION = {4: "10.0.2.2", 6: "fd00:2::2"}


@dataclass(frozen=True)
class Superpacket:
    """One header for many segments of `segment` bytes."""

    version: int
    protocol: int
    payload: bytes = field(repr=False)
    segment: int
    options: bytes = b""  # of IPv4
    extensions: tuple[tuple[int, int], ...] = ()  # of IPv6: kind, and size in 8 bytes
    tcp_options: bytes = b""
    flags: int = ACK
    sequence: int = 1000
    identification: int = 7
    fragmentable: bool = False
    ttl: int = 64

    @property
    def transport(self) -> int:
        """Where TCP or UDP starts in the packet."""
        if self.version == 4:
            return 20 + len(self.options)
        return 40 + sum(8 * size for _, size in self.extensions)

    @property
    def headers(self) -> int:
        """Size of all headers of the packet."""
        return self.transport + (20 + len(self.tcp_options) if self.protocol == TCP else 8)

    def frame(self) -> bytes:
        """Build it as a TUN gives it: with an `hdr_len` that nobody may believe."""
        packet = self.packet(0, len(self.payload), self.identification)
        return framed(packet, self.virtio(hdr_len=1, segment=self.segment))

    def chunks(self, size: int, segment: int | None = None) -> Iterator[bytes]:
        """Build the frames that carry `size` bytes of the payload each, in segments."""
        segment = segment or self.segment
        for begin in range(0, len(self.payload), size):
            end = min(begin + size, len(self.payload))
            packet = self.packet(begin, end, self.identification + begin // segment)
            several = end - begin > segment
            yield framed(packet, self.virtio(self.headers, segment) if several else self.virtio())

    def virtio(self, hdr_len: int = 0, segment: int = 0) -> bytes:
        """Build the virtio-net header: of a superpacket, if there is a `segment`."""
        tso = TSO4 if self.version == 4 else TSO6
        return virtio(
            1,
            (tso if self.protocol == TCP else USO) if segment else 0,
            length=hdr_len,
            size=segment,
            start=self.transport,
            offset=16 if self.protocol == TCP else 6,
        )

    def packet(self, begin: int, end: int, identification: int) -> bytes:
        """Build the packet that carries this part of the payload."""
        part = self.payload[begin:end]
        pseudo = self._addresses() + struct.pack(
            ">II", self.headers - self.transport + len(part), self.protocol
        )
        if self.protocol == TCP:
            flags = self.flags
            if begin > 0:
                flags &= ~CWR
            if end < len(self.payload):
                flags &= ~(FIN | PSH)
            words = 5 + len(self.tcp_options) // 4
            header = struct.pack(
                ">HHIIBBHHH", 1000, 2000, (self.sequence + begin) % 2**32, 99,
                words << 4, flags, 500, ones_sum(pseudo), 0,
            )  # fmt: skip
            body = header + self.tcp_options + part
        else:
            body = struct.pack(">HHHH", 1000, 2000, 8 + len(part), ones_sum(pseudo)) + part
        return self._ip(body, identification % 2**16)

    def _ip(self, body: bytes, identification: int) -> bytes:
        if self.version == 6:
            kinds = [*(kind for kind, _ in self.extensions), self.protocol]
            for (_, size), after in reversed([*zip(self.extensions, kinds[1:], strict=True)]):
                pad = size * 8 - 4  # the option PadN
                body = struct.pack(">BBBB", after, size - 1, 1, pad) + bytes(pad) + body
            header = struct.pack(">IHBB", 0x6AB00007, len(body), kinds[0], self.ttl)
            return header + self._addresses() + body
        header = struct.pack(
            ">BBHHHBBH", 0x45 + len(self.options) // 4, 2, self.transport + len(body),
            identification, 0 if self.fragmentable else 0x4000, self.ttl, self.protocol, 0,
        )  # fmt: skip
        header += self._addresses() + self.options
        return header[:10] + struct.pack(">H", 0xFFFF ^ ones_sum(header)) + header[12:] + body

    def _addresses(self) -> bytes:
        ends = (SOURCE[self.version], DESTINATION[self.version])
        return b"".join(ipaddress.ip_address(end).packed for end in ends)


def framed(packet: bytes, header: bytes) -> bytes:
    """Build a frame as it lies in a record."""
    return struct.pack(">H", len(packet)) + header + packet


def ones_sum(words: bytes) -> int:
    """Sum 16-bit words as RFC 1071 does, carry by carry."""
    total = 0
    for (word,) in struct.iter_unpack(">H", words + bytes(len(words) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def mend_ipv4(packet: bytearray) -> None:
    """Give it a header checksum that holds, if it has a header for one."""
    size = (packet[0] & 15) * 4
    if packet[0] >> 4 == 4 and 20 <= size <= len(packet):
        packet[10:12] = bytes(2)
        packet[10:12] = struct.pack(">H", 0xFFFF ^ ones_sum(bytes(packet[:size])))


def finished(frame: bytes) -> bytes:
    """Return the packet of such a frame with its transport checksum computed."""
    flags, _, _, _, start, offset = struct.unpack("<BBHHHH", frame[2:FRAME_HEADER])
    packet = bytearray(frame[FRAME_HEADER:])
    if flags & 1:
        checksum = 0xFFFF ^ ones_sum(bytes(packet[start:]))
        if offset == 6 and not checksum:
            checksum = 0xFFFF  # in UDP 0 says that there is none
        packet[start + offset : start + offset + 2] = struct.pack(">H", checksum)
    return bytes(packet)
