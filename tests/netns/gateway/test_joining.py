"""What `join` makes, through a kernel: the packets that come out are those that were joined."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.dataplane.offload import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4
from gateway.dataplane.tun import TunDevice
from tests.joining import Receiver, unnumbered
from tests.netns.gateway.forwarding import with_forwarding
from tests.packets import TCP, UDP
from tests.superpackets import ACK, FRAME_HEADER, PSH, Superpacket, finished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.protocol.wire import Buffer
    from tests.netns.gateway.forwarding import Forwarding

pytestmark = pytest.mark.netns

PAYLOAD = random.Random(1).randbytes(62_000)
TIMESTAMPS = bytes.fromhex("0101 080a 01020304 05060708")
KINDS = {GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4}

FLOWS = {
    "TCP over IPv4": Superpacket(4, TCP, PAYLOAD[:10_301], 1000),
    "TCP over IPv6": Superpacket(6, TCP, PAYLOAD[:10_301], 1000),
    "UDP over IPv4": Superpacket(4, UDP, PAYLOAD[:10_301], 1000),
    "UDP over IPv6": Superpacket(6, UDP, PAYLOAD[:10_301], 1000),
    "the last one full, TCP": Superpacket(6, TCP, PAYLOAD[:4000], 1000),
    "the last one full, UDP": Superpacket(4, UDP, PAYLOAD[:4000], 1000),
    "one byte in the last, TCP": Superpacket(4, TCP, PAYLOAD[:4001], 1000),
    "one byte in the last, UDP": Superpacket(6, UDP, PAYLOAD[:4001], 1000),
    "an odd size": Superpacket(4, UDP, PAYLOAD[:4001], 333),
    "timestamps": Superpacket(4, TCP, PAYLOAD[:9001], 1448, tcp_options=TIMESTAMPS),
    "all the options there can be": Superpacket(
        6, TCP, PAYLOAD[:9001], 1400, tcp_options=bytes(40)
    ),
    "a push at the end": Superpacket(4, TCP, PAYLOAD[:9001], 1448, flags=ACK | PSH),
    "a push at the end over IPv6": Superpacket(6, TCP, PAYLOAD[:9001], 1448, flags=ACK | PSH),
    "numbers that start over": Superpacket(
        4, TCP, PAYLOAD[:9000], 1000, sequence=2**32 - 3000, identification=65534
    ),
    "as long as they get, TCP": Superpacket(4, TCP, PAYLOAD, 1448),
    "as long as they get, UDP": Superpacket(6, UDP, PAYLOAD, 1432),
    "64 datagrams": Superpacket(4, UDP, PAYLOAD[:6400], 100),
    "the shortest segments": Superpacket(6, TCP, PAYLOAD[:4000], 8),
    "the shortest datagrams": Superpacket(6, UDP, PAYLOAD[:64], 1),
}


class Device(TunDevice):
    """A TUN that tells how often it was written to."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.writes = 0

    def write(self, frame: Buffer) -> int:
        """Write one frame."""
        self.writes += 1
        return super().write(frame)

    def write_parts(self, parts: Sequence[Buffer]) -> int:
        """Write one frame that is not in one piece."""
        self.writes += 1
        return super().write_parts(parts)


def segments(one: Superpacket) -> list[bytes]:
    return [*one.chunks(one.segment)]


def delivered(frames: list[bytes], *, join: bool = True) -> tuple[list[bytes], int]:
    """Deliver frames that stand side by side: the packets that come out, and how many writes."""
    found: list[bytes] = []
    writes = 0

    def act(through: Forwarding) -> None:
        nonlocal writes
        device = Device(through._before)
        receiver = Receiver(device, offload=join)
        receiver.take(*frames)
        if join and receiver.kinds != KINDS:
            pytest.skip("this kernel takes no such superpackets (UDP: before Linux 6.2)")
        found.extend(through.packets())
        writes = device.writes
        assert receiver.peer.drops == {}

    with_forwarding(act)
    return found, writes


def at_the_far_end(one: Superpacket) -> Superpacket:
    """Return what the kernel forwards: its TTL is one less."""
    return replace(one, ttl=one.ttl - 1)


@pytest.mark.parametrize("what", FLOWS)
def test_the_kernel_cuts_into_the_packets_that_were_joined(what: str) -> None:
    one = FLOWS[what]
    packets, writes = delivered(segments(one))
    assert writes == 1
    assert packets == [finished(frame) for frame in segments(at_the_far_end(one))]


def test_flows_in_turns_with_losses_come_out_as_if_written_one_by_one() -> None:
    chance = random.Random(2)
    names = ["TCP over IPv4", "UDP over IPv6", "timestamps", "one byte in the last, UDP"]
    rows = [segments(FLOWS[name]) for name in names]
    frames: list[bytes] = []
    while any(rows):
        row = chance.choice([row for row in rows if row])
        count = chance.randint(1, 4)
        frames += row[:count]
        del row[: count + (chance.random() < 0.2)]
    packets, writes = delivered(frames)
    assert 1 < writes < len(frames) == len(packets)
    one_by_one, writes = delivered(frames, join=False)
    assert writes == len(frames)
    assert [unnumbered(bytes(FRAME_HEADER) + packet) for packet in packets] == [
        unnumbered(bytes(FRAME_HEADER) + packet) for packet in one_by_one
    ]


def test_any_number_of_short_segments_is_no_reason_to_give_superpackets_up() -> None:
    """Two records' worth of the shortest: more than one write takes pieces (UIO_MAXIOV)."""
    many = Superpacket(4, TCP, PAYLOAD[: 2000 * 8], 8)
    packets, writes = delivered(segments(many))
    assert packets == [finished(frame) for frame in segments(at_the_far_end(many))]
    assert writes == 2


def test_a_wrong_sum_would_have_been_seen() -> None:
    """Positive control: an open sum that is wrong makes packets whose checksum is."""
    one = FLOWS["the last one full, UDP"]
    frames = []
    for frame in segments(one):
        other = bytearray(frame)
        other[FRAME_HEADER + 26] ^= 1
        frames.append(bytes(other))
    packets, writes = delivered(frames)
    assert writes == 1
    assert packets != [finished(frame) for frame in segments(at_the_far_end(one))]
