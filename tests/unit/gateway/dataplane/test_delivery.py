"""Opened frames on their way into the TUN: whole, cut or joined, as the kernel takes them."""

from __future__ import annotations

import errno
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.packets import TCP, UDP
from tests.planes import Forger, Plane, Switches, meet_hostile
from tests.superpackets import Superpacket, framed

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


# Datagrams of one flow that stand side by side in a record.


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def flow(request: pytest.FixtureRequest) -> Superpacket:
    return superpacket(request.param, UDP, 300, 20)


def test_datagrams_of_one_flow_are_one_write(
    hostile: tuple[Plane, Forger], flow: Superpacket
) -> None:
    b, a = hostile
    a.send(*segments(flow))
    assert b.tun.written == [rebuilt(flow)]
    assert (b.peer().rx_packets, b.peer().rx_bytes) == (20, sum(map(len, segments(flow))) - 200)


def test_at_most_64_are_joined(hostile: tuple[Plane, Forger]) -> None:
    b, a = hostile
    many = superpacket(4, UDP, 20, 150)
    a.send(*segments(many))
    assert [len(one) - 38 for one in b.tun.written] == [64 * 20, 64 * 20, 22 * 20]


def test_what_stands_between_two_flows_keeps_its_place(
    hostile: tuple[Plane, Forger], flow: Superpacket
) -> None:
    b, a = hostile
    other = superpacket(10 - flow.version, UDP, 300, 3)
    tcp = superpacket(4, TCP, 300, 2)
    a.send(*segments(flow), *segments(other), *segments(tcp), *segments(flow))
    assert b.tun.written == [rebuilt(flow), rebuilt(other), *segments(tcp), rebuilt(flow)]


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
    """Its segments, of which the third has another byte there; IPv4, from the virtio header on."""
    frames = [bytearray(each) for each in segments(one)]
    frames[2][at] = value
    return [bytes(each) for each in frames]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0),  # its checksum is finished
        (10 + 1, 4),  # another class of traffic
        (10 + 6, 0x00),  # it may be fragmented
        (10 + 8, 63),  # another number of hops
        (10 + 15, 3),  # from another host
        (10 + 19, 3),  # to another host
        (30 + 1, 1),  # from another port
        (30 + 3, 1),  # to another port
        (30 + 6, 1),  # another sum
    ],
)
def test_what_differs_in_anything_stays_apart(
    hostile: tuple[Plane, Forger], at: int, value: int
) -> None:
    b, a = hostile
    flow = superpacket(4, UDP, 300, 6)
    frames = changed(flow, at, value)
    a.send(*frames)
    assert [len(one) - 38 for one in b.tun.written] == [600, 300, 900]
    assert b.tun.written[1][10:] == frames[2][10:]


def test_a_header_that_was_not_rebuilt_is_not_joined_to_others(
    hostile: tuple[Plane, Forger],
) -> None:
    """The third has an hdr_len of its own. It begins the next write, and so gets a clean one."""
    b, a = hostile
    flow = superpacket(4, UDP, 300, 6)
    a.send(*changed(flow, 2, 9))
    assert [len(one) - 38 for one in b.tun.written] == [600, 1200]
    assert {one[:10] for one in b.tun.written} == {flow.virtio(28, 300)}


@pytest.mark.parametrize(
    "alone",
    [
        replace(superpacket(4, UDP), fragmentable=True),
        replace(superpacket(4, UDP), options=bytes(4)),
        replace(superpacket(6, UDP), extensions=((60, 1),)),
        superpacket(4, TCP),
        superpacket(6, TCP),
    ],
    ids=["may be fragmented", "with options", "with an extension", "TCP", "TCP over IPv6"],
)
def test_what_is_no_plain_datagram_stays_alone(
    hostile: tuple[Plane, Forger], alone: Superpacket
) -> None:
    b, a = hostile
    a.send(*segments(alone))
    assert b.tun.written == segments(alone)


def test_datagrams_without_payload_stay_alone(hostile: tuple[Plane, Forger]) -> None:
    b, a = hostile
    empty = superpacket(4, UDP, 300, 1)
    one = framed(replace(empty, payload=b"").packet(0, 0, 7), empty.virtio())[2:]
    a.send(one, one)
    assert b.tun.written == [one, one]
