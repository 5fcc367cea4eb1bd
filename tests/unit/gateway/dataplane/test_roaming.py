"""A peer turns up elsewhere: what moves its session there, and what may be sent there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from gateway import link
from gateway.dataplane import roaming
from gateway.protocol.wire import COUNTER_LIMIT
from tests.packets import TCP, frame, ipv4, udp
from tests.planes import A_INDEX, B_INDEX, Plane, arrive, meet, of, on_the_way, session, watch
from tests.superpackets import Superpacket

if TYPE_CHECKING:
    from gateway.dataplane.sessions import Session

HOME = ("192.0.2.1", 55555)
ELSEWHERE = ("203.0.113.7", 40000)
FURTHER = ("203.0.113.8", 40001)

TO_B = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))
TO_A = frame(ipv4("10.10.9.3", "10.10.10.3", udp(b"hello")))


def small(number: int) -> bytes:
    return frame(ipv4("10.10.10.3", "10.10.9.3", udp(bytes([number] * 5))))


def sent(b: Plane, *frames: bytes) -> list[bytes]:
    """Let b send these; the datagrams that left."""
    left = watch(b.udp)
    for one in frames:
        b.tun.to_read.append(one)
        b.transmit()
    b.udp.path = lambda datagram: [datagram]
    return left


def test_a_session_follows_its_peer(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    arrive(b, *on_the_way(a, b, small(1)), source=ELSEWHERE)
    assert b.tun.written == [small(1)]
    assert session(b).endpoint == ELSEWHERE
    assert b.moved == [ELSEWHERE]
    assert b.drops() == {}


def test_answers_go_to_the_new_endpoint(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    new = Plane(ELSEWHERE[0], a.udp._network)
    a.udp._network[ELSEWHERE] = new.udp
    arrive(b, *on_the_way(a, b, small(1)), source=ELSEWHERE)
    assert len(sent(b, TO_A)) == len(new.udp.arrived) == 1


def test_a_keepalive_is_enough(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    a.outbound.send_empty(session(a))
    (empty, _) = b.udp.arrived.popleft()
    arrive(b, empty, source=ELSEWHERE)
    assert b.moved == [ELSEWHERE]


def test_a_recorded_datagram_moves_nothing(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    datagrams = on_the_way(a, b, small(1), small(2))
    arrive(b, *datagrams)
    arrive(b, *datagrams, source=ELSEWHERE)
    assert session(b).endpoint == HOME
    assert b.drops() == {"replay": 2}


def test_a_datagram_held_back_moves_nothing_once_a_newer_one_came(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    held, newer = on_the_way(a, b, small(1), small(2))
    arrive(b, newer)
    arrive(b, held, source=ELSEWHERE)
    assert b.tun.written == [small(2), small(1)], "it is genuine, so it is delivered"
    assert session(b).endpoint == HOME
    assert b.moved == []


def test_after_a_move_what_is_late_from_home_moves_nothing(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    late, newer, newest = on_the_way(a, b, small(1), small(2), small(3))
    arrive(b, newer, source=ELSEWHERE)
    b.now += 5
    arrive(b, late)
    assert b.tun.written == [small(2), small(1)]
    assert session(b).endpoint == ELSEWHERE
    arrive(b, newest)
    assert session(b).endpoint == HOME, "it is back"
    assert b.moved == [ELSEWHERE, HOME]


def test_a_bent_datagram_moves_nothing(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    (datagram,) = on_the_way(a, b, TO_B)
    arrive(b, datagram[:-1] + bytes([datagram[-1] ^ 1]), source=ELSEWHERE)
    assert b.drops() == {"forged": 1}
    assert session(b).endpoint == HOME


def test_a_part_of_a_longer_record_counts_only_from_the_endpoint(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    long, short, longer = of(2), small(1), of(3)
    first, second, whole, *rest = on_the_way(a, b, long, short, longer)
    arrive(b, first)
    arrive(b, second, source=ELSEWHERE)
    assert (b.tun.written, b.drops()) == ([], {"wrong-endpoint": 1})
    arrive(b, whole, *rest, source=ELSEWHERE)
    assert b.tun.written == [short, longer], "in one run: it is the endpoint by then"


def test_a_session_moves_once_a_second(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    one, two, three = on_the_way(a, b, small(1), small(2), small(3))
    arrive(b, one, source=ELSEWHERE)
    b.now += 0.99
    arrive(b, two, source=FURTHER)
    assert b.tun.written == [small(1), small(2)]
    assert session(b).endpoint == ELSEWHERE
    b.now += 0.01
    arrive(b, three, source=FURTHER)
    assert session(b).endpoint == FURTHER
    assert b.moved == [ELSEWHERE, FURTHER]


def test_a_peer_that_must_not_roam_does_not(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    assert b.commands.carry_out(link.Options("a", roam=False)) == []
    (datagram,) = on_the_way(a, b, TO_B)
    arrive(b, datagram, source=ELSEWHERE)
    assert (b.tun.written, b.drops()) == ([], {"wrong-endpoint": 1})
    arrive(b, datagram)
    assert b.tun.written == [TO_B]
    assert b.moved == []


@pytest.mark.parametrize("source", [("10.10.10.3", 55555), ("10.0.1.7", 1), (ELSEWHERE[0], 0)])
def test_nothing_moves_to_where_nothing_can_be_sent(
    planes: tuple[Plane, Plane], source: tuple[str, int]
) -> None:
    """Behind the tunnel datagrams would go round for ever; no datagram is sent to port 0."""
    a, b = planes
    arrive(b, *on_the_way(a, b, TO_B), source=source)
    assert b.tun.written == [TO_B]
    assert session(b).endpoint == HOME
    assert b.moved == []


# Two sessions of one peer, as while it rekeys.


def rekeyed(a: Plane, b: Plane) -> tuple[Session, Session]:
    """Give both a second session, which only a sends on; b's first and second."""
    keys = {"receive_key": os.urandom(32), "send_key": os.urandom(32)}
    back = {"receive_key": keys["send_key"], "send_key": keys["receive_key"]}
    both: dict[str, Any] = {"suite": "aes-256-gcm"}
    ours: dict[str, Any] = {"index": 21, "peer": "b", "peer_index": 22, "endpoint": b.endpoint}
    theirs: dict[str, Any] = {"index": 22, "peer": "a", "peer_index": 21, "endpoint": HOME}
    assert a.order(link.Install, **both, **ours, **keys) is None
    assert b.order(link.Install, **both, **theirs, **back) is None
    return b.directory.sessions[B_INDEX], b.directory.sessions[22]


def test_a_session_that_fades_moves_nothing(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    old, new = rekeyed(a, b)
    (datagram,) = on_the_way(a, b, TO_B)
    assert b.order(link.Activate, index=22) is None
    arrive(b, datagram, source=ELSEWHERE)
    assert b.tun.written == [TO_B]
    assert old.endpoint == new.endpoint == HOME


def test_a_session_that_comes_moves(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    old, new = rekeyed(a, b)
    assert a.order(link.Activate, index=21) is None
    b.udp.arrived.clear()
    arrive(b, *on_the_way(a, b, TO_B), source=ELSEWHERE)
    assert (old.endpoint, new.endpoint) == (HOME, ELSEWHERE)
    assert b.heard[-1] == 22, "and it was heard"


# Until the endpoint has proved itself. A datagram counts for what it is here, so that small records
# do; the last test has the rule as it is.


@pytest.fixture
def unpadded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roaming, "PADDED", 0)


@pytest.mark.parametrize("packet", [None, TO_B], ids=["empty", "small"])
def test_a_small_record_counts_for_1200_bytes(
    planes: tuple[Plane, Plane], packet: bytes | None
) -> None:
    """So a peer that moved with an empty record can be sent a ping, which it answers."""
    a, b = planes
    if packet is None:
        a.outbound.send_empty(session(a))
        datagram = b.udp.arrived.pop()[0]
    else:
        (datagram,) = on_the_way(a, b, packet)
    arrive(b, datagram, source=ELSEWHERE)
    left = sent(b, *[frame(ipv4("10.10.9.3", "10.10.10.3", bytes(1000)))] * 9)
    assert len(left) == 3
    assert 3 * 1000 < sum(map(len, left)) <= 3 * roaming.PADDED
    assert b.drops() == {"unproved-endpoint": 6}


@pytest.mark.usefixtures("unpadded")
def test_three_times_as_much_goes_there_as_came_and_no_more(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    (datagram,) = on_the_way(a, b, TO_B)
    arrive(b, datagram, source=ELSEWHERE)
    before = session(b).counter
    left = sent(b, *[TO_A] * 5)
    assert len(datagram) == len(left[0])
    assert len(left) == 3
    assert b.drops() == {"unproved-endpoint": 2}
    assert session(b).counter == before + 3, "what is not sent takes no counter"
    sent(b, frame(ipv4("10.10.9.3", "10.10.10.3", bytes(5000))))
    assert b.drops() == {"unproved-endpoint": 3}


@pytest.mark.parametrize("span", [1, 64])
def test_the_allowance_is_in_bytes_of_udp(planes: tuple[Plane, Plane], span: int) -> None:
    """A byte less than two records of a train take, or than one long record takes, is too few.

    In the second's place the train's last leaves then, which is shorter.
    """
    a, _ = planes
    a.commands.carry_out(link.Shape("b", span, 1452))
    train = Superpacket(4, TCP, bytes(10_000), 1300).frame()[2:]
    sizes = list(map(len, sent(a, train)))
    most = sizes[:2] if span == 1 else sizes
    session(a).doubt(sum(most) - 1)
    less = [sizes[0], sizes[-1]] if span == 1 else []
    assert list(map(len, sent(a, train))) == less
    session(a).doubt(sum(most))
    assert list(map(len, sent(a, train))) == most


@pytest.mark.usefixtures("unpadded")
@pytest.mark.parametrize("size", [100, 3000])
def test_less_is_more_than_nothing(planes: tuple[Plane, Plane], size: int) -> None:
    """What does not fit the allowance any more leaves room for what does."""
    a, b = planes
    (datagram,) = on_the_way(a, b, TO_B)
    arrive(b, datagram, source=ELSEWHERE)
    left = sent(b, TO_A, frame(ipv4("10.10.9.3", "10.10.10.3", bytes(size))), TO_A)
    assert sum(map(len, left)) <= 3 * len(datagram)
    assert left[0][8:16] < left[-1][8:16]


@pytest.mark.usefixtures("unpadded")
def test_of_a_train_as_many_leave_as_may(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    (datagram,) = on_the_way(b, a, frame(ipv4("10.10.9.3", "10.10.10.3", bytes(1400 - 20))))
    arrive(a, datagram, source=ELSEWHERE)
    a.commands.carry_out(link.Shape("b", 1, 1452))
    left = sent(a, Superpacket(4, TCP, bytes(10_000), 100).frame()[2:])
    sizes = [len(one) for one in left]
    assert 3 * len(datagram) - 1452 < sum(sizes) <= 3 * len(datagram)
    assert a.drops().keys() == {"unproved-endpoint"}


@pytest.mark.usefixtures("unpadded")
def test_the_second_record_is_the_proof(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    first, *second = on_the_way(a, b, small(1), of(2))
    arrive(b, first, source=ELSEWHERE)
    assert len(sent(b, *[TO_A] * 9)) == 3
    arrive(b, *second, source=ELSEWHERE)
    assert len(sent(b, *[TO_A] * 9)) == 9
    assert session(b).ceiling == COUNTER_LIMIT, "and nobody looks any more"
    assert not session(b).news


@pytest.mark.usefixtures("unpadded")
def test_two_records_in_one_run_prove_it(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    arrive(b, *on_the_way(a, b, small(1), small(2)), source=ELSEWHERE)
    assert len(sent(b, *[TO_A] * 9)) == 9


@pytest.mark.usefixtures("unpadded")
@pytest.mark.parametrize("source", [HOME, FURTHER])
def test_a_record_from_another_place_proves_nothing(
    planes: tuple[Plane, Plane], source: tuple[str, int]
) -> None:
    a, b = planes
    late, first, second, proof = on_the_way(a, b, *map(small, range(4)))
    arrive(b, first, source=ELSEWHERE)
    arrive(b, late, second, source=source)
    assert len(b.tun.written) == 3
    assert len(sent(b, *[TO_A] * 9)) == 3
    arrive(b, proof, source=ELSEWHERE)
    assert len(sent(b, *[TO_A] * 9)) == 9


@pytest.mark.usefixtures("unpadded")
def test_a_second_move_begins_anew(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    one, two, three = on_the_way(a, b, small(1), small(2), small(3))
    arrive(b, one, two, source=ELSEWHERE)
    b.now += 1
    arrive(b, three, source=FURTHER)
    assert len(sent(b, *[TO_A] * 9)) == 3


def test_the_counters_limit_holds_at_an_unproved_endpoint_too(
    planes: tuple[Plane, Plane],
) -> None:
    a, b = planes
    arrive(b, *on_the_way(a, b, TO_B), source=ELSEWHERE)
    session(b).counter = COUNTER_LIMIT
    assert sent(b, TO_A) == []
    assert b.drops() == {"counter-exhausted": 1}


def test_on_the_new_path_longer_datagrams_are_tried_again() -> None:
    a, b = meet()
    assert b.peer().shrink()
    arrive(b, *on_the_way(a, b, TO_B), source=ELSEWHERE)
    assert b.peer().datagram_size == 1452


def test_control_of_the_harness() -> None:
    """Positive control: without a move all of it leaves."""
    _, b = meet()
    assert len(sent(b, *[TO_A] * 9)) == 9
    assert A_INDEX != B_INDEX
