"""What falls due by the clock, with and without control: here time passes as the test says."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway import link
from gateway.dataplane.upkeep import ANNOUNCEMENTS
from gateway.protocol.wire import BLOCK, KEY_LIMIT
from tests.packets import TCP, frame, ipv4, udp
from tests.planes import (
    A_INDEX,
    Plane,
    arrive,
    failing,
    meet,
    of,
    on_the_way,
    session,
    watch,
)
from tests.superpackets import Superpacket

TO_B = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))
TO_A = frame(ipv4("10.10.9.3", "10.10.10.3", udp(b"hello")))


def put(plane: Plane, *frames: bytes) -> None:
    plane.tun.to_read += frames
    plane.work()


# The end of a session's life.


def test_a_session_ends_by_itself() -> None:
    a, b = meet()
    a.pass_time(599)
    put(a, TO_B)
    assert (a.drops(), a.told) == ({}, [])
    a.pass_time(1)
    assert a.told == [link.Expired(A_INDEX)]
    assert a.directory.sessions == {}
    put(a, TO_B)
    assert a.drops() == {"no-session": 1}
    b.work()
    assert b.tun.written == [TO_B], "of what was sent in time"


def test_an_ended_session_receives_nothing() -> None:
    a, b = meet()
    b.pass_time(600)
    first, *rest = on_the_way(a, b, TO_B, of(3))
    arrive(b, first, *rest)
    assert b.tun.written == []
    assert b.drops() == {"unknown-session": 4}


def test_what_waited_for_the_rest_of_its_record_ends_with_it() -> None:
    a, b = meet()
    b.pass_time(599)
    arrive(b, *on_the_way(a, b, of(3))[:2])
    assert b.inbound.waiting == 2
    b.pass_time(1)
    assert b.inbound.waiting == 0
    assert b.drops() == {"incomplete": 2}


def test_a_life_is_as_long_as_control_says() -> None:
    plane = Plane("192.0.2.1", {})
    for index, lifetime in ((1, 30.0), (2, 10.5), (3, 600.0)):
        assert install(plane, index=index, lifetime=lifetime) is None
    plane.pass_time(10)
    assert plane.told == []
    plane.pass_time(1)
    assert plane.told == [link.Expired(2)]
    plane.pass_time(19)
    assert set(plane.directory.sessions) == {3}


def test_the_keys_end_with_it() -> None:
    a, _ = meet()
    held = session(a)
    a.pass_time(600)
    assert not hasattr(held, "seal")
    assert not hasattr(held, "open")
    assert a.peer().sending is None


def test_the_old_one_ends_and_the_new_one_goes_on() -> None:
    a, _ = meet()
    a.pass_time(300)
    assert install(a, index=9, send_key=b"s" * 32) is None
    assert a.order(link.Activate, index=9) is None
    a.pass_time(300)
    assert a.told == [link.Expired(A_INDEX)]
    put(a, TO_B)
    assert a.drops() == {}


def install(plane: Plane, **changes: Any) -> str | None:
    order: dict[str, Any] = {
        "index": 7,
        "peer": "b",
        "peer_index": 8,
        "suite": "aes-256-gcm",
        "receive_key": b"r" * 32,
        "endpoint": ("192.0.2.2", 55555),
    }
    key = changes.get("index", 7).to_bytes(32)
    return plane.order(link.Install, **{"send_key": key} | order | changes)


# A key that sealed all it may.


def test_a_key_is_worn_out_by_records() -> None:
    """Each is a block at least."""
    assert KEY_LIMIT == 2**36
    a, _ = meet()
    a.pass_time(1)
    session(a).counter = KEY_LIMIT // 2 - 1
    a.pass_time(1)
    assert a.told == []
    session(a).counter = KEY_LIMIT // 2
    a.pass_time(1)
    assert a.told == [link.Expired(A_INDEX)]


def test_a_key_is_worn_out_by_bytes() -> None:
    a, _ = meet()
    put(a, TO_B)
    assert (session(a).counter, a.peer().tx_packets) == (2, 1)
    # Two records, a partial block for each, and 12 bytes of frame header: one byte too few.
    a.peer().tx_bytes = (KEY_LIMIT - 4) * BLOCK - 12 - 1
    a.pass_time(1)
    assert a.told == []
    a.peer().tx_bytes += 1
    a.pass_time(1)
    assert a.told == [link.Expired(A_INDEX)]


TRAIN = Superpacket(4, TCP, bytes(40_000), 1300).frame()[2:]


@pytest.mark.parametrize("plan", [[], [1], [0, 1], [90, 0, 105]])
@pytest.mark.parametrize("span", [1, 64])
@pytest.mark.parametrize("frames", [[TO_B], [of(40)], [TO_B] * 7, [of(40), TO_B, of(1)], [TRAIN]])
def test_never_fewer_blocks_are_counted_than_were_sealed(
    frames: list[bytes], span: int, plan: list[int]
) -> None:
    """What did not leave was sealed all the same."""
    a, _ = meet()
    a.commands.carry_out(link.Shape("b", span, 1452))
    counted = session(a)
    sealed = [0, 0]
    seal = counted.seal

    def witness(nonce: Any, data: Any, bound: Any, into: Any) -> int:
        sealed[0] += 1
        sealed[1] += -(-len(data) // BLOCK)
        return seal(nonce, data, bound, into)

    counted.seal = witness
    before = counted.counter
    failing(a.udp, iter(plan))
    put(a, *frames)
    a.pass_time(1)
    records = counted.counter - before
    blocks = (counted.sealed + counted.wasted) // BLOCK + counted.counter
    assert sealed[0] == records
    assert sealed[1] <= blocks <= sealed[1] + 3 * counted.counter + 3


def test_each_session_has_sealed_what_was_sent_on_it() -> None:
    a, _ = meet()
    first = session(a)
    put(a, of(10))
    assert install(a, index=9) is None
    assert a.order(link.Activate, index=9) is None
    second = a.directory.sessions[9]
    put(a, TO_B)
    a.pass_time(1)
    assert (first.sealed, second.sealed) == (len(of(10)) + 2, len(TO_B) + 2)


# Announcements.


def test_a_session_is_announced_until_it_is_heard() -> None:
    a, _ = meet()
    assert install(a, index=9) is None
    assert a.order(link.Activate, index=9) is None
    left = watch(a.udp)
    a.pass_time(3)
    assert [one[4:8] for one in left] == [(8).to_bytes(4)] * 3
    a.directory.sessions[9].heard = True
    a.pass_time(3)
    assert len(left) == 3


def test_nobody_is_called_for_ever() -> None:
    plane = Plane("192.0.2.1", {})
    assert install(plane) is None
    plane.pass_time(20)
    assert plane.udp.sends == 0, "it is not in use yet"
    assert plane.order(link.Activate, index=7) is None
    plane.pass_time(100)
    assert plane.udp.sends == 1 + ANNOUNCEMENTS == 11


# Keepalives.


def test_a_packet_is_answered_though_nobody_answers_it() -> None:
    a, b = meet()
    put(a, TO_B)
    b.work()
    left = watch(b.udp)
    b.pass_time(10)
    assert left == []
    b.pass_time(1)
    assert len(left) == 1
    a.work()
    assert a.tun.written == []
    a.pass_time(60)
    b.pass_time(60)
    assert len(left) == 1
    assert a.udp.sends == 2, "a keepalive is not answered"


def test_a_packet_that_was_refused_is_answered_too() -> None:
    """Else the peer would take us for dead."""
    a, b = meet()
    put(a, frame(ipv4("10.99.0.1", "10.10.9.3", udp())))
    b.work()
    assert b.drops() == {"wrong-source": 1}
    left = watch(b.udp)
    b.pass_time(11)
    assert len(left) == 1


def test_noise_is_not_answered() -> None:
    a, b = meet()
    (datagram,) = on_the_way(a, b, TO_B)
    arrive(b, datagram)
    b.tun.to_read.append(TO_A)
    b.work()
    b.pass_time(11)
    left = watch(b.udp)
    arrive(b, datagram, datagram[:-1])
    b.pass_time(30)
    assert left == []


def test_options_say_when() -> None:
    a, b = meet()
    b.commands.carry_out(link.Options("a", keepalive=2, keepalive_after=5))
    left = watch(b.udp)
    b.pass_time(20.5)
    assert len(left) == 10
    b.commands.carry_out(link.Options("a", keepalive_after=5))
    b.pass_time(20)
    assert len(left) == 10
    put(a, TO_B)
    b.work()
    b.pass_time(5.25)
    assert len(left) == 11


def test_a_keepalive_that_fails_is_a_drop_and_not_tried_each_beat() -> None:
    a, b = meet()
    b.commands.carry_out(link.Options("a", keepalive=5))
    b.udp.failure = OSError(101, "as told")
    b.pass_time(21)
    assert b.drops() == {"unreachable": 4}
    b.commands.carry_out(link.Options("a"))
    put(a, TO_B)
    b.work()
    b.pass_time(30)
    assert b.drops() == {"unreachable": 5}


def test_while_long_records_leave_so_do_empty_ones() -> None:
    a, b = meet()
    left = watch(a.udp)
    for _ in range(8):
        put(a, of(3))
        a.pass_time(0.25)
    empty = [one for one in left if len(one) == 16 + 16]
    assert len(empty) == 8
    b.work()
    assert b.tun.written == [of(3)] * 8


def test_after_a_move_the_receiver_of_a_stream_is_seen_and_proved() -> None:
    """It hears nothing any more, so nothing that it received makes it speak."""
    a, b = meet()
    for _ in range(4):
        put(b, frame(ipv4("10.10.9.3", "10.10.10.3", bytes(9000))))
        a.work()
        a.pass_time(0.25)
        b.work()
    a.pass_time(0.5)  # a NAT gave it another address: nothing arrives
    assert len(b.udp.arrived) == 2
    arrive(
        b,
        *(one for one, _ in [b.udp.arrived.popleft(), b.udp.arrived.popleft()]),
        source=("203.0.113.7", 40000),
    )
    assert b.moved == [("203.0.113.7", 40000)]
    assert not session(b).unproved


def test_a_peer_without_a_session_is_left_alone() -> None:
    a, _ = meet()
    a.commands.carry_out(link.Options("b", keepalive=1))
    assert a.order(link.Retire, index=A_INDEX) is None
    before = a.udp.sends
    a.pass_time(10)
    assert a.udp.sends == before
    assert a.drops() == {}


def test_a_thousand_peers_take_little_of_a_second() -> None:
    plane = Plane("192.0.2.1", {})
    for index in range(1000):
        assert install(plane, index=index, peer=f"p{index}") is None
        assert plane.order(link.Activate, index=index) is None
    for one in plane.directory.sessions.values():
        one.heard = True
    plane.pass_time(1)
    spent = []
    for _ in range(5):
        start = time.process_time()
        plane.pass_time(1)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.02
