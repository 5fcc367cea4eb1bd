"""Whatever stands side by side and is joined: cut again it is what it was, and what it would be."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from hypothesis import event, given
from hypothesis import strategies as st

from gateway.dataplane.offload import rebuild
from tests.joining import Kernel, Receiver, cut, joined, unnumbered, written
from tests.packets import TCP, UDP
from tests.superpackets import ACK, CWR, ECE, FIN, FRAME_HEADER, PSH, Superpacket, framed, ones_sum

words = st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))
numbers = st.sampled_from([0, 2**32 - 1, 2**32 - 5000]) | st.integers(0, 2**32 - 1)
rarely = st.integers(0, 9).map(lambda number: number == 0)


@st.composite
def streams(draw: st.DrawFn, most: int = 20) -> Superpacket:
    """Draw what can be joined again after it was cut, with payload for so many segments."""
    protocol = draw(st.sampled_from([TCP, UDP]))
    segment = draw(st.sampled_from([8, 9, 500, 1448]) | st.integers(8, 1500))
    count = draw(st.integers(2, min(most, 65_000 // segment)))
    length = segment * count - draw(st.just(0) | st.integers(0, segment - 1))
    return Superpacket(
        draw(st.sampled_from([4, 6])),
        protocol,
        random.Random(draw(st.integers(0, 99))).randbytes(length),
        segment,
        tcp_options=draw(words) if protocol == TCP else b"",
        flags=draw(st.sampled_from([ACK, ACK | PSH])),
        sequence=draw(numbers),
        identification=draw(numbers) % 2**16,
        ttl=draw(st.sampled_from([63, 64])),
    )


@st.composite
def odder(draw: st.DrawFn) -> Superpacket:
    """Draw streams of which some must not be joined at all."""
    one = draw(streams(most=6))
    if draw(rarely):
        one = replace(one, fragmentable=True)
    if draw(rarely) and one.version == 4:
        one = replace(one, options=b"\1\1\1\0")
    if draw(rarely) and one.version == 6:
        one = replace(one, extensions=((60, 1),))
    if draw(rarely):
        one = replace(one, flags=draw(st.sampled_from([ACK | FIN, ACK | ECE, ACK | CWR, 0, PSH])))
    return one


steps = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["next"] * 6 + ["again", "lost"])), max_size=40
)


def mixed(some: list[Superpacket], ways: list[tuple[int, str]]) -> list[bytes]:
    """Cut streams and let their frames come in turns; some are lost, some come twice."""
    rows = [cut(one.frame()) for one in some]
    came = []
    for which, what in ways:
        row = rows[which % len(rows)]
        if row and what != "lost":
            came.append(row[0])
        if row and what != "again":
            row.pop(0)
    return came


@given(streams(most=64))
def test_a_stream_that_was_cut_becomes_what_it_was(one: Superpacket) -> None:
    """To the last byte."""
    packet = one.packet(0, len(one.payload), one.identification)
    whole = framed(packet, one.virtio(one.headers, one.segment))
    assert joined(*cut(one.frame())) == [whole]


@given(st.lists(odder(), min_size=1, max_size=4), steps)
def test_cut_again_they_are_what_came(some: list[Superpacket], ways: list[tuple[int, str]]) -> None:
    """None more, none less, in their order, to the last byte but a number that says nothing."""
    came = mixed(some, ways)
    writes = joined(*came)
    event(f"joined: {len(writes) < len(came)}")
    parts = [part for write in writes for part in cut(write)]
    assert [unnumbered(part) for part in parts] == [unnumbered(frame) for frame in came]


@given(st.lists(odder(), min_size=1, max_size=4), steps)
def test_what_is_written_is_what_we_would_take(
    some: list[Superpacket], ways: list[tuple[int, str]]
) -> None:
    """`rebuild` finds nothing to change in it, and IPv4's own checksum holds."""
    for write in joined(*mixed(some, ways)):
        again = bytearray(write)
        assert rebuild(memoryview(again)[2:])
        assert again == write
        packet = write[FRAME_HEADER:]
        assert len(packet) <= 65535
        if packet[0] >> 4 == 4:
            assert ones_sum(packet[: (packet[0] & 15) * 4]) == 0xFFFF


changes = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.integers(2, FRAME_HEADER + 100),
        st.integers(0, 255) | st.just("the least bit"),
    ),
    max_size=4,
)
nonsense = st.lists(st.binary(min_size=30, max_size=90), max_size=2)


@given(st.lists(odder(), min_size=1, max_size=3), steps, changes, nonsense)
def test_with_hostile_frames_it_is_as_if_nothing_were_joined(
    some: list[Superpacket],
    ways: list[tuple[int, str]],
    other: list[tuple[int, int, int | str]],
    tail: list[bytes],
) -> None:
    """The same frames get through, the same are dropped, and nothing raises.

    The last of them end where the buffer ends.
    """
    frames = [bytearray(frame) for frame in mixed(some, ways)]
    for place, at, value in other if frames else []:
        frame = frames[place % len(frames)]
        frame[at % len(frame)] = value if isinstance(value, int) else frame[at % len(frame)] ^ 1
    came = [*map(bytes, frames), *(framed(one[10:], one[:10]) for one in tail)]
    found = []
    for offload in (True, False):
        kernel = Kernel()
        receiver = Receiver(kernel, offload=offload)
        receiver.take(*came)
        parts = [part for write in written(kernel) for part in cut(write)]
        found.append(([unnumbered(part) for part in parts], Counter(receiver.peer.drops)))
        if offload:
            event(f"joined: {kernel.asked.count(0) < len(kernel.asked)}")
    assert found[0] == found[1]
