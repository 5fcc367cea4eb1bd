"""Joined packets are the superpacket that one would build; cut again they are as they were."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import event, given
from hypothesis import strategies as st

from gateway.dataplane.join import flow, join, joinable
from gateway.dataplane.offload import rebuild, segment_size
from gateway.dataplane.split import split
from gateway.protocol.wire import parse_frames
from tests.packets import TCP, UDP
from tests.superpackets import ACK, FRAME_HEADER, PSH, Superpacket, framed


@st.composite
def flows(draw: st.DrawFn) -> Superpacket:
    """Draw what the packets of one flow are when they are one superpacket."""
    protocol = draw(st.sampled_from([TCP, UDP]))
    segment = draw(st.integers(8, 1500) | st.sampled_from([8, 1400, 9000]))
    count = draw(st.integers(2, min(64, 65000 // segment)))
    shorter = draw(st.just(0) | st.integers(0, segment - 1))
    words = draw(st.integers(0, 10)) if protocol == TCP else 0
    number = draw(st.integers(0, 2**32))
    return Superpacket(
        draw(st.sampled_from([4, 6])),
        protocol,
        random.Random(number).randbytes(segment * count - shorter),
        segment,
        tcp_options=random.Random(number).randbytes(4 * words),
        flags=draw(st.sampled_from([ACK, ACK | PSH])),
        sequence=draw(st.sampled_from([0, 2**32 - 1, 2**32 - 5000]) | st.integers(0, 2**32 - 1)),
        identification=draw(st.sampled_from([0, 65535, 65530]) | st.integers(0, 65535)),
        ttl=draw(st.integers(1, 255)),
    )


def joined(frames: list[bytes]) -> list[bytes]:
    """What the writes to the TUN carry, each with a length as in a record."""
    plain = memoryview(bytearray(b"".join(frames)))
    places = parse_frames(plain, 0, len(plain))
    assert places is not None
    writes, first = [], 0
    while first < len(places):
        start, end = places[first]
        assert rebuild(plain[start + 2 : end])
        like = flow(plain, start)
        count = 1 if like is None else joinable(plain, places, first, like)
        if like is None or count == 1:
            whole = bytes(plain[start + 2 : end])
        else:
            whole = b"".join(join(plain, places[first : first + count], like))
        writes.append((len(whole) - 10).to_bytes(2) + whole)
        first += count
    return writes


def cut(writes: list[bytes]) -> list[bytes]:
    """The packets of these writes, one by one."""
    packets = []
    for write in writes:
        plain = memoryview(bytearray(write))
        most = 2 + segment_size(plain[2:]) if write[3] else len(write)
        packets += [
            bytes(plain[at : at + length]) for at, length in split(plain, 0, len(plain), most)
        ]
    return packets


def without_what_is_made_anew(frame: bytes) -> bytes:
    """Without an IPv4 header's identification and checksum, and the open sum."""
    packet = bytearray(frame[FRAME_HEADER:])
    sum_at = int.from_bytes(frame[8:10], "little") + int.from_bytes(frame[10:12], "little")
    packet[sum_at : sum_at + 2] = bytes(2)
    if packet[0] >> 4 == 4:
        packet[4:6] = packet[10:12] = bytes(2)
    return frame[:FRAME_HEADER] + bytes(packet)


@given(flows())
def test_a_flow_becomes_the_superpacket_that_it_could_have_been(one: Superpacket) -> None:
    whole = framed(
        one.packet(0, len(one.payload), one.identification), one.virtio(one.headers, one.segment)
    )
    assert joined([*one.chunks(one.segment)]) == [whole]


@given(st.lists(flows(), min_size=1, max_size=4), st.data())
def test_cut_again_they_are_what_was_sent(some: list[Superpacket], data: st.DataObject) -> None:
    """Flows in turns, of which any header byte may be another: no packet lost, changed or moved."""
    some = [replace(one, payload=one.payload[: 6 * one.segment]) for one in some]
    rows = [[*one.chunks(one.segment)] for one in some]
    sent: list[bytes] = []
    while any(rows):
        row = data.draw(st.sampled_from([row for row in rows if row]))
        count = data.draw(st.integers(1, len(row)))
        sent += row[:count]
        del row[:count]
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(sent) - 1))
        changed = bytearray(sent[place])
        at = data.draw(st.integers(2, min(FRAME_HEADER + 100, len(changed)) - 1))
        changed[at] = data.draw(st.integers(0, 255) | st.just(changed[at] ^ 1))
        sent[place] = bytes(changed)
    for place, frame in reversed(list(enumerate(sent))):
        clean = bytearray(frame)
        if rebuild(memoryview(clean)[2:]) and clean[3] == 0:
            sent[place] = bytes(clean)
        else:
            del sent[place]  # it is dropped before; superpackets are not joined
    writes = joined(sent)
    event(f"joined: {len(writes) < len(sent)}")
    assert [without_what_is_made_anew(one) for one in cut(writes)] == [
        without_what_is_made_anew(one) for one in sent
    ]
