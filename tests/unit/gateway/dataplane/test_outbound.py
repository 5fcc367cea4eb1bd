"""TUN -> UDP: routes, seals, fragments; and the rules that keep a nonce from being used twice.

How many packets share a record is in `test_bundling`, how sends fail in `test_sender`.
"""

from __future__ import annotations

import errno
import struct

import pytest

from gateway import link
from gateway.dataplane.tun import TunGoneError
from gateway.protocol.wire import COUNTER_LIMIT
from tests.packets import frame, ipv4, ipv6, udp, virtio
from tests.planes import A_INDEX, B_INDEX, Plane, Switches, meet, session, watch

TO_B = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))


def sent(plane: Plane, *frames: bytes) -> list[bytes]:
    """Let these frames come out of the TUN, one by one; the datagrams that leave."""
    left = watch(plane.udp)
    for one in frames:
        plane.tun.to_read.append(one)
        plane.transmit()
    return left


def test_a_small_packet_leaves_in_one_datagram(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    (datagram,) = sent(a, TO_B)
    assert datagram[:16] == struct.pack(">BBBBIQ", 1, 0, 1, 0, B_INDEX, 1)
    assert len(datagram) == 16 + 2 + len(TO_B) + 16
    assert b"hello" not in datagram
    b.work()
    assert b.tun.written == [TO_B]


def test_a_packet_of_1500_bytes_leaves_in_two(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    big = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(1480)))
    datagrams = sent(a, big)
    assert [one[:16] for one in datagrams] == [
        struct.pack(">BBBBIQ", 1, fragment, 2, 0, B_INDEX, 1) for fragment in (0, 1)
    ]
    assert [len(one) for one in datagrams] == [1452, 16 + 1500 + 12 + 16 - 1436]
    b.work()
    assert b.tun.written == [big]
    assert a.peer().tx_packets == 1
    assert a.peer().tx_bytes == 1500


def test_ipv6_has_its_way_too(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    one = frame(ipv6("fd00:a::3", "fd00:b::3", udp(b"hello")))
    sent(a, one)
    b.work()
    assert b.tun.written == [one]


def test_data_valid_stays_at_home(planes: tuple[Plane, Plane]) -> None:
    """Our kernel's "I verified the sum": the peer would refuse it."""
    a, b = planes
    sent(a, virtio(2) + TO_B[10:])
    b.work()
    assert b.tun.written == [TO_B]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ipv4("10.10.10.3", "10.10.8.3"), "no-route"),
        (ipv6("fd00:a::3", "fd00:c::3"), "no-route"),
        (ipv6("fd00:b::3", "fd00:c::3")[:39], "not-ip"),
        (bytes(40), "not-ip"),
        (ipv4("10.10.10.3", "10.10.9.3")[:19], "not-ip"),
        (b"", "not-ip"),
    ],
)
def test_what_has_no_way_is_dropped(
    planes: tuple[Plane, Plane], packet: bytes, reason: str
) -> None:
    a, _ = planes
    assert sent(a, frame(packet)) == []
    assert a.drops() == {reason: 1}


def test_without_a_session_nothing_leaves(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    assert a.order(link.Retire, index=A_INDEX) is None
    assert sent(a, TO_B) == []
    assert a.drops() == {"no-session": 1}


def test_an_installed_session_sends_only_once_activated(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    order = {"peer": "b", "peer_index": 9, "suite": "aes-256-gcm", "endpoint": b.endpoint}
    keys = {"receive_key": bytes(32), "send_key": b"k" * 32}
    assert a.order(link.Install, index=1, **order, **keys) is None
    (datagram,) = sent(a, TO_B)
    assert datagram[4:8] == struct.pack(">I", B_INDEX)
    assert a.order(link.Activate, index=1) is None
    (datagram,) = sent(a, TO_B)
    assert datagram[4:16] == struct.pack(">IQ", 9, 1)


def test_what_does_not_fit_a_record_is_dropped() -> None:
    a, _ = meet(datagram_size=1232)
    for size in (65515, 65535 - 16 - 12 - 20 + 1):
        assert sent(a, frame(ipv4("10.10.10.3", "10.10.9.3", bytes(size)))) == []
    assert a.drops() == {"too-large": 2}
    assert session(a).counter == 1


def test_what_fits_the_longest_record_arrives(switches: Switches) -> None:
    a, b = meet(datagram_size=1232, switches=switches)
    big = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(65535 - 16 - 12 - 20)))
    assert len(sent(a, big)) == 54
    b.work()
    assert b.tun.written == [big]


# Nonce reuse. Two records under one counter give the difference of their plaintexts and the key
# of AES-GCM's authentication away.


def test_every_record_has_a_counter_of_its_own(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    datagrams = sent(a, *[TO_B] * 50)
    counters = [int.from_bytes(one[8:16]) for one in datagrams]
    assert counters == list(range(1, 51))
    assert len({one[16:] for one in datagrams}) == 50, "equal packets, different bytes"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EPERM, "send-refused"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.EMSGSIZE, "datagram-too-large"),
        (errno.ENOBUFS, "send-buffer-full"),
        (errno.EAGAIN, "send-buffer-full"),
        (errno.EIO, "send-failed"),
    ],
)
def test_a_counter_is_not_given_back_when_the_send_fails(
    planes: tuple[Plane, Plane], number: int, reason: str
) -> None:
    a, _ = planes
    a.udp.failure = OSError(number, "as told")
    assert sent(a, TO_B, TO_B) == []
    assert a.drops() == {reason: 2}
    spent = session(a).counter
    assert spent >= 3
    a.udp.failure = None
    (datagram,) = sent(a, TO_B)
    assert int.from_bytes(datagram[8:16]) == spent
    assert a.peer().tx_packets == 1


def test_a_counter_is_not_given_back_when_the_second_fragment_fails() -> None:
    a, _ = meet(switches=Switches(gso=False))

    def fail_after_the_first(datagram: bytes) -> list[bytes]:
        a.udp.failure = OSError(errno.ENOBUFS, "full")
        return [datagram]

    a.udp.path = fail_after_the_first
    a.tun.to_read.append(frame(ipv4("10.10.10.3", "10.10.9.3", bytes(1480))))
    a.transmit()
    assert a.drops() == {"send-buffer-full": 1}
    a.udp.failure = None
    (datagram,) = sent(a, TO_B)
    assert int.from_bytes(datagram[8:16]) == 2


def test_a_counter_is_consumed_before_sealing(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    counters = []

    def seal(*_arguments: object) -> int:
        counters.append(session(a).counter)
        raise MemoryError

    session(a).seal = seal
    with pytest.raises(MemoryError):
        sent(a, TO_B)
    assert counters == [2]
    assert session(a).counter == 2


def test_a_session_stops_at_the_limit(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    assert COUNTER_LIMIT == 1 << 36
    session(a).counter = COUNTER_LIMIT - 1
    assert len(sent(a, TO_B, TO_B)) == 1
    assert a.drops() == {"counter-exhausted": 1}
    b.work()
    assert b.tun.written == [TO_B]
    assert a.order(link.Activate, index=A_INDEX) is None
    assert a.drops() == {"counter-exhausted": 2}, "no keepalive either"


def test_a_deleted_tun_is_said(
    planes: tuple[Plane, Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = planes

    def read(_into: object) -> int:
        raise OSError(errno.EBADFD, "as told")

    monkeypatch.setattr(a.tun, "read", read)
    with pytest.raises(TunGoneError, match="deleted"):
        a.transmit()


def test_one_direction_has_its_turn_after_64_packets(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    a.tun.to_read += [TO_B] * 100
    a.transmit()
    assert len(a.tun.to_read) == 36
    assert a.peer().tx_packets == 64, "and nothing of what was read waits"


def test_one_direction_has_its_turn_after_256_kilobytes(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    a.tun.to_read += [frame(ipv4("10.10.10.3", "10.10.9.3", bytes(60_000)))] * 10
    a.transmit()
    assert len(a.tun.to_read) == 5
    assert a.peer().tx_packets == 5
