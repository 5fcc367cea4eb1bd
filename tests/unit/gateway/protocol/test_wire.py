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


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        header(),  # no fragment
        header(kind=0) + b"x",
        header(kind=2) + b"x",
        header(zero=1) + b"x",
        header(fragments=0) + b"x",
        header(fragment=1) + b"x",
        header(fragment=64, fragments=65) + b"x",
        header(fragments=65) + b"x",
        (header() + b"x")[:15],
    ],
)
def test_what_is_no_datagram_of_ours_is_refused(datagram: bytes) -> None:
    assert wire.parse_header(datagram) is None


def test_the_seal_binds_count_index_and_counter_and_not_the_fragment() -> None:
    assert wire.associated_data(3, 7, 9).hex() == "01000300" + "00000007" + "0000000000000009"
    assert wire.nonce(0x0102030405060708).hex() == "00000000" + "0102030405060708"


@pytest.mark.parametrize(
    ("length", "room", "fragments", "size"),
    [(1, 1436, 1, 1), (1436, 1436, 1, 1436), (1437, 1436, 2, 719), (65535, 1436, 46, 1425)],
)
def test_a_record_is_cut_evenly(length: int, room: int, fragments: int, size: int) -> None:
    assert wire.cut(length, room) == (fragments, size)


def test_a_whole_packet_of_1500_bytes_takes_two_datagrams() -> None:
    assert wire.cut(wire.FRAME_HEADER_SIZE + 1500 + 16, wire.DATAGRAM_SIZE - 16) == (2, 764)


def test_a_record_of_no_frame_is_a_keepalive() -> None:
    assert wire.parse_frames(memoryview(b"")) == []


def test_frames_come_out_as_they_went_in() -> None:
    frames = [frame(ipv4("10.0.0.1", "10.0.0.2", bytes(size))) for size in (0, 1, 700)]
    parsed = wire.parse_frames(memoryview(record(*frames)))
    assert parsed is not None
    assert [bytes(one) for one in parsed] == frames


@pytest.mark.parametrize("cut", [1, 2, 11, 12, 31, 33, 63])
def test_a_record_that_ends_within_a_frame_is_refused_whole(cut: int) -> None:
    two = record(*[frame(ipv4("10.0.0.1", "10.0.0.2"))] * 2)
    assert len(two) == 64
    assert wire.parse_frames(memoryview(two[:cut])) is None


def test_a_frame_shorter_than_an_ip_header_is_refused() -> None:
    assert wire.parse_frames(memoryview(record(frame(bytes(19))) + bytes(40))) is None
