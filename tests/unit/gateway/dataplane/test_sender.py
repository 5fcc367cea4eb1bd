"""How a send fails, and what then: nothing raises, no nonce is used twice, what can leave does.

Each session here has a witness, which fails when a counter seals for a second time.
"""

from __future__ import annotations

import errno
import logging
import re
from itertools import repeat
from typing import TYPE_CHECKING

import pytest

from gateway import link
from gateway.dataplane.sender import SHAPES_KEPT, Sender
from gateway.protocol.wire import COUNTER_LIMIT, MAX_RECORD
from tests.packets import TCP, frame, ipv4, udp
from tests.planes import A_INDEX, Plane, Switches, Witness, failing, meet, narrow, session, watch
from tests.superpackets import Superpacket

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))
LONG = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(range(250)) * 36))  # seven datagrams
WHOLE = Superpacket(4, TCP, bytes(range(250)) * 40, 1448)  # at span 1: eight datagrams


@pytest.fixture
def planes() -> tuple[Plane, Plane]:
    """The second joins nothing: what left as it is what is seen there."""
    return meet(switches=Switches(tun_offload=False))


def put(a: Plane, *frames: bytes) -> None:
    """Let these frames come out of the TUN, one by one."""
    for one in frames:
        a.tun.to_read.append(one)
        a.transmit()


def by_record(datagrams: Iterable[bytes]) -> dict[int, dict[int, bytes]]:
    """What left under each counter: fragments, of which copies must be equal."""
    found: dict[int, dict[int, bytes]] = {}
    for one in datagrams:
        parts = found.setdefault(int.from_bytes(one[8:16]), {})
        assert parts.setdefault(one[1], one) == one, "other bytes under the same counter"
    return found


def sender(a: Plane) -> Sender:
    return a.outbound._sender


# Too long for the path: the record is sealed anew, in shorter datagrams.


@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("refusal", [errno.EMSGSIZE, errno.EINVAL], ids=["6.10", "before"])
@pytest.mark.parametrize("most", [1451, 1400, 1252, 1232])
def test_datagrams_get_shorter_until_they_pass(most: int, refusal: int, gso: bool) -> None:
    a, b = meet(switches=Switches(gso=gso))
    witness = Witness(session(a))
    narrow(a.udp, most, refusal)
    left = watch(a.udp)
    put(a, LONG, SMALL)
    b.work()
    assert b.tun.written == [LONG, SMALL]
    assert a.drops() == b.drops() == {}
    sizes = {len(one) for one in left}
    assert most * 31 // 32 <= max(sizes) <= most
    assert a.peer().datagram_size == max(sizes)
    assert sender(a).gso is gso, "the size was the reason, not the way to send"
    peer = a.peer()
    assert peer.tx_unsent == len(witness.counters) - 2 > 0
    assert peer.tx_records == 1 + 2, "with the keepalive of the beginning"
    assert (peer.tx_packets, peer.tx_bytes) == (2, len(LONG) + len(SMALL) - 20)


def test_the_record_sealed_anew_has_a_counter_of_its_own(planes: tuple[Plane, Plane]) -> None:
    """The old one, in other datagrams, would be the same nonce under another header."""
    a, b = planes
    witness = Witness(session(a))
    failing(a.udp, iter([errno.EMSGSIZE]))
    left = watch(a.udp)
    put(a, LONG)
    assert witness.counters == [1, 2]
    assert set(by_record(left)) == {2}
    assert {one[2] for one in left} == {7}
    b.work()
    assert b.tun.written == [LONG]
    b.directory.count_lost(ours=False)
    assert (a.peer().tx_unsent, b.peer().rx_lost) == (1, 1), "so it is not the path's loss"


def test_below_the_smallest_size_it_is_a_drop(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    witness = Witness(session(a))
    narrow(a.udp, 1231)
    put(a, LONG, SMALL)
    assert a.drops() == {"datagram-too-large": 1}
    assert a.peer().datagram_size == 1232
    assert a.peer().tx_unsent == len(witness.counters) - 1
    b.work()
    assert b.tun.written == [SMALL]


def test_a_send_of_which_some_left_is_sealed_anew_as_well() -> None:
    a, b = meet(switches=Switches(gso=False))
    Witness(session(a))
    failing(a.udp, iter([0, 0, errno.EMSGSIZE]))
    left = watch(a.udp)
    put(a, LONG)
    assert {counter: len(parts) for counter, parts in by_record(left).items()} == {1: 2, 2: 7}
    b.work()
    assert b.tun.written == [LONG]
    assert b.inbound.waiting == 2


def test_a_new_session_tries_the_size_of_the_config_again(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    narrow(a.udp, 1300)
    put(a, LONG)
    assert a.peer().datagram_size < 1300
    assert a.order(link.Activate, index=A_INDEX) is None
    assert a.peer().datagram_size == 1452


# A kernel that cannot cut: each datagram is a send of its own.


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT])
def test_what_the_kernel_does_not_cut_leaves_one_by_one(
    planes: tuple[Plane, Plane], number: int, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = planes
    witness = Witness(session(a))
    a.udp.gso_failure = OSError(number, "as told")
    left = watch(a.udp)
    with caplog.at_level(logging.WARNING):
        put(a, LONG, LONG, SMALL)
    b.work()
    assert b.tun.written == [LONG, LONG, SMALL]
    assert witness.counters == [1, 2, 3], "under the counter that it had"
    assert {counter: len(parts) for counter, parts in by_record(left).items()} == {1: 7, 2: 7, 3: 1}
    assert [re.sub(r":.*;", ":;", one.message) for one in caplog.records] == [
        "UDP_SEGMENT:; each datagram is a send of its own"
    ], "said once"
    assert sender(a).gso is False
    a.udp.gso_failure = None
    a.udp.sends = 0
    put(a, LONG)
    assert a.udp.sends == 7, "it is not tried again"
    assert a.peer().tx_unsent == 0


def test_a_refusal_of_the_second_send_sends_all_of_the_record_again() -> None:
    """Some datagrams arrive twice: the same bytes, and the second copy is dropped."""
    a, b = meet()
    witness = Witness(session(a))
    longest = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(MAX_RECORD - 16 - 12 - 20)))
    failing(a.udp, iter([0, errno.EIO]))
    left = watch(a.udp)
    put(a, longest)
    assert witness.counters == [1]
    assert len(by_record(left)[1]) == 46 < len(left)
    b.work()
    assert b.tun.written == [longest]
    assert set(b.drops()) <= {"duplicate-fragment", "replay"}


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH, errno.ENOMEM])
def test_other_failures_say_nothing_about_cutting(planes: tuple[Plane, Plane], number: int) -> None:
    a, b = planes
    Witness(session(a))
    failing(a.udp, iter([number]))
    put(a, LONG)
    assert sum(a.drops().values()) == 1
    assert a.udp.sends == 1, "the empty record; nothing of this one"
    assert sender(a).gso is True
    assert a.peer().datagram_size == 1452
    put(a, LONG)
    b.work()
    assert b.tun.written == [LONG]


def test_a_failure_of_the_datagrams_one_by_one_leaves_it_open_who_was_to_blame(
    planes: tuple[Plane, Plane], caplog: pytest.LogCaptureFixture
) -> None:
    a, _ = planes
    failing(a.udp, iter([errno.EINVAL, 0, errno.ENOBUFS]))
    put(a, LONG)
    assert a.drops() == {"send-buffer-full": 1}
    assert sender(a).gso is True
    assert caplog.records == []


def test_a_failed_record_counts_each_packet_in_it(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    a.tun.to_read += [SMALL] * 5
    a.transmit()
    failing(a.udp, repeat(errno.ENOBUFS, 1))
    a.tun.to_read += [SMALL] * 5
    a.transmit()
    assert a.drops() == {"send-buffer-full": 5}
    assert (a.peer().tx_packets, a.peer().tx_unsent) == (5, 1)


def test_an_empty_record_that_does_not_leave_is_one_drop(planes: tuple[Plane, Plane]) -> None:
    a, _ = planes
    failing(a.udp, iter([errno.ENETUNREACH]))
    assert a.order(link.Activate, index=A_INDEX) is None
    assert a.drops() == {"unreachable": 1}


# Trains: many records of one datagram each in one send.


@pytest.fixture
def lossy(planes: tuple[Plane, Plane]) -> tuple[Plane, Plane]:
    """At span 1."""
    planes[0].commands.carry_out(link.Shape("b", 1, 1452))
    return planes


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM, errno.EMSGSIZE])
def test_a_train_that_does_not_leave_is_dropped(lossy: tuple[Plane, Plane], number: int) -> None:
    """Its frames' headers are written over by then: nothing could be sealed anew."""
    a, b = lossy
    witness = Witness(session(a))
    failing(a.udp, iter([number]))
    put(a, WHOLE.frame()[2:], SMALL)
    assert list(a.drops().values()) == [8]
    assert a.peer().tx_unsent == 8
    assert witness.counters == list(range(1, 10))
    assert a.peer().datagram_size == (1406 if number == errno.EMSGSIZE else 1452)
    b.work()
    assert b.tun.written == [SMALL]


def test_after_a_train_that_was_too_long_the_next_one_fits(lossy: tuple[Plane, Plane]) -> None:
    a, b = lossy
    Witness(session(a))
    narrow(a.udp, 1350)
    put(a, *[WHOLE.frame()[2:]] * 4)
    dropped = a.drops()["datagram-too-large"]
    assert dropped <= 3 * 8
    before = len(b.udp.arrived)
    put(a, WHOLE.frame()[2:])
    assert len(b.udp.arrived) - before == 9, "shorter packets, one more of them"
    b.work()
    assert a.drops() == {"datagram-too-large": dropped}
    assert b.drops() == {}


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_a_train_that_the_kernel_does_not_cut_leaves_one_by_one(
    lossy: tuple[Plane, Plane], number: int
) -> None:
    a, b = lossy
    witness = Witness(session(a))
    a.udp.gso_failure = OSError(number, "as told")
    put(a, WHOLE.frame()[2:])
    assert witness.counters == list(range(1, 9))
    assert sender(a).gso is False
    assert a.udp.sends == 1 + 8
    b.work()
    assert sum(len(one) - 50 for one in b.tun.written) == len(WHOLE.payload)


def test_a_train_stops_at_the_limit_of_the_key(lossy: tuple[Plane, Plane]) -> None:
    a, b = lossy
    Witness(session(a))
    session(a).counter = COUNTER_LIMIT - 3
    put(a, WHOLE.frame()[2:])
    assert a.drops() == {"counter-exhausted": 5}
    b.work()
    assert len(b.tun.written) == 3
    assert session(a).counter == COUNTER_LIMIT


def test_what_a_train_carries_is_counted(lossy: tuple[Plane, Plane]) -> None:
    a, b = lossy
    put(a, WHOLE.frame()[2:])
    b.work()
    sent, came = a.peer().counters(), b.peer().counters()
    assert (sent.tx_packets, sent.tx_records, sent.tx_datagrams) == (8, 9, 9)
    assert (came.rx_packets, came.rx_records, came.rx_datagrams) == (8, 9, 9)
    assert sent.tx_bytes == came.rx_bytes == len(WHOLE.payload) + 8 * 40


def test_the_large_ones_of_a_train_are_counted(lossy: tuple[Plane, Plane]) -> None:
    a, b = lossy
    put(a, WHOLE.frame()[2:])
    b.work()
    assert a.peer().tx_large == b.peer().rx_large == 7


def plain(a: Plane, sizes: Iterable[int]) -> tuple[memoryview, list[tuple[int, int]]]:
    """A buffer of frames of these sizes: what a train is made of."""
    frames, buffer = [], b""
    for number, size in enumerate(sizes):
        packet = ipv4("10.10.10.3", "10.10.9.3", bytes([number]) * (size - 12 - 20))
        frames.append((len(buffer), size))
        buffer += (size - 12).to_bytes(2) + bytes(10) + packet
    return memoryview(bytearray(buffer)), frames


@pytest.mark.parametrize(
    ("sizes", "sends"),
    [
        ([1400] * 5, 1),
        ([1400] * 4 + [900], 1),
        ([1400, 900, 1400, 1400], 2),  # only the last of a send may be shorter
        ([900, 1400, 1400], 2),
        ([1400, 1400, 3000, 1400], 3),  # one of three datagrams goes its own way
        ([500] * 64, 1),
        ([500] * 65, 2),  # UDP_MAX_SEGMENTS
        ([1400] * 47, 3),  # 46 fill the buffer, and one send takes 65,507 bytes
        ([], 0),
    ],
)
def test_trains_are_what_one_send_takes(
    planes: tuple[Plane, Plane], sizes: list[int], sends: int
) -> None:
    a, b = planes
    witness = Witness(session(a))
    a.udp.sends = 0
    left = watch(a.udp)
    buffer, frames = plain(a, sizes)
    sender(a).send_train(session(a), buffer, frames)
    b.work()
    assert [one[10 + 20] for one in b.tun.written] == list(range(len(sizes))), "in order"
    assert [len(one) + 2 for one in b.tun.written] == sizes
    assert a.udp.sends == sends
    assert len(by_record(left)) == len(sizes) == len(witness.counters)


def test_datagrams_of_every_size_take_no_memory(planes: tuple[Plane, Plane]) -> None:
    a, b = planes
    for size in range(100, 200):
        buffer, frames = plain(a, [size, size])
        sender(a).send_train(session(a), buffer, frames)
        assert len(sender(a)._shapes) <= SHAPES_KEPT
    b.work()
    assert [len(one) + 2 for one in b.tun.written[::2]] == list(range(100, 200))
