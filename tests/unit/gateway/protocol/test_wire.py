"""Datagrams and records as bytes."""

from __future__ import annotations

import pytest

from gateway.protocol import wire
from tests.packets import frame, ipv4, record


def header(kind: int = 1, fragment: int = 0, fragments: int = 1, zero: int = 0) -> bytes:
    return bytes([kind, fragment, fragments, zero]) + bytes(12)


def test_the_header_is_the_one_of_the_diagram() -> None:
    into = bytearray(16)
    wire.emit_header(into, (2, 5, 0x01020304, 0x05060708090A0B0C))
    assert into.hex() == "01020500" + "01020304" + "05060708090a0b0c"
    assert wire.parse_header(bytes(into) + b"x") == (2, 5, 0x01020304, 0x05060708090A0B0C)


def test_a_header_is_read_where_it_stands() -> None:
    """Many stand in one row, each where its datagram landed."""
    row = header() + header(fragment=1, fragments=2) + header(kind=2)
    parsed = [wire.parse_header(row, start) for start in (0, 16, 32)]
    assert parsed == [(0, 1, 0, 0), (1, 2, 0, 0), None]


@pytest.mark.parametrize(
    "datagram",
    [
        header(kind=0),
        header(kind=2),
        header(zero=1),
        header(fragments=0),
        header(fragment=1),
        header(fragment=64, fragments=65),
        header(fragments=65),
    ],
)
def test_what_is_no_datagram_of_ours_is_refused(datagram: bytes) -> None:
    assert wire.parse_header(datagram + b"x") is None


def test_the_seal_binds_count_index_and_counter_and_not_the_fragment() -> None:
    assert wire.associated_data(3, 7, 9).hex() == "01000300" + "00000007" + "0000000000000009"
    assert wire.nonce(0x0102030405060708).hex() == "00000000" + "0102030405060708"


@pytest.mark.parametrize(
    ("length", "room", "fragments", "size"),
    [
        (1, 1436, 1, 1),
        (1436, 1436, 1, 1436),
        (1437, 1436, 2, 1436),
        (65535, 1436, 46, 1436),
        (65535, 1216, 54, 1216),
    ],
)
def test_fragments_have_one_size_but_for_the_last(
    length: int, room: int, fragments: int, size: int
) -> None:
    assert wire.cut(length, room) == (fragments, size)


def test_a_whole_packet_of_1500_bytes_takes_two_datagrams() -> None:
    assert wire.cut(wire.FRAME_HEADER_SIZE + 1500 + 16, wire.DATAGRAM_SIZE - 16) == (2, 1436)


def test_the_longest_record_fits_the_fragments_that_there_are() -> None:
    """At the smallest datagram, too; so a superpacket of any size can leave as one record."""
    fragments, _ = wire.cut(wire.MAX_RECORD, wire.MIN_DATAGRAM_SIZE - wire.HEADER_SIZE)
    assert fragments <= wire.MAX_FRAGMENTS


def test_the_fragments_headers_stand_side_by_side() -> None:
    row = memoryview(bytearray(b"\xff" * 80))
    wire.number_fragments(row, wire.associated_data(3, 7, 9), 3)
    headers = [wire.parse_header(row, start) for start in range(0, 48, 16)]
    assert headers == [(0, 3, 7, 9), (1, 3, 7, 9), (2, 3, 7, 9)]
    assert row[48:] == b"\xff" * 32, "nothing behind them"


def parse_frames(payload: bytes) -> list[tuple[int, int]] | None:
    """What frames there are, whatever stands around them."""
    around = b"\0\24" * 20
    found = wire.parse_frames(memoryview(around + payload + around), 40, 40 + len(payload))
    return found if found is None else [(start - 40, end - 40) for start, end in found]


def test_a_record_of_no_frame_is_a_keepalive() -> None:
    assert parse_frames(b"") == []


def test_frames_come_out_as_they_went_in() -> None:
    frames = [frame(ipv4("10.0.0.1", "10.0.0.2", bytes(size))) for size in (0, 1, 700)]
    whole = record(*frames)
    parsed = parse_frames(whole)
    assert parsed is not None
    assert [whole[start + 2 : end] for start, end in parsed] == frames
    assert (parsed[0][0], parsed[-1][1]) == (0, len(whole))


def test_a_frame_gets_its_packets_length_where_it_starts() -> None:
    into = bytearray(10)
    wire.emit_frame(into, 3, 0x0102)
    assert into.hex() == "000000" + "0102" + "0000000000"


@pytest.mark.parametrize("cut", [1, 2, 11, 12, 31, 33, 63])
def test_a_record_that_ends_within_a_frame_is_refused_whole(cut: int) -> None:
    two = record(*[frame(ipv4("10.0.0.1", "10.0.0.2"))] * 2)
    assert len(two) == 64
    assert parse_frames(two[:cut]) is None


@pytest.mark.parametrize("size", [0, 19])
def test_a_frame_shorter_than_an_ip_header_is_refused(size: int) -> None:
    whole = frame(ipv4("10.0.0.1", "10.0.0.2"))
    assert parse_frames(record(whole, frame(bytes(20)), whole)) is not None
    assert parse_frames(record(whole, frame(bytes(size)), whole)) is None


def test_the_smallest_datagram_passes_where_ipv6_does() -> None:
    assert wire.MIN_DATAGRAM_SIZE + 40 + 8 == 1280  # RFC 8200, section 5
    assert wire.SMALL == wire.MIN_DATAGRAM_SIZE - wire.HEADER_SIZE
