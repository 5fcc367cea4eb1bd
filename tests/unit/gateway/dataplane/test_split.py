"""Superpackets are cut where the kernel would cut them, in their own buffer."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from gateway.dataplane.split import split
from tests.packets import ICMP, NO_OFFLOAD, TCP, UDP, ipv4, udp, virtio
from tests.superpackets import ACK, CWR, ECE, FIN, FRAME_HEADER, PSH, Superpacket, framed

BEFORE = 100  # bytes in the buffer before the frame, and after it
NAMES = {CWR: "CWR", ECE: "ECE", ACK: "ACK", PSH: "PSH", FIN: "FIN"}


def payload(length: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(length))


def cut(frame: bytes, most: int) -> list[bytes]:
    """Split a frame in the middle of a buffer, of which nothing else may change."""
    buffer = bytearray(b"\xaa" * BEFORE + frame + b"\xaa" * BEFORE)
    view = memoryview(buffer)
    frames = [
        bytes(view[start : start + length])
        for start, length in split(view, BEFORE, len(frame), most)
    ]
    assert buffer[:BEFORE] == buffer[-BEFORE:] == b"\xaa" * BEFORE
    return frames


def told(frame: bytes) -> str:
    """Tell a frame: its numbers and flags, and the payloads of its segments."""
    packet = frame[FRAME_HEADER:]
    segment, transport = struct.unpack("<HH", frame[6:10])
    words = []
    if packet[0] >> 4 == 4:
        words.append(f"id {int.from_bytes(packet[4:6])}")
    size = 8
    if packet[9 if packet[0] >> 4 == 4 else 6] == TCP:
        size = packet[transport + 12] // 4
        words.append(f"seq {int.from_bytes(packet[transport + 4 : transport + 8])}")
        words += [name for bit, name in NAMES.items() if packet[transport + 13] & bit]
    left = len(packet) - transport - size
    ends = [*range(segment or left, left, segment or left), left]
    parts = [str(end - begin) for begin, end in zip([0, *ends], ends, strict=False)]
    return " ".join(words) + ": " + " ".join(parts)


STREAM = Superpacket(4, TCP, payload(3500), 1000)
DATAGRAMS = Superpacket(4, UDP, payload(3500), 1000)


def test_a_chunk_has_as_many_whole_segments_as_fit() -> None:
    assert [told(one) for one in cut(STREAM.frame(), most=2060)] == [
        "id 7 seq 1000 ACK: 1000 1000",
        "id 9 seq 3000 ACK: 1000 500",
    ]
    assert [told(one) for one in cut(STREAM.frame(), most=3060)] == [
        "id 7 seq 1000 ACK: 1000 1000 1000",
        "id 10 seq 4000 ACK: 500",
    ]


def test_segments_one_by_one() -> None:
    assert [told(one) for one in cut(STREAM.frame(), most=1060)] == [
        "id 7 seq 1000 ACK: 1000",
        "id 8 seq 2000 ACK: 1000",
        "id 9 seq 3000 ACK: 1000",
        "id 10 seq 4000 ACK: 500",
    ]


def test_a_tcp_segment_that_does_not_fit_is_cut_shorter() -> None:
    assert [told(one) for one in cut(STREAM.frame(), most=FRAME_HEADER + 40 + 900)] == [
        "id 7 seq 1000 ACK: 900",
        "id 8 seq 1900 ACK: 900",
        "id 9 seq 2800 ACK: 900",
        "id 10 seq 3700 ACK: 800",
    ]


@pytest.mark.parametrize("version", [4, 6])
def test_a_lone_segment_that_does_not_fit_is_cut_like_a_superpacket(version: int) -> None:
    """A retransmission, say: in two fragments the path would lose it twice as often."""
    stream = replace(STREAM, version=version)
    lone = framed(stream.packet(0, 3500, 7), stream.virtio())
    whole = replace(stream, segment=3500).frame()
    most = FRAME_HEADER + stream.headers + 2000
    for one in (lone, whole):
        assert cut(one, most) == cut(replace(stream, segment=2000).frame(), most)


def test_a_datagram_that_does_not_fit_stays_one() -> None:
    for most in (1000, 60, 0):
        assert [told(one) for one in cut(DATAGRAMS.frame(), most)] == [
            "id 7: 1000",
            "id 8: 1000",
            "id 9: 1000",
            "id 10: 500",
        ]


def test_the_last_segment_has_fin_and_psh_and_the_first_has_cwr() -> None:
    stream = replace(STREAM, flags=CWR | ECE | ACK | PSH | FIN)
    assert [told(one) for one in cut(stream.frame(), most=1060)] == [
        "id 7 seq 1000 CWR ECE ACK: 1000",
        "id 8 seq 2000 ECE ACK: 1000",
        "id 9 seq 3000 ECE ACK: 1000",
        "id 10 seq 4000 ECE ACK PSH FIN: 500",
    ]
    assert [told(one) for one in cut(stream.frame(), most=2060)] == [
        "id 7 seq 1000 CWR ECE ACK: 1000 1000",
        "id 9 seq 3000 ECE ACK PSH FIN: 1000 500",
    ]


def test_a_last_segment_may_be_full() -> None:
    stream = replace(STREAM, flags=ACK | FIN, payload=payload(2000))
    assert [told(one) for one in cut(stream.frame(), most=1060)] == [
        "id 7 seq 1000 ACK: 1000",
        "id 8 seq 2000 ACK FIN: 1000",
    ]


def test_numbers_start_over_after_their_last() -> None:
    stream = replace(STREAM, sequence=2**32 - 1500, identification=65534)
    assert [told(one) for one in cut(stream.frame(), most=1060)] == [
        f"id 65534 seq {2**32 - 1500} ACK: 1000",
        f"id 65535 seq {2**32 - 500} ACK: 1000",
        "id 0 seq 500 ACK: 1000",
        "id 1 seq 1500 ACK: 500",
    ]


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("segments", [1, 2])
def test_a_chunk_is_what_one_would_build_for_it(version: int, protocol: int, segments: int) -> None:
    """Every byte: lengths, checksums, the virtio-net header."""
    whole = Superpacket(version, protocol, payload(4200), 1000)
    most = FRAME_HEADER + whole.headers + segments * 1000
    assert cut(whole.frame(), most) == list(whole.chunks(segments * 1000))


def test_no_datagram_says_that_it_has_no_checksum() -> None:
    """A sum of 0 is written as all ones: 0 would keep NAT from mending it."""
    frame = bytearray(DATAGRAMS.frame())
    frame[38:40] = (3508 - 1008).to_bytes(2)  # so that the rest of the pseudo-header sums to 0
    assert cut(bytes(frame), most=1060)[0][38:40] == b"\xff\xff"


def test_ipv6_extension_headers_are_in_every_chunk() -> None:
    whole = Superpacket(6, TCP, payload(2500), 1000, extensions=((0, 1), (60, 3)))
    first, second, third = cut(whole.frame(), most=1200)
    assert first[52:84] == second[52:84] == third[52:84] != payload(32)
    assert [first, second, third] == list(whole.chunks(1000))


def test_the_payload_stays_where_it_is() -> None:
    frame = STREAM.frame()
    view = memoryview(bytearray(frame))
    for number, (start, length) in enumerate(split(view, 0, len(frame), 1060)):
        assert start == number * 1000
        assert view[start + 52 : start + length] == payload(3500)[start : start + 1000]
        assert view[start + length :] == frame[start + length :]  # what is to come is untouched


SYN, RESET, URGENT = (replace(STREAM, flags=ACK | flag) for flag in (0x02, 0x04, 0x20))
NONSENSE = {
    "a single packet": framed(STREAM.packet(0, 3500, 7), NO_OFFLOAD),
    "a single datagram": framed(DATAGRAMS.packet(0, 3500, 7), DATAGRAMS.virtio()),
    "one datagram": replace(DATAGRAMS, segment=3500).frame(),
    "a SYN with data": framed(SYN.packet(0, 3500, 7), SYN.virtio()),
    "urgent data": framed(URGENT.packet(0, 3500, 7), URGENT.virtio()),
    "a reset with a reason": framed(RESET.packet(0, 3500, 7), RESET.virtio()),
    "a superpacket with the ECN bit": framed(
        STREAM.packet(0, 3500, 7), virtio(1, 0x81, size=1000, start=20, offset=16)
    ),
    "a superpacket without an open checksum": framed(
        STREAM.packet(0, 3500, 7), virtio(0, 1, size=1000, start=20, offset=16)
    ),
    "UFO": framed(DATAGRAMS.packet(0, 3500, 7), virtio(1, 3, size=1000, start=20, offset=6)),
    "no transport": framed(
        ipv4("10.0.0.1", "10.0.0.2", bytes(3000), ICMP),
        virtio(1, 1, size=1000, start=20, offset=16),
    ),
    "a fragment": framed(
        ipv4("10.0.0.1", "10.0.0.2", udp(bytes(3000)), fragment=0x2000),
        virtio(1, 5, size=1000, start=20, offset=6),
    ),
    "a packet longer than it says": STREAM.frame() + b"more",
    "a packet shorter than it says": STREAM.frame()[:-1],
    "segments of nothing": framed(STREAM.packet(0, 3500, 7), virtio(1, 1, start=20, offset=16)),
    "IPv6 that is said to be IPv4": framed(
        replace(STREAM, version=6).packet(0, 3500, 7), virtio(1, 1, size=1000, start=40, offset=16)
    ),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_what_is_no_superpacket_of_ours_stays(what: str) -> None:
    (same,) = cut(NONSENSE[what], most=1060)
    assert same[FRAME_HEADER:] == NONSENSE[what][FRAME_HEADER:]
    if what != "one datagram":
        assert same == NONSENSE[what]


def test_what_fits_stays() -> None:
    frame = STREAM.frame()
    assert cut(frame, most=len(frame)) == [frame]


@pytest.mark.parametrize("most", [0, 11, 12, FRAME_HEADER + 40])
def test_where_only_headers_would_fit_nothing_is_cut(most: int) -> None:
    (same,) = cut(STREAM.frame(), most)
    assert same[FRAME_HEADER:] == STREAM.frame()[FRAME_HEADER:]


def test_one_byte_more_than_headers_is_enough() -> None:
    assert len(cut(STREAM.frame(), most=FRAME_HEADER + 41)) == 3500
