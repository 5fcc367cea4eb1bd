"""Datagrams of the tunnel as an adversary takes them apart: docs/protocol.md, and no key. Pure.

It knows the header and how long a tag is. What is behind the header it can only copy or change.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

HEADER: Final = struct.Struct("!BBBBIQ")
"""type, fragment, fragments, zero, session index, record counter (docs/protocol.md, Datagram)."""
FIELDS: Final = {
    "type": (0, 1),
    "fragment": (1, 2),
    "fragments": (2, 3),
    "zero": (3, 4),
    "index": (4, 8),
    "counter": (8, 16),
}
"""Where each field of the header begins and ends, in bytes."""
TAGS: Final = {
    "aes-256-gcm": 16,
    "chacha20-poly1305": 16,
    "aes-256-cbc-hmac-sha256": 32,
    "null": 16,
    "paper": 32,
}
"""Bytes at the end of a record that prove it, or stand in the place of such (docs, Record)."""
FRAME: Final = 12
"""Bytes before the IP packet in an opened record: length, virtio-net header (docs, Frames)."""
BLOCK: Final = 16
"""Bytes of an AES block."""
_IP: Final = struct.Struct("!BBHHHBBH4s4s")  # RFC 791, 3.1
_UDP: Final = struct.Struct("!HHHH")  # RFC 768
_NUMBER: Final = 17  # UDP's
_FRAGMENTED: Final = 0x3FFF  # more fragments, or an offset: not ours (DF is set)


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP datagram over IPv4 that carries a fragment of a record."""

    source: str
    target: str
    source_port: int
    target_port: int
    payload: bytes

    @classmethod
    def parse(cls, packet: bytes) -> Datagram:
        """Take an IP packet apart; ValueError where it is no datagram of the tunnel."""
        if len(packet) < _IP.size or packet[0] >> 4 != 4 or packet[9] != _NUMBER:
            raise ValueError("not UDP over IPv4")
        start = (packet[0] & 15) * 4
        if int.from_bytes(packet[6:8]) & _FRAGMENTED:
            raise ValueError("a fragment of IP's")
        if len(packet) < start + _UDP.size + HEADER.size:
            raise ValueError("too short for a record")
        source_port, target_port, length, _ = _UDP.unpack_from(packet, start)
        payload = packet[start + _UDP.size : start + length]
        if len(payload) < HEADER.size:
            raise ValueError("too short for a record")
        ends = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
        return cls(*ends, source_port, target_port, payload)

    def packet(self) -> bytes:
        """Return the IP packet. UDP's checksum is left out: over IPv4 it may be (RFC 768)."""
        length = _UDP.size + len(self.payload)
        ends = IPv4Address(self.source).packed, IPv4Address(self.target).packed
        head = _IP.pack(0x45, 0, _IP.size + length, 0, 0x4000, 64, _NUMBER, 0, *ends)
        head = head[:10] + checksum(head).to_bytes(2) + head[12:]
        return head + _UDP.pack(self.source_port, self.target_port, length, 0) + self.payload

    # ---- what anybody can read

    @property
    def fragment(self) -> int:
        """Which part of its record it is."""
        return self.payload[1]

    @property
    def fragments(self) -> int:
        """How many parts its record has."""
        return self.payload[2]

    @property
    def index(self) -> int:
        """The receiver's number of the session."""
        return int.from_bytes(self.payload[4:8])

    @property
    def counter(self) -> int:
        """The number of its record."""
        return int.from_bytes(self.payload[8:16])

    @property
    def body(self) -> bytes:
        """What is behind the header."""
        return self.payload[HEADER.size :]

    # ---- what anybody can change

    def to(self, *, index: int | None = None, counter: int | None = None) -> Datagram:
        """Return it with another session index, or another counter."""
        head = bytearray(self.payload[: HEADER.size])
        if index is not None:
            head[4:8] = index.to_bytes(4)
        if counter is not None:
            head[8:16] = counter.to_bytes(8)
        return replace(self, payload=bytes(head) + self.body)

    def with_body(self, body: bytes) -> Datagram:
        """Return it with other bytes behind the header."""
        return replace(self, payload=self.payload[: HEADER.size] + body)

    def sent_back(self) -> Datagram:
        """Return it as if the receiver had sent it to the sender."""
        return Datagram(self.target, self.source, self.target_port, self.source_port, self.payload)

    def flipped(self, bit: int) -> Datagram:
        """Return it with one bit of the payload changed: 0 is the first byte's highest."""
        changed = bytearray(self.payload)
        changed[bit // 8] ^= 0x80 >> bit % 8
        return replace(self, payload=bytes(changed))


def checksum(head: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of a header whose own field is 0."""
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def bits(datagram: Datagram, field: str, suite: str) -> range:
    """Return the bits of a field of the header, of the ciphertext or of the tag.

    The ciphertext's are of its last 24 bytes: of `null` these are the payload of what is inside.
    """
    end = 8 * len(datagram.payload)
    tag = 8 * TAGS[suite]
    if field == "tag":
        return range(end - tag, end)
    if field == "ciphertext":
        return range(end - tag - 8 * 24, end - tag)
    first, last = FIELDS[field]
    return range(8 * first, 8 * last)


def bit_of(datagram: Datagram, field: str, suite: str, dice: Random) -> int:
    """Choose a bit of a field to flip.

    Of the counter: the lowest zero bit from 4,096 on. So it becomes one that nobody uses soon, not
    beyond the replay window: that is all that may look at it.
    """
    if field == "counter":
        place = 12
        while datagram.counter >> place & 1:
            place += 1
        return 8 * FIELDS["counter"][1] - 1 - place
    return dice.choice(bits(datagram, field, suite))


def flood(pattern: Datagram, count: int, dice: Random) -> list[Datagram]:
    """Return forged datagrams of random bytes, as long as the pattern, from its sender.

    Every other one names a random session, the rest the right one and a huge counter.
    """
    found = []
    for number in range(count):
        body = pattern.with_body(dice.randbytes(len(pattern.body)))
        counter = dice.randrange(1 << 40, 1 << 63)
        index = (pattern.index ^ dice.randrange(1, 1 << 32)) if number % 2 else pattern.index
        found.append(body.to(index=index, counter=counter))
    return found


def equal_blocks(one: bytes, other: bytes) -> int:
    """Count the blocks at the beginning of two records that are equal."""
    count = 0
    while (
        one[: BLOCK * (count + 1)] == other[: BLOCK * (count + 1)]
        and len(one) >= BLOCK * (count + 1)
        and len(other) >= BLOCK * (count + 1)
    ):
        count += 1
    return count
