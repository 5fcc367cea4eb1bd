"""Whatever fails when, no nonce is used twice, and all is counted: sent, or dropped."""

from __future__ import annotations

import errno

from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway import link
from gateway.protocol.wire import COUNTER_LIMIT
from tests.packets import TCP, UDP, frame, ipv4, udp
from tests.planes import Switches, Witness, failing, meet, session, watch
from tests.superpackets import Superpacket

FAILURES = [
    errno.EMSGSIZE,
    errno.EIO,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOBUFS,
    errno.EPERM,
    errno.EAGAIN,
]
PAYLOAD = bytes(range(256)) * 256

packets = st.integers(4, 60_000) | st.sampled_from([4, 100, 1300, 1400, 1500])
superpackets = st.tuples(
    st.sampled_from([TCP, UDP]), st.integers(2000, 60_000), st.sampled_from([500, 1400, 1448])
)


def build(what: int | tuple[int, int, int], number: int) -> bytes:
    """A frame of the TUN: a packet of this size, or a superpacket."""
    if isinstance(what, int):
        return frame(ipv4("10.10.10.3", "10.10.9.3", udp(number.to_bytes(4) + bytes(what - 4))))
    protocol, size, segment = what
    return Superpacket(4, protocol, PAYLOAD[:size], segment).frame()[2:]


@settings(max_examples=300)
@given(
    st.booleans(),
    st.sampled_from([1, 1, 2, 5, 64]),
    st.lists(st.lists(packets | superpackets, min_size=1, max_size=6), max_size=6),
    st.lists(st.sampled_from(FAILURES) | st.just(0) | st.just(0), max_size=40),
    st.none() | st.integers(0, 20),
)
def test_no_counter_seals_twice_and_every_packet_is_sent_or_dropped(
    gso: bool,
    span: int,
    rounds: list[list[int | tuple[int, int, int]]],
    failures: list[int],
    left: int | None,
) -> None:
    """The witness stops a counter that seals again; what leaves under one is the same bytes."""
    a, b = meet(switches=Switches(gso=gso, tun_offload=False))
    a.commands.carry_out(link.Shape("b", span, 1452))
    if left is not None:
        session(a).counter = COUNTER_LIMIT - left
    before = a.peer().counters()
    witness, datagrams = Witness(session(a)), watch(a.udp)
    failing(a.udp, iter(failures))
    number = 0
    for waiting in rounds:
        for what in waiting:
            a.tun.to_read.append(build(what, number))
            number += 1
        a.work()
        b.work()

    seen: dict[bytes, bytes] = {}
    for one in datagrams:
        header = one[:16]  # with the fragment's number
        assert seen.setdefault(header, one) == one, "other bytes under the same counter"
    assert {int.from_bytes(one[8:16]) for one in datagrams} <= set(witness.counters)
    assert session(a).counter <= COUNTER_LIMIT

    peer = a.peer()
    assert len(witness.counters) == peer.tx_records - before.tx_records + peer.tx_unsent
    arrived = [one for one in b.tun.written if one[22:26] == bytes([10, 10, 10, 3])]
    numbers = [int.from_bytes(one[38:42]) for one in arrived]
    assert numbers == sorted(set(numbers)), "in order, and none twice"
    came = b.peer()
    assert came.rx_packets >= peer.tx_packets - before.tx_packets, "what left whole arrived"
    assert set(b.drops()) <= {"duplicate-fragment", "replay"}
    if all(isinstance(what, int) for waiting in rounds for what in waiting):
        assert peer.tx_packets - before.tx_packets + sum(a.drops().values()) == number
    if not failures and left is None:
        assert a.drops() == {}
    event(f"failures: {sorted(a.drops())}")
