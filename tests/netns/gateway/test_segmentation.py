"""`split` against the kernel's own segmentation: byte for byte what comes out of a TUN."""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.dataplane.offload import clean_own, rebuild
from gateway.dataplane.split import split
from tests.netns.gateway.forwarding import with_forwarding
from tests.packets import TCP, UDP, virtio
from tests.superpackets import ACK, CWR, ECE, FIN, FRAME_HEADER, PSH, Superpacket, finished

if TYPE_CHECKING:
    from tests.netns.gateway.forwarding import Forwarding

pytestmark = pytest.mark.netns

PAYLOAD = random.Random(1).randbytes(62_000)
TIMESTAMPS = bytes.fromhex("0101 080a 01020304 05060708")
ALL_FLAGS = CWR | ECE | ACK | PSH | FIN

SUPERPACKETS = {
    "TCP over IPv4": Superpacket(4, TCP, PAYLOAD[:10_301], 1000),
    "TCP over IPv6": Superpacket(6, TCP, PAYLOAD[:10_301], 1000),
    "UDP over IPv4": Superpacket(4, UDP, PAYLOAD[:10_301], 1000),
    "UDP over IPv6": Superpacket(6, UDP, PAYLOAD[:10_301], 1000),
    "as long as they get, TCP": Superpacket(4, TCP, PAYLOAD, 1448, tcp_options=TIMESTAMPS),
    "as long as they get, UDP": Superpacket(6, UDP, PAYLOAD, 1432),
    "FIN, PSH and CWR over IPv4": Superpacket(4, TCP, PAYLOAD[:4001], 1000, flags=ALL_FLAGS),
    "FIN, PSH and CWR over IPv6": Superpacket(6, TCP, PAYLOAD[:4001], 1000, flags=ALL_FLAGS),
    "the last segment full": Superpacket(4, TCP, PAYLOAD[:4000], 1000, flags=ALL_FLAGS),
    "the last datagram full": Superpacket(4, UDP, PAYLOAD[:4000], 1000),
    "one byte in the last": Superpacket(6, TCP, PAYLOAD[:4001], 1000, tcp_options=TIMESTAMPS),
    "an odd segment size": Superpacket(4, UDP, PAYLOAD[:4001], 333),
    "numbers that start over": Superpacket(
        4, TCP, PAYLOAD[:9000], 1000, sequence=2**32 - 3000, identification=65534
    ),
    "without DF": Superpacket(4, TCP, PAYLOAD[:9000], 1000, fragmentable=True),
    "IPv4 options": Superpacket(4, TCP, PAYLOAD[:9000], 1000, options=b"\1\1\1\0"),
    "IPv6 extension headers, TCP": Superpacket(
        6, TCP, PAYLOAD[:9000], 1000, extensions=((0, 1), (60, 1))
    ),
    "IPv6 extension headers, UDP": Superpacket(
        6, UDP, PAYLOAD[:9000], 1000, extensions=((0, 1), (60, 1))
    ),
}


def cut(whole: Superpacket, segments: float) -> list[bytes]:
    """Split it into chunks of that many segments."""
    frame = whole.frame()
    most = FRAME_HEADER + whole.headers + int(segments * whole.segment)
    view = memoryview(bytearray(frame))
    return [bytes(view[start:][:length]) for start, length in split(view, 0, len(frame), most)]


def forwarded(*frames: bytes) -> list[bytes]:
    """Let a kernel forward these; the packets that came out."""
    found: list[bytes] = []

    def write(through: Forwarding) -> None:
        for frame in frames:
            header_and_packet = bytearray(frame[2:])
            assert rebuild(memoryview(header_and_packet))
            try:
                through.write(header_and_packet)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    pytest.skip("this kernel takes no such superpackets (UDP: before Linux 6.2)")
                raise
        found.extend(through.packets())

    with_forwarding(write)
    return found


def at_the_far_end(whole: Superpacket) -> Superpacket:
    """Return what the kernel forwards: its TTL is one less."""
    return replace(whole, ttl=whole.ttl - 1)


@pytest.mark.parametrize("what", SUPERPACKETS)
def test_split_cuts_as_the_kernel_does(what: str) -> None:
    whole = SUPERPACKETS[what]
    packets = forwarded(whole.frame())
    assert len(packets) == -(-len(whole.payload) // whole.segment) > 1
    assert packets == [finished(chunk) for chunk in cut(at_the_far_end(whole), 1)]


@pytest.mark.parametrize("what", SUPERPACKETS)
def test_the_kernel_cuts_chunks_on_as_it_cuts_the_whole(what: str) -> None:
    whole = SUPERPACKETS[what]
    chunks = cut(whole, 3)
    packets = forwarded(*chunks)
    assert 1 < len(chunks) < len(packets)
    assert packets == forwarded(whole.frame())


@pytest.mark.parametrize(
    "what", [what for what, whole in SUPERPACKETS.items() if whole.protocol == TCP]
)
def test_the_kernel_finishes_segments_cut_anew(what: str) -> None:
    whole = SUPERPACKETS[what]
    packets = forwarded(*cut(whole, 0.7))
    assert len(packets) > len(whole.payload) / whole.segment
    assert packets == [finished(chunk) for chunk in cut(at_the_far_end(whole), 0.7)]


def test_an_inner_checksum_is_finished_as_the_kernel_does_it() -> None:
    """The kernel of the sending gateway would have done it, were its TUN without offloads."""
    outer = Superpacket(4, UDP, SUPERPACKETS["TCP over IPv6"].packet(0, 901, 7), 10_000)
    outer = at_the_far_end(outer)
    packet = outer.packet(0, len(outer.payload), 7)
    frame = bytearray(virtio(1, start=28 + 40, offset=16) + packet)
    clean_own(memoryview(frame))
    found: list[bytes] = []

    def act(through: Forwarding) -> None:
        one_hop_before = replace(outer, ttl=64).packet(0, len(outer.payload), 7)
        through.write(virtio(1, start=28 + 40, offset=16) + one_hop_before)
        found.extend(through.packets())

    with_forwarding(act)
    assert found == [frame[10:]]


def test_a_wrong_sum_would_have_been_seen() -> None:
    """Positive control: the kernel trusts the open checksum, and so does this comparison."""
    whole = SUPERPACKETS["TCP over IPv4"]
    frame = bytearray(whole.frame())
    frame[48] ^= 1  # the sum of the pseudo-header
    assert forwarded(bytes(frame)) != forwarded(whole.frame())
