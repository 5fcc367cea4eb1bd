"""Joined datagrams are the superpacket that one would build; cut again they are as they were."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.join import join, joinable
from gateway.dataplane.offload import rebuild
from gateway.protocol.wire import parse_frames
from tests.packets import UDP
from tests.superpackets import FRAME_HEADER, Superpacket, finished, framed


@st.composite
def flows(draw: st.DrawFn) -> Superpacket:
    """Draw what the datagrams of one flow are when they are one superpacket."""
    segment = draw(st.integers(1, 1500) | st.sampled_from([1, 2, 1400, 9000]))
    count = draw(st.integers(2, min(64, 65000 // segment)))
    number = draw(st.integers(0, 2**32))
    return Superpacket(
        draw(st.sampled_from([4, 6])),
        UDP,
        random.Random(number).randbytes(segment * count),
        segment,
        identification=draw(st.sampled_from([0, 65535, 65530]) | st.integers(0, 65535)),
        ttl=draw(st.integers(1, 255)),
    )


def joined(record: bytearray) -> list[bytes]:
    """What the writes to the TUN carry, each with a length as in a record."""
    plain = memoryview(record)
    frames = parse_frames(plain)
    assert frames is not None
    writes, first = [], 0
    while first < len(frames):
        start, end = frames[first]
        assert rebuild(plain[start + 2 : end])
        count = joinable(plain, frames, first)
        some = frames[first : first + count]
        parts = join(plain, some) if count > 1 else [plain[start + 2 : end]]
        whole = b"".join(parts)
        writes.append((len(whole) - 10).to_bytes(2) + whole)
        first += count
    return writes


@given(flows())
def test_a_flow_becomes_the_superpacket_that_it_could_have_been(flow: Superpacket) -> None:
    whole = framed(
        flow.packet(0, len(flow.payload), flow.identification),
        flow.virtio(flow.headers, flow.segment),
    )
    assert joined(bytearray(b"".join(flow.chunks(flow.segment)))) == [whole]


@given(st.lists(flows(), min_size=1, max_size=4), st.data())
def test_nothing_is_lost_or_changed_or_comes_in_another_order(
    some: list[Superpacket], data: st.DataObject
) -> None:
    """Flows in turns, cut again by the book: the packets, to the last byte but the IPv4 number."""
    some = [replace(one, payload=one.payload[: 5 * one.segment]) for one in some]
    rows = [list(one.chunks(one.segment)) for one in some]
    sent: list[bytes] = []
    while any(rows):
        row = data.draw(st.sampled_from([row for row in rows if row]))
        sent.append(row.pop(0))
    came = [one for write in joined(bytearray(b"".join(sent))) for one in cut(write)]
    assert [without_number(finished(one)) for one in came] == [
        without_number(finished(one)) for one in sent
    ]


def cut(write: bytes) -> list[bytes]:
    """The datagrams of one write, built from scratch."""
    packet = write[FRAME_HEADER:]
    if write[3] == 0:
        return [write]
    version = packet[0] >> 4
    headers = 28 if version == 4 else 48
    segment = int.from_bytes(write[6:8], "little")
    found = []
    for start in range(headers, len(packet), segment):
        length = headers + len(packet[start : start + segment])
        head = bytearray(packet[:headers])
        at = 2 if version == 4 else 4
        head[at : at + 2] = (length if version == 4 else length - 40).to_bytes(2)
        udp = headers - 8
        before = int.from_bytes(head[udp + 6 : udp + 8])
        head[udp + 4 : udp + 6] = (length - udp).to_bytes(2)
        less = before - (len(packet) - length)
        head[udp + 6 : udp + 8] = (less % 0xFFFF).to_bytes(2)
        virtio = bytes([1, 0, 0, 0, 0, 0, udp, 0, 6, 0])
        found.append(framed(bytes(head) + packet[start : start + segment], virtio))
    return found


def without_number(packet: bytes) -> bytes:
    """The packet without an IPv4 header's identification and checksum."""
    return packet[:4] + packet[6:10] + packet[12:] if packet[0] >> 4 == 4 else packet
