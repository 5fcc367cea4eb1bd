"""320,000 datagrams that nobody of ours sent: none raises, each is counted, memory is bounded."""

from __future__ import annotations

import itertools
import random
import struct
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest

from gateway.protocol import reassembly
from gateway.protocol.drops import Drop
from tests.packets import frame, ipv4, udp
from tests.planes import B_INDEX, Forger, Plane, Switches, meet, meet_hostile, on_the_way, session

TOTAL: Final = 100_000  # in each of three ways, and a fifth of it in two more
SMALL = frame(ipv4("10.10.10.3", "10.10.9.3", udp(b"hello")))
BIG = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(1480)))
HUGE = frame(ipv4("10.10.10.3", "10.10.9.3", bytes(30000)))
OF_DATAGRAMS = set(list(Drop)[: list(Drop).index(Drop.FORGED) + 1])

Mutation = Callable[[random.Random, bytes], bytes]


def anything(draw: random.Random, _: bytes) -> bytes:
    return draw.randbytes(draw.choice((0, 1, 15, 16, 17, 40, 1452, 2000)))


def plausible(draw: random.Random, _: bytes) -> bytes:
    """A header that could be ours, with anything behind it."""
    fragments = draw.choice((1, 2, 3, 46, 64, 65, 255))
    header = struct.pack(
        ">BBBBIQ",
        1,
        draw.randrange(min(fragments, 66)),
        fragments,
        0,
        draw.choice((B_INDEX, B_INDEX, draw.getrandbits(32))),
        draw.choice((draw.randrange(200), draw.getrandbits(64), draw.randrange(5000, 6000))),
    )
    return header + draw.randbytes(draw.choice((1, 16, 764, 1436, 3000)))


def truncated(draw: random.Random, genuine: bytes) -> bytes:
    return genuine[: draw.randrange(len(genuine))]


def flipped(draw: random.Random, genuine: bytes) -> bytes:
    changed = bytearray(genuine)
    where = range(draw.choice((128, len(changed) * 8)))  # half of the time in the header
    for bit in draw.sample(where, draw.choice((1, 1, 2, 8))):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def extended(draw: random.Random, genuine: bytes) -> bytes:
    return genuine + draw.randbytes(draw.randrange(1, 50))


MUTATIONS: Final[tuple[Mutation, ...]] = (anything, plausible, truncated, flipped, extended)


def genuine_datagrams(a: Plane, b: Plane) -> list[bytes]:
    """What a really sent, taken off the way."""
    return on_the_way(a, b, *[SMALL, BIG, HUGE] * 30)


def series(draw: random.Random, records: list[list[bytes]]) -> list[bytes]:
    """Fragments of one record in order, as a path brings them, and each a little bent."""
    row = draw.choice(records)
    start = draw.randrange(len(row))
    stop = draw.randint(start + 1, len(row))
    return [one[:-1] + bytes([one[-1] ^ 1]) for one in row[start:stop]]


@pytest.mark.parametrize(
    ("suite", "gro", "total"),
    [
        ("aes-256-gcm", True, TOTAL),
        ("aes-256-gcm", False, TOTAL),
        ("chacha20-poly1305", True, TOTAL),
        ("aes-256-cbc-hmac-sha256", True, TOTAL // 5),
    ],
)
def test_no_datagram_raises_and_every_one_is_counted(suite: str, gro: bool, total: int) -> None:
    draw = random.Random(20261122)
    a, b = meet(suite, switches=Switches(gro=gro))
    genuine = genuine_datagrams(a, b)
    by_counter = itertools.groupby(genuine, key=lambda one: one[8:16])
    records = [list(group) for _, group in by_counter]
    strangers = [("192.0.2.99", 1), ("192.0.2.1", 1)]
    opened_before = b.peer().rx_records
    came = peak_before = 0
    tracemalloc.start()
    while came < total:
        if draw.random() < 0.1:
            arriving = series(draw, records)
        else:
            arriving = [
                draw.choice(MUTATIONS)(draw, draw.choice(genuine))
                for _ in range(draw.randint(1, 9))
            ]
        source = a.endpoint if draw.random() < 0.8 else draw.choice(strangers)
        b.udp.arrived += [(datagram, source) for datagram in arriving]
        came += len(arriving)
        b.work()
        b.now += draw.choice((0, 0, 0.0001, 0.01))
        assert b.inbound._reassembly.memory <= reassembly.MEMORY
        if came > total // 10 and not peak_before:
            peak_before = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - peak_before
    tracemalloc.stop()

    drops = b.drops()
    # Nothing opened: the sum of the drops, and what waits for the rest of its record, is what came.
    assert b.peer().rx_records == opened_before
    assert b.tun.written == []
    assert set(drops) <= {str(reason) for reason in OF_DATAGRAMS}
    assert sum(drops.values()) + b.inbound.waiting == came
    assert len(drops) >= 7, drops
    assert grown < 2_000_000

    b.now += 2
    b.inbound.expire(b.now)
    assert sum(b.drops().values()) == came
    assert b.inbound.waiting == b.inbound._reassembly.memory == 0

    # And the tunnel is as good as before.
    session(a).counter = 10_000
    a.tun.to_read += [SMALL, BIG, HUGE]
    a.work()
    b.work()
    assert b.tun.written == [SMALL, BIG, HUGE]


@pytest.mark.parametrize("suite", ["null", "paper"])
def test_without_a_seal_or_a_window_nothing_raises_either(suite: str) -> None:
    """With `null` strangers are as the peer itself, with `paper` the header is theirs to choose."""
    draw = random.Random(5)
    a, b = meet(suite)
    genuine = genuine_datagrams(a, b)
    for _ in range(TOTAL // 50):
        arriving = [
            draw.choice(MUTATIONS)(draw, draw.choice(genuine)) for _ in range(draw.randint(1, 9))
        ]
        b.udp.arrived += [(datagram, a.endpoint) for datagram in arriving]
        b.work()
        b.now += draw.choice((0, 0, 0.0001, 0.01))
        assert b.inbound._reassembly.memory <= reassembly.MEMORY
    for written in b.tun.written:
        source = written[22:25] if written[10] >> 4 == 4 else written[18:26]
        assert source in {bytes([10, 10, 10]), bytes.fromhex("fd00000a00000000")}
    assert b.tun.written, "positive control: some of them are delivered"
    assert session(b).endpoint == a.endpoint


def test_a_peer_with_the_keys_cannot_make_it_raise_either() -> None:
    """The bytes inside the seal are the peer's: 20,000 of them at random."""
    draw = random.Random(7)
    b, a = meet_hostile()
    frames = struct.pack(">H", len(SMALL) - 10) + SMALL
    for _ in range(20_000):
        payload = bytearray(draw.choice((frames, frames * 2, draw.randbytes(60))))
        for _ in range(draw.choice((1, 2, 5))):
            payload[draw.randrange(len(payload))] = draw.getrandbits(8)
        a.send(payload=bytes(payload[: draw.choice((len(payload), draw.randrange(len(payload))))]))
    assert b.peer().rx_records == 20_000
    assert b.peer().rx_packets == len(b.tun.written)
    assert {"bad-frame", "not-ip", "bad-offload", "wrong-source"} <= set(b.drops())
    for written in b.tun.written:
        assert written[:2] in {b"\0\0", b"\1\0", b"\1\5"}
        source = written[22:25] if written[10] >> 4 == 4 else written[18:26]
        assert source in {bytes([10, 10, 10]), bytes.fromhex("fd00000a00000000")}


def test_the_forger_of_these_tests_is_believed_when_honest() -> None:
    """Positive control: what is dropped above is dropped for what was bent."""
    b, a = meet_hostile()
    assert isinstance(a, Forger)
    a.send(SMALL, BIG)
    assert b.tun.written == [SMALL, BIG]
