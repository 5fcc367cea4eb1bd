"""A peer's virtio-net header is a wish at most: rebuilt, or the frame is dropped."""

from __future__ import annotations

import pytest

from gateway.dataplane.offload import clean_own, find_transport, rebuild
from tests.packets import ICMP, TCP, UDP, frame, ipv4, ipv6, tcp, udp, virtio
from tests.superpackets import Superpacket, finished, framed

CSUM, TSO4, UFO, TSO6, USO, ECN = 1, 1, 3, 4, 5, 0x80
A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"

TCP4 = ipv4(A4, B4, tcp(bytes(3000)), TCP)
UDP4 = ipv4(A4, B4, udp(bytes(3000)))
TCP6 = ipv6(A6, B6, tcp(bytes(3000), 32), TCP)
UDP6 = ipv6(A6, B6, udp(bytes(3000)))


def rebuilt(packet: bytes, header: bytes) -> bytes | None:
    """Return the header that goes to the TUN, or None for a drop. The packet stays as it is."""
    one = bytearray(frame(packet, header))
    passed = rebuild(memoryview(one))
    assert one[10:] == packet
    return bytes(one[:10]) if passed else None


@pytest.mark.parametrize(
    "header",
    [
        virtio(),
        virtio(length=9, size=9, start=9, offset=9),  # means nothing without flags and type
    ],
)
def test_no_offload_is_all_zero(header: bytes) -> None:
    assert rebuilt(TCP4, header) == bytes(10)
    assert rebuilt(b"no packet at all", header) == bytes(10)


@pytest.mark.parametrize(
    ("packet", "start", "offset"), [(TCP4, 20, 16), (UDP4, 20, 6), (TCP6, 40, 16), (UDP6, 40, 6)]
)
def test_a_checksum_to_finish_is_the_transports(packet: bytes, start: int, offset: int) -> None:
    header = virtio(CSUM, length=999, size=7, start=start, offset=offset)
    assert rebuilt(packet, header) == virtio(CSUM, start=start, offset=offset)


@pytest.mark.parametrize(
    ("packet", "gso", "headers", "start", "offset"),
    [
        (TCP4, TSO4, 40, 20, 16),
        (TCP6, TSO6, 72, 40, 16),
        (UDP4, USO, 28, 20, 6),
        (UDP6, USO, 48, 40, 6),
    ],
)
def test_a_superpacket_passes_with_lengths_of_our_own(
    packet: bytes, gso: int, headers: int, start: int, offset: int
) -> None:
    header = virtio(CSUM, gso, length=0xFFFF, size=1000, start=start, offset=offset)
    assert rebuilt(packet, header) == virtio(
        CSUM, gso, length=headers, size=1000, start=start, offset=offset
    )


def test_one_segment_is_no_superpacket() -> None:
    header = virtio(CSUM, TSO4, size=3000, start=20, offset=16)
    assert rebuilt(TCP4, header) == virtio(CSUM, start=20, offset=16)


OPTIONS = bytes([0x46]) + TCP4[1:2] + (3044).to_bytes(2) + TCP4[4:20] + bytes(4) + TCP4[20:]


def test_ipv4_options_are_stepped_over() -> None:
    assert rebuilt(OPTIONS, virtio(CSUM, start=24, offset=16)) == virtio(CSUM, start=24, offset=16)
    assert rebuilt(OPTIONS, virtio(CSUM, start=20, offset=16)) is None


def with_extensions(*kinds: int, last: int = TCP) -> bytes:
    """Build an IPv6 packet with these extension headers of 8 bytes."""
    chain = [*kinds, last]
    extensions = b"".join(bytes([after]) + bytes(7) for after in chain[1:])
    return ipv6(A6, B6, extensions + tcp(bytes(100)), chain[0])


def test_ipv6_extension_headers_are_stepped_over() -> None:
    packet = with_extensions(0, 60, 43)
    assert rebuilt(packet, virtio(CSUM, start=64, offset=16)) == virtio(CSUM, start=64, offset=16)
    assert rebuilt(packet, virtio(CSUM, start=40, offset=16)) is None


BAD = {
    "other flags": (TCP4, virtio(CSUM | 2, start=20, offset=16)),
    "RSC info": (TCP4, virtio(4)),
    "DATA_VALID": (TCP4, virtio(2)),
    "a superpacket without a checksum to finish": (TCP4, virtio(0, TSO4, size=1000)),
    "a checksum in the IP header": (TCP4, virtio(CSUM, start=0, offset=12)),
    "a checksum over the ports": (TCP4, virtio(CSUM, start=20, offset=0)),
    "UDP's place in TCP": (TCP4, virtio(CSUM, start=20, offset=6)),
    "TCP's place in UDP": (UDP4, virtio(CSUM, start=20, offset=16)),
    "an inner packet's checksum": (UDP4, virtio(CSUM, start=36, offset=6)),
    "a place behind the end": (TCP4, virtio(CSUM, start=65535, offset=65535)),
    "ICMP": (ipv4(A4, B4, bytes(60), ICMP), virtio(CSUM, start=20, offset=16)),
    "a fragment": (ipv4(A4, B4, udp(bytes(60)), fragment=0x2000), virtio(CSUM, start=20, offset=6)),
    "a later fragment": (
        ipv4(A4, B4, udp(bytes(60)), fragment=5),
        virtio(CSUM, start=20, offset=6),
    ),
    "an IPv6 fragment": (with_extensions(44), virtio(CSUM, start=48, offset=16)),
    "endless extension headers": (with_extensions(*[60] * 9), virtio(CSUM, start=112, offset=16)),
    "extension headers past the end": (
        ipv6(A6, B6, bytes([TCP, 200]) + bytes(38), 60),
        virtio(CSUM, start=1648, offset=16),
    ),
    "a wrong IPv4 length": (TCP4 + b"x", virtio(CSUM, start=20, offset=16)),
    "a wrong IPv6 length": (TCP6 + b"x", virtio(CSUM, start=40, offset=16)),
    "an IPv4 header too short": (bytes([0x44]) + TCP4[1:], virtio(CSUM, start=16, offset=16)),
    "half a TCP header": (ipv4(A4, B4, tcp()[:18], TCP), virtio(CSUM, start=20, offset=16)),
    "a TCP header of 16 bytes": (
        ipv4(A4, B4, tcp(b"", 16), TCP),
        virtio(CSUM, start=20, offset=16),
    ),
    "TCP options past the end": (
        ipv4(A4, B4, tcp(b"", 60)[:40], TCP),
        virtio(CSUM, start=20, offset=16),
    ),
    "half a UDP header": (ipv4(A4, B4, udp()[:7]), virtio(CSUM, start=20, offset=6)),
    "a UDP length of its own": (
        UDP4[:24] + (1008).to_bytes(2) + UDP4[26:],
        virtio(CSUM, USO, size=1000, start=20, offset=6),
    ),
    "100 MB, once cut": (
        ipv6(
            A6,
            B6,
            (bytes([60, 255]) + bytes(2046)) * 7
            + bytes([TCP, 255])
            + bytes(2046)
            + tcp(bytes(48_000)),
            60,
        ),
        virtio(CSUM, TSO6, size=8, start=40 + 8 * 2048, offset=16),
    ),
    "neither IPv4 nor IPv6": (bytes(40), virtio(CSUM, start=20, offset=6)),
    "an empty IPv6 packet": (bytes([0x60]) + bytes(19), virtio(CSUM, start=40, offset=6)),
    "TSO6 on IPv4": (TCP4, virtio(CSUM, TSO6, size=1000, start=20, offset=16)),
    "TSO4 on IPv6": (TCP6, virtio(CSUM, TSO4, size=1000, start=40, offset=16)),
    "TSO on UDP": (UDP4, virtio(CSUM, TSO4, size=1000, start=20, offset=6)),
    "USO on TCP": (TCP4, virtio(CSUM, USO, size=1000, start=20, offset=16)),
    "UFO": (UDP4, virtio(CSUM, UFO, size=1000, start=20, offset=6)),
    "ECN": (TCP4, virtio(CSUM, TSO4 | ECN, size=1000, start=20, offset=16)),
    "segments of nothing": (TCP4, virtio(CSUM, TSO4, size=0, start=20, offset=16)),
    "thousands of segments": (TCP4, virtio(CSUM, TSO4, size=1, start=20, offset=16)),
    "UDP segments of nothing": (UDP4, virtio(CSUM, USO, size=0, start=20, offset=6)),
    "more UDP segments than the kernel takes": (
        UDP4,
        virtio(CSUM, USO, size=23, start=20, offset=6),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_packet_cannot_need_is_a_drop(case: str) -> None:
    packet, header = BAD[case]
    assert rebuilt(packet, header) is None


def test_the_transport_is_found() -> None:
    assert find_transport(memoryview(TCP4)) == (TCP, 20)
    assert find_transport(memoryview(UDP6)) == (UDP, 40)


def test_of_our_kernels_words_only_the_open_checksum_goes_out() -> None:
    one = bytearray(virtio(3, start=20, offset=16) + TCP4)
    clean_own(memoryview(one))
    assert one == virtio(CSUM, start=20, offset=16) + TCP4


@pytest.mark.parametrize("size", [60, 61])
@pytest.mark.parametrize("of", ["VXLAN", "IP in IP", "IPv6 in IPv6"])
def test_an_inner_packets_open_checksum_is_finished(of: str, size: int) -> None:
    """A peer refuses to: it would not know what else that changes."""
    inner = Superpacket(6 if "v6" in of else 4, TCP, bytes(range(size)), 1000)
    packet = inner.packet(0, size, 7)
    outer = {
        "VXLAN": ipv4(A4, B4, udp(bytes(8 + 14) + packet)),
        "IP in IP": ipv4(A4, B4, packet, 4),
        "IPv6 in IPv6": ipv6(A6, B6, packet, 41),
    }[of]
    start = len(outer) - len(packet) + inner.transport
    one = bytearray(virtio(CSUM, start=start, offset=16) + outer)
    assert not rebuild(memoryview(bytearray(one)))
    clean_own(memoryview(one))
    assert one[:10] == bytes(10)
    assert one[-len(packet) :] == finished(framed(packet, inner.virtio()))
    assert one[10 : -len(packet)] == outer[: -len(packet)]
    assert rebuild(memoryview(one))


@pytest.mark.parametrize("packet", [OPTIONS, with_extensions(0, 60)])
def test_a_checksum_behind_options_or_extension_headers_stays_open(packet: bytes) -> None:
    transport = find_transport(memoryview(packet))
    assert transport is not None
    one = virtio(CSUM, start=transport[1], offset=16) + packet
    changed = bytearray(one)
    clean_own(memoryview(changed))
    assert changed == one
