"""UDP -> TUN: each check in the packet's order, and what an adversary tries at it."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

import pytest

from gateway import link
from tests.packets import NO_OFFLOAD, frame, ipv4, ipv6, tcp, udp, virtio
from tests.planes import (
    A_INDEX,
    B_INDEX,
    Plane,
    Switches,
    arrive,
    meet,
    meet_hostile,
    on_the_way,
    session,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TO_B = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))
BIG = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(1480)))
TWICE = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(2 * 1436 - 16 - 12 - 20)))  # two full datagrams


def test_a_packet_arrives(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    arrive(b, *on_the_way(a, b, TO_B, BIG))
    assert b.tun.written == [TO_B, BIG]
    assert b.drops() == {}
    peer = b.peer()
    assert (peer.rx_packets, peer.rx_bytes) == (2, len(TO_B) + len(BIG) - 20)
    assert peer.heard == b.now


def test_the_first_record_of_a_session_is_told_once(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    assert (a.heard, b.heard) == ([A_INDEX], [B_INDEX]), "by the empty record of the activation"
    arrive(b, *on_the_way(a, b, TO_B))
    assert b.heard == [B_INDEX]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d[:0], "malformed"),
        (lambda d: d[:16], "malformed"),
        (lambda d: b"\2" + d[1:], "malformed"),
        (lambda d: d[:3] + b"\1" + d[4:], "malformed"),
        (lambda d: d[:1] + b"\1" + d[2:], "malformed"),
        (lambda d: d[:4] + b"\0" + d[5:], "unknown-session"),
        (lambda d: d[:-1], "forged"),
        (lambda d: d[:20], "forged"),
        (lambda d: d + b"\0", "forged"),
        (lambda d: d[:15] + b"\7" + d[16:], "forged"),
        (lambda d: d[:16] + bytes([d[16] ^ 1]) + d[17:], "forged"),
        (lambda d: d[:8] + bytes(8) + d[16:], "replay"),
    ],
)
def test_a_changed_datagram_is_dropped(
    planes: tuple[Plane, Plane], change: Callable[[bytes], bytes], reason: str
) -> None:
    a, b = planes
    arrive(b, *map(change, on_the_way(a, b, TO_B)))
    assert b.tun.written == []
    assert b.drops() == {reason: 1}


def test_a_replayed_record_is_dropped(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, TO_B, BIG)
    arrive(b, *datagrams, *datagrams)
    assert b.tun.written == [TO_B, BIG]
    assert b.drops() == {"replay": 3}
    assert b.inbound.waiting == 0, "a replayed fragment takes no slot"


def test_a_record_behind_the_window_is_dropped(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    (late,) = on_the_way(a, b, TO_B)
    session(a).counter = 9000
    arrive(b, *on_the_way(a, b, TO_B), late)
    assert b.drops() == {"too-old": 1}


def test_a_forged_record_does_not_move_the_window(planes: tuple[Plane, Plane]) -> None:
    """Commit comes after opening: else one forged counter would shut honest records out."""
    a, b = planes
    (datagram,) = on_the_way(a, b, TO_B)
    forged = datagram[:8] + struct.pack(">Q", 1 << 50) + datagram[16:]
    same = datagram[:-1] + bytes([datagram[-1] ^ 1])
    arrive(b, forged, same, datagram)
    assert b.tun.written == [TO_B]
    assert b.drops() == {"forged": 2}


def test_fragments_of_two_records_do_not_mix(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    first, second, third, fourth = on_the_way(a, b, TWICE, TWICE)
    mixed = third[:16] + second[16:]
    arrive(b, fourth, mixed, second, first)
    assert b.tun.written == [TWICE]
    assert b.drops() == {"forged": 2}


def test_swapped_fragments_do_not_open(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    first, second = on_the_way(a, b, TWICE)
    arrive(b, first[:16] + second[16:], second[:16] + first[16:])
    assert b.tun.written == []
    assert b.drops() == {"forged": 2}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["in order", "the other way"])
def test_a_late_fragment_meets_no_old_one(
    planes: tuple[Plane, Plane], order: tuple[int, ...]
) -> None:
    """Also where the loop was late to look at what has waited too long."""
    a, b = planes
    three = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(3000)))
    parts = on_the_way(a, b, three)
    early, late, last = (parts[i] for i in order)
    arrive(b, early)
    b.now += 1.0
    arrive(b, late, last)
    assert b.tun.written == []
    assert b.drops() == {"incomplete": 1}
    arrive(b, early)
    assert b.tun.written == [three]


@pytest.mark.parametrize("source", [("192.0.2.1", 55556), ("192.0.2.7", 55555)])
def test_a_fragment_from_elsewhere_is_dropped(
    planes: tuple[Plane, Plane], source: tuple[str, int]
) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, BIG)
    arrive(b, *datagrams, source=source)
    assert b.tun.written == []
    assert b.drops() == {"wrong-endpoint": 2}
    assert b.inbound.waiting == 0
    arrive(b, *datagrams)
    assert b.tun.written == [BIG]


def test_a_retired_session_is_unknown(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, BIG, TO_B)
    arrive(b, datagrams[0])
    assert b.order(link.Retire, index=B_INDEX) is None
    arrive(b, *datagrams[1:])
    assert b.tun.written == []
    assert b.drops() == {"incomplete": 1, "unknown-session": 2}


# The peer itself is hostile: it has the keys.


def test_control_of_the_forger(switches: Switches) -> None:
    """Positive control: what a hostile peer sends in good order does arrive."""
    b, a = meet_hostile(switches=switches)
    a.send(TO_B, TO_B)
    assert b.tun.written == [TO_B, TO_B]
    assert b.drops() == {}


@pytest.mark.parametrize(
    "packet",
    [
        ipv4("10.10.9.4", "10.10.9.3", udp()),  # one of our own
        ipv4("192.0.2.9", "10.10.9.3", udp()),  # a stranger
        ipv4("10.0.4.2", "10.10.9.3", udp()),  # another peer
        ipv6("fd00:b::4", "fd00:b::3", udp()),
        ipv6("fe80::1", "fd00:b::3", udp()),
    ],
)
def test_a_source_that_is_not_the_peers_is_dropped(packet: bytes) -> None:
    b, a = meet_hostile()
    assert b.route({"a": ["10.10.10.0/24", "fd00:a::/64"], "c": ["10.0.4.2/32"]}) is None
    a.send(frame(packet))
    assert b.tun.written == []
    assert b.drops() == {"wrong-source": 1}


@pytest.mark.parametrize(
    "destination",
    ["127.0.0.1", "0.0.0.0", "255.255.255.255", "240.0.0.1", "::1", "::", "::ffff:127.0.0.1"],
)
def test_a_destination_that_no_site_has_is_dropped(destination: str) -> None:
    b, a = meet_hostile()
    six = ":" in destination
    a.send(frame(ipv6("fd00:a::3", destination) if six else ipv4("10.10.10.3", destination)))
    assert b.tun.written == []
    assert b.drops() == {"bad-destination": 1}


@pytest.mark.parametrize(
    "header",
    [
        virtio(1, start=20, offset=2),  # rewrites the port after the firewall saw it
        virtio(1, start=0, offset=16),
        virtio(1, 1, size=1, start=20, offset=16),
        virtio(2),
        virtio(1, 3, size=100, start=20, offset=16),
    ],
)
def test_a_hostile_offload_header_is_dropped(header: bytes) -> None:
    b, a = meet_hostile()
    a.send(frame(ipv4("10.10.10.3", "10.10.9.3", tcp(bytes(100)), 6), header))
    assert b.tun.written == []
    assert b.drops() == {"bad-offload": 1}


def test_a_peers_header_is_never_passed_on() -> None:
    b, a = meet_hostile()
    packet = ipv4("10.10.10.3", "10.10.9.3", tcp(bytes(100)), 6)
    a.send(frame(packet, virtio(0, length=1, size=2, start=3, offset=4)))
    a.send(frame(packet, virtio(1, length=65535, size=65535, start=20, offset=16)))
    assert b.tun.written == [
        NO_OFFLOAD + packet,
        virtio(1, start=20, offset=16) + packet,
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\0", "bad-frame"),
        (bytes(12), "bad-frame"),
        (struct.pack(">H", 65535) + TO_B, "bad-frame"),
        (struct.pack(">H", 20) + bytes(30), "not-ip"),
        (struct.pack(">H", 20) + bytes(10) + b"\x60" + bytes(19), "not-ip"),
    ],
)
def test_a_record_that_holds_no_packets_is_dropped(payload: bytes, reason: str) -> None:
    b, a = meet_hostile()
    a.send(payload=payload)
    assert b.tun.written == []
    assert b.drops() == {reason: 1}


def test_a_record_with_a_broken_frame_delivers_none() -> None:
    b, a = meet_hostile()
    good = struct.pack(">H", len(TO_B) - 10) + TO_B
    a.send(payload=good + b"\0\1")
    assert b.tun.written == []
    assert b.drops() == {"bad-frame": 1}


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EIO, "tun-down"), (errno.EINVAL, "tun-refused"), (errno.ENOBUFS, "tun-failed")],
)
def test_a_write_that_fails_is_a_drop(
    planes: tuple[Plane, Plane], number: int, reason: str
) -> None:
    a, b = planes
    b.tun.failure = OSError(number, "as told")
    arrive(b, *on_the_way(a, b, TO_B))
    assert b.drops() == {reason: 1}
    assert b.peer().rx_packets == 0
    b.tun.failure = None
    arrive(b, *on_the_way(a, b, TO_B))
    assert b.tun.written == [TO_B]


def test_one_direction_has_its_turn_after_64_receives() -> None:
    a, b = meet(switches=Switches(gro=True))
    growing = [frame(ipv4("10.10.10.3", "10.10.9.3", bytes(size))) for size in range(100)]
    arrived = on_the_way(a, b, *growing)  # such are not joined
    b.udp.arrived += [(one, a.endpoint) for one in arrived]
    b.receive()
    assert len(b.tun.written) == 64
    b.work()
    assert b.tun.written == growing


@pytest.mark.parametrize("gro", [True, False])
def test_one_direction_has_its_turn_after_256_kilobytes(gro: bool) -> None:
    a, b = meet(switches=Switches(gro=gro))
    long = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(60_000)))
    arrived = on_the_way(a, b, *[long] * 10)
    b.udp.arrived += [(one, a.endpoint) for one in arrived]
    b.receive()
    assert len(b.tun.written) in {5, 6}, "what goes past it was received with the rest"
    b.work()
    assert b.tun.written == [long] * 10


@pytest.mark.parametrize("gro", [True, False])
def test_whoever_is_not_to_look_for_more_does_not(gro: bool) -> None:
    """The loop says so after a sleep: what came alone is not delayed by what may follow."""
    a, b = meet(switches=Switches(gro=gro))
    first, second = on_the_way(a, b, TO_B, BIG)[:2]
    b.udp.arrived += [(one, a.endpoint) for one in (first, second)]
    b.receive(most=1)
    assert b.tun.written == [TO_B]
    assert len(b.udp.arrived) == 1


def test_nobody_asks_again_when_a_batch_was_all(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = meet(switches=Switches(gro=False))
    datagrams = on_the_way(a, b, *[TO_B] * 5)

    def receive(_into: object) -> None:
        pytest.fail("it asked")

    monkeypatch.setattr(b.udp, "receive", receive)
    b.udp.arrived += [(one, a.endpoint) for one in datagrams]
    b.receive()
    assert b.tun.written == [TO_B] * 5


def test_a_read_that_fails_is_a_drop(
    planes: tuple[Plane, Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, TO_B)

    def receive(_into: object) -> None:
        raise OSError(errno.ENOMEM, "as told")

    with monkeypatch.context() as broken:
        broken.setattr(b.udp, "receive", receive)
        b.receive()
    assert b.drops() == {"receive-failed": 1}
    arrive(b, *datagrams)
    assert b.tun.written == [TO_B]
