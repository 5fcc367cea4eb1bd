"""Packets and records: what waits for one peer shares one, what is too long is split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway import link
from gateway.protocol.wire import MAX_RECORD
from tests.packets import TCP, UDP, frame, ipv4, udp
from tests.planes import B_INDEX, Plane, Switches, Witness, meet, session, watch
from tests.superpackets import FRAME_HEADER, Superpacket, framed

if TYPE_CHECKING:
    from collections.abc import Sequence

PAYLOAD = bytes(range(251)) * 262  # 65,762 bytes
C_INDEX = 0xC0000003


def packet(number: int, size: int = 8) -> bytes:
    return frame(ipv4("10.10.10.3", "10.10.9.3", udp(number.to_bytes(4) + bytes(size - 4))))


def sent(a: Plane, frames: Sequence[bytes]) -> list[bytes]:
    """Let these frames wait in the TUN together; the datagrams that leave in one drain."""
    left = watch(a.udp)
    a.tun.to_read += frames
    a.transmit()
    return left


def records(datagrams: Sequence[bytes]) -> list[tuple[int, int]]:
    """Counter, and length of the sealed record, of each in turn."""
    found: dict[int, int] = {}
    for one in datagrams:
        counter = int.from_bytes(one[8:16])
        found[counter] = found.get(counter, 0) + len(one) - 16
    return list(found.items())


def test_a_packet_that_comes_alone_leaves_alone_and_at_once(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    assert len(sent(a, [packet(1)])) == 1
    b.work()
    assert b.tun.written == [packet(1)]


def test_whoever_is_not_to_look_for_more_does_not(planes: tuple[Plane, Plane]) -> None:
    """The loop says so after a sleep: a ping's answer is not delayed by what may follow."""
    a, b = planes
    a.tun.to_read += [packet(i) for i in range(3)]
    a.transmit(most=1)
    b.work()
    assert b.tun.written == [packet(0)]
    assert len(a.tun.to_read) == 2


def test_packets_that_wait_for_one_peer_share_a_record(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    before = a.peer().counters()
    datagrams = sent(a, [packet(i) for i in range(5)])
    ((_, length),) = records(datagrams)
    assert length == 5 * (FRAME_HEADER + 20 + 8 + 8) + 16
    b.work()
    assert b.tun.written == [packet(i) for i in range(5)]
    after = a.peer().counters()
    assert after.tx_packets - before.tx_packets == 5
    assert after.tx_bytes - before.tx_bytes == 5 * 36
    assert after.tx_records - before.tx_records == 1


def test_a_record_is_filled_and_not_past_its_limit(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    a.commands.carry_out(link.Shape("b", 8, 1452))
    frames = [packet(i, 500 + 17 * i) for i in range(50)]
    lengths = [length for _, length in records(sent(a, frames))]
    assert len(lengths) > 3
    assert all(8 * 1436 - 2048 - 1400 < length <= 8 * 1436 for length in lengths[:-1])
    b.work()
    assert b.tun.written == frames


@pytest.mark.parametrize(("size", "shared"), [(0, True), (1, False)])
def test_a_record_may_be_full_to_the_last_byte(
    planes: tuple[Plane, Plane], size: int, shared: bool
) -> None:
    a, b = planes
    a.commands.carry_out(link.Shape("b", 8, 1452))
    first = packet(1, 8 * 1436 - 16 - 2 * (FRAME_HEADER + 28) - 3000)
    frames = [first, packet(2, 3000 + size)]
    found = records(sent(a, frames))
    assert found[0][1] == (8 * 1436 if shared else len(first) + 2 + 16)
    assert len(found) == (1 if shared else 2)
    b.work()
    assert b.tun.written == frames


def test_packets_keep_their_order_whatever_their_sizes(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    frames = [packet(i, size) for i, size in enumerate([8, 1400, 40, 30000, 9, 60000, 2100, 8] * 6)]
    a.tun.to_read += frames
    a.work()
    b.work()
    assert b.tun.written == frames
    assert a.drops() == {}


def test_records_are_for_one_peer_each() -> None:
    a, b = meet()
    c = Plane("192.0.2.3", a.udp._network)
    order = {"index": C_INDEX, "peer": "c", "peer_index": 8, "suite": "aes-256-gcm"}
    keys = {"receive_key": b"c" * 32, "send_key": b"a" * 32}
    assert a.order(link.Install, **order, **keys, endpoint=c.endpoint) is None
    assert a.route({"b": ["10.10.9.0/24"], "c": ["10.10.8.0/24"]}) is None
    assert a.order(link.Activate, index=C_INDEX) is None
    elsewhere = frame(ipv4("10.10.10.3", "10.10.8.3", udp(b"to c")))
    nowhere = frame(ipv4("10.10.10.3", "10.10.7.3", udp(b"to nobody")))
    datagrams = sent(
        a, [packet(1), nowhere, packet(2), elsewhere, elsewhere, packet(3), nowhere, packet(4)]
    )
    assert [one[4:8] for one in datagrams] == [index.to_bytes(4) for index in (B_INDEX, 8, B_INDEX)]
    b.work()
    assert b.tun.written == [packet(i) for i in range(1, 5)]
    assert a.drops() == {"no-route": 2}


def test_on_a_path_that_loses_datagrams_no_packet_shares_the_fate_of_another(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    a.commands.carry_out(link.Shape("b", 1, 1452))
    frames = [packet(i) for i in range(20)]
    assert len(records(sent(a, frames))) == 20
    b.work()
    assert b.tun.written == frames


# Superpackets.


def superpacket(version: int = 4, protocol: int = TCP, size: int = 60_000) -> Superpacket:
    return Superpacket(version, protocol, PAYLOAD[:size], 1448 if protocol == TCP else 1400)


def as_seen(chunks: Sequence[bytes]) -> list[bytes]:
    """What the other TUN gets: the same frames without their lengths."""
    return [chunk[2:] for chunk in chunks]


def rebuilt(whole: Superpacket) -> bytes:
    """The frame with the header that a receiver writes."""
    return framed(
        whole.packet(0, len(whole.payload), whole.identification),
        whole.virtio(whole.headers, whole.segment),
    )


@pytest.fixture(
    params=[(4, TCP), (6, TCP), (4, UDP), (6, UDP)], ids=["TSO4", "TSO6", "USO4", "USO6"]
)
def whole(request: pytest.FixtureRequest) -> Superpacket:
    return superpacket(*request.param)


def test_a_superpacket_leaves_as_one_record(gso: bool, whole: Superpacket) -> None:
    a, b = meet(switches=Switches(gso=gso))
    before = a.udp.sends
    datagrams = sent(a, [whole.frame()[2:]])
    ((_, length),) = records(datagrams)
    assert length == len(whole.frame()) + 16
    assert len(datagrams) == -(-length // 1436)
    assert a.udp.sends - before == (1 if gso else len(datagrams))
    b.work()
    assert b.tun.written == as_seen([rebuilt(whole)])


def test_the_longest_superpacket_takes_two_sends() -> None:
    """Its datagrams have 66 KB together; one send takes 65,507 bytes."""
    a, b = meet()
    whole = superpacket(size=65535 - 40 - 12 - 16)
    before = a.udp.sends
    assert records(sent(a, [whole.frame()[2:]]))[0][1] == MAX_RECORD
    assert a.udp.sends - before == 2
    b.work()
    assert b.tun.written == as_seen([rebuilt(whole)])


def test_one_byte_more_is_split() -> None:
    a, b = meet()
    whole = superpacket(size=65535 - 40 - 12 - 16 + 1)
    found = records(sent(a, [whole.frame()[2:]]))
    assert len(found) == 2
    b.work()
    assert b.tun.written == as_seen([*whole.chunks(45 * 1448)])


@pytest.mark.parametrize("span", [2, 3, 16, 40])
def test_a_superpacket_that_exceeds_the_span_is_split_on_segment_borders(
    gso: bool, whole: Superpacket, span: int
) -> None:
    a, b = meet(switches=Switches(gso=gso))
    a.commands.carry_out(link.Shape("b", span, 1452))
    found = records(sent(a, [whole.frame()[2:]]))
    room = span * 1436 - 16 - FRAME_HEADER - whole.headers
    chunks = [*whole.chunks(room // whole.segment * whole.segment)]
    assert [length for _, length in found] == [len(chunk) + 16 for chunk in chunks]
    assert all(length <= span * 1436 for _, length in found)
    b.work()
    assert b.tun.written == as_seen(chunks)


def test_at_span_1_tcp_is_cut_into_packets_of_one_datagram_each_in_one_send(gso: bool) -> None:
    a, b = meet(switches=Switches(gso=gso, tun_offload=False))
    a.commands.carry_out(link.Shape("b", 1, 1452))
    whole = superpacket()
    before = a.udp.sends
    datagrams = sent(a, [whole.frame()[2:]])
    room = 1436 - 16 - FRAME_HEADER - 40
    chunks = [*whole.chunks(room, segment=room)]
    assert len(records(datagrams)) == len(datagrams) == len(chunks)
    assert max(map(len, datagrams)) == 1452
    assert a.udp.sends - before == (1 if gso else len(datagrams))
    b.work()
    assert b.tun.written == as_seen(chunks)


def test_at_span_1_udp_keeps_its_datagrams(gso: bool) -> None:
    """They are the application's own: cut into two, at worst, as any packet is."""
    a, b = meet(switches=Switches(gso=gso, tun_offload=False))
    a.commands.carry_out(link.Shape("b", 1, 1452))
    whole = superpacket(protocol=UDP, size=10 * 1400)
    datagrams = sent(a, [whole.frame()[2:]])
    assert (len(records(datagrams)), len(datagrams)) == (10, 20)
    b.work()
    assert b.tun.written == as_seen([*whole.chunks(1400)])


def test_a_superpacket_does_not_overtake_what_was_gathered(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    a.commands.carry_out(link.Shape("b", 8, 1452))
    witness = Witness(session(a))
    whole = superpacket(protocol=UDP)
    sent(a, [packet(1), packet(2), whole.frame()[2:], packet(3)])
    b.work()
    seen = b.tun.written
    assert seen[:2] == [packet(1), packet(2)]
    assert seen[-1] == packet(3)
    assert len(witness.counters) == len(set(witness.counters)) > 5


def test_a_superpacket_behind_others_is_sealed_where_it_was_read(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    whole = superpacket(protocol=UDP)
    found = records(sent(a, [packet(1), packet(2, 6000), whole.frame()[2:], packet(3)]))
    assert len(found) == 3
    b.work()
    assert b.tun.written[:2] == [packet(1), packet(2, 6000)]
    assert b.tun.written[-1] == packet(3)
    assert sum(one[:2] != bytes(2) for one in b.tun.written) in {1, 43}, "whole, or cut there"


@pytest.fixture(params=[True, False], ids=["gso", "no gso"])
def gso(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen
