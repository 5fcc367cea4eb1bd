"""Datagrams are taken apart, changed and put together as the wire has them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from lab.mitm import datagrams
from lab.mitm.datagrams import FIELDS, HEADER, TAGS, Datagram

HEAD = HEADER.pack(1, 0, 2, 0, 0x11223344, 5)
ONE = Datagram("203.0.113.2", "198.51.100.2", 55555, 50000, HEAD + bytes(range(120)))


def test_a_packet_is_what_others_read() -> None:
    read = IP(ONE.packet())
    assert (read.src, read.dst, read.flags, read.proto) == (ONE.source, ONE.target, "DF", 17)
    assert (read[UDP].sport, read[UDP].dport, read[UDP].chksum) == (55555, 50000, 0)
    assert bytes(read[UDP].payload) == ONE.payload
    sum_ = read.chksum
    del read.chksum
    assert IP(bytes(read)).chksum == sum_


def test_what_others_wrote_is_read() -> None:
    packet = IP(src="192.0.2.1", dst="192.0.2.9", options=b"\x01" * 4) / UDP(sport=1, dport=2)
    found = Datagram.parse(bytes(packet / ONE.payload) + b"padding")
    assert found == Datagram("192.0.2.1", "192.0.2.9", 1, 2, ONE.payload)
    assert (found.fragment, found.fragments, found.index, found.counter) == (0, 2, 0x11223344, 5)
    assert found.body == bytes(range(120))


@given(st.binary(max_size=80))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    try:
        found = Datagram.parse(noise)
    except ValueError:
        return
    assert Datagram.parse(found.packet()) == found


def test_what_is_none_of_the_tunnel_is_refused() -> None:
    good = ONE.packet()
    assert Datagram.parse(good) == ONE
    for bad in (
        good[:40],
        b"\x65" + good[1:],
        good[:9] + b"\x06" + good[10:],
        good[:6] + b"\x20\x00" + good[8:],
        IP(src="192.0.2.1", dst="192.0.2.9").build() + b"12345678",
    ):
        with pytest.raises(ValueError, match=r"not UDP|too short|a fragment"):
            Datagram.parse(bad)


@pytest.mark.parametrize("suite", TAGS)
@pytest.mark.parametrize("field", [*FIELDS, "ciphertext", "tag"])
def test_a_flipped_bit_is_of_its_field(field: str, suite: str) -> None:
    size = len(ONE.payload)
    places = {
        **FIELDS,
        "ciphertext": (size - TAGS[suite] - 24, size - TAGS[suite]),
        "tag": (size - TAGS[suite], size),
    }
    first, last = places[field]
    for seed in range(20):
        changed = ONE.flipped(datagrams.bit_of(ONE, field, suite, Random(seed)))
        differing = [
            (at, one ^ other)
            for at, (one, other) in enumerate(zip(ONE.payload, changed.payload, strict=True))
            if one != other
        ]
        ((at, bit),) = differing
        assert first <= at < last
        assert bit.bit_count() == 1


@given(st.integers(0, 2**40))
def test_a_flipped_counter_is_one_that_comes_later(counter: int) -> None:
    datagram = ONE.to(counter=counter)
    changed = datagram.flipped(datagrams.bit_of(datagram, "counter", "null", Random(1)))
    assert changed.counter - counter >= 4096
    assert (changed.index, changed.body) == (datagram.index, datagram.body)


def test_a_flood_has_other_sessions_and_huge_counters() -> None:
    forged = datagrams.flood(ONE, 100, Random(1))
    right = [one for one in forged if one.index == ONE.index]
    assert len(right) == 50
    assert min(one.counter for one in forged) >= 1 << 40
    assert {len(one.payload) for one in forged} == {len(ONE.payload)}
    assert len({one.body for one in forged}) == 100
    assert {(one.source, one.source_port) for one in forged} == {("203.0.113.2", 55555)}


def test_sent_back_and_renamed() -> None:
    back = ONE.sent_back()
    assert (back.source, back.target_port) == (ONE.target, ONE.source_port)
    assert back.sent_back() == ONE
    assert ONE.to(index=7).index == 7
    assert ONE.to(index=7).counter == ONE.counter
    assert ONE.with_body(b"x").payload == HEAD + b"x"


def test_equal_blocks_are_counted_from_the_beginning() -> None:
    one = bytes(64)
    assert datagrams.equal_blocks(one, one) == 4
    assert datagrams.equal_blocks(one, bytes(40) + b"x" + bytes(23)) == 2
    assert datagrams.equal_blocks(one, b"x" + bytes(63)) == 0
    assert datagrams.equal_blocks(one, bytes(20)) == 1
    assert datagrams.equal_blocks(b"", b"") == 0
