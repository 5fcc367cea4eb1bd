"""What is emitted parses to the same; what parses is what was emitted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol import wire
from tests.packets import record

indices = st.integers(0, 2**32 - 1)
counters = st.integers(0, 2**64 - 1)
headers = st.integers(1, 64).flatmap(
    lambda n: st.tuples(st.integers(0, n - 1), st.just(n), indices, counters)
)
frames = st.lists(st.binary(min_size=30, max_size=200), max_size=5)


@given(headers, st.binary(min_size=1, max_size=20))
def test_a_header_survives(header: wire.Header, body: bytes) -> None:
    into = bytearray(wire.HEADER_SIZE)
    wire.emit_header(into, header)
    assert wire.parse_header(bytes(into) + body) == header
    assert into[1:2] == bytes([header[0]])
    into[1] = 0
    assert wire.associated_data(*header[1:]) == into


@given(st.binary(min_size=wire.HEADER_SIZE, max_size=60), st.integers(0, 44))
def test_a_header_that_parses_emits_the_same_bytes(datagram: bytes, start: int) -> None:
    start = min(start, len(datagram) - wire.HEADER_SIZE)
    header = wire.parse_header(datagram, start)
    if header is not None:
        into = bytearray(wire.HEADER_SIZE)
        wire.emit_header(into, header)
        assert into == datagram[start : start + wire.HEADER_SIZE]


@given(st.integers(1, wire.MAX_FRAGMENTS), indices, counters)
def test_numbered_headers_are_those_emitted_one_by_one(n: int, index: int, counter: int) -> None:
    row = memoryview(bytearray(wire.HEADER_SIZE * wire.MAX_FRAGMENTS))
    wire.number_fragments(row, wire.associated_data(n, index, counter), n)
    for fragment in range(n):
        one = bytearray(wire.HEADER_SIZE)
        wire.emit_header(one, (fragment, n, index, counter))
        assert row[fragment * wire.HEADER_SIZE :][: wire.HEADER_SIZE] == one


@given(counters, counters)
def test_nonces_are_as_different_as_counters(one: int, other: int) -> None:
    assert (wire.nonce(one) == wire.nonce(other)) is (one == other)


@given(frames)
def test_frames_survive(sent: list[bytes]) -> None:
    into = bytearray(sum(2 + len(one) for one in sent))
    end = 0
    for one in sent:
        into[end + 2 : end + 2 + len(one)] = one
        wire.emit_frame(into, end, len(one) - wire.VNET_HEADER_SIZE)
        end += 2 + len(one)
    assert into == record(*sent)
    parsed = wire.parse_frames(memoryview(into), 0, len(into))
    assert parsed is not None
    assert [bytes(into[start + 2 : end]) for start, end in parsed] == sent


@given(st.binary(max_size=300), st.integers(0, 50), st.integers(0, 50))
def test_frames_that_parse_emit_the_same_bytes(plain: bytes, before: int, behind: int) -> None:
    end = max(len(plain) - behind, 0)
    start = min(before, end)
    parsed = wire.parse_frames(memoryview(plain), start, end)
    if parsed is not None:
        assert record(*(plain[a + 2 : b] for a, b in parsed)) == plain[start:end]


@given(st.integers(1, wire.MAX_RECORD), st.integers(1100, 1452))
def test_a_cut_covers_all_and_only_the_last_is_shorter(length: int, room: int) -> None:
    fragments, size = wire.cut(length, room)
    assert fragments <= wire.MAX_FRAGMENTS
    assert 0 < length - (fragments - 1) * size <= size
    assert size == (room if fragments > 1 else length)
