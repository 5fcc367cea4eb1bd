"""Opened frames on their way into the TUN: whole, cut or joined, as the kernel takes them."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link
from tests.packets import TCP, UDP
from tests.planes import (
    OF_SUPERPACKETS,
    Forger,
    Plane,
    Switches,
    arrive,
    meet,
    meet_hostile,
    on_the_way,
)
from tests.superpackets import ACK, CWR, PSH, Superpacket, framed

if TYPE_CHECKING:
    from collections.abc import Callable

PAYLOAD = bytes(range(251)) * 200
KINDS = [(4, TCP), (6, TCP), (4, UDP), (6, UDP)]


def superpacket(version: int, protocol: int, segment: int = 1400, count: int = 10) -> Superpacket:
    return Superpacket(version, protocol, PAYLOAD[: segment * count], segment)


@pytest.fixture(params=KINDS, ids=["TSO4", "TSO6", "USO4", "USO6"])
def whole(request: pytest.FixtureRequest) -> Superpacket:
    return superpacket(*request.param)


@pytest.fixture
def hostile() -> tuple[Plane, Forger]:
    return meet_hostile()


def rebuilt(one: Superpacket) -> bytes:
    """What one write to the TUN carries of it."""
    packet = one.packet(0, len(one.payload), one.identification)
    return one.virtio(one.headers, one.segment) + packet


def segments(one: Superpacket) -> list[bytes]:
    """Each of its segments, as a write."""
    return [chunk[2:] for chunk in one.chunks(one.segment)]


def refuse(b: Plane, number: int, refused: Callable[[bytes], bool]) -> list[bytes]:
    """Let the kernel refuse such frames; all that it was asked to take."""
    write, asked = b.tun.write, []

    def stubborn(frame: bytes) -> int:
        asked.append(bytes(frame))
        if refused(asked[-1]):
            raise OSError(number, "as told")
        return write(frame)

    b.tun.write = stubborn  # type: ignore[method-assign, assignment]
    return asked


def is_superpacket(frame: bytes) -> bool:
    return frame[1] != 0


def test_a_superpacket_is_one_write(hostile: tuple[Plane, Forger], whole: Superpacket) -> None:
    b, a = hostile
    a.send(whole.frame()[2:])
    assert b.tun.written == [rebuilt(whole)]
    assert (b.peer().rx_packets, b.peer().rx_bytes) == (1, len(rebuilt(whole)) - 10)


def test_where_the_tun_takes_none_it_is_cut(whole: Superpacket) -> None:
    b, a = meet_hostile(switches=Switches(tun_offload=False))
    a.send(whole.frame()[2:])
    assert b.tun.written == segments(whole)
    assert b.drops() == {}


def test_what_the_kernel_refuses_is_cut_and_not_tried_again(
    hostile: tuple[Plane, Forger], whole: Superpacket, caplog: pytest.LogCaptureFixture
) -> None:
    b, a = hostile
    asked = refuse(b, errno.EINVAL, is_superpacket)
    with caplog.at_level(logging.WARNING):
        a.send(whole.frame()[2:])
        a.send(whole.frame()[2:])
    assert b.tun.written == segments(whole) * 2
    assert sum(map(is_superpacket, asked)) == 1
    (said,) = caplog.messages
    assert "refused" in said
    assert b.drops() == {}
    assert b.peer().rx_packets == 2


def test_a_kernel_without_uso_still_takes_tso(hostile: tuple[Plane, Forger]) -> None:
    """Linux before 6.2: one kind that is refused says nothing of the others."""
    b, a = hostile
    refuse(b, errno.EINVAL, lambda frame: frame[1] == 5)
    uso, tso = superpacket(4, UDP), superpacket(4, TCP)
    for one in (uso, tso):
        a.send(one.frame()[2:])
    assert b.tun.written == [*segments(uso), rebuilt(tso)]


def test_more_datagrams_than_some_kernels_take_are_cut_here(
    hostile: tuple[Plane, Forger],
) -> None:
    """UDP_MAX_SEGMENTS was 64 before Linux 6.9: no reason to give all superpackets up."""
    b, a = hostile
    asked = refuse(b, errno.EINVAL, lambda frame: is_superpacket(frame) and len(frame) > 64 * 100)
    many, few = superpacket(4, UDP, 100, 100), superpacket(4, UDP, 100, 60)
    a.send(many.frame()[2:])
    assert b.tun.written == segments(many)
    a.send(few.frame()[2:])
    assert asked[-1] == b.tun.written[-1] == rebuilt(few)


def test_a_plain_packet_that_is_refused_says_nothing_of_superpackets(
    hostile: tuple[Plane, Forger], whole: Superpacket
) -> None:
    b, a = hostile
    refuse(b, errno.EINVAL, lambda frame: not is_superpacket(frame))
    a.send(segments(whole)[0])
    assert b.drops() == {"tun-refused": 1}
    a.send(whole.frame()[2:])
    assert b.tun.written == [rebuilt(whole)]


def test_a_tun_that_is_down_says_nothing_of_superpackets(
    hostile: tuple[Plane, Forger], whole: Superpacket
) -> None:
    b, a = hostile
    b.tun.failure = OSError(errno.EIO, "as told")
    a.send(whole.frame()[2:])
    assert b.drops() == {"tun-down": 1}
    assert b.peer().rx_packets == 0
    b.tun.failure = None
    a.send(whole.frame()[2:])
    assert b.tun.written == [rebuilt(whole)]


def test_segments_that_are_refused_as_well_are_one_drop(
    hostile: tuple[Plane, Forger], whole: Superpacket
) -> None:
    b, a = hostile
    refuse(b, errno.EINVAL, lambda _: True)
    a.send(whole.frame()[2:])
    assert b.drops() == {"tun-refused": 1}


# Packets of one flow that stand side by side.


@pytest.fixture(params=KINDS, ids=["TCP", "TCP over IPv6", "UDP", "UDP over IPv6"])
def flow(request: pytest.FixtureRequest) -> Superpacket:
    version, protocol = request.param
    return superpacket(version, protocol, 300, 20)


def test_packets_of_one_flow_are_one_write(
    hostile: tuple[Plane, Forger], flow: Superpacket
) -> None:
    b, a = hostile
    a.send(*segments(flow))
    assert b.tun.written == [rebuilt(flow)]
    assert (b.peer().rx_packets, b.peer().rx_bytes) == (20, sum(map(len, segments(flow))) - 200)


def test_the_last_one_may_be_shorter(hostile: tuple[Plane, Forger], flow: Superpacket) -> None:
    b, a = hostile
    flow = replace(flow, payload=flow.payload[:-100])
    a.send(*segments(flow), *segments(flow))
    assert b.tun.written == [rebuilt(flow)] * 2
    assert b.peer().rx_bytes == 2 * (sum(map(len, segments(flow))) - 200)


def test_also_over_the_records_of_one_receive(flow: Superpacket) -> None:
    a, b = meet()
    a.commands.carry_out(link.Shape("b", 1, 1452))
    arrive(b, *on_the_way(a, b, *segments(flow)))
    assert b.tun.written == [rebuilt(flow)]
    assert b.peer().rx_packets == 20


def test_records_of_two_peers_are_not_joined(flow: Superpacket) -> None:
    """Each is checked against its own peer's sources; the drops are its own."""
    a, b = meet()
    c = Plane("192.0.2.3", a.udp._network)
    order: dict[str, Any] = {"peer_index": 7, "suite": "aes-256-gcm"}
    keys = {"receive_key": b"c" * 32, "send_key": b"b" * 32}
    assert b.order(link.Install, index=7, peer="c", endpoint=c.endpoint, **order, **keys) is None
    keys = {"receive_key": b"b" * 32, "send_key": b"c" * 32}
    assert c.order(link.Install, index=7, peer="b", endpoint=b.endpoint, **order, **keys) is None
    assert c.route({"b": OF_SUPERPACKETS["b"]}) is None
    assert c.order(link.Activate, index=7) is None
    b.work()
    first, *rest = on_the_way(a, b, *segments(flow))
    (other,) = on_the_way(c, b, segments(flow)[1])
    b.udp.arrived += [(first, a.endpoint), (other, c.endpoint), (rest[0], a.endpoint)]
    b.work()
    assert b.tun.written == segments(flow)[:2]
    assert b.directory.peer("c").drops == {"wrong-source": 1}


def test_at_most_64_datagrams_are_joined(hostile: tuple[Plane, Forger]) -> None:
    """UDP_MAX_SEGMENTS of Linux before 6.9."""
    b, a = hostile
    many = superpacket(4, UDP, 20, 150)
    a.send(*segments(many))
    assert [len(one) - 38 for one in b.tun.written] == [64 * 20, 64 * 20, 22 * 20]


def test_no_packet_gets_longer_than_one_can_be(flow: Superpacket) -> None:
    a, b = meet(switches=Switches(gro=False))
    frames = []
    for number in range(2):
        sequence = (flow.sequence + number * 48_000) % 2**32
        part = replace(flow, payload=PAYLOAD[:48_000], segment=6000, sequence=sequence)
        frames += segments(part)
    arrive(b, *on_the_way(a, b, *frames))
    assert [len(one) - 10 - flow.headers for one in b.tun.written] == [10 * 6000, 6 * 6000]


def test_what_stands_between_two_flows_keeps_its_place(
    hostile: tuple[Plane, Forger], flow: Superpacket
) -> None:
    b, a = hostile
    other = superpacket(10 - flow.version, flow.protocol, 300, 3)
    a.send(*segments(flow), *segments(other), *segments(flow))
    assert b.tun.written == [rebuilt(flow), rebuilt(other), rebuilt(flow)]


@pytest.mark.parametrize("switch", [True, False])
def test_where_the_kernel_takes_none_they_stay_as_they_are(
    flow: Superpacket, switch: bool, caplog: pytest.LogCaptureFixture
) -> None:
    b, a = meet_hostile(switches=Switches(tun_offload=switch))
    asked = refuse(b, errno.EINVAL, is_superpacket)
    for _ in range(2):
        a.send(*segments(flow))
    assert b.tun.written == segments(flow) * 2, "to the last byte"
    assert sum(map(is_superpacket, asked)) == len(caplog.records) == int(switch)
    assert b.peer().rx_packets == 40


def test_each_of_them_counts_when_they_are_dropped(
    hostile: tuple[Plane, Forger], flow: Superpacket
) -> None:
    b, a = hostile
    b.tun.failure = OSError(errno.EIO, "as told")
    a.send(*segments(flow))
    assert b.drops() == {"tun-down": 20}
    assert b.route({"a": ["10.9.9.0/24"]}) is None
    a.send(*segments(flow))
    assert b.drops() == {"tun-down": 20, "wrong-source": 20}


def changed(one: Superpacket, at: int, value: int) -> list[bytes]:
    """Its segments, of which the third has another byte there."""
    frames = [bytearray(each) for each in segments(one)]
    frames[2][at] = value
    return [bytes(each) for each in frames]


UDP4, TCP4 = superpacket(4, UDP, 300, 6), superpacket(4, TCP, 300, 6)
UDP6 = superpacket(6, UDP, 300, 6)
TIMED = replace(TCP4, tcp_options=bytes([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9]))


@pytest.mark.parametrize(
    ("flow", "at", "value"),
    [
        (UDP4, 0, 0),  # its checksum is finished
        (UDP4, 10 + 1, 4),  # another class of traffic
        (UDP4, 10 + 6, 0x00),  # it may be fragmented
        (UDP4, 10 + 8, 63),  # another number of hops
        (UDP4, 10 + 15, 3),  # from another host
        (UDP4, 10 + 19, 3),  # to another host
        (UDP4, 30 + 1, 1),  # from another port
        (UDP4, 30 + 3, 1),  # to another port
        (UDP6, 10 + 1, 0xB1),  # another class of traffic
        (UDP6, 10 + 3, 8),  # another flow label
        (UDP6, 10 + 7, 63),  # another number of hops
        (UDP6, 10 + 23, 3),  # from another host
        (UDP6, 10 + 39, 3),  # to another host
        (TCP4, 30 + 1, 1),  # from another port
        (TCP4, 30 + 7, 1),  # another place in the stream
        (TCP4, 30 + 11, 1),  # it acknowledges more
        (TCP4, 30 + 13, 0x11),  # FIN
        (TCP4, 30 + 13, 0x12),  # SYN
        (TCP4, 30 + 13, 0x14),  # RST
        (TCP4, 30 + 13, 0x30),  # URG
        (TCP4, 30 + 13, 0x50),  # ECE
        (TCP4, 30 + 13, 0x90),  # CWR
        (TCP4, 30 + 13, 0x00),  # no ACK
        (TCP4, 30 + 12, 0x51),  # accurate ECN
        (TCP4, 30 + 15, 9),  # another window
        (TCP4, 30 + 19, 9),  # urgent
        (TIMED, 50 + 7, 8),  # sent at another time
    ],
)
def test_what_differs_in_anything_stays_apart(
    hostile: tuple[Plane, Forger], flow: Superpacket, at: int, value: int
) -> None:
    b, a = hostile
    frames = changed(flow, at, value)
    a.send(*frames)
    assert [len(one) - 10 - flow.headers for one in b.tun.written] == [600, 300, 900]
    assert b.tun.written[1][10:] == frames[2][10:]


@pytest.mark.parametrize(
    ("flow", "at", "value"), [(UDP4, 10 + 3, 1), (UDP4, 30 + 5, 1), (UDP6, 10 + 5, 1)]
)
def test_what_lies_about_its_length_is_not_joined_to_others(
    hostile: tuple[Plane, Forger], flow: Superpacket, at: int, value: int
) -> None:
    b, a = hostile
    a.send(*changed(flow, at, value))
    assert [len(one) - 10 - flow.headers for one in b.tun.written] == [600, 900]
    assert b.drops() == {"bad-offload": 1}


def test_a_segment_that_is_pushed_ends_its_write(hostile: tuple[Plane, Forger]) -> None:
    b, a = hostile
    a.send(*changed(TCP4, 30 + 13, ACK | PSH))
    first, second = b.tun.written
    assert (len(first) - 50, len(second) - 50) == (900, 900)
    assert (first[30 + 13], second[30 + 13]) == (ACK | PSH, ACK)


def test_a_header_that_was_not_rebuilt_is_not_joined_to_others(
    hostile: tuple[Plane, Forger],
) -> None:
    """The third has an hdr_len of its own. It begins the next write, and so gets a clean one."""
    b, a = hostile
    a.send(*changed(UDP4, 2, 9))
    assert [len(one) - 38 for one in b.tun.written] == [600, 1200]
    assert {one[:10] for one in b.tun.written} == {UDP4.virtio(28, 300)}


@pytest.mark.parametrize(
    "alone",
    [
        replace(UDP4, fragmentable=True),
        replace(UDP4, options=bytes(4)),
        replace(UDP6, extensions=((60, 1),)),
        replace(TCP4, flags=ACK | CWR),
    ],
    ids=["may be fragmented", "with options", "with an extension", "CWR"],
)
def test_what_is_no_plain_packet_begins_none(
    hostile: tuple[Plane, Forger], alone: Superpacket
) -> None:
    b, a = hostile
    first, second, *_ = segments(alone)
    a.send(first, second)
    assert b.tun.written == [first, second]


@pytest.mark.parametrize(("flow", "size"), [(UDP4, 0), (TCP4, 0), (TCP4, 7)])
def test_packets_with_next_to_nothing_stay_alone(
    hostile: tuple[Plane, Forger], flow: Superpacket, size: int
) -> None:
    """Acknowledgements, say; and segments too small for what a kernel may cut."""
    b, a = hostile
    small = [
        framed(
            replace(flow, payload=PAYLOAD[:size], sequence=flow.sequence + i * size).packet(
                0, size, 7
            ),
            flow.virtio(),
        )[2:]
        for i in range(2)
    ]
    a.send(*small)
    assert b.tun.written == small
