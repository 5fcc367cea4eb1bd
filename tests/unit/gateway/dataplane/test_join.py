"""What goes into the TUN in one write, rule by rule; the bytes are in `property/test_join.py`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.joining import Kernel, Receiver, cut, joined, written
from tests.packets import NO_OFFLOAD, TCP, UDP
from tests.superpackets import (
    ACK,
    CWR,
    ECE,
    FIN,
    FRAME_HEADER,
    PSH,
    TSO4,
    TSO6,
    USO,
    Superpacket,
    framed,
)
from tests.unit.gateway.dataplane.test_split import payload, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYN, RST, URG = 0x02, 0x04, 0x20
TIMESTAMPS = bytes.fromhex("0101 080a 01020304 05060708")
STREAM = Superpacket(4, TCP, payload(3500), 1000)
KINDS = [(4, TCP), (6, TCP), (4, UDP), (6, UDP)]


@pytest.fixture(params=KINDS, ids=["TCP", "TCP over IPv6", "UDP", "UDP over IPv6"])
def kind(request: pytest.FixtureRequest) -> tuple[int, int]:
    chosen: tuple[int, int] = request.param
    return chosen


def flow(version: int, protocol: int, count: int = 6, segment: int = 300) -> Superpacket:
    """So many segments, that are one superpacket if nothing keeps them apart."""
    return Superpacket(version, protocol, payload(count * segment), segment)


def alone(one: Superpacket, size: int, *, after: int = 0) -> bytes:
    """The segment with so many bytes of payload behind so many others, in a frame of its own."""
    return framed(one.packet(after, after + size, 7), one.virtio())


def segments(one: Superpacket) -> list[bytes]:
    return [*one.chunks(one.segment)]


def rebuilt(one: Superpacket) -> bytes:
    """The superpacket with the header that `rebuild` writes."""
    packet = one.packet(0, len(one.payload), one.identification)
    return framed(packet, one.virtio(one.headers, one.segment))


def changed(frame: bytes, at: int, value: int) -> bytes:
    """The frame with another byte there; `at` counts from the IP header on."""
    other = bytearray(frame)
    assert other[FRAME_HEADER + at] != value, "nothing is another"
    other[FRAME_HEADER + at] = value
    return bytes(other)


def sizes(frames: list[bytes], one: Superpacket) -> list[int]:
    """How many segments were in each write: all are of one size."""
    found, room = [], one.headers + FRAME_HEADER
    for frame in frames:
        assert (len(frame) - room) % one.segment == 0
        found.append((len(frame) - room) // one.segment)
    return found


# What goes together.


@pytest.mark.parametrize("options", [b"", TIMESTAMPS, bytes(40)], ids=len)
def test_it_is_the_superpacket_that_it_could_have_been(
    kind: tuple[int, int], options: bytes
) -> None:
    """To the last byte: lengths, sums, and the virtio-net header."""
    whole = replace(flow(*kind), tcp_options=options if kind[1] == TCP else b"")
    short = replace(whole, payload=whole.payload[:-299])
    for one in (whole, short):
        assert joined(*segments(one)) == [rebuilt(one)]


def test_the_sequence_starts_over_after_its_last_number() -> None:
    stream = replace(STREAM, sequence=2**32 - 1500)
    assert joined(*segments(stream)) == [rebuilt(stream)]


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (0, ["id 7 seq 1000 ACK PSH: 1000", "id 8 seq 2000 ACK: 1000 1000 500"]),
        (1, ["id 7 seq 1000 ACK PSH: 1000 1000", "id 9 seq 3000 ACK: 1000 500"]),
    ],
)
def test_a_push_ends_it_and_is_kept(which: int, said: list[str]) -> None:
    frames = segments(STREAM)
    frames[which] = changed(frames[which], 33, ACK | PSH)
    assert [told(one) for one in joined(*frames)] == said


def test_only_the_last_may_be_shorter(kind: tuple[int, int]) -> None:
    one = flow(*kind)
    frames = [alone(one, 300), alone(one, 200, after=300), alone(one, 200, after=500)]
    for again in (frames[2], alone(one, 300, after=500)):
        assert joined(*frames[:2], again) == [*joined(*frames[:2]), again]


def test_a_longer_one_begins_another(kind: tuple[int, int]) -> None:
    one = flow(*kind)
    frames = [alone(one, 300), alone(one, 301, after=300), alone(one, 301, after=601)]
    assert [len(one) for one in joined(*frames)] == [len(frames[0]), 301 + len(frames[1])]


# How much goes together.


@pytest.mark.parametrize(("protocol", "count"), [(UDP, [64, 64, 22]), (TCP, [150])])
def test_the_kernel_takes_64_datagrams_at_once_and_any_number_of_segments(
    protocol: int, count: list[int]
) -> None:
    for version in (4, 6):
        many = flow(version, protocol, 150, 20)
        assert sizes(joined(*segments(many)), many) == count


def test_what_was_taken_does_not_count_for_the_next_64() -> None:
    """The 64 are counted from the first of the write, wherever that stands in the record."""
    few, many = flow(6, UDP, 3, 20), flow(4, UDP, 70, 20)
    writes = joined(*segments(few), *segments(many))
    assert sizes(writes[:1], few) + sizes(writes[1:], many) == [3, 64, 6]


@pytest.mark.parametrize("over", [0, 1])
def test_a_packet_has_65535_bytes_at_most(kind: tuple[int, int], over: int) -> None:
    one = flow(*kind, 7, 10_000)
    last = 65535 - one.headers - 6 * 10_000 + over
    one = replace(one, payload=payload(6 * 10_000 + last))
    writes = joined(*segments(one))
    assert [len(write) - FRAME_HEADER for write in writes] == (
        [65535] if not over else [one.headers + 60_000, one.headers + last]
    )


def test_no_more_are_joined_than_one_write_takes() -> None:
    """1,024 pieces: UIO_MAXIOV. More are EINVAL, as if the kernel took no superpackets at all."""
    many = flow(4, TCP, 1300, 8)
    assert sizes(joined(*segments(many)), many) == [1024, 276]


@pytest.mark.parametrize(("protocol", "size", "writes"), [(TCP, 7, 3), (TCP, 8, 1), (UDP, 1, 1)])
def test_segments_may_be_as_short_as_we_take_them(protocol: int, size: int, writes: int) -> None:
    assert len(joined(*segments(flow(4, protocol, 3, size)))) == writes


def test_the_last_segment_may_be_as_short_as_it_likes(kind: tuple[int, int]) -> None:
    one = flow(*kind, 2)
    one = replace(one, payload=one.payload[:301])
    assert joined(*segments(one)) == [rebuilt(one)]


def test_what_has_no_payload_stays_alone(kind: tuple[int, int]) -> None:
    """A lone ACK says something by itself, three of them that a segment was lost."""
    one = flow(*kind, 3)
    ack, data = alone(one, 0, after=600), segments(one)
    assert joined(ack, ack, ack) == [ack] * 3
    assert joined(*data[:2], ack) == [*joined(*data[:2]), ack]
    assert joined(ack, *data) == [ack, rebuilt(one)]


# What stays apart.


@pytest.mark.parametrize(
    ("order", "writes"),
    [
        pytest.param([0, 1, 3, 4], [2, 2], id="one was lost"),
        pytest.param([0, 1, 1, 2, 3], [2, 3], id="one came twice"),
        pytest.param([0, 2, 1, 3], [1, 1, 1, 1], id="two changed places"),
        pytest.param([3, 4, 0, 1, 2], [2, 3], id="the end came first"),
    ],
)
def test_segments_that_do_not_go_on_stay_apart(order: list[int], writes: list[int]) -> None:
    stream = flow(4, TCP)
    frames = segments(stream)
    assert sizes(joined(*(frames[i] for i in order)), stream) == writes


@pytest.mark.parametrize("flag", [FIN, SYN, RST, URG, ECE, CWR], ids=lambda flag: f"{flag:#04x}")
@pytest.mark.parametrize("push", [0, PSH], ids=["", "and a push"])
def test_a_segment_that_says_more_stays_alone(flag: int, push: int) -> None:
    stream = flow(4, TCP)
    frames = segments(stream)
    frames[2] = changed(frames[2], 33, ACK | flag | push)
    writes = joined(*frames)
    assert sizes(writes, stream) == [2, 1, 3]
    assert writes[1] == frames[2]


@pytest.mark.parametrize("flags", [0, PSH, ACK | FIN, ACK | ECE], ids=hex)
def test_segments_that_all_say_more_stay_alone(flags: int) -> None:
    frames = [changed(one, 33, flags) for one in segments(flow(4, TCP, 3))]
    assert joined(*frames) == frames


_IPV4 = {
    "the class of traffic": (1, 4),
    "that it may be fragmented": (6, 0),
    "the hops left": (8, 63),
    "the source": (15, 9),
    "the destination": (19, 9),
}
_IPV6 = {
    "the class of traffic": (0, 0x61),
    "the flow label": (3, 9),
    "the hops left": (7, 63),
    "the source": (23, 9),
    "the destination": (39, 9),
}
_PORTS = {"the source port": (1, 1), "the destination port": (3, 1)}
_TCP = {
    "the acknowledged": (11, 9),
    "a reserved bit": (12, 0x81),
    "the window": (15, 9),
    "the urgent pointer": (19, 9),
    "the first option": (20, 0),
    "the last byte of options": (31, 9),
}


def _differences() -> Iterator[object]:
    for version, protocol in KINDS:
        start = 20 if version == 4 else 40
        within = _PORTS | (_TCP if protocol == TCP else {})
        places = {what: (start + at, value) for what, (at, value) in within.items()}
        places |= _IPV4 if version == 4 else _IPV6
        name = f"{'TCP' if protocol == TCP else 'UDP'} over IPv{version}"
        for what, (at, value) in places.items():
            yield pytest.param(version, protocol, at, value, id=f"{name}: {what}")


@pytest.mark.parametrize(("version", "protocol", "at", "value"), [*_differences()])
def test_what_differs_in_anything_stays_apart(
    version: int, protocol: int, at: int, value: int
) -> None:
    one = replace(flow(version, protocol), tcp_options=TIMESTAMPS if protocol == TCP else b"")
    frames = segments(one)
    frames[2] = changed(frames[2], at, value)
    writes = joined(*frames)
    assert sizes(writes, one) == [2, 1, 3]
    assert writes[1] == frames[2]


@pytest.mark.parametrize("which", [0, 2], ids=["the first", "the third"])
def test_an_open_checksum_that_is_another_is_not_mended(kind: tuple[int, int], which: int) -> None:
    """Nor does a wrong one of the first make those behind it wrong."""
    one = flow(*kind)
    frames = segments(one)
    at = one.transport + (16 if kind[1] == TCP else 6)
    frames[which] = changed(frames[which], at, frames[which][FRAME_HEADER + at] ^ 1)
    parts = [part for write in joined(*frames) for part in cut(write)]
    assert [part[FRAME_HEADER + at :] for part in parts] == [
        frame[FRAME_HEADER + at :] for frame in frames
    ]


def test_an_open_checksum_goes_past_zero_as_sums_do(kind: tuple[int, int]) -> None:
    """A shorter last one has less in it: where that is less than nothing, it is 65,535 more."""
    one = replace(flow(*kind), payload=payload(1700))
    at = one.transport + (16 if kind[1] == TCP else 6)
    frames = [changed(changed(frame, at, 0), at + 1, 5) for frame in segments(one)]
    frames[-1] = changed(changed(frames[-1], at, 0xFF), at + 1, 0xFF + 5 - 100)
    assert len(joined(*frames)) == 1
    assert cut(*joined(*frames)) == frames


@pytest.mark.parametrize("header", ["IP", "UDP"])
@pytest.mark.parametrize("value", [0, 1, 200])
def test_what_lies_about_its_length_is_dropped_alone(
    kind: tuple[int, int], header: str, value: int
) -> None:
    one = flow(*kind)
    at = 3 if one.version == 4 else 5
    if header == "UDP" and one.protocol == UDP:
        at = one.transport + 5
    frames = segments(one)
    frames[2] = changed(frames[2], at, value)
    kernel = Kernel()
    receiver = Receiver(kernel)
    receiver.take(*frames)
    assert sizes(written(kernel), one) == [2, 3]
    assert receiver.peer.drops == {"bad-offload": 1}


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize(
    "alike",
    [
        pytest.param(lambda one: replace(one, fragmentable=True), id="may be fragmented"),
        pytest.param(lambda one: replace(one, options=b"\1\1\1\0"), id="IPv4 options"),
        pytest.param(
            lambda one: replace(one, version=6, extensions=((60, 1),)), id="an extension header"
        ),
    ],
)
def test_what_has_more_than_plain_headers_stays_alone(
    protocol: int, alike: Callable[[Superpacket], Superpacket]
) -> None:
    frames = segments(alike(flow(4, protocol)))
    assert joined(*frames) == frames


def test_what_has_a_finished_checksum_stays_alone(kind: tuple[int, int]) -> None:
    """It might be wrong, and would come out right."""
    one = flow(*kind)
    plain = [framed(frame[FRAME_HEADER:], NO_OFFLOAD) for frame in segments(one)]
    assert joined(*plain) == plain
    mixed = segments(one)[:3] + plain[3:]
    assert sizes(joined(*mixed), one) == [3, 1, 1, 1]


def test_what_has_a_reserved_bit_stays_alone() -> None:
    frames = [changed(one, 6, 0xC0) for one in segments(flow(4, UDP))]
    assert joined(*frames) == frames


def test_fragments_stay_alone() -> None:
    """They have no open checksum; what says otherwise is dropped."""
    frames = [changed(one, 6, 0x20) for one in segments(flow(4, UDP, 3))]
    plain = [framed(frame[FRAME_HEADER:], NO_OFFLOAD) for frame in frames]
    assert joined(*plain) == plain
    (receiver := Receiver(Kernel())).take(*frames)
    assert receiver.peer.drops == {"bad-offload": 3}


def test_a_superpacket_is_joined_to_nothing(kind: tuple[int, int]) -> None:
    one = flow(*kind)
    more = replace(one, sequence=one.sequence + len(one.payload))
    assert joined(one.frame(), *segments(more), one.frame()) == [
        rebuilt(one),
        rebuilt(more),
        rebuilt(one),
    ]


# What the kernel does not take; more of it in `test_delivery.py`.


def test_what_the_kernel_refuses_is_written_one_by_one_as_it_came(
    kind: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    one = replace(flow(*kind), tcp_options=bytes(40) if kind[1] == TCP else b"")
    # A push at the end: the first has the flags of the last by then.
    frames = segments(replace(one, flags=ACK | PSH))
    kernel = Kernel(refused={TSO4, TSO6, USO})
    receiver = Receiver(kernel)
    with caplog.at_level(logging.WARNING):
        receiver.take(*frames)
        receiver.take(*frames)
    assert written(kernel) == frames * 2
    assert [asked for asked in kernel.asked if asked] == kernel.asked[:1], "once"
    (said,) = caplog.messages
    assert f"refused a {'TCP' if kind[1] == TCP else 'UDP'} superpacket" in said
    assert receiver.peer.rx_packets == 2 * len(frames)
    assert receiver.peer.rx_bytes == 2 * sum(len(frame) - FRAME_HEADER for frame in frames)
    assert receiver.peer.drops == {}


@pytest.mark.parametrize("refused", [TSO4, TSO6, USO])
def test_one_kind_that_is_refused_says_nothing_of_the_others(refused: int) -> None:
    kernel = Kernel(refused={refused})
    receiver = Receiver(kernel)
    for _ in range(2):
        for version, protocol in KINDS:
            receiver.take(*segments(flow(version, protocol)))
    asked = [kernel.asked.count(kind) for kind in (TSO4, TSO6, USO)]
    usual = {TSO4: 2, TSO6: 2, USO: 4}
    assert asked == [1 if kind == refused else usual[kind] for kind in (TSO4, TSO6, USO)]


def test_what_is_refused_one_by_one_as_well_is_dropped(kind: tuple[int, int]) -> None:
    receiver = Receiver(Kernel(refused={0, TSO4, TSO6, USO}))
    receiver.take(*segments(flow(*kind)))
    assert receiver.peer.drops == {"tun-refused": 6}


def test_each_of_them_counts_when_they_may_not_go_there() -> None:
    receiver = Receiver(Kernel())
    receiver.take(*(changed(frame, 16, 127) for frame in segments(flow(4, UDP))))
    assert receiver.peer.drops == {"bad-destination": 6}
