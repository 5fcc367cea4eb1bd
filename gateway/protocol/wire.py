"""Datagrams and records as bytes: parse and emit. Nothing here seals, waits or remembers.

One datagram carries one fragment of one record; numbers are big-endian:

     0         1          2          3          4               8                      16
    +---------+----------+-----------+----------+---------------+----------------------+-------
    | type: 1 | fragment | fragments |  zero    | session index | record counter       | bytes …
    +---------+----------+-----------+----------+---------------+----------------------+-------

A record is sealed once and then cut into n = 1 to 64 fragments of one size; only the last may be
shorter. So a sender's fragments all look alike, and a receiver has their place ready before they
come. What seals it:

    nonce             4 zero bytes | record counter (8 bytes)
    associated data   the header with `fragment` zeroed (so it binds n, index and counter)

Opened, a record is zero or more frames (none: a keepalive):

     0        2                    12
    +--------+---------------------+--------------------
    | length | virtio-net header   | IP packet (length) …
    +--------+---------------------+--------------------

The virtio-net header is little-endian on every machine.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

Buffer = bytes | bytearray | memoryview

# The numbers of this protocol. Each says where it is from.

TYPE_DATA: Final = 1
HEADER: Final = Struct(">BBBBIQ")
HEADER_SIZE: Final = HEADER.size  # 16
MAX_FRAGMENTS: Final = 64  # UDP_MAX_SEGMENTS of Linux before 6.9: one send can carry a whole record
MAX_RECORD: Final = 65535  # bytes, sealed; an IP packet cannot be longer either
DATAGRAM_SIZE: Final = 1452  # UDP payload: 1500 (Ethernet) - 40 (IPv6) - 8 (UDP)
MIN_DATAGRAM_SIZE: Final = 1232  # 1280, IPv6's least MTU (RFC 8200 5) - 40 (IPv6) - 8 (UDP)
SMALL: Final = MIN_DATAGRAM_SIZE - HEADER_SIZE  # bytes of a fragment that any path carries
MAX_DATAGRAM_SIZE: Final = 65507  # 65,535 - 20 (IPv4) - 8 (UDP)
COUNTER_LIMIT: Final = 1 << 36
"""Records that one key may seal, at the very most: none has a counter that high."""
KEY_LIMIT: Final = 1 << 36
"""Records and AES blocks, counted together, after which a key is destroyed: telling AES-GCM from
ideal then has a chance of 2^-57 (blocks^2 / 2^129). Looked at each second: a few more are no harm.
Rekeying by age comes long before."""
BLOCK: Final = 16  # bytes, of AES

FRAME_LENGTH: Final = Struct(">H")
VNET_HEADER_SIZE: Final = 10  # struct virtio_net_hdr, VIRTIO 1.2, 5.1.6
FRAME_HEADER_SIZE: Final = FRAME_LENGTH.size + VNET_HEADER_SIZE
MIN_PACKET: Final = 20  # an IPv4 header (RFC 791)

NONCE: Final = Struct(">IQ")

_NUMBERS: Final = bytes(range(MAX_FRAGMENTS))

Header = tuple[int, int, int, int]
"""fragment, fragments, session index, record counter"""


def parse_header(buffer: Buffer, start: int = 0) -> Header | None:
    """Read the header that starts there, or None when it is not one of ours."""
    kind, fragment, fragments, zero, index, counter = HEADER.unpack_from(buffer, start)
    if kind != TYPE_DATA or zero or not fragment < fragments <= MAX_FRAGMENTS:
        return None
    return fragment, fragments, index, counter


def emit_header(into: Buffer, header: Header) -> None:
    """Write a header at the start of `into`."""
    fragment, fragments, index, counter = header
    HEADER.pack_into(into, 0, TYPE_DATA, fragment, fragments, 0, index, counter)


def associated_data(fragments: int, index: int, counter: int) -> bytes:
    """Return what a record's seal covers besides its bytes."""
    return HEADER.pack(TYPE_DATA, 0, fragments, 0, index, counter)


def nonce(counter: int) -> bytes:
    """Return the 12 bytes that no two records under one key may share."""
    return NONCE.pack(0, counter)


def cut(length: int, room: int) -> tuple[int, int]:
    """Cut a sealed record into fragments of `room` bytes, the last shorter: how many, their size.

    The number may exceed MAX_FRAGMENTS when `room` is small; such a record cannot be sent.
    """
    return -(-length // room), min(length, room)


def number_fragments(into: memoryview, header: bytes | bytearray, fragments: int) -> None:
    """Write the headers of a record's fragments side by side; `header` is the first's."""
    end = HEADER_SIZE * fragments
    into[:end] = header * fragments
    into[1:end:HEADER_SIZE] = _NUMBERS[:fragments]


def parse_frames(buffer: memoryview, start: int, end: int) -> list[tuple[int, int]] | None:
    """Split the opened record at buffer[start:end]: where each frame starts and ends.

    None unless the record is made of whole frames.
    """
    frames = []
    while start < end:
        if end - start < FRAME_HEADER_SIZE + MIN_PACKET:
            return None
        (length,) = FRAME_LENGTH.unpack_from(buffer, start)
        stop = start + FRAME_HEADER_SIZE + length
        if length < MIN_PACKET or stop > end:
            return None
        frames.append((start, stop))
        start = stop
    return frames


def emit_frame(into: Buffer, start: int, length: int) -> None:
    """Put the length of the packet whose frame starts there.

    Its virtio-net header and packet are there already: the TUN was read to `start` + 2.
    """
    FRAME_LENGTH.pack_into(into, start, length)
