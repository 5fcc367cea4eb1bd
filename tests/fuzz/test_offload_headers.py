"""Virtio-net headers that a hostile peer might send, on packets bent to suit them.

First what `rebuild` lets through, 100,000 of them; then what a real kernel does with that: it may
cut and sum, and nothing else.
"""

from __future__ import annotations

import errno
import random
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from gateway.dataplane.offload import rebuild
from gateway.dataplane.split import split
from tests.netns.gateway.forwarding import Forwarding, with_forwarding
from tests.packets import NO_OFFLOAD, TCP, UDP, virtio
from tests.superpackets import FRAME_HEADER, TSO4, TSO6, USO, Superpacket, finished, mend_ipv4

TOTAL: Final = 100_000
FOR_THE_KERNEL: Final = 5_000
VNET: Final = 10
UDP_MAX_SEGMENTS: Final = 128
STEPPED_OVER: Final = {0, 43, 60}  # hop-by-hop, routing, destination options

Bend = Callable[[random.Random, bytearray, Superpacket], object]


def put(packet: bytearray, at: int, number: int, size: int = 1) -> None:
    """Write where there is something to write over."""
    if at + size <= len(packet):
        packet[at : at + size] = (number % 256**size).to_bytes(size)


def any_byte(draw: random.Random, packet: bytearray, whole: Superpacket) -> None:
    put(packet, draw.randrange(whole.headers), draw.getrandbits(8))


def wrong_length(draw: random.Random, packet: bytearray, whole: Superpacket) -> None:
    at = 2 if whole.version == 4 else 4
    put(packet, at, draw.choice((0, 20, len(packet) - 1, len(packet) + 1, 65535)), 2)


def cut_off(draw: random.Random, packet: bytearray, whole: Superpacket) -> None:
    """End in the middle of some header, with a length that agrees."""
    del packet[draw.randrange(20, whole.headers + 1) :]
    put(packet, *((2, len(packet)) if whole.version == 4 else (4, len(packet) - 40)), 2)


def fragment(draw: random.Random, packet: bytearray, whole: Superpacket) -> None:
    if whole.version == 4:
        put(packet, 6, draw.choice((0x2000, 1, 0x1FFF, 0x8000, 0x4001)), 2)
    else:
        other_header(draw, packet, whole, 44)


def other_header(
    draw: random.Random, packet: bytearray, whole: Superpacket, kind: int | None = None
) -> None:
    """Say that something else follows: any header of IPv6, a tunnel, the other transport."""
    kinds = (0, 4, 6, 17, 41, 43, 44, 47, 50, 51, 59, 60, 132, 135, 136, 255)
    places = [9] if whole.version == 4 else [6, 40, 48, whole.transport - 8]
    put(packet, draw.choice(places), draw.choice(kinds) if kind is None else kind)


def header_size(draw: random.Random, packet: bytearray, whole: Superpacket) -> None:
    """Say another size of the IPv4 header, of an extension header or of the TCP header."""
    if whole.protocol == TCP and draw.random() < 0.5:
        put(packet, whole.transport + 12, draw.getrandbits(8))
    elif whole.version == 4:
        put(packet, 0, 0x40 + draw.randrange(16))
    else:
        put(packet, draw.choice((41, 49)), draw.choice((0, 1, 2, 255)))


def udp_length(draw: random.Random, packet: bytearray, whole: Superpacket) -> None:
    if whole.protocol == UDP:
        put(packet, whole.transport + 4, draw.choice((0, 7, 8, 1008, draw.getrandbits(16))), 2)


def inner_packet(_: random.Random, packet: bytearray, whole: Superpacket) -> None:
    """Put a whole TCP packet where the payload is."""
    inner = Superpacket(4, TCP, bytes(60), 1000).packet(0, 60, 1)
    packet[whole.headers : whole.headers + len(inner)] = inner


BENDS: Final[tuple[Bend, ...]] = (
    any_byte, wrong_length, cut_off, fragment, other_header, header_size, udp_length, inner_packet,
)  # fmt: skip


def superpacket(draw: random.Random) -> Superpacket:
    """Draw something that a gateway might well send."""
    version, protocol = draw.choice((4, 6)), draw.choice((TCP, UDP))
    kinds = [(kind, draw.choice((1, 1, 2))) for kind in draw.sample((0, 60, 43), draw.randrange(3))]
    return Superpacket(
        version,
        protocol,
        draw.randbytes(draw.choice((0, 1, 100, 1400, 2000, 2500))),
        draw.choice((8, 100, 999, 1000, 1400)),
        options=draw.choice((b"", b"\1\1\1\0", b"\1" * 40)) if version == 4 else b"",
        extensions=tuple(kinds) if version == 6 else (),
        tcp_options=draw.choice((b"", b"\1" * 12, b"\1" * 40)) if protocol == TCP else b"",
        flags=draw.getrandbits(8),
    )


def wish(draw: random.Random, whole: Superpacket) -> bytes:
    """Draw a header: the right one, with a lie here and there."""
    start = whole.transport
    if draw.random() < 0.1:
        return NO_OFFLOAD
    lies = (
        (0, 2, 3, 4, 255),
        (0, 1, 3, 4, 5, 6, 0x10, 0x11, 0x81, 0x85, 255),
        (0, 1, whole.headers, 65535),
        (0, 1, 7, 8, 19, len(whole.payload), 65535),
        (0, 12, 20, 40, 48, start - 1, start + 2, whole.headers, whole.headers + 20, 65535),
        (0, 2, 4, 6, 10, 16, 17, 18, 65535),
    )
    truth = struct.unpack("<BBHHHH", whole.virtio(whole.headers, whole.segment))
    said = (
        draw.choice((*lie, draw.getrandbits(16))) if draw.random() < 0.12 else true
        for lie, true in zip(lies, truth, strict=True)
    )
    return struct.pack("<BBHHHH", *(n % 256 if i < 2 else n for i, n in enumerate(said)))


def hostile(draw: random.Random, bends: tuple[Bend, ...]) -> bytearray:
    """Draw a header and a packet, as they come out of a record."""
    whole = superpacket(draw)
    packet = bytearray(whole.packet(0, len(whole.payload), whole.identification))
    if draw.random() < 0.5:
        draw.choice(bends)(draw, packet, whole)
    return bytearray(wish(draw, whole) + packet)


def assert_consistent(frame: bytes) -> str:
    """Check that what passed is what the packet itself says; tell what it was."""
    flags, gso_type, hdr_len, segment, start, offset = struct.unpack("<BBHHHH", frame[:VNET])
    packet = frame[VNET:]
    if not flags:
        assert frame[:VNET] == bytes(VNET)
        return "nothing to do"
    assert flags == 1
    protocol = {16: TCP, 6: UDP}[offset]
    version = packet[0] >> 4
    if version == 4:
        assert start == (packet[0] & 15) * 4 >= 20
        assert packet[9] == protocol
        assert int.from_bytes(packet[2:4]) == len(packet)
        assert int.from_bytes(packet[6:8]) & 0x3FFF == 0
    else:
        assert version == 6
        assert int.from_bytes(packet[4:6]) == len(packet) - 40
        kind, at = packet[6], 40
        while at < start:
            assert kind in STEPPED_OVER
            kind, at = packet[at], at + 8 + 8 * packet[at + 1]
        assert (kind, at) == (protocol, start)
    end = start + (packet[start + 12] // 16 * 4 if protocol == TCP else 8)
    assert start + offset + 2 <= end <= len(packet)
    if protocol == UDP:
        assert int.from_bytes(packet[start + 4 : start + 6]) == len(packet) - start
    if not gso_type:
        assert hdr_len == segment == 0
        return "a checksum to finish"
    assert gso_type == (USO if protocol == UDP else TSO4 if version == 4 else TSO6)
    assert hdr_len == end
    assert (1 if protocol == UDP else 8) <= segment < len(packet) - end
    if protocol == UDP:
        assert len(packet) - end <= segment * UDP_MAX_SEGMENTS
    return {TSO4: "TSO4", TSO6: "TSO6", USO: "USO"}[gso_type]


def test_what_passes_is_what_the_packet_says() -> None:
    draw = random.Random(20261122)
    seen: Counter[str] = Counter()
    for _ in range(TOTAL):
        frame = hostile(draw, BENDS)
        packet = frame[VNET:]
        if rebuild(memoryview(frame)):
            seen[assert_consistent(bytes(frame))] += 1
        else:
            seen["dropped"] += 1
        assert frame[VNET:] == packet
    assert min(seen.values()) > TOTAL // 100, seen
    assert len(seen) == 6, seen


def test_any_bytes_at_all() -> None:
    """Shorter than any header as well: 20 bytes of packet are what `parse_frames` sees to."""
    draw = random.Random(7)
    for _ in range(TOTAL // 4):
        frame = bytearray(draw.randbytes(VNET + draw.choice((20, 21, 39, 40, 41, 60, 100))))
        frame[0] &= draw.choice((1, 1, 255))
        frame[VNET] = draw.choice((0x45, 0x46, 0x60, 0x40, frame[VNET]))
        if rebuild(memoryview(frame)):
            assert_consistent(bytes(frame))


def forwards(frame: bytes) -> list[bytes]:
    """Return what a kernel that forwards must make of it: a TTL less, cut, and summed."""
    header, packet = frame[:VNET], bytearray(frame[VNET:])
    packet[8 if packet[0] >> 4 == 4 else 7] -= 1
    mend_ipv4(packet)
    whole = len(packet).to_bytes(2) + header + packet
    header_end, segment = struct.unpack("<HH", header[2:6])
    most = FRAME_HEADER + header_end + segment if header[1] else len(whole)
    view = memoryview(bytearray(whole))
    return [
        finished(bytes(view[start:][:length])) for start, length in split(view, 0, len(whole), most)
    ]


def without_options(packet: bytes) -> bytes:
    """Blank what the kernel may write into any IPv4 packet that it forwards."""
    if packet[0] >> 4 == 6:
        return packet
    transport = (packet[0] & 15) * 4
    return packet[:10] + packet[12:20] + packet[transport:]


@pytest.mark.netns
def test_the_kernel_cuts_and_sums_what_passes_and_changes_nothing_else() -> None:
    draw = random.Random(20261122)
    seen: Counter[str] = Counter()

    def act(through: Forwarding) -> None:
        for _ in range(FOR_THE_KERNEL):
            frame = hostile(draw, BENDS[1:])  # any byte: as well an address, so another way
            packet = frame[VNET:]
            mend_ipv4(packet)
            frame[VNET:] = packet
            if not rebuild(memoryview(frame)) or not frame[0]:
                continue
            what = assert_consistent(bytes(frame))
            try:
                through.write(frame)
            except OSError as error:
                assert error.errno == errno.EINVAL  # USO before Linux 6.2
                seen["refused"] += 1
                continue
            packets = through.packets()
            if packets:
                assert [*map(without_options, packets)] == [
                    *map(without_options, forwards(bytes(frame)))
                ], frame[:100].hex()
                seen[what] += 1
            else:
                seen["not forwarded"] += 1

    with_forwarding(act)
    assert set(seen) <= {"a checksum to finish", "TSO4", "TSO6", "USO", "refused", "not forwarded"}
    for kinds in (["a checksum to finish"], ["TSO4"], ["TSO6"], ["USO", "refused"]):
        assert sum(seen[kind] for kind in kinds) > FOR_THE_KERNEL // 50, seen


HOSTILE: Final = {
    "the destination port": (virtio(1, start=20, offset=2), slice(22, 24)),
    "the sequence number": (virtio(1, start=20, offset=6), slice(26, 28)),
    "an inner packet": (virtio(1, start=60, offset=16), slice(76, 78)),
}


@pytest.mark.netns
@pytest.mark.parametrize("what", HOSTILE)
def test_the_kernel_believes_what_rebuild_refuses(what: str) -> None:
    """Positive control: these bytes do change behind the firewall, if the header is passed on."""
    header, there = HOSTILE[what]
    frame = bytearray(header + Superpacket(4, TCP, bytes(range(200)), 1000).packet(0, 200, 7))

    def act(through: Forwarding) -> None:
        through.write(frame)
        (changed,) = through.packets()
        before = frame[VNET:]
        assert changed[there] != before[there]
        differ = {at for at, byte in enumerate(before) if byte != changed[at]}
        assert differ <= {8, 10, 11, *range(there.start, there.stop)}

    with_forwarding(act)
    assert not rebuild(memoryview(frame))
