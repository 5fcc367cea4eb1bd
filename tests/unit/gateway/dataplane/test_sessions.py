"""What records to a peer may be like, and how many of its own did not come."""

from __future__ import annotations

import pytest

from gateway.dataplane.sessions import Directory, Peer
from gateway.protocol.wire import MAX_RECORD
from tests.packets import frame, ipv4, udp
from tests.planes import Plane, arrive, meet, on_the_way, session

SMALL = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))


@pytest.fixture
def peer() -> Peer:
    return Directory(64, 1452).peer("b")


@pytest.mark.parametrize(
    ("span", "datagram_size", "room", "limit"),
    [
        (1, 1452, 1436, 1436),
        (16, 1452, 1436, 16 * 1436),
        (64, 1452, 1436, MAX_RECORD),
        (64, 1232, 1216, MAX_RECORD),
        (45, 1452, 1436, 45 * 1436),
    ],
)
def test_a_record_is_what_its_datagrams_take(
    peer: Peer, span: int, datagram_size: int, room: int, limit: int
) -> None:
    peer.shape(span, datagram_size)
    assert (peer.room, peer.limit) == (room, limit)


def test_what_the_kernel_refused_is_not_tried_again_in_this_session(peer: Peer) -> None:
    assert peer.shrink()
    assert peer.datagram_size == 1452 * 31 // 32
    peer.shape(8, 1452)
    assert (peer.span, peer.datagram_size) == (8, 1406)
    peer.shape(8, 1300)
    assert peer.datagram_size == 1300
    peer.try_anew()
    assert peer.datagram_size == 1300, "control said so, not the kernel"
    peer.shape(8, 1452)
    peer.try_anew()
    assert (peer.datagram_size, peer.room) == (1452, 1436)


def test_datagrams_shrink_to_what_every_path_takes_and_no_further(peer: Peer) -> None:
    sizes = [peer.datagram_size]
    while peer.shrink():
        sizes.append(peer.datagram_size)
        assert (peer.room, peer.limit) == (sizes[-1] - 16, MAX_RECORD)
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) < 10
    assert sizes[-1] == 1232
    assert peer.datagram_size == 1232


# Records that did not come: counters passed over.


@pytest.fixture
def planes() -> tuple[Plane, Plane]:
    return meet()


def lost(b: Plane, *, ours: bool = False) -> int:
    b.directory.count_lost(ours=ours)
    return b.peer().rx_lost


def test_counters_passed_over_are_lost_records(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    assert lost(b) == 0
    first, *_, last = on_the_way(a, b, *[SMALL] * 8)
    arrive(b, first, last)
    assert lost(b) == 6
    assert lost(b) == 6, "each once"


def test_a_late_record_was_not_lost(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    first, second, third = on_the_way(a, b, *[SMALL] * 3)
    arrive(b, third)
    assert lost(b) == 2
    arrive(b, first)
    assert lost(b) == 1
    arrive(b, second)
    assert lost(b) == 0


def test_what_we_had_no_room_for_is_not_lost_by_the_path(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, *[SMALL] * 10)
    arrive(b, datagrams[4])
    assert lost(b, ours=True) == 0
    arrive(b, datagrams[7])
    assert lost(b) == 2, "and what is missing since"
    arrive(b, *datagrams[:4])
    assert lost(b) == 0, "never below"


def test_a_forged_record_makes_none_lost(planes: tuple[Plane, Plane]) -> None:
    """Only what opened tells of counters: a stranger could call the path bad otherwise."""
    a, b = planes
    (datagram,) = on_the_way(a, b, SMALL)
    arrive(b, datagram[:8] + (1 << 30).to_bytes(8) + datagram[16:])
    assert b.drops() == {"forged": 1}
    assert lost(b) == 0
    arrive(b, datagram)
    assert lost(b) == 0
    assert session(b).window.highest == 1
